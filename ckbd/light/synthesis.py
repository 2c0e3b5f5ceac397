"""g_s of one picture in NumPy: ckbd.model.transforms.Synthesis, channels last, from latents to pixels."""

from __future__ import annotations

import numpy as np

from ckbd import _passes
from ckbd.model.config import Config

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
    def __init__(self, weights: dict[str, np.ndarray], c: Config):
        """weights: float32, by their names below g_s."""
        self.c = c
        self.layers = {
            name.removesuffix(".weight"): (weight.reshape(len(weight), -1).T, weights[name[:-6] + "bias"])
            for name, weight in weights.items()
            if name.endswith(".weight")
        }
        # Colour by colour, as a shuffle reads them, to pixel by pixel, as they lie in memory.
        weight, bias = self.layers["pixels"]
        order = np.arange(3 * SQUARE**2).reshape(3, -1).T.ravel()
        self.layers["pixels"] = weight[:, order], bias[order] + np.float32(0.5)

    def __call__(self, y: np.ndarray, gray: bool) -> np.ndarray:
        """uint8 (16 H, 16 W, 3) of y float32 (H, W, M); gray: its colours are their mean."""
        H, W, _ = y.shape
        x = self._pointwise(y, "enter")
        for i in range(self.c.synthesis16):
            x = self._block(x, f"blocks16.{i}")
        corners = self._pointwise(x, "up").reshape(H, W, self.c.width, 2, 2)
        x = corners.transpose(0, 3, 1, 4, 2).reshape(2 * H, 2 * W, self.c.width)
        for i in range(self.c.synthesis8):
            x = self._block(x, f"blocks8.{i}")
        pixels = np.empty((16 * H, 16 * W, 3), np.uint8)
        squares = self._pointwise(x, "pixels")
        _passes.paint(squares.reshape(-1, squares.shape[-1]), pixels, gray=gray)
        return pixels

    def _pointwise(self, x: np.ndarray, name: str) -> np.ndarray:
        weight, bias = self.layers[name]
        out = x.reshape(-1, x.shape[-1]) @ weight
        out += bias
        return out.reshape(*x.shape[:-1], -1)

    def _block(self, x: np.ndarray, name: str) -> np.ndarray:
        mix, bias = self.layers[f"{name}.depthwise"]
        mixed = np.empty_like(x)
        _passes.depthwise(x, np.ascontiguousarray(mix), bias, (0, x.shape[0], 0, x.shape[1]), mixed)
        h = self._pointwise(mixed, f"{name}.expand")
        np.maximum(h, np.float32(0.1) * h, out=h)
        more = self._pointwise(h, f"{name}.reduce")
        more += x
        return more
