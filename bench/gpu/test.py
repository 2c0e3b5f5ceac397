"""The tests that need a GPU, then the small ones under compute-sanitizer: `python -m bench.gpu.test`.

Most of the time goes into compiling kernels on the CPU, so the tests run in several processes. Exit status: 0 if all
that could run passed, 1 if anything failed, record.UNAVAILABLE if what was asked for cannot run here.

--device cpu tries the program itself: some of the stored results by the twin, and no sanitizer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bench.gpu import record

TOOLS = ("memcheck", "racecheck")
SHARD, OUTCOMES = "CKBD_GPU_SHARD", "CKBD_GPU_OUTCOMES"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "bench.gpu.test"]
TESTS = {"cuda": "tests/gpu", "cpu": "tests/bench/test_gpu_vectors.py"}
SMALL = {"cuda": "test_small", "cpu": "pointwise"}
LONGEST = 300  # characters of why a test failed
NO_TESTS = 5  # pytest's exit status for a share of none


def pytest_collection_modifyitems(items: list) -> None:
    """Keeps this process's share of the tests: SHARD is "i/n"."""
    i, n = (int(part) for part in os.environ.get(SHARD, "0/1").split("/"))
    items[:] = items[i::n]


def pytest_runtest_logreport(report) -> None:
    """A line for each test as it ends, all processes into one file: whoever is stopped has left those before."""
    path = os.environ.get(OUTCOMES)
    if path and (report.when == "call" or report.outcome != "passed"):
        with open(path, "a") as file:
            crash = getattr(report.longrepr, "reprcrash", None) if report.outcome == "failed" else None
            why = " ".join(crash.message.split())[:LONGEST] if crash else ""
            file.write(f"{report.outcome}\t{report.nodeid}\t{why}\n")


def sanitized(tool: str, sanitizer: str | None, device: str) -> list[str]:
    """The command: any finding makes it exit with 9, whatever pytest says."""
    tests = [*PYTEST, TESTS[device], "-k", SMALL[device]]
    return tests if sanitizer is None else [sanitizer, "--tool", tool, "--error-exitcode", "9", *tests]


def run(command: list[str], processes: int = 1, **env: str) -> bool:
    """Whether the command succeeds, in so many processes at once that share its tests; their output one by one."""
    print("$", " ".join(command), f"({processes} processes)" if processes > 1 else "", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        # Files, not pipes: a process that prints much while another is waited for would stand still.
        files = [Path(folder, str(i)).open("w+") for i in range(processes)]
        started = [
            subprocess.Popen(
                command,
                cwd=record.ROOT,
                env=os.environ | env | {SHARD: f"{i}/{processes}"},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            for i, file in enumerate(files)
        ]
        good = True
        for process, file in zip(started, files, strict=True):
            process.wait()
            file.seek(0)
            print(file.read(), end="", flush=True)
            file.close()
            good &= process.returncode == 0 or (processes > 1 and process.returncode == NO_TESTS)
    return good


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("tests", *TOOLS), help="one part of it, where time is short")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--processes", type=int, default=min(16, os.cpu_count() or 1))
    parser.add_argument("--outcomes", metavar="FILE", help="a line a test: how it ended, its name, why it failed")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    on_gpu = args.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("no CUDA device here: nothing was tested", file=sys.stderr)
        return record.UNAVAILABLE
    sanitizer = shutil.which("compute-sanitizer") if on_gpu else None
    env = {OUTCOMES: str(Path(args.outcomes).absolute())} if args.outcomes else {}
    passed = {}
    if args.only in (None, "tests"):
        passed["tests"] = run([*PYTEST, TESTS[args.device]], args.processes, **env)
    for tool in TOOLS:
        if args.only not in (None, tool):
            continue
        if on_gpu and sanitizer is None:
            print(f"compute-sanitizer is not on PATH: {tool} was not run")
            if args.only:
                return record.UNAVAILABLE
            continue
        # PyTorch's allocator would hand out neighbours within one allocation, where no overrun is seen.
        command = sanitized(tool, sanitizer, args.device)
        passed[tool] = run(command, min(4, args.processes), **env, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    for name, good in passed.items():
        print(f"{name}: {'passed' if good else 'FAILED'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
