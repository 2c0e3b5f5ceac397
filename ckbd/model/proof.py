"""The proof that an integer layer is exact on every machine (docs/numerics.md), without torch."""

from __future__ import annotations

import numpy as np

ACT_MAX = WEIGHT_MAX = 127  # sizes of what goes into a layer, and of its weights
ACC_LIMIT = 1 << 24  # float32 holds every integer up to here
SHIFT_MAX = 23


def accumulator_bound(weight: np.ndarray, bias: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The largest |accumulator| that any int8 input can cause, rounding term included.

    weight (N, ...), bias (N,) or (phases, N), shift (N,), all integer-valued. Returns (N,) float64.
    Every partial sum of W a + b + 2^(s-1), in any order, is at most 127 sum|w| + |b| + 2^(s-1) in size.
    """
    w = np.abs(weight.astype(np.float64)).reshape(len(weight), -1).sum(1)
    b = np.abs(bias.astype(np.float64)).reshape(-1, bias.shape[-1]).max(0)
    return ACT_MAX * w + b + np.floor(np.exp2(shift.astype(np.float64) - 1))


def prove(weight: np.ndarray, bias: np.ndarray, shift: np.ndarray, name: str) -> None:
    """Raise ValueError, naming the layer, the channel and the figure, if some input can make a layer inexact."""
    for field, values in (("weight", weight), ("bias", bias), ("shift", shift)):
        if values.dtype.kind == "f" and not np.array_equal(values, np.floor(values)):
            raise ValueError(f"{name}.{field}: expected integers, got fractions")
    largest = max(abs(float(weight.min())), abs(float(weight.max())))  # in int8, abs(-128) is -128
    if largest > WEIGHT_MAX:
        raise ValueError(f"{name}.weight: expected |w| <= {WEIGHT_MAX}, got {largest:.0f}")
    if shift.min() < 0 or shift.max() > SHIFT_MAX:
        raise ValueError(f"{name}.shift: expected 0..{SHIFT_MAX}, got {shift.min():.0f}..{shift.max():.0f}")
    bound = accumulator_bound(weight, bias, shift)
    if bound.max() >= ACC_LIMIT:
        n = int(bound.argmax())
        raise ValueError(f"{name}: output channel {n} can reach {bound[n]:.0f}, the limit is {ACC_LIMIT}")
