"""Model files by their identity, which every stream names."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from ckbd.model import arrays, places


def holder(identity: bytes) -> Path | None:
    """The first model file of that identity (ckbd.model.places has the order); None if there is none.

    Where several files share it their streams are the same, and paint differently.
    """
    return next((path for path in places.files() if identity_of(path) == identity), None)


def find(model: str | Path) -> Path:
    """As places.find; a model may also be called by its identity, 12 hex digits."""
    by_identity = re.fullmatch("[0-9a-f]{12}", str(model)) and holder(bytes.fromhex(str(model)))
    return by_identity or places.find(model)


def name_of(identity: bytes) -> str | None:
    """What a model of that identity is called here."""
    path = holder(identity)
    return None if path is None else path.stem


def known() -> str:
    """One line for people who miss a model: which there are, and where they were looked for."""
    found, unread = [], []
    for path in places.files():
        identity = identity_of(path)
        if identity is None:
            unread.append(str(path))
        else:
            found.append(f"{path.stem} ({identity.hex()})")
    unread += [f"{folder} (no folder)" for folder in places.folders() if not folder.is_dir()]
    others = os.environ.get(places.VARIABLE)
    line = f"known are {', '.join(found) or 'none'}{places.missing()}"
    line += f"; {places.VARIABLE} is {repr(others) if others else 'not set'}"
    return line + (f"; not readable: {', '.join(unread)}" if unread else "")


def identity_of(path: Path) -> bytes | None:
    """The identity of a model file; None if it is none that can be read."""
    try:
        about = path.stat()
        return _read(path, about.st_mtime_ns, about.st_size)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=256)
def _read(path: Path, *_: int) -> bytes:
    """The identity of a file, read anew when it has changed."""
    return arrays.identity_of(path)
