"""The exact zone of one picture: integers that travel in float32 through NumPy's products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ckbd import _passes
from ckbd.model.proof import ACT_MAX, WEIGHT_MAX

STRIPE = 512  # sites at a time: 6 MB of gathered neighbours with the default model's widths
AROUND = np.array([(u, v, v) for u in (-1, 0, 1) for v in (-1, 0, 1)], np.int32)
# The twelve live taps of a 5x5 checkerboard, of non-anchors: those of even rows are in odd columns.
TAPS = np.array([(i // 5 - 2, (i % 5 - 1) >> 1, (i % 5 - 2) >> 1) for i in range(1, 25, 2)], np.int32)


class Layer(NamedTuple):
    """weight float32 (N, K); bias, the half of rounding included, and shift int32 (N,)."""

    weight: np.ndarray
    bias: np.ndarray
    shift: np.ndarray

    def sums(self, x: np.ndarray) -> np.ndarray:
        """int32 (sites, N) of x, int8 (sites, K). Exact: no partial sum reaches 2^24 (docs/numerics.md)."""
        return (x.astype(np.float32) @ self.weight.T).astype(np.int32)

    def activations(self, x: np.ndarray) -> np.ndarray:
        """The sums requantised, int8 (sites, N)."""
        out = np.empty((len(x), len(self.weight)), np.uint8)
        _passes.requantise(self.sums(x), self.bias, self.shift, out)
        return out.view(np.int8)


def _layer(weight: np.ndarray, bias: np.ndarray, shift: np.ndarray) -> Layer:
    s = shift.astype(np.int32)
    half = np.where(s > 0, 1 << np.maximum(s - 1, 0), 0)
    return Layer(weight.astype(np.float32), (bias + half).astype(np.int32), s)


@lru_cache(maxsize=1)
def exact() -> bool:
    """Whether NumPy's float32 products are exact up to 2^24 here: ckbd.kernels.reference.probe, asked of NumPy."""
    draw = np.random.default_rng(0)
    a = draw.integers(-ACT_MAX, ACT_MAX + 1, (64, 1032)).astype(np.float32)
    w = draw.integers(-WEIGHT_MAX, WEIGHT_MAX + 1, (96, 1032)).astype(np.float32)
    a[:32], w[:48] = ACT_MAX, WEIGHT_MAX
    a[16:32, 1::2], a[:, 0], w[:, 0] = -ACT_MAX, 1, 1
    return np.array_equal(a @ w.T, a.astype(np.float64) @ w.astype(np.float64).T)


