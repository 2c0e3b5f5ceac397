"""Writes fuzz/corpus/streams: inputs of fuzz/targets/streams.cpp for the fuzzer to begin with.

To be run when their layout changes, or the format. Tables are those of tests/cases/rans_cases.py.
"""

import struct
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/cases")]

from rans_cases import TABLES  # noqa: E402
from write import write  # noqa: E402

from ckbd import _rans  # noqa: E402

RAW, ENCODED, BYTES, AGAIN = range(4)  # what a stream is
GIVEN, BAD_HEADER_CRC, BAD_PAYLOAD_CRC, OTHER_MODEL, LONG_VARINT, GOES_ON = 128, 4, 8, 16, 32, 64  # what may be wrong
OWN_LANES, OWN_BOTH = 6, 7  # for lanes_log2
SKIPPED, NARROW, WIDE, SAME, MOSTLY, EITHER, ANY = range(7)  # table indices
CHANNELS = ([3], [1], [2, 3], [1, 2, 1, 5], [130], [8], [5, 1, 1], [1] * 16)
FLIP, SET, INSERT, REMOVE, CUT, APPEND = range(2, 8)  # damage
FILE = 8  # to the whole file, not to its payload
MODEL = bytes([1, 2, 3, 250, 251, 252])
ICC, ALPHA, EXIF, XMP, UNKNOWN, REFUSED = 0, 1, 2, 3, 70, 200  # types of sections


def header(count, *, threads=1, coder=0, tables=0, bad_index=False, channels=0, max_pixels=0, lead=0):
    kinds = count - 1 | threads - 1 << 2 | coder << 3 | tables << 5 | bad_index << 7
    return bytes([kinds, channels | max_pixels << 3 | lead << 6])


def fields(
    form,
    *,
    wrong=0,
    flags=0,
    quality=100,
    lanes_log2=2,
    skip_max=3,
    other_coder=False,
    width=70,
    height=64,
    tail_lie=0,
    payload_lie=0,
    pattern=ANY,
    kind=0,
    seed=1,
    sections=(),
    count_lie=0,
    damage=(),
):
    """Sides from 1 to 160, or as they are coded. sections: (type, options). damage: (what, value, where)."""
    out = bytes([form | wrong | (GIVEN if wrong else 0)])
    side = [one - 1 if one <= 160 else one for one in (width, height)]
    out += struct.pack(
        "<3B2H", flags, quality if wrong else quality - 2, lanes_log2 | skip_max << 3 | other_coder << 7, *side
    )
    out += struct.pack("<2b3B", tail_lie, payload_lie, pattern | kind << 3, seed, len(sections) | count_lie << 3)
    for one in [*sections, *[(0, 0)] * (4 - len(sections))]:
        out += bytes(one)
    for what, value, where in [*damage, *[(0, 0, 0)] * (3 - len(damage))]:
        out += struct.pack("<BH", what | value << 4, where)
    return out


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def varint(value):
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def whole(rng, channels, k, width=50, height=60):
    """A file of one patch, all of whose table indices are k."""
    z = rng.integers(-3, 4, 4).astype(np.int16)
    phases = [
        (np.full(8 * m, k, np.uint8), rng.integers(-1, 2, 8 * m).astype(np.int16)) for m in channels for _ in range(2)
    ]
    payload, lanes_log2, skip_max, tail = _rans.encode(TABLES, z, phases, lanes=4, skip_max=2)
    out = b"\xcbkb\x01" + MODEL + bytes([2, 90, lanes_log2 | skip_max << 3])
    out += varint(width) + varint(height) + varint(tail) + varint(len(payload)) + varint(1)
    section = bytes([1, 5]) + b"icc.."
    return out + crc32c(out) + payload + crc32c(payload) + section + crc32c(section)


