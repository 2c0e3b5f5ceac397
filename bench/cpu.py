"""What a CPU's decoder is made of: `python -m bench.run cpu`, one picture, one row a line.

memory: how far a decode raises the size of a process. small: one 64x64 picture a call on one thread, both ways. g_s:
where its time goes on one thread, every call timed in place, and what the parallel regions of a decode lose on all
threads. passes: those of ckbd._passes by instruction set, for 384 sites of the model. outliers: channels with a
companded latent beyond 64, which take a second product where units saturate. shell: `ckbd decode` in fresh processes,
without torch and with it. training: a step of the default widths with both optimisers, in float32 and in bfloat16.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ckbd
from bench.common import cut, load_pictures, save
from ckbd import _passes
from ckbd.codec import machine
from ckbd.codec.image import Picture
from ckbd.kernels import network, numerics, products
from ckbd.model.config import Config
from ckbd.model.model import Checkerboard
from ckbd.model.transforms import channels_last
from ckbd.training.steps import Stepper, optimisers

PROCESSES = 3
CROPS = 8, 256  # of a training step: how many, of what side
RATE = 4e-4  # of both optimisers


def cpu(args: argparse.Namespace) -> list[dict]:
    """Rows for --json: part, what, value, unit."""
    picture, runs = load_pictures(args.images)[0], 3 if args.quick else args.runs
    codec, alone = (ckbd.load(args.model, threads=threads) for threads in (args.threads, 1))
    (stream,) = codec.encode([picture])
    parts: dict[str, Callable[[], Iterator[tuple[str, float, str]]]] = {
        "memory": lambda: memory(args.model, [*codec.encode([cut(picture, (64, 64))]), stream], picture),
        "small": lambda: small(alone, cut(picture, (64, 64)), runs),
        "g_s": lambda: where(codec, alone, stream, runs),
        "passes": lambda: passes(codec, runs),
        "outliers": lambda: outliers(codec, picture, args.qualities),
        "shell": lambda: shell(args.model, stream),
        "training": lambda: training(args.threads, *((2, 64) if args.quick else CROPS)),
    }
    rows = []
    for part, measure in parts.items():
        for what, value, unit in measure():
            rows.append({"part": part, "what": what, "value": value, "unit": unit})
            print(f"{part:8} {what:44} {value:10.4g} {unit}", flush=True)
            save(args.json, rows)
    return rows


def median(call: Callable[[], object], runs: int) -> float:
    """Seconds."""
    call()
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def small(alone: ckbd.Codec, picture: Picture, runs: int) -> Iterator[tuple[str, float, str]]:
    streams = alone.encode([picture])
    yield "decode", 1e3 * median(lambda: alone.decode_pictures(streams), runs), "ms"
    yield "encode", 1e3 * median(lambda: alone.encode([picture]), runs), "ms"


@contextmanager
def timed(spent: dict[str, float], places: Sequence[tuple[Any, str]]) -> Iterator[None]:
    """Adds up the seconds of every call of functions, which are for one thread meanwhile."""
    real = [(where, name, getattr(where, name)) for where, name in places]

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                spent[name] += time.perf_counter() - start

        return run

    for where, name, call in real:
        setattr(where, name, wrapped(name, call))
    try:
        yield
    finally:
        for where, name, call in real:
            setattr(where, name, call)


def where(codec: ckbd.Codec, alone: ckbd.Codec, stream: bytes, runs: int) -> Iterator[tuple[str, float, str]]:
    d = alone.decoder
    with machine.working(alone.device), torch.inference_mode():
        parsed = d.parse(stream)
        y_hat, spent = d.latents([parsed]), defaultdict(float)
        places = [(products, "linear"), *((_passes, name) for name in ("depthwise", "add", "paint"))]

        def g_s() -> None:
            list(d.renderer.g_s(y_hat, [parsed.header]))

        yield "all", 1e3 * median(g_s, runs), "ms"
        with timed(spent, places):
            for _ in range(runs):
                g_s()
        for name, seconds in spent.items():
            yield name, 1e3 * seconds / runs, "ms"
    lost: list[list[float]] = []
    shared = codec.team.on(codec.device)

    def each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """As the team, and how much longer it takes than the parts of an ideal one."""
        taken = []

        def one(item: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(item)
            finally:
                taken.append(time.perf_counter() - start)

        start = time.perf_counter()
        found = shared(one, items)
        lost[-1].append(time.perf_counter() - start - sum(taken) / min(codec.team.threads, len(items)))
        return found

    before = codec.decoder.renderer.each, codec.decoder.zone.each
    codec.decoder.renderer.each = codec.decoder.zone.each = each
    try:
        for _ in range(runs + 1):
            lost.append([])
            codec.decode_pictures([stream])
    finally:
        codec.decoder.renderer.each, codec.decoder.zone.each = before
    yield "parallel regions of a decode", len(lost[-1]), ""
    yield "all of them lose", 1e3 * statistics.median(map(sum, lost[1:])), "ms"


def passes(codec: ckbd.Codec, runs: int) -> Iterator[tuple[str, float, str]]:
    c, g = codec.model.config, np.random.default_rng(0)
    rows, width = 16, 24
    sites = rows * width
    x = g.integers(0, 255, (rows, width, c.M), np.uint8)
    taps = np.array([(dh, (1 + dw) >> 1, dw >> 1) for dh, dw in network.taps(5)], np.int32)
    columns = np.empty((sites, 12 * c.M), np.uint8)
    sums = g.integers(-(10**6), 10**6, (sites, 2 * c.M), np.int32)
    bias, shift = np.zeros(2 * c.M, np.int32), np.full(2 * c.M, 9, np.int32)
    r, mean = (g.integers(-50, 50, (sites, c.M)).astype(np.int16) for _ in range(2))
    near, h = np.empty((sites, c.M), np.uint8), np.empty(sums.shape, np.uint8)
    for isa in _passes.isas():
        calls = {
            "gather": lambda isa=isa: _passes.gather(
                x, rows, taps, np.zeros(c.M, np.uint8), (0, rows), columns, isa=isa
            ),
            "requantise": lambda isa=isa: _passes.requantise(sums, bias, shift, h, isa=isa),
            "output": lambda isa=isa: _passes.output(sums, bias, shift, mean.copy(), near, isa=isa),
            "assemble": lambda isa=isa: _passes.assemble(r, mean, near, isa=isa),
        }
        for name, call in calls.items():
            yield f"{name}, {isa}", 1e6 * median(call, 10 * runs), "us"


def outliers(codec: ckbd.Codec, picture: Picture, qualities: Sequence[float]) -> Iterator[tuple[str, float, str]]:
    for quality in qualities:
        (y_hat,) = codec.decode_latents(codec.encode([picture], quality))
        far = numerics.compand(torch.from_numpy(y_hat).float()).abs() > products.NARROW
        yield f"quality {quality:g}", int(far.flatten(1).any(1).sum()), f"channels of {len(far)}"


MEMORY = r"""
import re, sys
import ckbd
small, large = (open(path, "rb").read() for path in sys.argv[2:])
codec = ckbd.load(sys.argv[1], threads=1)
sizes = []
for stream in (small, large):
    codec.decode_pictures([stream])
    sizes.append(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]))
