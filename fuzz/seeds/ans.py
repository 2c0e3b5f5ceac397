"""Writes fuzz/corpus/ans: inputs of fuzz/targets/ans.cpp for the fuzzer to begin with.

To be run when the layout of ans/header.h or ans/rows.h changes. Every random number comes from a seed.
"""

import struct

import numpy as np
from write import write

RAW, STEPS, INTS, _, FLOATS, _, PMF, SCALES = range(8)
WRITTEN_OUT, RANDOM, SAME, RUNS, LONG_RUNS, MOSTLY = 0, 2, 4, 5, 6, 7  # table indexes
FALLING, POWERS, LIKELY, RISING, OF_ONE, ESCAPES, OF_PMF, ENTRIES = range(8)  # rows
FLIP, SET, INSERT, REMOVE, CUT, APPEND, SHORTEN = range(1, 8)  # damage
HELD, ONE_MORE, ANY_SIZE, FEWER = 0, 5, 6, 7  # sizes of rows
ZERO, CENTRED, LEAST, MOST = 0, 40, 130, 165  # offsets of rows


def large(blocks, over):
    """The number for so many times 512 elements, 1 to 4 of them, and -1, 0 or 1 more."""
    return 7 << 13 | (blocks - 1) + 4 * (over + 1)


def header(mode, n, pattern=WRITTEN_OUT, *, rows=3, piece=6, seed=0, lead=0, damage=(), **flags):
    """n: of symbols. damage: (what, value, where)."""
    kinds = mode | lead << 5
    for bit, flag in ((3, "apart"), (4, "misfit"), (7, "means")):
        kinds |= flags.pop(flag, False) << bit
    assert not flags
    pieces = (0 << 6, bytes([piece - 1])) if piece < 8 else (3 << 6, struct.pack("<H", piece - 256))
    out = struct.pack("<BB", kinds, rows | pattern << 3 | pieces[0]) + pieces[1] + struct.pack("<HB", n, seed)
    for what, value, where in [*damage, *[(0, 0, 0)] * (3 - len(damage))]:
        out += struct.pack("<BH", what | value << 3, where)
    return out


def row(kind, slots, param=0, *, edits=(), size=HELD, offset=ZERO):
    """slots: up to 16, or a multiple of it. edits: bytes of each, after which they are `edits` many."""
    width = slots - 1 if slots <= 16 else 192 + (slots - 1) // 16
    changes = b"".join(edits)
    return bytes([kind | len(edits) << 3 | size << 5, width, param]) + changes + bytes([offset])


CLEAN = [
    row(FALLING, 16, 20, offset=CENTRED) + row(LIKELY, 5, 2) + row(RISING, 9, 4, offset=LEAST),
    row(POWERS, 12, 29) + row(ESCAPES, 3, 1, offset=MOST) + row(OF_PMF, 16, 40, offset=CENTRED),
    row(OF_ONE, 16, 9) + row(LIKELY, 2, 0) + row(FALLING, 161, 3, offset=CENTRED),
    row(POWERS, 1009, 29) + row(LIKELY, 7, 200) + row(OF_ONE, 609, 200, offset=CENTRED),
]


def odd_rows():
    """Rows in threes, each of which is wrong in a way of its own."""
    changed = [bytes([at, kind]) for at, kind in ((1, 0), (2, 1), (3, 2), (1, 3), (2, 5), (0, 6), (4, 7))]
    changed += [bytes([2, 4]) + struct.pack("<i", value) for value in (-(1 << 31), (1 << 31) - 1, 70000)]
    for i in range(5):
        yield (
            row(FALLING, 6 + i, 16, edits=changed[i : i + 2])
            + row(POWERS, 9, 25, edits=changed[5 + i : 6 + i])
            + (row(RISING, 7, 3 * i, size=(ONE_MORE, ANY_SIZE, FEWER)[i % 3], edits=changed[i : i + 3]))
        )
    whole = [struct.pack(f"<{len(entries)}i", *entries) for entries in ([0, 65536, 65537], [5, 65536, 131081])]
    yield row(ENTRIES, 3)[:3] + whole[0] + b"\0" + row(ENTRIES, 3)[:3] + whole[1] + b"\0" + row(LIKELY, 4, 1)


