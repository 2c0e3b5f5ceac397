"""Where the sites of a batch lie: images of any sizes, packed one after the other, and the tiles that cover them.

A phase's sites of an image of H x W latents are its checkerboard half, packed: H rows of ceil(W/2) sites. Site (h,
j) of phase p is row h, column 2j + ((h + p + parity) & 1); at odd widths the last site of every other row has no
column (it would be W). Such a *blank* site is carried along, never coded, and holds 0. Images of a batch share
arrays of (sites, C), channels last, in order; the full lattice is packed the same way, with H W sites an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

MAX_SITES = 2**31 - 1  # of one batch: site numbers are int32 on the device, addresses int64
# A tile's addresses are int32 from its first site: at most 8 MAX_SIDE + 4 BLOCK_P rows away (writing a lattice of
# twice the size is the farthest) of at most MAX_STRIDE elements, which is below 2^31.
MAX_SIDE = 1 << 15
MAX_STRIDE = 1 << 12


@dataclass(frozen=True)
class Lattice:
    """The sizes (H, W) of a batch's latents, and which sites are anchors: those with (row + column) % 2 == parity."""

    sizes: tuple[tuple[int, int], ...]
    parity: int = 0

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("lattice: expected at least one image")
        for h, w in self.sizes:
            if h < 1 or w < 1:
                raise ValueError(f"lattice: expected heights and widths of at least 1, got {h} x {w}")
            if max(h, w) > MAX_SIDE:
                raise ValueError(f"lattice: no side of an image may be over {MAX_SIDE} latents, got {h} x {w}")
        if self.parity not in (0, 1):
            raise ValueError(f"lattice: expected parity 0 or 1, got {self.parity}")
        total = sum(h * w for h, w in self.sizes)  # not full_sites, whose lock torch.compile cannot trace
        if total > MAX_SITES:
            raise ValueError(f"lattice: {total} sites in a batch, the limit is {MAX_SITES}")

    @classmethod
    def of(cls, sizes: Iterable[tuple[int, int]], parity: int = 0) -> Lattice:
        return cls(tuple((int(h), int(w)) for h, w in sizes), int(parity))

    def __hash__(self) -> int:
        return self._hash  # of a hundred sizes it would cost more than a launch

    @cached_property
    def _hash(self) -> int:
        return hash((self.sizes, self.parity))

    @cached_property
    def sites(self) -> int:
        """Sites of one phase, blanks included: the rows of a packed array."""
        return sum(h * half(w) for h, w in self.sizes)

    @cached_property
    def full_sites(self) -> int:
        return sum(h * w for h, w in self.sizes)

    def scaled(self, factor: int) -> Lattice:
        return Lattice(tuple((h * factor, w * factor) for h, w in self.sizes), self.parity)

    def rows(self, full: bool = False) -> list[slice]:
        """The rows of each image in a packed (or full) array."""
        out, base = [], 0
        for h, w in self.sizes:
            count = h * (w if full else half(w))
            out.append(slice(base, base + count))
            base += count
        return out


def half(width: int) -> int:
    """Packed columns of a row."""
    return (width + 1) // 2


@lru_cache(maxsize=256)
def tile_table(lattice: Lattice, block: int, full: bool, device: torch.device) -> Tensor:
    """int32 (tiles, 6): for each program the image's first site in packed arrays, its first site of the image,
    the image's H and W, the image's first site in full arrays, and its number. With `full`, tiles cover the full
    lattice.

    Kept for the last 256 askings, so that a repeated shape costs no copy to the device. Who asks may be on another
    stream than who asked first, so the copy is waited for.
    """
    images = torch.tensor(lattice.sizes, dtype=torch.int64, device="cpu").view(-1, 2)
    H, W = images.unbind(1)
    halves = (W + 1) // 2
    counts = H * (W if full else halves)
    tiles = (counts + block - 1) // block
    owner = torch.repeat_interleave(torch.arange(len(images), device="cpu"), tiles)
    within = torch.arange(int(tiles.sum()), device="cpu") - (torch.cumsum(tiles, 0) - tiles)[owner]
    packed_base = torch.cumsum(H * halves, 0) - H * halves
    full_base = torch.cumsum(H * W, 0) - H * W
    table = torch.stack((packed_base[owner], within * block, H[owner], W[owner], full_base[owner], owner), dim=1)
    table = table.to(torch.int32).to(device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return table


def blanks(lattice: Lattice, phase: int, device: torch.device | str = "cpu") -> Tensor:
    """bool (sites,): which packed sites of a phase have no column."""
    out = []
    for h, w in lattice.sizes:
        row = torch.arange(h, device=device).view(-1, 1)
        column = 2 * torch.arange(half(w), device=device) + ((row + phase + lattice.parity) & 1)
        out.append((column >= w).flatten())
    return torch.cat(out)
