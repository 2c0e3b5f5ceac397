"""What each effort of the encoder saves and takes: `python -m bench.run effort --images FOLDER`.

Efforts of one picture and quality are encoded in turn and decoded again. BD-rates are of whole files against effort
0, of the mean curve and, as the range, of each picture by itself, over all PSNRs that both curves reach. The time is
that of encode() over effort 0's in the same turn.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import TYPE_CHECKING

import ckbd
from bench.common import cut, load_pictures
from ckbd.api import Codec
from ckbd.codec import image
from ckbd.codec.image import Picture

if TYPE_CHECKING:
    from ckbd.evaluation import bd

EVERYTHING = (1e-3, 1e3)  # bpp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--crop", type=int, nargs=2, metavar=("H", "W"), help="effort: at most this much of each")


def measure(codec: Codec, picture: Picture, quality: float) -> dict[int, dict[str, float]]:
    """effort -> bytes, bpp, psnr, seconds of encode()."""
    found = {}
    for effort in codec.encoder.EFFORTS:
        start = time.perf_counter()
        (stream,) = codec.encode([picture], quality, effort)
        seconds = time.perf_counter() - start
        (decoded,) = codec.decode_pictures([stream])
        found[effort] = {
            "bytes": len(stream),
            "bpp": 8 * len(stream) / (picture.width * picture.height),
            "psnr": image.psnr(picture.rgb, decoded.rgb),
            "seconds": seconds,
        }
    return found


def curve(rows: list[dict], effort: int) -> bd.Curve:
    """Means over the pictures by quality."""
    qualities = sorted({row["quality"] for row in rows})
    groups = [[row for row in rows if row["effort"] == effort and row["quality"] == q] for q in qualities]
    return {name: [statistics.mean(row[name] for row in group) for group in groups] for name in ("bpp", "psnr")}


def effort(args: argparse.Namespace) -> list[dict]:
    """One row a picture, quality and effort; prints BD-rates and ratios of time."""
    from ckbd.evaluation import bd  # wants what a machine that runs other cases may not have

    codec = ckbd.load(args.model, threads=args.threads)
    rows = []
    pictures = [cut(picture, args.crop and args.crop[::-1]) for picture in load_pictures(args.images)]
    measure(codec, pictures[0], args.qualities[0])  # warms up
    for n, picture in enumerate(pictures):
        for quality in args.qualities:
            for level, found in measure(codec, picture, quality).items():
                rows.append({"image": n, "quality": quality, "effort": level} | found)
    print(f"{len(pictures)} pictures, model {codec.model_hash}; bpp and PSNR in dB at each quality, means")
    for level in codec.encoder.EFFORTS:
        points = curve(rows, level)
        cells = (f"{b:.4f} {p:.2f}" for b, p in zip(points["bpp"], points["psnr"], strict=True))
        print(f"effort {level}: " + ", ".join(cells))
    for level in codec.encoder.EFFORTS[1:]:
        each = [[row for row in rows if row["image"] == n] for n in range(len(pictures))]
        deltas = [bd.bd_rate(curve(one, 0), curve(one, level), EVERYTHING) for one in each]
        singly = sorted(delta.percent if delta else math.nan for delta in deltas)
        whole = bd.bd_rate(curve(rows, 0), curve(rows, level), EVERYTHING)
        window = bd.bd_rate(curve(rows, 0), curve(rows, level))
        seconds = [[row["seconds"] for row in rows if row["effort"] == e] for e in (0, level)]
        ratios = [mine / base for base, mine in zip(*seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"effort {level} against 0: BD-rate {percent(whole)} ({singly[0]:+.2f} .. {singly[-1]:+.2f} by picture), "
            f"{percent(window)} over 0.15 to 1 bpp; encode time x {middle:.3f} ({low:.3f}..{high:.3f})"
        )
    return rows


def percent(delta: bd.BD | None) -> str:
    return "none" if delta is None else f"{delta.percent:+.2f} %"