def seeds():
    rng = np.random.default_rng(0)
    for i, k in enumerate([2, 12, 30]):
        file = whole(rng, CHANNELS[i], k)
        yield header(1, channels=i, threads=1 + i % 2) + fields(RAW, pattern=SAME, seed=k) + file
        yield (
            header(2, channels=i, coder=i)
            + fields(RAW, pattern=SAME, seed=k)
            + fields(RAW, pattern=SAME, seed=k)
            + (struct.pack("<H", len(file)) + file + file[:-3])
        )
    golden = (ROOT / "tests/golden/one_pixel.ckbd").read_bytes()
    yield header(1) + fields(RAW) + golden
    yield header(1) + fields(RAW) + golden[:3] + b"\x02" + golden[4:]
    yield header(1) + fields(RAW) + b"\x89PNG" + golden[4:]
    yield header(1) + fields(RAW) + golden[:13] + bytes([255] * 6)
    yield header(1) + fields(BYTES) + bytes([1]) + golden[-4:]  # too few for what they are to hold

    for i in range(8):
        streams = [
            fields(
                ENCODED,
                pattern=(i + j) % 7,
                kind=i,
                seed=10 * i + j,
                lanes_log2=(i + j) % 8,
                width=20 + 30 * j,
                height=130 - 10 * i,
            )
            for j in range(1 + i % 4)
        ]
        yield header(
            len(streams), threads=1 + i % 2, coder=i % 3, tables=i % 4, channels=i, bad_index=i % 2 == 0, lead=i % 4
        ) + (b"".join(streams))
    # Each next to one that is as it should be.
    good = fields(ENCODED, pattern=MOSTLY, kind=2, seed=5)
    for i, one in enumerate(
        [
            fields(ENCODED, wrong=BAD_HEADER_CRC),
            fields(ENCODED, wrong=BAD_PAYLOAD_CRC),
            fields(ENCODED, wrong=OTHER_MODEL),
            fields(ENCODED, wrong=GOES_ON),
            *(fields(ENCODED, wrong=LONG_VARINT, seed=i) for i in range(5)),
            fields(ENCODED, flags=3, sections=[(ICC, 20), (ALPHA, 9), (EXIF, 0), (XMP, 31)]),
            fields(ENCODED, flags=2, sections=[(UNKNOWN, 20), (UNKNOWN, 20)]),
            fields(ENCODED, flags=2, sections=[(UNKNOWN, 20), (REFUSED, 20)]),
            fields(ENCODED, flags=2, sections=[(ICC, 5 << 5), (XMP, 7 << 5)]),
            fields(ENCODED, wrong=GIVEN, flags=2, sections=[(EXIF, 20)], count_lie=30),
            fields(ENCODED, wrong=GIVEN, flags=240),
            fields(ENCODED, wrong=GIVEN, quality=201, other_coder=True),
            fields(ENCODED, wrong=GIVEN, other_coder=True, seed=2),
            fields(ENCODED, wrong=GIVEN, width=0xC000),
            fields(ENCODED, wrong=GIVEN, height=0xFFFF, width=0xFFFF),
            fields(ENCODED, wrong=GIVEN, tail_lie=1),
            fields(ENCODED, wrong=GIVEN, tail_lie=1, lanes_log2=0),
            fields(ENCODED, wrong=GIVEN, payload_lie=-1),
            fields(ENCODED, kind=7, pattern=NARROW),
            fields(ENCODED, kind=1, pattern=WIDE, width=64),
            fields(ENCODED, damage=[(FLIP, 3, 40), (SET, 15, 70)]),
            fields(ENCODED, damage=[(CUT | FILE, 0, 70)]),
            fields(ENCODED, damage=[(REMOVE | FILE, 0, 9), (INSERT | FILE, 2, 60), (APPEND, 3, 3)]),
        ]
    ):
        both = [good, one] if i % 2 else [one, good]
        yield (
            header(3, channels=i % 3, max_pixels=(0, 1, 5)[i % 3], coder=i % 3)
            + b"".join(both)
            + fields(AGAIN, seed=5)
        )
    yield header(1, max_pixels=7) + fields(ENCODED, width=100, height=20)  # few pixels, but more than a patch
    yield (
        header(1, max_pixels=5, tables=1)
        + fields(BYTES, wrong=GIVEN, width=0xC7FF, height=64)
        + bytes([255])
        + rng.bytes(900)
    )
    yield (
        header(2, max_pixels=1)
        + fields(BYTES, lanes_log2=0) * 2
        + bytes([20, 0, 0, 0])
        + rng.bytes(77)
        + bytes([20])
        + bytes(90)
    )


if __name__ == "__main__":
    write(__file__, seeds())
