"""SSIMULACRA2 as `ckbd eval` has it, against the reference's program on the same pictures.

    python -m bench.sheets.scores --images FOLDER [--reference ssimulacra2] [--json FILE]

Each picture is degraded by JPEG, WebP and AVIF at several qualities, blurred, covered with noise, brightened, and cut
small; both see the same PNG files. Prints by the reference's score how far the two are apart, and the time of each.
The program is libjxl's `ssimulacra2` (Debian: libjxl-devtools) or that of github.com/cloudinary/ssimulacra2.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ckbd.codec import image
from ckbd.evaluation.ssimulacra import MIN_SIDE, ssimulacra2

BANDS = (-float("inf"), 0, 60, 80, 100.1)
FILES = {"JPEG": (5, 20, 50, 80, 95), "WEBP": (1, 30, 75), "AVIF": (10, 40, 80)}
BLURS, NOISES = (0.6, 2, 6), (2, 10, 40)


def through(rgb: np.ndarray, kind: str, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def degraded(rgb: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, original, what became of it), uint8 (H, W, 3), of one picture."""
    for kind, qualities in FILES.items():
        for quality in qualities:
            yield f"{kind.lower()} {quality}", rgb, through(rgb, kind, quality)
    for radius in BLURS:
        yield f"blur {radius}", rgb, np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(radius)))
    random = np.random.default_rng(0)
    for depth in NOISES:
        yield f"noise {depth}", rgb, np.rint(rgb + random.normal(0, depth, rgb.shape)).clip(0, 255).astype(np.uint8)
    yield "brighter", rgb, (rgb.astype(int) + 9).clip(0, 255).astype(np.uint8)
    gray = rgb[..., 1:2].repeat(3, axis=2)
    yield "gray jpeg 40", gray, through(gray, "JPEG", 40)
    for height, width in ((MIN_SIDE, MIN_SIDE), (161, 180), (203, 301)):
        cut = np.ascontiguousarray(rgb[:height, :width])
        yield f"{height}x{width} jpeg 30", cut, through(cut, "JPEG", 30)


def compare(name: str, original: np.ndarray, distorted: np.ndarray, program: str, folder: Path) -> dict | None:
    """One row; None for a picture too small to have a score. Raises OSError or ValueError if the program fails."""
    start = time.perf_counter()
    own = ssimulacra2(original, distorted)
    took = time.perf_counter() - start
    if own is None:
        return None
    paths = [folder / "a.png", folder / "b.png"]
    for path, rgb in zip(paths, (original, distorted), strict=True):
        Image.fromarray(rgb).save(path, compress_level=1)
    start = time.perf_counter()
    run = subprocess.run([program, *map(str, paths)], capture_output=True, text=True)
    its = time.perf_counter() - start
    if run.returncode:
        raise ValueError(f"{program}: {(run.stderr or run.stdout).strip()[:200]}")
    reference = float(run.stdout.split()[-1])
    return {"pair": name, "own": own, "reference": reference, "seconds": took, "reference_seconds": its}


def table(rows: Sequence[dict]) -> list[str]:
    lines = [f"{'reference':>14} {'pairs':>6} {'mean':>8} {'farthest':>9}  at"]
    for low, high in zip(BANDS, BANDS[1:], strict=False):
        band = [row for row in rows if low <= row["reference"] < high]
        if not band:
            continue
        far = max(band, key=lambda row: abs(row["own"] - row["reference"]))
        mean = statistics.mean(row["own"] - row["reference"] for row in band)
        words = f"{'' if low == BANDS[0] else f'{low:g}'} .. {min(high, 100):g}"
        lines.append(f"{words:>14} {len(band):6} {mean:+8.3f} {far['own'] - far['reference']:+9.3f}  {far['pair']}")
    times = (statistics.median(row[key] for row in rows) for key in ("seconds", "reference_seconds"))
    lines.append("median seconds a pair: {:.3f}, the program with its start and files {:.3f}".format(*times))
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sheets.scores", description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True, metavar="FOLDER", help="a folder of pictures")
    parser.add_argument("--reference", default="ssimulacra2", metavar="PROGRAM", help="(default: ssimulacra2)")
    parser.add_argument("--json", metavar="FILE", help="write every pair's scores")
    args = parser.parse_args(argv)
    rows = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for path in image.find(args.images):
                for name, *pair in degraded(image.read(path).rgb):
                    row = compare(f"{path.name} {name}", *pair, args.reference, Path(folder))
                    rows += [row] if row else []
        if not rows:
            raise ValueError(f"{args.images}: no pictures of {MIN_SIDE} pixels a side")
    except (OSError, ValueError) as error:
        print(f"bench.sheets.scores: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(rows)))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
