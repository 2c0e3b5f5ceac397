"""From what the programs of a day's steps wrote to results: rows, a piece of Markdown, entries of gpu.json.

Each function takes the folder of its step, and raises NoResult if the program left nothing in it.
"""

from __future__ import annotations

import json
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gpu.record import ROOT
from bench.tables import number, table

LONGEST = 12  # rows of a table of where time goes


@dataclass(frozen=True)
class Bar:
    """What an implementation must reach at a batch size, phase 1 where there are phases. least: as how many times as
    fast as a rival; of none, which share of the roofline.
    """

    name: str
    least: float
    batch: int
    ours: str
    rival: str | None = None


PHASE, PAINTER = "ours int8 auto", "g_s ours fp16"
BARS = (
    Bar("bar: 3 x torch.compile, batch 1", 3.0, 1, PHASE, "torch.compile fp16"),
    Bar("bar: 2 x torch.compile, batch 64", 2.0, 64, PHASE, "torch.compile fp16"),
    Bar("bar: 50 % of the roofline, batch 64", 0.5, 64, PHASE),
    Bar("bar: g_s 3 x eager, batch 64", 3.0, 64, PAINTER, "g_s eager fp16"),
    Bar("bar: g_s 1.5 x torch.compile, batch 64", 1.5, 64, PAINTER, "g_s torch.compile fp16"),
    Bar("bar: g_s 40 % of the roofline, batch 64", 0.4, 64, PAINTER),
)


class NoResult(Exception):
    """Says what is not there."""


@dataclass
class Result:
    """rows: for day.json. markdown: for bench/RESULTS.md, below a heading. found: what the step's entry says besides;
    bars: further entries. files: to bring home, under their own names.
    """

    rows: Any
    markdown: str
    found: dict[str, object] = field(default_factory=dict)
    bars: dict[str, dict[str, object]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def rows_of(path: Path) -> list[dict]:
    try:
        rows = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise NoResult(f"no {path.name}") from error
    except ValueError as error:
        raise NoResult(f"{path.name} is no JSON: {error}") from error
    if not rows or not isinstance(rows, list):
        raise NoResult(f"{path.name} holds no rows")
    return rows


def build(folder: Path) -> Result:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    missing = [name for name in ("_ans", "_rans") if not (ROOT / "ckbd" / f"{name}{suffix}").is_file()]
    if missing:
        raise NoResult(f"no ckbd/{missing[0]}{suffix}")
    return Result([], "")


def tests(folder: Path) -> Result:
    """Of bench.gpu.test --outcomes."""
    path = folder / "outcomes.txt"
    if not path.is_file():
        raise NoResult(f"no {path.name}")
    lines = [line.split("\t") for line in path.read_text().splitlines() if line.count("\t") == 2]  # whole ones
    counts = Counter(outcome for outcome, *_ in lines)
    failed = {name: why for outcome, name, why in lines if outcome == "failed"}
    said = ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "skipped") if counts[name])
    text = "\n".join([f"{said}.", *(f"- failed: `{name}`: {why}" for name, why in failed.items())])
    return Result(dict(counts) | {"why": failed}, text, {"passed": counts["passed"] > 0 and not failed})


def left_out(rows: list[dict]) -> list[str]:
    """A paragraph for what has no figures, if there is any: who and why."""
    found: dict[tuple[str, str], list[str]] = {}
    for r in rows:
        if "left_out" in r:
            found.setdefault((r["impl"], r["left_out"]), []).append(str(r["batch"]))
    lines = [f"- {n}, batch {', '.join(dict.fromkeys(at))}: {why}" for (n, why), at in found.items()]
    return ["\n".join(["Left out:", *lines])] if lines else []


def decode(folder: Path) -> Result:
    """Of bench.run batch."""
    every = rows_of(folder / "rows.json")
    rows = [r for r in every if "left_out" not in r]
    parts = [f"Pictures: {rows[0]['set']}. Medians."]
    for direction, busy in dict.fromkeys((r["direction"], r["busy_processes"]) for r in rows):
        parts += speeds([r for r in rows if (r["direction"], r["busy_processes"]) == (direction, busy)])
    stages = {r["batch"]: r["stages"] for r in rows if "stages" in r}
    if stages:
        names = list(next(iter(stages.values())))
        lines = [[n, *(f"{stages[b].get(n, 0):.2f}" for b in stages)] for n in names]
        parts.append(table(["ours, stage, ms a batch", *(f"batch {b}" for b in stages)], lines))
    parts += left_out(every)
    best = {
        str(r["batch"]): r["pictures_s"]
        for r in rows
        if (r["impl"], r["direction"], r["busy_processes"]) == ("ours, iterator", "decode", 0)
    }
    return Result(every, "\n\n".join(parts), {"pictures_s": best})


