"""Rate and distortion of a codec over a folder of images, beside the codecs that Pillow carries.

Every rate is that of bytes that exist and were decoded again: bpp = 8 * len(stream) / (H * W). A curve's points are
means over the images at one setting, bpp and each metric. Pixels alone are compared: no alpha, no ICC profile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ckbd.codec import image, machine
from ckbd.codec.image import Picture
from ckbd.evaluation.bd import JPEGS, METRICS, WINDOW, Curve, bd_rates, envelope
from ckbd.evaluation.metrics import measure
from ckbd.evaluation.rivals import RIVALS, decode, why_absent

QUALITIES = (1, 8, 15, 25, 35, 45, 55, 65, 75, 85, 92, 100)
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
    *METRICS,
    "estimated_bits",
)

Row = dict[str, Any]


class Codec(Protocol):
    """What is asked of the codec under test: see ckbd.api.Codec."""

    @property
    def model_hash(self) -> str: ...
    def encode(self, images: Sequence[Picture], quality: float, effort: int | None) -> list[bytes]: ...
    def decode_pictures(self, streams: Sequence[bytes]) -> list[Picture]: ...
    def estimate(self, pictures: Sequence[Picture], quality: float, effort: int | None) -> list[float]: ...


def _row(
    codec: str, setting: float, name: str, x: np.ndarray, stream: bytes, x_hat: np.ndarray, wanted: Sequence[str]
) -> Row:
    height, width, _ = x.shape
    row = dict.fromkeys(COLUMNS)
    row |= {"codec": codec, "setting": setting, "image": name, "width": width, "height": height}
    row |= {"bytes": len(stream), "bpp": 8 * len(stream) / (height * width), **measure(x, x_hat, wanted)}
    return row


def _own_row(
    codec: Codec, name: str, picture: Picture, effort: int | None, wanted: Sequence[str], bar: tqdm, quality: float
) -> Row:
    (stream,) = codec.encode([picture], quality, effort)
    (decoded,) = codec.decode_pictures([stream])
    row = _row("ckbd", quality, name, picture.rgb, stream, decoded.rgb, wanted)
    row["estimated_bits"] = float(codec.estimate([picture], quality, effort)[0])
    bar.update()
    return row


def _rival_row(rival: str, setting: float, name: str, x: np.ndarray, wanted: Sequence[str] = METRICS) -> Row:
    stream = RIVALS[rival].encode(x, setting)
    return _row(rival, setting, name, x, stream, decode(stream), wanted)


def _curve(rows: Sequence[Row], codec: str) -> Curve:
    settings = list(dict.fromkeys(row["setting"] for row in rows if row["codec"] == codec))
    curve: Curve = {"quality": settings, "bpp": [], **{metric: [] for metric in METRICS}}
    for setting in settings:
        group = [row for row in rows if row["codec"] == codec and row["setting"] == setting]
        for column in ("bpp", *METRICS):
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
    metrics: Sequence[str] = METRICS,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure codec at each quality, and the rivals, on every image below a folder, whatever their sizes.

    threads: how many points and how many rivals at once (None: one a core). effort: the codec's (None: its default).
    metrics: those of METRICS to measure; PSNR always is. progress: show a bar on stderr. Returns "curve" (quality,
    bpp, each of METRICS: one value a quality, None by a metric that was not measured), "rivals" ({name: the same
    without quality}; with both JPEGs also "jpeg-best", their envelope), "bd_rate" ({name: percent against that rival,
    or None}), "bd_bpp" (the rival's rates that each was taken over), "bd_rate_ms_ssim", "bd_bpp_ms_ssim",
    "bd_rate_ssimulacra2" and "bd_bpp_ssimulacra2" (the same at equal quality by these, where measured), "metrics"
    (those measured), "absent" ({name: why a rival is missing}), "images", "model", "estimate" (the stream farthest
    from its estimated bits), "rows" (one an image and setting, with the keys of COLUMNS). Raises ValueError if the
    folder holds no image or an unreadable one, and for an unknown rival or metric.
    """
    paths = image.find(folder)
    if not paths:
        raise ValueError(f"{folder}: no image files")
    if set(rivals) - RIVALS.keys():
        raise ValueError(f"rivals: expected some of {', '.join(RIVALS)}, got {', '.join(rivals)}")
    if set(metrics) - set(METRICS):
        raise ValueError(f"metrics: expected some of {', '.join(METRICS)}, got {', '.join(metrics)}")
    wanted = [metric for metric in METRICS if metric == "psnr" or metric in metrics]
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
            pending = [pool.submit(_rival_row, *task, name, picture.rgb, wanted) for task in ladder]
            with machine.alone():
                rows += team(partial(_own_row, codec, name, picture, effort, wanted, bar), qualities)
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
    for metric in wanted:
        suffix = "" if metric == "psnr" else f"_{metric}"
        found = bd_rates(others, curve, window, metric).items()
        deltas["bd_rate" + suffix] = {name: delta.percent if delta else None for name, delta in found}
        deltas["bd_bpp" + suffix] = {name: delta.anchor_bpp if delta else None for name, delta in found}
    return {
        "curve": curve,
        "rivals": others,
        **deltas,
        "metrics": wanted,
        "absent": absent,
        "images": [path.relative_to(folder).as_posix() for path in paths],
        "model": codec.model_hash,
        "estimate": _worst_estimate(rows),
        "rows": rows,
    }
