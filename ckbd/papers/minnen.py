"""The transforms of the papers: stride-2 5x5 convolutions with GDN, N features and M latent channels.

Minnen, Balle and Toderici, "Joint autoregressive and hierarchical priors for learned image compression", NeurIPS
2018, table 1; GDN: Balle, Laparra and Simoncelli, "Density modeling of images using a generalized normalization
transformation", ICLR 2016. The hyper-synthesis is not here: it belongs to the exact zone (docs/numerics.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GDN(nn.Module):
    """y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2), or with inverse=True x_i times that root; (B, C, H, W) ->
    same.

    beta and gamma are squares of what is trained, so they stay positive; beta has 1e-6 added.
    """

    pointwise = True

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        self.root_beta = nn.Parameter(torch.ones(channels))
        self.root_gamma = nn.Parameter((0.1 * torch.eye(channels) + 1e-4).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            gamma = self.root_gamma.square()[..., None, None]
            norm = torch.sqrt(F.conv2d(x.square(), gamma, self.root_beta.square() + 1e-6))
            return x * norm if self.inverse else x / norm


def _down(n_in: int, n_out: int) -> nn.Module:
    return nn.Conv2d(n_in, n_out, 5, stride=2, padding=2)


def _up(n_in: int, n_out: int) -> nn.Module:
    return nn.ConvTranspose2d(n_in, n_out, 5, stride=2, padding=2, output_padding=1)


class MinnenAnalysis(nn.Sequential):
    """g_a: x (B, 3, H, W) in [0, 1], H and W multiples of 16 -> y (B, M, H/16, W/16)."""

    def __init__(self, N: int, M: int):
        super().__init__(_down(3, N), GDN(N), _down(N, N), GDN(N), _down(N, N), GDN(N), _down(N, M))

    def stages(self) -> list[nn.Module]:
        """As ckbd.model.transforms.Staged has it."""
        return list(self)


class MinnenSynthesis(nn.Sequential):
    """g_s: y_hat / gain (B, M, h, w) -> x_hat (B, 3, 16 h, 16 w), not clamped."""

    def __init__(self, N: int, M: int):
        super().__init__(
            _up(M, N), GDN(N, True), _up(N, N), GDN(N, True), _up(N, N), GDN(N, True), _up(N, 3), _Grey()
        )

    def stages(self) -> list[nn.Module]:
        """As ckbd.model.transforms.Staged has it."""
        return list(self)


class _Grey(nn.Module):
    pointwise = True

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5


class MinnenHyperAnalysis(nn.Module):
    """h_a: y (B, M, h, w) -> z (B, Nz, h/4, w/4), not rounded."""

    def __init__(self, N: int, M: int, Nz: int):
        super().__init__()
        self.enter = nn.Conv2d(M, N, 3, padding=1)
        self.first = _down(N, N)
        self.second = _down(N, Nz)

    def forward(self, y: Tensor) -> Tensor:
        # asinh and the factor 4 as in ckbd.model.transforms.HyperAnalysis: one network serves all qualities.
        f = F.leaky_relu(self.enter(torch.asinh(y)), 0.1)
        return 4.0 * self.second(F.leaky_relu(self.first(f), 0.1))
