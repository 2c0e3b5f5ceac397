"""Training: one loop, read top to bottom. R + lmbda * D over a continuum of qualities, on CPU or GPU.

    ckbd train --data FOLDER_OR_TAR [...] --out RUN --minutes 60

RUN receives checkpoint.pt (everything needed to resume), log.csv, with --export unfitted.safetensors and with --val
validation.json. --init goes on from any checkerboard model, so minutes add up; --export writes the model file.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError

from ckbd.codec import machine
from ckbd.codec.image import Picture
from ckbd.model import library
from ckbd.model.config import SIZES, Config
from ckbd.model.model import Checkerboard
from ckbd.model.transforms import channels_last
from ckbd.training import compiled, finish, fit, options, start, steps
from ckbd.training import data as pictures
from ckbd.training.data import Crops, DeviceCrops, Mix

LOG_EVERY = 100  # steps
RAW, VALIDATION = "unfitted.safetensors", "validation.json"  # in --out: what tables are fitted to, what --val says
SYNC_EVERY = 20  # steps that may wait on a GPU: the clock that ends a run must not run ahead of them


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Warm-up over 300 steps, then half a cosine down to 1 % of the peak at progress 1."""
    return peak * min(1.0, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def train(args: argparse.Namespace, ready: Callable[[], object] = lambda: None) -> Checkerboard:
    """Run the loop and return the averaged model; args as parsed by main(). ready: called when all is there to begin,
    before time counts.
    """
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    out_dir = Path(args.out)
    out_dir.mkdir(parents=True, exist_ok=True)
    stages = options.crop_stages(args.crops)
    shares = options.shares_of(args)
    shares.check(min(size for size, _ in stages))
    first = start.model_of(args.init) if args.init else None
    config = first.config if first else Config()
    if args.config:
        config = SIZES.get(args.config) or Config.from_json(Path(args.config).read_text())
    device = machine.device_of(args.device)
    on_gpu = device.type == "cuda"
    mix = Mix(args.drawn, args.colour)
    largest = max(size for size, _ in stages)
    data = Crops(args.data, largest, args.seed, mix)
    if args.export and args.fit_tables and data.found < fit.LEAST:
        found = f"got {data.found} (--fit-tables 0 exports without)"
        raise ValueError(f"data: expected at least {fit.LEAST} pictures to fit tables to, {found}")
    draw = DeviceCrops(data.pictures, device, mix, args.seed, max(largest, 320)).batch if on_gpu else data.batch
    print(f"{len(data.pictures)} pictures", flush=True)
    if on_gpu:
        # TF32 holds every int8 exactly and sums in float32, so the exact zone is trained as it will run.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True

    model = channels_last(Checkerboard(config).to(device))
    if first:
        start.start(model, first, args.init)
    average = Checkerboard(config).to(device)
    average.load_state_dict(model.state_dict())
    optimisers = steps.optimisers(model, args.lr, args.muon_lr, on_gpu, args.bf16)
    stepper = steps.Stepper(
        model,
        average,
        optimisers,
        draw,
        shares=shares,
        clip=args.clip,
        bf16=args.bf16,
        graphs=on_gpu and not args.no_graph,
        compile=compiled.wanted(args.compile, device.type),
    )
    step, spent = 0, 0.0
    checkpoint = out_dir / "checkpoint.pt"
    if checkpoint.exists():
        state = start.read_checkpoint(checkpoint, args.device, config)
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
        again = f" (of {args.init} no more is taken)" if args.init else ""
        print(f"resumed at step {step}, {spent / 60:.1f} minutes{again}", flush=True)

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
            "config": config.to_json(),
        }
        if on_gpu:
            state["cuda_rng"] = torch.cuda.get_rng_state(device)
        torch.save(state, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)

    with torch.random.fork_rng(devices=[]):  # a run is what it is with pictures to validate and without
        ready()
    started, stored = time.monotonic() - spent, time.monotonic()
    while True:
        progress = step / args.steps if args.steps else spent / (60 * args.minutes)
        if progress >= 1:
            break
        size, count = stages[min(int(progress * len(stages)), len(stages) - 1)]
        lr = learning_rate(1.0, step, progress)
        kind = size, count, progress < args.rounded_from
        forget = 1 - min(args.ema, (1 + step) / (10 + step))
        try:
            stepper(*kind, lr, forget)
        except torch._dynamo.exc.TorchDynamoException as error:  # at a first step; at worst Adam has moved already
            why = " ".join(str(error).split())[:200]
            if args.compile:
                raise ValueError(f"compile: {why}") from error
            print(f"steps are not compiled: {why}", flush=True)
            stepper.uncompile()
            stepper(*kind, lr, forget)
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
    args = options.parser().parse_args(argv)
    try:
        if args.export:
            fit.check_name("export", args.export)
        if args.val and not args.export:
            raise ValueError("val: expected --export with it, whose file is validated")
        if args.fit_tables and args.fit_tables < fit.LEAST:
            raise ValueError(f"fit-tables: expected 0 or at least {fit.LEAST} pictures, got {args.fit_tables}")
        unseen = [Picture(p) for path in args.val or () for p in pictures.pictures(path)]
        curves: list[finish.Curve] = []
        out, asked = Path(args.out), (args.data, args.fit_tables, args.seed, args.device)

        def validate_start() -> None:
            (out / VALIDATION).unlink(missing_ok=True)
            if unseen and args.init:
                curves.append(_before(args.init, unseen, asked))

        average = train(args, validate_start)
        if args.export:
            identity = finish.export(average, args.export, out / RAW, *asked)
            print(f"{args.export}: model {identity.hex()}, {os.path.getsize(args.export)} bytes")
        if unseen:
            after = finish.curve(args.export, unseen, args.device)
            print(finish.report(curves[0] if curves else None, after, out / VALIDATION))
    except (OSError, ValueError, SafetensorError) as error:
        print(f"ckbd train: {error}", file=sys.stderr)
        return 1
    return 0


def _before(init: str, pictures: list[Picture], asked: tuple[list[str], int, int, str]) -> finish.Curve:
    """The curve of --init: of the model file as it is, or of what a checkpoint's weights give. asked: of export."""
    device = asked[-1]
    if not init.endswith(".pt"):
        return finish.curve(library.find(init), pictures, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "before.safetensors")
        finish.export(start.model_of(init), path, Path(folder, RAW), *asked)
        return finish.curve(path, pictures, device)
