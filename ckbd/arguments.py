"""Kinds of arguments of the command `ckbd`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def quality(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, got {text}")
    return round(2 * value) / 2


def qualities(text: str) -> list[float]:
    return [quality(part) for part in text.split(",")]


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
        return value

    parse.__name__ = kind.__name__
    return parse


class Version(argparse.Action):
    """Prints what ckbd.about knows, which takes PyTorch to know, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from ckbd import about

        for line in about.lines():
            print(line)
        parser.exit()
