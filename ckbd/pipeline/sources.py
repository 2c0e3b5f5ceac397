"""What goes in: names, and how to get the bytes or pictures behind them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from ckbd.codec import machine

READERS = 8  # threads that read files ahead
READ_AHEAD = 32  # files
_NONE_LEFT = object()

T = TypeVar("T")


class Item(NamedTuple):
    """name: what the caller calls it. value: what was read, or the error that came instead. out: where the result is
    to be, if the caller says; ready: what comes when the caller's stream is done with it.
    """

    name: Any
    value: Any
    out: Any = None
    ready: Any = None


class Held(Generic[T]):
    """An iterator that ends where its source raises an error, which check() raises: what came before is not lost."""

    def __init__(self, source: Iterable[T]):
        self._source = source
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[T]:
        try:
            yield from self._source
        except Exception as error:
            self._error = error

    def check(self) -> None:
        if self._error is not None:
            raise self._error


def named(sources: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """(name, source) of each: of a pair as it is, of a path the path, of anything else its number; of a mapping its
    items.
    """
    single = isinstance(sources, (np.ndarray, Tensor)) and sources.ndim < 2
    if single or isinstance(sources, (str, bytes, bytearray, memoryview, os.PathLike)):
        raise TypeError("sources: expected several, got a single one")
    for number, source in enumerate(sources.items() if isinstance(sources, Mapping) else sources):
        if isinstance(source, (tuple, list)) and len(source) == 2:
            yield source[0], source[1]
        elif isinstance(source, (str, os.PathLike)):
            yield source, source
        else:
            yield number, source


def noted(error: Exception, name: Any) -> Exception:
    """The error, with a note of what it belongs to where this Python has notes."""
    if hasattr(error, "add_note"):
        error.add_note(f"ckbd: this is of {name!r}")
    return error


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
        out = next(given, _NONE_LEFT)
        if out is _NONE_LEFT:
            raise ValueError(f"out: there are fewer tensors than sources, none is left for {name!r}")
        return Item(name, value, out)

    try:
        held = Held(named(sources))
        for name, source in held:
            if isinstance(source, (str, os.PathLike)):
                readers = readers or machine.executor(READERS)
                source = readers.submit(attempt, source)
            waiting.append((name, source))
            # Where nothing is to be read nothing is gained by waiting.
            while waiting and (len(waiting) > ahead or not isinstance(waiting[0][1], Future)):
                yield item()
        while waiting:
            yield item()
        held.check()
    finally:
        waiting.clear()
        if readers is not None:
            machine.end(readers)
