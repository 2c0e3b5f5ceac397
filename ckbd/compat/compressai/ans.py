"""The names of `compressai.ans`, and the function of `compressai._CXX` that makes its tables.

Streams, symbols and what is accepted are those of CompressAI 1.2.6 to 1.2.8, which need not be installed. Where it
would read or write out of bounds, divide by zero or not come back, ValueError names the argument and the place.
No symbol at all is a stream of 8 bytes.
"""

from ckbd._ans import BufferedRansEncoder, RansDecoder, RansEncoder, pmf_to_quantized_cdf

__all__ = ["BufferedRansEncoder", "RansDecoder", "RansEncoder", "pmf_to_quantized_cdf"]
