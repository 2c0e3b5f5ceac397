"""Damaged streams and model files through everything in Python that reads them: python fuzz/files.py.

    python fuzz/files.py --cpu-minutes 30 --seed 0 --kinds stream,variant
    python fuzz/files.py --kinds model --first 1234 --cases 1       one case again

Kinds: `stream`, .ckbd of version 1, `variant`, of version 2, `model`, .safetensors of both, and `training`: recipes,
checkpoints and tar files of pictures. A case is made of the seed, its kind and its number: a whole file is taken
apart, some of its fields are changed, and it is put together again, mostly with checksums that are right
(fuzz/readers). What must hold: it is read, or refused by the exception
that is documented, FormatError with field and offset, ValueError with the name of what is wrong; all ways of reading
it agree, the plain decoders among them; nothing is printed, no reader takes more than --seconds of CPU, a case raises
the peak of memory by no more than 256 MiB, and there is no more address space than --address-space.

A process of its own reads, so that one that dies is a finding like any other; another goes on behind the case. A line
every 30 seconds, a table at the end. What broke something is kept in --to with what was seen, 20 different ones at
the most, and the exit status is 1.

With an extension under ASan and UBSan, in a checkout of its own, whose tree has no other build of it:

    CXXFLAGS="-O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer" LDFLAGS="-fsanitize=address,undefined" \\
        python setup.py build_ext --inplace
    LIBRARIES=$(for one in libasan.so libubsan.so libstdc++.so.6; do gcc -print-file-name=$one; done | paste -sd:)
    ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$LIBRARIES python fuzz/files.py

There --address-space is 0, since ASan takes 20 TB, and --seconds 20, unless they are given. What UBSan prints is a
finding, too.
"""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "fuzz")]

from readers import worker  # noqa: E402

MOST = 20  # different failures
SILENCE = 300  # seconds without a word, after which the process is ended
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-minutes", type=float, help="of the process that reads (30, without --cases)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(worker.NAMES), metavar="KIND,...")
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first case")
    parser.add_argument("--cases", type=int, help="of each kind (as many as there is time for)")
    parser.add_argument("--plain", type=float, default=0.02, help="share of the streams that plain decoders read")
    parser.add_argument("--seconds", type=float, default=20 if SANITIZED else 1, help="of CPU that a reader may take")
    room = 0 if SANITIZED else 2
    parser.add_argument("--address-space", type=float, default=room, help="GiB more than at the start; 0: no limit")
    parser.add_argument("--to", type=Path, default=ROOT / "build/fuzz/files", help="for what broke something")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if unknown := set(args.kinds) - set(worker.NAMES):
        parser.error(f"--kinds: expected some of {', '.join(worker.NAMES)}, got {', '.join(sorted(unknown))}")
    return args


