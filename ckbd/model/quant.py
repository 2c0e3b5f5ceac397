"""Integer layers that are trained, and the proof that they are exact (docs/numerics.md).

What the integers compute is in ckbd.kernels.numerics; here is how real weights become them, and the bound that is
proved of them at export and again when a model file is read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ckbd.kernels.numerics import ACT_MAX, WEIGHT_MAX, IntLayer, round_half_up
from ckbd.model import proof
from ckbd.model.proof import ACC_LIMIT


class QuantLinear(nn.Module):
    """A trainable layer whose weights are int8 times a power of two per output channel.

    in_frac, out_frac: log2 of the number of integer steps per nominal unit at input and output; out_frac may differ
    by output channel. They only set the scale at which the optimiser sees the weights.
    """

    MAX_EXPONENT = 14
    out_frac: Tensor

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

    @torch.no_grad()
    def set_integers(self, layer: IntLayer) -> None:
        """Takes the real weights whose integers these are: weight int8, bias int32, shift uint8 of equal shapes."""
        e = layer.shift.to(self.out_frac) + self.out_frac - self.in_frac
        self.weight.copy_(layer.weight * torch.exp2(-e).view((-1,) + (1,) * (self.weight.dim() - 1)))
        self.bias.copy_(layer.bias * torch.exp2(-e - self.in_frac))


def prove(layer: IntLayer, name: str) -> IntLayer:
    """Check at export (and again at load) that no input can make the layer inexact; returns it as integer dtypes.

    weight int8, bias int32, shift uint8. Raises ValueError naming the layer, the channel and the figure.
    """
    weight, bias, shift = (t.detach().cpu().numpy() for t in (layer.weight, layer.bias, layer.shift))
    proof.prove(weight, bias, shift, name)
    return IntLayer(layer.weight.to(torch.int8), layer.bias.to(torch.int32), layer.shift.to(torch.uint8))
