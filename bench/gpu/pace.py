"""How quick a step of training is, in kernels and in time: `python -m bench.gpu.pace --out DIR`.

Steps as a CUDA graph, of the eager kernels and of those that torch.compile makes, timed in turn. A row says how long
a step takes, megapixels a second, how many kernels it launches (copies and fills too), and the seconds of the first
steps, which compile and capture. --device cpu has no graphs; kernels are then PyTorch's operators that compute or
copy, and inductor's own. --rehearse: a toy, whose graph is traced and not compiled, which would take minutes.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from bench.arguments import count
from bench.common import save
from bench.gpu.device import Clock, device_name, quantiles
from bench.gpu.inputs import need_cuda
from bench.gpu.rows import MEMORY
from bench.gpu.training import TOY
from ckbd.model import arrays
from ckbd.model.config import Config
from ckbd.model.model import Checkerboard
from ckbd.model.transforms import channels_last
from ckbd.training import compiled
from ckbd.training.data import DeviceCrops
from ckbd.training.steps import WARM_UP, Stepper, optimisers

WAYS = {"eager": False, "compiled": True}
RATE = 4e-4  # of both optimisers, as bench.gpu.training has it
TRACED = "aot_eager_decomp_partition"  # torch.compile's backend that makes no kernels
# Of PyTorch's operators: views, and memory that nobody fills.
IDLE = frozenset(
    "aten::" + name
    for name in (
        "alias as_strided as_strided_ chunk detach empty empty_like empty_strided expand expand_as flatten narrow "
        "new_empty new_empty_strided permute reshape _reshape_alias resize_ resolve_conj "
        "resolve_neg result_type select set_ slice split split_with_sizes squeeze squeeze_ t transpose transpose_ "
        "unbind unfold unsqueeze unsqueeze_ view view_as _unsafe_view lift_fresh detach_ to contiguous item "
        "_local_scalar_dense is_nonzero"
    ).split()
)


def kernels(call: Callable[[], object], clock: Clock) -> int:
    """How many kernels, copies and fills a call launches, as torch.profiler sees it."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * clock.cuda
    with profile(activities=activities) as profiler:
        call()
        clock.wait()
    return counted(profiler.events() or (), clock.cuda)


def counted(events: Iterable[Any], cuda: bool) -> int:
    """Of torch.profiler's events: those on the device, less notes there; without a device, the innermost operators
    that do something, and inductor's kernels.
    """
    if cuda:
        on_device = torch.autograd.DeviceType.CUDA
        return sum(e.device_type == on_device and not getattr(e, "is_user_annotation", False) for e in events)
    return sum(_works(e) and not any(map(_holds, e.cpu_children)) for e in events)


def _works(event: Any) -> bool:
    return "cpp_fused" in event.name or event.name.startswith(("aten::", "mkldnn::")) and event.name not in IDLE


def _holds(event: Any) -> bool:
    """Whether an event or one within it works."""
    return _works(event) or any(map(_holds, event.cpu_children))


def shipped(name: str) -> Config:
    """The widths of a model that ships."""
    return Config.from_json(arrays.read(name, arrays.FORMAT)[1])


def stepper(config: Config, device: torch.device, compile: bool) -> Stepper:
    """An untrained model's, on noise, in bfloat16 with Muon; as graphs on a GPU."""
    torch.manual_seed(0)
    model, average = (channels_last(Checkerboard(config).to(device)) for _ in range(2))
    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    cuda = device.type == "cuda"
    draw = DeviceCrops([noise], device).batch
    found = optimisers(model, RATE, RATE, cuda, bf16=True)
    return Stepper(model, average, found, draw, bf16=True, graphs=cuda, compile=compile)


def measure(name: str, config: Config, batch: int, args: argparse.Namespace, clock: Clock) -> list[dict]:
    """A row for each of WAYS."""
    about = {"model": name, "batch": batch, "side": args.side}
    calls: dict[str, Callable[[], object]] = {}
    rows: dict[str, dict] = {}
    for way, compile in WAYS.items():
        one = stepper(config, clock.device, compile)
        call = partial(one, args.side, batch, False, 1.0, 0.001)
        try:
            first = sum(clock.first(call) for _ in range(WARM_UP + 1 if clock.cuda else 1))
        except torch._dynamo.exc.TorchDynamoException as error:
            rows[way] = about | {"way": way, "left_out": " ".join(str(error).split())[:200]}
            continue
        calls[way] = call
        rows[way] = about | {"way": way, "first_s": first / 1e3, "kernels": kernels(call, clock)}
    for way, samples in clock.turns(calls, args.runs).items():
        us = quantiles(samples)[1]
        rows[way] |= {"ms": us / 1e3, "megapixels_s": batch * args.side**2 / us}
    return [r if "ms" in r or "left_out" in r else about | {"way": w, "left_out": MEMORY} for w, r in rows.items()]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.pace", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["small", "base"], help="shipped ones, whose widths are taken")
    parser.add_argument("--batches", nargs="+", type=count, default=[16, 64, 32], help="crops of a step")
    parser.add_argument("--side", type=count, default=256, help="of a crop")
    parser.add_argument("--runs", type=count, default=20)
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no other batch is begun")
    parser.add_argument("--rehearse", action="store_true", help="a toy, on the CPU")
    return parser


def main(argv: list[str] | None = None) -> int:
    args, start = parser().parse_args(argv), time.monotonic()
    if args.rehearse:
        args.device, args.models, args.batches, args.side, args.runs = "cpu", ["toy"], [2], 64, 2
        compiled.BACKEND = TRACED
    device = need_cuda(args.device)
    clock, rows = Clock(device), []
    if why := compiled.refusal(device.type):
        raise SystemExit(f"nothing can be compiled here: {why}")
    if clock.cuda:  # as ckbd train has it
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    else:
        import torch._inductor.config as inductor

        inductor.cpp.enable_kernel_profile = True  # or its kernels could not be counted
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"steps of {args.side}x{args.side} crops, bfloat16, Muon, {device_name(device)}", flush=True)
    # The first batch of every model before the second of any.
    for batch, name in ((b, n) for b in args.batches for n in args.models):
        if time.monotonic() - start > args.seconds:
            found = [{"model": name, "batch": batch, "way": way, "left_out": "no time"} for way in WAYS]
        else:
            try:
                found = measure(name, TOY if args.rehearse else shipped(name), batch, args, clock)
            except torch.OutOfMemoryError:
                found = [{"model": name, "batch": batch, "way": way, "left_out": MEMORY} for way in WAYS]
            gc.collect()
            if clock.cuda:
                torch.cuda.empty_cache()
        rows += found
        save(str(args.out / "rows.json"), rows)
        for r in found:
            print(line(r), flush=True)
    return 0


def line(row: dict) -> str:
    start = f"{row['model']:6} batch {row['batch']:3} {row['way']:9}"
    if "left_out" in row:
        return f"{start} {row['left_out']}"
    pace = f"{row['ms']:9.3f} ms {row['megapixels_s']:8.3f} MP/s {row['kernels']:5} kernels"
    return f"{start} {pace}, first steps {row['first_s']:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