def speeds(rows: list[dict]) -> list[str]:
    """Tables of one direction: pictures a second, and the sizes and qualities behind them."""
    batches, impls = (list(dict.fromkeys(r[key] for r in rows)) for key in ("batch", "impl"))
    at = {(r["impl"], r["batch"]): r for r in rows}
    last = {r["impl"]: r for r in rows}  # of the largest batch that an implementation had
    lines = [[n, *(number(at.get((n, b), {}).get("pictures_s"), ".1f") for b in batches)] for n in impls]
    busy = f", {rows[0]['busy_processes']} busy" if rows[0]["busy_processes"] else ""
    parts = [table([f"{rows[0]['direction']}{busy}, pictures/s", *(f"batch {b}" for b in batches)], lines)]
    if not busy:
        sizes = [
            [n, r["batch"], f"{r['bytes'] / r['batch']:.0f}", number(r.get("psnr"), ".2f")] for n, r in last.items()
        ]
        parts.append(table(["", "batch", "bytes a picture", "PSNR"], sizes))
    return parts


def bar_names(*ours: str) -> tuple[str, ...]:
    """Those of these implementations."""
    return tuple(bar.name for bar in BARS if bar.ours in ours)


def bars(rows: list[dict]) -> dict[str, tuple[float, float]]:
    """Name of a bar -> (worst value, bar), of rows of bench.gpu.kernels; nothing for what they do not hold."""
    cells: dict[tuple, dict[str, dict]] = {}
    for r in rows:
        if r.get("phase", 1) == 1 and "left_out" not in r:
            cells.setdefault((r["model"], r["shape"], r["batch"]), {})[r["impl"]] = r
    out = {}
    for bar in BARS:
        found = [
            c
            for (_, _, batch), c in cells.items()
            if batch == bar.batch and {bar.ours, bar.rival or bar.ours} <= set(c)
        ]
        if found and bar.rival is None:
            out[bar.name] = min(c[bar.ours]["roofline_share"] for c in found), bar.least
        elif found:
            out[bar.name] = min(c[bar.rival]["us"] / c[bar.ours]["us"] for c in found), bar.least
    return out


def timings(rows: list[dict], phases: bool) -> str:
    """A table of rows of bench.gpu.kernels."""
    about = {"model": "model", "picture": "shape", "batch": "batch", "phase": "phase", "impl": "impl"}
    if not phases:
        del about["phase"]
    cells = [
        [
            *(r.get(name, "-") for name in about.values()),
            f"{r['us']:.1f}",
            f"{r['call_us']:.1f}",
            f"{100 * r['roofline_share']:.1f} %",
            r.get("config", ""),
        ]
        for r in rows
    ]
    return table([*about, "us", "call us", "roofline", "config"], cells)


def kernels(folder: Path) -> Result:
    """Of bench.run kernels: the phases, then g_s and g_a."""
    every = rows_of(folder / "rows.json")
    sets: dict[bool, list[dict]] = {True: [], False: []}
    for r in every:
        if "left_out" not in r:
            sets[not r["impl"].startswith(("g_s", "g_a"))].append(r)
    found = {name: {"value": round(value, 3), "met": value >= bar} for name, (value, bar) in bars(every).items()}
    said = [f"- {name}: {one['value']:g}, {'met' if one['met'] else 'missed'}" for name, one in found.items()]
    parts = [timings(rows, phases) for phases, rows in sets.items() if rows]
    return Result(every, "\n\n".join(filter(None, [*parts, "\n".join(said), *left_out(every)])), bars=found)


