"""Which pictures share a batch, and how many pixels the float networks take at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PATCH = 64  # pictures are padded to multiples of this; z has one site for each such square
MAX_BATCH_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 25}  # what g_a and g_s take at once; larger pictures go in strips
TOGETHER = 1 << 17  # on a CPU, pixels of a batch: enough for the exact zone, and no thread is left with much alone


def patches(height: int, width: int) -> tuple[int, int]:
    """Sites of z, down and across, of a picture of this size in pixels; pictures that agree may share a batch."""
    return math.ceil(height / PATCH), math.ceil(width / PATCH)


def most_pixels(device: torch.device) -> int:
    """What g_a and g_s take at once."""
    return MAX_BATCH_PIXELS.get(device.type, MAX_BATCH_PIXELS["cpu"])


def together(device: torch.device) -> int:
    """Pixels of streams that are decoded as one batch."""
    return TOGETHER if device.type == "cpu" else most_pixels(device)


def groups(sizes: Sequence[tuple[int, int]], limit: int) -> list[list[int]]:
    """Indices of (height, width) that share a batch: equal padded sizes, and not more than limit pixels in all."""
    found: dict[tuple[int, int], list[list[int]]] = {}
    for i, size in enumerate(sizes):
        key = patches(*size)
        batches = found.setdefault(key, [[]])
        if (len(batches[-1]) + 1) * key[0] * key[1] * PATCH**2 > limit and batches[-1]:
            batches.append([])
        batches[-1].append(i)
    return [batch for batches in found.values() for batch in batches]
