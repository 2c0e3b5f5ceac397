"""Kinds of arguments of the command `ckbd`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def quality(text: str) -> float:
    value = _number(float, "a number from 1 to 100", text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 100, got {text}")
    return round(2 * value) / 2


def qualities(text: str) -> list[float]:
    return [quality(part) for part in text.split(",")]


def metrics(text: str) -> list[str]:
    """Names of ckbd.evaluation.bd.METRICS, which import what may be missing; as `--metric ms-ssim` has them."""
    known = ("psnr", "ms-ssim", "ssimulacra2")
    names = text.split(",")
    if not set(names) <= set(known):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, got {text!r}")
    return [name.replace("-", "_") for name in names]


def positive(kind: type[int] | type[float]) -> Callable[[str], Any]:
    name = "a whole number" if kind is int else "a number"

    def parse(text: str) -> Any:
        value = _number(kind, f"{name} above 0", text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected {name} above 0, got {text}")
        return value

    return parse


def region(text: str) -> tuple[int, ...]:
    """left,top,right,bottom in pixels; whether a picture has them is seen when there is one."""
    try:
        left, top, right, bottom = map(int, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected LEFT,TOP,RIGHT,BOTTOM in pixels, got {text!r}") from error
    return left, top, right, bottom


def scale(text: str) -> float:
    """1, 1/2, 1/4 or 1/8, as a fraction or with a point."""
    from ckbd.codec import view

    above, _, below = text.partition("/")
    try:
        found = float(above) / float(below or 1)
        view.shrink_of(found)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"expected 1, 1/2, 1/4 or 1/8, got {text!r}") from error
    return found


def _number(kind: Callable[[str], Any], expected: str, text: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from error


def suffix(text: str) -> str:
    """A kind of image files, by its suffix with its dot or without."""
    from ckbd.codec import image

    found = f".{text.lower().removeprefix('.')}"
    if found not in image.SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(s[1:] for s in image.SUFFIXES)}, got {text!r}")
    return found


class Version(argparse.Action):
    """Prints what ckbd.shell.about knows, which takes PyTorch to know, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from ckbd.shell import about

        for line in about.lines():
            print(line)
        parser.exit()
