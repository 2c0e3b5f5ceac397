"""The phase kernels beside what else could do the work: `python -m bench.run kernels`.

One call is one phase of a batch of pictures of one size, inputs and outputs on the device, psi already projected (a
row of its own; the dense rival does psi's share within). Before anything is timed, the integer kernels must give what
the torch twin gives on the CPU, bit for bit. All implementations are timed in turn.

us       what the device takes: replays of a CUDA graph of the call. Of torch.compile that graph holds what
         max-autotune-no-cudagraphs makes: the same kernels, less the guards that Python runs before each replay. The
         largest batches, where launching costs nothing beside the work, have no graph: as call_us.
call_us  called from Python, one after the other
left_out  instead of figures: why there are none, for a rival that failed or a device that has no memory for it
bytes, ops  what the phase needs (ckbd.kernels.phase_cost), not what an implementation does; bytes in its dtype
roofline_share  the least time for these, by the ceilings measured in this run, over us
cold_ms  the first call, compilation with it; warm_ms: the same in a new process that finds the compiled kernels
tune_ms  the first call of "auto": all candidates compiled (if they were not) and measured

CompressAI's way in fp32 has cuDNN's TF32, as PyTorch sets it; ours has none. With --device cpu everything runs in
torch at the sizes asked for: whether it works, not how fast.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from bench.arguments import count, size
from bench.common import save
from bench.gpu.cold import cold
from bench.gpu.device import Ceilings, Clock, ceilings, device_name, graph, quantiles, roofline_share
from bench.gpu.inputs import Ours, backend_of, integers, latents, need_cuda, network, values
from bench.launches import INTEGER_MODELS, Model
from bench.rivals.kernels import Dense, Half
from ckbd import kernels
from ckbd.kernels import Config, Lattice, Network, tune
from ckbd.kernels.configs import CONFIGS, FORMS

PICTURES = ((768, 512), (1920, 1080))
BATCHES = (1, 8, 64, 256)
DRY_PICTURES, DRY_BATCHES = ((128, 64),), (1, 2)
QUICK_RUNS = 3
GRAPH_SITES = 100_000  # of a phase: beyond, a graph would only hold memory twice
DTYPES = {"int8": torch.int8, "fp16": torch.float16, "fp32": torch.float32}
MEMORY = "out of memory"
COMPILED, EAGER = "torch.compile fp16", "torch eager fp16"


@dataclass
class Entry:
    """One implementation at work. config: what phase_cost counts by."""

    call: Callable[[], object]
    net: Network
    phase: int
    config: Config
    cold_ms: float | None = None  # of what is compiled in this process
    tune_ms: float | None = None
    captured: Callable[[], object] | None = None  # what a graph holds, if not call
    device_call: Callable[[], object] | None = None  # that graph


@contextmanager
def watched() -> Iterator[list[Config]]:
    """What tune.choose answers meanwhile."""
    answers, choose = [], tune.choose

    def listening(*args):
        answers.append(choose(*args))
        return answers[-1]

    tune.choose = listening
    try:
        yield answers
    finally:
        tune.choose = choose


def gate(model: Model, device: torch.device) -> None:
    """Exits unless every integer config gives the CPU twin's bits on a small case."""
    lattice = Lattice(((5, 7), (3, 4), (9, 31)), 1)
    here = integers(model, torch.device("cpu"))
    there = integers(model, device)
    g = torch.Generator().manual_seed(1)
    psi, context = (
        torch.randint(-127, 128, (lattice.sites, n), generator=g).to(torch.int8) for n in (model.C, model.M)
    )
    acc = kernels.project(psi, here, backend="torch")
    for config in CONFIGS[torch.int8]:
        plan = {"backend": backend_of(device), "config": config}
        if config.form == "layers" and not torch.equal(kernels.project(psi.to(device), there, **plan).cpu(), acc):
            raise SystemExit(f"{model.name}, {config}: the projection is not the twin's, so nothing is timed")
        for p, c in enumerate((None, context)):
            want = kernels.phase(acc, c, here, lattice, backend="torch")
            got = kernels.phase(acc.to(device), None if c is None else c.to(device), there, lattice, **plan)
            if not all(torch.equal(a, b.cpu()) for a, b in zip(want, got, strict=True)):
                raise SystemExit(f"{model.name}, {config}: phase {p} is not the twin's, so nothing is timed")


