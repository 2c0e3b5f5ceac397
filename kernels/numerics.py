"""The arithmetic of the exact zone (docs/numerics.md), which kernels, their twins, training and decoder share.

Everything that the decoder must know before it can read a bit is computed by the functions of this file from
integers, and only with operations whose result does not depend on the order of summation, the device or the
library. The integers travel in float32 (or float64) tensors: a bound proved at export keeps every accumulator
below 2^24, where float32 holds each integer exactly. The same functions carry straight-through gradients, so the
network that is trained is the network that runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

ACT_MAX = 127  # activations are int8 in [-127, 127]
WEIGHT_MAX = 127
MEAN_STEP = 16  # means and y_hat are in units of 1 / 16
MEAN_MAX = 16383
R_MAX = 1023  # residuals
K_MAX = 63

CONTEXT_SHIFT = 2  # y_hat enters the context convolution in units of 1 / 4 ...
CONTEXT_KNEE = 64  # ... linearly up to 16, and 16 times coarser beyond
CONTEXT_SLOPE = 4


Bound = int | Tensor  # of a clamp: one for all channels, or (N,)


class IntLayer(NamedTuple):
    """One integer layer: out = clamp((W a + b + 2^(s-1)) >> s), all integer-valued.

    weight: (N, ...) integers in [-127, 127]; bias: (N,) or (phases, N) integers; shift: (N,) integers >= 0.
    exact: False only in the float twin, which measures what the integers cost (rounding left out).
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor
    exact: bool = True

    def to(self, device: torch.device | str, dtype: torch.dtype) -> IntLayer:
        """The layer with its integers carried in another dtype, on a device."""
        weight, bias, shift = (t.to(device, dtype) for t in (self.weight, self.bias, self.shift))
        return IntLayer(weight, bias, shift, self.exact)


class _RoundHalfUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def round_half_up(x: Tensor) -> Tensor:
    """floor(x + 1/2), any shape, float in and integer-valued float out; the gradient passes straight through."""
    return _RoundHalfUp.apply(x)


class _Requantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, acc: Tensor, shift: Tensor, low: Bound, high: Bound) -> Tensor:
        scale = torch.exp2(-shift)
        half = torch.where(shift > 0, torch.exp2(shift - 1), torch.zeros_like(shift))
        out = torch.floor((acc + half) * scale)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((out >= low) & (out <= high), scale)
        return out.clamp_(low, high)  # type: ignore[arg-type]  # both numbers or both tensors, which no stub says

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inside, scale = ctx.saved_tensors
        return grad * scale * inside, None, None, None


def requantise(acc: Tensor, layer: IntLayer, low: Bound, high: Bound) -> Tensor:
    """Arithmetic shift with round-half-up, then clamp; channels are the last dimension.

    acc: (..., N) integer-valued, |acc| + 2^(shift-1) < 2^24. low, high: both numbers, or both (N,). Returns (..., N).
    Dividing by a power of two and floor are exact in binary floating point, so this is (acc + 2^(s-1)) >> s.
    """
    if not layer.exact:
        return (acc * torch.exp2(-layer.shift)).clamp(min=low)
    return _Requantise.apply(acc, layer.shift.to(acc.dtype), low, high)


class _Compand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_hat: Tensor) -> Tensor:
        v = torch.floor((y_hat + (1 << CONTEXT_SHIFT >> 1)) * 2.0**-CONTEXT_SHIFT)
        size = v.abs()
        beyond = size > CONTEXT_KNEE
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(beyond)
        far = CONTEXT_KNEE + torch.floor((size - CONTEXT_KNEE) * 2.0**-CONTEXT_SLOPE)
        return torch.where(beyond, far, size).clamp_(max=ACT_MAX) * torch.sign(v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (beyond,) = ctx.saved_tensors
        return grad * torch.where(beyond, 2.0 ** -(CONTEXT_SHIFT + CONTEXT_SLOPE), 2.0**-CONTEXT_SHIFT)


def compand(y_hat: Tensor, exact: bool = True) -> Tensor:
    """y_hat in 1/16 units (any shape, integer-valued) to int8 range, the input of the context convolution.

    v = (y_hat + 2) >> 2; c = v up to |v| = 64, then 16 times coarser: sign(v) (64 + ((|v| - 64) >> 4)), at most
    127 in size. One model serves all qualities, so a channel spans +-3 at one end and +-300 at the other: a single
    step cannot serve both. exact=False drops the rounding (float twin).
    """
    if exact:
        return _Compand.apply(y_hat)
    v = y_hat * 2.0**-CONTEXT_SHIFT
    far = CONTEXT_KNEE + (v.abs() - CONTEXT_KNEE) * 2.0**-CONTEXT_SLOPE
    return torch.where(v.abs() > CONTEXT_KNEE, far * torch.sign(v), v)
