"""A part of a picture, and a smaller one: `python -m bench.run views --images FOLDER`.

Time of decode_pictures() and of g_s within it (what is painted included) against the whole picture in the same turn,
of a mosaic of the pictures of 12 megapixels. PSNR of smaller pictures of each one against the original's means,
beside that of decimation: the whole decoded, and its means.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np

import ckbd
from bench.common import load_pictures, stages_of
from ckbd.codec import image
from ckbd.codec.image import Picture
from ckbd.codec.view import shrunk

HEIGHT, WIDTH = 3000, 4000
SCALES = (1 / 2, 1 / 4, 1 / 8)
SIDES = (256, 512, 1024, 2048)  # of square regions in the middle


def mosaic(pictures: Sequence[Picture], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 (height, width, 3): the pictures row by row, again and again, each row as high as its lowest."""
    rows, n, done = [], 0, 0
    while done < height:
        row: list[np.ndarray] = []
        while sum(one.shape[1] for one in row) < width:
            row.append(pictures[n % len(pictures)].rgb)
            n += 1
        lowest = min(one.shape[0] for one in row)
        rows.append(np.concatenate([one[:lowest] for one in row], axis=1)[:, :width])
        done += lowest
    return np.concatenate(rows)[:height]


def views(args: argparse.Namespace) -> list[dict]:
    """A row a view: milliseconds and shares of the whole; then one a quality and scale: PSNR."""
    codec, pictures = ckbd.load(args.model, threads=args.threads), load_pictures(args.images)
    rows = times(codec, mosaic(pictures), args.qualities[len(args.qualities) // 2], args.runs)
    return rows + quality(codec, pictures, args.qualities)


def times(codec: ckbd.Codec, rgb: np.ndarray, quality: float, runs: int) -> list[dict]:
    height, width = rgb.shape[:2]
    (stream,) = codec.encode([rgb], quality)
    asked: list[dict] = [{}, *({"scale": scale} for scale in SCALES)]
    for side in SIDES:
        if side < min(height, width):
            left, top = (width - side) // 2, (height - side) // 2
            asked.append({"region": (left, top, left + side, top + side)})
    samples: list[list[tuple[float, float]]] = [[] for _ in asked]
    for run in range(runs + 1):
        for found, options in zip(samples, asked, strict=True):
            spent = stages_of(codec, [stream], **options)
            if run:  # the first warms up
                found.append((1e3 * spent["total"], 1e3 * (spent.get("g_s", 0) + spent.get("picture", 0))))
    whole = [statistics.median(column) for column in zip(*samples[0], strict=True)]
    print(f"{width} x {height}, quality {quality:g}, {len(stream)} B; ms, medians of {runs}; of the whole's in %")
    rows = []
    for found, options in zip(samples, asked, strict=True):
        total, g_s = (statistics.median(column) for column in zip(*found, strict=True))
        left, top, right, bottom = options.get("region", (0, 0, width, height))
        share = 100 * (right - left) * (bottom - top) / (width * height)
        what = (
            f"region {right - left} x {bottom - top}" if "region" in options else f"scale {options.get('scale', 1):g}"
        )
        row = {"view": what, "total_ms": total, "g_s_ms": g_s, "area_percent": share}
        row |= {"total_percent": 100 * total / whole[0], "g_s_percent": 100 * g_s / whole[1]}
        rows.append(row)
        print(
            f"{what:18} area {share:6.2f} %  decode {total:7.1f} ms {row['total_percent']:6.1f} %  "
            f"g_s {g_s:7.1f} ms {row['g_s_percent']:6.1f} %"
        )
    return rows


def quality(codec: ckbd.Codec, pictures: Sequence[Picture], qualities: Sequence[float]) -> list[dict]:
    rows = []
    print(f"{len(pictures)} pictures: mean PSNR in dB against means of the original's pixels, and decimation's")
    for q in qualities:
        found: dict[float, list[tuple[float, float]]] = {scale: [] for scale in SCALES}
        for picture in pictures:
            streams = codec.encode([picture], q)
            whole = codec.decode_pictures(streams)[0].rgb
            for scale in SCALES:
                want = shrunk(picture.rgb, round(1 / scale))
                small = codec.decode_pictures(streams, scale=scale)[0].rgb
                found[scale].append((image.psnr(small, want), image.psnr(shrunk(whole, round(1 / scale)), want)))
        cells = []
        for scale, values in found.items():
            own, decimated = (statistics.mean(column) for column in zip(*values, strict=True))
            rows.append({"quality": q, "scale": scale, "psnr": own, "psnr_decimated": decimated})
            cells.append(f"scale {scale:g}: {own:.2f} ({decimated:.2f})")
        print(f"quality {q:g}  " + "  ".join(cells))
    return rows
