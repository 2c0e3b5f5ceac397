"""A picture of a hundred megapixels by the command: `python -m bench.run large --images FOLDER`.

Seconds and peak memory of each process, as the system counts them: encode, decode, and views of it. The picture is a
mosaic of those given, as a PNG file; --noise adds one of noise at quality 100, which no picture is as bad as.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.common import load_pictures
from bench.views import mosaic
from ckbd.codec import image

SIDE, PART = 10_000, 1024
MEGA = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, default=SIDE, metavar="N", help="large: pixels of a side (10000)")
    parser.add_argument("--noise", action="store_true", help="large: noise too")


def run(*argv: str) -> tuple[float, float]:
    """(seconds, megabytes at the most) of `ckbd` with these arguments. Raises RuntimeError if it fails."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "ckbd", *argv], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"ckbd {' '.join(argv)}: exit status {child.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, used.ru_maxrss * unit / MEGA


def large(args: argparse.Namespace) -> list[dict]:
    """A row a command."""
    kinds = {"pictures": mosaic(load_pictures(args.images), args.side, args.side)}
    if args.noise:
        kinds["noise"] = np.random.default_rng(0).integers(0, 256, kinds["pictures"].shape, np.uint8)
    rows, corner = [], max((args.side - PART) // 2, 0)
    region = ",".join(str(n) for n in (corner, corner, *[min(corner + PART, args.side)] * 2))
    own = ["--threads", str(args.threads), "--max-pixels", str(args.side**2)]
    for kind, rgb in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            source, stream, out = (str(Path(folder, name)) for name in ("a.png", "a.ckbd", "b.png"))
            image.write(source, image.from_array(rgb), compress_level=1)
            quality = "100" if kind == "noise" else "50"
            commands = [
                ("encode", source, stream, "--model", args.model, "--quality", quality),
                ("decode", stream, out),
            ]
            commands += [("decode", stream, out, *more) for more in (("--scale", "1/8"), ("--region", region))]
            for command in commands:
                seconds, megabytes = run(*command, *own, "--force")
                what = " ".join((command[0], *command[3:]))
                row = {"picture": kind, "side": args.side, "command": what, "bytes": os.path.getsize(stream)}
                rows.append(row | {"seconds": seconds, "megabytes": megabytes})
                print(f"{kind:9} {what:40} {seconds:6.1f} s  {megabytes:6.0f} MB", flush=True)
    return rows
