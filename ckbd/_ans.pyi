"""The compiled coder of CompressAI's streams, byte for byte: ckbd.compat.compressai is built on it.

Arrays are contiguous: numpy arrays, anything else with the buffer protocol, and torch CPU tensors. They are read
and written in place, with the GIL released, so nobody may change them during a call; what is written must not
overlap what is read. A wrong dtype, shape or value raises ValueError with the argument's name, what was expected and
what came, and where. After an error in decoding the output means nothing.

A stream: 64 bits of state, then words of 32 bits, little endian. A row of a table: cumulative frequencies out of
2^16, `sizes` of them, the last slot being the escape. Rows are looked at when a symbol uses them: broken ones that
nobody uses do no harm, and neither do words that are missing but not needed, or bytes too many.

Encoding refuses a row whose size is below 2 or larger than the row, a slot whose frequency is not in 1..65535, and a
symbol 2^27 or more outside of its row. Decoding refuses a stream of less than 8 bytes, one that ends before the last
symbol, a slot that the row has not, an escape of more than 8 digits. Symbols and offsets wrap around as int32 does.

threads: how many a batch may use; None is one for each CPU that the process may use. isa: one of isas(); None takes
the fastest. All give the same.
"""

from collections.abc import Sequence
from typing import SupportsIndex

from torch import Tensor
from typing_extensions import Buffer

Array = Buffer | Tensor

class Tables:
    """Rows and what makes them fast, copied. Does not change; may be used by many threads at once."""

    def __init__(self, cdfs: Array, sizes: Array, offsets: Array) -> None:
        """cdfs int32 (n, m), sizes and offsets int32 (n,): any values. See the module for what is refused in use."""

    def matches(self, cdfs: Array, sizes: Array, offsets: Array) -> bool:
        """Whether they equal those that it was made from; entries behind the size of a row do not count."""

def encode(tables: Tables, symbols: Array, indexes: Array) -> bytes:
    """The stream of symbols int32 (n,), each by the row indexes int32 (n,); 8 bytes if there are none."""

def decode(tables: Tables, stream: Array, indexes: Array, out: Array) -> None:
    """Fills out, int32 (n,), from stream, uint8, by the rows indexes int32 (n,)."""

def encode_batch(tables: Tables, symbols: Array, indexes: Array, *, threads: int | None = None) -> list[bytes]:
    """encode() of each row of symbols and indexes, int32 (B, n)."""

def decode_batch(
    tables: Tables, streams: Sequence[Array], indexes: Array, out: Array, *, threads: int | None = None
) -> None:
    """decode() of B streams into the rows of out by those of indexes, int32 (B, n)."""

def encode_latents(
    tables: Tables, x: Array, means: Array | None, indexes: Array, *, threads: int | None = None
) -> list[bytes]:
    """encode_batch() of symbols_of(x, means), float32 (B, n) both."""

def decode_latents(
    tables: Tables,
    streams: Sequence[Array],
    indexes: Array,
    means: Array | None,
    out: Array,
    *,
    threads: int | None = None,
) -> None:
    """decode_batch() as float32, with means added: out and means float32 (B, n), indexes int32 (B, n)."""

def encode_rows(cdfs: Array, symbols: Array) -> bytes:
    """The stream of symbols int32 (n,), symbol i by row i of cdfs int32 (n, m): size m, offset 0."""

def decode_rows(cdfs: Array, stream: Array, out: Array) -> None:
    """Fills out, int32 (n,), from stream, uint8, symbol i by row i of cdfs int32 (n, m): size m, offset 0."""

class Encoder:
    """Writes one stream in steps. Calls from several threads come one after another."""

    def push(self, tables: Tables, symbols: Array, indexes: Array) -> None:
        """Adds symbols int32 (n,) by the rows indexes int32 (n,), copied; all, or none if an error is raised."""

    def flush(self) -> bytes:
        """The stream of all symbols since the last flush(); begins anew."""

class Decoder:
    """Reads one stream in steps of any sizes. Calls from several threads come one after another."""

    def __init__(self, stream: Array) -> None:
        """stream uint8, held, not copied, until the decoder goes."""

    def decode(self, tables: Tables, indexes: Array, out: Array) -> None:
        """Fills out, int32 (n,), by the rows indexes int32 (n,). After an error it stands where it did before."""

# From floats to what is coded

def scale_indexes(scales: Array, table: Array, bound: float, out: Array, *, isa: str | None = None) -> None:
    """Fills out, int32 (n,), with GaussianConditional.build_indexes of scales float32 (n,) and table float32 (S,).

    That is S - 1 less the count of entries of table, in any order and but for the last, that max(scale, bound) is at
    or below; S - 1 for a scale that is NaN. Compared as float32.
    """

def symbols_of(x: Array, means: Array | None, out: Array, *, isa: str | None = None) -> None:
    """Fills out, int32 (n,), with x - means, float32 (n,) both, rounded half to even.

    -2^31 stands for what int32 has no room for and for what is no number, as torch has it on x86.
    """

def isas() -> tuple[str, ...]:
    """The instruction sets that scale_indexes and symbols_of can use here, slowest first: "scalar", "avx2"."""

# CompressAI's own names. Arguments have no names; sequences of integers are taken, numpy's too, and what is none
# raises TypeError. Each object keeps the tables of its last call: lists and tuples of the same integers, the very
# objects, are not converted again.

Ints = Sequence[SupportsIndex]

class RansEncoder:
    def encode_with_indexes(
        self, symbols: Ints, indexes: Ints, cdfs: Sequence[Ints], sizes: Ints, offsets: Ints, /
    ) -> bytes:
        """The stream of symbols, each by the row that indexes has at its place; indexes beyond are not looked at."""

class BufferedRansEncoder:
    def encode_with_indexes(
        self, symbols: Ints, indexes: Ints, cdfs: Sequence[Ints], sizes: Ints, offsets: Ints, /
    ) -> None:
        """Adds symbols; all, or none if an error is raised."""

    def flush(self) -> bytes:
        """The stream of all symbols since the last flush(); begins anew."""

class RansDecoder:
    def decode_with_indexes(
        self, encoded: bytes, indexes: Ints, cdfs: Sequence[Ints], sizes: Ints, offsets: Ints, /
    ) -> list[int]:
        """The symbols of a stream, as many as indexes."""

    def set_stream(self, encoded: bytes, /) -> None:
        """Begins with another stream, which is copied. After an error the one before stays."""

    def decode_stream(self, indexes: Ints, cdfs: Sequence[Ints], sizes: Ints, offsets: Ints, /) -> list[int]:
        """The next symbols of the stream, as many as indexes. After an error it stands where it did before."""

def pmf_to_quantized_cdf(pmf: Sequence[float], precision: int, /) -> list[int]:
    """Cumulative frequencies, one more than pmf has, from 0 to 2^precision, none of which is empty.

    Where the elements, times 2^precision, add to 2^32 or more they may fall: upstream's sum has 32 bits.
    ValueError for elements that are negative, not finite or too large, if all round to nothing, for more of them than
    2^precision, and for a precision outside of 0..30.
    """
