"""What the commands do with files and folders: which output for which input, and one bad file among many."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

# What unusable input raises: files that are no images or cannot be read or written, streams that are not
# ckbd's (FormatError is a ValueError), pictures too large for this machine. Anything else is a fault of ckbd
# and is shown.
BAD_INPUT = (OSError, ValueError, MemoryError)


class UsageError(Exception):
    """The command line asks for something that cannot be done, found before anything is written."""


Job = tuple[Path, Path]
Outcome = tuple[str | None, BaseException | None]
Ordered = Callable[[Callable[[Job], Outcome], Sequence[Job]], Iterable[Outcome]]


def reason_of(error: BaseException, subject: object) -> str:
    """One line on what went wrong with subject, which it does not name again."""
    if isinstance(error, OSError) and error.strerror:
        other = error.filename is not None and str(error.filename) != str(subject)
        return f"{error.strerror}: {error.filename}" if other else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def complain(subject: object, reason: str) -> None:
    print(f"ckbd: {subject}: {reason}", file=sys.stderr, flush=True)


def _is_file_name(out: str, suffixes: Sequence[str]) -> bool:
    """Whether OUT names a file, one of suffixes being its own, rather than a folder."""
    if out.endswith(("/", os.sep)) or Path(out).is_dir():
        return False
    suffix = Path(out).suffix.lower()
    if suffix and suffix not in suffixes:
        kinds = ", ".join(suffixes)
        raise UsageError(f"OUT {out}: expected a folder (end a new one with /) or a name in {kinds}")
    return bool(suffix)


def plan(
    inputs: Sequence[str], out: str, find: Callable[[Path], list[Path]], suffix: str, suffixes: Sequence[str]
) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
    """The jobs, pairs of an input and an output file, and the inputs that make none, each with the reason.

    A folder among inputs stands for the files that find lists below it, mirrored below out; suffix is what
    outputs get there, suffixes are those with which out itself may name a file. Raises UsageError for two
    inputs with one output, an output that is an input, and several inputs for one file.
    """
    single = _is_file_name(out, suffixes)
    if single and (len(inputs) > 1 or Path(inputs[0]).is_dir()):
        raise UsageError(f"OUT {out}: expected a folder for more than one file")
    jobs: list[tuple[Path, Path]] = []
    missing: list[tuple[Path, str]] = []
    for path in map(Path, inputs):
        if path.resolve() == Path(out).resolve():
            raise UsageError(f"OUT {out} is also an input")
        if path.is_dir():
            found = find(path)
            jobs += [(file, Path(out, file.relative_to(path)).with_suffix(suffix)) for file in found]
            if not found:
                missing.append((path, "no files of the kind in this folder"))
        elif path.exists():
            jobs.append((path, Path(out) if single else Path(out, path.name).with_suffix(suffix)))
        else:
            missing.append((path, "no such file or folder"))
    sources = {source.resolve() for source, _ in jobs}
    origin: dict[Path, Path] = {}
    for source, target in jobs:
        if target.resolve() in sources:
            raise UsageError(f"{target} would be written for {source}, but is also an input")
        if target in origin:
            raise UsageError(f"{origin[target]} and {source} would both be written to {target}")
        origin[target] = source
    return jobs, missing


def run(
    jobs: Sequence[tuple[Path, Path]],
    missing: Sequence[tuple[Path, str]],
    work: Callable[[Path, Path], str],
    *,
    force: bool,
    ordered: Ordered = map,
) -> int:
    """Do work(input, output) on every job and print the line that it returns; report bad input and go on.

    An output that exists counts as bad input unless force is set. Several jobs show a bar if stderr is a
    terminal. ordered: as map, perhaps on several threads. Returns the exit status: 1 if anything was missing or
    failed.
    """

    def attempt(job: Job) -> Outcome:
        source, target = job
        try:
            if target.exists() and not force:
                raise ValueError(f"{target} exists (--force overwrites it)")
            return work(source, target), None
        except BAD_INPUT as error:
            return None, error

    for path, reason in missing:
        complain(path, reason)
    failed = bool(missing)
    hidden = len(jobs) < 2 or not sys.stderr.isatty()
    with tqdm(total=len(jobs), unit="file", disable=hidden) as bar:
        outcomes = ordered(attempt, jobs)
        try:
            for (source, target), (line, error) in zip(jobs, outcomes, strict=True):
                if error is not None:
                    failed = True
                    with bar.external_write_mode(file=sys.stderr):
                        complain(source, reason_of(error, source))
                # A pipe that is closed on us is no fault of this file.
                if line is not None:
                    with bar.external_write_mode(file=sys.stdout):
                        print(f"{source} -> {target}  {line}", flush=True)
                bar.update()
        finally:
            getattr(outcomes, "close", lambda: None)()  # what is at work has ended when this returns
    return int(failed)
