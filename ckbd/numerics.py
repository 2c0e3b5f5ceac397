"""Integer layers: the arithmetic of the exact zone (docs/numerics.md).

Everything that the decoder must know before it can read a bit is computed by the functions of this file from
integers, and only with operations whose result does not depend on the order of summation, the device or the
library. The integers travel in float32 (or float64) tensors: a bound proved at export keeps every accumulator
below 2^24, where float32 holds each integer exactly. The same functions carry straight-through gradients, so the
network that is trained is the network that runs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

ACT_MAX = 127  # activations are int8 in [-127, 127]
WEIGHT_MAX = 127
ACC_LIMIT = 1 << 24  # float32 holds every integer up to here
MEAN_STEP = 16  # means and y_hat are in units of 1 / 16
MEAN_MAX = 16383
R_MAX = 1023  # residuals
K_MAX = 63

CONTEXT_SHIFT = 2  # y_hat enters the context convolution in units of 1 / 4 ...
CONTEXT_KNEE = 64  # ... linearly up to 16, and 16 times coarser beyond
CONTEXT_SLOPE = 4


class IntLayer(NamedTuple):
    """One integer layer: out = clamp((W a + b + 2^(s-1)) >> s), all integer-valued.

    weight: (N, ...) integers in [-127, 127]; bias: (N,) or (phases, N) integers; shift: (N,) integers >= 0.
    exact: False only in the float twin, which measures what the integers cost (rounding left out).
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor
    exact: bool = True


class _RoundHalfUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


def round_half_up(x: Tensor) -> Tensor:
    """floor(x + 1/2), any shape, float in and integer-valued float out; the gradient passes straight through."""
    return _RoundHalfUp.apply(x)


class _Requantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, acc: Tensor, shift: Tensor, low, high) -> Tensor:
        scale = torch.exp2(-shift)
        half = torch.where(shift > 0, torch.exp2(shift - 1), torch.zeros_like(shift))
        out = torch.floor((acc + half) * scale)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((out >= low) & (out <= high), scale)
        return out.clamp_(low, high)

    @staticmethod
    def backward(ctx, grad: Tensor):
        inside, scale = ctx.saved_tensors
        return grad * scale * inside, None, None, None


def requantise(acc: Tensor, layer: IntLayer, low, high) -> Tensor:
    """Arithmetic shift with round-half-up, then clamp; channels are the last dimension.

    acc: (..., N) integer-valued, |acc| + 2^(shift-1) < 2^24. low, high: both numbers, or both (N,). Returns (..., N).
    Dividing by a power of two and floor are exact in binary floating point, so this is (acc + 2^(s-1)) >> s.
    """
    if not layer.exact:
        return (acc * torch.exp2(-layer.shift)).clamp(min=low)
    return _Requantise.apply(acc, layer.shift.to(acc.dtype), low, high)


class _Compand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y_hat: Tensor) -> Tensor:
        v = torch.floor((y_hat + (1 << CONTEXT_SHIFT >> 1)) * 2.0**-CONTEXT_SHIFT)
        size = v.abs()
        beyond = size > CONTEXT_KNEE
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(beyond)
        far = CONTEXT_KNEE + torch.floor((size - CONTEXT_KNEE) * 2.0**-CONTEXT_SLOPE)
        return torch.where(beyond, far, size).clamp_(max=ACT_MAX) * torch.sign(v)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
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


