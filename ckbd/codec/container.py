"""Bytes <-> header, payload and sections, as docs/format.md says. Nothing here knows images or models."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from ckbd._rans import crc32c
from ckbd.codec import limits

MAGIC = b"\xcbkb"
VERSION = 1
TRACKS = 2  # the version of other contexts' streams (docs/format.md, section 9)
MOST_TRACKS = 65535
ICC, ALPHA, EXIF, XMP = 1, 2, 128, 129
SECTION_NAMES = {ICC: "icc", ALPHA: "alpha", EXIF: "exif", XMP: "xmp"}
OPTIONAL = 128  # from here on a decoder may ignore a section
HEAD = 64  # bytes that hold every header


class FormatError(ValueError):
    """A stream that breaks a rule of docs/format.md: `field` at byte `offset`."""

    def __init__(self, field: str, offset: int, reason: str):
        super().__init__(f"{field} at byte {offset}: {reason}")
        self.field, self.offset, self.reason = field, offset, reason

    def __reduce__(self) -> tuple[type[FormatError], tuple[str, int, str]]:
        return type(self), (self.field, self.offset, self.reason)


@dataclass(frozen=True)
class Header:
    """Header fields; quality2 is twice the quality (2..200), model the six bytes of its identity."""

    model: bytes
    quality2: int
    width: int
    height: int
    gray: bool = False
    lanes_log2: int = 5
    skip_max: int = 1
    tail: int = 0
    tracks: int = 0  # of version 2, which has neither lanes nor tail; 0: version 1


@dataclass(frozen=True)
class Stream:
    """A parsed stream. payload_offset: where the payload begins in the file. sections: type -> body. contents: what
    ckbd.codec.sections.opened() finds in them.
    """

    header: Header
    payload: bytes
    payload_offset: int = 0
    sections: dict[int, bytes] = field(default_factory=dict)
    section_offsets: dict[int, int] = field(default_factory=dict)
    contents: dict[str, Any] | None = None


def varint(value: int) -> bytes:
    """Shortest LEB128 form of 0 <= value < 2^32."""
    if not 0 <= value < 1 << 32:
        raise ValueError(f"varint: expected 0 <= value < 2^32, got {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack(stream: Stream) -> bytes:
    """The file's bytes; offsets in `stream` are ignored."""
    h = stream.header
    if len(h.model) != 6:
        raise ValueError(f"model: expected 6 bytes, got {len(h.model)}")
    head = bytearray(MAGIC + bytes([TRACKS if h.tracks else VERSION]) + h.model)
    coder = 0 if h.tracks else h.lanes_log2 | h.skip_max << 3
    head += bytes([h.gray | bool(stream.sections) << 1, h.quality2, coder])
    for value in (h.width, h.height, h.tracks or h.tail, len(stream.payload)):
        head += varint(value)
    if stream.sections:
        head += varint(len(stream.sections))
    out = bytearray(head + _crc(head) + stream.payload + _crc(stream.payload))
    for kind, body in stream.sections.items():
        section = bytes([kind]) + varint(len(body)) + body
        out += section + _crc(section)
    return bytes(out)


def _crc(data: bytes | bytearray) -> bytes:
    return struct.pack("<I", crc32c(data))


