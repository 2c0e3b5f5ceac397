"""What `ckbd train` can be told."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from ckbd.model.config import SIZES
from ckbd.training.distortion import Shares


def crop_stages(crops: str) -> list[tuple[int, int]]:
    """[(size, count), ...] of "128x8,192x4"; ValueError unless sizes are multiples of 64."""
    stages = []
    for part in crops.split(","):
        size, _, count = part.partition("x")
        if not (size.isdigit() and count.isdigit() and int(count) and int(size) and int(size) % 64 == 0):
            raise ValueError(f"crops: expected SIZExCOUNT with a size that 64 divides, got {part!r}")
        stages.append((int(size), int(count)))
    return stages


def parser() -> argparse.ArgumentParser:
    """Of the command line of `ckbd train` for a checkerboard model."""
    parser = argparse.ArgumentParser(
        prog="ckbd train",
        description="Train a checkerboard model.",
        epilog="ckbd train CONFIG, with a JSON recipe, trains models of the papers instead (docs/training.md).",
    )
    parser.add_argument("--data", nargs="+", required=True, help="folders or tar files of pictures")
    parser.add_argument("--out", required=True, help="folder for the checkpoint and log; resumes if it has one")
    parser.add_argument("--export", metavar="FILE", help="write the integer model here at the end (.safetensors)")
    parser.add_argument(
        "--fit-tables",
        type=int,
        default=500,
        metavar="N",
        help="pictures of the data to which its tables are fitted (default %(default)s; 0: tables of the densities)",
    )
    parser.add_argument(
        "--val", nargs="+", metavar="PATH", help="folders or tar files: say what --export's file is worth"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"{', '.join(SIZES)}, or JSON with fields of ckbd.model.config.Config (default: those of --init, or of "
        "Config)",
    )
    parser.add_argument(
        "--init",
        metavar="FILE",
        help="start from a model file, a shipped model by name, or the averaged weights of a checkpoint.pt; "
        "its range of lmbda may have been another",
    )
    parser.add_argument(
        "--rounded-from",
        type=float,
        default=0.4,
        metavar="SHARE",
        help="the rate is that of y and z with uniform noise up to here in the run, then as they are coded "
        "(default %(default)s; 0 and 1: all of it one or the other)",
    )
    parser.add_argument("--steps", type=_positive(int), help="length in steps (repeatable); or")
    parser.add_argument("--minutes", type=_positive(float), default=60.0, help="length in minutes (default 60)")
    parser.add_argument(
        "--crops",
        default="128x8,128x8,128x8,192x4",
        help="SIZExCOUNT of each equal part of the run (default %(default)s)",
    )
    parser.add_argument(
        "--drawn", type=float, default=0.0, metavar="SHARE", help="of the crops: drawn, no photographs"
    )
    parser.add_argument(
        "--colour", type=float, default=0.0, metavar="SHARE", help="of the crops: in other and stronger colours"
    )
    parser.add_argument("--lr", type=_positive(float), default=1e-3)
    parser.add_argument(
        "--muon-lr", type=float, default=0.0, help="above 0: Muon for the matrices of g_a, g_s and h_a, at this rate"
    )
    parser.add_argument("--clip", type=_positive(float), default=1.0, help="gradient norm limit")
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument(
        "--metric", choices=("mse", "ms-ssim"), default="mse", help="what errors are counted by (default %(default)s)"
    )
    parser.add_argument(
        "--ms-ssim-share",
        type=float,
        metavar="SHARE",
        help="of the loss is MS-SSIM, in place of --metric; the rest is squared error, or",
    )
    parser.add_argument(
        "--ssimulacra2-share", type=float, default=0.0, metavar="SHARE", help="of the loss is SSIMULACRA2"
    )
    parser.add_argument("--bf16", action="store_true", help="autocast outside the exact zone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_positive(int))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-graph", action="store_true", help="on a GPU: launch every kernel of a step singly")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="steps through torch.compile (default: on a GPU alone; on a CPU it takes minutes at the first step of "
        "each crop size, and of noise and rounding, and gains about a tenth of a step)",
    )
    return parser


def shares_of(args: argparse.Namespace) -> Shares:
    """What errors are counted by; ValueError if it is more than all."""
    alone = float(args.metric == "ms-ssim")
    return Shares(alone if args.ms_ssim_share is None else args.ms_ssim_share, args.ssimulacra2_share)


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
        return value

    parse.__name__ = kind.__name__
    return parse
