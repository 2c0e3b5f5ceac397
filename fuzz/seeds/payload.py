"""Writes fuzz/corpus/payload: inputs of fuzz/targets/payload.cpp for the fuzzer to begin with.

To be run when their layout changes, or the stream's. The payloads are those of tests/cases/rans_cases.py's tables.
"""

import struct
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/cases"), str(ROOT / "tests/plain")]

from rans_cases import TABLES, make_phase, make_z  # noqa: E402
from write import write  # noqa: E402

from ckbd import _rans  # noqa: E402

RAW, PARTS, ENCODE = range(3)
WRITTEN_OUT, MIXED, SKIPPED, NARROW, WIDE, RUNS, MOSTLY, SAME = range(8)  # table indices
OWN = -1  # lanes, skip_max: the encoder's choice
FLIP, SET, INSERT, REMOVE, CUT, APPEND, HEADER = range(1, 8)  # damage


def header(
    mode,
    phases,
    lanes_log2,
    skip_max,
    *,
    int8=False,
    tables=0,
    bad_index=False,
    tail=0,
    sites=8,
    lead=0,
    partner=0,
    batch=5,
    other_type=False,
    damage=(),
):
    """phases: (n, pattern, seed); n above 200 as the number that stands for it. damage: (what, value, where)."""
    out = struct.pack(
        "<BBHBB",
        mode | int8 << 2 | len(phases) - 1 << 3 | tables << 5 | bad_index << 7,
        (7 if lanes_log2 == OWN else lanes_log2) | max(skip_max, 0) << 3 | (skip_max == OWN) << 7,
        tail,
        sites,
        lead | partner << 2 | other_type << 4 | batch << 5,
    )
    for n, pattern, seed in [*phases, *[(0, 0, 0)] * (3 - len(phases))]:
        out += struct.pack("<HBB", n, pattern, seed)
    for what, value, where in [*damage, *[(0, 0, 0)] * (4 - len(damage))]:
        out += struct.pack("<BH", what | value << 3, where)
    return out


def near_chunk(n):
    """The number for n elements, 8112 to 8591."""
    return 15 << 12 | n - 8112


def raw(rng, lanes, skip_max, sizes, **more):
    z, phases = make_z(rng, 8), [make_phase(rng, n) for n in sizes]
    if more.get("int8"):
        phases = [(k, np.clip(r, -128, 127).astype(np.int8)) for k, r in phases]
    payload, lanes_log2, skip_max, tail = _rans.encode(TABLES, z, phases, lanes=lanes, skip_max=skip_max)
    start = header(RAW, [(n, WRITTEN_OUT, 0) for n in sizes], lanes_log2, skip_max, tail=tail, **more)
    return start + b"".join(k.tobytes() for k, _ in phases) + payload


def encode(rng, phases, lanes_log2, skip_max, size=150, **more):
    return header(ENCODE, phases, lanes_log2, skip_max, **more) + rng.bytes(size)


def seeds():
    rng = np.random.default_rng(0)
    for lanes_log2 in range(6):
        sizes = (60 + 20 * lanes_log2, 70 + 20 * lanes_log2)
        yield raw(rng, 1 << lanes_log2, lanes_log2, sizes, int8=lanes_log2 % 2 == 0, lead=lanes_log2 % 4)
    yield raw(rng, 32, 15, (200,))
    yield raw(rng, 8, 1, (0, 130, 70), int8=True, bad_index=True)

    kinds = [MIXED, NARROW, WIDE, RUNS, MOSTLY]
    for i, lanes_log2 in enumerate([0, 1, 2, 3, 4, 5, OWN, 5]):
        phases = [(120 + 10 * i, kinds[i % 5], i), (200, kinds[(i + 1) % 5], i)]
        damage = [(FLIP, i, 40 * i), (SET, 2 * i, 90)][: 1 + i % 2]
        more = {"int8": i % 2 == 0, "tables": i % 4, "partner": i % 2, "bad_index": i < 2}
        yield encode(rng, phases, lanes_log2, i - 1, damage=damage, **more)
    for i, damage in enumerate([(INSERT, 3, 200), (REMOVE, 0, 100), (CUT, 0, 150), (APPEND, 0, 4)]):
        phases = [(180, MIXED, i), (200, RUNS, i), (60 * i, WIDE, i)]
        yield encode(rng, phases, 5 - i, 1, int8=i % 2 == 0, tables=i, damage=[damage], other_type=True, lead=1)
    for i, value in enumerate([1, 18, 25, 28]):  # another skip_max, other lanes, a tail that differs
        phases = [(150, MIXED, i), (199, MIXED, 9)]
        yield encode(rng, phases, 5, 3, int8=i % 2 == 0, tables=3 - i, damage=[(HEADER, value, 0)])
    # More than the coders take at a time: first thin, then full, of one class or nearly.
    large = [
        (8200, MIXED, 1),
        (8200, RUNS, 1),
        (8400, MOSTLY, 3),
        (8195, MOSTLY, 4),
        (8400, MOSTLY, 8),
        (8500, WIDE, 0),
    ]
    for i, (n, kind, seed) in enumerate(large):
        phases = [(near_chunk(n), kind, seed)]
        phases.insert(i % 2, (40, MIXED, i))
        more = {"int8": i < 3, "tables": i % 4, "partner": 2 if seed % 4 else 0, "damage": [(FLIP, 2, 3000)]}
        yield encode(rng, phases, 5 - i % 2, 1 + i, **more)
    # For the encoder's choice of lanes: more than it takes 16 for, then less and more than it guesses.
    for tables, symbols in [(1, bytes(range(160, 224))), (1, bytes(1)), (2, bytes(range(160, 224)))]:
        phases = [(near_chunk(8590), WIDE, 0), (90, MIXED, 0)]
        yield header(ENCODE, phases, OWN, 1, tables=tables, sites=200) + symbols
    # Near the ends of blocks; sizes 65, 63, 64, 129.
    for i, n in enumerate([1 + 18, 1 + 0, 1 + 9, 2 + 18]):
        phases = [(14 << 12 | n, MIXED, i), (64, (NARROW, WIDE)[i % 2], i)]
        yield encode(rng, phases, 5, i, int8=i % 2 == 0, tables=i, lead=i, bad_index=i == 0)

    for i in range(5):
        phases = [(200, MIXED, i), (150, kinds[i], i)]
        lists = bytes([0x34, i, i]) + bytes([3, 2, 1, 5, 130, 2, 9, 0, 7, 1, 1]) + bytes([0])
        escapes = bytes([20]) + rng.integers(0, 253, 20).astype(np.uint8).tobytes()
        yield (
            header(PARTS, phases, i, 2 * i, int8=i % 2 == 0, tables=i % 4, tail=30 if i else 0)
            + (lists + escapes)
            + rng.bytes(300)
        )


if __name__ == "__main__":
    write(__file__, seeds())