def entries(
    model: Model, lattice: Lattice, clock: Clock, rivals: bool, compiled: bool
) -> tuple[dict[tuple[str, int], Entry], dict[tuple[str, int], str]]:
    """What runs on a batch, by (impl, phase), each warm; and of what does not, why. That is what the device has no
    memory for, and rivals that fail: what others' code cannot do here must not cost our own figures.
    """
    device = clock.device
    found: dict[tuple[str, int], Entry] = {}
    left_out: dict[tuple[str, int], str] = {}
    graphs = clock.cuda and clock.trash is None and lattice.sites <= GRAPH_SITES

    def add(name: str, p: int, make: Callable[[], Entry]) -> None:
        try:
            entry = make()
            first = clock.first(entry.call)
            entry.cold_ms = first if name == COMPILED else None
            if graphs:
                clock.first(entry.captured or entry.call)
                entry.device_call = graph(entry.captured or entry.call, device)
            found[name, p] = entry
        except torch.OutOfMemoryError:
            gc.collect()
            torch.cuda.empty_cache()
            left_out[name, p] = MEMORY
        except Exception as error:
            if name.startswith("ours"):
                raise
            left_out[name, p] = repr(error)

    def fitting(form: str, ours: Ours, p: int) -> Config:
        """The quickest of a form. Asking phase() for the form would have it measured anew at every turn."""
        options = [c for c in CONFIGS[torch.int8] if c.form == form]
        return options[0] if not clock.cuda else tune.fastest(options, lambda c: clock.median(ours.call(p, c)))

    def chosen(ours: Ours, p: int) -> Entry:
        with watched() as answers:
            took = clock.first(ours.call(p, None))
        default = CONFIGS[ours.net.psi.dtype][0]
        return Entry(ours.call(p, None), ours.net, p, answers[-1] if answers else default, tune_ms=took)

    def of_form(form: str, ours: Ours, p: int) -> Entry:
        config = fitting(form, ours, p)
        return Entry(ours.call(p, config), ours.net, p, config)

    nets = {name: network(model, dtype, device) for name, dtype in DTYPES.items()}
    for name, net in nets.items():
        try:
            ours = Ours(net, lattice)
        except torch.OutOfMemoryError:
            left_out |= {(f"ours {name}", p): MEMORY for p in (0, 1)}
            continue
        for p in (0, 1):
            if net.exact:
                for form in FORMS:
                    add(f"ours int8 {form}", p, lambda form=form, ours=ours, p=p: of_form(form, ours, p))
                add("ours int8 auto", p, lambda ours=ours, p=p: chosen(ours, p))
            else:
                add(f"ours {name}", p, lambda ours=ours, p=p: chosen(ours, p))
    if rivals:
        half = CONFIGS[torch.float16][0]

        def rival(kind: type, dtype: str) -> Entry:
            return Entry(kind(model, lattice, DTYPES[dtype], device).call, nets[dtype], 1, half)

        def tuned() -> Entry:
            torch._dynamo.reset()  # each shape is compiled by itself, and none counts against a limit
            made = Half(model, lattice, torch.float16, device)
            captured = made.compiled("max-autotune-no-cudagraphs") if graphs else None
            return Entry(made.compiled("max-autotune"), nets["fp16"], 1, half, captured=captured)

        add(EAGER, 1, lambda: rival(Half, "fp16"))
        if compiled:
            add(COMPILED, 1, tuned)
        add("compressai dense fp16", 1, lambda: rival(Dense, "fp16"))
        add("compressai dense fp32", 1, lambda: rival(Dense, "fp32"))
    return found, left_out


def projection(model: Model, lattice: Lattice, clock: Clock, runs: int, tops: Ceilings) -> dict:
    """The row of W1_psi psi of both phases, which the phases find done."""
    net, rows = integers(model, clock.device), 2 * lattice.sites
    psi = values(rows, model.C, torch.int8, clock.device)
    taken = clock.turns({"": lambda: kernels.project(psi, net, backend=backend_of(clock.device))}, runs)
    if not taken:
        raise torch.OutOfMemoryError("project")
    H1P = net.psi.shape[0]
    work = {"bytes": net.psi.numel() + rows * (model.C + 4 * H1P), "ops": 2 * rows * model.C * model.H1}
    return row_of("ours int8 project", taken[""], taken[""], work, torch.int8, tops)


def row_of(impl: str, us: list[float], call_us: list[float], work: dict, dtype: torch.dtype, tops: Ceilings) -> dict:
    low, middle, high = quantiles(us)
    share = roofline_share(work["bytes"], work["ops"], middle, tops.bandwidth, tops.rate(dtype))
    spread = {"us": middle, "p10": low, "p90": high, "call_us": quantiles(call_us)[1]}
    return {"impl": impl, **spread, **work, "roofline_share": share}


