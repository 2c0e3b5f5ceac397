"""Bodies of the optional sections (docs/format.md, section 7)."""

from __future__ import annotations

import zlib

import numpy as np

from ckbd.codec import container
from ckbd.codec.container import FormatError, Stream
from ckbd.codec.image import Picture


def pack_alpha(alpha: np.ndarray) -> bytes:
    """The body of an alpha section: uint8 (H, W), differences along rows, zlib."""
    return zlib.compress(np.diff(alpha, axis=1, prepend=np.uint8(0)).astype(np.uint8).tobytes(), 9)


def unpack_alpha(body: bytes, height: int, width: int, offset: int) -> np.ndarray:
    """uint8 (height, width) from an alpha section at `offset`; FormatError unless it expands to exactly that."""
    expander = zlib.decompressobj()
    try:
        raw = expander.decompress(body, height * width + 1)
    except zlib.error as error:
        raise FormatError("alpha", offset, f"not a zlib stream: {error}") from error
    if len(raw) != height * width or not expander.eof or expander.unused_data:
        raise FormatError("alpha", offset, f"expected a zlib stream of {height * width} bytes")
    return np.cumsum(np.frombuffer(raw, np.uint8).reshape(height, width), axis=1, dtype=np.uint8)


def finished(s: Stream, rgb: np.ndarray) -> Picture:
    """The picture of a stream's pixels, with alpha and ICC profile. Raises FormatError for a damaged section."""
    h = s.header
    alpha = None
    if container.ALPHA in s.sections:
        offset = s.section_offsets[container.ALPHA]
        alpha = unpack_alpha(s.sections[container.ALPHA], h.height, h.width, offset)
    return Picture(rgb, alpha, h.gray, s.sections.get(container.ICC))
