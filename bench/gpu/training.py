"""Goes on from a model, or trains one of a size that does not ship yet, for some minutes, then exports, fits tables
and validates: `python -m bench.gpu.training`.

Writes to --out: model.safetensors, and run/validation.json, the mean rate and PSNR of the validation pictures at some
qualities before and after, and their BD-rate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bench.gpu.inputs import need_cuda
from ckbd.model import places
from ckbd.model.config import SIZES, Config
from ckbd.training import train

# The batch of the shipped models (docs/training.md) at a fifth of their rates, for weights that are trained already.
ARGS = "--bf16 --crops 256x16 --lr 4e-4 --muon-lr 4e-4 --rounded-from 0 --ema 0.999 --drawn 0.05 --colour 0.05"
# From nothing: as the shipped models were.
FRESH = "--lr 2e-3 --muon-lr 2e-3 --rounded-from 0.35"
TOY = Config(width=66, M=16, Nz=6, hyper=16, h_s=8, psi=32, H1=64, H2=32, analysis8=1, analysis16=1, synthesis8=1)
REHEARSAL = "--crops 64x2 --steps 3 --fit-tables 20"


def rehearsed(out: Path) -> tuple[Path, Path]:
    """(a model file, a folder of pictures), both toys."""
    folder, config, model = out / "pictures", out / "toy.json", out / "toy.safetensors"
    folder.mkdir(parents=True)
    for n in range(20):
        noise = np.random.default_rng(n).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((160, 128), Image.Resampling.BICUBIC).save(folder / f"{n}.png")
    config.write_text(json.dumps(dataclasses.asdict(TOY)))
    args = ["--data", str(folder), "--out", str(out / "toy"), "--config", str(config), "--export", str(model)]
    if train.main([*args, "--steps", "2", "--crops", "64x2", "--fit-tables", "0"]):
        raise RuntimeError("the toy could not be trained")
    return model, folder


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.training", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="small, base, a model file or a checkpoint.pt of ckbd train; large: from nothing, until it ships",
    )
    parser.add_argument("--data", nargs="+", help="folders or tar files")
    parser.add_argument("--val", nargs="+", help="folders or tar files")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--train-args", default="", help=f"further ones of ckbd train, after {ARGS}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearse", action="store_true", help="a toy, on the CPU")
    return parser


def fresh(name: str) -> bool:
    """Whether that is a size of which no model is here yet."""
    return name in SIZES and not any(path.stem == name for path in places.files())


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    more = shlex.split(f"{ARGS} {args.train_args}")
    if args.rehearse:
        args.device, more = "cpu", shlex.split(REHEARSAL)
        args.init, folder = rehearsed(args.out / "rehearsal")
        args.data = args.val = [str(folder)]
    elif not (args.init and args.data and args.val):
        parser().error("needs --init, --data and --val")
    need_cuda(args.device)
    new = fresh(str(args.init))
    begin = ["--config" if new else "--init", str(args.init)]
    command = ["--data", *args.data, "--val", *args.val, *begin, "--minutes", str(args.minutes)]
    command += ["--out", str(args.out / "run"), "--export", str(args.out / "model.safetensors")]
    if new:
        more = shlex.split(f"{ARGS} {FRESH} {args.train_args}")
    return train.main([*command, "--device", args.device, *more])


if __name__ == "__main__":
    sys.exit(main())
