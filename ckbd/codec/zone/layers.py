"""Integer layers of a CPU: products by the library, what is between them by ckbd._passes.

Inputs of ckbd.kernels.products.integers are unsigned. What is signed, z and the companded context, goes in by a
shift: near = c + reach, whose part in the sums, reach times the weights, is taken off the bias. Where the processor
allows less than c may be (products.NARROW), near is c cut to +-reach, and what is beyond makes a second product, of
those channels alone in which there is any: of photographs a few in 256 (bench/RESULTS.md).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ckbd import _passes
from ckbd.kernels import products
from ckbd.kernels.numerics import IntLayer

FAR = 63  # what is beyond reach goes in shifted by this


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """torch.empty on the CPU, whatever device the caller has made the default."""
    return torch.empty(tuple(shape), dtype=dtype, device="cpu")


class Scratch(threading.local):
    """Memory of a thread that is used again: fresh pages cost time."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        count = shape[0] * shape[1]
        held = self.held.get(name)
        if held is None or held.numel() < count:
            with torch.inference_mode(False):  # also for calls outside of it
                held = self.held[name] = empty((count,), dtype)
        return held[:count].view(shape)


class Signed(NamedTuple):
    """A map of signed integers, uint8 (rows, W, C) and pictures below one another; far and any as _passes.assemble
    has them, or None.
    """

    near: Tensor
    far: Tensor | None = None
    any: Tensor | None = None


class Far(NamedTuple):
    """What is beyond reach, as a product of its own: of the channels that have any."""

    x: Tensor
    weight: Tensor
    outside: np.ndarray
    bias: np.ndarray


class Dense:
    """A layer of a site's channels: weight int8 (N, C), bias with the half of rounding, and shift, int32 (N,)."""

    def __init__(self, layer: IntLayer, weight: Tensor, bias: Tensor):
        self.weight, self.shift = weight.to(torch.int8).contiguous(), layer.shift.to(torch.int32).numpy()
        half = np.where(self.shift > 0, 1 << np.maximum(self.shift - 1, 0), 0)
        self.bias = (bias.to(torch.int32).numpy() + half).astype(np.int32)

    def sums(self, x: Tensor, scratch: Scratch) -> Tensor:
        """x: uint8 (sites, C)."""
        return products.integers(x, self.weight, scratch("sums", (len(x), len(self.weight)), torch.int32))


class Gathered:
    """A layer of neighbours: `plain` channels of the site itself, then every tap of a signed map."""

    def __init__(self, layer: Dense, tap: Sequence[tuple[int, int, int]], offset: np.ndarray):
        """tap: rows down, and columns to the right in even and odd rows. offset: how far each channel is shifted."""
        N, K = layer.weight.shape
        self.dense, self.taps, self.outside = layer, np.array(tap, np.int32), offset.astype(np.uint8)
        self.plain = K - len(tap) * len(offset)
        self.by_tap = layer.weight[:, self.plain :].view(N, len(tap), len(offset))
        self.by_channel = self.by_tap.sum(1, dtype=torch.int32)
        self.bias = layer.bias - (self.by_channel.numpy() * offset).sum(1, dtype=np.int32)

    def far(self, x: Signed) -> Far | None:
        """What of a map is beyond reach."""
        if x.far is None or x.any is None or not len(some := x.any.nonzero().flatten()):
            return None
        bias = self.bias - FAR * self.by_channel[:, some].sum(1, dtype=torch.int32).numpy()
        outside = np.full(len(some), FAR, np.uint8)
        return Far(x.far[..., some], self.by_tap[:, :, some].flatten(1), outside, bias)

    def sums(
        self,
        x: Signed,
        far: Far | None,
        height: int,
        rows: tuple[int, int],
        scratch: Scratch,
        plain: Tensor | None = None,
    ) -> tuple[Tensor, np.ndarray]:
        """Sums of the sites of some rows, int32 (sites, N), and the bias that is missing.

        height: of a picture of the map. plain: uint8 (sites, plain).
        """
        sites = (rows[1] - rows[0]) * x.near.shape[1]
        columns = scratch("columns", (sites, self.dense.weight.shape[1]), torch.uint8)
        if plain is not None:
            columns[:, : self.plain] = plain
        _passes.gather(x.near, height, self.taps, self.outside, rows, columns, at=self.plain)
        sums = self.dense.sums(columns, scratch)
        if far is None:
            return sums, self.bias
        columns = scratch("columns", (sites, far.weight.shape[1]), torch.uint8)
        _passes.gather(far.x, height, self.taps, far.outside, rows, columns)
        return sums.add_(products.integers(columns, far.weight)), far.bias
