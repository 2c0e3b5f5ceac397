"""Which output belongs to which input: files, folders, and `-` for what comes in and goes out by a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

# What unusable input raises: files that are no images or cannot be read or written, streams that are not
# ckbd's (FormatError is a ValueError), pictures too large for this machine. Anything else is a fault of ckbd
# and is shown.
BAD_INPUT = (OSError, ValueError, MemoryError)
PIPE = "-"


class UsageError(Exception):
    """The command line asks for something that cannot be done, found before anything is written."""


class OutputError(Exception):
    """What we have to say cannot be written."""


@dataclass
class Job:
    """An input and its output; None: standard input, standard output."""

    source: Path | None
    target: Path | None
    _data: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return PIPE if self.source is None else str(self.source)

    @property
    def there(self) -> bool:
        """Whether there is an output already."""
        return self.target is not None and _known(self.target.exists)

    def read(self) -> bytes:
        """All of the input."""
        if self.source is not None:
            return self.source.read_bytes()
        if self._data is None:
            self._data = sys.stdin.buffer.read()
        return self._data

    def head(self, count: int) -> bytes | None:
        """The first bytes of the input; None where they can be read but once, or not at all."""
        if self.source is None:
            return self.read()[:count]
        try:
            if not self.source.is_file():
                return None
            with open(self.source, "rb") as file:
                return file.read(count)
        except OSError:
            return None


@dataclass(frozen=True)
class Kind:
    """What a command reads and writes. find: the inputs below a folder, and source: their suffix, None if they have
    many. suffix: of an output that is not named; suffixes: with which OUT can be a file.
    """

    find: Callable[[Path, Callable[[OSError], object]], list[Path]]
    source: str | None
    suffix: str
    suffixes: Sequence[str]
    keep: bool = False  # the input's suffix, and put the output's behind it

    def output(self, path: Path) -> Path:
        """What an output is called whose input is this."""
        return path.with_name(path.name + self.suffix) if self.keep else path.with_suffix(self.suffix)

    def reads(self, path: Path) -> bool:
        """Whether a file looks like an input rather than like an output."""
        suffix = path.suffix.lower()
        return suffix not in self.suffixes if self.source is None else suffix == self.source


@dataclass
class Plan:
    """jobs, and the inputs that make none, each with the reason."""

    jobs: list[Job] = field(default_factory=list)
    missing: list[tuple[Path, str]] = field(default_factory=list)
    skipped: int = 0

    def skip_existing(self) -> None:
        """Leaves out the jobs whose outputs are there."""
        left = [job for job in self.jobs if not job.there]
        self.skipped, self.jobs = len(self.jobs) - len(left), left


def _known(ask: Callable[[], bool]) -> bool:
    """The answer of a path; False where the system gives none: it will say why when the file is opened."""
    try:
        return ask()
    except OSError:
        return False


def reason_of(error: BaseException, subject: object) -> str:
    """One line on what went wrong with subject, which it does not name again."""
    if isinstance(error, OSError) and error.strerror:
        other = error.filename is not None and str(error.filename) != str(subject)
        return f"{error.strerror}: {error.filename}" if other else error.strerror
    unsaid = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
    return " ".join(str(error).split()) or unsaid


def say(*lines: str, out: TextIO | None = None) -> None:
    """Print lines, at once. Raises BrokenPipeError where nobody listens any more, OutputError for anything else."""
    out = out or sys.stdout
    try:
        for line in lines:
            print(line, file=out)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(reason_of(error, None)) from error


def complain(subject: object, reason: str) -> None:
    print(f"ckbd: {subject}: {reason}", file=sys.stderr, flush=True)


def plan(paths: Sequence[str], kind: Kind) -> Plan:
    """The jobs of a command line's paths: inputs, then OUT, which may be missing where the answer is plain.

    A folder among inputs stands for the files that kind.find lists below it, mirrored below OUT. Raises UsageError
    for two inputs with one output, an output that is an input, several inputs for one file, and a folder without OUT.
    """
    inputs, out = _split(paths, kind)
    single = out is None or out == PIPE or _is_file_name(out, kind.suffixes)
    if inputs.count(PIPE) > 1:
        raise UsageError(f"{PIPE} can be read but once")
    if out is not None and single and (len(inputs) > 1 or _known(Path(inputs[0]).is_dir)):
        raise UsageError(f"OUT {out}: expected a folder for more than one file")
    found = Plan()
    for one in inputs:
        if one == PIPE:
            found.jobs.append(Job(None, _target(out, None, kind)))
            continue
        if not one:
            raise UsageError("expected a path, got an empty one")
        path = Path(one)
        if out is not None and out != PIPE and path.resolve() == Path(out).resolve():
            raise UsageError(f"OUT {out} is also an input")
        if _known(path.is_dir):
            _add_folder(found, path, out, kind)
            continue
        try:
            path.stat()
            found.jobs.append(Job(path, _target(out, path, kind)))
        except FileNotFoundError:
            found.missing.append((path, "no such file or folder"))
        except OSError as error:
            found.missing.append((path, reason_of(error, path)))
    _check(found.jobs, "" if kind.keep or kind.source else " (--keep-suffix tells them apart)")
    return found


def _add_folder(found: Plan, path: Path, out: str | None, kind: Kind) -> None:
    """The jobs of a folder's files."""
    if out is None:
        raise UsageError(f"{path} is a folder: OUT, where its files go, is missing")
    unread: list[OSError] = []
    files = kind.find(path, unread.append)
    found.jobs += [Job(file, kind.output(Path(out, file.relative_to(path)))) for file in files]
    found.missing += [(Path(error.filename), reason_of(error, error.filename)) for error in unread]
    if not files and not unread:
        found.missing.append((path, "no files of the kind in this folder"))


