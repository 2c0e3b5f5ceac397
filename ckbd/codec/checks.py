"""What a decoder asks of streams and of what comes out of them, without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ckbd import _rans
from ckbd.codec import batches, container
from ckbd.codec.container import FormatError, Stream

LARGE = 1 << 26  # bytes, more than most streams have


def read(path: str | Path) -> bytes:
    """A stream's file. A large one is read only if its header is in order: it may be anything by a stream's name,
    and more than there is memory for. Raises OSError, FormatError.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > LARGE:
            container.head(file.read(container.HEAD), (1 << 64) - 1)
            file.seek(0)
        return file.read()


def damage(s: Stream, error: _rans.StreamError) -> FormatError:
    """The coder's error, with the place in the file."""
    return FormatError(error.field, s.payload_offset + error.offset, str(error.args[0]))


def settle(streams: Sequence[Stream], errors: Sequence[_rans.StreamError | None]) -> None:
    """Raise the first of a batch's errors."""
    for s, error in zip(streams, errors, strict=True):
        if error is not None:
            raise damage(s, error) from error


def check_range(streams: Sequence[Stream], symbols: np.ndarray, name: str, limit: int) -> None:
    """Raise FormatError for the first stream with a symbol beyond limit in size; symbols (B, ...)."""
    for s, values in zip(streams, symbols, strict=True):
        if int(values.max()) > limit or int(values.min()) < -limit:
            raise FormatError("payload", s.payload_offset, f"a {name} is beyond {limit} in size")


def check_sides(s: Stream, most: int | None) -> None:
    """Raise FormatError for a side that has more than so many latents, which a device's kernels cannot take."""
    for name, pixels, at in (("width", s.header.width, 13), ("height", s.header.height, None)):
        if most is not None and 4 * batches.patches(pixels, 1)[0] > most:
            at = 13 + len(container.varint(s.header.width)) if at is None else at
            raise FormatError(name, at, f"{pixels} pixels are more than the {16 * most} that a GPU's kernels take")


def check_fits(s: Stream, identity: bytes, sites: int, tables: _rans.Tables) -> None:
    """Raise FormatError unless the stream is of this model and its payload can hold that many sites of z."""
    if s.header.model != identity:
        raise FormatError("model", 4, f"made by model {s.header.model.hex()}, this decoder has {identity.hex()}")
    # Near the lower bound of the state a step may cost as little as 0.94 of a symbol's ideal bits.
    if 8 * len(s.payload) < 7 / 8 * sites * tables.min_z_bits:
        raise FormatError(
            "payload",
            s.payload_offset,
            f"{len(s.payload)} bytes cannot hold a picture of {s.header.width} x {s.header.height} pixels",
        )
