"""The launches of g_a and g_s that bench/aot.py compiles: of the shipped models' widths, and of odd ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bench.recorder import TYPES, Launch, recording
from ckbd.kernels import Lattice
from ckbd.kernels.network import padded
from ckbd.kernels.transforms import launch
from ckbd.kernels.transforms.configs import HELD, candidates
from ckbd.kernels.transforms.pictures import DTYPES, QUALITIES
from ckbd.kernels.transforms.weights import CELL

LATTICE = Lattice(((8, 12),))


@dataclass(frozen=True)
class Widths:
    """Latent channels, features of g_a and of g_s at 1/8. scope: of bench.launches.SCOPES."""

    name: str
    M: int
    analysis: int
    width: int
    scope: str


SMALL = Widths("small", 256, 192, 128, "default")
BASE = Widths("base", 320, 256, 256, "shipped")
LARGE = Widths("large", 320, 384, 384, "odd")  # not shipped yet: for a release
ODD = tuple(
    Widths(f"odd transforms {M}, {width}", M, width, width, scope)
    for M, width, scope in ((16, 66, "sample"), (40, 100, "odd"), (100, 64, "odd"), (2048, 2048, "odd"))
)


def launches() -> list[Launch]:
    found: list[Launch] = []
    for w in (SMALL, BASE, LARGE, *ODD):
        for dtype in (torch.float16, torch.float32):
            _Widths(w, dtype, found).all()
    return found


class _Widths:
    """Launches of one model in one dtype, each with every config that it may have."""

    def __init__(self, w: Widths, dtype: torch.dtype, found: list[Launch]):
        self.w, self.dtype, self.found = w, dtype, found

    def all(self) -> None:
        M, analysis, width = (padded(n) for n in (self.w.M, self.w.analysis, self.w.width))
        table = torch.zeros(1, 5, dtype=torch.int64)
        for features in {M, analysis, width}:
            self.block(features)
        r, gains = torch.zeros(2, LATTICE.sites, self.w.M, dtype=torch.int16), torch.zeros(QUALITIES, self.w.M)
        self.each("enter", M, r, r, gains, table, *self.linear(M, M), LATTICE)
        sites = LATTICE.full_sites
        self.each("layer", M, self.zeros(sites, M), *self.linear(4 * width, M), width, "up", LATTICE, named="up")
        self.each("layer", M, self.zeros(sites, M), *self.linear(M, M), self.w.M, "out", LATTICE, named="out")
        down = self.zeros(4 * sites, analysis), *self.linear(M, 4 * analysis), M, "down", LATTICE
        self.each("layer", 4 * analysis, *down, named="down")
        for hwc in (False, True):
            shape = (8, 8, 3) if hwc else (3, 8, 8)
            picture = [torch.zeros(shape, dtype=torch.uint8)]
            layout = "HWC" if hwc else "CHW"
            patch = table, picture, hwc, *self.linear(analysis, 3 * CELL), LATTICE
            self.each("patch", analysis, *patch, named=f"patch {layout}")
            for kind in DTYPES:
                pixels = [torch.zeros(shape, dtype=kind)], [False], hwc
                x = self.zeros(sites, width)
                named = f"paint {TYPES[kind]} {layout}"
                scope = self.w.scope if kind == torch.uint8 or self.w.scope == "sample" else "odd"
                self.each(
                    "paint",
                    width,
                    x,
                    *self.linear(3 * CELL, width),
                    table,
                    *pixels,
                    LATTICE,
                    named=named,
                    scope=scope,
                )

    def block(self, width: int) -> None:
        single = torch.float32
        tensors = [
            self.zeros(9, width, dtype=single),
            self.zeros(width, dtype=single),
            self.zeros(2 * width, width),
            self.zeros(2 * width, dtype=single),
            self.zeros(width, 2 * width),
            self.zeros(width, dtype=single),
        ]
        self.each("block", width, self.zeros(LATTICE.full_sites, width), tensors, LATTICE, of=f" {width}")

    def zeros(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype or self.dtype)

    def linear(self, N: int, K: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.zeros(N, K), self.zeros(N, dtype=torch.float32)

    def each(
        self, kernel: str, width: int, *args: object, named: str = "", scope: str | None = None, of: str = ""
    ) -> None:
        """Once for each config. named: the layer, if there are several of a kernel; of: the features' width."""
        for config in candidates(named if kernel == "layer" else kernel, self.dtype, width):
            mine: list[Launch] = []
            with recording("", mine, (launch,)):
                getattr(launch, kernel)(*args, config)
            label = f"{self.w.name}{of}, {TYPES[self.dtype]}, {config}: {named or kernel}"
            targets = dict(HELD.get(width, ())).get(config, ()) if kernel == "block" else ()
            self.found += [replace(one, label=label, scope=scope or self.w.scope, targets=targets) for one in mine]
