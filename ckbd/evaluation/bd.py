"""Curves of rate and quality, and what one saves against another: BD-rates, and the better of two codecs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import bjontegaard
import numpy as np

WINDOW = (0.15, 1.0)
METRICS = ("psnr", "ms_ssim", "ssimulacra2")
JPEGS = ("jpeg-420", "jpeg-444")

Curve = dict[str, list]


class BD(NamedTuple):
    """The mean rate lost (saved if negative) in percent, and the anchor's rates that it was taken over."""

    percent: float
    anchor_bpp: tuple[float, float]


def column(curve: Curve, metric: str) -> list[float | None]:
    """What the curve has by a metric; None at every point if the metric was not measured."""
    return curve.get(metric) or [None] * len(curve["bpp"])


def scaled(curve: Curve, metric: str) -> list[float | None]:
    """A curve's quality on the scale that rates are compared over; None where there is none.

    PSNR is in dB, MS-SSIM becomes so: -10 log10(1 - MS-SSIM). SSIMULACRA2 stays as it is: it was fitted to people's
    opinions linearly, and goes below 0. Raises ValueError for another metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    if metric != "ms_ssim":
        return column(curve, metric)
    return [None if v is None or v >= 1 else -10 * math.log10(1 - v) for v in column(curve, metric)]


def _rising(curve: Curve, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The curve's bpp and scaled() by rate, without points that another one equals or beats at no more bytes."""
    points: list[tuple[float, float]] = []
    pairs = [(bpp, q) for bpp, q in zip(curve["bpp"], scaled(curve, metric), strict=True) if q is not None]
    for bpp, q in sorted(pairs, key=lambda pair: (pair[0], -pair[1])):
        if not points or q > points[-1][1]:
            points.append((bpp, q))
    rate, quality = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return rate, quality


def _pair(anchor: Curve, test: Curve, metric: str) -> tuple[Any, Any, float, float] | None:
    """Quality -> log10 bpp interpolants of both curves and the qualities that both reach; None if there are none."""
    (rate_a, quality_a), (rate_t, quality_t) = _rising(anchor, metric), _rising(test, metric)
    if min(len(quality_a), len(quality_t)) < 2:
        return None
    low, high = max(quality_a[0], quality_t[0]), min(quality_a[-1], quality_t[-1])
    if low >= high:
        return None
    _, log_rate_a, log_rate_t = bjontegaard.bd_rate(
        rate_a,
        quality_a,
        rate_t,
        quality_t,
        method="pchip",
        require_matching_points=False,
        interpolators=True,
        min_overlap=0,
    )
    return log_rate_a, log_rate_t, float(low), float(high)


def bd_rate(anchor: Curve, test: Curve, window: tuple[float, float] = WINDOW, metric: str = "psnr") -> BD | None:
    """Rate of test against anchor at equal quality by a metric, in percent: -30 means 30 % fewer bytes.

    Curves hold "bpp" and the metric, in any order. log10 bpp is interpolated over scaled() (pchip, the bjontegaard
    package) through all points of each curve, and the difference is averaged over the qualities that
    both curves reach and that the anchor reaches at rates inside window (in bpp): the window's ends become
    qualities through the anchor's own interpolant. Where test starts above the anchor's quality at window[0], or
    ends below that at window[1], less of the window is covered; anchor_bpp tells how much. None if nothing is.
    """
    pair = _pair(anchor, test, metric)
    if pair is None:
        return None
    log_rate_a, log_rate_t, low, high = pair
    first, last = log_rate_a(low), log_rate_a(high)
    start, stop = (min(max(math.log10(rate), first), last) for rate in window)
    if start >= stop:
        return None
    # The interpolant is strictly rising, so each rate between first and last is reached once.
    low = float(log_rate_a.solve(start, extrapolate=False)[0]) if start > first else low
    high = float(log_rate_a.solve(stop, extrapolate=False)[0]) if stop < last else high
    difference = (log_rate_t.integrate(low, high) - log_rate_a.integrate(low, high)) / (high - low)
    return BD(float(10**difference - 1) * 100, (float(10**start), float(10**stop)))


def envelope(first: Curve, second: Curve, metric: str = "psnr") -> Curve:
    """The better of two codecs at every quality: the points of each that the other's curve does not undercut."""
    pair = _pair(first, second, metric)
    kept = []
    keys = ["bpp", *(key for key in METRICS if key in first and key in second)]
    for own, other in ((first, 1), (second, 0)):
        points = zip(*(own[key] for key in keys), strict=True)
        for point, quality in zip(points, scaled(own, metric), strict=True):
            if quality is None:
                continue
            if pair is None or not pair[2] <= quality <= pair[3]:
                kept.append((quality, point))  # nothing of the other curve to be held against
                continue
            # A hair's breadth of room: two curves that coincide undercut each other by rounding alone.
            interpolant = pair[0] if other == 0 else pair[1]
            if math.log10(point[0]) <= float(interpolant(quality)) + 1e-9:
                kept.append((quality, point))
    best: Curve = {key: [] for key in keys}
    highest = -math.inf
    for quality, point in sorted(kept, key=lambda one: one[1][0]):
        if quality > highest:
            highest = quality
            for values, value in zip(best.values(), point, strict=True):
                values.append(value)
    return best


def bd_rates(
    anchors: dict[str, Curve], test: Curve, window: tuple[float, float] = WINDOW, metric: str = "psnr"
) -> dict[str, BD | None]:
    """bd_rate of test against each anchor; "jpeg-best" is the better of both JPEGs by the same metric."""
    best = {name: envelope(anchors[JPEGS[0]], anchors[JPEGS[1]], metric) for name in anchors if name == "jpeg-best"}
    return {name: bd_rate(anchor, test, window, metric) for name, anchor in (anchors | best).items()}
