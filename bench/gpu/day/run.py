"""One day: steps in their order, each in a process of its own with a limit, every result on disk when it is there.

A day leaves in its folder, written anew after every step:
  day.json   device, versions, commit; of each step what became of it, its seconds and rows; entries for gpu.json
  day.md     the same for readers, to be pasted into bench/RESULTS.md
  day.log    what the programs printed
and what the steps bring along, in files of at most MAX_BYTES.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gpu import record
from bench.gpu.day import process
from bench.gpu.day.read import NoResult, Result
from bench.gpu.day.steps import Job, Options, Step

MAX_BYTES, MAX_FILES = 16 << 20, 8
RESERVE = 4.0  # seconds at the end of a day in which nothing runs
LEAST = 5.0  # seconds below which no step is begun, whatever it is thought to take
REHEARSAL = 60.0  # seconds that a step of a rehearsal may take, by the real clock
ENDED = ("done", "kept", "skipped")  # nothing is left to do


@dataclass
class Day:
    """named: the GPU's name, or "cpu". about: versions and commit. record: the gpu.json that is read and written.
    only: names of the steps to run, whatever the record holds; none: all that are missing or stale. began: by
    time.monotonic(), from when the minutes count.
    """

    out: Path
    named: str
    minutes: float
    options: Options
    about: dict[str, str]
    record: Path = record.FILE
    only: tuple[str, ...] = ()
    began: float = field(default_factory=time.monotonic)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def rehearsal(self) -> bool:
        return self.named == "cpu"


class Clock:
    """Seconds of the day that are gone. A made-up one goes on by what each step is thought to take."""

    def __init__(self, made_up: bool, start: float):
        self.made_up, self.start, self.told = made_up, start, 0.0

    def spent(self) -> float:
        return self.told if self.made_up else time.monotonic() - self.start

    def tell(self, estimate: float) -> None:
        self.told += estimate


def run(day: Day, steps: Sequence[Step]) -> int:
    """The exit status: 0 if whatever could be done is done, 1 if not, 130 if the day was interrupted."""
    day.out.mkdir(parents=True, exist_ok=True)
    _begin(day)
    clock, names = Clock(day.rehearsal, day.began), [s.name for s in steps]
    unknown = sorted(set(day.only) - set(names))
    if unknown:
        raise ValueError(f"no step {', '.join(unknown)}; there are {', '.join(names)}")
    status: dict[str, str] = {}
    interrupted = False
    for step in steps:
        if day.only and step.name not in day.only:
            continue
        entry = record.read(day.record).get(step.entry(day.named))
        estimate = float((entry or {}).get("seconds", step.estimate))
        left = 60 * day.minutes - clock.spent() - RESERVE
        known = record.state(entry, record.digest(step.sources)) if step.sources else "missing"
        reason = step.why_not(day.options, "cpu" if day.rehearsal else "cuda")
        if reason:
            outcome = {"status": "skipped", "why": reason}
        elif known in ("fresh", "failed") and entry and not day.only:
            outcome = {"status": "kept", "why": f"{known}: of {entry['date']}, {entry['commit']}"}
        elif left < max(estimate, LEAST):
            outcome = {"status": "no time", "why": f"{left:.0f} s are left, it is thought to take {estimate:.0f}"}
        else:
            print(f"{_at(clock.spent(), day.minutes)} {step.name} ...", flush=True)
            limit = left if step.greedy or len(day.only) == 1 else min(step.limit, left)
            outcome, interrupted = _step(day, step, REHEARSAL if day.rehearsal else limit)
            outcome |= {"estimate": estimate, "limit": limit}
            clock.tell(limit if step.greedy else estimate)
        _note(day, step, outcome)
        status[step.name] = outcome["status"]
        took = f" in {outcome['seconds']:.0f} s" if "seconds" in outcome else ""
        why = f": {outcome['why']}" if outcome.get("why") else ""
        print(f"{_at(clock.spent(), day.minutes)} {step.name}: {outcome['status']}{took}{why}", flush=True)
        if interrupted:
            break
    print(summary(names if not day.only else list(day.only), status))
    if interrupted:
        return 130
    return 0 if all(one in ENDED for one in status.values()) else 1


def summary(names: Sequence[str], status: dict[str, str]) -> str:
    """The last line: what was done, what failed, what is left."""
    groups = {
        "done": [n for n in names if status.get(n) == "done"],
        "kept": [n for n in names if status.get(n) == "kept"],
        "skipped": [n for n in names if status.get(n) == "skipped"],
        "failed": [n for n in names if status.get(n) in ("failed", "over", "no result")],
        "left": [n for n in names if status.get(n, "left") in ("no time", "stopped", "left")],
    }
    return "; ".join(f"{group}: {', '.join(found) or 'nothing'}" for group, found in groups.items())


def _at(seconds: float, minutes: float) -> str:
    return f"[{int(seconds) // 60:2}:{int(seconds) % 60:02} of {minutes:g}:00]"


def _begin(day: Day) -> None:
    """What an earlier day has left in the folder is kept, as long as it is of this device."""
    path = day.out / "day.json"
    before = earlier(path)
    if before and before.get("device") != day.named:
        raise ValueError(f"{path} is of a day on {before.get('device')}, this is {day.named}: give another folder")
    day.state = {"device": day.named, "rehearsal": day.rehearsal, "minutes": day.minutes, **day.about}
    day.state |= {"steps": before.get("steps", []), "entries": before.get("entries", {})}
    _write(day)


def earlier(path: Path) -> dict[str, Any]:
    """A day.json; nothing if there is none. ValueError if it is something else."""
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): give another folder") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no day's: give another folder")
    return found


def _write(day: Day) -> None:
    record.replace(day.out / "day.json", json.dumps(day.state, indent=1) + "\n")
    record.replace(day.out / "day.md", markdown(day.state))


def markdown(state: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {state[name]}" for name in ("python", "torch", "triton", "cuda") if name in state)
    parts = [f"## A day with {'no GPU: a rehearsal' if state['rehearsal'] else state['device']}"]
    parts.append(f"{state.get('date', '')}, commit {state.get('commit', 'unknown')}; {versions}.")
    for one in state["steps"]:
        if not one.get("markdown"):
            continue
        said = {"done": "", "failed": " (failed)"}.get(one["status"], f" ({one['status']}: not all of it)")
        parts += [f"### {one['title']}{said}", f"    {one['command']}", one["markdown"]]
    return "\n\n".join(parts) + "\n"


def _note(day: Day, step: Step, outcome: dict[str, Any]) -> None:
    """Into day.json, day.md and the record; a step that did not run leaves what is known of it."""
    entries = outcome.pop("entries", {})
    steps = day.state["steps"]
    at = next((i for i, one in enumerate(steps) if one["name"] == step.name), len(steps))
    if at == len(steps) or "seconds" in outcome or "seconds" not in steps[at]:
        steps[at : at + 1] = [{"name": step.name, "title": step.title} | outcome]
    day.state["entries"] |= entries
    record.add(entries, day.record)
    _write(day)


def _step(day: Day, step: Step, limit: float) -> tuple[dict[str, Any], bool]:
    """(what became of it, whether someone interrupted it)."""
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="ckbd-day-") as folder:
        job = Job("cpu" if day.rehearsal else "cuda", Path(folder), limit, day.options)
        command = step.command(job)
        began = time.monotonic()
        with process.Log(day.out / "day.log", step.name, command) as log:
            try:
                code = process.run(command, log, limit, process.environment(Path(folder)))
            except KeyboardInterrupt:
                code, interrupted = None, True
            seconds = time.monotonic() - began
        outcome: dict[str, Any] = {"seconds": round(seconds, 1), "command": readable(command, folder)}
        try:
            result = None if code == record.UNAVAILABLE else step.read(Path(folder))
            missing = ""
        except NoResult as error:
            result, missing = None, str(error)
        except Exception as error:  # whatever a program wrote, the day goes on
            result, missing = None, f"what it wrote cannot be read: {error!r}"
        if interrupted:
            outcome |= {"status": "stopped", "why": "interrupted"}
        elif code is None:
            outcome |= {"status": "over", "why": f"stopped after {limit:.0f} s"}
        elif code == record.UNAVAILABLE and step.optional:
            outcome |= {"status": "skipped", "why": log.last}
        elif code != 0:
            outcome |= {"status": "failed", "why": f"exit status {code}: {log.last}"}
        elif result is None:
            outcome |= {"status": "no result", "why": missing}
        else:
            outcome |= {"status": "done"}
        if outcome["status"] not in ("done", "skipped"):
            outcome["log"] = log.tail
        if result is not None:
            outcome |= {"rows": result.rows, "markdown": result.markdown}
            outcome["files"] = bring(result.files, day.out)
            outcome["entries"] = _entries(day, step, result, code, seconds)
        choices = [json.loads(p.read_text()) for p in sorted(Path(folder, "choices").glob("*.json"))]
        if choices:
            outcome["choices"] = choices
    return outcome, interrupted


def _entries(day: Day, step: Step, result: Result, code: int | None, seconds: float) -> dict[str, record.Entry]:
    if not step.sources:
        return {}
    found = dict(result.found)
    if code != 0 and "passed" in found and code is not None:
        found["passed"] = False  # a sanitizer's finding fails no test
    elif code != 0:
        found["partial"] = True
    about = {"seconds": round(seconds, 1)} if code == 0 else {}
    made = step.sources, day.named, day.about.get("commit", "unknown")
    out = {step.entry(day.named): record.entry(*made, **about, **found)}
    bars = result.bars if code == 0 else {}  # the worst of some is not the worst of all
    return out | {name: record.entry(*made, **one) for name, one in bars.items()}


def readable(command: Sequence[str], folder: str) -> str:
    """A command as someone would type it elsewhere."""
    words = [word.replace(folder, "DIR") for word in command]
    return " ".join(["python", *words[1:]])


def bring(files: Sequence[Path], out: Path) -> list[str]:
    """Copies files into out, those above MAX_BYTES in parts; their names there. No more than MAX_FILES."""
    names = []
    for path in files:
        size = path.stat().st_size
        parts = [path.name] if size <= MAX_BYTES else [f"{path.name}.part{i}" for i in range(-(-size // MAX_BYTES))]
        there = {p.name for p in out.iterdir()} | set(parts)
        if len(there) > MAX_FILES:
            print(f"{path.name}: not brought home, there are {MAX_FILES} files already", flush=True)
            continue
        with path.open("rb") as source:
            for name in parts:
                with open(out / name, "wb") as target:
                    target.write(source.read(MAX_BYTES))
        names += parts
    return names


def fresh(out: Path) -> None:
    """Removes what a rehearsal before has left. ValueError for a folder that is none of a rehearsal's."""
    there = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if there and not earlier(out / "day.json").get("rehearsal"):
        raise ValueError(f"{out} holds what is not a rehearsal's ({there[0]}): give another folder")
    if there:
        shutil.rmtree(out)
