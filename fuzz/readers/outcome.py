"""What a reader made of bytes: a value, or the refusal that its documentation promises. All else is a finding."""

import re
import time
from typing import Any, NamedTuple

from ckbd.codec.container import FormatError


class Finding(Exception):
    """Something that must not be, which no exception of the reader's says."""


class Clock:
    """CPU seconds that a reader may take, and what it took at the most since somebody set it to 0."""

    limit, most = 1.0, 0.0


def timed(read, *arguments):
    start = time.process_time()
    try:
        return read(*arguments)
    finally:
        Clock.most = max(Clock.most, time.process_time() - start)


class Outcome(NamedTuple):
    """value: what was read, None where it was refused; field, offset, text: of the refusal."""

    value: Any
    field: str | None = None
    offset: int | None = None
    text: str = ""

    @property
    def refused(self):
        return self.field is not None

    @property
    def why(self):
        return self.field, self.offset, self.text


def stream(data, read, *arguments, kind=FormatError):
    """Of a reader of streams, whose refusals name a field, and a byte of the file or its end. Others are raised."""
    try:
        return Outcome(timed(read, *arguments))
    except FormatError as error:
        if type(error) is not kind:
            raise Finding(f"{type(error).__name__} where {kind.__name__} is promised") from error
        return refusal(data, error)


def refusal(data, error):
    field, offset, text = error.field, error.offset, str(error)
    if not isinstance(field, str) or not field or type(offset) is not int:
        raise Finding(f"a refusal without field or offset: {error!r}")
    if not 0 <= offset <= len(data):
        raise Finding(f"{field}: offset {offset} in a file of {len(data)} bytes")
    if not text.startswith(f"{field} at byte {offset}: ") or not error.reason or "\n" in text:
        raise Finding(f"field and offset are not said, or more than a line: {text!r}")
    return Outcome(None, field, offset, text)


def model(read, *arguments):
    """Of a reader of model files, whose refusals are ValueErrors that name a tensor or field. Others are raised."""
    try:
        return Outcome(timed(read, *arguments))
    except ValueError as error:
        if type(error) is not ValueError:  # of a kind that says how it was read, not what is wrong
            raise
        text = str(error)
        if not text or "\n" in text or len(text) > 4000:
            raise Finding(f"a refusal of no line, or of more than one: {text[:300]!r}") from error
        return Outcome(None, named(text), None, text)


LAYERS = ("h_s", "first", "hidden", "output", "channel")
TABLES = ("y_freq", "y_max", "z_freq", "z_low", "z_size", "cdf", "inverse", "share", "radius", "table")


def named(text):
    """What a refusal of a model file is of, in short; a finding if it does not say."""
    if text.startswith(("model ", "config: ")):
        head = text.removeprefix("model file: ").split(" ")
        own = head[1] if head[0] == "tensor" else head[-1] if head[0] == "the" else head[0]
        return (
            own.strip("'").partition(".")[0].rstrip(":")[:20]
            if text.startswith("model file: ")
            else head[0].rstrip(":")
        )
    own = re.match(r"(?:\d+\.)?([a-z]+(?:_[a-z]+)?)", text)
    if own is None or own[1] not in LAYERS + TABLES:
        raise Finding(f"a refusal that names nothing of the file: {text[:300]!r}")
    return own[1]


def must(holds, text):
    if not holds:
        raise Finding(text)


def same(one, other, what):
    """Both read or both refuse, at the same field and byte and with the same words."""
    if one.refused != other.refused or one.why != other.why:
        raise Finding(f"{what}: {told(one)} and {told(other)}")


def told(one):
    return f"refused, {one.text[:200]!r}" if one.refused else "read"
