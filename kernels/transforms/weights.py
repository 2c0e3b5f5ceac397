"""g_a and g_s as the kernels read them: padded widths, matrices with K contiguous, sums' biases in float32.

Padded channels have weights of zero, so features there are zero from end to end and no load needs a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ckbd.kernels.lattice import MAX_STRIDE
from ckbd.kernels.network import FLOATS, padded
from ckbd.kernels.transforms.pictures import QUALITIES

CELL = 64  # pixels of a site at 1/8 resolution
Weights = Mapping[str, Tensor]  # of a network's state_dict


@dataclass(frozen=True, eq=False)
class Linear:
    """A pointwise layer from C channels to N. weight (N padded, taps C padded), bias float32 (N padded,)."""

    C: int
    N: int
    weight: Tensor
    bias: Tensor

    @property
    def CP(self) -> int:
        return padded(self.C)


@dataclass(frozen=True, eq=False)
class Block:
    """A residual block of C channels. tensors: mix (9, CP) and its bias, float32; expand (2 CP, CP) and its bias;
    reduce (CP, 2 CP) and its bias.
    """

    C: int
    tensors: list[Tensor]


@dataclass(frozen=True, eq=False)
class Synthesis:
    """g_s: latents of M channels to pixels by way of `width` features. gains: float32 (QUALITIES, M)."""

    M: int
    width: int
    gains: Tensor
    enter: Linear
    blocks16: list[Block]
    up: Linear
    blocks8: list[Block]
    pixels: Linear

    @classmethod
    def pack(
        cls,
        weights: Weights,
        gains: Tensor,
        dtype: torch.dtype = torch.float16,
        device: torch.device | str | None = None,
    ) -> Synthesis:
        """weights: of ckbd.model.transforms.Synthesis; gains: (QUALITIES, M), of quality 1, 1.5, ... 100.

        dtype: of weights and features, float16 or float32 (IEEE).
        """
        put = _Packer(weights, dtype, device)
        M, width = weights["enter.weight"].shape[0], weights["pixels.weight"].shape[1]
        if tuple(gains.shape) != (QUALITIES, M):
            raise ValueError(f"gains: expected ({QUALITIES}, {M}), got {tuple(gains.shape)}")
        up = torch.arange(4 * width, device="cpu").view(width, 4).t()  # PyTorch's shuffle reads (n, a, b)
        return cls(
            M,
            width,
            gains.detach().to(device, torch.float32).contiguous(),
            put.linear("enter"),
            put.blocks("blocks16"),
            put.linear("up", order=up),
            put.blocks("blocks8"),
            put.linear("pixels", shift=0.5),
        )


@dataclass(frozen=True, eq=False)
class Analysis:
    """g_a: pixels to latents of M channels, not yet times any gain."""

    M: int
    width: int
    patch: Linear
    blocks8: list[Block]
    down: Linear
    blocks16: list[Block]
    out: Linear

    @classmethod
    def pack(
        cls, weights: Weights, dtype: torch.dtype = torch.float16, device: torch.device | str | None = None
    ) -> Analysis:
        """weights: of ckbd.model.transforms.Analysis; the others as in Synthesis.pack."""
        put = _Packer(weights, dtype, device)
        M, width = weights["down.weight"].shape[:2]
        return cls(
            M,
            width,
            put.linear("patch"),
            put.blocks("blocks8"),
            put.linear("down"),
            put.blocks("blocks16"),
            put.linear("out"),
        )


def _checked(name: str, N: int, C: int) -> tuple[int, int]:
    """Widths that a tile's int32 offsets can take (lattice.MAX_STRIDE), of features and of an expansion."""
    if max(C, N // 4) > MAX_STRIDE:
        raise ValueError(f"{name}: expected widths of at most {MAX_STRIDE}, got {C} to {N}")
    return N, C


class _Packer:
    def __init__(self, weights: Weights, dtype: torch.dtype, device: torch.device | str | None):
        if dtype not in FLOATS:
            raise ValueError(f"transforms: expected dtype float32 or float16, got {dtype}")
        self.weights, self.dtype, self.device = weights, dtype, device

    def __call__(self, t: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor in the corner of zeros of this shape."""
        out = torch.zeros(shape, dtype=dtype or self.dtype, device=self.device)
        out[tuple(slice(0, n) for n in t.shape)] = t.detach().cpu()
        return out

    def linear(self, name: str, order: Tensor | None = None, shift: float = 0.0) -> Linear:
        """order: (4, n), the rows of each corner of a layer that is shuffled."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"].float() + shift
        N, C = _checked(name, *weight.shape[:2])
        taps = weight.flatten(2).transpose(1, 2)  # (N, taps, C)
        CP, count = padded(C), taps.shape[1]
        if order is None:
            NP = padded(N)
            return Linear(C, N, self(taps, NP, count, CP).flatten(1), self(bias, NP, dtype=torch.float32))
        NP = padded(N // 4)
        w, b = self(taps[order], 4, NP, count, CP), self(bias[order], 4, NP, dtype=torch.float32)
        return Linear(C, N // 4, w.flatten(0, 1).flatten(1), b.flatten())

    def blocks(self, name: str) -> list[Block]:
        count = 0
        while f"{name}.{count}.expand.weight" in self.weights:
            count += 1
        return [self._block(f"{name}.{i}") for i in range(count)]

    def _block(self, name: str) -> Block:
        def get(layer: str) -> tuple[Tensor, Tensor]:
            return self.weights[f"{name}.{layer}.weight"].flatten(1), self.weights[f"{name}.{layer}.bias"]

        (mix, mix_bias), (expand, wide_bias), (reduce, bias) = map(get, ("depthwise", "expand", "reduce"))
        (C, _), single = _checked(name, mix.shape[0], expand.shape[0]), torch.float32
        CP = padded(C)
        return Block(
            C,
            [
                self(mix.t(), 9, CP, dtype=single),
                self(mix_bias, CP, dtype=single),
                self(expand, 2 * CP, CP),
                self(wide_bias, 2 * CP, dtype=single),
                self(reduce, CP, 2 * CP),
                self(bias, CP, dtype=single),
            ],
        )
