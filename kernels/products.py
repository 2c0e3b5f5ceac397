"""Matrix products outside training, by the quickest library that a CPU has.

PyTorch gives float32 products of a CPU to MKL, which does 112 billion operations a second on one Zen 5 core, where
oneDNN, in every CPU build as well, does 252 (bench.run products). Its product is an operator that torch.compile uses;
where a build lacks it, PyTorch's own choice serves.

Integers of eight bits whose sums stay below 2^24 are exact in both, in any order and also where a library is allowed
to take bfloat16 (ckbd.kernels.reference.probe checks it on every machine).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    _onednn = torch.ops.mkldnn._linear_pointwise.default if torch.backends.mkldnn.is_available() else None
except (AttributeError, RuntimeError):
    _onednn = None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1.0) -> Tensor:
    """leaky_relu(x weight^T + bias, slope), (..., C) -> (..., N); weight (N, C). Slope 1 changes nothing."""
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    if _onednn is None or not fits or torch.is_grad_enabled():
        out = F.linear(x, weight, bias)
        return out if slope == 1.0 else F.leaky_relu(out, slope)
    # Of a weight with gaps oneDNN takes its slowest way, by a factor of a thousand.
    weight = weight.contiguous()
    unary = ("none", [], "") if slope == 1.0 else ("leaky_relu", [slope], "")
    return _onednn(x, weight, bias, *unary)
