"""Training: one loop, read top to bottom. R + lmbda * D over a continuum of qualities, on CPU or GPU.

    ckbd train --data FOLDER_OR_TAR [...] --out RUN --minutes 60

RUN receives checkpoint.pt (everything needed to resume), log.csv and, with --export, the model file.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ckbd.model.config import Config
from ckbd.model.file import save
from ckbd.model.model import Checkerboard, carried_gains
from ckbd.model.transforms import channels_last
from ckbd.training import steps
from ckbd.training.data import Crops, DeviceCrops

LOG_EVERY = 100  # steps
SYNC_EVERY = 20  # steps that may wait on a GPU: the clock that ends a run must not run ahead of them


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Warm-up over 300 steps, then half a cosine down to 1 % of the peak at progress 1."""
    return peak * min(1.0, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def crop_stages(crops: str) -> list[tuple[int, int]]:
    """[(size, count), ...] of "128x8,192x4"; ValueError unless sizes are multiples of 64."""
    stages = []
    for part in crops.split(","):
        size, _, count = part.partition("x")
        if not (size.isdigit() and count.isdigit() and int(count) and int(size) and int(size) % 64 == 0):
            raise ValueError(f"crops: expected SIZExCOUNT with a size that 64 divides, got {part!r}")
        stages.append((int(size), int(count)))
    return stages


def train(args: argparse.Namespace) -> Checkerboard:
    """Run the loop and return the averaged model; args as parsed by main()."""
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    out_dir = Path(args.out)
    out_dir.mkdir(parents=True, exist_ok=True)
    stages = crop_stages(args.crops)
    if args.metric == "ms-ssim" and min(size for size, _ in stages) < 192:
        raise ValueError(f"crops: MS-SSIM needs at least 192 pixels, got {args.crops}")
    config = Config.from_json(Path(args.config).read_text()) if args.config else Config()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    data = Crops(args.data, max(size for size, _ in stages), args.seed)
    draw = DeviceCrops(data.pictures, device).batch if on_gpu else data.batch
    print(f"{len(data.pictures)} pictures", flush=True)
    if on_gpu:
        # TF32 holds every int8 exactly and sums in float32, so the exact zone is trained as it will run.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True

    model = channels_last(Checkerboard(config).to(device))
    if args.init:
        _start(model, args.init)
    average = Checkerboard(config).to(device)
    average.load_state_dict(model.state_dict())
    optimisers = steps.optimisers(model, args.lr, args.muon_lr, on_gpu)
    stepper = steps.Stepper(
        model,
        average,
        optimisers,
        draw,
        metric=args.metric,
        clip=args.clip,
        bf16=args.bf16,
        graphs=on_gpu and not args.no_graph,
    )
    step, spent = 0, 0.0
    checkpoint = out_dir / "checkpoint.pt"
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, args.device, config)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimiser, one in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(one)
        step, spent = state["step"], state["spent"]
        stepper.sums.copy_(state["sums"])
        cut_log(out_dir / "log.csv", step)
        torch.set_rng_state(state["rng"].cpu())
        data.rng.bit_generator.state = state["data_rng"]
        if on_gpu and "cuda_rng" in state:  # not if it went on a CPU before
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), device)
        print(f"resumed at step {step}, {spent / 60:.1f} minutes", flush=True)

    def store() -> None:
        state = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            "step": step,
            "spent": spent,
            "sums": stepper.sums,
            "rng": torch.get_rng_state(),
            "data_rng": data.rng.bit_generator.state,
            "config": dataclasses.asdict(config),
        }
        if on_gpu:
            state["cuda_rng"] = torch.cuda.get_rng_state(device)
        torch.save(state, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)

    started, stored = time.monotonic() - spent, time.monotonic()
    while True:
        progress = step / args.steps if args.steps else spent / (60 * args.minutes)
        if progress >= 1:
            break
        size, count = stages[min(int(progress * len(stages)), len(stages) - 1)]
        lr = learning_rate(1.0, step, progress)
        stepper(size, count, progress < args.rounded_from, lr, 1 - min(args.ema, (1 + step) / (10 + step)))
        step += 1
        if on_gpu and step % SYNC_EVERY == 0:
            torch.cuda.synchronize(device)
        spent = time.monotonic() - started
        if step % LOG_EVERY == 0:
            loss, bpp, *rest = stepper.sums.tolist()
            psnrs = [total / count if count else math.nan for total, count in zip(rest[:3], rest[3:], strict=True)]
            means = [loss / LOG_EVERY, bpp / LOG_EVERY, *psnrs]
            _log(
                out_dir / "log.csv", [step, f"{spent / 60:.2f}", f"{args.lr * lr:.2e}", *(f"{v:.4f}" for v in means)]
            )
            stepper.sums.zero_()
        if time.monotonic() - stored > 120:
            store()
            stored = time.monotonic()
    store()
    return average


