"""Matrix products outside training, by the quickest library that a CPU has.

PyTorch gives float32 products of a CPU to MKL, which does 112 billion operations a second on one Zen 5 core, where
oneDNN, in every CPU build as well, does 252 (bench.run products). Its product is an operator that torch.compile uses;
where a build lacks it, PyTorch's own choice serves.

Products of uint8 and int8 in int32 are torch._int_mm, which is oneDNN's too: integers() is the only place that calls
it, and reach() finds out what it may be given. Without VNNI oneDNN adds pairs of products in int16, and saturates in
silence: exact are then only inputs of at most 128, since 2 * 128 * 127 = 32512 fits. With VNNI all are.

Floats that carry integers of eight bits whose sums stay below 2^24 are exact in both, in any order and also where a
library is allowed to take bfloat16 (ckbd.kernels.reference.probe checks it on every machine).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_DTYPES: tuple[torch.dtype, ...] = ()
try:
    _onednn = torch.ops.mkldnn._linear_pointwise.default if torch.backends.mkldnn.is_available() else None
    _DTYPES = (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)
except (AttributeError, RuntimeError):
    _onednn = None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1.0) -> Tensor:
    """leaky_relu(x weight^T + bias, slope), (..., C) -> (..., N); weight (N, C). Slope 1 changes nothing."""
    fits = x.device.type == "cpu" and x.dtype == weight.dtype and x.dtype in _DTYPES and x.numel() > 0
    if _onednn is None or not fits or torch.is_grad_enabled():
        out = F.linear(x, weight, bias)
        return out if slope == 1.0 else F.leaky_relu(out, slope)
    # Of a weight with gaps oneDNN takes its slowest way, by a factor of a thousand.
    weight = weight.contiguous()
    unary = ("none", [], "") if slope == 1.0 else ("leaky_relu", [slope], "")
    return _onednn(x, weight, bias, *unary)


def integers(x: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """x weight^T, (n, C) -> (n, N) int32: x uint8 of at most 127 + reach(), weight int8 (N, C) in [-127, 127]."""
    if out is None:
        return torch._int_mm(x, weight.t())
    return torch._int_mm(x, weight.t(), out=out)


WIDE, NARROW = 127, 64  # how far the inputs of integers() may be from their middle, on this processor


def reach(shapes: Iterable[tuple[int, int]], rows: Iterable[int] = (1, 16, 65)) -> int:
    """WIDE, if integers() is exact on this CPU for inputs to 254, NARROW, if for those to 128 only, or 0 if neither.

    Asked of products of these shapes (C, N), for so many rows, in extreme values: all that is largest, positive,
    negative, and in turn, so that whatever saturates does.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch, "_int_mm"):
        return 0
    shapes, rows = sorted(set(shapes)), tuple(rows)
    return next((far for far in (WIDE, NARROW) if all(_exact(C, N, n, 2 * far) for C, N in shapes for n in rows)), 0)


def _exact(C: int, N: int, n: int, most: int) -> bool:
    x = torch.full((n, C), most, dtype=torch.uint8, device="cpu")
    x[1::4, ::2] = 0  # every other one
    x[2::4, 1::2] = 1
    weight = torch.full((N, C), 127, dtype=torch.int8, device="cpu")
    weight[1::4] = -127
    weight[2::4, ::2] = -127
    weight[3::4, 1::4] = 0
    x[:, 0], weight[:, 0] = 1, 1  # a last unit, which any lost bit would take away
    try:
        got = integers(x, weight)
    except RuntimeError:
        return False
    # Sums below 2^53, in any order.
    return torch.equal(got.double(), x.double() @ weight.double().t())


@lru_cache(maxsize=4)
def gain(dtype: torch.dtype) -> float:
    """How many times as fast as in float32 this processor multiplies in a dtype, on one thread: torch.bfloat16 by
    linear(), torch.uint8 by integers(). 0 if not at all.
    """
    x, weight = torch.ones(256, 256, device="cpu"), torch.ones(512, 256, device="cpu")

    def taken(dtype: torch.dtype) -> float:
        a, w = x.to(dtype), weight.to(torch.int8 if dtype == torch.uint8 else dtype)
        call = integers if dtype == torch.uint8 else linear
        return min(_seconds(lambda: call(a, w)) for _ in range(8))

    try:
        with torch.inference_mode():
            return taken(torch.float32) / taken(dtype)
    except RuntimeError:  # oneDNN has no such product here
        return 0.0


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
