"""Streams of both versions taken apart and put together, by docs/format.md, so that damage gets behind checksums."""

import copy
import struct
from dataclasses import dataclass, field

from ckbd._rans import crc32c

EXTREMES = (0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 255, 256, 257, 4095, 16383, 16384, 65535, 65536)
EXTREMES += (2**21 - 1, 2**21, 2**27, 2**28 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
SIZES = ("width", "height", "tail", "payload_length", "section_count")  # the header's varints


def varint(value, longer=0):
    """LEB128 of any number, which may be wider than a stream's; longer: bytes more than it needs."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    for _ in range(longer):
        out[-1] |= 128
        out.append(0)
    return bytes(out)


def read_varint(data, at):
    """(value, where it ends) of a whole stream's."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def crc(data):
    return struct.pack("<I", crc32c(bytes(data)))


@dataclass
class Section:
    """length: the varint as it stands, None for the right one. crc: xored to the right one."""

    kind: int
    body: bytes
    length: bytes | None = None
    crc: int = 0

    def join(self):
        head = bytes([self.kind]) + (varint(len(self.body)) if self.length is None else self.length) + self.body
        return head + struct.pack("<I", crc32c(head) ^ self.crc)


@dataclass
class Parts:
    """A stream's fields. sizes: varints by name as they stand, in place of those that are right."""

    fixed: bytes  # magic, version, model
    flags: int | None  # None: as sections need them
    quality: int
    coder: int
    width: int
    height: int
    tail: int  # or tracks
    payload: bytes
    sections: list[Section]
    gray: bool = False
    sizes: dict[str, bytes] = field(default_factory=dict)
    header_crc: int = 0
    payload_crc: int = 0
    after: bytes = b""
    phases: int = 2  # of the model

    def flag_byte(self):
        return self.gray | bool(self.sections) << 1 if self.flags is None else self.flags

    def head(self):
        """All before header_crc."""
        out, flags = self.fixed + bytes([self.flag_byte(), self.quality, self.coder]), self.flag_byte()
        right = (self.width, self.height, self.tail, len(self.payload), len(self.sections))
        for name, value in zip(SIZES, right, strict=True):
            if name != "section_count" or flags & 2:
                out += self.sizes.get(name, varint(value))
        return out

    def join(self):
        head = self.head()
        out = head + struct.pack("<I", crc32c(head) ^ self.header_crc)
        out += self.payload + struct.pack("<I", crc32c(self.payload) ^ self.payload_crc)
        return out + b"".join(one.join() for one in self.sections) + self.after

    def copy(self):
        return copy.deepcopy(self)


def apart(data, phases=2):
    """The parts of a whole stream; join() gives it back."""
    flags, quality, coder = data[10:13]
    numbers, at = [], 13
    for _ in range(5 if flags & 2 else 4):
        value, at = read_varint(data, at)
        numbers.append(value)
    width, height, tail, length = numbers[:4]
    at += 4
    payload, at = data[at : at + length], at + length + 4
    sections = []
    for _ in range(numbers[4] if flags & 2 else 0):
        size, start = read_varint(data, at + 1)
        sections.append(Section(data[at], data[start : start + size]))
        at = start + size + 4
    numbers = quality, coder, width, height, tail
    return Parts(data[:10], None, *numbers, payload, sections, gray=bool(flags & 1), phases=phases)


def payload_pieces(payload, lanes_log2, phases):
    """[lane states, exceptions of every phase, escapes, words] of a whole payload of version 1, as its bytes."""
    bits = Bits(payload)
    for _ in range(1 << lanes_log2):
        bits.skip(16 + bits.number(4))
    pieces, at = [payload[: bits.bytes()]], bits.bytes()
    for _ in range(phases):
        start = at
        count, at = read_varint(payload, at)
        if count:
            b, bits = payload[at], Bits(payload, at + 1)
            for _ in range(count):
                while bits.number(1):
                    pass
                bits.skip(b + 1)
                m = 0
                while bits.number(1):
                    m += 1
                bits.skip(m)
            at = bits.bytes()
        pieces.append(payload[start:at])
    start = at
    count, at = read_varint(payload, at)
    for _ in range(count):
        _, at = read_varint(payload, at)
    return [*pieces, payload[start:at], payload[at:]]


class Bits:
    def __init__(self, data, at=0):
        self.data, self.at = data, 8 * at

    def number(self, n):
        if self.at >= 8 * len(self.data):
            raise IndexError("no bits are left")
        value = int.from_bytes(self.data[self.at // 8 : (self.at + n + 7) // 8], "little")
        value = value >> self.at % 8 & (1 << n) - 1
        self.at += n
        return value

    def skip(self, n):
        self.at += n

    def bytes(self):
        return -(-self.at // 8)
