"""A machine on which others work, too: `python -m bench.run busy`, one decode and one encode in fresh processes.

As many processes as there are processors do nothing but turn. Beside them others, one after the other, decode one
picture several times, by default and on one thread. A pool that spins for a thread that is not scheduled shows in
some processes and not in others, so the worst of them counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.common import load_pictures, save
from ckbd.codec import image

PROCESSES = 6
TURN = "import time\nprint(flush=True)\nwhile True: pass"
MEASURE = """
import json, sys, time
import ckbd
from ckbd.codec import image
model, path, threads, runs = json.loads(sys.argv[1])
codec = ckbd.load(model, threads=threads)
picture = image.read(path)
(stream,) = codec.encode([picture])
codec.decode([stream])
taken = {"decode": [], "encode": []}
for _ in range(runs):
    for name, call in (("decode", lambda: codec.decode([stream])), ("encode", lambda: codec.encode([picture]))):
        start = time.perf_counter()
        call()
        taken[name].append(1e3 * (time.perf_counter() - start))
print(json.dumps(taken))
"""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that keep a processor busy each, for as long as this lasts."""
    others = [subprocess.Popen([sys.executable, "-c", TURN], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for one in others:
            assert one.stdout is not None
            one.stdout.readline()  # it has begun
        yield
    finally:
        for one in others:
            one.kill()
            one.communicate()


def busy_case(args: argparse.Namespace) -> list[dict]:
    """Rows for --json: one a process."""
    runs = 3 if args.quick else 9
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        image.write(path, load_pictures(args.images)[0])
        for count in args.busy if args.busy is not None else (0, os.cpu_count() or 1):
            with busy(count):
                for process in range(1 if args.quick else PROCESSES):
                    for impl, threads in (("by default", None), ("one thread", 1)):
                        taken = measured(args.model, path, threads, runs)
                        for direction, ms in taken.items():
                            where = {"direction": direction, "impl": impl, "busy_processes": count}
                            times = {"ms": statistics.median(ms), "worst_ms": max(ms)}
                            rows.append(where | {"process": process} | times)
            report([r for r in rows if r["busy_processes"] == count])
            save(args.json, rows)
    return rows


def measured(model: str, path: Path, threads: int | None, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run in a process of its own, whose environment says nothing of threads."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-c", MEASURE, json.dumps([model, str(path), threads, runs])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def report(rows: list[dict]) -> None:
    for direction in ("decode", "encode"):
        for impl in dict.fromkeys(r["impl"] for r in rows):
            ms = [r["ms"] for r in rows if (r["direction"], r["impl"]) == (direction, impl)]
            print(
                f"{rows[0]['busy_processes']} busy processes, {direction} {impl:10}: median of {len(ms)} processes "
                f"{statistics.median(ms):7.1f} ms, worst {max(ms):7.1f} ms",
                flush=True,
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--busy",
        type=int,
        nargs="+",
        metavar="N",
        help="decode, batch, busy: how many processes keep processors busy (default: none; batch, busy: also one "
        "a processor)",
    )
