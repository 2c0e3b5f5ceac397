"""Contexts as data: which neighbours a site may see (the mask) and in which order sites are coded.

One description serves every model of `ckbd.papers.variant`: no context, a raster scan (van den Oord et al.,
"Conditional image generation with PixelCNN decoders", NeurIPS 2016, mask A), the checkerboard of either parity (He
et al., "Checkerboard context model for efficient learned image compression", CVPR 2021), stripes, corners and masks
of your own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SIDE, MAX_PERIOD = 15, 8

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Context:
    """mask: square of odd side, 1 where a neighbour may be seen, centre 0. order: small pattern of phase numbers that
    is repeated over the lattice, or None for a raster scan, site after site.

    With a pattern a site sees those taps of the mask whose site has a smaller phase number. Raises ValueError for a
    mask or order of another shape, and for a mask that a raster scan has not decoded yet.
    """

    mask: Rows
    order: Rows | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", _rows("mask", self.mask, 1))
        side = len(self.mask)
        if side % 2 == 0 or side > MAX_SIDE or any(len(row) != side for row in self.mask):
            raise ValueError(f"mask: expected a square of odd side up to {MAX_SIDE}, got {side} rows")
        if self.mask[side // 2][side // 2]:
            raise ValueError("mask: expected 0 at the centre, a site cannot see itself")
        if self.order is None:
            for dh, dw in self.taps:
                if (dh, dw) >= (0, 0):
                    raise ValueError(f"mask: a raster scan has not decoded the neighbour at ({dh}, {dw})")
            return
        object.__setattr__(self, "order", _rows("order", self.order, 255))
        height, width = len(self.order), len(self.order[0])
        if max(height, width) > MAX_PERIOD or any(len(row) != width for row in self.order):
            raise ValueError(f"order: expected rows of one length, {MAX_PERIOD} x {MAX_PERIOD} at most")
        numbers = {n for row in self.order for n in row}
        if numbers != set(range(len(numbers))):
            raise ValueError(f"order: expected the phases 0..{len(numbers) - 1}, got {sorted(numbers)}")

    @property
    def reach(self) -> int:
        """Rows or columns to the farthest tap that a mask of this side may hold."""
        return len(self.mask) // 2

    @property
    def taps(self) -> list[tuple[int, int]]:
        """(row, column) offsets of the mask's neighbours, in row-major order."""
        r = self.reach
        return [(i - r, j - r) for i, row in enumerate(self.mask) for j, bit in enumerate(row) if bit]

    @property
    def phases(self) -> int:
        """Phases of a pattern; of a raster scan ValueError, it has as many as sites."""
        if self.order is None:
            raise ValueError("order: a raster scan has no phases")
        return 1 + max(n for row in self.order for n in row)

    @property
    def skew(self) -> int:
        """Columns by which a row must lag behind the one above: the least s >= 1 with dw + dh s < 0 of all taps."""
        return max([1, *(dw // -dh + 1 for dh, dw in self.taps if dh < 0)])

    def phase_map(self, height: int, width: int) -> Tensor:
        """int64 (height, width): the phase of every site; of a raster scan, 1 everywhere."""
        if self.order is None:
            return torch.ones((height, width), dtype=torch.int64, device="cpu")
        pattern = torch.tensor(self.order, device="cpu")
        copies = -(-height // pattern.shape[0]), -(-width // pattern.shape[1])
        return pattern.repeat(*copies)[:height, :width]

    def live(self, height: int, width: int) -> Tensor | None:
        """float32 (height, width, taps): 1 where a site may see its neighbour at a tap; None if it always may."""
        if self.order is None:
            return None
        phase, r = self.phase_map(height, width), self.reach
        padded = F.pad(phase, (r, r, r, r), value=255)
        seen = [padded[r + dh : r + dh + height, r + dw : r + dw + width] < phase for dh, dw in self.taps]
        return torch.stack(seen, -1).float() if seen else torch.zeros(height, width, 0, device="cpu").float()

    def to_json(self) -> dict:
        """What from_spec takes."""
        return dataclasses.asdict(self)


def _rows(name: str, value: object, largest: int) -> Rows:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(row, (list, tuple)) for row in value):
        raise ValueError(f"{name}: expected a list of rows, got {value!r}")
    if not value[0] or any(type(n) is not int or not 0 <= n <= largest for row in value for n in row):
        raise ValueError(f"{name}: expected integers from 0 to {largest}, got {value!r}")
    return tuple(tuple(row) for row in value)


def square(side: int, inside: Callable[[int, int], object]) -> Rows:
    """The mask of a side whose taps are the offsets (dh, dw), not (0, 0), for which inside(dh, dw) holds."""
    r = range(-(side // 2), side // 2 + 1)
    return tuple(tuple(int((dh, dw) != (0, 0) and bool(inside(dh, dw))) for dw in r) for dh in r)


EVEN, ODD = ((0, 1), (1, 0)), ((1, 0), (0, 1))
NAMED = {"none": Context(((0,),), ((0,),))}
for _side in (3, 5, 7):
    _suffix = "" if _side == 5 else str(_side)
    NAMED |= {
        f"raster{_suffix}": Context(square(_side, lambda dh, dw: (dh, dw) < (0, 0)), None),
        f"checkerboard{_suffix}": Context(square(_side, lambda dh, dw: (dh + dw) % 2), EVEN),
        f"checkerboard{_suffix}-odd": Context(square(_side, lambda dh, dw: (dh + dw) % 2), ODD),
        f"stripes-vertical{_suffix}": Context(square(_side, lambda dh, dw: dw % 2), ((0, 1),)),
        f"stripes-horizontal{_suffix}": Context(square(_side, lambda dh, dw: dh % 2), ((0,), (1,))),
        f"corners{_suffix}": Context(square(_side, lambda dh, dw: dh % 2 or dw % 2), ((0, 1), (1, 1))),
    }


def everything(side: int) -> Context:
    """All neighbours in a square: what a supernet has weights for. Its order is never used."""
    return Context(square(side, lambda dh, dw: True), ((0,),))


def from_spec(spec: object) -> Context:
    """A Context of a name (NAMED) or of {"mask": rows, "order": rows or null}; ValueError for anything else."""
    if isinstance(spec, Context):
        return spec
    if isinstance(spec, str):
        if spec not in NAMED:
            raise ValueError(f"context: expected one of {', '.join(NAMED)} or a mask and an order, got {spec!r}")
        return NAMED[spec]
    if not isinstance(spec, dict) or set(spec) != {"mask", "order"}:
        raise ValueError(f'context: expected a name or {{"mask": rows, "order": rows or null}}, got {spec!r}')
    return Context(spec["mask"], spec["order"])


def columns(y: Tensor, context: Context, live: Tensor | None = None, only: Tensor | None = None) -> Tensor:
    """What every site sees, side by side: y (B, H, W, C) -> (B, H, W, taps C), zero outside the lattice.

    Tap t occupies channels t C .. (t + 1) C. live: what Context.live() gives. only: (taps,) factors 0 or 1, the mask
    that a supernet draws. With a weight matrix behind it this is the masked convolution, whatever the mask.
    """
    B, H, W, C = y.shape
    r = context.reach
    padded = F.pad(y, (0, 0, r, r, r, r))
    parts = []
    for t, (dh, dw) in enumerate(context.taps):
        part = padded[:, r + dh : r + dh + H, r + dw : r + dw + W]
        if live is not None:
            part = part * live[None, :, :, t : t + 1].to(y)
        parts.append(part if only is None else part * only[t])
    return torch.cat(parts, -1) if parts else y.new_zeros(B, H, W, 0)
