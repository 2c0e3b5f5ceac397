"""What drawn pictures and other colours among the crops do: `python -m bench.studies.content --runs DIR`.

Trains each of ARMS with --data, --seeds times alike but for it, from nothing or going on from --init (those that are
in DIR already are taken), and says against "plain" of the same seed: the BD-rate on photographs (--val), that on the
drawn pictures of bench.sheets.hard, and how much of the colour of saturated squares is left, of 1 (see kept()). Rates
are of real streams, tables fitted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

import ckbd
from bench.common import load_pictures, save
from bench.sheets import hard
from bench.studies.taken import keep, taken
from bench.tables import table
from ckbd.codec import image
from ckbd.codec.image import Picture
from ckbd.evaluation.bd import Curve, bd_rate
from ckbd.model import transforms
from ckbd.training import finish, train

CONFIG = {"width": 96, "analysis_width": 96, "M": 128, "Nz": 32, "hyper": 64, "psi": 64, "h_s": 48, "H1": 128}
CONFIG |= {"H2": 128, "analysis8": 2, "analysis16": 2, "synthesis8": 2, "synthesis16": 2}
CONFIG |= {"lmbda_min": 0.0004, "lmbda_max": 0.24}
TRAINING = "--crops 128x8 --bf16 --fit-tables 200"
FRESH = "--lr 2e-3 --muon-lr 2e-3 --ema 0.998"
ON = "--lr 3e-4 --muon-lr 3e-4 --ema 0.995 --rounded-from 0"
ARMS = {"plain": "", "drawn": "--drawn 0.1", "colour": "--colour 0.1", "chroma": ""}
CHROMA = 5  # of "chroma": one latent in so many for each chroma plane at the start, where others have one in eight
WINDOW = (0.1, 4.0)  # bpp: drawn pictures take more
SIDES = {8: 1, 4: 2, 2: 3, 1: 4, 3: 5}  # squares of bench.sheets.hard.checkers -> their column of six
QUALITY = 75.0


def trained(arm: str, seed: int, args: argparse.Namespace) -> Path:
    """The model file of an arm; ValueError if it is not there and cannot be trained, or was trained otherwise."""
    path = args.runs / f"{arm}-{seed}.safetensors"
    told = ["--steps", str(args.steps), "--seed", str(seed), "--threads", "1", *TRAINING.split(), *ARMS[arm].split()]
    told += ["--init", args.init, *ON.split()] if args.init else FRESH.split()
    if taken(path, told, args.data):
        return path
    argv = ["--data", *args.data, "--out", str(args.runs / f"{arm}-{seed}"), "--export", str(path), *told]
    if not args.init:
        config = args.runs / "config.json"
        config.write_text(json.dumps(CONFIG))
        argv += ["--config", str(config)]
    before = transforms.CHROMA
    transforms.CHROMA = CHROMA if arm == "chroma" else before
    try:
        if train.main(argv):
            raise ValueError(f"{path}: was not trained")
    finally:
        transforms.CHROMA = before
    return keep(path, told)


def kept(codec: ckbd.Codec, side: int, quality: float = QUALITY) -> float:
    """How far red and blue squares of a side are apart in R - B when they are decoded, 1 for as far as they were."""
    x = hard.checkers()
    (decoded,) = codec.decode_pictures(codec.encode([image.from_array(x)], quality))
    width = hard.WIDTH // 6
    area = np.s_[: hard.HEIGHT // 2, SIDES[side] * width : (SIDES[side] + 1) * width]
    red = x[area][..., 0] > 128
    apart = decoded.rgb[area][..., 0].astype(np.float64) - decoded.rgb[area][..., 2]
    return float(apart[red].mean() - apart[~red].mean()) / 510


def measured(path: Path, photographs: list[Picture], drawn: list[Picture]) -> dict:
    codec = ckbd.load(path)
    return {
        "photographs": finish.curve(path, photographs),
        "drawn": finish.curve(path, drawn),
        "kept": {side: kept(codec, side) for side in SIDES},
    }


def change(before: Curve, after: Curve) -> float | None:
    """BD-rate, %; None if no PSNR is on both curves."""
    found = bd_rate(before, after, WINDOW)
    return found.percent if found else None


def spread(values: list[float | None]) -> str:
    """Mean and standard deviation of a few, if all are there."""
    if None in values:
        return "-"
    return f"{statistics.mean(values):+.2f} +- {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.content",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="of ARM-SEED.safetensors")
    parser.add_argument("--init", metavar="MODEL", help="go on from this; without, models of CONFIG from nothing")
    parser.add_argument("--data", nargs="+", help="folders or tar files to train with")
    parser.add_argument("--val", nargs="+", default=[], help="photographs (default: one of scikit-image)")
    parser.add_argument("--every", type=int, default=1, help="take one photograph in so many")
    parser.add_argument("--arms", nargs="+", default=["drawn", "colour"], choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    if args.init and "chroma" in args.arms:
        parser.error("chroma is how a model begins: not with --init")
    args.runs.mkdir(parents=True, exist_ok=True)
    drawn = [image.from_array(one.make()) for one in hard.HARD["drawn"].values()]
    rows, lines = [], []
    try:
        photographs = load_pictures(args.val)[:: args.every]
        for seed in range(args.seeds):
            plain: dict = {}
            for arm in dict.fromkeys(["plain", *args.arms]):
                found = measured(trained(arm, seed, args), photographs, drawn)
                plain = found if arm == "plain" else plain
                deltas = {name: change(plain[name], found[name]) for name in ("photographs", "drawn")}
                rows.append({"arm": arm, "seed": seed, "change": deltas} | found)
                print(arm, seed, deltas, found["kept"], flush=True)
                save(args.json, rows)
    except (OSError, ValueError) as error:
        print(f"bench.studies.content: {error}", file=sys.stderr)
        return 1
    for arm in dict.fromkeys(["plain", *args.arms]):
        own = [r for r in rows if r["arm"] == arm]
        cells = [spread([r["change"][name] for r in own]) for name in ("photographs", "drawn")]
        lines.append([arm, *cells, *(f"{statistics.mean(r['kept'][side] for r in own):.2f}" for side in SIDES)])
    heads = ["", "photographs, %", "drawn, %", *(f"{side} px" for side in SIDES)]
    print(table(heads, lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
