"""Inputs for the kernel tests: networks of any widths, batches of any sizes, random and extreme values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ckbd.kernels import Lattice, Network, SubPixel
from ckbd.kernels.numerics import IntLayer
from ckbd.model.quant import prove

POISON = {torch.int8: -77, torch.int16: -21846, torch.uint8: 171, torch.int32: -1431655766}


@dataclass(frozen=True)
class Widths:
    """M latent channels, C hyper features, hidden widths, size of the context kernel."""

    M: int
    C: int
    H1: int
    H2: int
    kernel: int = 5

    def __str__(self) -> str:
        return f"M{self.M}-C{self.C}-H{self.H1}-{self.H2}-k{self.kernel}"


# Narrower than a block, no multiple of anything, exactly a block, several blocks; every kernel size.
WIDTHS = (
    Widths(16, 32, 64, 32),
    Widths(40, 24, 70, 100, 3),
    Widths(8, 33, 64, 64, 7),
    Widths(64, 128, 128, 64),
    Widths(130, 48, 192, 96, 3),
)
SIZES = {
    "one site": ((1, 1),),
    "a row": ((1, 9),),
    "a column": ((9, 1),),
    "even": ((6, 8),),
    "odd": ((7, 5),),
    "two alike": ((4, 6), (4, 6)),
    "mixed": ((5, 7), (1, 1), (4, 4), (1, 12), (13, 2), (2, 3)),
    "over a tile": ((9, 31), (3, 4)),
}


def random_layer(g: torch.Generator, n: int, k: int, shift: int, phases: int = 0, spread: int = 127) -> IntLayer:
    """Random int8 weights, biases that matter, shifts around `shift`; within the proved bound."""
    weight = torch.randint(-spread, spread + 1, (n, k), generator=g)
    bias = torch.randint(-4000, 4001, (phases, n) if phases else (n,), generator=g)
    shifts = (shift + torch.randint(-1, 2, (n,), generator=g)).clamp(min=0)
    return prove(IntLayer(weight.float(), bias.float(), shifts.float()), "layer")


def integers(widths: Widths, seed: int = 0) -> tuple[Network, tuple[IntLayer, IntLayer, IntLayer]]:
    g = torch.Generator().manual_seed(seed)
    taps = widths.kernel**2 // 2
    layers = (
        random_layer(
            g, widths.H1, widths.C + taps * widths.M, 9, 2, spread=min(127, 2**24 // (140 * taps * widths.M))
        ),
        random_layer(g, widths.H2, widths.H1, 8),
        random_layer(g, 2 * widths.M, widths.H2, 10),
    )
    layers[2].shift[: widths.M] -= 9  # means that reach their limits, indices that seldom do
    return Network.integers(*layers, kernel=widths.kernel), layers


def floats(
    widths: Widths, dtype: torch.dtype, seed: int = 0, dyadic: bool = False, thresholds: bool = True
) -> Network:
    """A network that was never quantised. dyadic: values so few-digit that float32 sums are exact in any order."""
    g = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> Tensor:
        if dyadic:
            return torch.randint(-2, 3, shape, generator=g) / 4
        return torch.randn(shape, generator=g) / shape[-1] ** 0.5

    k = widths.kernel
    return Network.floats(
        values(widths.H1, widths.C),
        values(widths.H1, widths.M, k, k),
        values(2, widths.H1),
        (values(widths.H2, widths.H1), values(widths.H2)),
        (values(2 * widths.M, widths.H2), values(2 * widths.M)),
        slope=0.125 if dyadic else 0.01,
        thresholds=torch.linspace(-3, 3, 63) if thresholds else None,
        dtype=dtype,
    )


def sub_pixel(C: int, N: int, seed: int = 0, factor: int = 2) -> SubPixel:
    g = torch.Generator().manual_seed(seed)
    flat = random_layer(g, factor**2 * N, 9 * C, 8)
    weight = flat.weight.view(factor**2 * N, C, 3, 3)
    return SubPixel.pack(IntLayer(weight, flat.bias, flat.shift), factor=factor)


def activations(
    shape: tuple[int, ...], seed: int = 0, extreme: bool = False, dtype: torch.dtype = torch.int8
) -> Tensor:
    """[-127, 127], or only the two ends; for float networks small multiples of 1/8."""
    g = torch.Generator().manual_seed(seed)
    if extreme:
        return (254 * torch.randint(0, 2, shape, generator=g) - 127).to(dtype)
    x = torch.randint(-127, 128, shape, generator=g)
    return x.to(dtype) if dtype == torch.int8 else (x // 16 / 8).to(dtype)


def lattice(name: str, parity: int = 0) -> Lattice:
    return Lattice(SIZES[name], parity)


def guarded(rows: int, channels: int, dtype: torch.dtype, margin: int = 3) -> tuple[Tensor, Tensor]:
    """(whole, inner): a poisoned array and a view of its middle, with rows and channels to spare on every side."""
    whole = torch.full((rows + 2 * margin, channels + 2 * margin), POISON.get(dtype, float("nan")), dtype=dtype)
    return whole, whole[margin : margin + rows, margin : margin + channels]


def untouched(whole: Tensor, margin: int = 3) -> bool:
    """Whether nothing was written around the middle."""
    around = torch.ones(whole.shape, dtype=torch.bool)
    around[margin:-margin, margin:-margin] = False
    rest = whole[around]
    return bool(rest.isnan().all()) if whole.is_floating_point() else bool((rest == POISON[whole.dtype]).all())
