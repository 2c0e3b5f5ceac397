"""The process of fuzz/files.py that reads: case after case, with limits, and a line of JSON for each that fails.

What it works on is in a file that the other process sees, too: its kind, its number, its bytes.
"""

import itertools
import json
import mmap
import os
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("stream", "variant", "model", "training")  # of readers.kinds.MAKERS, for those who do not import it
ROOM = 1 << 22  # of the shared file
HEAD = struct.Struct("<IQI")  # kind + 1, number, bytes
GROWN = 256  # MiB by which a case may raise the peak
STUCK = 60  # CPU seconds, after which the process is ended by a signal
EVERY = 2.0  # seconds between lines


def write_now(shared, kind, number, data):
    data = data[: ROOM - HEAD.size]
    shared[: HEAD.size] = HEAD.pack(kind + 1, number, len(data))
    shared[HEAD.size : HEAD.size + len(data)] = data


def read_now(path):
    """(kind, number, bytes) of what a process works on; kind -1 before the first."""
    data = Path(path).read_bytes()
    kind, number, size = HEAD.unpack_from(data)
    return kind - 1, number, data[HEAD.size : HEAD.size + size]


def limit(gib):
    """Denies more address space than what is there and so many GiB; 0: as much as there is, as ASan needs."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if gib:
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + int(gib * 2**30),) * 2)


def peak():
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Printed:
    """What goes to stderr, by whatever library."""

    def __init__(self):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  # for as long as the process
        self.kept = os.dup(2)
        os.dup2(self.file.fileno(), 2)

    def taken(self):
        """What there is since the last call."""
        sys.stderr.flush()
        size = os.fstat(self.file.fileno()).st_size
        if not size:
            return ""
        self.file.seek(0)
        text = self.file.read().decode("utf-8", "replace")
        self.file.seek(0)
        self.file.truncate()
        return text

    def restore(self):
        text = self.taken()
        os.dup2(self.kept, 2)
        os.write(2, text.encode())


def place(error):
    """file:line of ours where it was raised, the innermost one that says what was looked for."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT))]
    ours = [f for f in ours if Path(f.filename).name != "outcome.py"]
    product = [f for f in ours if f.filename.startswith(str(ROOT / "ckbd"))]
    frame = (product or ours)[-1]
    return f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}"


def blurred(text):
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "#", text)[:120]


class Worker:
    def __init__(self, args, shared, say):
        self.args, self.shared, self.say = args, shared, say
        self.printed = Printed()
        from readers import kinds, outcome  # what they import may print

        self.clock = outcome.Clock
        self.clock.limit = args.seconds
        self.folder = tempfile.TemporaryDirectory()
        self.kinds = {name: kinds.MAKERS[name](Path(self.folder.name), args.plain) for name in args.kinds}
        self.spent = dict.fromkeys(args.kinds, 0.0)
        self.next = {name: args.starts.get(name, args.first) for name in args.kinds}
        self.found = {name: Counter() for name in args.kinds}
        self.slowest = {name: (0.0, 0, "") for name in args.kinds}
        self.told = 0.0

    def run(self):
        for name in self.args.kinds:  # what is loaded once is not of a case
            self.case(name, 0, warm=True)
        self.printed.taken()
        limit(self.args.address_space)
        for turn in itertools.count():
            left = [one for one in self.args.kinds if self.next[one] < self.args.first + self.args.cases]
            if not left or (self.args.cpu and time.process_time() > self.args.cpu):
                break
            # Kinds have equal shares of time; where cases are counted they go in turn.
            name = left[turn % len(left)] if not self.args.cpu else min(left, key=self.spent.get)
            self.case(name, self.next[name])
            self.next[name] += 1
            if time.monotonic() > self.told + EVERY:
                self.tell("now")
        self.tell("end")
        self.printed.restore()

    def case(self, name, number, warm=False):
        import numpy as np

        label, data, field = "", b"", "FAILED"
        signal.setitimer(signal.ITIMER_PROF, STUCK)
        start, self.clock.most = time.process_time(), 0.0
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                data, label, judge = self.kinds[name].make(
                    np.random.default_rng([self.args.seed, NAMES.index(name), number])
                )
                write_now(self.shared, NAMES.index(name), number, data)
                made = peak()
                field = judge(data).field or "read"
                self.bounds(name, number, label, data, warned, peak() - made if not warm else 0, warm)
            except Exception as error:
                if not warm:
                    text = "".join(traceback.format_exception(error))
                    key = f"{type(error).__name__} at {place(error)}: {blurred(str(error))}"
                    self.fail(name, number, label, data, key, text)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if warm:
            return
        self.spent[name] += time.process_time() - start
        self.found[name][field] += 1
        self.slowest[name] = max(self.slowest[name], (self.clock.most, number, label))

    def bounds(self, name, number, label, data, warned, grown, warm):
        """What it took, and what it printed."""
        if warm:
            return
        if self.clock.most > self.clock.limit:
            self.fail(name, number, label, data, f"slow: {label}", f"{self.clock.most:.2f} s in a reader")
        if grown > GROWN:
            self.fail(name, number, label, data, f"much memory: {label}", f"{grown:.0f} MiB more")
        for one in warned:
            text = f"{one.category.__name__}: {one.message}"
            self.fail(name, number, label, data, f"warning at {one.filename}:{one.lineno}: {blurred(text)}", text)
        if printed := self.printed.taken():
            self.fail(name, number, label, data, f"printed: {blurred(printed)}", printed)

    def fail(self, name, number, label, data, key, text):
        line = {"what": "failed", "kind": name, "number": number, "label": label, "key": key, "text": text[-6000:]}
        self.say(line | {"data": data[: ROOM - HEAD.size].hex()})

    def tell(self, what):
        self.told = time.monotonic()
        line = {"what": what, "cpu": time.process_time(), "peak": peak(), "next": self.next, "spent": self.spent}
        self.say(line | {"found": self.found, "slowest": self.slowest})


def main(args):
    """args: of fuzz/files.py, with starts (kind -> number), cpu (seconds, 0 without end) and shared (a file)."""
    sys.path[:0] = [str(ROOT), str(ROOT / "fuzz"), str(ROOT / "tests/plain")]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints, that is no line of ours

    def say(line):
        out.write(json.dumps(line) + "\n")
        out.flush()

    import torch

    torch.set_num_threads(1)
    with open(args.shared, "r+b") as file, mmap.mmap(file.fileno(), ROOM) as shared:
        Worker(args, shared, say).run()