class Zone:
    """Of a model, or of a channel group. Steps as those of ckbd.codec.zone; rows of a picture, columns of a half,
    channels last.
    """

    def __init__(self, layers: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]):
        """layers: proved, as ckbd.model.arrays.layers has them."""
        self.h_s = [self._grown(*layers[name]) for name in ("h_s.0", "h_s.1")]
        weight, bias, shift = layers["first"]
        self.hidden, self.output = _layer(*layers["hidden"]), _layer(*layers["output"])
        self.M = len(self.output.weight) // 2
        self.C = weight.shape[1] - len(TAPS) * self.M  # psi, and what a channel group has of those before it
        self.anchors = _layer(weight[:, : self.C], bias[0], shift)
        self.others = _layer(weight, bias[1], shift)
        if "channel" in layers:
            weight, bias, shift = layers["channel"]
            self.channel = _layer(weight.transpose(0, 2, 3, 1).reshape(len(weight), -1), bias, shift)

    @staticmethod
    def _grown(weight: np.ndarray, bias: np.ndarray, shift: np.ndarray) -> Layer:
        """A sub-pixel convolution; its rows come by corner, as _passes.requantise wants them."""
        order = np.arange(len(weight)).reshape(-1, 4).T.ravel()
        return _layer(weight[order].transpose(0, 2, 3, 1).reshape(len(weight), -1), bias[order], shift[order])

    def begin(self, z: np.ndarray, quality: int) -> np.ndarray:
        """psi of both halves, uint8 (2, H, W/2, C), of z int16 (Hz, Wz, Nz) and a quality 1..100: h_s."""
        Hz, Wz, _ = z.shape
        first, second = self.h_s
        f = np.concatenate((z.astype(np.int8), np.full((Hz, Wz, 1), quality, np.int8)), -1)
        grown = np.empty((2 * Hz, 2 * Wz, len(first.weight) // 4), np.uint8)
        self._convolve(first, f, grown)
        psi = np.empty((2, 4 * Hz, 2 * Wz, len(second.weight) // 4), np.uint8)
        self._convolve(second, grown.view(np.int8), psi)
        return psi

    def _convolve(self, layer: Layer, x: np.ndarray, out: np.ndarray) -> None:
        for rows in _stripes(*x.shape[:2]):
            _passes.requantise(layer.sums(_gathered(x, AROUND, rows)), layer.bias, layer.shift, out, rows=rows)

    def phase(self, psi: np.ndarray, anchors: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
        """(mean int16, k uint8) of one half, (H, W/2, M) each, from its psi; anchors: r and mean of phase 0."""
        H, half, _ = psi.shape
        mean, k = np.empty((H, half, self.M), np.int16), np.empty((H, half, self.M), np.uint8)
        context = None if anchors is None else self._context(*anchors)
        for rows in _stripes(H, half):
            some = slice(*rows)
            own = psi[some].reshape(-1, self.C).view(np.int8)
            if context is None:
                h = self.anchors.activations(own)
            else:
                h = self.others.activations(_gathered(context, TAPS, rows, own))
            h = self.hidden.activations(h)
            flat = mean[some].reshape(-1, self.M), k[some].reshape(-1, self.M)
            _passes.output(self.output.sums(h), self.output.bias, self.output.shift, *flat)
        return mean, k

    def after(self, psi: np.ndarray, done: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """psi of begin() with the features that this channel group has of those before it; done: r and mean of each,
        both halves.
        """
        anchors, others = np.concatenate([self._context(r, mean) for r, mean in done], -1)
        H, half, C = anchors.shape
        pairs = np.empty((H, half, 2, C), np.int8)  # columns 2j and 2j + 1
        pairs[0::2, :, 0], pairs[0::2, :, 1] = anchors[0::2], others[0::2]
        pairs[1::2, :, 0], pairs[1::2, :, 1] = others[1::2], anchors[1::2]
        full, layer = pairs.reshape(H, 2 * half, C), self.channel
        found = np.empty((H, half, 2, len(layer.weight)), np.uint8)
        for rows in _stripes(H, 2 * half):
            found[slice(*rows)] = (
                layer.activations(_gathered(full, AROUND, rows)).view(np.uint8).reshape(-1, *found.shape[1:])
            )
        own = np.empty((*psi.shape[:3], len(layer.weight)), np.uint8)
        own[0, 0::2], own[1, 0::2] = found[0::2, :, 0], found[0::2, :, 1]
        own[0, 1::2], own[1, 1::2] = found[1::2, :, 1], found[1::2, :, 0]
        return np.concatenate((psi, own), -1)

    def _context(self, r: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Residuals of a half, or of both, as contexts see them: companded, int8."""
        near = np.empty((r.size // r.shape[-1], r.shape[-1]), np.uint8)
        _passes.assemble(r.reshape(near.shape), mean.reshape(near.shape), near)
        return (near - np.uint8(ACT_MAX)).view(np.int8).reshape(r.shape)


def _gathered(x: np.ndarray, taps: np.ndarray, rows: tuple[int, int], own: np.ndarray | None = None) -> np.ndarray:
    """int8 (sites, channels): `own` ones of the sites of some rows, if any, then those of x at every tap."""
    H, W, C = x.shape
    at = 0 if own is None else own.shape[1]
    out = np.empty(((rows[1] - rows[0]) * W, at + len(taps) * C), np.uint8)
    if own is not None:
        out[:, :at] = own.view(np.uint8)
    _passes.gather(x.view(np.uint8), H, taps, np.zeros(C, np.uint8), rows, out, at=at)
    return out.view(np.int8)


def _stripes(rows: int, width: int) -> list[tuple[int, int]]:
    step = max(1, STRIPE // width)
    return [(top, min(top + step, rows)) for top in range(0, rows, step)]
