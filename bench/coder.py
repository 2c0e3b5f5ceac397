"""The entropy coder by itself, against other libraries' in the same run: `python -m bench.run coder`.

Every coder must give every symbol back before it is timed. All of them are timed in turn, in an order that rotates
from run to run, so that a machine that slows down slows all of them; a figure is the median over the runs of the mean
over calls that fill SAMPLE seconds. Rows of one thread are pinned to one CPU. Single calls take one picture: of the
synthetic workloads always the same one, its indices still in the cache as they are when a network has just made them;
of real latents several in turn. A batch is BATCH pictures, all different if there are as many. Every element counts,
skipped ones too. The ideal size is the same for all: -log2 of what the 64 exact Gaussians give to the symbols (of z:
the code length by its integer tables, which are its density).
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

import ckbd
from bench import workloads
from bench.rivals import coder as rivals_coder
from bench.rivals.coder import Coder
from bench.workloads import Picture, Workload
from ckbd import _rans

SAMPLE = 0.01  # seconds that a sample takes at the least
QUICK_RUNS = 3
BATCH = 32
THREADS = (1, 2)
POISON = 77


class Single(Coder):
    """ckbd, one picture a call. options: of _rans.encode."""

    codes_z = True

    def __init__(self, tables: _rans.Tables, pictures: list[Picture], name: str, isa: str, **options: int) -> None:
        super().__init__(pictures)
        self.tables, self.name, self.isa, self.options = tables, name, isa, options
        self.outputs = [
            (np.full_like(p.z, POISON), [(k, np.full_like(r, POISON)) for k, r in p.phases]) for p in pictures
        ]

    def encode(self) -> list[tuple]:
        return [_rans.encode(self.tables, p.z, p.phases, isa=self.isa, **self.options) for p in self.pictures]

    def decode(self, coded: list[tuple]) -> list[tuple]:
        for (payload, lanes_log2, skip_max, tail), (z, phases) in zip(coded, self.outputs, strict=True):
            _rans.decode(
                self.tables, payload, z, phases, lanes_log2=lanes_log2, skip_max=skip_max, tail=tail, isa=self.isa
            )
        return self.outputs

    def size(self, coded: tuple) -> int:
        return len(coded[0])

    def symbols(self, decoded: tuple) -> np.ndarray:
        z, phases = decoded
        return np.concatenate((z, *(r for _, r in phases)))


class Batch(Single):
    """ckbd, BATCH pictures a call."""

    def __init__(
        self, tables: _rans.Tables, pictures: list[Picture], name: str, isa: str, threads: int, **options: int
    ) -> None:
        super().__init__(tables, [pictures[i % len(pictures)] for i in range(BATCH)], name, isa, **options)
        self.threads = threads
        self.inputs = [(p.z, p.phases) for p in self.pictures]

    def encode(self) -> list[tuple]:
        return _rans.encode_batch(self.tables, self.inputs, threads=self.threads, isa=self.isa, **self.options)

    def decode(self, coded: list[tuple]) -> list[tuple]:
        images = [(*one, *output) for one, output in zip(coded, self.outputs, strict=True)]
        for error in _rans.decode_batch(self.tables, images, threads=self.threads, isa=self.isa):
            if error is not None:
                raise error
        return self.outputs


def nothing_at_bound(picture: Picture) -> Picture:
    """The same symbols with the next table for the elements at the bound, so that none of them is skipped."""
    return replace(picture, phases=tuple((np.maximum(k, 1), r) for k, r in picture.phases))


def own(tables: _rans.Tables, workload: Workload, threads: list[int]) -> list[Coder]:
    """ckbd's rows: every coder that is made for speed, then variants with the fastest one, then batches."""
    singles, coders = workload.singles, []
    for isa in _rans.isas()[1:]:
        coders += [
            Single(tables, singles, f"ckbd {isa}", isa),
            Single(tables, singles, f"ckbd {isa}, 32 lanes", isa, lanes=32),
        ]
    best = _rans.isa()
    coders += [
        Single(tables, singles, f"ckbd {best}, skip_max 0", best, skip_max=0),
        Single(tables, [nothing_at_bound(p) for p in singles], f"ckbd {best}, none skipped", best, skip_max=0),
    ]
    for n in threads:
        coders += [
            Batch(tables, workload.pictures, f"ckbd {best}, batch", best, n),
            Batch(tables, workload.pictures, f"ckbd {best}, batch, 32 lanes", best, n, lanes=32),
        ]
    return coders