class _Reader:
    """Walks over the bytes once; every read is checked, every field is noted for describe().

    base: where in the stream the bytes begin.
    """

    def __init__(self, data: bytes, base: int = 0):
        self.data, self.at, self.base, self.end = data, base, base, base + len(data)
        self.seen: list[tuple[str, int, int, str]] = []

    def note(self, name: str, start: int, value: object) -> None:
        self.seen.append((name, start, self.at - start, str(value)))

    def take(self, name: str, count: int) -> bytes:
        left = self.end - self.at
        if count > left:
            raise FormatError(name, self.at, f"expected {count} bytes, only {left} are left")
        self.at += count
        return self.since(self.at - count)

    def since(self, start: int) -> bytes:
        return self.data[start - self.base : self.at - self.base]

    def byte(self, name: str, text: Callable[[int], str] = str) -> int:
        value = self.take(name, 1)[0]
        self.note(name, self.at - 1, text(value))
        return value

    def varint(self, name: str) -> int:
        start, value = self.at, 0
        for i in range(5):
            b = self.take(name, 1)[0]
            value |= (b & 0x7F) << 7 * i
            if b < 0x80:
                if i and b == 0:
                    raise FormatError(name, start, "not the shortest form of the number")
                if value >= 1 << 32:
                    raise FormatError(name, start, f"expected less than 2^32, got {value}")
                self.note(name, start, value)
                return value
        raise FormatError(name, start, "more than 5 bytes")

    def crc(self, name: str, start: int) -> None:
        """The CRC32C of everything from start up to here."""
        want = crc32c(self.since(start))
        at = self.at
        got = struct.unpack("<I", self.take(name, 4))[0]
        if got != want:
            raise FormatError(name, at, f"the bytes give {want:08x}, the stream says {got:08x}: damaged")
        self.note(name, at, f"{got:08x}")


def parse(data: bytes, max_pixels: int = limits.MAX_PIXELS, version: int = VERSION) -> Stream:
    """Check every rule of the container and return its parts. Raises FormatError; another version is one, too."""
    return _parse(_Reader(_bytes(data)), max_pixels, (version,))


def head(data: bytes, max_pixels: int = limits.MAX_PIXELS) -> Header:
    """The header of a stream of either version, checked; data: its first HEAD bytes, or more. Raises FormatError."""
    return _head(_Reader(bytes(data[:HEAD])), max_pixels, (VERSION, TRACKS))[0]


def outline(file: IO[bytes]) -> Stream:
    """All of a stream but its payload, of which nothing is read, from a file that can seek, at its beginning.

    Checked as parse does but for the payload's checksum, of any size. Raises FormatError.
    """
    first = b""
    while len(first) < HEAD and (more := file.read(HEAD - len(first))):  # a raw file may give less
        first += more
    r = _Reader(first)
    header, length, count = _head(r, (1 << 64) - 1, (VERSION, TRACKS))
    size, after = file.seek(0, 2), r.at + length
    if after > size:
        raise FormatError("payload", r.at, f"expected {length} bytes, only {size - r.at} are left")
    file.seek(after)
    rest = _Reader(file.read(), after)
    rest.take("payload_crc", 4)
    return Stream(header, b"", r.at, *_sections(rest, count))


def maker(data: bytes) -> bytes | None:
    """The model that a stream names, of which nothing else is checked; None where it is no stream."""
    return bytes(data[4:10]) if len(data) >= 10 and data[:3] == MAGIC else None


def peek(data: bytes) -> tuple[int, int] | None:
    """(height, width) as a stream says them, of which nothing is checked; None where there is nothing to read."""
    sizes, at = [], 13  # magic, version, model, flags, quality and coder have one length in all versions
    for _ in range(2):
        value, shift = 0, 0
        while True:
            if at >= len(data) or shift > 28:
                return None
            b = data[at]
            at += 1
            value |= (b & 0x7F) << shift
            shift += 7
            if b < 0x80:
                break
        sizes.append(value)
    return sizes[1], sizes[0]


def describe(data: bytes) -> list[tuple[str, int, int, str]]:
    """(name, offset, bytes, value) of every field and section, in file order; checked as parse does."""
    reader = _Reader(_bytes(data))
    _parse(reader, (1 << 64) - 1, (VERSION, TRACKS))
    return reader.seen


def _bytes(data: bytes) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"stream: expected bytes, got {type(data).__name__}")  # bytes(5) would be five zeros
    return bytes(data)


def _parse(r: _Reader, max_pixels: int, versions: tuple[int, ...]) -> Stream:
    header, length, count = _head(r, max_pixels, versions)
    start = r.at
    payload = r.take("payload", length)
    r.note("payload", start, f"{length} bytes")
    r.crc("payload_crc", start)
    return Stream(header, payload, start, *_sections(r, count))


