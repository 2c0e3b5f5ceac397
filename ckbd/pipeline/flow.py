"""Batches of work on several threads: bounded in number, given back in the order of their items.

Nothing here knows pictures. Whoever iterates decides the pace: items are taken from the source on that thread, and no
more than `depth` windows of them are under way or wait to be taken.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ckbd.codec import machine
from ckbd.codec.machine import Team

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Window(Generic[T]):
    """Items that were taken from a source together, and how they make batches: numbers of items, each once."""

    items: Sequence[T]
    batches: Sequence[Sequence[int]]


def ordered(work: Callable[[T], R], items: Iterable[T], team: Team, threads: int) -> Iterator[R]:
    """map(work, items), on so many threads: results in order, no more than two a thread under way."""

    def one(batch: list[T]) -> list[Any]:
        return [work(item) for item in batch]

    windows = (Window([item], [[0]]) for item in items)
    return (result for _, result in run(windows, one, team, threads, 2 * threads))


def run(
    windows: Iterator[Window[T]], work: Callable[[list[T]], list[Any]], team: Team, threads: int, depth: int
) -> Iterator[tuple[T, Any]]:
    """(item, result) of every item, in the order of the windows' items; work gives a list of results of a batch.

    threads: how many batches are worked on at once. Raises what work, or the source, raised: of work at the place of
    the first item of the batch, of the source after all that it gave before. Whatever ends the iteration, an
    exception, GeneratorExit or the last item: when it has ended no thread is at work on it.
    """

    def batch(items: list[T]) -> list[Any]:
        with team.member():
            return work(items)

    crew = machine.executor(threads)
    process = os.getpid()
    failed: BaseException | None = None
    under_way: deque[Iterator[tuple[T, Future[list[Any]], int]]] = deque()
    try:
        while True:
            while len(under_way) < depth and failed is None:
                try:
                    window = next(windows, None)
                except Exception as error:
                    failed = error
                    break
                if window is None:
                    break
                places: dict[int, tuple[Future[list[Any]], int]] = {}
                for numbers in window.batches:
                    future = crew.submit(batch, [window.items[i] for i in numbers])
                    places |= {i: (future, n) for n, i in enumerate(numbers)}
                under_way.append(iter([(item, *places[i]) for i, item in enumerate(window.items)]))
                del window, places
            if not under_way:
                if failed is not None:
                    raise failed
                return
            for item, future, n in under_way[0]:
                if os.getpid() != process:
                    raise RuntimeError("an iterator goes on only in the process that began it: its threads are there")
                if not future.done():
                    with team.away():
                        future.exception()
                results = future.result()
                # A batch lives until its last item is taken; what was taken of it need not.
                result, results[n] = results[n], None
                del results, future
                yield item, result
                del item, result
            under_way.popleft()
    finally:
        under_way.clear()
        machine.end(crew)
