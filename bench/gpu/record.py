"""What GPUs have shown, in bench/gpu/gpu.json: an entry for each result, and whether it still holds. Without torch.

An entry holds {"commit", "sources", "device", "date"} and what was found. `sources` is a digest of the files that the
result rests on; an entry holds while they are what they were.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).parent / "gpu.json"
DEVICES = ("H100", "H200")  # whose timings are wanted
UNAVAILABLE = os.EX_UNAVAILABLE  # exit status of a program that lacks what it needs here, and has said what

Entry = dict[str, Any]


def digest(patterns: Sequence[str], root: Path = ROOT) -> str:
    """Of the names and bytes of all files that the patterns name."""
    out = hashlib.sha256()
    files = {path for one in patterns for path in root.glob(one) if path.is_file()}
    for path in sorted(files):
        out.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return out.hexdigest()[:16]


def commit() -> str:
    """What this checkout is, "-dirty" if a tracked file is not as committed: but for the record, where days write."""
    try:
        named = _git("describe", "--always")
        ours = f":(exclude){FILE.relative_to(ROOT).as_posix()}"
        return named + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ours) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def per_device(name: str, device: str) -> str:
    return f"{name} on {next((d for d in DEVICES if d in device), device)}"


def read(path: Path = FILE) -> dict[str, Entry]:
    return json.loads(path.read_text()) if path.exists() and path.read_text().strip() else {}


def replace(path: Path, text: str) -> None:
    """Writes a file in one step, so that whatever ends this process leaves the old or the new one."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


def entry(patterns: Sequence[str], device: str, made_at: str, **found: object) -> Entry:
    """made_at: the commit."""
    today = datetime.date.today().isoformat()
    return {"commit": made_at, "sources": digest(patterns), "device": device, "date": today, **found}


def add(entries: dict[str, Entry], path: Path = FILE) -> None:
    """Notes what a GPU has shown."""
    if entries:
        replace(path, json.dumps(dict(sorted((read(path) | entries).items())), indent=1) + "\n")


def state(one: Entry | None, sources: str) -> str:
    """ "missing", "stale", "partial" (there was not time for all of it), "failed" or "fresh"."""
    if one is None:
        return "missing"
    if one.get("sources") != sources:
        return "stale"
    if one.get("partial"):
        return "partial"
    return "failed" if one.get("met") is False or one.get("passed") is False else "fresh"
