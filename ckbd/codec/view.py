"""What of a picture is asked for: a region of it, or all of it, smaller."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SHRINKS = (1, 2, 4, 8)
ROWS = 1 << 18  # pixels that are averaged at a time

Box = tuple[int, int, int, int]
Region = Iterable[int]


@dataclass(frozen=True)
class View:
    """region: (left, top, right, bottom) in pixels of the picture, or None; shrink: 1 / scale."""

    region: Box | None = None
    shrink: int = 1

    @property
    def whole(self) -> bool:
        return self.region is None and self.shrink == 1

    def box(self, width: int, height: int) -> Box:
        """(left, top, right, bottom) in the pixels of a picture of this size once it has been shrunk: all that show
        something of the region. Raises ValueError for a region that is not within the picture.
        """
        left, top, right, bottom = self.region or (0, 0, width, height)
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"region: expected 0 <= left < right <= {width} and 0 <= top < bottom <= {height} of this picture, "
                f"got ({left}, {top}, {right}, {bottom})"
            )
        s = self.shrink
        return left // s, top // s, -(-right // s), -(-bottom // s)

    def pieces(self, width: int, height: int, shrinks: Collection[int]) -> list[Piece]:
        """How to make it of a picture of this size, where painting can shrink it by these: in turn, later ones over
        earlier ones.
        """
        left, top, right, bottom = box = self.box(width, height)
        s = self.shrink

        def whole(box: Box) -> Piece:
            """Painted as large as it is, and shrunk then."""
            x, y, to_x, to_y = (n * s for n in box)
            return Piece((x, y, min(to_x, width), min(to_y, height)), 1, s, (box[0] - left, box[1] - top))

        if s not in shrinks:
            return [whole(box)]
        found = [Piece(box, s, 1, (0, 0))]
        # The last squares may lie over the picture's edge, and what padding decodes to is no matter of theirs.
        if bottom * s > height:
            found.append(whole((left, bottom - 1, right, bottom)))
        if right * s > width:
            found.append(whole((right - 1, top, right, bottom)))
        return found

    def made(
        self, width: int, height: int, shrinks: Collection[int], paint: Callable[[Piece], np.ndarray]
    ) -> np.ndarray:
        """Its pixels, uint8 (H, W, 3): pieces() put together, which paint() gives before they are shrunk."""
        found = None
        for piece in self.pieces(width, height, shrinks):
            pixels = shrunk(paint(piece), piece.more)
            if found is None:
                found = pixels
            else:
                left, top = piece.place
                found[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        assert found is not None
        return found

    def of(self, array: np.ndarray) -> np.ndarray:
        """What shows of an array, uint8 (H, W) or (H, W, C), in memory of its own; means where it is smaller."""
        height, width = array.shape[:2]
        left, top, right, bottom = self.box(width, height)
        s = self.shrink
        part = array[top * s : bottom * s, left * s : right * s]
        return shrunk(part, s) if s > 1 else part.copy()


class Piece(NamedTuple):
    """A box of a picture that was shrunk by `shrink`, to be shrunk by `more`; place: (left, top) where it belongs."""

    box: Box
    shrink: int
    more: int
    place: tuple[int, int]


WHOLE = View()


def view(region: Region | None = None, scale: float = 1) -> View:
    """The view of ckbd.Codec.decode's arguments. Raises ValueError for what is none."""
    return View(None if region is None else _box(region), shrink_of(scale))


def shrink_of(scale: float) -> int:
    """1 / scale. Raises ValueError for a scale that is none of 1, 1/2, 1/4 and 1/8."""
    if not isinstance(scale, (bool, np.bool_, str)):
        try:
            value = float(scale)
        except (TypeError, ValueError, OverflowError):
            value = 0.0
        for shrink in SHRINKS:
            if value == 1 / shrink:
                return shrink
    raise ValueError(f"scale: expected 1, 1/2, 1/4 or 1/8, got {scale!r}")


def _box(region: Region) -> Box:
    try:
        left, top, right, bottom = map(operator.index, region)
    except (TypeError, ValueError) as error:
        raise ValueError(f"region: expected (left, top, right, bottom), four integers, got {region!r}") from error
    return left, top, right, bottom


def shrunk(array: np.ndarray, shrink: int) -> np.ndarray:
    """Means of squares of an array, uint8 (H, W) or (H, W, C), rounded: uint8 (ceil(H / shrink), ...).

    At the right and the bottom a square may have fewer pixels.
    """
    if shrink == 1:
        return array
    height, width = (-(-n // shrink) for n in array.shape[:2])
    out = np.empty((height, width, *array.shape[2:]), np.uint8)
    columns = np.arange(0, array.shape[1], shrink)
    across = np.diff(columns, append=array.shape[1])
    step = max(ROWS // (array.shape[1] * shrink), 1)
    for top in range(0, height, step):
        some = array[top * shrink : (top + step) * shrink].astype(np.uint32)
        rows = np.arange(0, len(some), shrink)
        sums = np.add.reduceat(np.add.reduceat(some, rows), columns, axis=1)
        count = np.outer(np.diff(rows, append=len(some)), across).reshape(-1, width, *[1] * (array.ndim - 2))
        out[top : top + len(rows)] = (2 * sums + count) // (2 * count)
    return out