@torch.no_grad()
def _start(model: Checkerboard, path: str) -> None:
    """Gives the model the averaged weights of a checkpoint, whose config may have another range of lmbda."""
    state = read_checkpoint(path, "cpu")
    of, to = Config(**state["config"]), model.config
    if dataclasses.replace(of, lmbda_min=to.lmbda_min, lmbda_max=to.lmbda_max) != to:
        raise ValueError(f"{path}: made with another config: {state['config']}")
    weights = state["average"]
    weights["log_gain"] = carried_gains(weights["log_gain"], of, to)
    weights["log_ungain"] = -carried_gains(-weights["log_ungain"], of, to)
    model.load_state_dict(weights)


def read_checkpoint(path: str | Path, device: str, config: Config | None = None) -> dict:
    """What store() wrote; ValueError if it is damaged, or not of this config."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
        same = config is None or state["config"] == dataclasses.asdict(config)
        state["average"], state["config"]
    except (KeyError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a checkpoint of ckbd train: {error}") from error
    if not same:
        raise ValueError(f"{path}: made with another config: {state['config']}")
    return state


def cut_log(path: Path, step: int) -> None:
    """Drop the rows that were logged after the checkpoint: they will come again."""
    if path.exists():
        # A process that was killed may leave half a row, or nothing but the file.
        whole = [row for row in path.read_text().splitlines(keepends=True) if row.endswith("\n")]
        path.write_text("".join(whole[:1] + [row for row in whole[1:] if int(row.split(",")[0]) <= step]))


def _log(path: Path, row: list) -> None:
    with open(path, "a", newline="") as file:
        rows = csv.writer(file)
        if not file.tell():
            rows.writerow(["step", "minutes", "lr", "loss", "bpp", "psnr_low", "psnr_middle", "psnr_high"])
        rows.writerow(row)


def main(argv: list[str] | None = None) -> int:
    """The command line of `ckbd train`."""
    parser = argparse.ArgumentParser(
        prog="ckbd train",
        description="Train a checkerboard model.",
        epilog="ckbd train CONFIG, with a JSON recipe, trains models of the papers instead (docs/training.md).",
    )
    parser.add_argument("--data", nargs="+", required=True, help="folders or tar files of pictures")
    parser.add_argument("--out", required=True, help="folder for the checkpoint and log; resumes if it has one")
    parser.add_argument("--export", metavar="FILE", help="write the integer model here at the end (.safetensors)")
    parser.add_argument(
        "--config", metavar="FILE", help="JSON with fields of ckbd.model.config.Config (default: the default)"
    )
    parser.add_argument(
        "--init",
        metavar="FILE",
        help="start from the averaged weights of this checkpoint.pt, whose lmbda may have had another range",
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
    parser.add_argument("--lr", type=_positive(float), default=1e-3)
    parser.add_argument(
        "--muon-lr", type=float, default=0.0, help="above 0: Muon for the matrices of g_a, g_s and h_a, at this rate"
    )
    parser.add_argument("--clip", type=_positive(float), default=1.0, help="gradient norm limit")
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--metric", choices=("mse", "ms-ssim"), default="mse")
    parser.add_argument("--bf16", action="store_true", help="autocast outside the exact zone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_positive(int))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-graph", action="store_true", help="on a GPU: launch every kernel of a step singly")
    args = parser.parse_args(argv)
    try:
        if args.export and not Path(args.export).absolute().parent.is_dir():
            raise ValueError(f"export: no folder for {args.export}")
        average = train(args)
        if args.export:
            identity = save(average, args.export)
            print(f"{args.export}: model {identity.hex()}, {os.path.getsize(args.export)} bytes")
    except (OSError, ValueError) as error:
        print(f"ckbd train: {error}", file=sys.stderr)
        return 1
    return 0


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
        return value

    parse.__name__ = kind.__name__
    return parse
