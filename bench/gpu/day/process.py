"""A step's process: what it finds, how long it may run, what it said."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench import installed
from bench.gpu import record

LOG_BYTES = 1 << 20  # of a step's log, of which the middle goes if it is longer
TAIL = 2000  # characters of it in day.json


def environment(folder: Path) -> dict[str, str]:
    """Of a step's process: this checkout's ckbd whether it is installed or not, and choices of kernels of its own."""
    tree = installed.link(folder / "installed")
    paths = [str(tree), str(record.ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",  # or the checkout itself, without kernels in ckbd, would come first
        "PYTHONUNBUFFERED": "1",
        "CKBD_TUNE_CACHE": str(folder / "choices"),
    }


def run(command: Sequence[str], log: Log, limit: float, env: dict[str, str]) -> int | None:
    """The exit status, or None if it was stopped after limit seconds. It and all that it started are gone after."""
    child = subprocess.Popen(
        command,
        cwd=record.ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log.file,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return child.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


class Log:
    """A step's part of day.log."""

    def __init__(self, path: Path, name: str, command: Sequence[str]):
        self.path, self.last, self.tail = path, "", ""
        self.file = open(path, "ab")
        self.file.write(f"\n== {name}\n$ {' '.join(command)}\n".encode())
        self.file.flush()
        self.start = self.file.tell()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()
        with open(self.path, "r+b") as file:
            size, half = file.seek(0, os.SEEK_END) - self.start, LOG_BYTES // 2
            file.seek(self.start)
            said = file.read(min(size, 2 * half))
            if size > 2 * half:
                file.seek(-half, os.SEEK_END)
                said = said[:half] + b"\n[...]\n" + file.read()
                file.seek(self.start)
                file.truncate()
                file.write(said)
        text = said.decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        self.last, self.tail = (lines[-1].strip() if lines else "it said nothing"), text[-TAIL:]
