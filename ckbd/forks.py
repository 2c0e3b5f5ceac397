"""What belongs to threads, locks among it, which a fork leaves behind in the child."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Forgets(Protocol):
    def forget(self) -> None:
        """As if no thread had ever been: in the child of a fork there is none."""


_inherited: weakref.WeakSet[Forgets] = weakref.WeakSet()


def after_fork(thing: Forgets) -> None:
    """Calls thing.forget() in every child that this process forks, as long as anybody holds it."""
    _inherited.add(thing)


class Lock:
    """A lock that the holder may take again, and that nobody holds in the child of a fork."""

    def __init__(self) -> None:
        self.forget()
        after_fork(self)

    def forget(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:  # the same one at the end, should there be a fork meanwhile
            yield


def _forget() -> None:
    for thing in list(_inherited):
        thing.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
