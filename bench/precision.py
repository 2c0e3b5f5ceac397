"""What bfloat16 in g_a and g_s changes on a CPU: `python -m bench.run precision`, against float32 throughout.

PSNR of the same streams decoded either way, and bytes and PSNR of what either way encodes, decoded in float32.
"""

from __future__ import annotations

import argparse
import statistics

import ckbd
from bench.common import load_pictures, save
from ckbd.codec.image import Picture, psnr


def precision(args: argparse.Namespace) -> list[dict]:
    """Rows for --json: one a quality."""
    plain, half = (ckbd.load(args.model, threads=args.threads, precision=p) for p in ("float32", "bfloat16"))
    pictures, rows = load_pictures(args.images), []
    for quality in args.qualities:
        streams, others = plain.encode(pictures, quality), half.encode(pictures, quality)
        want = quality_of(plain, streams, pictures)
        moved = [b - a for a, b in zip(want, quality_of(half, streams, pictures), strict=True)]
        encoded = [b - a for a, b in zip(want, quality_of(plain, others, pictures), strict=True)]
        row = {"quality": quality, "pictures": len(pictures), "psnr_float32": statistics.mean(want)}
        row |= {"g_s_mean": statistics.mean(moved), "g_s_worst": max(moved, key=abs)}
        row |= {"g_a_mean": statistics.mean(encoded), "g_a_bytes": sum(map(len, others)) / sum(map(len, streams)) - 1}
        rows.append(row)
        print(
            f"quality {quality:g}: {row['psnr_float32']:.2f} dB; g_s {row['g_s_mean']:+.4f} dB, worst "
            f"{row['g_s_worst']:+.4f}; g_a {row['g_a_mean']:+.4f} dB with {100 * row['g_a_bytes']:+.3f} % bytes",
            flush=True,
        )
        save(args.json, rows)
    return rows


def quality_of(codec: ckbd.Codec, streams: list[bytes], pictures: list[Picture]) -> list[float]:
    return [psnr(p.rgb, d.rgb) for p, d in zip(pictures, codec.decode_pictures(streams), strict=True)]
