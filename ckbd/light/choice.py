"""When to decode without torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from ckbd.codec import batches, container
from ckbd.light import zone
from ckbd.model import arrays

HEAD = 64  # bytes that hold a stream's size
ONE, ALL = 1 << 21, 1 << 23  # pixels of a picture, for the memory, and of all: what takes as long as torch's import


def serves(model: str | Path, streams: Iterable[Path]) -> bool:
    """Whether ckbd.light.decoder is the quicker way to the pictures of some files: torch is not there yet, they are
    few and not large, and the model is one of its kind. Raises as ckbd.load for a model that cannot be read.
    """
    if "torch" in sys.modules or arrays.format_of(model) != arrays.FORMAT:
        return False
    total = 0
    for path in streams:
        if not path.is_file():  # a pipe can be read but once
            return False
        size = _size(path)
        if size is None:
            continue  # which fails whoever decodes it
        down, across = batches.patches(*size)
        pixels = down * across * batches.PATCH**2
        total += pixels
        if pixels > ONE or total > ALL:
            return False
    return zone.exact()


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with open(path, "rb") as file:
            return container.peek(file.read(HEAD))
    except OSError:
        return None
