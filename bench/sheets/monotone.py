"""Does a higher quality give more bytes and more PSNR, on every picture, at every step from 1 to 100?

    python -m bench.sheets.monotone --images FOLDER [--model M] [--qualities FIRST LAST STEP]

Streams are whole files, decoded again. A quality is at fault if its stream is smaller than that of any lower one, or
its PSNR lower by more than 0.02 dB. Exit status: 0 none is, 1 some are, 2 usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import ckbd
from ckbd.api import Codec
from ckbd.codec import image
from ckbd.codec.image import Picture

TOLERANCE = 0.02  # dB


class Fault(NamedTuple):
    """That a measure is lower at quality than at a lower one, by how much: the largest such loss at that quality."""

    measure: str
    before: float
    quality: float
    loss: float


def ladder(first: float, last: float, step: float) -> list[float]:
    """Qualities from first to last; ValueError unless they lie in 1 .. 100 and all are multiples of 1/2."""
    if not (1 <= first <= last <= 100 and step > 0 and all(2 * v == round(2 * v) for v in (first, last, step))):
        raise ValueError(
            f"--qualities: expected 1 <= FIRST <= LAST <= 100 and a STEP, in halves, got {first, last, step}"
        )
    return np.arange(first, last + step / 2, step).tolist()


def measure(codec: Codec, picture: Picture, qualities: Sequence[float]) -> tuple[list[int], list[float]]:
    """(bytes, PSNR in dB) of a picture at each quality."""
    sizes, psnrs = [], []
    for stream in codec.encode_at(picture, qualities):
        (decoded,) = codec.decode_pictures([stream])
        sizes.append(len(stream))
        psnrs.append(image.psnr(picture.rgb, decoded.rgb))
    return sizes, psnrs


def faults(name: str, values: Sequence[float], qualities: Sequence[float], tolerance: float) -> list[Fault]:
    """Where values, one a rising quality, fall short of an earlier one by more than tolerance."""
    found, highest = [], 0
    for i, value in enumerate(values):
        if values[highest] - value > tolerance:
            found.append(Fault(name, qualities[highest], qualities[i], values[highest] - value))
        elif value > values[highest]:
            highest = i
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sheets.monotone", description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True, metavar="FOLDER")
    parser.add_argument("--model", default="default", help="a shipped model's name or a .safetensors file")
    parser.add_argument("--qualities", nargs=3, type=float, default=(1, 100, 1), metavar=("FIRST", "LAST", "STEP"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    try:
        qualities = ladder(*args.qualities)
        if not (paths := image.find(args.images) if Path(args.images).is_dir() else []):
            raise ValueError(f"--images: no pictures in {args.images}")
        codec = ckbd.load(args.model, device=args.device, threads=args.threads)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"model {codec.model_hash}, {len(paths)} pictures, {len(qualities)} qualities", flush=True)
    every: list[tuple[Fault, str]] = []
    for path in tqdm(paths, unit="picture", disable=not sys.stderr.isatty()):
        picture = image.read(path)
        sizes, psnrs = measure(codec, Picture(picture.rgb, gray=picture.gray), qualities)
        found = faults("bytes", sizes, qualities, 0) + faults("dB", psnrs, qualities, TOLERANCE)
        for one in found:
            print(
                f"{path.name}: {one.loss:.6g} {one.measure} less at quality {one.quality:g} than at {one.before:g}",
                flush=True,
            )
        every += [(one, path.name) for one in found]
        ends = f"{sizes[0]} .. {sizes[-1]} bytes, {psnrs[0]:.2f} .. {psnrs[-1]:.2f} dB"
        print(f"{path.name}: {ends}, {len(found)} faults", flush=True)
    for unit in ("bytes", "dB"):
        of_unit = [pair for pair in every if pair[0].measure == unit]
        if of_unit:
            worst, name = max(of_unit, key=lambda pair: pair[0].loss)
            print(f"{unit}: {len(of_unit)} faults; worst {name}, quality {worst.quality:g}: {worst.loss:.6g} less")
        else:
            print(f"{unit}: rise with the quality on every picture")
    return int(bool(every))


if __name__ == "__main__":
    sys.exit(main())
