"""Models that a study has trained and takes again, each with a note of what it was told beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def taken(path: Path, told: list[Any], data: Sequence[str] | None) -> bool:
    """Whether a model file is there that was told this. ValueError if it was told otherwise, or if it is not there
    and there is no data to train it with.
    """
    note = _note(path)
    if path.is_file():
        if not note.is_file() or json.loads(note.read_text()) != told:
            raise ValueError(f"{path}: not of {' '.join(map(str, told))}")
        return True
    if not data:
        raise ValueError(f"{path}: no such file; --data trains it")
    return False


def keep(path: Path, told: list[Any]) -> Path:
    """Notes what a model file was told; returns its path."""
    _note(path).write_text(json.dumps(told))
    return path


def _note(path: Path) -> Path:
    return path.with_suffix(".json")
