"""Which results that need a GPU are missing or stale, in the order in which a day gets them: `make gpu-report`.

    python -m bench.gpu.report              what there is
    python -m bench.gpu.report --take FILE  notes what a day on another machine has brought home (its day.json, and
                                            the tuned.json beside it)

The bars are of phase 1 in integers and of g_s in float16, the worst over models and pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.gpu import record
from bench.gpu.day.steps import STEPS, Step

SHIPPED = record.ROOT / "kernels" / "tuned.json"
FIELDS = {"form", "block_p", "block_n", "block_k", "warps", "stages"}  # of a Config


def wanted() -> list[tuple[str, Step]]:
    """(name of an entry, the step that makes it), most valuable first."""
    out = []
    for step in STEPS:
        out += [(name, step) for name in step.entries(record.DEVICES)]
        out += [(name, step) for name in step.bars]
    return out


def report(entries: dict[str, record.Entry]) -> str:
    lines, names = [], [name for name, _ in wanted()]
    for name, step in wanted():
        one = entries.get(name)
        lines.append(_line(record.state(one, record.digest(step.sources)), name, one or {}))
    lines += [_line("unknown", name, entries[name]) for name in sorted(set(entries) - set(names))]
    return "\n".join(lines)


def _line(state: str, name: str, entry: record.Entry) -> str:
    about = ", ".join(str(entry[key]) for key in ("device", "date", "commit") if key in entry)
    value = f"{entry['value']:g}; " if "value" in entry else ""
    return f"{state:8} {name:40} {value}{about}".rstrip()


def take(path: Path, into: Path = record.FILE) -> list[str]:
    """Notes the entries of a day.json; their names. ValueError if it is none, or of a rehearsal."""
    try:
        day = json.loads(path.read_text())
        entries, device = day["entries"], day["device"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a day's day.json: {error}") from error
    if day.get("rehearsal") or device == "cpu":
        raise ValueError(f"{path}: a rehearsal; figures of a GPU come from a GPU")
    record.add(entries, into)
    return sorted(entries)


def take_choices(path: Path, into: Path = SHIPPED) -> int:
    """Puts the kernels' choices of a day (its tuned.json) beside those that ship; how many. ValueError if none."""
    try:
        found = json.loads(path.read_text())
        if any(set(value) != FIELDS for choices in found.values() for value in choices.values()):
            raise ValueError(f"expected {', '.join(sorted(FIELDS))} of each")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no choices of kernels: {error}") from error
    devices = json.loads(into.read_text())
    for name, choices in found.items():
        devices[name] = dict(sorted((devices.get(name, {}) | choices).items()))
    record.replace(into, json.dumps(devices, indent=1) + "\n")
    return sum(map(len, found.values()))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--take", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    if args.take:
        try:
            print("noted: " + ", ".join(take(args.take)))
            choices = args.take.parent / "tuned.json"
            if choices.is_file():
                print(f"kernels/tuned.json: {take_choices(choices)} choices")
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    print(report(record.read()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
