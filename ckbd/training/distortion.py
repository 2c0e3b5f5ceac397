"""What errors are counted by: squared, MS-SSIM, SSIMULACRA2, or shares of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ckbd.evaluation import ssimulacra
from ckbd.training.similarity import ms_ssim

# What brings 1 - MS-SSIM and ssimulacra2() to the size of 255^2 MSE, so that each alone asks for about the same rate.
# Along AVIF's curve of the validation photographs, from 0.1 to 1.4 bpp, MSE falls 24 times, 1 - MS-SSIM 22 times and
# ssimulacra2() 26 times.
MS_SSIM_SCALE, SSIMULACRA2_SCALE = 4000.0, 4.3
MS_SSIM_SIDE, SSIMULACRA2_SIDE = 192, 128  # of the least crops: multiples of 64 that the metrics take


@dataclass(frozen=True)
class Shares:
    """Of MS-SSIM and of SSIMULACRA2 in the distortion, 0 to 1; the rest is squared error."""

    ms_ssim: float = 0.0
    ssimulacra2: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ms_ssim", "ssimulacra2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {getattr(self, name)}")
        if self.ms_ssim + self.ssimulacra2 > 1:
            raise ValueError(f"shares: expected 1 at the most together, got {self.ms_ssim} + {self.ssimulacra2}")

    @property
    def mse(self) -> float:
        return max(0.0, 1 - self.ms_ssim - self.ssimulacra2)

    def check(self, side: int) -> None:
        """ValueError for crops of a side that the metrics do not take."""
        for name, share, least in (
            ("MS-SSIM", self.ms_ssim, MS_SSIM_SIDE),
            ("SSIMULACRA2", self.ssimulacra2, SSIMULACRA2_SIDE),
        ):
            if share and side < least:
                raise ValueError(f"crops: {name} needs at least {least} pixels, got {side}")


def distortion(x_hat: Tensor, x: Tensor, mse: Tensor, shares: Shares) -> Tensor:
    """(B,) of x_hat and x, (B, 3, H, W) in [0, 1], and of their mse (B,), as 255^2 MSE counts."""
    total = shares.mse * 255.0**2 * mse
    x_hat = x_hat.float().clamp(0, 1)
    if shares.ms_ssim:
        total = total + shares.ms_ssim * MS_SSIM_SCALE * (1 - ms_ssim(x_hat, x))
    if shares.ssimulacra2:
        total = total + shares.ssimulacra2 * SSIMULACRA2_SCALE * ssimulacra2(x_hat, x)
    return total


def ssimulacra2(x_hat: Tensor, x: Tensor) -> Tensor:
    """SSIMULACRA2 as a distance, with gradients: (B,) of x_hat and x (B, 3, H, W), float32 sRGB in [0, 1].

    d >= 0, of which the score is 100 - 10 d^0.6276 (ckbd.evaluation.ssimulacra, whose maps, weights and polynomial
    these are in plain operations; a test holds the two together). Sides of at least ssimulacra.MIN_SIDE.
    """
    pair = [_linear(one) for one in (x, x_hat)]
    norms = []
    for scale in range(ssimulacra.SCALES):
        pair = [_halved(one) for one in pair] if scale else pair
        norms.append(_norms(*(_xyb(one) for one in pair)))
    weighted = torch.stack(norms, 2).flatten(1) @ _constant("weights", x_hat.device)
    return ssimulacra.polynomial(weighted).clamp(min=0)


def _linear(x: Tensor) -> Tensor:
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)


def _halved(linear: Tensor) -> Tensor:
    height, width = linear.shape[-2:]
    return F.avg_pool2d(F.pad(linear, (0, width % 2, 0, height % 2), mode="replicate"), 2)


def _xyb(linear: Tensor) -> Tensor:
    cones = torch.einsum("ij,bjhw->bihw", _constant("opsin", linear.device), linear) + ssimulacra.BIAS
    long, middle, short = (cones ** (1 / 3) - ssimulacra.BIAS ** (1 / 3)).unbind(1)
    y = (long + middle) / 2
    return torch.stack([(long - middle) * 7 + 0.42, y + 0.01, short - y + 0.55], 1)


@torch.compiler.assume_constant_result
def _constant(name: str, device: torch.device) -> Tensor:
    """Numbers that are on the device before a step is captured there, and are part of a compiled graph."""
    return _made(name, device)


@lru_cache(maxsize=64)
def _made(name: str, device: torch.device) -> Tensor:
    if name == "weights":
        return ssimulacra.WEIGHTS.to(device, torch.float32)
    if name == "opsin":
        return torch.tensor(ssimulacra.OPSIN, device=device)
    size = int(name)  # the blur of a line of so many pixels, zeros beyond the border
    out = torch.zeros(size, size, device=device)
    for i, tap in enumerate(ssimulacra.TAPS):
        shift = i - len(ssimulacra.TAPS) // 2
        if abs(shift) < size:
            out += torch.diag(torch.full((size - abs(shift),), tap, device=device), shift)
    return out


def _blur(plane: Tensor) -> Tensor:
    down, across = (_constant(str(n), plane.device) for n in plane.shape[-2:])
    return down @ plane @ across.T


def _norms(a: Tensor, b: Tensor) -> Tensor:
    """(B, 3 channels, 2 norms, 3 maps)"""
    mean_a, mean_b = _blur(a), _blur(b)
    m = (mean_a - mean_b).square()
    variance = _blur((a - b).square()) - m
    variances = _blur(a * a + b * b) - mean_a * mean_a - mean_b * mean_b
    unlike = m + (1 - m) * variance / (variances + ssimulacra.C2)
    edges = (1 + (b - mean_b).abs()) / (1 + (a - mean_a).abs()) - 1
    maps = torch.stack((unlike, edges, -edges), 2).clamp(min=0)
    return torch.stack((maps.mean((-2, -1)), ((maps**4).mean((-2, -1)) + 1e-24) ** 0.25), 2)
