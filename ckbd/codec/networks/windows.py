"""What a part of a network's output needs of its input, stage by stage: arithmetic of rows and columns alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Extent(NamedTuple):
    """How a stage maps rows (or columns): down of the input become up of the output, from reach more on each side."""

    reach: int
    down: int
    up: int


class Window(NamedTuple):
    """Rows from top to bottom, columns from left to right; the last of each is not in it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.bottom - self.top, self.right - self.left

    def within(self, other: Window) -> Window:
        """Where in another window this one is."""
        top, left = other.top, other.left
        return Window(self.top - top, self.left - left, self.bottom - top, self.right - left)

    def grown(self, extent: Extent) -> Window:
        """What a stage of this extent gives of a window of its input, whose sides are multiples of what goes down."""
        return Window(*(n // extent.down * extent.up for n in self))


def needed(extents: Sequence[Extent], size: tuple[int, int], window: Window) -> list[Window]:
    """Windows of the input of each stage, and at the end the window itself: what they need to give it, and no more.

    size: rows and columns of the input of the first. What a stage makes of a window's inner edges, where it has seen
    zeros in place of neighbours, is not in the next window.
    """
    lengths = [size]
    for extent in extents:
        lengths.append((lengths[-1][0] // extent.down * extent.up, lengths[-1][1] // extent.down * extent.up))
    found = [window]
    for extent, (height, width) in zip(reversed(extents), reversed(lengths[:-1]), strict=True):
        top, bottom = _side(extent, window.top, window.bottom, height)
        left, right = _side(extent, window.left, window.right, width)
        window = Window(top, left, bottom, right)
        found.append(window)
    return found[::-1]


def _side(extent: Extent, first: int, last: int, length: int) -> tuple[int, int]:
    reach, down, up = extent
    first = max(first // up * down - reach, 0) // down * down
    last = -(-last // up) * down + reach
    return first, min(-(-last // down) * down, length)
