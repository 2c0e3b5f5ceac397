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
from torch import Tensor

from ckbd.data import Crops
from ckbd.model import Checkerboard, Config
from ckbd.modelfile import save

LOG_EVERY = 100  # steps


def loss_of(out: dict[str, Tensor], x: Tensor, lmbda: Tensor, metric: str, balance: float) -> dict[str, Tensor]:
    """Per-image bpp and mse (B,), and the scalar loss: mean of (bpp + lmbda D) / (lmbda / balance)^0.5.

    D is 255^2 MSE, or 4000 (1 - MS-SSIM), which asks for about the same rate. Bits grow roughly as lmbda^0.5, so
    the division lets every quality pull on the shared weights with about the same force; the optimum at each single
    quality is unchanged by it. x: (B, 3, H, W); lmbda: (B,).
    """
    bpp = (out["bits_y"] + out["bits_z"]) / (x.shape[2] * x.shape[3])
    mse = (out["x_hat"] - x).square().flatten(1).mean(1)
    if metric == "mse":
        distortion = 255.0**2 * mse
    else:
        from pytorch_msssim import ms_ssim

        distortion = 4000 * (1 - ms_ssim(out["x_hat"].clamp(0, 1), x, data_range=1.0, size_average=False))
    loss = ((bpp + lmbda * distortion) * (balance / lmbda) ** 0.5).mean()
    return {"loss": loss, "bpp": bpp, "mse": mse}


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Warm-up over 300 steps, then half a cosine down to 1 % of the peak at progress 1."""
    return peak * min(1.0, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def draw_qualities(count: int) -> Tensor:
    """(count,) qualities in half steps, one from each of count equal strata of [1, 100]."""
    place = (torch.randperm(count) + torch.rand(count)) / count
    return torch.round(2 + 198 * place) / 2


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
    data = Crops(args.data, max(size for size, _ in stages), args.seed)
    print(f"{len(data.pictures)} pictures", flush=True)

    model = Checkerboard(config).to(args.device, memory_format=torch.channels_last)
    if args.init:
        model.load_state_dict(_checkpoint(args.init, args.device, config)["average"])
    average = Checkerboard(config).to(args.device)
    average.load_state_dict(model.state_dict())
    optimiser = torch.optim.Adam(model.parameters(), lr=args.lr)
    step, spent, sums = 0, 0.0, []
    checkpoint = out_dir / "checkpoint.pt"
    if checkpoint.exists():
        state = _checkpoint(checkpoint, args.device, config)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent, sums = state["step"], state["spent"], state["sums"]
        cut_log(out_dir / "log.csv", step)
        torch.set_rng_state(state["rng"].cpu())
        data.rng.bit_generator.state = state["data_rng"]
        print(f"resumed at step {step}, {spent / 60:.1f} minutes", flush=True)

    def store() -> None:
        state = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "spent": spent,
            "sums": sums,
            "rng": torch.get_rng_state(),
            "data_rng": data.rng.bit_generator.state,
            "config": dataclasses.asdict(config),
        }
        torch.save(state, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)

    balance = math.sqrt(config.lmbda_min * config.lmbda_max)
    weights, averaged = list(model.parameters()), list(average.parameters())
    started, stored = time.monotonic() - spent, time.monotonic()
    while True:
        progress = step / args.steps if args.steps else spent / (60 * args.minutes)
        if progress >= 1:
            break
        size, count = stages[min(int(progress * len(stages)), len(stages) - 1)]
        x = data.batch(count, size).to(args.device, memory_format=torch.channels_last)
        quality = draw_qualities(count).to(args.device)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=args.bf16):
            out = model(x, quality, noise=args.rate == "noise")
        parts = loss_of(out, x, model.lmbda(quality), args.metric, balance)
        optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(weights, args.clip)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(args.lr, step, progress)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 1 - min(args.ema, (1 + step) / (10 + step)))

        step, spent = step + 1, time.monotonic() - started
        psnr = -10 * torch.log10(parts["mse"].detach().clamp(min=1e-10))
        thirds = [psnr[(quality > a) & (quality <= a + 33)].mean().item() for a in (1, 34, 67)]
        sums.append([parts["loss"].item(), parts["bpp"].mean().item(), *thirds])
        if step % LOG_EVERY == 0:
            means = torch.tensor(sums).nanmean(0).tolist()
            lr = optimiser.param_groups[0]["lr"]
            _log(out_dir / "log.csv", [step, f"{spent / 60:.2f}", f"{lr:.2e}", *(f"{v:.4f}" for v in means)])
            sums = []
        if time.monotonic() - stored > 120:
            store()
            stored = time.monotonic()
    store()
    return average


def _checkpoint(path: str | Path, device: str, config: Config) -> dict:
    """What store() wrote; ValueError if it is damaged or another config's."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        same = state["config"] == dataclasses.asdict(config)
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
        "--config", metavar="FILE", help="JSON with fields of ckbd.model.Config (default: the default)"
    )
    parser.add_argument("--init", metavar="FILE", help="start from the averaged weights of this checkpoint.pt")
    parser.add_argument(
        "--rate",
        choices=("noise", "rounded"),
        default="noise",
        help="what the rate is taken of: y and z with uniform noise, or as they are coded (for the last part)",
    )
    parser.add_argument(
        "--lowest-gain",
        type=_positive(float),
        default=1.0,
        metavar="FACTOR",
        help="at export, scale the gain of quality 1 by this: below 1 reaches lower rates than were trained",
    )
    parser.add_argument("--steps", type=_positive(int), help="length in steps (repeatable); or")
    parser.add_argument("--minutes", type=_positive(float), default=60.0, help="length in minutes (default 60)")
    parser.add_argument(
        "--crops",
        default="128x8,128x8,128x8,192x4",
        help="SIZExCOUNT of each equal part of the run (default %(default)s)",
    )
    parser.add_argument("--lr", type=_positive(float), default=1e-3)
    parser.add_argument("--clip", type=_positive(float), default=1.0, help="gradient norm limit")
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--metric", choices=("mse", "ms-ssim"), default="mse")
    parser.add_argument("--bf16", action="store_true", help="autocast outside the exact zone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_positive(int))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    try:
        if args.export and not Path(args.export).absolute().parent.is_dir():
            raise ValueError(f"export: no folder for {args.export}")
        average = train(args)
        if args.export:
            with torch.no_grad():
                average.log_gain[0] += math.log(args.lowest_gain)
                average.log_ungain[0] -= math.log(args.lowest_gain)
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
