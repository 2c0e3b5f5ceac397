"""Torch twins of the kernels of g_a and g_s: same names, arguments and results, on any device, written to be read.

Features are stored in the weights' dtype and rounded where the kernels round them; sums are float32. `linear` is the
one product, whose order of summation the kernels fix (from its start, channels in order) and a library does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ckbd.kernels.lattice import Lattice, half
from ckbd.kernels.numerics import MEAN_STEP

SLOPE = 0.1  # of the leaky ReLU in a residual block
MOST = 65504.0  # of float16


def linear(x: Tensor, weight: Tensor, start: Tensor | None = None) -> Tensor:
    """start (N,), or zero, + x weight^T in float32: x (..., K), weight (N, K), both of the storage dtype."""
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), weight.float(), start)


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 as features are stored: within float16's range, so that none becomes infinite."""
    return (x.clamp(-MOST, MOST) if dtype == torch.float16 else x).to(dtype)


def _images(x: Tensor, lattice: Lattice) -> Iterator[tuple[slice, Tensor]]:
    """(rows, (H, W, C)) of each image."""
    for rows, (H, W) in zip(lattice.rows(full=True), lattice.sizes, strict=True):
        yield rows, x[rows].view(H, W, -1)


def block(x: Tensor, tensors: list[Tensor], lattice: Lattice) -> Tensor:
    """x + reduce(leaky_relu(expand(depthwise 3x3(x)))) of every image: x (sites, CP) -> same."""
    mix, mix_bias, expand, wide_bias, reduce, bias = tensors
    out = torch.empty_like(x)
    for rows, image in _images(x, lattice):
        H, W, CP = image.shape
        around = F.pad(image.float(), (0, 0, 1, 1, 1, 1))
        mixed = mix_bias.expand(H, W, CP)
        for tap in range(9):
            mixed = mixed + around[tap // 3 : tap // 3 + H, tap % 3 : tap % 3 + W] * mix[tap]
        wide = F.leaky_relu(linear(rounded(mixed, x.dtype), expand, wide_bias), SLOPE)
        sums = linear(rounded(wide, x.dtype), reduce) + bias + image.float()
        out[rows] = rounded(sums, x.dtype).flatten(0, 1)
    return out


def enter(
    r: Tensor, mean: Tensor, gains: Tensor, table: Tensor, weight: Tensor, bias: Tensor, lattice: Lattice
) -> Tensor:
    """g_s's first layer: y_hat / 16 times the gain of each image's quality, y_hat = 16 r + mean.

    r, mean: int16 (2, sites, M), both phases. gains: (QUALITIES, M). table: of Pictures. Returns (full sites, NP).
    """
    y_hat = MEAN_STEP * r.to(torch.int32) + mean
    out, base = weight.new_empty((lattice.full_sites, weight.shape[0])), 0
    for n, (rows, (H, W)) in enumerate(zip(lattice.rows(full=True), lattice.sizes, strict=True)):
        h, w = torch.arange(H, device=r.device).view(-1, 1), torch.arange(W, device=r.device)
        y = y_hat[(h + w + lattice.parity) & 1, base + h * half(W) + (w >> 1)]
        x = y.float() / MEAN_STEP * gains[table[n, 4]]
        sums = linear(rounded(x, weight.dtype), weight[:, : x.shape[-1]]) + bias
        out[rows] = rounded(sums, weight.dtype).flatten(0, 1)
        base += H * half(W)
    return out


def layer(x: Tensor, weight: Tensor, bias: Tensor, N: int, kind: str, lattice: Lattice) -> Tensor:
    """A layer between features: x (sites, CP).

    kind "up": onto the lattice of twice the size, weight's rows come as (a, b, n); returns (4 sites, NP). "down":
    from there, four taps; lattice is the small one. "out": to N channels, float32 and not padded.
    """
    if kind == "down":
        out = x.new_empty((lattice.full_sites, weight.shape[0]))
        big = lattice.scaled(2)
        for (rows, (H, W)), (_, image) in zip(
            zip(lattice.rows(full=True), lattice.sizes, strict=True), _images(x, big), strict=True
        ):
            corners = image.view(H, 2, W, 2, -1).transpose(1, 2).flatten(2)
            out[rows] = rounded(linear(corners, weight) + bias, x.dtype).flatten(0, 1)
        return out
    sums = linear(x, weight) + bias
    if kind == "out":
        return sums[:, :N].contiguous()
    sums, parts = rounded(sums, x.dtype), []
    for _, image in _images(sums, lattice):
        H, W, _ = image.shape
        parts.append(image.view(H, W, 2, 2, -1).transpose(1, 2).flatten(0, 3))
    return torch.cat(parts)


def patch(table: Tensor, pictures: list[Tensor], hwc: bool, weight: Tensor, bias: Tensor, lattice: Lattice) -> Tensor:
    """g_a's first layer: of 8x8 patches of x / 255 - 1/2, as products of 2 x - 255, which every dtype holds, over
    510. pictures: uint8; beyond their edges is their last row and column. lattice: at 1/8. Returns (sites, NP).
    """
    out = weight.new_empty((lattice.full_sites, weight.shape[0]))
    for rows, (H, W), picture in zip(lattice.rows(full=True), lattice.sizes, pictures, strict=True):
        x = picture.permute(2, 0, 1) if hwc else picture
        down = torch.arange(8 * H, device=x.device).clamp(max=x.shape[1] - 1)
        across = torch.arange(8 * W, device=x.device).clamp(max=x.shape[2] - 1)
        cells = 2 * x[:, down.view(-1, 1), across].float() - 255
        cells = cells.view(3, H, 8, W, 8).permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1)
        sums = linear(cells.to(weight.dtype), weight) * (1 / 510) + bias
        out[rows] = rounded(sums, weight.dtype)
    return out


def paint(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    table: Tensor,
    pictures: list[Tensor],
    gray: list[bool],
    hwc: bool,
    lattice: Lattice,
) -> None:
    """g_s's last layer, into the pixels of pictures: clamped to [0, 1], gray ones averaged, to the nearest of 8 bits;
    of float pictures those over 255. x (sites, CP), lattice at 1/8; weight's rows come as (plane, row, column).
    """
    for (_, image), picture, is_gray in zip(_images(x, lattice), pictures, gray, strict=True):
        H, W, _ = image.shape
        planes = (linear(image, weight) + bias).view(H, W, 3, 8, 8).permute(2, 0, 3, 1, 4).reshape(3, 8 * H, 8 * W)
        planes = planes.clamp(0, 1)
        if is_gray:
            planes = ((planes[0] + planes[1] + planes[2]) * (1 / 3)).expand_as(planes)
        values = torch.floor(255 * planes + 0.5)
        if picture.dtype != torch.uint8:
            values = values / 255
        target = picture.permute(2, 0, 1) if hwc else picture
        target.copy_(values[:, : target.shape[1], : target.shape[2]])
