"""What goes in: names, and how to get the bytes or pictures behind them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from ckbd.codec import machine

READERS = 8  # threads that read files ahead
READ_AHEAD = 32  # files


class Item(NamedTuple):
    """name: what the caller calls it. value: what was read, or the error that came instead. out: where the result is
    to be, if the caller says.
    """

    name: Any
    value: Any
    out: Any = None


def named(sources: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """(name, source) of each: of a pair as it is, of a path the path, of anything else its number."""
    if isinstance(sources, (str, bytes, bytearray, memoryview, os.PathLike)):
        raise TypeError("sources: expected several, got a single one")
    for number, source in enumerate(sources):
        if isinstance(source, tuple) and len(source) == 2:
            yield source
        elif isinstance(source, (str, os.PathLike)):
            yield source, source
        else:
            yield number, source


def read(
    sources: Iterable[Any], load: Callable[[Any], Any], outs: Iterable[Any] | None = None, ahead: int = READ_AHEAD
) -> Iterator[Item]:
    """An Item of each source, in order: load(path) of a path, on threads that are so many files ahead of who asks;
    anything else as it is. What load raises, OSError or ValueError, becomes the value. ValueError if outs end first.
    """

    def attempt(path: Any) -> Any:
        try:
            return load(path)
        except (OSError, ValueError) as error:
            return error

    waiting: deque[tuple[Any, Any]] = deque()
    readers = None
    given = None if outs is None else iter(outs)

    def item() -> Item:
        name, value = waiting.popleft()
        value = value.result() if isinstance(value, Future) else value
        if given is None:
            return Item(name, value)
        out = next(given, None)
        if out is None:
            raise ValueError(f"out: there are fewer tensors than sources, none is left for {name!r}")
        return Item(name, value, out)

    try:
        for name, source in named(sources):
            if isinstance(source, (str, os.PathLike)):
                readers = readers or machine.executor(READERS)
                source = readers.submit(attempt, source)
            waiting.append((name, source))
            # Where nothing is to be read nothing is gained by waiting.
            while waiting and (len(waiting) > ahead or not isinstance(waiting[0][1], Future)):
                yield item()
        while waiting:
            yield item()
    finally:
        waiting.clear()
        if readers is not None:
            readers.shutdown(wait=True, cancel_futures=True)
