"""The tests that need a GPU, then the small ones under compute-sanitizer: `python -m bench.gpu.test`.

Most of the time goes into compiling kernels on the CPU, so the tests run in several processes. What was run is noted
in bench/gpu/gpu.json. Exit status: 0 if all that could run passed, 1 if anything failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

import torch

from bench.gpu import report as gpu_report

TOOLS = ("memcheck", "racecheck")
SHARD = "CKBD_GPU_SHARD"
TESTS = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "bench.gpu.test", "tests/gpu"]
NO_TESTS = 5  # pytest's exit status for a share of none


def pytest_collection_modifyitems(items: list) -> None:
    """Keeps this process's share of the tests: SHARD is "i/n"."""
    i, n = (int(part) for part in os.environ.get(SHARD, "0/1").split("/"))
    items[:] = items[i::n]


def sanitized(tool: str, sanitizer: str) -> list[str]:
    """The command: any finding makes it exit with 9, whatever pytest says."""
    return [sanitizer, "--tool", tool, "--error-exitcode", "9", *TESTS, "-k", "test_small"]


def run(command: list[str], processes: int = 1, **env: str) -> bool:
    """Whether the command succeeds, in so many processes at once that share its tests; their output one by one."""
    print("$", " ".join(command), f"({processes} processes)" if processes > 1 else "", flush=True)
    options = {"cwd": gpu_report.ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [
        subprocess.Popen(command, env=os.environ | env | {SHARD: f"{i}/{processes}"}, **options)
        for i in range(processes)
    ]
    good = True
    for process in started:
        print(process.communicate()[0], end="", flush=True)
        good &= process.returncode == 0 or (processes > 1 and process.returncode == NO_TESTS)
    return good


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("tests", *TOOLS), help="one part of it, where time is short")
    parser.add_argument("--processes", type=int, default=min(8, os.cpu_count() or 1))
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was tested", file=sys.stderr)
        return 2
    device, passed = gpu_report.device_name(torch.device("cuda")), {}
    sanitizer = shutil.which("compute-sanitizer")
    if args.only in (None, "tests"):
        passed["gpu-test"] = run(TESTS, args.processes)
    for tool in TOOLS:
        if args.only not in (None, tool):
            continue
        if sanitizer is None:
            print(f"compute-sanitizer is not on PATH: {tool} was not run")
            continue
        # PyTorch's allocator would hand out neighbours within one allocation, where no overrun is seen.
        passed[f"sanitizer {tool}"] = run(sanitized(tool, sanitizer), PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    for name, good in passed.items():
        gpu_report.record(name, device, passed=good)
        print(f"{name}: {'passed' if good else 'FAILED'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
