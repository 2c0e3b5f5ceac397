"""g_a, g_s and h_a: the float networks, which reading a bit never needs.

They work mostly at 1/8 resolution with pointwise and depthwise convolutions, as recent real-time codecs do. The
linear paths start as an orthonormal block transform (8x8 DCT in opponent colours, then a 2x2 Hadamard), the
residual blocks as zero: training starts from a sound transform codec instead of from noise.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckbd.kernels import products

CHROMA = 8  # one latent in so many for each chroma plane at the start
FEATURE_SCALE = 4.0  # brings DCT coefficients of images in [0, 1] to about unit size


M_ = TypeVar("M_", bound=nn.Module)


def channels_last(module: M_) -> M_:
    """The module, its four-dimensional weights channels last in memory."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs lack this form


def bias_of(layer: nn.Conv2d) -> Tensor:
    """The bias of a layer that has one."""
    assert layer.bias is not None
    return layer.bias


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, (B, C, H, W) -> (B, N, H, W); on a CPU without gradients a product of its sites."""

    def __init__(self, channels: int, out: int):
        super().__init__(channels, out, 1)

    def forward(self, x: Tensor, slope: float = 1.0) -> Tensor:
        """leaky_relu(the convolution of x, slope); a slope of 1 leaves it as it is."""
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            rows = x.permute(0, 2, 3, 1).contiguous()
            return products.linear(rows, self.weight.flatten(1), self.bias, slope).permute(0, 3, 1, 2)
        out = super().forward(x)
        # In place: its gradient asks for the values after, which the next layer keeps anyway.
        return out if slope == 1.0 else F.leaky_relu(out, slope, inplace=True)


class Block(nn.Module):
    """x + pointwise(act(pointwise(depthwise 3x3(x)))), (B, C, H, W) -> same; nearly nothing is added at the start."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.expand = Pointwise(channels, 2 * channels)
        self.reduce = Pointwise(2 * channels, channels)
        with torch.no_grad():
            self.depthwise.weight[:, 0, 1, 1] += 1.0
            self.reduce.weight.mul_(0.05)
            bias_of(self.reduce).zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self._pointwise(x, self.depthwise(x))

    def part(self, x: Tensor, dim: int, start: int, length: int) -> Tensor:
        """forward(x).narrow(dim, start, length), without computing the rest."""
        return self._pointwise(x.narrow(dim, start, length), self.depthwise(x).narrow(dim, start, length))

    def _pointwise(self, x: Tensor, mixed: Tensor) -> Tensor:
        return x + self.reduce(self.expand(mixed, 0.1))


class Patches(nn.PixelUnshuffle):
    """(B, 3, 8 h, 8 w) in [0, 1] -> (B, 192, h, w) in [-0.5, 0.5]."""

    def __init__(self) -> None:
        super().__init__(8)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.5)


class Pixels(nn.PixelShuffle):
    """The inverse of Patches, or of such as have another side."""

    def __init__(self, side: int = 8) -> None:
        super().__init__(side)

    def forward(self, f: Tensor) -> Tensor:
        return super().forward(f) + 0.5


def _dct(n: int) -> Tensor:
    k, i = torch.arange(n).view(-1, 1), torch.arange(n).view(1, -1)
    d = torch.cos(math.pi * (2 * i + 1) * k / (2 * n)) * math.sqrt(2.0 / n)
    d[0] /= math.sqrt(2.0)
    return d


def block_transform(width: int, latent: int) -> tuple[Tensor, Tensor]:
    """Orthonormal starting values: patch (n, 192) over unshuffled RGB, pair (latent, n, 2, 2), n = min(width, 192).

    Features beyond 192 have no part in it. Luma gets all 64 coefficients of a patch and the chroma planes share the
    rest equally; of the pairs' outputs the lowest frequencies are kept, again with most of them for luma.
    """
    # On "meta", where layers wait for a file's weights, the arithmetic would import all of torch's compiler.
    with torch.device("cpu"):
        return _block_transform(min(width, 192), latent)


