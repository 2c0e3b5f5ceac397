"""Rate and distortion of a codec over a folder of images, beside the codecs that Pillow carries.

Every rate is that of bytes that exist and were decoded again: bpp = 8 * len(stream) / (H * W). A curve's points are
means over the images at one setting, bpp, PSNR and MS-SSIM. Pixels alone are compared: no alpha, no ICC profile.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import bjontegaard
import numpy as np
from pytorch_msssim import ms_ssim
from tqdm import tqdm

from ckbd.codec import image, machine
from ckbd.codec.image import Picture
from ckbd.codec.networks import tensors
from ckbd.evaluation.rivals import RIVALS, decode, why_absent

QUALITIES = (1, 8, 15, 25, 35, 45, 55, 65, 75, 85, 92, 100)
WINDOW = (0.15, 1.0)
METRICS = ("psnr", "ms_ssim")
JPEGS = ("jpeg-420", "jpeg-444")
MS_SSIM_MIN_SIDE = 161  # four halvings under an 11x11 window
# What a stream may hold beyond its estimated bits: a share for the coder's rounding, and bytes for the container.
EXCESS_SHARE, EXCESS_BYTES = 0.005, 48
COLUMNS = (
    "codec",
    "setting",
    "image",
    "width",
    "height",
    "bytes",
    "bpp",
    "psnr",
    "ms_ssim",
    "estimated_bits",
)

Row = dict[str, Any]
Curve = dict[str, list]


class Codec(Protocol):
    """What is asked of the codec under test: see ckbd.api.Codec."""

    @property
    def model_hash(self) -> str: ...
    def encode(self, images: Sequence[Picture], quality: float, effort: int | None) -> list[bytes]: ...
    def decode_pictures(self, streams: Sequence[bytes]) -> list[Picture]: ...
    def estimate(self, pictures: Sequence[Picture], quality: float, effort: int | None) -> list[float]: ...


class BD(NamedTuple):
    """The mean rate lost (saved if negative) in percent, and the anchor's rates that it was taken over."""

    percent: float
    anchor_bpp: tuple[float, float]


def metrics(a: np.ndarray, b: np.ndarray) -> tuple[float, float | None]:
    """PSNR in dB (image.psnr) and MS-SSIM (0..1; None if a side is under 161) of two uint8 (H, W, 3)."""
    decibel = image.psnr(a, b)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return decibel, None
    return decibel, ms_ssim(*(tensors.to_tensor([Picture(one)]) for one in (a, b)), data_range=1.0).item()


def decibels(curve: Curve, metric: str) -> list[float | None]:
    """A curve's quality in dB: "psnr" as it is, "ms_ssim" as -10 log10(1 - MS-SSIM); None where there is none.

    Raises ValueError for another metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    if metric == "psnr":
        return curve["psnr"]
    return [None if v is None or v >= 1 else -10 * math.log10(1 - v) for v in curve["ms_ssim"]]


def _rising(curve: Curve, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The curve's bpp and dB by rate, without points that another one equals or beats at no more bytes."""
    points: list[tuple[float, float]] = []
    pairs = [(bpp, dB) for bpp, dB in zip(curve["bpp"], decibels(curve, metric), strict=True) if dB is not None]
    for bpp, dB in sorted(pairs, key=lambda pair: (pair[0], -pair[1])):
        if not points or dB > points[-1][1]:
            points.append((bpp, dB))
    rate, quality = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return rate, quality


def _pair(anchor: Curve, test: Curve, metric: str) -> tuple[Any, Any, float, float] | None:
    """dB -> log10 bpp interpolants of both curves and the qualities that both reach; None if there are none."""
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

    Curves hold "bpp" and the metric, in any order. log10 bpp is interpolated over decibels() (pchip, the
    bjontegaard package) through all points of each curve, and the difference is averaged over the qualities that
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
    for own, other in ((first, 1), (second, 0)):
        points = zip(own["bpp"], own["psnr"], own["ms_ssim"], strict=True)
        for point, quality in zip(points, decibels(own, metric), strict=True):
            if quality is None:
                continue
            if pair is None or not pair[2] <= quality <= pair[3]:
                kept.append((quality, point))  # nothing of the other curve to be held against
                continue
            # A hair's breadth of room: two curves that coincide undercut each other by rounding alone.
            interpolant = pair[0] if other == 0 else pair[1]
            if math.log10(point[0]) <= float(interpolant(quality)) + 1e-9:
                kept.append((quality, point))
    best: Curve = {"bpp": [], "psnr": [], "ms_ssim": []}
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


def _row(codec: str, setting: float, name: str, x: np.ndarray, stream: bytes, x_hat: np.ndarray) -> Row:
    height, width, _ = x.shape
    psnr, similarity = metrics(x, x_hat)
    row = dict.fromkeys(COLUMNS)
    row |= {"codec": codec, "setting": setting, "image": name, "width": width, "height": height}
    row |= {
        "bytes": len(stream),
        "bpp": 8 * len(stream) / (height * width),
        "psnr": psnr,
        "ms_ssim": similarity,
    }
    return row


