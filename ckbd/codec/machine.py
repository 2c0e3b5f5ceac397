"""Where a codec runs: the device of its networks, and threads that do not wait by spinning."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from ckbd.forks import after_fork

MOST_THREADS = 256  # of one process, whatever its codecs ask for

T = TypeVar("T")
R = TypeVar("R")


def device_of(name: str | torch.device) -> torch.device:
    """The device, after one allocation on it; ValueError, with PyTorch's reason, if there is none."""
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            # The current one, for good: a device without a number is equal to none with one.
            device = torch.device("cuda", torch.cuda.current_device())
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {str(name)!r}: {str(error).splitlines()[0]}") from error
    return device


def threads_of(threads: int | None) -> int:
    """How many threads a codec may use; None: as many as PyTorch is set to. Raises ValueError for less than one."""
    if threads is None:
        return torch.get_num_threads()
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    return min(threads, MOST_THREADS)


class _Libraries(NamedTuple):
    """What sets how many threads the calling thread's parallel regions have; None where there is no such library."""

    get_openmp: Callable[[], int] | None
    set_openmp: Callable[[int], Any] | None
    set_mkl: Callable[[int], int] | None


@cache
def _libraries() -> _Libraries:
    """PyTorch's own setting is the whole process's, so the two libraries behind it are asked, which both have one of
    the calling thread.
    """
    try:
        loaded = ctypes.CDLL(None)  # torch loads its OpenMP for all to see
    except (OSError, TypeError):  # a system that looks nothing up among all that is loaded
        return _Libraries(None, None, None)
    get_openmp = getattr(loaded, "omp_get_max_threads", None)
    set_openmp = getattr(loaded, "omp_set_num_threads", None)
    for path in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
        set_mkl = getattr(ctypes.CDLL(str(path)), "MKL_Set_Num_Threads_Local", None)
        return _Libraries(get_openmp, set_openmp, set_mkl)
    return _Libraries(get_openmp, set_openmp, None)


def _stay_alone() -> Callable[[], None]:
    """What alone() does; the call that it gives undoes it."""
    torch.get_num_threads()  # the first such call on a thread would undo what follows
    get_openmp, set_openmp, set_mkl = _libraries()
    before_mkl = set_mkl(1) if set_mkl else 0
    before = get_openmp() if get_openmp else 1
    if set_openmp:
        set_openmp(1)

    def restore() -> None:
        if set_openmp:
            set_openmp(before)
        if set_mkl:
            set_mkl(before_mkl)

    return restore


@contextmanager
def alone() -> Iterator[None]:
    """PyTorch on the calling thread only, as long as this lasts; other threads of the process notice nothing.

    OpenMP's teams spin for a thread that is late. Where other processes keep the processors busy one is late at every
    parallel region, and there are hundreds in a picture: decoding took up to sixty times as long. Who wants several
    threads takes a Team, which waits without spinning. Where PyTorch runs without OpenMP this does nothing.
    """
    restore = _stay_alone()
    try:
        yield
    finally:
        restore()


@contextmanager
def working(device: torch.device) -> Iterator[None]:
    """What a codec's networks run in: alone() on a CPU, and without the caller's autocast, which other threads that
    work for the same call would not have. Raises MemoryError where PyTorch's RuntimeError says that there is no more:
    a picture may be too large for this machine. (A GPU's torch.OutOfMemoryError stays what it is.)
    """
    with alone() if device.type == "cpu" else nullcontext(), torch.autocast(device.type, enabled=False):
        try:
            yield
        except RuntimeError as error:
            if found := re.search(r"DefaultCPUAllocator: .*?(\d+) bytes", str(error)):
                raise MemoryError(f"not enough memory for {found[1]} bytes more") from error
            if "could not create a primitive" in str(error):  # oneDNN's, whose shapes here are always right
                raise MemoryError(f"not enough memory, it seems: oneDNN {error}") from error
            raise


class Each(Protocol):
    """What calls a function of every item and gives the results in order, on as many threads as it likes."""

    def __call__(self, work: Callable[[T], R], items: Sequence[T], /) -> list[R]: ...


