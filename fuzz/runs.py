"""`ckbd encode` of a folder for fuzz/pictures.py: what became of every file, started again where it ends early."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

WATCHED = Path(__file__).resolve().parent / "watched.py"
# What Pillow, or anything under it, has been known to start; here they leave a mark.
FAKES = (
    "gs gswin32c gswin64c convert magick gm identify inkscape rsvg-convert ffmpeg djpeg cjpeg opj_decompress dcraw"
)
FAKES += " display open xdg-open ppmtogif ppmquant gzip file pdftoppm wmf2eps soffice sh bash cc gcc ldconfig uname"
LINE = re.compile(r"ckbd: (?P<path>.*?): (?P<reason>.*)")


class Limits(NamedTuple):
    memory: float  # GiB
    patience: float  # seconds


class Problem(NamedTuple):
    """A class of failure, the file it is of, and what was printed."""

    kind: str
    name: str
    text: str


@dataclass
class Run:
    """What became of the files of a folder, by name. refused: lines on stderr, others: lines there that refuse none.
    seconds, and grown, KiB of memory at the peak beyond what there was before: of each. peak: KiB.
    """

    refused: dict[str, list[str]] = field(default_factory=dict)
    encoded: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    grown: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    problems: list[Problem] = field(default_factory=list)
    others: dict[str, list[Problem]] = field(default_factory=dict)


class Child(NamedTuple):
    """How a process ended, what it printed to stderr, and its log."""

    status: int
    hung: bool
    errors: str
    log: list


def blurred(text):
    """A line without what is different from file to file."""
    text = re.sub(r"^ckbd: \S*: ", "", text)
    text = re.sub(r"b?'[^']*'|b?\"[^\"]*\"", "'...'", text)
    return re.sub(r"0x[0-9a-f]+|-?\d+(\.\d+)?", "#", text)[:150]


def start(folder, arguments, limits):
    """Runs `ckbd` to its end, or until it has opened no further file of the folder for too long."""
    place = folder.parent
    log, fakes, marks, errors = (place / name for name in ("log", "fakes", "marks", "stderr"))
    log.write_bytes(b"")
    if not fakes.exists():
        fakes.mkdir()
        for name in FAKES.split():
            (fakes / name).write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {marks}\n')
            (fakes / name).chmod(stat.S_IRWXU)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    environment["PATH"] = f"{fakes}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, WATCHED, log, folder, f"{limits.memory}", *arguments]
    hung = False
    with open(errors, "w+b") as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment, cwd=place)
        seen, since = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.02)
            if log.stat().st_size != seen:
                seen, since = log.stat().st_size, time.monotonic()
            if not hung and time.monotonic() - since > limits.patience:
                hung = True
                process.kill()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    if marks.exists():  # what ran is what the log has as started, or nobody knows which file's
        at = max((n + 1 for n, entry in enumerate(entries) if entry[0] == "program"), default=len(entries))
        entries[at:at] = [["program", 0.0, 0, 0, f"ran {line}"] for line in marks.read_text().splitlines()]
        marks.unlink()
    return Child(process.returncode, hung, errors.read_bytes().decode(errors="replace"), entries)


def encode(folder, out, judged, options, limits):
    """A Run of a folder's files, which end in judged: a file that ends the program is left out of the next try."""
    run = Run()
    fixed = ["--threads", "1", "--jobs", "1", "--effort", "0"]
    while left := sorted(path.name for path in folder.iterdir()):
        child = start(folder, ["encode", *options, *fixed, str(folder), str(out)], limits)
        lines = _refused(child, folder)
        encoded = {name for name in left if (out / name).with_suffix(".ckbd").exists()}
        run.refused |= lines
        run.encoded |= encoded
        silent = [name for name in left if name not in lines and name not in encoded]
        _account(run, child)
        run.problems += _programs(child)
        for one in _others(child, folder):
            run.others.setdefault(one.name or left[0], []).append(one)
        gone = set(left) - set(silent)
        died = child.hung or child.status not in (0, 1) or "Traceback (most recent" in child.errors
        if died:
            # Two jobs are under way: after an exception it is the first without a verdict, else the last one opened.
            opened = [entry[4] for entry in child.log if entry[0] == "file"]
            guilty = (
                silent[:1] if child.status == 1 else [name for name in opened[-1:] if name in silent] or silent[:1]
            )
            if not guilty:
                guilty = left[-1:]
            run.problems.append(Problem(_death(child), guilty[0], child.errors[-6000:]))
            gone |= set(guilty)
        elif silent:
            run.problems += [Problem("neither encoded nor refused", name, child.errors) for name in silent]
            gone = set(left)
        if not died and child.status != int(bool(lines)):
            run.problems.append(Problem(f"exit status {child.status}", left[0], child.errors))
        for name in gone:
            (folder / name).rename(judged / name)
    return run


def decode(folder, out, options, limits):
    """Decodes a folder's streams to PNG files; what was printed on stderr."""
    if not any(folder.iterdir()):
        return ""
    return start(folder, ["decode", *options, "--format", ".png", str(folder), str(out)], limits).errors


def _refused(child, folder):
    """{name: its lines} of the files that stderr says are refused."""
    found = {}
    for line in child.errors.splitlines():
        match = LINE.fullmatch(line)
        if match and Path(match["path"]).parent == folder:
            found.setdefault(Path(match["path"]).name, []).append(line)
    return found


def _account(run, child):
    """Time and memory of every file, from one line of the log to the next."""
    entries = [entry for entry in child.log if entry[0] in ("file", "end")]
    for (what, at, peak, _, name), (_, then, later, _, _) in zip(entries, entries[1:], strict=False):
        if what == "file":
            run.seconds[name], run.grown[name] = then - at, later - peak
    run.peak = max([run.peak, *(entry[2] for entry in entries)])


def _at_work(child, size):
    """The file that was at work when so much had been written to stderr."""
    before = [entry for entry in child.log if entry[0] == "file" and entry[3] <= size]
    return before[-1][4] if before else ""


def _programs(child):
    found, name = [], ""
    for what, _, _, _, value in child.log:
        name = value if what == "file" else name
        if what == "program":
            found.append(Problem(f"a program was started: {' '.join(value.split()[:2])}", name, value))
    return found


def _others(child, folder):
    """What is on stderr besides lines that refuse files, and before a traceback."""
    found, at = [], 0
    for line in child.errors.split("Traceback (most recent")[0].splitlines(keepends=True):
        match = LINE.fullmatch(line.rstrip("\n"))
        if not (match and Path(match["path"]).parent == folder) and line.strip() and not line.startswith("  "):
            # Of Pillow's warnings the text, of what libraries print themselves the function's name.
            kind = blurred(re.sub(r"^/\S*/", "", line.strip()))
            kind = kind if "Warning: " in kind else kind.split(":")[0]
            found.append(Problem(kind, _at_work(child, at), line))
        at += len(line.encode())
    return found


def _death(child):
    if child.hung:
        return "hangs"
    if "Traceback (most recent" not in child.errors:
        return f"exit status {child.status}"
    lines = child.errors.rstrip().splitlines()
    places = re.findall(r'^  File ".*?([^/"]+)", line (\d+)', child.errors, re.MULTILINE)
    last = next((line for line in reversed(lines) if line and not line.startswith(" ")), "")
    return f"traceback: {blurred(last)} ({':'.join(places[-1]) if places else ''})"