def measure(
    found: dict[tuple[str, int], Entry], lattice: Lattice, clock: Clock, runs: int, tops: Ceilings
) -> list[dict]:
    """Times all entries in turn; their rows."""
    calls = {f"{name}/{p}/call": e.call for (name, p), e in found.items()}
    calls |= {f"{name}/{p}/graph": e.device_call for (name, p), e in found.items() if e.device_call}
    samples, rows = clock.turns(calls, runs), []
    for (name, p), e in found.items():
        called = samples.get(f"{name}/{p}/call")
        if called is None:
            rows.append({"impl": name, "phase": p, "left_out": MEMORY})
            continue
        cost = kernels.phase_cost(e.net, lattice, p, e.config)
        work = {"bytes": cost.bytes, "ops": 2 * cost.macs}
        us = samples.get(f"{name}/{p}/graph") or called
        row = row_of(name, us, called, work, e.net.psi.dtype, tops) | {"phase": p}
        row |= {name: ms for name, ms in (("cold_ms", e.cold_ms), ("tune_ms", e.tune_ms)) if ms is not None}
        if name.startswith("ours"):
            row["config"] = str(e.config)
        if name.startswith("compressai"):
            row["dense_ops"] = 2 * kernels.dense_macs(e.net, lattice)
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    text = [f"{'':24}phase{'us':>11} (p10..p90){'call us':>20}{'roofline':>10}{'first ms':>10}  config"]
    for r in rows:
        if "left_out" in r:
            text.append(f"{r['impl']:24}{r.get('phase', '-')!s:>5}  left out: {r['left_out']}")
            continue
        spread = f"{r['us']:.1f} ({r['p10']:.1f}..{r['p90']:.1f})"
        cold_ms = f"{r['cold_ms']:.0f}" if r.get("cold_ms") is not None else "-"
        text.append(
            f"{r['impl']:24}{r.get('phase', '-')!s:>5}{spread:>30}{r['call_us']:11.1f}"
            f"{100 * r['roofline_share']:8.1f} %{cold_ms:>10}  {r.get('config', '')}"
        )
    return "\n".join(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("kernels")
    group.add_argument("--device", help="kernels: cuda, or cpu for a dry run; batch, compressai: cpu, or cuda")
    group.add_argument("--batches", type=count, nargs="+", help="kernels, batch: 1 8 64 256; compressai: 1")
    group.add_argument(
        "--pictures",
        type=size,
        nargs="+",
        metavar="WxH",
        help="kernels: 768x512 1920x1080, in a dry run 128x64; batch, compressai: how much of a picture is taken",
    )
    group.add_argument("--flush", action="store_true", help="empty the L2 cache before every call; no graphs then")
    group.add_argument("--cold", action=argparse.BooleanOptionalAction, default=True, help="cold_ms and warm_ms")
    group.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile's rows")


def kernels_case(args: argparse.Namespace) -> list[dict]:
    """Rows for --json, written as they come."""
    device = need_cuda(args.device or "cuda")
    dry = device.type != "cuda"
    pictures = args.pictures or (DRY_PICTURES if dry else PICTURES)
    batches = args.batches or (DRY_BATCHES if dry else BATCHES)
    clock, named = Clock(device, args.flush), device_name(device)
    print(f"{named}; torch {torch.__version__}" + ("" if clock.cuda else "; a dry run, whose times say nothing"))
    if clock.cuda:
        os.environ["CKBD_TUNE_CACHE"] = ""  # choices are made in this run
        torch.backends.cudnn.benchmark = True
    for model in INTEGER_MODELS:
        gate(model, device)
    print("the integer kernels give the twin's bits")
    tops = ceilings(clock) if clock.cuda else ceilings(clock, 1 << 20, 64)
    print(
        f"ceilings: copy {tops.bandwidth / 1e9:.0f} GB/s, int8 {tops.int8 / 1e12:.1f} Top/s, "
        f"fp16 {tops.float16 / 1e12:.1f} Top/s, fp32 {tops.float32 / 1e12:.1f} Top/s"
    )
    rows = []
    for model in INTEGER_MODELS:
        first = {f"ours int8 {form}": cold(model, form) for form in FORMS if clock.cuda and args.cold}
        for width, height in pictures:
            for batch in batches:
                lattice = Lattice((latents(width, height),) * batch)
                found, left_out = entries(model, lattice, clock, args.rivals, args.compile)
                taken = measure(found, lattice, clock, QUICK_RUNS if args.quick else args.runs, tops)
                taken += [{"impl": name, "phase": p, "left_out": why} for (name, p), why in left_out.items()]
                del found
                gc.collect()
                try:
                    taken.append(projection(model, lattice, clock, 5, tops))
                except torch.OutOfMemoryError:
                    taken.append({"impl": "ours int8 project", "left_out": MEMORY})
                if clock.cuda:
                    torch.cuda.empty_cache()
                where = {"shape": f"{width}x{height}", "batch": batch, "model": model.name, "device": named}
                for row in taken:
                    row |= first.get(row["impl"], {}) if row.get("phase") == 1 else {}
                rows += [where | row for row in taken]
                print(f"\n{model.name}, {width}x{height}, batch {batch}\n{table(taken)}", flush=True)
                save(args.json, rows)
    return rows
