"""g_a and g_s on a CPU: the same layers, residual blocks with less between their products.

A block mixes neighbours in one pass of C++ (ckbd._passes.depthwise), which also rounds to bfloat16 where a processor
multiplies that faster, and adds what comes out of its two products to its float32 input: the sum that goes through
the network stays float32, and so do all layers that are no blocks, whose rounding the picture would show.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ckbd import _passes
from ckbd.codec.machine import alone
from ckbd.codec.networks.windows import Extent
from ckbd.kernels import products
from ckbd.model.transforms import Block, Pixels, Pointwise, bias_of, channels_last

PRECISIONS = ("auto", "float32", "bfloat16")
GAIN = 1.3  # how many times as fast bfloat16 must be: it is 1.9 or more where a processor has it, elsewhere below 0.4


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """What the blocks' products are of on a CPU. Raises ValueError for another precision, or another device."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if device.type != "cpu":
        if precision != "auto":
            raise ValueError(f"precision: {precision!r} is for a CPU; device {device} takes 'auto'")
        return torch.float32
    if precision == "auto":
        with alone():
            return torch.bfloat16 if products.gain(torch.bfloat16) >= GAIN else torch.float32
    return getattr(torch, precision)


def stages(network: Sequence[nn.Module], dtype: torch.dtype) -> list[Any]:
    """The stages of a network as they run on a CPU, with blocks' products of this dtype; a g_s that ends in Pixels
    has Paint instead, which is to be told of(gray).
    """
    found: list[Any] = [Mixed(stage, dtype) if isinstance(stage, Block) else stage for stage in network]
    if len(found) > 1 and isinstance(found[-1], Pixels) and isinstance(found[-2], nn.Conv2d):
        found[-2:] = painted(found[-2], found[-1].upscale_factor)
    return found


def painted(last: nn.Conv2d, side: int) -> list[Any]:
    """The last layer of g_s, or another end of it, with Paint in place of Pixels(side)."""
    # Colour by colour, as a shuffle reads them, to pixel by pixel, as they lie in memory.
    weight, bias = (
        one.detach().unflatten(0, (3, side**2)).transpose(0, 1).flatten(0, 1).contiguous()
        for one in (last.weight, bias_of(last))
    )
    bias += 0.5
    if isinstance(last, Pointwise):
        return [Paint(side, (weight.flatten(1), bias))]
    layer = copy.deepcopy(last)
    layer.weight, layer.bias = (nn.Parameter(one, requires_grad=False) for one in (weight, bias))
    return [channels_last(layer), Paint(side)]


class Mixed(nn.Module):
    """A Block without gradients."""

    def __init__(self, block: Block, dtype: torch.dtype):
        super().__init__()
        self.block, self.dtype = block, dtype
        mix = block.depthwise
        weight, bias = mix.weight.detach().flatten(1).t().float(), bias_of(mix).detach().float()
        self.mix = weight.contiguous().numpy(), bias.numpy()
        layers = block.expand, block.reduce
        self.products = [
            (one.weight.detach().flatten(1).to(dtype), bias_of(one).detach().to(dtype)) for one in layers
        ]

    def forward(self, x: Tensor) -> Tensor:
        """As the block's."""
        return self.part(x, 2, 0, x.shape[2])

    def part(self, x: Tensor, dim: int, start: int, length: int) -> Tensor:
        """As Block.part."""
        out = torch.empty_like(x.narrow(dim, start, length), memory_format=torch.channels_last)
        self.into(x, dim, start, length, out)
        return out

    def into(self, x: Tensor, dim: int, start: int, length: int, out: Tensor) -> None:
        """part() into a tensor of its shape, float32 as x."""
        for one, to in zip(_sites(x), _sites(out), strict=True):
            one = one.contiguous()
            rows = (start, start + length) if dim == 2 else (0, one.shape[0])
            columns = (start, start + length) if dim == 3 else (0, one.shape[1])
            mixed = torch.empty(to.shape, dtype=self.dtype, device=to.device)
            _passes.depthwise(one, *self.mix, (*rows, *columns), _bits(mixed))
            (expand, expand_bias), (reduce, reduce_bias) = self.products
            h = products.linear(mixed.flatten(0, 1), expand, expand_bias, 0.1)
            more = products.linear(h, reduce, reduce_bias).view(to.shape)
            window = one[slice(*rows), slice(*columns)]
            if self.dtype == torch.bfloat16 and window.is_contiguous() and to.is_contiguous():
                _passes.add(window.view(-1), _bits(more).view(-1), to.view(-1))
            else:
                torch.add(window, more, out=to)


class Paint:
    """The last stages of g_s, Pointwise and Pixels, and what is made of their output, into bytes at once:
    (B, C, h, w) -> uint8 (B, 3, side h, side w), channels last in memory, clamped, averaged where gray is set, and
    rounded.
    """

    def __init__(self, side: int, product: tuple[Tensor, Tensor] | None = None):
        """product: weight (3 side^2, C) and bias, pixel by pixel; None: C is that already."""
        self.side, self.product = side, product
        self.extent = Extent(0, 1, side)
        self.gray: Sequence[bool] = ()

    def of(self, gray: Sequence[bool]) -> Paint:
        """The same for pictures of which some have no colour."""
        made = copy.copy(self)
        made.gray = gray
        return made

    def __call__(self, x: Tensor) -> Tensor:
        B, C, h, w = x.shape
        out = torch.empty((B, self.side * h, self.side * w, 3), dtype=torch.uint8, device=x.device)
        for one, to, gray in zip(_sites(x), out, self.gray, strict=True):
            rows = one.reshape(h * w, C)  # of a strip that is one site wide a view, perhaps with gaps
            _passes.paint(products.linear(rows, *self.product) if self.product else rows.contiguous(), to, gray=gray)
        return out.permute(0, 3, 1, 2)


def _sites(x: Tensor) -> list[Tensor]:
    """Pictures (H, W, C) of x (B, C, H, W)."""
    return list(x.permute(0, 2, 3, 1))


def _bits(x: Tensor) -> Tensor:
    return x.view(torch.int16) if x.dtype == torch.bfloat16 else x
