"""g_s and g_a of models beside their layers in PyTorch, batches of one size: rows of `python -m bench.run kernels`.

g_s  ours from what the phases leave, int16 r and mean; the layers from the float32 y_hat that has to be made of them
     first, which is not in their time, nor is the gain of a quality. All end in uint8 (3, height, width), a tensor
     for each picture; of torch.compile one for all, which spares it a copy.
g_a  ours from uint8 (height, width, 3); the layers from these as float32 (B, 3, H, W), padded, channels last, which
     is not in their time either. All end in float32, not yet times a gain.

Before anything is timed, every config of ours must give what the twin gives on the CPU, but for the rounding of
floats. "g_s ours fp16: ..." are its launches, each by itself on the input that it has there; of blocks of one size
the first. bytes and ops are those of all launches (synthesis_cost, analysis_cost), with what they hand to each other,
in the dtype of the implementation; tune_ms is the first call, in which every config is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from unittest import mock

import torch
from torch import Tensor

from bench.gpu.device import Ceilings, Clock
from bench.gpu.inputs import backend_of, latents
from bench.gpu.rows import COMPILED, MEMORY, Entries, Entry, watched
from bench.rivals import transforms as rivals
from ckbd import kernels
from ckbd.codec.networks.painting import Painter, Reader
from ckbd.kernels import Config, Lattice, ops, transforms, tune
from ckbd.kernels.transforms import Part, Pictures
from ckbd.kernels.transforms.configs import LAYERS, candidates, gpu_of
from ckbd.model import file
from ckbd.model.file import Loaded

MODELS = ("small", "base")
PICTURES = ((768, 512),)
COMPILED_BATCH = 64  # the smallest that torch.compile is timed at
CPU = torch.device("cpu")
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
# How far ours may be from the twin: pixels of 255, and features as a share of the largest.
PIXELS = {torch.float16: 2, torch.float32: 1}
FEATURES = {torch.float16: 1e-2, torch.float32: 1e-4}
GATE = Lattice(((5, 7), (4, 4), (3, 9)))  # no picture of the gate fills the last of its latents
OURS, EAGER, TUNED = "g_s ours fp16", "g_s eager fp16", f"g_s {COMPILED}"


def numbers(shape: tuple[int, ...], most: int) -> Tensor:
    """int16 from -most to most, on the CPU; the same ones every time."""
    return torch.randint(-most, most + 1, shape, generator=torch.Generator().manual_seed(0)).to(torch.int16)


class Case:
    """A batch of a lattice's sizes on a device: latents r and mean for g_s and the pictures that it writes, all zero,
    and pictures for g_a, of given heights and widths.
    """

    def __init__(self, M: int, lattice: Lattice, sizes: Sequence[tuple[int, int]], device: torch.device):
        self.lattice, self.device, self.backend = lattice, device, backend_of(device)
        self.M, self.pixels = M, sum(height * width for height, width in sizes)
        shape = 2, lattice.sites, M
        self.r, self.mean = (numbers(shape, most).to(device) for most in (1, 8))
        self.painted = Pictures.of([torch.zeros((3, *size), dtype=torch.uint8, device=device) for size in sizes])
        shown = {size: (numbers((*size, 3), 127) + 127).to(device, torch.uint8) for size in set(sizes)}
        self.given = Pictures.of([shown[size].clone() for size in sizes], "HWC")

    def g_s(self, network: transforms.Synthesis, configs: transforms.Configs | None = None) -> list[Tensor]:
        state = self.r, self.mean, self.lattice
        transforms.synthesise(*state, network, self.painted, backend=self.backend, configs=configs)
        return self.painted.tensors

    def g_a(self, network: transforms.Analysis, configs: transforms.Configs | None = None) -> Tensor:
        return transforms.analyse(self.given, self.lattice, network, backend=self.backend, configs=configs)

    def y_hat(self) -> Tensor:
        """float32 (B, M, h, w) in 1/16 units, as the codec has it: channels last. For images of one size."""
        full = torch.empty((self.lattice.full_sites, self.M), device=self.device)
        for p in (0, 1):
            kernels.assemble(self.r[p], self.mean[p], self.lattice, p, full, backend=self.backend)
        return full.view(len(self.lattice.sizes), *self.lattice.sizes[0], self.M).permute(0, 3, 1, 2)


def networks(
    model: Loaded, dtype: torch.dtype, device: torch.device
) -> tuple[transforms.Synthesis, transforms.Analysis]:
    args = model, device, backend_of(device), dtype
    return Painter(*args).network, Reader(*args).network


def plans(dtype: torch.dtype, width: int) -> list[dict[str, Config]]:
    """Configs in which every candidate has its turn, but those of blocks. width: of what "enter" writes."""
    options = {name: candidates(name, dtype, width) for name in LAYERS}
    count = max(map(len, options.values()))
    return [{name: some[i % len(some)] for name, some in options.items()} for i in range(count)]


def gate(name: str, device: torch.device) -> None:
    """Exits unless every config of both networks gives what the twin gives on the CPU, on a small case."""
    sizes = [(16 * h - 5, 16 * w - 3) for h, w in GATE.sizes]
    models = [file.load(name, d) for d in (CPU, device)]
    here, there = (Case(m.config.M, GATE, sizes, d) for m, d in zip(models, (CPU, device), strict=True))

    def near(got: Tensor, want: Tensor, most: float, what: str, config: object) -> None:
        off = float((got.cpu().float() - want.float()).abs().max())
        if not off <= most:
            raise SystemExit(f"{name}, {what}, {config}: {off:g} from the twin's, {most:g} may be: nothing is timed")

    for label, dtype in DTYPES.items():
        (g_s, g_a), ours = (networks(m, dtype, d) for m, d in zip(models, (CPU, device), strict=True))
        pixels, features = [x.clone() for x in here.g_s(g_s)], here.g_a(g_a)
        for plan in plans(dtype, g_s.enter.weight.shape[0]):
            for x in there.painted.tensors:
                x.zero_()  # or what is not written would be the plan's before
            for got, want in zip(there.g_s(ours[0], plan), pixels, strict=True):
                near(got, want, PIXELS[dtype], f"pixels of g_s {label}", plan)
            share = FEATURES[dtype] * float(features.abs().max())
            near(there.g_a(ours[1], plan), features, share, f"g_a {label}", plan)
        pairs = zip(g_s.blocks16 + g_s.blocks8, ours[0].blocks16 + ours[0].blocks8, strict=True)
        for mine, other in {mine.C: (mine, other) for mine, other in pairs}.values():  # one of each width
            CP = mine.tensors[4].shape[0]
            x = numbers((GATE.full_sites, CP), 300).to(dtype) / 100
            want = transforms.block(x, mine, GATE, backend="torch")
            share = FEATURES[dtype] * float(want.abs().max())
            for config in candidates("block", dtype, CP, gpu_of(device)):
                got = transforms.block(x.to(device), other, GATE, backend=there.backend, config=config)
                near(got, want, share, f"a block of {mine.C} channels {label}", config)


def launches(run: Callable[[], object]) -> list[Callable[[], object]]:
    """The operators that a call runs, in order, each with the arguments that it had."""
    found, call = [], ops.call

    def listening(*args: object) -> object:
        found.append(partial(call, *args))
        return call(*args)

    with mock.patch.object(ops, "call", listening):
        run()
    return found


def labels(parts: Sequence[Part]) -> Iterator[str]:
    """What the launches of g_s are called."""
    scale = 16
    for part in parts:
        yield f"block 1/{scale}" if part.kernel == "block" else part.kernel
        scale = 8 if part.kernel == "up" else scale


def entries(model: Loaded, case: Case, clock: Clock, against: bool, compiled: bool) -> Entries:
    """What runs on a batch, without phases. against: rivals too, and compiled: torch.compile's."""
    made = Entries(clock, case.lattice)
    nets = {name: networks(model, dtype, case.device) for name, dtype in DTYPES.items()}
    g_s = {name: transforms.synthesis_cost(one, case.lattice, case.pixels) for name, (one, _) in nets.items()}
    g_a = {name: transforms.analysis_cost(one, case.lattice, case.pixels) for name, (_, one) in nets.items()}

    def entry(call: Callable[[], object], parts: Sequence[Part], dtype: str, **more: object) -> Entry:
        work = {"bytes": sum(part.bytes for part in parts), "ops": 2 * sum(part.macs for part in parts)}
        return Entry(call, work, DTYPES[dtype], more)

    def ours(call: Callable[[], object], parts: Sequence[Part], dtype: str) -> Entry:
        with tune.thorough():  # every config, however long that takes
            took = clock.first(call)
        return entry(call, parts, dtype, tune_ms=took)

    @cache
    def launched() -> dict[str, tuple[Part, Callable[[], object]]]:
        """Those of g_s in float16, the first of each label."""
        found: dict[str, tuple[Part, Callable[[], object]]] = {}
        calls = launches(partial(case.g_s, nets["fp16"][0]))
        for label, part, call in zip(labels(g_s["fp16"]), g_s["fp16"], calls, strict=True):
            found.setdefault(label, (part, call))
        return found

    def launch(label: str) -> Entry:
        part, call = launched()[label]
        with watched() as answers:
            call()
        return entry(call, [part], "fp16", **({"config": str(answers[-1])} if answers else {}))

    def eager_g_s() -> rivals.Synthesis:
        return rivals.Synthesis(model, case.y_hat(), case.painted.tensors)

    def compiled_g_s() -> Entry:
        torch._dynamo.reset()  # each shape is compiled by itself, and none counts against a limit
        # The graph is the clock's, as ours is; so what is called from Python has none of its own.
        return entry(eager_g_s().compiled("max-autotune-no-cudagraphs"), g_s["fp16"], "fp16")

    for name, (one, _) in nets.items():
        made.add(f"g_s ours {name}", partial(ours, partial(case.g_s, one), g_s[name], name))
    for label in dict.fromkeys(labels(g_s["fp16"])):
        made.add(f"{OURS}: {label}", partial(launch, label))
    made.add("g_a ours fp16", partial(ours, partial(case.g_a, nets["fp16"][1]), g_a["fp16"], "fp16"))
    if against:
        made.add(EAGER, lambda: entry(eager_g_s().call, g_s["fp16"], "fp16"))
        if compiled:
            made.add(TUNED, compiled_g_s)
        layers = partial(rivals.Analysis, model, case.given.tensors)
        made.add("g_a eager fp32", lambda: entry(layers().call, g_a["fp32"], "fp32"))
    return made


def rows(
    model: Loaded, picture: tuple[int, int], batch: int, clock: Clock, runs: int, tops: Ceilings, **options: bool
) -> list[dict]:
    """Of a batch of pictures of (width, height), by all of entries(); of none if it does not fit."""
    lattice = Lattice((latents(*picture),) * batch)
    try:
        case = Case(model.config.M, lattice, (picture[::-1],) * batch, clock.device)
        return entries(model, case, clock, **options).rows(runs, tops)
    except torch.OutOfMemoryError:
        return [{"impl": "g_s and g_a", "left_out": MEMORY}]