def compressai(folder: Path) -> Result:
    """Of bench.run compressai."""
    rows = [r for r in rows_of(folder / "rows.json") if r["model"] != "GaussianConditional"]
    modes = list(dict.fromkeys(r["mode"] for r in rows))
    at = {(r["model"], r["batch"], r["stage"], r["mode"]): r["ms"] for r in rows}
    lines = [
        [*key, *(number(at.get((*key, m)), ".2f") for m in modes)]  # model, batch, stage
        for key in dict.fromkeys(key[:3] for key in at)
    ]
    return Result(rows, table(["model", "batch", "stage, ms", *modes], lines))


def profile(folder: Path) -> Result:
    """Of bench.gpu.profile."""
    rows = rows_of(folder / "rows.json")
    lines = [
        [r["name"], f"{r['bytes'] / 1e6:.2f}", f"{r['ops'] / 1e9:.2f}"]
        + ([f"{r['us']:.1f}", f"{100 * r['share']:.1f} %"] if r["us"] else ["-", "-"])
        for r in rows
    ]
    parts = [table(["kernel", "MB", "Gop", "us", "roofline"], lines)]
    ncu = folder / "ncu.md"
    if ncu.is_file():
        parts.append(ncu.read_text().strip())
    files = tuple(p for p in (folder / "roofline.png", folder / "ncu.csv") if p.is_file())
    return Result(rows, "\n\n".join(parts), {"ncu": ncu.is_file()}, files=files)


def trace(folder: Path) -> Result:
    """Of bench.gpu.trace."""
    rows = rows_of(folder / "rows.json")
    lines = [
        [r["lane"], f"`{r['name'][:80]}`", r["calls"], f"{r['us'] / 1e3:.3f}", f"{100 * r['share']:.1f} %"]
        for lane in ("stage", "kernel", "copy")
        for r in [one for one in rows if one["lane"] == lane][:LONGEST]
    ]
    files = tuple(p for p in (folder / "timeline.png",) if p.is_file())
    return Result(rows, table(["", "what", "calls", "ms", "share of the decode"], lines), files=files)


def warm(folder: Path) -> Result:
    """Of bench.gpu.warm."""
    rows = rows_of(folder / "rows.json")
    lines = [[r["what"], f"{r['seconds']:.2f}", f"{r['process']:.2f}"] for r in rows]
    files = tuple(p for p in (folder / "tuned.json",) if p.is_file())
    found = {r["what"]: r["seconds"] for r in rows}
    return Result(rows, table(["", "decode, s", "whole process, s"], lines), found, files=files)


def pace(folder: Path) -> Result:
    """Of bench.gpu.pace."""
    every = rows_of(folder / "rows.json")
    forms = {"model": "", "batch": "", "way": "", "ms": ".3f", "megapixels_s": ".1f", "kernels": "", "first_s": ".1f"}
    lines = [[format(r[name], form) for name, form in forms.items()] for r in every if "left_out" not in r]
    head = ["model", "crops", "", "ms a step", "megapixels/s", "kernels a step", "first steps, s"]
    lacking = left_out([r | {"impl": f"{r['model']} {r['way']}"} for r in every])
    best = {f"{r['model']} {r['way']} {r['batch']}": r["megapixels_s"] for r in every if "left_out" not in r}
    return Result(every, "\n\n".join([table(head, lines), *lacking]), {"megapixels_s": best})


def train(folder: Path) -> Result:
    """Of bench.gpu.training. A model that there was no time to validate is a result too."""
    made = (folder / "model.safetensors", folder / "run" / "unfitted.safetensors")
    files = tuple(p for p in made if p.is_file())[:1]
    validation = folder / "run" / "validation.json"
    if not validation.is_file():
        if not files:
            raise NoResult(f"no {validation.name}")
        return Result([], "The model was not validated.", files=files)
    found = json.loads(validation.read_text())
    rows = found["rows"]
    forms = {"quality": "g", "bpp": ".4f", "psnr": ".3f", "before_bpp": ".4f", "before_psnr": ".3f"}
    lines = [[number(r[name], form) for name, form in forms.items()] for r in rows]
    said = [table(["quality", "bpp", "PSNR", "bpp before", "PSNR before"], lines)]
    if found["bd_rate"] is not None:
        said.append(f"BD-rate against before: {found['bd_rate']:+.2f} %.")
    return Result(rows, "\n\n".join(said), {"bd_rate": found["bd_rate"]}, files=files)
