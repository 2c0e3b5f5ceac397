"""Which figures and tests that need a GPU are missing or stale: `python -m bench.gpu.report`.

bench/gpu/gpu.json holds one entry for each: name -> {"commit", "sources", "device", "date"} and what was found.
`sources` is a digest of kernels/*.py; an entry is fresh while they are what they were. The runs themselves write it,
on a GPU only. The bars are of phase 1 in integers, the worst over models and pictures.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).parent / "gpu.json"
DEVICES = ("H100", "H200")  # whose benchmarks are wanted
TIMES = {1: 3.0, 64: 2.0}  # batch -> as how many times as fast as torch.compile the kernels must be
ROOFLINE = 0.5  # share, at batch 64


def bar_names() -> list[str]:
    return [f"bar: {times:g} x torch.compile, batch {batch}" for batch, times in TIMES.items()] + [
        f"bar: {100 * ROOFLINE:.0f} % of the roofline, batch 64"
    ]


def wanted() -> list[str]:
    runs = [f"{run} on {device}" for device in DEVICES for run in ("bench kernels", "profile")]
    return ["gpu-test", "sanitizer memcheck", "sanitizer racecheck", *runs, *bar_names()]


def sources_digest(root: Path = ROOT) -> str:
    digest = hashlib.sha256()
    for path in sorted((root / "kernels").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def read(path: Path = FILE) -> dict[str, dict]:
    return json.loads(path.read_text()) if path.exists() and path.read_text().strip() else {}


def commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(device) -> str:
    """The GPU's own name, or "cpu"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def per_device(name: str, device: str) -> str:
    return f"{name} on {next((d for d in DEVICES if d in device), device)}"


def record(name: str, device: str, path: Path = FILE, **found: object) -> None:
    """Notes a run that a GPU has made."""
    entry = {
        "commit": commit(),
        "sources": sources_digest(),
        "device": device,
        "date": datetime.date.today().isoformat(),
        **found,
    }
    path.write_text(json.dumps(dict(sorted((read(path) | {name: entry}).items())), indent=1) + "\n")


def bars(rows: list[dict]) -> dict[str, tuple[float, float]]:
    """Name of a bar -> (worst value, bar), of rows of bench.gpu.kernels; nothing for what they do not hold."""
    cells: dict[tuple, dict[str, dict]] = {}
    for r in rows:
        if r.get("phase") == 1:
            cells.setdefault((r["model"], r["shape"], r["batch"]), {})[r["impl"]] = r
    names, out = bar_names(), {}
    for name, (batch, times) in zip(names, TIMES.items(), strict=False):
        ratios = [
            c["torch.compile fp16"]["us"] / c["ours int8 auto"]["us"]
            for (_, _, b), c in cells.items()
            if b == batch and {"torch.compile fp16", "ours int8 auto"} <= set(c)
        ]
        if ratios:
            out[name] = min(ratios), times
    shares = [
        c["ours int8 auto"]["roofline_share"] for (_, _, b), c in cells.items() if b == 64 and "ours int8 auto" in c
    ]
    if shares:
        out[names[-1]] = min(shares), ROOFLINE
    return out


def record_bench(rows: list[dict], device: str, path: Path = FILE) -> None:
    record(per_device("bench kernels", device), device, path)
    for name, (value, bar) in bars(rows).items():
        record(name, device, path, value=round(value, 3), met=value >= bar)


def state(name: str, entries: dict[str, dict], digest: str) -> str:
    """ "missing", "stale", "failed" or "fresh"."""
    entry = entries.get(name)
    if entry is None:
        return "missing"
    if entry.get("sources") != digest:
        return "stale"
    return "failed" if entry.get("met") is False or entry.get("passed") is False else "fresh"


def report(entries: dict[str, dict], digest: str) -> str:
    lines = []
    for name in [*wanted(), *sorted(set(entries) - set(wanted()))]:
        entry, text = entries.get(name, {}), state(name, entries, digest)
        about = ", ".join(str(entry[key]) for key in ("device", "date", "commit") if key in entry)
        value = f"{entry['value']:g}; " if "value" in entry else ""
        lines.append(f"{text:8} {name:40} {value}{about}".rstrip())
    return "\n".join(lines)


def main() -> None:
    print(report(read(), sources_digest()))


if __name__ == "__main__":
    main()