def _split(paths: Sequence[str], kind: Kind) -> tuple[Sequence[str], str | None]:
    """Inputs, and OUT or None: the last one is OUT unless it is a file that is there and looks like an input."""
    last = paths[-1]
    if len(paths) == 1:
        return paths, None
    is_input = last != PIPE and _known(Path(last).is_file) and kind.reads(Path(last))
    return (paths, None) if is_input else (paths[:-1], last)


def _target(out: str | None, source: Path | None, kind: Kind) -> Path | None:
    """The output of one file, which has no name if it is standard input."""
    if out == PIPE or (out is None and source is None):
        return None
    if out is None:
        assert source is not None
        return kind.output(source)
    if _is_file_name(out, kind.suffixes):
        return Path(out)
    if source is None:
        raise UsageError(f"OUT {out}: expected a file's name for what comes from standard input")
    return kind.output(Path(out, source.name))


def _is_file_name(out: str, suffixes: Sequence[str]) -> bool:
    """Whether OUT names a file, one of suffixes being its own, rather than a folder."""
    if not out:
        raise UsageError("expected a path as OUT, got an empty one")
    if out.endswith(("/", os.sep)) or _known(Path(out).is_dir):
        return False
    suffix = Path(out).suffix.lower()
    if suffix and suffix not in suffixes:
        kinds = ", ".join(suffixes)
        raise UsageError(f"OUT {out}: expected a folder (end a new one with /) or a name in {kinds}")
    return bool(suffix)


def _check(jobs: Sequence[Job], remedy: str) -> None:
    sources = {job.source.resolve() for job in jobs if job.source is not None}
    origin: dict[Path, str] = {}
    for job in jobs:
        if job.target is None:
            continue
        if job.target.resolve() in sources:
            raise UsageError(f"{job.target} would be written for {job.name}, but is also an input")
        if (own := job.target.resolve()) in origin:
            raise UsageError(f"{origin[own]} and {job.name} would both be written to {job.target}{remedy}")
        origin[own] = job.name