def accumulator_bound(weight: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """The largest |accumulator| that any int8 input can cause, rounding term included.

    weight (N, ...), bias (N,) or (phases, N), shift (N,), all integer-valued. Returns (N,) float64.
    Every partial sum of W a + b + 2^(s-1), in any order, is at most 127 sum|w| + |b| + 2^(s-1) in size.
    """
    w = weight.double().abs().flatten(1).sum(1)
    b = bias.double().abs().reshape(-1, bias.shape[-1]).amax(0)
    return ACT_MAX * w + b + torch.floor(torch.exp2(shift.double() - 1))


class QuantLinear(nn.Module):
    """A trainable layer whose weights are int8 times a power of two per output channel.

    in_frac, out_frac: log2 of the number of integer steps per nominal unit at input and output; out_frac may differ
    by output channel. They only set the scale at which the optimiser sees the weights.
    """

    MAX_EXPONENT = 14

    def __init__(
        self, shape: tuple[int, ...], *, in_frac: int, out_frac: int | Tensor, phases: int = 0, gain: float = 1.0
    ):
        super().__init__()
        fan_in = 1
        for n in shape[1:]:
            fan_in *= n
        self.weight = nn.Parameter(torch.randn(shape) * gain * (2.0 / fan_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros((phases, shape[0]) if phases else (shape[0],)))
        self.in_frac = in_frac
        self.register_buffer("out_frac", torch.as_tensor(out_frac, dtype=torch.float32).expand(shape[0]).clone())
        self.exact = True

    @torch.no_grad()
    def _exponent(self) -> Tensor:
        """Largest e per output channel with |w| 2^e <= 127, a shift >= 0 and the accumulator bound kept."""
        w = self.weight.abs().flatten(1)
        lowest = self.out_frac - self.in_frac
        e = torch.floor(torch.log2(WEIGHT_MAX / w.amax(1).clamp(min=2.0**-20)))
        b = self.bias.abs().reshape(-1, self.bias.shape[-1]).amax(0)
        # One more than the sum for each weight: rounding moves each by at most a half.
        for _ in range(2):
            e = torch.maximum(e.clamp(max=self.MAX_EXPONENT), lowest)
            scale = torch.exp2(e)
            bound = ACT_MAX * (w.sum(1) * scale + 0.5 * w.shape[1]) + b * scale * 2.0**self.in_frac
            bound = bound + torch.exp2(e + self.in_frac - self.out_frac) + 1
            e = e - torch.ceil(torch.log2(bound / (ACC_LIMIT - 1))).clamp(min=0)
        return torch.maximum(e, lowest)

    def integers(self) -> IntLayer:
        """The layer as it runs: integers carried in float32, gradients straight through to the real weights."""
        e = self._exponent()
        scale = torch.exp2(e)
        shape = (-1,) + (1,) * (self.weight.dim() - 1)
        w = self.weight * scale.view(shape)
        b = self.bias * (scale * 2.0**self.in_frac)
        if self.exact:
            w = round_half_up(w.clamp(-WEIGHT_MAX, WEIGHT_MAX))
            b = round_half_up(b)
        return IntLayer(w, b, e + self.in_frac - self.out_frac, self.exact)


def prove(layer: IntLayer, name: str) -> IntLayer:
    """Check at export (and again at load) that no input can make the layer inexact; returns it as integer dtypes.

    weight int8, bias int32, shift uint8. Raises ValueError naming the layer, the channel and the figure.
    """
    for field, tensor in (("weight", layer.weight), ("bias", layer.bias), ("shift", layer.shift)):
        if not torch.equal(tensor.double(), torch.floor(tensor.double())):
            raise ValueError(f"{name}.{field}: expected integers, got fractions")
    largest = layer.weight.double().abs().max()  # in int8, abs(-128) is -128
    if largest > WEIGHT_MAX:
        raise ValueError(f"{name}.weight: expected |w| <= {WEIGHT_MAX}, got {largest:.0f}")
    if layer.shift.min() < 0 or layer.shift.max() > 23:
        raise ValueError(f"{name}.shift: expected 0..23, got {layer.shift.min():.0f}..{layer.shift.max():.0f}")
    bound = accumulator_bound(layer.weight, layer.bias, layer.shift)
    if bound.max() >= ACC_LIMIT:
        n = int(bound.argmax())
        raise ValueError(f"{name}: output channel {n} can reach {bound[n]:.0f}, the limit is {ACC_LIMIT}")
    return IntLayer(layer.weight.to(torch.int8), layer.bias.to(torch.int32), layer.shift.to(torch.uint8))
