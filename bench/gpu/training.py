"""Goes on from a checkpoint for some minutes, then exports and validates: `python -m bench.gpu.training`.

Writes to --out: model.safetensors, and rows.json, the mean rate and PSNR of the validation pictures at some qualities
with the weights from before and with those from after.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ckbd
from bench.common import load_pictures, save
from bench.gpu.inputs import need_cuda
from ckbd.codec import image
from ckbd.codec.image import Picture
from ckbd.model import file
from ckbd.model.config import Config
from ckbd.model.model import Checkerboard
from ckbd.training import train

QUALITIES = (10.0, 30.0, 50.0, 70.0, 90.0)
PICTURES = 12  # of the validation set
# As the shipped models were trained (docs/training.md), for a run that starts from trained weights.
ARGS = "--bf16 --crops 256x16 --lr 4e-4 --muon-lr 4e-4 --rounded-from 0 --ema 0.999"
TOY = Config(width=66, M=16, Nz=6, hyper=16, h_s=8, psi=32, H1=64, H2=32, analysis8=1, analysis16=1, synthesis8=1)


def curve(path: Path, pictures: list[Picture], device: torch.device) -> list[tuple[float, float]]:
    """Mean (bpp, PSNR) of pictures at each of QUALITIES, of real streams."""
    codec = ckbd.load(path, device=device)
    points: list[list[tuple[float, float]]] = []
    for p in pictures:
        streams = codec.encode_at(p, QUALITIES)
        decoded = codec.decode_pictures(streams)
        sizes = (8 * len(s) / (p.width * p.height) for s in streams)
        points.append(list(zip(sizes, (image.psnr(p.rgb, d.rgb) for d in decoded), strict=True)))
    return [tuple(statistics.mean(p[i][j] for p in points) for j in (0, 1)) for i in range(len(QUALITIES))]


def averaged(checkpoint: Path, out: Path) -> Config:
    """Writes the model file of a checkpoint's averaged weights; its config. ValueError if it is none."""
    state = train.read_checkpoint(checkpoint, "cpu")
    config = Config(**state["config"])
    model = Checkerboard(config)
    model.load_state_dict(state["average"])
    file.save(model, out)
    return config


def rehearsed(out: Path) -> tuple[Path, Path]:
    """(a checkpoint, a folder of pictures), both toys."""
    folder, config = out / "pictures", out / "toy.json"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((160, 128), Image.Resampling.BICUBIC).save(folder / "noise.png")
    config.write_text(json.dumps(dataclasses.asdict(TOY)))
    args = ["--data", str(folder), "--out", str(out / "toy"), "--config", str(config)]
    if train.main([*args, "--steps", "2", "--crops", "64x2"]):
        raise RuntimeError("the toy could not be trained")
    return out / "toy" / "checkpoint.pt", folder


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.training", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--init", type=Path, metavar="FILE", help="checkpoint.pt of ckbd train")
    parser.add_argument("--data", nargs="+", help="folders or tar files")
    parser.add_argument("--val", nargs="+", help="folders or picture files")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--train-args", default=ARGS, help="of ckbd train (default: %(default)s)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearse", action="store_true", help="a toy, on the CPU")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.rehearse:
        args.device, args.train_args = "cpu", "--crops 64x2 --steps 3"
        args.init, folder = rehearsed(args.out / "rehearsal")
        args.data = args.val = [str(folder)]
    elif not (args.init and args.data and args.val):
        parser().error("needs --init, --data and --val")
    device = need_cuda(args.device)
    before, after, config = (args.out / name for name in ("before.model", "model.safetensors", "config.json"))
    config.write_text(json.dumps(dataclasses.asdict(averaged(args.init, before))))
    command = ["--data", *args.data, "--out", str(args.out / "run"), "--config", str(config)]
    command += ["--init", str(args.init), "--minutes", str(args.minutes), "--device", args.device]
    pictures = load_pictures(args.val)[:PICTURES]
    first = curve(before, pictures, device)
    status = train.main([*command, "--export", str(after), *shlex.split(args.train_args)])
    if status:
        return status
    rows = []
    for quality, (before_bpp, before_psnr), (bpp, psnr) in zip(
        QUALITIES, first, curve(after, pictures, device), strict=True
    ):
        rows.append(
            {"quality": quality, "bpp": bpp, "psnr": psnr, "before_bpp": before_bpp, "before_psnr": before_psnr}
        )
        print(f"quality {quality:g}: {bpp:.4f} bpp {psnr:.3f} dB, before {before_bpp:.4f} bpp {before_psnr:.3f} dB")
    save(str(args.out / "rows.json"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
