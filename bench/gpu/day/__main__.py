"""Spends minutes on a machine with a GPU in the order of what they are worth: `python -m bench.gpu.day`.

    python -m bench.gpu.day --minutes 12 --out DIR   runs what is missing or stale in bench/gpu/gpu.json
    python -m bench.gpu.day --rehearse               the same steps on a CPU at toy sizes: whether the script runs

The machine needs PyTorch with CUDA, Triton, a C++ compiler, pybind11, ninja, setuptools, pytest, safetensors,
matplotlib, scikit-image or --images, Python 3.11 (3.10 if ckbd is installed there), and no network. torchvision adds
nvJPEG, CompressAI its models, compute-sanitizer and ncu their steps; what is not there is left out, and that is
said. Nothing is installed. A step that fails, hangs or runs over is reported, and the day goes on. DIR then holds
day.json, day.md and day.log (bench/gpu/day/run.py says what is in them); at home `python -m bench.gpu.report --take
DIR/day.json` notes it.

A rehearsal's clock is made up: it goes on by the estimates, to show what of a day of so many minutes would be done.

What only a GPU can show, whatever a rehearsal says:
  gpu-test     tests/gpu; a rehearsal runs some of the stored results by the torch twin
  decode       nvJPEG; the Triton kernels under ckbd.load(device="cuda"); memory at batch 256
  kernels      graphs, torch.compile, tuning, out of memory
  compressai   models on the device
  sanitizers   compute-sanitizer itself; a rehearsal runs tests of the twin in its place
  profile      ncu, times of kernels
  trace        which events are the device's; a rehearsal takes PyTorch's operators for them
  pace         CUDA graphs, Triton's kernels; a rehearsal traces a toy and compiles nothing
  train        bfloat16, steps as graphs, more than a toy
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gpu import record
from bench.gpu.day import run
from bench.gpu.day.steps import STEPS, Options

SIZES = ("small", "base", "large")  # of ckbd.model.config, which cannot be imported before the build; a test compares

ABOUT = """
import json, platform, torch
out = {"python": platform.python_version(), "torch": torch.__version__, "cuda": str(torch.version.cuda)}
try:
    import triton
    out["triton"] = triton.__version__
except ImportError:
    pass
if torch.cuda.is_available():
    out["device"] = torch.cuda.get_device_name()
print(json.dumps(out))
"""


def about() -> dict[str, str]:
    """Versions, and "device" if there is a GPU: asked in another process, so that this one never holds the GPU."""
    try:
        done = subprocess.run([sys.executable, "-c", ABOUT], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired as error:
        raise ValueError("PyTorch did not say within three minutes what GPU there is") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ValueError(f"PyTorch cannot be imported here: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def absolute(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(Path(p).absolute()) for p in paths)


def main(argv: list[str] | None = None) -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.day", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, help="that there are, from now (default 12; of a rehearsal 24)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: build/gpu-day, or build/rehearsal")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at toy sizes; notes nothing")
    parser.add_argument("--strict", action="store_true", help="a step that is skipped counts as failed")
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP", help=", ".join(s.name for s in STEPS))
    parser.add_argument("--images", nargs="+", default=[], help="files or folders (default: one of scikit-image)")
    parser.add_argument("--train", metavar="MODEL|large|FILE", help="go on from this with what is left of the time")
    parser.add_argument("--data", nargs="+", default=[], help="to train with: folders or tar files")
    parser.add_argument("--val", nargs="+", default=[], help="to validate with")
    parser.add_argument("--train-args", default="", help="further arguments of ckbd train, in quotes")
    parser.add_argument("--commit", help="what this checkout is, where git cannot say")
    args = parser.parse_args(argv)
    if sys.version_info < (3, 11) and importlib.util.find_spec("ckbd.kernels") is None:
        parser.error("needs Python 3.11 or newer, or an installed ckbd")
    train = [args.train] if (args.train or "").endswith((".pt", ".safetensors")) else []
    shipped = record.ROOT / "models" / "ckbd_models" / f"{args.train}.safetensors"
    if args.train and not train and args.train not in SIZES and not shipped.is_file():
        known = ", ".join(SIZES)
        parser.error(f"--train {args.train}: no model that ships, none of {known}, and no .safetensors or .pt")
    for path in (*args.images, *args.data, *args.val, *train):
        if not os.path.exists(path) or (os.path.isdir(path) and not os.listdir(path)):
            parser.error(f"{path}: {'an empty folder' if os.path.isdir(path) else 'no such file or folder'}")
    if args.minutes is None:
        args.minutes = 24.0 if args.rehearse else 12.0
    if not 0 < args.minutes < 24 * 60:
        parser.error(f"--minutes: expected more than 0 and less than a day, got {args.minutes:g}")
    try:
        found = about()
        device = "cpu" if args.rehearse else found.pop("device", None)
        found.pop("device", None)
        if device is None:
            print("no CUDA device here; --rehearse shows what would be done", file=sys.stderr)
            return record.UNAVAILABLE
        out = (args.out or record.ROOT / "build" / ("rehearsal" if args.rehearse else "gpu-day")).absolute()
        if args.rehearse:
            run.fresh(out)
        date = datetime.date.today().isoformat()
        day = run.Day(
            out,
            device,
            args.minutes,
            Options(absolute(args.images), args.train, absolute(args.data), absolute(args.val), args.train_args),
            {"commit": args.commit or record.commit(), "date": date, **found},
            out / "gpu.json" if args.rehearse else record.FILE,
            tuple(args.only),
            began,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        status = run.run(day, STEPS)
    except KeyboardInterrupt:
        print("interrupted; what was done is in --out", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"python -m bench.gpu.day: {error}", file=sys.stderr)
        return 2
    skipped = [s["name"] for s in day.state["steps"] if s["status"] == "skipped"]
    return status or (1 if args.strict and skipped else 0)


if __name__ == "__main__":
    sys.exit(main())
