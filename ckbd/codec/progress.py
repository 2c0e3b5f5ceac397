"""How far a call is, for whoever has to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

Tell = Callable[[float], object]
"""Called with the share that is done, 0 to 1, which never gets less; from any thread, one at a time."""


def silent(share: float) -> None:
    """The Tell of who does not ask."""


def between(tell: Tell, low: float, high: float) -> Tell:
    """What of tell belongs to a part of the work that goes from one share to another."""
    return tell if tell is silent else lambda share: tell(low + (high - low) * share)


class Progress:
    """Of work in parts, side by side perhaps. total: the sum of what the parts weigh."""

    def __init__(self, tell: Tell | None, total: float):
        self.tell, self.total = tell, total
        self._done = 0.0
        self._lock = threading.Lock()

    def part(self, weight: float) -> Tell:
        """Of one of the parts."""
        if self.tell is None:
            return silent
        own, tell = 0.0, self.tell

        def told(share: float) -> None:
            nonlocal own
            with self._lock:
                self._done += max(share - own, 0.0) * weight
                own = max(share, own)
                tell(min(self._done / self.total, 1.0))

        return told
