"""What the benchmarks of kernels share: implementations at work, timed in turn, and a row of each."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from bench.gpu.device import Ceilings, Clock, graph, quantiles, roofline_share
from ckbd.kernels import Config, Lattice, tune

GRAPH_SITES = 100_000  # of a phase: beyond, a graph would only hold memory twice
MEMORY = "out of memory"
COMPILED = "torch.compile fp16"  # what the names of implementations that are compiled in this process end with


@dataclass
class Entry:
    """One implementation at work. work: bytes and ops of a call; dtype: whose ceiling holds; more: what its row says
    besides.
    """

    call: Callable[[], object]
    work: dict[str, int]
    dtype: torch.dtype
    more: dict[str, object] = field(default_factory=dict)
    captured: Callable[[], object] | None = None  # what a graph holds, if not call
    device_call: Callable[[], object] | None = None  # that graph


class Entries:
    """What runs on a batch, by (impl, phase), each warm; and of what does not, why. That is what the device has no
    memory for, and rivals that fail: what others' code cannot do here must not cost our own figures.
    """

    def __init__(self, clock: Clock, lattice: Lattice):
        self.clock = clock
        self.graphs = clock.cuda and clock.trash is None and lattice.sites <= GRAPH_SITES
        self.found: dict[tuple[str, int | None], Entry] = {}
        self.left_out: dict[tuple[str, int | None], str] = {}

    def add(self, impl: str, make: Callable[[], Entry], phase: int | None = None) -> None:
        """phase: None where there are none."""
        try:
            entry = make()
            first = self.clock.first(entry.call)
            if impl.endswith(COMPILED):
                entry.more["cold_ms"] = first
            if self.graphs:
                self.clock.first(entry.captured or entry.call)
                entry.device_call = graph(entry.captured or entry.call, self.clock.device)
            self.found[impl, phase] = entry
        except torch.OutOfMemoryError:
            gc.collect()
            torch.cuda.empty_cache()
            self.left_out[impl, phase] = MEMORY
        except Exception as error:
            if "ours" in impl.split():
                raise
            self.left_out[impl, phase] = repr(error)

    def rows(self, runs: int, tops: Ceilings) -> list[dict]:
        """Times all in turn; their rows, and those of what is left out."""
        calls = {(*key, "call"): e.call for key, e in self.found.items()}
        calls |= {(*key, "graph"): e.device_call for key, e in self.found.items() if e.device_call}
        samples, rows = self.clock.turns(calls, runs), []
        for key, e in self.found.items():
            called = samples.get((*key, "call"))
            if called is None:
                self.left_out[key] = MEMORY
                continue
            us = samples.get((*key, "graph")) or called
            rows.append(row_of(key[0], us, called, e.work, e.dtype, tops) | _phase(key[1]) | e.more)
        return rows + [{"impl": impl} | _phase(p) | {"left_out": why} for (impl, p), why in self.left_out.items()]


def _phase(p: int | None) -> dict[str, int]:
    return {} if p is None else {"phase": p}


def row_of(impl: str, us: list[float], call_us: list[float], work: dict, dtype: torch.dtype, tops: Ceilings) -> dict:
    low, middle, high = quantiles(us)
    share = roofline_share(work["bytes"], work["ops"], middle, tops.bandwidth, tops.rate(dtype))
    spread = {"us": middle, "p10": low, "p90": high, "call_us": quantiles(call_us)[1]}
    return {"impl": impl, **spread, **work, "roofline_share": share}


def table(rows: list[dict]) -> str:
    text = [f"{'':26}phase{'us':>11} (p10..p90){'call us':>20}{'roofline':>10}{'first ms':>10}  config"]
    for r in rows:
        if "left_out" in r:
            text.append(f"{r['impl']:26}{r.get('phase', '-')!s:>5}  left out: {r['left_out']}")
            continue
        spread = f"{r['us']:.1f} ({r['p10']:.1f}..{r['p90']:.1f})"
        cold_ms = f"{r['cold_ms']:.0f}" if r.get("cold_ms") is not None else "-"
        text.append(
            f"{r['impl']:26}{r.get('phase', '-')!s:>5}{spread:>30}{r['call_us']:11.1f}"
            f"{100 * r['roofline_share']:8.1f} %{cold_ms:>10}  {r.get('config', '')}"
        )
    return "\n".join(text)


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
