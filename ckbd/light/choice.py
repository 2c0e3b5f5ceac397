"""When to decode without torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from ckbd.codec import batches, container
from ckbd.light import zone
from ckbd.model import arrays, library

ONE, ALL = 1 << 21, 1 << 23  # pixels of a picture, for the memory, and of all: what takes as long as torch's import


def serves(model: str | Path | None, heads: Iterable[bytes | None]) -> bool:
    """Whether ckbd.light.decoder is the quicker way to the pictures of some streams: torch is not there yet, they are
    few and not large, and the models are of its kind. Raises as ckbd.load for a model that cannot be read.

    model: of all of them; None: each stream's own. heads: their first container.HEAD bytes, None of what can be read
    but once.
    """
    if "torch" in sys.modules:
        return False
    total, models = 0, {model} if model is not None else set()
    for head in heads:
        if head is None:
            return False
        size, identity = container.peek(head), container.maker(head)
        if size is None or identity is None:
            continue  # which fails whoever decodes it
        if model is None and (own := library.holder(identity)) is not None:
            models.add(own)
        down, across = batches.patches(*size)
        pixels = down * across * batches.PATCH**2
        total += pixels
        if pixels > ONE or total > ALL:
            return False
    return all(arrays.format_of(library.find(one)) == arrays.FORMAT for one in models) and zone.exact()
