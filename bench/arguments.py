"""Kinds of arguments of the benchmarks' command lines."""

from __future__ import annotations

import argparse
import re


def size(text: str) -> tuple[int, int]:
    """(width, height) of "WxH"."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected WxH, as 768x512, got {text!r}")
    return int(match[1]), int(match[2])


def count(text: str) -> int:
    """A number of things, 1 at the least."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)
