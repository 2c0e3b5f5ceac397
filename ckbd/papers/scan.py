"""In which order sites are decoded, and the tuned raster scan.

A stream of a raster scan can be read in two orders, which give the same latents to the bit: site after site, or along
anti-diagonals (a wavefront). Rows lie in tracks of the payload by turns, so that rows of different tracks may advance
side by side as soon as each lags enough behind the row above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from ckbd.codec.container import MOST_TRACKS
from ckbd.kernels import numerics
from ckbd.model.model import ExactLayers
from ckbd.papers.context import Context
from ckbd.papers.variant import SHARE_MAX, VariantConfig

Sites = tuple[np.ndarray, np.ndarray]  # rows and columns, int64 (n,)


def raster(height: int, width: int) -> Iterator[Sites]:
    """One site a step, row by row."""
    for row in range(height):
        for column in range(width):
            yield np.array([row]), np.array([column])


def starts(height: int, width: int, skew: int, tracks: int) -> list[int]:
    """The step of a wavefront with which each row begins; it takes width of them.

    Row r starts when row r - 1 is skew sites ahead and row r - tracks, which comes before it in its track, is done.
    """
    start: list[int] = []
    for row in range(height):
        first = start[row - 1] + min(skew, width) if row else 0
        start.append(max(first, start[row - tracks] + width) if row >= tracks else first)
    return start


def wavefront(height: int, width: int, skew: int, tracks: int) -> Iterator[Sites]:
    """All sites that may be decoded at once, step by step, rows ascending."""
    start = starts(height, width, skew, tracks)
    begins = np.array(start)  # which never fall, so that the rows of a step are neighbours
    first = after = 0
    for step in range(start[-1] + width):
        while after < height and start[after] <= step:
            after += 1
        while start[first] + width <= step:
            first += 1
        yield np.arange(first, after), step - begins[first:after]


def phases(context: Context, height: int, width: int) -> Iterator[Sites]:
    """All sites of a phase a step, in raster order."""
    where = context.phase_map(height, width).numpy()
    for p in range(context.phases):
        rows, columns = np.nonzero(where == p)
        yield rows, columns


def steps(context: Context, height: int, width: int, tracks: int, order: str) -> Iterator[tuple[bool, bool, Sites]]:
    """(whether they are of the first phase of a pattern, of the last, sites) of every step in an order."""
    if context.order is not None:
        last = context.phases - 1
        return ((p == 0, p == last, sites) for p, sites in enumerate(phases(context, height, width)))
    walk = raster(height, width) if order == "raster" else wavefront(height, width, context.skew, tracks)
    return ((False, False, sites) for sites in walk)


def tracks_for(context: Context, height: int, width: int, bits: float) -> int:
    """Tracks of a new stream whose symbols take about `bits`: 1 with phases.

    More would let a wavefront be wider, up to a row in each of width / skew; but every one costs about 6 bytes, and
    all of them may take 0.3 % of the payload and 12 bytes.
    """
    if context.order is not None:
        return 1
    return max(1, min(height, -(-width // context.skew), int((12 + 0.003 * bits / 8) / 6), MOST_TRACKS))


class TunedRaster:
    """Site after site in numpy: the live taps of one site are gathered, nothing else is touched.

    The twin of ckbd.papers.zone.Zone.at, with its arithmetic (floats that carry integers) and its results. A site
    costs three matrix-vector products; their order of summation is free because every sum is exact
    (docs/numerics.md).
    """

    def __init__(self, layers: ExactLayers, c: VariantConfig):
        first, hidden, output = (
            [t.numpy().astype(np.float32) for t in layer[:3]] for layer in (layers["first"], *layers.g_ep[1:])
        )
        self.c, self.reach = c, c.context.reach
        self.context_weight = np.ascontiguousarray(first[0][:, c.psi :])
        self.bias = first[1][1]
        # requantise: floor((a + half) 2^-s), the rounding term joins the bias where there is one.
        self.first_half, self.first_scale = _rounding(first[2])
        half, self.hidden_scale = _rounding(hidden[2])
        self.hidden_weight, self.hidden_bias = hidden[0], hidden[1] + half
        half, self.output_scale = _rounding(output[2])
        self.output_weight, self.output_bias = output[0], output[1] + half
        rows = c.M * c.mixtures
        least = [-numerics.MEAN_MAX] * c.has_means + [0] * (1 + (c.mixtures > 1))
        most = [numerics.MEAN_MAX] * c.has_means + [numerics.K_MAX] + [SHARE_MAX] * (c.mixtures > 1)
        self.low, self.high = (np.repeat(np.array(v, np.float32), rows) for v in (least, most))

    def run(
        self, psi_acc: np.ndarray, decode: Callable[[int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """y_hat (H, W, M) int16 in 1/16 of psi_acc (H, W, H1) float32.

        decode(row, mean, k, share): the symbols of a site, int16 (M,), from its parameters int16, uint8, uint8
        (mixtures, M) each.
        """
        c, r = self.c, self.reach
        H, W, _ = psi_acc.shape
        count, M = c.mixtures, c.M
        stride = W + 2 * r
        companded = np.zeros(((H + r) * stride, M), np.float32)
        y_hat = np.empty((H, W, M), np.int16)
        offsets = np.array([(dh + r) * stride + dw + r for dh, dw in c.context.taps], np.int64)
        base = psi_acc + (self.bias + self.first_half)
        nothing = np.zeros((count, M), np.uint8)
        centred = c.centring == "mean" or not c.has_means
        taps, at_site = bool(offsets.size), r * stride + r
        for row in range(H):
            for column in range(W):
                acc = base[row, column]
                if taps:
                    seen = companded[offsets + (row * stride + column)].reshape(-1)
                    acc = acc + self.context_weight @ seen
                h = np.clip(np.floor(acc * self.first_scale), 0, numerics.ACT_MAX)
                h = self.hidden_weight @ h + self.hidden_bias
                h = np.clip(np.floor(h * self.hidden_scale), 0, numerics.ACT_MAX)
                out = self.output_weight @ h + self.output_bias
                out = np.clip(np.floor(out * self.output_scale), self.low, self.high)
                out = out.reshape(-1, count, M)
                mean = out[0].astype(np.int16) if c.has_means else nothing.astype(np.int16)
                k = out[int(c.has_means)].astype(np.uint8)
                share = out[2].astype(np.uint8) if count > 1 else nothing
                y = numerics.MEAN_STEP * decode(row, mean, k, share)
                if centred:
                    y = y + mean[0]
                y_hat[row, column] = y
                if taps:
                    companded[row * stride + column + at_site] = compand(y)
        return y_hat


def _rounding(shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.floor(np.exp2(shift - 1)).astype(np.float32), np.exp2(-shift).astype(np.float32)


# ckbd.kernels.numerics.compand of every int16, which is read as uint16: a look-up instead of six passes.
COMPANDED = numerics.compand(torch.arange(1 << 16, device="cpu").short().float()).numpy()


def compand(y_hat: np.ndarray) -> np.ndarray:
    """ckbd.kernels.numerics.compand of int16, any shape, to float32."""
    return COMPANDED[y_hat.view(np.uint16)]
