"""What belongs to threads, locks among it, which a fork leaves behind in the child."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forgets(Protocol):
    def forget(self) -> None:
        """As if no thread had ever been: in the child of a fork there is none."""


_inherited: weakref.WeakSet[Forgets] = weakref.WeakSet()


def after_fork(thing: Forgets) -> None:
    """Calls thing.forget() in every child that this process forks, as long as anybody holds it."""
    _inherited.add(thing)


def _forget() -> None:
    for thing in list(_inherited):
        thing.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
