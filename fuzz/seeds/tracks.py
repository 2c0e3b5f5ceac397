"""Writes fuzz/corpus/tracks: inputs of fuzz/targets/tracks.cpp for the fuzzer to begin with.

To be run when their layout changes, or the format. Tables are those of tests/cases/rans_cases.py, mixtures the
first that fuzz/targets/tracks/integers.h makes.
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

RAW, PUT_TOGETHER, ENCODE, HOSTILE_TABLES = range(4)
WRITTEN_OUT, SAME, NARROW, WIDE, MOSTLY, ANY, ENDS = range(7)  # table indices, shares and means
RASTER, ONE, WAVEFRONT, MIXED = range(4)  # how sites lie in tracks
FLIP, SET, INSERT, REMOVE, CUT, APPEND = 1, 3, 4, 5, 6, 7  # damage
Y_MAX, Z_LOW, Z_SIZE, Z_FREQ, CDF, INVERSE, SHARE, RADIUS, Y_FREQ = 0, 1, 2, 3, 5, 7, 8, 9, 10  # arrays
PUT, ADD, SWAP, PASS_ON = range(4)  # changes


def header(
    mode,
    parts,
    *,
    tables=0,
    mixtures=0,
    hostile=False,
    tracks=1,
    z=2,
    lead=0,
    beyond=False,
    rows=RASTER,
    width=4,
    split=3,
    damage=(),
):
    """parts: (Gaussians or 0, sites, channels, pattern, seed). damage: (what, value, where)."""
    many = tracks - 1 if tracks <= 14 else 223 + tracks // 10
    out = struct.pack(
        "<5B",
        mode | tables << 2 | mixtures << 4 | (hostile or mode == HOSTILE_TABLES) << 7,
        many,
        z | lead << 3 | beyond << 5 | len(parts) - 1 << 6,
        rows | width - 1 << 2,
        split,
    )
    for gaussians, sites, channels, pattern, seed in [*parts, *[(0, 0, 1, 0, 0)] * (4 - len(parts))]:
        out += struct.pack("<3B", gaussians | channels - 1 << 2 | pattern << 5, sites, seed)
    for what, value, where in [*damage, *[(0, 0, 0)] * (4 - len(damage))]:
        out += struct.pack("<BH", what | value << 3, where)
    return out


def mixtures():
    """The first of integers.h."""
    u = np.arange(8193)
    tail = 1024 * 1024 // (1024 + u)
    cdf = (1 << 23) + (1 << 23) - 8 * tail * tail
    i = np.arange(64)
    inverse, share = (1 << 25) >> i // 4, (8 + i % 8) << (5 + i // 8)
    return _rans.MixtureTables(
        cdf.astype(np.int32), inverse.astype(np.int32), share.astype(np.int32), (1 + i * i // 8).astype(np.int16)
    )


def raw(rng, gaussians, sites, channels, tracks, width, **more):
    """A whole payload, and what it is decoded by written out."""
    z = rng.integers(-4, 5, 8).astype(np.int16)
    track = (np.arange(sites) // width % tracks).astype(np.uint16)
    shape = (sites, gaussians, channels) if gaussians else (sites, channels)
    k = rng.integers(0, 64, shape).astype(np.uint8)
    share = rng.integers(0, 64, shape).astype(np.uint8) if gaussians else None
    mean = rng.integers(-300, 300, shape).astype(np.int16) if gaussians else None
    y = np.rint(rng.normal(size=(sites, channels)) * 8).astype(np.int16)
    y[0, 0] = 1023
    payload, _ = _rans.encode_tracks(TABLES, mixtures(), tracks, z, track, k, y, mean=mean, share=share)
    out = (
        header(RAW, [(gaussians, sites, channels, WRITTEN_OUT, 0)], tracks=tracks, width=width, **more) + k.tobytes()
    )
    if gaussians:
        for one, m in zip(share.flat, mean.flat, strict=True):
            out += struct.pack("<Bh", one, m)
    return out + payload


def seeds():
    rng = np.random.default_rng(0)
    for i, tracks in enumerate([1, 2, 5, 13]):
        yield raw(rng, 0, 24, 3, tracks, 4, lead=i)
        yield raw(rng, 3, 6, 2, tracks, 2, lead=i)
    yield raw(rng, 1, 4, 3, 1, 4)

    def some(i):
        return [(i % 4, 30, 1 + i % 8, (SAME, NARROW, WIDE, MOSTLY, ANY, ENDS)[i % 6], 40 + i), (0, 20, 3, ANY, i)]

    for i in range(8):  # all mixtures, all tables
        damage = [
            [(FLIP, i, 20 + i)],
            [(SET, 31, 12)],
            [(CUT, 0, 30)],
            [(REMOVE, 0, 9)],
            [(INSERT, i, 5)],
            [(APPEND, i, 0)],
        ]
        yield header(
            ENCODE, some(i), tables=i % 4, mixtures=i, tracks=1 + i, rows=i % 4, lead=i % 4, damage=damage[i % 6]
        ) + (rng.bytes(60))
    for i in range(4):
        shapes = [(j, 12, 2, ANY, i + j) for j in range(4)]
        yield header(ENCODE, shapes, mixtures=i, hostile=i % 2 == 1, beyond=i >= 2, tracks=4, rows=MIXED) + rng.bytes(
            90
        )
    for end in range(4):
        yield header(ENCODE, [(end % 2, 6, 2, ANY, 9)], z=end % 3, beyond=True) + bytes(
            [0, 20, 250, 252, end, 170, 9, 0, 1]
        )
    yield header(ENCODE, some(0), tracks=300, rows=RASTER, z=7) + rng.bytes(20)
    yield header(ENCODE, [(3, 3, 4, ENDS, 1)], mixtures=2) + bytes([250, 251] * 20)
    for i, lie in enumerate([0, 0, 170, 214, 230, 245]):
        yield (
            header(PUT_TOGETHER, some(3 + i), tracks=1 + 2 * i)
            + bytes([lie, i] + [30] * 6 + [192, i])
            + rng.bytes(120)
        )

    yield header(PUT_TOGETHER, some(2), z=0) + bytes(3)  # no bytes, but symbols
    yield header(PUT_TOGETHER, [(0, 0, 1, ANY, 0)], z=0) + bytes([0, 0, 192, 1])  # the other way round

    def change(array, how, at, value):
        return struct.pack("<BHBi", array | how << 4, at, 255, value)

    hostile = [
        [change(Y_MAX, PUT, 40, 127), change(Y_FREQ, ADD, 3, 2)],
        [change(Y_FREQ, PASS_ON, 5 + 64 * 3, 2), change(Z_FREQ, PASS_ON, 256, 1)],
        [change(Z_LOW, ADD, 2, 5), change(Z_FREQ, SWAP, 515, 0)],
        [change(Z_SIZE, PUT, 0, 2)],
        [change(CDF, PUT, 0, 1 << 23), change(CDF, PUT, 8192, 1 << 24), change(INVERSE, PUT, 5, 1 << 30)],
        [change(SHARE, PUT, 9, 1 << 16), change(RADIUS, PUT, 3, 1023), change(INVERSE, PUT, 7, 1)],
        [change(SHARE, PUT, 9, 0)],
        [change(SHARE, PUT, 9, (1 << 16) + 1)],
        [change(CDF, SWAP, 77, 0)],
    ]
    for i, changes in enumerate(hostile):
        head = header(HOSTILE_TABLES, some(i), z=2, tracks=3)
        yield head + bytes([64 if i else 2, len(changes)]) + b"".join(changes) + rng.bytes(30)
    yield header(HOSTILE_TABLES, some(2)) + bytes([2 + 8 * 2, 0]) + rng.bytes(30)  # wider rows


if __name__ == "__main__":
    write(__file__, seeds())
