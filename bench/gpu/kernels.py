"""The phase kernels beside what else could do the work: `python -m bench.run kernels`.

One call is one phase of a batch of pictures of one size, inputs and outputs on the device, psi already projected (a
row of its own; the dense rival does psi's share within). Before anything is timed, the integer kernels must give what
the torch twin gives on the CPU, bit for bit. All implementations are timed in turn. Then come g_s and g_a of the
models that ship: bench.gpu.transforms.

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
from dataclasses import replace
from itertools import product

import torch

from bench.arguments import count, size
from bench.common import save
from bench.gpu import transforms
from bench.gpu.cold import cold
from bench.gpu.device import Ceilings, Clock, ceilings, device_name
from bench.gpu.inputs import Ours, backend_of, integers, latents, need_cuda, network, values
from bench.gpu.rows import COMPILED, MEMORY, Entries, Entry, row_of, table, watched
from bench.launches import INTEGER_MODELS, Model
from bench.rivals.kernels import Dense, Half
from ckbd import kernels
from ckbd.kernels import Config, Lattice, Network, tune
from ckbd.kernels.configs import CONFIGS, FORMS
from ckbd.model import file

PICTURES = ((768, 512), (1920, 1080))
BATCHES = (1, 8, 64, 256)
DRY_PICTURES, DRY_BATCHES = ((128, 64),), (1, 2)
QUICK_RUNS = 3
DTYPES = {"int8": torch.int8, "fp16": torch.float16, "fp32": torch.float32}
EAGER = "torch eager fp16"


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


def entries(model: Model, lattice: Lattice, clock: Clock, rivals: bool, compiled: bool) -> Entries:
    """What runs on a batch, by (impl, phase)."""
    device, made = clock.device, Entries(clock, lattice)

    def entry(call: Callable[[], object], net: Network, p: int, config: Config, /, **more: object) -> Entry:
        cost = kernels.phase_cost(net, lattice, p, config)
        return Entry(call, {"bytes": cost.bytes, "ops": 2 * cost.macs}, net.psi.dtype, more)

    def fitting(form: str, ours: Ours, p: int) -> Config:
        """The quickest of a form. Asking phase() for the form would have it measured anew at every turn."""
        options = [c for c in CONFIGS[torch.int8] if c.form == form]
        return options[0] if not clock.cuda else tune.fastest(options, lambda c: clock.median(ours.call(p, c)))

    def chosen(ours: Ours, p: int) -> Entry:
        with watched() as answers:
            took = clock.first(ours.call(p, None))
        config = answers[-1] if answers else CONFIGS[ours.net.psi.dtype][0]
        return entry(ours.call(p, None), ours.net, p, config, tune_ms=took, config=str(config))

    def of_form(form: str, ours: Ours, p: int) -> Entry:
        config = fitting(form, ours, p)
        return entry(ours.call(p, config), ours.net, p, config, config=str(config))

    nets = {name: network(model, dtype, device) for name, dtype in DTYPES.items()}
    for name, net in nets.items():
        try:
            ours = Ours(net, lattice)
        except torch.OutOfMemoryError:
            made.left_out |= {(f"ours {name}", p): MEMORY for p in (0, 1)}
            continue
        for p in (0, 1):
            if net.exact:
                for form in FORMS:
                    made.add(f"ours int8 {form}", lambda form=form, ours=ours, p=p: of_form(form, ours, p), p)
                made.add("ours int8 auto", lambda ours=ours, p=p: chosen(ours, p), p)
            else:
                made.add(f"ours {name}", lambda ours=ours, p=p: chosen(ours, p), p)
    if rivals:
        half = CONFIGS[torch.float16][0]

        def rival(kind: type, dtype: str) -> Entry:
            more = {"dense_ops": 2 * kernels.dense_macs(nets[dtype], lattice)} if kind is Dense else {}
            return entry(kind(model, lattice, DTYPES[dtype], device).call, nets[dtype], 1, half, **more)

        def tuned() -> Entry:
            torch._dynamo.reset()  # each shape is compiled by itself, and none counts against a limit
            rival = Half(model, lattice, torch.float16, device)
            captured = rival.compiled("max-autotune-no-cudagraphs") if made.graphs else None
            found = entry(rival.compiled("max-autotune"), nets["fp16"], 1, half)
            return replace(found, captured=captured)

        made.add(EAGER, lambda: rival(Half, "fp16"), 1)
        if compiled:
            made.add(COMPILED, tuned, 1)
        made.add("compressai dense fp16", lambda: rival(Dense, "fp16"), 1)
        made.add("compressai dense fp32", lambda: rival(Dense, "fp32"), 1)
    return made


def phases(
    model: Model, lattice: Lattice, clock: Clock, runs: int, tops: Ceilings, args: argparse.Namespace
) -> list[dict]:
    """The rows of a batch."""
    taken = entries(model, lattice, clock, args.rivals, args.compile).rows(runs, tops)
    gc.collect()
    try:
        return [*taken, projection(model, lattice, clock, 5, tops)]
    except torch.OutOfMemoryError:
        return [*taken, {"impl": "ours int8 project", "left_out": MEMORY}]


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("kernels")
    group.add_argument("--device", help="kernels: cuda, or cpu for a dry run; batch, compressai: cpu, or cuda")
    group.add_argument("--batches", type=count, nargs="+", help="kernels, batch: 1 8 64 256; compressai: 1")
    group.add_argument(
        "--pictures",
        type=size,
        nargs="+",
        metavar="WxH",
        help="kernels: 768x512 1920x1080 (g_s, g_a: the first), in a dry run 128x64; batch, compressai: how much of "
        "a picture is taken",
    )
    group.add_argument("--flush", action="store_true", help="empty the L2 cache before every call; no graphs then")
    group.add_argument("--cold", action=argparse.BooleanOptionalAction, default=True, help="cold_ms and warm_ms")
    group.add_argument("--only", choices=("phases", "transforms"), help="kernels: one part; transforms: g_s and g_a")
    group.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile's rows")


def kernels_case(args: argparse.Namespace) -> list[dict]:
    """Rows for --json, written as they come."""
    device = need_cuda(args.device or "cuda")
    dry = device.type != "cuda"
    batches = args.batches or (DRY_BATCHES if dry else BATCHES)
    clock, named = Clock(device, args.flush), device_name(device)
    runs = QUICK_RUNS if args.quick else args.runs
    print(f"{named}; torch {torch.__version__}" + ("" if clock.cuda else "; a dry run, whose times say nothing"))
    if clock.cuda:
        os.environ["CKBD_TUNE_CACHE"] = ""  # choices are made in this run
        torch.backends.cudnn.benchmark = True
    if dry:
        torch.set_num_threads(1)  # so few sites are not worth waking a second, least of all on a busy machine
    parts = (args.only,) if args.only else ("phases", "transforms")
    if "phases" in parts:
        for model in INTEGER_MODELS:
            gate(model, device)
        print("the integer kernels give the twin's bits")
    tops = ceilings(clock) if clock.cuda else ceilings(clock, 1 << 20, 64)
    print(
        f"ceilings: copy {tops.bandwidth / 1e9:.0f} GB/s, int8 {tops.int8 / 1e12:.1f} Top/s, "
        f"fp16 {tops.float16 / 1e12:.1f} Top/s, fp32 {tops.float32 / 1e12:.1f} Top/s"
    )
    rows = []

    def sets(otherwise: tuple[tuple[int, int], ...]) -> Iterator[tuple[tuple[int, int], int]]:
        """(picture, batch) in turn; the memory of the one before is given back."""
        for one in product(args.pictures or (DRY_PICTURES if dry else otherwise), batches):
            gc.collect()
            if clock.cuda:
                torch.cuda.empty_cache()
            yield one

    def note(name: str, picture: tuple[int, int], batch: int, taken: list[dict]) -> None:
        shape = "{}x{}".format(*picture)
        where = {"shape": shape, "batch": batch, "model": name, "device": named}
        rows.extend(where | row for row in taken)
        print(f"\n{name}, {shape}, batch {batch}\n{table(taken)}", flush=True)
        save(args.json, rows)

    for model in INTEGER_MODELS if "phases" in parts else ():
        first = {f"ours int8 {form}": cold(model, form) for form in FORMS if clock.cuda and args.cold}
        for picture, batch in sets(PICTURES):
            taken = phases(model, Lattice((latents(*picture),) * batch), clock, runs, tops, args)
            for row in taken:
                row |= first.get(row["impl"], {}) if row.get("phase") == 1 else {}
            note(model.name, picture, batch, taken)
    for name in transforms.MODELS if "transforms" in parts else ():
        transforms.gate(name, device)
        print(f"\n{name}: the kernels of g_s and g_a give what the twin gives")
        loaded = file.load(name, device)
        for picture, batch in sets(transforms.PICTURES):
            # Compiling takes most of a minute, and the bar is of large batches.
            rivals = {
                "against": args.rivals,
                "compiled": args.compile and (dry or batch >= transforms.COMPILED_BATCH),
            }
            note(name, picture, batch, transforms.rows(loaded, picture, batch, clock, runs, tops, **rivals))
    return rows