class Report:
    """What all processes have said."""

    def __init__(self, args):
        self.args, self.start, self.told = args, time.monotonic(), time.monotonic()
        self.failures, self.names, self.done, self.current = Counter(), {}, [], None

    def fail(self, kind, number, label, key, text, data):
        self.failures[key] += 1
        if self.failures[key] > 1:
            return
        self.args.to.mkdir(parents=True, exist_ok=True)
        name = self.names[key] = f"{kind}-{self.args.seed}-{number}.bin"
        (self.args.to / name).write_bytes(data)
        with open(self.args.to / "report.txt", "a") as file:
            print(f"{key}\n{name} ({label}), {len(data)} bytes\n{text}\n", file=file)
        print(f"FAILED {kind} {number} ({label}): {key}", flush=True)

    def hear(self, line):
        if line["what"] == "failed":
            known = (line[name] for name in ("kind", "number", "label", "key", "text"))
            self.fail(*known, bytes.fromhex(line["data"]))
            return
        self.current = line
        if time.monotonic() > self.told + 30:
            self.told = time.monotonic()
            counts = ", ".join(f"{sum(found.values())} {kind}" for kind, found in self.found().items())
            print(f"{self.cpu() / 60:.1f} CPU minutes: {counts}, {len(self.failures)} failures", flush=True)

    def processes(self):
        return [*self.done, *([self.current] if self.current else [])]

    def cpu(self):
        return sum(one["cpu"] for one in self.processes())

    def found(self):
        all_of = {kind: Counter() for kind in self.args.kinds}
        for one in self.processes():
            for kind, found in one["found"].items():
                all_of[kind].update(found)
        return all_of

    def show(self):
        print(f"\n{self.cpu() / 60:.1f} CPU minutes, {time.monotonic() - self.start:.0f} s, seed {self.args.seed}")
        for kind, found in self.found().items():
            spent = sum(one["spent"][kind] for one in self.processes())
            slowest = max((tuple(one["slowest"][kind]) for one in self.processes()), default=(0, 0, ""))
            total, refused = sum(found.values()), found.total() - found["read"] - found["FAILED"]
            print(
                f"{kind}: {total} cases, {total / max(spent, 1e-9):.0f} a CPU second; read {found['read']}, ", end=""
            )
            print(
                f"refused {refused}, failed {found['FAILED']}; slowest reader {slowest[0]:.2f} s (case {slowest[1]})"
            )
            fields = [f"{name} {n}" for name, n in found.most_common() if name not in ("read", "FAILED")]
            for at in range(0, len(fields), 8):
                print("    " + ", ".join(fields[at : at + 8]))
        print(f"peak memory {max((one['peak'] for one in self.processes()), default=0):.0f} MiB")
        for key, count in self.failures.most_common():
            print(f"FAILED {count}: {key}\n    {self.args.to / self.names[key]}")


def one_process(args, report, starts, shared):
    """Runs a process until it ends or dies. Returns where to go on, None if it is done."""
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--worker",
        json.dumps({"starts": starts, "shared": shared}),
    ]
    command += ["--seed", str(args.seed), "--kinds", ",".join(args.kinds), "--first", str(args.first)]
    command += [
        "--plain",
        str(args.plain),
        "--seconds",
        str(args.seconds),
        "--address-space",
        str(args.address_space),
    ]
    command += ["--cases", str(args.cases)] if args.cases else []
    if args.cpu_minutes:
        command += ["--cpu-minutes", str(max(args.cpu_minutes - report.cpu() / 60, 1e-3))]
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        lines = queue.Queue()
        threading.Thread(target=lambda: [*map(lines.put, process.stdout), lines.put(None)], daemon=True).start()
        ended = full = False
        try:
            while (line := lines.get(timeout=SILENCE)) is not None and not full:
                heard = json.loads(line)
                report.hear(heard)
                ended, full = heard["what"] == "end", len(report.failures) >= MOST
        except queue.Empty:
            full = True
        if full:
            process.kill()
        process.wait()
        err.seek(0)
        said = err.read().decode("utf-8", "replace")
    if ended or len(report.failures) >= MOST:
        return None
    kind, number, data = worker.read_now(shared)
    code = process.returncode
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    if kind < 0:
        raise SystemExit(f"the process that reads did not come to its first case ({how}):\n{said}")
    name = worker.NAMES[kind]
    report.fail(name, number, "", f"died: {how} {worker.blurred(said.strip()[-200:])}", said[-6000:], data)
    if report.current:
        starts = report.current["next"]
        report.done.append(report.current)
        report.current = None
    return starts | {name: number + 1}


def main(arguments=None):
    args = parse(arguments)
    if args.cpu_minutes is None and args.cases is None:
        args.cpu_minutes = 30
    if args.worker:
        given = json.loads(args.worker)
        args.starts, args.shared = given["starts"], given["shared"]
        args.cpu, args.cases = 60 * (args.cpu_minutes or 0), args.cases or 1 << 62
        worker.main(args)
        return 0
    report, starts = Report(args), {}
    with tempfile.NamedTemporaryFile(prefix="ckbd-fuzz-") as shared:
        while starts is not None and len(report.failures) < MOST:
            shared.truncate(0)
            shared.truncate(worker.ROOM)
            starts = one_process(args, report, starts, shared.name)
    report.show()
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
