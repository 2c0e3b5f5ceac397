"""Many files, one after the other or side by side: a line for each, and one bad file among many."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tqdm import tqdm

from ckbd.shell.files import BAD_INPUT, PIPE, Job, Plan, complain, reason_of, say


class Done(NamedTuple):
    """What is said of a job, the bytes of its stream and the pixels of its picture."""

    line: str
    bytes: int
    pixels: int


SOON, OFTEN = 1.0, 0.2  # seconds until a bar of rows is shown, and between its changes

Outcome = tuple[Done | None, BaseException | None]
Ordered = Callable[[Callable[[Job], Outcome], Sequence[Job]], Iterable[Outcome]]


@contextmanager
def rows(count: int, *, hidden: bool) -> Iterator[Callable[[float], None] | None]:
    """A bar of a picture's rows on stderr, if it takes longer than SOON seconds: what is to be called with the share
    that is done. None if nobody is to see it.
    """
    if hidden:
        yield None
        return
    with tqdm(total=count, unit="row", delay=SOON, leave=False, mininterval=OFTEN) as bar:

        def tell(share: float) -> None:
            bar.update(round(share * count) - bar.n)

        yield tell


class Skipped(Exception):
    """Another process has made this output meanwhile."""


def run(
    plan: Plan,
    work: Callable[[Job], Done],
    *,
    force: bool,
    skip: bool = False,
    quiet: bool = False,
    ordered: Ordered = map,
) -> int:
    """Do work on every job and print its line; report bad input and go on; a closing line where there are several.

    An output that exists counts as bad input unless force is set, or skip, which passes over it. quiet: only what
    went wrong is printed. Several jobs show a bar if stderr is a terminal. ordered: as map, perhaps on several
    threads. What is printed goes to stderr where a job writes to standard output. Returns the exit status: 1 if
    anything was missing or failed.
    """

    def attempt(job: Job) -> Outcome:
        try:
            if job.target is not None and job.target.exists() and not force:
                if skip:
                    return None, Skipped()
                raise ValueError(f"{job.target} exists (--force overwrites it)")
            return work(job), None
        except BrokenPipeError:
            raise  # who read our output has gone, which is no fault of this file
        except BAD_INPUT as error:
            return None, error
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, of a GPU
                raise
            return None, error

    for path, reason in plan.missing:
        complain(path, reason)
    jobs, failed, skipped, done = plan.jobs, len(plan.missing), plan.skipped, []
    out = sys.stderr if any(job.target is None for job in jobs) else sys.stdout
    hidden = quiet or len(jobs) < 2 or not sys.stderr.isatty()
    start = time.perf_counter()
    with tqdm(total=len(jobs), unit="file", disable=hidden) as bar:
        outcomes = ordered(attempt, jobs)
        try:
            for job, (result, error) in zip(jobs, outcomes, strict=True):
                if isinstance(error, Skipped):
                    skipped += 1
                elif error is not None:
                    failed += 1
                    with bar.external_write_mode(file=sys.stderr):
                        complain(job.name, reason_of(error, job.name))
                if result is not None:
                    done.append(result)
                if result is not None and not quiet:
                    target = PIPE if job.target is None else job.target
                    with bar.external_write_mode(file=out):
                        say(f"{job.name} -> {target}  {result.line}", out=out)
                bar.update()
        finally:
            getattr(outcomes, "close", lambda: None)()  # what is at work has ended when this returns
    if len(jobs) + plan.skipped > 1 and not quiet:
        say(_closing(done, skipped, failed, time.perf_counter() - start), out=out)
    return int(failed > 0)


def _closing(done: Sequence[Done], skipped: int, failed: int, seconds: float) -> str:
    total, pixels = sum(one.bytes for one in done), sum(one.pixels for one in done)
    parts = [f"{len(done)} file" + "s" * (len(done) != 1)]
    parts += [f"{n} {what}" for n, what in ((skipped, "skipped"), (failed, "failed")) if n]
    if done:
        parts += [f"{total} bytes  {8 * total / pixels:.4f} bpp  {seconds:.2f} s  {len(done) / seconds:.1f} files/s"]
    return "  ".join(parts)
