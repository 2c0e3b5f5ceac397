"""Runs the libFuzzer targets that fuzz/build.py has made: python fuzz/run.py [TARGETS] [--cpu-minutes N].

Each has that much processor time, whatever else the machine does, in slices that end with a look for leaks. It begins
with fuzz/corpus/TARGET and what earlier runs found new, which is in build/fuzz/corpus/TARGET. At the end a line for
each: executions, branches reached (`cov` of libFuzzer), the slowest input, most memory. An input that breaks
something, or takes a second of processor time, stays in build/fuzz/TARGET-*, and the exit status is 1.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build  # noqa: E402

SLICE = 240  # seconds
TIMEOUT = 60  # of one input, on the clock
SLOW = 1.0  # of one input, of processor time: libFuzzer looks at the clock, so what it reports is asked again
MEMORY = 1024  # MiB, and half of that for one allocation


def slice_of(target, seconds, more):
    """(seconds of processor time, exit status, what was printed) of one process."""
    own = build.BUILD / "corpus" / target
    own.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-timeout={TIMEOUT}", "-report_slow_units=1", "-print_final_stats=1"]
    options += [f"-rss_limit_mb={MEMORY}", f"-malloc_limit_mb={MEMORY // 2}", *more]
    options += [f"-artifact_prefix={build.BUILD}/{target}-"]
    command = [build.BUILD / target, *options, own, build.ROOT / "fuzz" / "corpus" / target]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, process.returncode, text


def slowest_of(target):
    """The most processor time that an input takes which libFuzzer found slow; those below SLOW are forgotten."""
    empty = cpu_of(target, build.ROOT / "fuzz" / "run.py")  # next to nothing as an input, but all that goes before it
    slowest = 0.0
    for path in sorted(build.BUILD.glob(f"{target}-slow-unit-*")):
        seconds = cpu_of(target, path) - empty
        slowest = max(slowest, seconds)
        if seconds < SLOW:
            path.unlink()
    return slowest


def cpu_of(target, path):
    process = subprocess.Popen([build.BUILD / target, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def number(pattern, text):
    """The last that was printed, or 0."""
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def run(target, cpu_seconds, more):
    """The figures of a target, in order of HEAD, and whether nothing broke."""
    spent, runs, peak, text, status = 0.0, 0, 0, "", 0
    while spent < cpu_seconds and status == 0:
        used, status, text = slice_of(target, max(1, min(SLICE, round(cpu_seconds - spent))), more)
        spent += used
        runs += number(r"stat::number_of_executed_units: +(\d+)", text)
        peak = max(peak, number(r"stat::peak_rss_mb: +(\d+)", text))
    reached, kept = number(r"cov: (\d+)", text), number(r"corp: (\d+)", text)
    if status != 0:
        print(text[-6000:], flush=True)
    slowest = slowest_of(target)
    values = [target, f"{spent / 60:.1f}", runs, round(runs / spent), reached, kept, f"{slowest:.2f}", peak, status]
    return values, status == 0 and slowest < SLOW


HEAD = ["target", "CPU min", "runs", "per s", "branches", "inputs", "slowest s", "MiB", "exit"]
WIDTHS = [10, 8, 11, 7, 9, 7, 10, 6, 5]


def line(values):
    return "".join(f"{value:{'<' if i == 0 else '>'}{WIDTHS[i]}}" for i, value in enumerate(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(build.targets())}; all by default")
    parser.add_argument("--cpu-minutes", type=float, default=1.0, help="of processor time for each (default: 1)")
    parser.add_argument("--more", default="", help="further options for libFuzzer, such as '-seed=7 -max_len=600'")
    args = parser.parse_args()
    names = args.targets or build.targets()
    for name in names:
        if not (build.BUILD / name).is_file():
            parser.error(f"expected programs in {build.BUILD}, found no {name}: python fuzz/build.py makes them")
    fine = True
    print(line(HEAD), flush=True)
    for name in names:
        values, went_well = run(name, 60 * args.cpu_minutes, args.more.split())
        print(line(values), flush=True)
        fine = fine and went_well
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