def in_turn(work: Callable[[T], R], items: Sequence[T], /) -> list[R]:
    """The plain Each: one after the other on the calling thread."""
    return [work(item) for item in items]


class Team:
    """Threads that share the parts of a call, `threads` of them with the one that calls: an Each.

    Parts of parts may be shared, too, by whoever has nothing to do at that moment: pictures go side by side, and the
    last of them by bands. Threads wait without spinning, and PyTorch runs on each of them alone().
    """

    def __init__(self, threads: int):
        self.threads = threads
        self.forget()
        after_fork(self)

    def forget(self) -> None:
        """As if nobody were at work: in the child of a fork nobody is."""
        self._idle = self.threads - 1  # may be below 0, where who waited is back before the substitute is done
        self._lock = threading.Lock()

    def _hire(self) -> bool:
        """Whether there was one idle, who is not any more."""
        with self._lock:
            found = self._idle > 0
            self._idle -= found
            return found

    def _count_idle(self, change: int) -> None:
        with self._lock:
            self._idle += change

    @contextmanager
    def member(self) -> Iterator[None]:
        """A thread from elsewhere that works for the team meanwhile, and is counted."""
        self._count_idle(-1)
        try:
            yield
        finally:
            self._count_idle(1)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The caller waits meanwhile, and may be replaced."""
        self._count_idle(1)
        try:
            yield
        finally:
            self._count_idle(-1)

    def on(self, device: torch.device) -> Each:
        """What calls work side by side on a CPU; elsewhere work is in turn, since a device has its own threads."""
        return self if device.type == "cpu" else in_turn

    def __call__(self, work: Callable[[T], R], items: Sequence[T], /) -> list[R]:
        """Raises what the first item that failed raised, an interrupt before all, when none is at work any more.

        Others may not have begun.
        """
        if self.threads == 1 or len(items) < 2:
            return in_turn(work, items)
        results: list[Any] = [None] * len(items)
        errors: dict[int, BaseException] = {}
        numbers = count()
        inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def share() -> None:
            while not errors and (i := next(numbers)) < len(items):
                try:
                    results[i] = work(items[i])
                except BaseException as error:
                    errors[i] = error

        def help_out() -> None:
            try:
                with torch.inference_mode(inference), torch.set_grad_enabled(grad):
                    share()
            finally:
                self._count_idle(1)

        helpers: list[Future[None]] = []
        while len(helpers) < len(items) - 1 and self._hire():
            try:
                helpers.append(_pool().submit(help_out))
            except RuntimeError:
                break  # the system has no more threads; if one of ours gets to it yet, it finds nothing left to do
        share()
        # Who waits here may be replaced: what the others have begun may have parts to share.
        self._count_idle(sum(helper.cancel() for helper in helpers))
        with self.away():
            try:
                wait(helpers)
            except BaseException as error:  # Ctrl-C while we wait: nothing more is begun
                errors[-1] = error
                wait(helpers)
        if errors:
            raise min(errors.items(), key=lambda one: (isinstance(one[1], Exception), one[0]))[1]
        return results


_local = threading.local()


class _Pool:
    """The process's threads, which are begun as they are needed; after a fork the child has none and begins anew."""

    def __init__(self) -> None:
        self.forget()
        after_fork(self)

    def forget(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __call__(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = executor(MOST_THREADS)
            return self._threads


_pool = _Pool()


def executor(threads: int) -> ThreadPoolExecutor:
    """Threads on which PyTorch is alone(), begun as they are needed."""
    return ThreadPoolExecutor(threads, "ckbd", _begin)


def ours() -> bool:
    """Whether the calling thread is one of executor()'s."""
    return getattr(_local, "ours", False)


def end(threads: ThreadPoolExecutor) -> None:
    """Ends threads of executor(), when they are done with what they are at. One of ours does not wait for them: a
    collector of garbage that runs there may have come upon an iterator whose threads wait for this one.
    """
    threads.shutdown(wait=not ours(), cancel_futures=True)


def _begin() -> None:
    """A thread begins with what its founder's processor is set to, and would keep it when the founder has long undone
    it: numbers under 1e-38 taken for 0, say.
    """
    _local.ours = True
    torch.set_flush_denormal(False)
    _stay_alone()