def seeds():
    rng = np.random.default_rng(0)
    patterns = (WRITTEN_OUT, RANDOM, SAME, RUNS, LONG_RUNS, MOSTLY)
    damages = (
        (FLIP, 3, 9),
        (SET, 30, 5),
        (INSERT, 3, 8),
        (REMOVE, 0, 12),
        (CUT, 0, 16),
        (APPEND, 7, 9),
        (SHORTEN, 1, 0),
    )
    for i, pattern in enumerate(patterns):
        more = {"seed": i, "lead": i % 4, "apart": i % 2 == 0, "damage": damages[i : i + 1 + i % 2]}
        yield header((INTS, FLOATS)[i % 2], 40 + i, pattern, means=i % 3 > 0, **more) + CLEAN[i % 4] + rng.bytes(150)
    for i, rows in enumerate(odd_rows()):
        yield header(INTS, 25, RANDOM, seed=i, apart=i % 2 > 0, damage=damages[i : i + 1]) + rows + rng.bytes(60)
        if i % 2 == 0:
            yield header(STEPS, 20, RUNS, seed=i, lead=1, means=i > 2) + rows + rng.bytes(150)
    for i, param in enumerate((0, 3, 7)):  # a size that is wrong
        wrong = row(FALLING, 5, param, size=ANY_SIZE, offset=CENTRED)
        yield header((RAW, FLOATS)[i % 2], 16, SAME, rows=1, apart=i > 0) + wrong + rng.bytes(60)
    # A row that is guessed, read to the end, and not to the end.
    for i, (rows, damage) in enumerate([(CLEAN[0], (SHORTEN, 4, 0)), (CLEAN[3], (SHORTEN, 8, 0))]):
        yield header(INTS, 60, SAME, seed=1, damage=[damage]) + rows + bytes([9, 4, 9, 4, 9, 5] * 18) + rng.bytes(20)
        yield header(FLOATS, 60, SAME, seed=1 + 3 * i, damage=[damage]) + rows + rng.bytes(200)
    # Near the ends of blocks, in pieces of which some end there; guessed and not, and one that is refused behind one.
    for i, n in enumerate([large(2, 0), large(2, 1), large(3, -1), large(4, 1)]):
        mode = (INTS, FLOATS)[i % 2]
        more = {
            "piece": (512, 300, 7, 700)[i],
            "seed": 1 + i,
            "damage": [(FLIP, i, 300 * i + 9) if i % 2 else (SHORTEN, 8, 0)],
        }
        yield header(mode, n, (LONG_RUNS, RUNS, SAME, MOSTLY)[i], **more) + CLEAN[i] + rng.bytes(30)
    yield header(INTS, 30, RUNS, misfit=True) + CLEAN[0] + bytes([9, 0, 1]) + rng.bytes(60)
    yield header(RAW, 30, RUNS, misfit=True, means=True) + CLEAN[1] + bytes([17, 0, 3]) + rng.bytes(300)
    yield header(INTS, 3, rows=0) + rng.bytes(30)
    yield header(RAW, 60, RANDOM) + CLEAN[0] + rng.bytes(120)
    yield header(RAW, 9, RANDOM) + CLEAN[0] + rng.bytes(7)
    # Nearly all escapes: of many digits, and of more than there may be.
    yield header(STEPS, 30, SAME, rows=1) + row(ESCAPES, 3, 1, offset=MOST) + rng.bytes(240)
    yield header(STEPS, 60, SAME, rows=1, apart=True) + row(ESCAPES, 2, 0) + bytes([8, 255, 255, 255, 255]) * 50
    for i, pattern in enumerate((0, 1, 3, 6)):
        yield header(PMF, 30 + 10 * i, pattern) + bytes([(16, 250, 16, 170)[i]]) + rng.bytes(160)
    yield header(PMF, large(1, 1), 6) + bytes([100]) + bytes(rng.integers(9, 25, 60).astype(np.uint8))
    for value in (0.0, 1e38, np.inf, 40000):  # nothing at all, too much, and more than 32 bits in all
        yield header(PMF, 60, 1) + bytes([16]) + struct.pack("<60f", *[value] * 60)
    yield header(PMF, 2, 0) + bytes([16, 255]) + struct.pack("<f", -1.0) + bytes([81])
    yield header(PMF, 40, 6) + bytes([160 + 26]) + bytes(40)  # more elements than 2
    yield header(PMF, 3, 6) + bytes([255]) + struct.pack("<i", -1)
    for i, count in enumerate((9, 63, 200 + 7, 65)):
        yield header(SCALES, (24, 21, 3, 40)[i], means=i % 2 > 0, lead=i) + bytes([count, 90 + i]) + rng.bytes(250)


if __name__ == "__main__":
    write(__file__, seeds())