def _block_transform(width: int, latent: int) -> tuple[Tensor, Tensor]:
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    d = _dct(8)
    basis = torch.einsum("ui,vj->uvij", d, d)
    order = sorted(((u, v) for u in range(8) for v in range(8)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
    counts = (64, (width - 64) // 2, width - 64 - (width - 64) // 2)
    kept = [(c, u, v) for c in range(3) for u, v in order[: counts[c]]]
    patch = torch.stack([(colours[c].view(3, 1, 1) * basis[u, v]).flatten() for c, u, v in kept])

    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2.0)
    chroma = latent // CHROMA
    quota = [latent - 2 * chroma, chroma, chroma]
    # A sign change between neighbours continues an even frequency upwards and an odd one downwards.
    pairs = sorted(
        (
            (c, 2 * u + (a ^ (u & 1)), 2 * v + (b ^ (v & 1)), n, a, b)
            for n, (c, u, v) in enumerate(kept)
            for a in (0, 1)
            for b in (0, 1)
        ),
        key=lambda p: (p[0], p[1] ** 2 + p[2] ** 2, p[1:]),
    )
    pair = torch.zeros(latent, width, 2, 2)
    row = 0
    for c, _, _, n, a, b in pairs:
        if quota[c]:
            quota[c] -= 1
            pair[row, n] = torch.outer(signs[a], signs[b])
            row += 1
    return patch, pair


class Staged(Protocol):
    """A network that is a row of modules."""

    def stages(self) -> list[nn.Module]:
        """The modules through which the input goes, in turn; ckbd.codec.networks.strips runs them over strips."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Analysis(nn.Module):
    """g_a: x (B, 3, H, W) in [0, 1], H and W multiples of 16 -> y (B, M, H/16, W/16)."""

    def __init__(self, width: int, M: int, blocks8: int, blocks16: int):
        super().__init__()
        self.patch = Pointwise(192, width)
        self.blocks8 = nn.Sequential(*(Block(width) for _ in range(blocks8)))
        self.down = nn.Conv2d(width, M, 2, stride=2)
        self.blocks16 = nn.Sequential(*(Block(M) for _ in range(blocks16)))
        self.out = Pointwise(M, M)
        patch, pair = block_transform(width, M)
        with torch.no_grad():
            self.patch.weight[: len(patch)].copy_(patch.view(-1, 192, 1, 1) * FEATURE_SCALE)
            bias_of(self.patch).zero_()
            self.down.weight.zero_()[:, : len(patch)].copy_(pair)
            bias_of(self.down).zero_()
            self.out.weight.copy_(torch.eye(M, device="cpu").view(M, M, 1, 1))
            bias_of(self.out).zero_()

    def stages(self) -> list[nn.Module]:
        """As Staged has it."""
        return [Patches(), self.patch, *self.blocks8, self.down, *self.blocks16, self.out]

    def forward(self, x: Tensor) -> Tensor:
        return nn.Sequential(*self.stages())(x)


class Synthesis(nn.Module):
    """g_s: y_hat / gain (B, M, h, w) -> x_hat (B, 3, 16 h, 16 w), not clamped."""

    def __init__(self, width: int, M: int, blocks8: int, blocks16: int):
        super().__init__()
        self.enter = Pointwise(M, M)
        self.blocks16 = nn.Sequential(*(Block(M) for _ in range(blocks16)))
        self.up = Pointwise(M, 4 * width)
        self.blocks8 = nn.Sequential(*(Block(width) for _ in range(blocks8)))
        self.pixels = Pointwise(width, 192)
        patch, pair = block_transform(width, M)
        with torch.no_grad():
            self.enter.weight.copy_(torch.eye(M, device="cpu").view(M, M, 1, 1))
            bias_of(self.enter).zero_()
            # pixel_shuffle reads channel 4 n + 2 a + b for feature n at (a, b).
            self.up.weight[: 4 * len(patch)].copy_(pair.reshape(M, -1).t().reshape(-1, M, 1, 1))
            bias_of(self.up).zero_()
            self.pixels.weight.zero_()[:, : len(patch)].copy_(patch.t().reshape(192, -1, 1, 1) / FEATURE_SCALE)
            bias_of(self.pixels).zero_()

    def stages(self) -> list[nn.Module]:
        """As Staged has it."""
        return [
            self.enter,
            *self.blocks16,
            self.up,
            nn.PixelShuffle(2),
            *self.blocks8,
            self.pixels,
            Pixels(),
        ]

    def forward(self, y: Tensor) -> Tensor:
        return nn.Sequential(*self.stages())(y)


class HyperAnalysis(nn.Module):
    """h_a: y (B, M, h, w) -> z (B, Nz, h/4, w/4), not rounded."""

    def __init__(self, M: int, hidden: int, Nz: int):
        super().__init__()
        self.enter = Pointwise(M, hidden)
        self.first = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1)
        self.second = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1)
        self.out = Pointwise(hidden, Nz)

    def forward(self, y: Tensor) -> Tensor:
        # asinh: one network serves all qualities, over which y spans two orders of magnitude.
        f = self.enter(torch.asinh(y), 0.1)
        f = F.leaky_relu(self.first(f), 0.1, inplace=True)
        return 4.0 * self.out(F.leaky_relu(self.second(f), 0.1, inplace=True))