def _head(r: _Reader, max_pixels: int, versions: tuple[int, ...]) -> tuple[Header, int, int]:
    """(header, bytes of the payload, number of sections)."""
    magic = r.take("magic", 3)
    if magic != MAGIC:
        raise FormatError("magic", 0, f"expected {MAGIC.hex(' ')}, got {magic.hex(' ')}: not a .ckbd stream")
    r.note("magic", 0, magic.hex(" "))
    version = r.byte("version")
    if version not in versions:
        known = " and ".join(map(str, versions))
        raise FormatError("version", 3, f"this reader knows version {known}, the stream says {version}")
    tracked = version == TRACKS
    model = r.take("model", 6)
    r.note("model", r.at - 6, model.hex())
    flags = r.byte("flags", lambda v: ", ".join(n for bit, n in ((1, "gray"), (2, "sections")) if v & bit) or "none")
    quality2 = r.byte("quality", lambda v: f"{v / 2:g}")
    coder = r.byte("coder", str if tracked else lambda v: f"{1 << (v & 7)} lanes, skip_max {v >> 3 & 15}")
    width, height = r.varint("width"), r.varint("height")
    tail, payload_length = r.varint("tracks" if tracked else "tail"), r.varint("payload_length")
    count = r.varint("section_count") if flags & 2 else 0
    offset = {name: start for name, start, _, _ in r.seen}
    # The checksum first: after it, a rule that is broken was broken by whoever wrote the stream.
    r.crc("header_crc", 0)

    def must(name: str, holds: bool, reason: str) -> None:
        if not holds:
            raise FormatError(name, offset[name], reason)

    must("flags", flags < 4, f"reserved bits are set: {flags:#04x}")
    must("quality", 2 <= quality2 <= 200, f"expected 2..200, got {quality2}")
    if tracked:
        must("coder", coder == 0, f"expected 0, got {coder:#04x}")
        most = min(max(1, -(-height // 64) * 4), MOST_TRACKS)
        must("tracks", 0 < tail <= most, f"expected 1 to {most}, got {tail}")
    else:
        must("coder", coder & 7 <= 5 and coder < 0x80, f"expected a lane count up to 32, got {coder:#04x}")
    must("width", width > 0, "expected at least 1, got 0")
    must("height", height > 0, "expected at least 1, got 0")
    too_large = limits.excess(width, height, max_pixels)
    must("height", too_large is None, str(too_large))
    if not tracked:
        must("tail", (tail == 0) == (coder & 7 == 0), f"expected 0 with one lane and more with several, got {tail}")
    if flags & 2:
        must("section_count", 0 < count <= 256, f"expected 1..256, got {count}")

    gray, tail, tracks = bool(flags & 1), 0 if tracked else tail, tail if tracked else 0
    header = Header(model, quality2, width, height, gray, coder & 7, coder >> 3 & 15, tail, tracks)
    return header, payload_length, count


def _sections(r: _Reader, count: int) -> tuple[dict[int, bytes], dict[int, int]]:
    """(bodies, their offsets) of all that is left."""
    sections: dict[int, bytes] = {}
    places: dict[int, int] = {}
    for _ in range(count):
        start = r.at
        kind = r.byte("section type")
        if kind not in SECTION_NAMES and kind < OPTIONAL:
            raise FormatError("section type", start, f"unknown and not optional: {kind}")
        if kind in sections:
            raise FormatError("section type", start, f"type {kind} occurs twice")
        name = SECTION_NAMES.get(kind, f"section {kind}")
        length = r.varint(f"{name} length")
        places[kind] = r.at
        sections[kind] = r.take(name, length)
        r.note(name, places[kind], f"{length} bytes")
        r.crc(f"{name} crc", start)
    if r.at != r.end:
        raise FormatError("end", r.at, f"{r.end - r.at} bytes follow the last field")
    return sections, places
