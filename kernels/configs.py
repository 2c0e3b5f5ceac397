"""Which shapes of kernel there are to choose from, and what each costs.

A Config is data: `aot` compiles all that are listed here, `tune` measures those that fit and keeps the quickest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

FORMS = ("fused", "layers")  # of a phase; all else is "layers" ...
BLOCKS = ("held", "resident", "spread")  # ... but the residual blocks of g_a and g_s
# Input channels that a product takes at the least: with fewer, Triton compiles for no GPU of NVIDIA's.
LEAST_K = {torch.int8: 32, torch.float16: 16, torch.float32: 16}


@dataclass(frozen=True)
class Config:
    """form: of a phase "fused" (one launch) or "layers" (three), of a residual block one of BLOCKS. Blocks:
    sites, output channels and input channels that a program takes at a time, the latter two cut to what divides the
    widths. All but stages are powers of two.
    """

    form: str
    block_p: int
    block_n: int
    block_k: int
    warps: int
    stages: int

    def __post_init__(self) -> None:
        if self.form not in FORMS + BLOCKS:
            raise ValueError(f"config: expected form {' or '.join(FORMS + BLOCKS)}, got {self.form!r}")
        for name in ("block_p", "block_n", "block_k", "warps"):
            n = getattr(self, name)
            if n < 1 or n & (n - 1):
                raise ValueError(f"config: {name}: expected a power of two, got {n}")
        if self.stages < 1:
            raise ValueError(f"config: stages: expected at least 1, got {self.stages}")

    def __str__(self) -> str:
        return f"{self.form} {self.block_p}x{self.block_n}x{self.block_k} w{self.warps} s{self.stages}"


# The first of a form is what is taken unmeasured. Rows are 64 at the least: so many a wgmma of four warps takes, and
# in float mode one instruction must do every tile, or a result would depend on the tile.
CONFIGS: dict[torch.dtype, tuple[Config, ...]] = {
    torch.int8: (
        Config("layers", 64, 64, 128, 4, 4),
        Config("layers", 64, 128, 128, 4, 3),
        Config("layers", 128, 128, 128, 8, 3),
        Config("fused", 64, 128, 128, 8, 3),
        Config("fused", 64, 64, 128, 4, 4),
    ),
    torch.float16: (
        Config("layers", 64, 64, 64, 4, 4),
        Config("layers", 64, 128, 64, 4, 3),
        Config("fused", 64, 128, 64, 8, 3),
    ),
    torch.float32: (
        Config("layers", 64, 64, 32, 4, 2),
        Config("fused", 64, 64, 16, 8, 2),
    ),
}


def decode(config: Sequence[int]) -> Config:
    """The Config of ops.encode()."""
    form, *numbers = config
    return Config((FORMS + BLOCKS)[form], *numbers)


def candidates(dtype: torch.dtype, config: list[int], form: str | None = None) -> tuple[Config, ...]:
    """What may be chosen from: all of CONFIGS, those of a form, or the one that ops.encode() says."""
    return _candidates(dtype, tuple(config), form)


@lru_cache(maxsize=256)
def _candidates(dtype: torch.dtype, config: tuple[int, ...], form: str | None) -> tuple[Config, ...]:
    if len(config) > 1:
        return (decode(config),)
    form = FORMS[config[0]] if config else form
    return tuple(c for c in CONFIGS[dtype] if form is None or c.form == form)


def divisor(block: int, *widths: int) -> int:
    """The largest power of two up to block that divides all widths."""
    while any(w % block for w in widths):
        block //= 2
    return block