print(1024 * (sizes[1] - sizes[0]))
"""


def memory(model: str, streams: Sequence[bytes], picture: Picture) -> Iterator[tuple[str, float, str]]:
    """How far the second stream, the picture's, raises the size of a process that has decoded the first."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(n)) for n in range(len(streams))]
        for path, stream in zip(paths, streams, strict=True):
            path.write_bytes(stream)
        command = [sys.executable, "-c", MEMORY, model, *map(str, paths)]
        more = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    yield "after one of 64x64", more / (picture.width * picture.height), "bytes a pixel"


def shell(model: str, stream: bytes) -> Iterator[tuple[str, float, str]]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.ckbd").write_bytes(stream)
        command = [sys.executable, "-m", "ckbd.cli", "decode", f"{folder}/a.ckbd", f"{folder}/a.png", "--force"]
        for name, more in (("by default", ()), ("--backend torch", ("--backend", "torch"))):
            call = [*command, "--model", model, *more]
            seconds = median(lambda call=call: subprocess.run(call, check=True, capture_output=True), PROCESSES)
            yield name, seconds, "s"


def training(threads: int, count: int, side: int) -> Iterator[tuple[str, float, str]]:
    x = torch.rand(count, 3, side, side).to(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    for number in sorted({1, threads}):
        torch.set_num_threads(number)
        try:
            for half in (False, True):
                torch.manual_seed(0)
                model, average = (channels_last(Checkerboard(Config())) for _ in range(2))
                found = optimisers(model, RATE, RATE, False, half)
                step = Stepper(model, average, found, lambda count, side: x, bf16=half)
                seconds = median(partial(step, side, count, False, 1.0, 0.001), 2 if side < CROPS[1] else 7)
                yield f"{number} threads, {'bfloat16' if half else 'float32'}", 1e3 * seconds, "ms"
        finally:
            torch.set_num_threads(before)
