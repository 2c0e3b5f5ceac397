"""Tables, symbols and damage for the tests of CompressAI's coder. Every random number comes from a seed."""

import math
import random
from typing import NamedTuple

import numpy as np

TOTAL = 1 << 16


class Case(NamedTuple):
    symbols: list[int]
    indexes: list[int]
    cdfs: list[list[int]]
    sizes: list[int]
    offsets: list[int]

    @property
    def tables(self):
        return self.cdfs, self.sizes, self.offsets

    def arrays(self):
        """(cdfs (n, m), sizes, offsets) int32, rows filled up with what nobody may read."""
        m = max(map(len, self.cdfs), default=0)
        cdfs = np.full((len(self.cdfs), m), -77, np.int32)
        for filled, row in zip(cdfs, self.cdfs, strict=True):
            filled[: len(row)] = row
        return cdfs, np.array(self.sizes, np.int32), np.array(self.offsets, np.int32)


def cumulative(weights, total=TOTAL):
    """Rising from 0 to total, in the proportions of weights, each slot at least 1."""
    rest, whole = total - len(weights), sum(weights)
    freqs = [1 + int(rest * w / whole) for w in weights]
    freqs[freqs.index(max(freqs))] += total - sum(freqs)
    row = [0]
    for freq in freqs:
        row.append(row[-1] + freq)
    return row


def gaussian_row(scale: float) -> tuple[list[int], int]:
    """(row, offset) as CompressAI's GaussianConditional has it: -c..c, then the escape."""
    c = max(1, math.ceil(6.1 * scale))
    ends = [0.5 * math.erf((v + 0.5) / scale / math.sqrt(2)) for v in range(-c - 1, c + 1)]
    weights = [b - a for a, b in zip(ends, ends[1:], strict=False)]
    return cumulative([*weights, 1e-9]), -c


def gaussian_arrays(scales=64):
    """(cdfs, sizes, offsets) int32 of so many scales from 0.11 to 256."""
    rows, offsets = zip(
        *(gaussian_row(0.11 * (256 / 0.11) ** (k / (scales - 1))) for k in range(scales)), strict=True
    )
    return Case([], [], list(rows), [len(row) for row in rows], list(offsets)).arrays()


def clean_row(rng: random.Random) -> list[int]:
    kind, slots = rng.randrange(6), rng.choice((2, 2, 3, 4, 7, 20, 60))
    if kind == 0:
        return gaussian_row(math.exp(rng.uniform(-2.2, 3)))[0]
    if kind == 1:
        return [0, *sorted(rng.sample(range(1, TOTAL), slots - 1)), TOTAL]
    if kind == 2:  # all but what the others must have
        row = cumulative([1.0] + [0.0] * (slots - 1))
        flipped = [TOTAL - entry for entry in reversed(row)]
        return rng.choice((row, flipped))
    if kind == 3:  # neither from 0 nor to 2^16
        return sorted(rng.sample(range(TOTAL + 1), slots + 1))
    if kind == 4:
        return cumulative([rng.random() ** 8 + 1e-9 for _ in range(slots)])
    return list(range(rng.randrange(100), 200 + slots))  # of one each


def odd_row(rng: random.Random) -> list[int]:
    """Out of order, beyond 2^16, negative, empty slots, one slot for all."""
    row = clean_row(rng)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(row))
        row[at] = rng.choice((row[at - 1], row[at] + TOTAL, row[at] - TOTAL, -1, rng.randrange(-TOTAL, 3 * TOTAL)))
    return rng.choice((row, row, [0, TOTAL, TOTAL + 1], [0, 0, TOTAL], [5, TOTAL, 2 * TOTAL + 9]))


def symbol_for(rng: random.Random, size: int, offset: int) -> int:
    kind = rng.random()
    if kind < 0.6:
        value = rng.randrange(max(size - 1, 1))
    elif kind < 0.9:
        value = (size - 2) // 2 + round(rng.gauss(0, max(size, 4) / 8))
    else:  # far outside, either side
        far = int(2 ** rng.uniform(0, 27)) - 1
        value = rng.choice((size - 2 + far, -1 - far))
    return (value + offset + (1 << 31)) % (1 << 32) - (1 << 31)


def make_case(rng: random.Random, length: int | None = None, odd: float = 0.15) -> Case:
    """Up to 5 rows, of which this share is odd, and symbols that mostly fit."""
    cdfs, sizes, offsets = [], [], []
    for _ in range(rng.randint(1, 5)):
        row = odd_row(rng) if rng.random() < odd else clean_row(rng)
        cut = rng.choice((0, 0, 0, 1, 2))  # sizes may say less than there is
        sizes.append(max(3, len(row) - cut))
        cdfs.append(row + [rng.randrange(-9, 99999) for _ in range(max(0, sizes[-1] - len(row)))])
        offsets.append(rng.choice((0, -(len(row) // 2), rng.randint(-300, 300), (1 << 31) - 9, -(1 << 31))))
    n = rng.choice((4, 5, 17, 60)) if length is None else length
    indexes = [rng.randrange(len(cdfs)) for _ in range(n)]
    symbols = [symbol_for(rng, sizes[k], offsets[k]) for k in indexes]
    return Case(symbols, indexes, cdfs, sizes, offsets)


def damaged(rng: random.Random, stream: bytes) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return stream[: rng.randrange(len(stream) + 1)]
    if kind == 1:
        return stream + rng.randbytes(rng.randint(1, 9))
    if kind == 2:
        return rng.randbytes(rng.choice((8, 12, 40, 400)))
    bits = bytearray(stream)
    for _ in range(rng.randint(1, 4)):
        bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
    return bytes(bits)
