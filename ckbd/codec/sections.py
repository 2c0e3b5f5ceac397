"""Bodies of the optional sections (docs/format.md, section 7)."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np

from ckbd.codec import container
from ckbd.codec.container import FormatError, Stream
from ckbd.codec.image import Picture
from ckbd.codec.view import WHOLE, View

MOST = 1 << 24  # bytes of EXIF or XMP


def pack_alpha(alpha: np.ndarray) -> bytes:
    """The body of an alpha section: uint8 (H, W), differences along rows, zlib."""
    return zlib.compress(np.diff(alpha, axis=1, prepend=np.uint8(0)).astype(np.uint8).tobytes(), 9)


def unpack_alpha(body: bytes, height: int, width: int, offset: int) -> np.ndarray:
    """uint8 (height, width) from an alpha section at `offset`; FormatError unless it expands to exactly that."""
    raw = _expanded("alpha", body, height * width, offset)
    if len(raw) != height * width:
        raise FormatError("alpha", offset, f"expected a zlib stream of {height * width} bytes")
    return np.cumsum(np.frombuffer(raw, np.uint8).reshape(height, width), axis=1, dtype=np.uint8)


def pack_metadata(name: str, data: bytes) -> bytes:
    """The body of a section of EXIF or XMP. Raises ValueError for too much of it."""
    if len(data) > MOST:
        raise ValueError(f"{name}: {len(data)} bytes are more than the {MOST} that a stream takes; strip it")
    return zlib.compress(data, 9)


def unpack_metadata(name: str, body: bytes, offset: int) -> bytes:
    """EXIF or XMP from the section of that name at `offset`. Raises FormatError."""
    data = _expanded(name, body, MOST, offset)
    if not data:
        raise FormatError(name, offset, "expected a zlib stream of at least one byte")
    return data


def _expanded(name: str, body: bytes, most: int, offset: int) -> bytes:
    """What a body expands to, at most so many bytes. Raises FormatError unless that is one whole zlib stream."""
    expander = zlib.decompressobj()
    try:
        raw = expander.decompress(body, most + 1)
    except zlib.error as error:
        raise FormatError(name, offset, f"not a zlib stream: {error}") from error
    if len(raw) > most or not expander.eof or expander.unused_data:
        raise FormatError(name, offset, f"expected one zlib stream of at most {most} bytes")
    return raw


def pack_all(picture: Picture) -> dict[int, bytes]:
    """The sections of a picture's stream. Raises ValueError for metadata without measure."""
    found = {}
    if picture.icc:
        found[container.ICC] = picture.icc
    if picture.alpha is not None:
        found[container.ALPHA] = pack_alpha(picture.alpha)
    for kind, data in ((container.EXIF, picture.exif), (container.XMP, picture.xmp)):
        if data:
            found[kind] = pack_metadata(container.SECTION_NAMES[kind], data)
    return found


def metadata_of(s: Stream) -> dict[str, bytes]:
    """exif and xmp of a stream that has them, by their names in Picture. Raises FormatError."""
    return {
        name: unpack_metadata(name, s.sections[kind], s.section_offsets[kind])
        for kind, name in ((container.EXIF, "exif"), (container.XMP, "xmp"))
        if kind in s.sections
    }


def opened(s: Stream) -> Stream:
    """The stream with its contents: what its sections hold, by their names in Picture. Before there are pixels: a
    damaged one is not worth them. Raises FormatError.
    """
    h, contents = s.header, dict[str, Any](metadata_of(s))
    if container.ICC in s.sections:
        contents["icc"] = s.sections[container.ICC]
    if container.ALPHA in s.sections:
        offset = s.section_offsets[container.ALPHA]
        contents["alpha"] = unpack_alpha(s.sections[container.ALPHA], h.height, h.width, offset)
    return dataclasses.replace(s, contents=contents)


def finished(s: Stream, rgb: np.ndarray, view: View = WHOLE) -> Picture:
    """The picture of the pixels of a stream that has been opened(), or of those that are asked for of it."""
    assert s.contents is not None
    contents = dict(s.contents)
    if "alpha" in contents and not view.whole:
        alpha = view.of(contents["alpha"])
        contents["alpha"] = alpha if alpha.min() < 255 else None
    return Picture(rgb, gray=s.header.gray, **contents)
