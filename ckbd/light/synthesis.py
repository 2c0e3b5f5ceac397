"""g_s of one picture in NumPy: ckbd.model.transforms.Synthesis, channels last, from latents to pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ckbd import _passes
from ckbd.codec.networks.windows import Extent, Window, needed
from ckbd.codec.view import SHRINKS
from ckbd.model.config import PREVIEW_SIDE, Config

Step = Callable[[np.ndarray], np.ndarray]

SQUARE = 8  # pixels of a side that a site at 1/8 resolution makes


def shapes(c: Config) -> dict[str, tuple[int, ...]]:
    """The weights of g_s by their names in a model file."""
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, n: int, *rest: int) -> None:
        found[f"g_s.{name}.weight"], found[f"g_s.{name}.bias"] = (n, *rest), (n,)

    def blocks(name: str, count: int, n: int) -> None:
        for i in range(count):
            layer(f"{name}.{i}.depthwise", n, 1, 3, 3)
            layer(f"{name}.{i}.expand", 2 * n, n, 1, 1)
            layer(f"{name}.{i}.reduce", n, 2 * n, 1, 1)

    layer("enter", c.M, c.M, 1, 1)
    blocks("blocks16", c.synthesis16, c.M)
    layer("up", 4 * c.width, c.M, 1, 1)
    blocks("blocks8", c.synthesis8, c.width)
    layer("pixels", 3 * SQUARE**2, c.width, 1, 1)
    return found


class Synthesis:
    def __init__(
        self, weights: dict[str, np.ndarray], c: Config, preview: tuple[np.ndarray, np.ndarray] | None = None
    ):
        """weights: float32, by their names below g_s. preview: of ckbd.model.arrays.preview."""
        self.c = c
        self.layers = {
            name.removesuffix(".weight"): (weight.reshape(len(weight), -1).T, weights[name[:-6] + "bias"])
            for name, weight in weights.items()
            if name.endswith(".weight")
        }
        # What ends a picture that is smaller: pixels of a side, weight and bias of the last layer, by 1 / scale.
        weight, bias = self.layers["pixels"]
        self.ends = {shrink: _end(weight.T, bias, SQUARE, shrink) for shrink in SHRINKS}
        self.previews = {}
        if preview is not None:
            weight = preview[0].transpose(0, 2, 3, 1).reshape(len(preview[0]), -1)
            self.previews = {s: _end(weight, preview[1], PREVIEW_SIDE, s // 4) for s in SHRINKS if s >= 4}

    def __call__(self, y: np.ndarray, gray: bool, shrink: int = 1, window: Window | None = None) -> np.ndarray:
        """uint8 (16 H / shrink, 16 W / shrink, 3) of y float32 (H, W, M), or a window of that; gray: its colours are
        their mean.
        """
        steps = self._steps(shrink, gray)
        size, extents = y.shape[:2], [extent for extent, _ in steps]
        last = Window(0, 0, *(16 * n // shrink for n in size)) if window is None else window
        windows = needed(extents, size, last)
        x = _cut(y, windows[0])
        for (extent, step), own, following in zip(steps, windows, windows[1:], strict=False):
            x = _cut(step(x), following.within(own.grown(extent)))
        return np.ascontiguousarray(x)

    def _steps(self, shrink: int, gray: bool) -> list[tuple[Extent, Step]]:
        """The layers, one after the other, with how far each reaches."""
        if shrink in self.previews:
            side, weight, bias = self.previews[shrink]
            return [(Extent(1, 1, side), lambda x: self._paint(_linear(_around(x), weight, bias), side, gray))]
        site, around, (side, weight, bias) = Extent(0, 1, 1), Extent(1, 1, 1), self.ends[shrink]
        found: list[tuple[Extent, Step]] = [(site, partial(self._pointwise, name="enter"))]
        found += [(around, partial(self._block, name=f"blocks16.{i}")) for i in range(self.c.synthesis16)]
        found.append((Extent(0, 1, 2), self._up))
        found += [(around, partial(self._block, name=f"blocks8.{i}")) for i in range(self.c.synthesis8)]
        return [*found, (Extent(0, 1, side), lambda x: self._paint(_linear(x, weight, bias), side, gray))]

    def _up(self, x: np.ndarray) -> np.ndarray:
        H, W, _ = x.shape
        corners = self._pointwise(x, "up").reshape(H, W, self.c.width, 2, 2)
        return corners.transpose(0, 3, 1, 4, 2).reshape(2 * H, 2 * W, self.c.width)

    @staticmethod
    def _paint(squares: np.ndarray, side: int, gray: bool) -> np.ndarray:
        H, W, values = squares.shape
        pixels = np.empty((side * H, side * W, 3), np.uint8)
        _passes.paint(squares.reshape(-1, values), pixels, gray=gray)
        return pixels

    def _pointwise(self, x: np.ndarray, name: str) -> np.ndarray:
        return _linear(x, *self.layers[name])

    def _block(self, x: np.ndarray, name: str) -> np.ndarray:
        mix, bias = self.layers[f"{name}.depthwise"]
        mixed = np.empty_like(x)
        _passes.depthwise(x, np.ascontiguousarray(mix), bias, (0, x.shape[0], 0, x.shape[1]), mixed)
        h = self._pointwise(mixed, f"{name}.expand")
        np.maximum(h, np.float32(0.1) * h, out=h)
        more = self._pointwise(h, f"{name}.reduce")
        more += x
        return more


def _end(weight: np.ndarray, bias: np.ndarray, side: int, shrink: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Of a layer (N, K) that gives squares colour by colour: (side / shrink, weight (K, ...), bias), which gives the
    means of their own squares pixel by pixel, as they lie in memory, and 0.5 more.
    """
    n = side // shrink
    shape = 3, n, shrink, n, shrink
    means = weight.reshape(*shape, -1).mean((2, 4), dtype=np.float32), bias.reshape(shape).mean((2, 4))
    order = np.arange(3 * n * n).reshape(3, -1).T.ravel()
    flat = means[0].reshape(3 * n * n, -1)[order], means[1].ravel()[order].astype(np.float32)
    return n, np.ascontiguousarray(flat[0].T), flat[1] + np.float32(0.5)


def _linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    out = x.reshape(-1, x.shape[-1]) @ weight
    out += bias
    return out.reshape(*x.shape[:-1], -1)


def _around(x: np.ndarray) -> np.ndarray:
    """(H, W, 9 C) of (H, W, C): every site's neighbours and itself, row by row, zeros outside."""
    H, W, _ = x.shape
    wide = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    return np.concatenate([wide[i : i + H, j : j + W] for i in range(3) for j in range(3)], -1)


def _cut(x: np.ndarray, window: Window) -> np.ndarray:
    return np.ascontiguousarray(x[window.top : window.bottom, window.left : window.right])