@contextmanager
def placed(cpus: list[int], threads: int) -> Iterator[None]:
    """Pins this thread to the last of the CPUs; leaves it on all of them for a coder of several threads."""
    if threads == 1:
        os.sched_setaffinity(0, cpus[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def seconds(call: Callable[[], object], count: int) -> float:
    """Mean duration of count calls."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def measure(coders: list[Coder], runs: int, cpus: list[int]) -> list[tuple[list[float], list[float]]]:
    """Seconds to encode and to decode all pictures of each coder, `runs` of each."""
    calls, counts = [], []
    for coder in coders:
        with placed(cpus, coder.threads):
            coded = coder.encode()
            pair = (coder.encode, lambda coder=coder, coded=coded: coder.decode(coded))
            calls.append(pair)
            counts.append([max(1, round(SAMPLE / min(seconds(call, 1) for _ in range(3)))) for call in pair])
    samples = [([], []) for _ in coders]
    for run in range(runs):
        for turn in range(len(coders)):
            i = (run + turn) % len(coders)
            with placed(cpus, coders[i].threads):
                for call, count, taken in zip(calls[i], counts[i], samples[i], strict=True):
                    taken.append(seconds(call, count))
    return samples


def compare(workload: Workload, coders: list[Coder], runs: int, cpus: list[int]) -> list[dict]:
    """Checks and times the coders on a workload; their rows for --json."""
    sizes = {}
    # Threads of a pool stay where the thread that first needed them was: those that need many come first.
    for coder in sorted(coders, key=lambda c: -c.threads):
        with placed(cpus, coder.threads):
            sizes[coder] = coder.check()
    gc.collect()
    gc.disable()
    try:
        samples = measure(coders, runs, cpus)
    finally:
        gc.enable()
    rows = []
    for coder, taken in zip(coders, samples, strict=True):
        row = {"workload": workload.name, "bpp": workload.bpp, "impl": coder.name, "threads": coder.threads}
        for name, values in zip(("encode", "decode"), taken, strict=True):
            low, middle, high = np.percentile(values, (10, 50, 90))
            row[f"{name}_melem_s"] = coder.elements() / middle / 1e6
            row[f"{name}_melem_s_p10"] = coder.elements() / high / 1e6
            row[f"{name}_melem_s_p90"] = coder.elements() / low / 1e6
            row[f"{name}_us"] = 1e6 * middle / len(coder.pictures)
        row |= {
            "bytes": sizes[coder],
            "ideal_bytes": coder.ideal_bytes(),
            "pictures": len(coder.pictures),
            "elements": coder.elements() / len(coder.pictures),
            "bound_share": float(np.mean([p.bound_share for p in workload.singles])),
            "runs": runs,
        }
        rows.append(row)
    for name, key in ((rivals_coder.LISTS, "lists"), (rivals_coder.MODEL, "model")):
        base = next((row for row in rows if row["impl"] == name), None)
        for row in rows if base else ():
            for direction in ("encode", "decode"):
                row[f"{direction}_over_{key}"] = row[f"{direction}_melem_s"] / base[f"{direction}_melem_s"]
    return rows


def table(workload: Workload, rows: list[dict]) -> str:
    """The rows as text."""
    first = workload.singles[0]
    text = [
        f"{workload.name}: {len(workload.singles)} x {first.k.size} elements ({first.r.dtype}), "
        f"{100 * rows[0]['bound_share']:.1f} % at the bound, {workload.bpp:.4f} bpp",
        f"{'':29} T{'encode, Melem/s':>24}{'decode, Melem/s':>24}{'us a picture':>16}{'bytes, over ideal':>24}"
        f"{'x lists':>14}{'x EntropyModel':>17}",
    ]
    for row in rows:
        speeds = [
            f"{row[f'{d}_melem_s']:.1f} ({row[f'{d}_melem_s_p10']:.1f}..{row[f'{d}_melem_s_p90']:.1f})"
            for d in ("encode", "decode")
        ]
        over = row["bytes"] - row["ideal_bytes"]
        ratios = [
            " / ".join(f"{row[f'{d}_over_{key}']:.1f}" for d in ("encode", "decode"))
            if f"encode_over_{key}" in row
            else "-"
            for key in ("lists", "model")
        ]
        text.append(
            f"{row['impl']:29}{row['threads']:2}{speeds[0]:>24}{speeds[1]:>24}"
            f"{row['encode_us']:8.0f}{row['decode_us']:8.0f}"
            f"{row['bytes']:10.0f} {over:+5.0f} {100 * over / row['ideal_bytes']:+6.2f} %"
            f"{ratios[0]:>14}{ratios[1]:>17}"
        )
    return "\n".join(text) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("coder")
    group.add_argument("--kodak", metavar="DIR", help="folder with the Kodak pictures, for real latents")
    group.add_argument("--workload", nargs="+", default=[""], metavar="NAME", help=", ".join(workloads.NAMES))
    group.add_argument("--rivals", action=argparse.BooleanOptionalAction, default=True)
    group.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} runs: whether it works, not how fast")


def coder(args: argparse.Namespace) -> list[dict]:
    """The coder's speed and size beside its rivals'; rows for --json."""
    names = [name for name in workloads.NAMES if name.startswith(tuple(args.workload))]
    if not names:
        raise SystemExit(f"--workload: expected names, or how they begin, of {', '.join(workloads.NAMES)}")
    torch.set_num_threads(1)
    codec, cpus = ckbd.load(args.model), sorted(os.sched_getaffinity(0))
    print(
        f"isas {', '.join(_rans.isas())}; one thread on CPU {cpus[-1]} of {len(cpus)}; "
        f"python {platform.python_version()}, numpy {np.__version__}, {rivals_coder.versions()}"
    )
    threads = [n for n in THREADS if n <= len(cpus)]
    for n in set(THREADS) - set(threads):
        print(f"batches with {n} threads: skipped, this process may use {len(cpus)} CPU")
    rivals = rivals_coder.installed() if args.rivals else []
    rows = []
    for workload in workloads.make(names, codec, args.kodak):
        coders = own(codec.encoder.tables, workload, threads) + [rival(workload.singles) for rival in rivals]
        found = compare(workload, coders, QUICK_RUNS if args.quick else args.runs, cpus)
        print("\n" + table(workload, found), end="", flush=True)
        rows += found
    return rows