def _own_row(codec: Codec, name: str, picture: Picture, effort: int | None, bar: tqdm, quality: float) -> Row:
    (stream,) = codec.encode([picture], quality, effort)
    (decoded,) = codec.decode_pictures([stream])
    row = _row("ckbd", quality, name, picture.rgb, stream, decoded.rgb)
    row["estimated_bits"] = float(codec.estimate([picture], quality, effort)[0])
    bar.update()
    return row


def _rival_row(rival: str, setting: float, name: str, x: np.ndarray) -> Row:
    stream = RIVALS[rival].encode(x, setting)
    return _row(rival, setting, name, x, stream, decode(stream))


def _curve(rows: Sequence[Row], codec: str) -> Curve:
    settings = list(dict.fromkeys(row["setting"] for row in rows if row["codec"] == codec))
    curve: Curve = {"quality": settings, "bpp": [], "psnr": [], "ms_ssim": []}
    for setting in settings:
        group = [row for row in rows if row["codec"] == codec and row["setting"] == setting]
        for column in ("bpp", "psnr", "ms_ssim"):
            values = [row[column] for row in group if row[column] is not None]
            curve[column].append(float(np.mean(values)) if values else None)
    return curve


def _worst_estimate(rows: Sequence[Row]) -> dict[str, Any]:
    def beyond_share(row: Row) -> float:
        return abs(row["bytes"] - row["estimated_bits"] / 8) - EXCESS_SHARE * row["estimated_bits"] / 8

    worst = max((row for row in rows if row["estimated_bits"] is not None), key=beyond_share)
    kept = {key: worst[key] for key in ("image", "setting", "bytes", "estimated_bits")}
    return kept | {
        "excess_bytes": worst["bytes"] - worst["estimated_bits"] / 8,
        "within_bound": beyond_share(worst) <= EXCESS_BYTES,
    }


def run(
    codec: Codec,
    folder: str | os.PathLike[str],
    qualities: Sequence[float] = QUALITIES,
    rivals: Sequence[str] = tuple(RIVALS),
    *,
    window: tuple[float, float] = WINDOW,
    threads: int | None = None,
    effort: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure codec at each quality, and the rivals, on every image below a folder, whatever their sizes.

    threads: how many points and how many rivals at once (None: one a core). effort: the codec's (None: its default).
    progress: show a bar on stderr. Returns "curve" (quality, bpp, psnr, ms_ssim: one value a quality), "rivals"
    ({name: bpp, psnr, ms_ssim}; with both JPEGs also "jpeg-best", their envelope), "bd_rate" ({name: percent against
    that rival, or None}), "bd_bpp" (the rival's rates that each was taken over), "bd_rate_ms_ssim" and
    "bd_bpp_ms_ssim" (the same at equal MS-SSIM), "absent" ({name: why a rival is missing}), "images", "model",
    "estimate" (the stream farthest from its estimated bits), "rows" (one an image and setting, with the keys of
    COLUMNS). Raises ValueError if the folder holds no image or an unreadable one, and for an unknown rival.
    """
    paths = image.find(folder)
    if not paths:
        raise ValueError(f"{folder}: no image files")
    if set(rivals) - RIVALS.keys():
        raise ValueError(f"rivals: expected some of {', '.join(RIVALS)}, got {', '.join(rivals)}")
    absent = {rival: reason for rival in rivals if (reason := why_absent(rival)) is not None}
    ladder = [(rival, setting) for rival in rivals if rival not in absent for setting in RIVALS[rival].settings]
    rows: list[Row] = []
    team = machine.Team(threads or os.cpu_count() or 1)
    pool = machine.executor(team.threads)
    bar = tqdm(total=len(paths) * (len(qualities) + len(ladder)), unit="stream", disable=not progress)
    try:
        for path in paths:
            name = path.relative_to(folder).as_posix()
            try:
                picture = image.read(path)
            except (OSError, ValueError) as error:
                raise ValueError(f"{path}: {error}") from error
            picture = Picture(picture.rgb, gray=picture.gray)
            pending = [pool.submit(_rival_row, *task, name, picture.rgb) for task in ladder]
            with machine.alone():
                rows += team(partial(_own_row, codec, name, picture, effort, bar), qualities)
            for (rival, _), future in zip(ladder, pending, strict=True):
                try:
                    rows.append(future.result())
                except (OSError, ValueError) as error:
                    absent.setdefault(rival, f"{name}: {error}")
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    rows = [row for row in rows if row["codec"] not in absent]
    curve = _curve(rows, "ckbd")
    others = {rival: _curve(rows, rival) for rival in rivals if rival not in absent}
    for other in others.values():
        del other["quality"]
    if others.keys() >= set(JPEGS):
        others["jpeg-best"] = envelope(others[JPEGS[0]], others[JPEGS[1]])
    deltas: dict[str, dict[str, Any]] = {}
    for metric, suffix in (("psnr", ""), ("ms_ssim", "_ms_ssim")):
        found = bd_rates(others, curve, window, metric).items()
        deltas["bd_rate" + suffix] = {name: delta.percent if delta else None for name, delta in found}
        deltas["bd_bpp" + suffix] = {name: delta.anchor_bpp if delta else None for name, delta in found}
    return {
        "curve": curve,
        "rivals": others,
        **deltas,
        "absent": absent,
        "images": [path.relative_to(folder).as_posix() for path in paths],
        "model": codec.model_hash,
        "estimate": _worst_estimate(rows),
        "rows": rows,
    }
