"""CompressAI's streams and tables in plain Python, from their description alone: the twin of ckbd._ans.

A stream is a state of 64 bits, then words of 32, little endian, in the order in which they are read.
A symbol of a slot that has freq of 2^16 puts the state x to (x // freq) 2^16 + x % freq + start. Before that a word
goes out if the state would pass 2^63; after reading, one comes in if the state is below 2^31. What is coded last is
read first.

A row is cumulative frequencies, its last slot an escape, after which digits of 4 bits follow: their count, then the
digits of a number that holds distance and side, least significant first.
"""

import struct
from fractions import Fraction

import numpy as np

LOW, SLOT_BITS, DIGIT_BITS = 1 << 31, 16, 4
MOST_DIGITS = 8


class Refused(ValueError):
    """What upstream's coder would crash, hang or read out of bounds for."""


def int32(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def pick(cdfs, sizes, offsets, index):
    if not 0 <= index < min(len(cdfs), len(sizes), len(offsets)):
        raise Refused("indexes")
    row = cdfs[index][: max(sizes[index], 0)]
    if len(row) < 2 or len(row) != sizes[index]:
        raise Refused("sizes")
    return row, offsets[index]


def steps_of(symbol, row, offset):
    """(start, freq, bits) of all that is coded for a symbol, in the order of reading."""
    value, escape = int32(symbol - offset), len(row) - 2
    slot = value if 0 <= value < escape else escape
    freq, raw = row[slot + 1] - row[slot], 0
    if slot == escape:
        raw = 2 * (value - escape) if value >= 0 else -2 * value - 1
        if raw >= 1 << 28:
            raise Refused("symbols")
    if freq <= 0 or freq % (1 << 16) == 0:
        raise Refused("cdfs")
    steps = [(row[slot] % (1 << 16), freq % (1 << 16), SLOT_BITS)]
    if slot == escape:
        digits = [raw >> shift & 15 for shift in range(0, raw.bit_length(), DIGIT_BITS)]
        steps += [(digit, 1, DIGIT_BITS) for digit in [len(digits), *digits]]
    return steps


def encode(symbols, indexes, cdfs, sizes, offsets) -> bytes:
    steps = []
    for symbol, index in zip(symbols, indexes, strict=True):
        steps += steps_of(symbol, *pick(cdfs, sizes, offsets, index))
    state, words = LOW, []
    for start, freq, bits in reversed(steps):
        if state >= freq << (63 - bits):
            words.append(state % (1 << 32))
            state >>= 32
        state = (state // freq << bits) + state % freq + start
    words += [state >> 32, state % (1 << 32)]
    return struct.pack(f"<{len(words)}I", *reversed(words))


class Decoder:
    def __init__(self, stream: bytes) -> None:
        if len(stream) < 8:
            raise Refused("stream")
        (self.state,) = struct.unpack_from("<Q", stream)
        self.rest = stream[8:]

    def take(self, start: int, freq: int, bits: int) -> None:
        self.state = (freq * (self.state >> bits) + self.state % (1 << bits) - start) % (1 << 64)
        if self.state < LOW:
            if len(self.rest) < 4:
                raise Refused("stream")
            self.state = self.state << 32 | int.from_bytes(self.rest[:4], "little")
            self.rest = self.rest[4:]

    def digit(self) -> int:
        digit = self.state % (1 << DIGIT_BITS)
        self.take(digit, 1, DIGIT_BITS)
        return digit

    def symbol(self, row, offset) -> int:
        slot, escape = self.state % (1 << SLOT_BITS), len(row) - 2
        # Negative entries count as above all.
        above = next((s for s, entry in enumerate(row) if entry < 0 or entry > slot), 0)
        if above == 0:
            raise Refused("stream")
        if row[above] < row[above - 1]:
            raise Refused("cdfs")
        self.take(row[above - 1], row[above] - row[above - 1], SLOT_BITS)
        if above - 1 < escape:
            return int32(above - 1 + offset)
        count = self.digit()
        if count > MOST_DIGITS:
            raise Refused("stream")
        raw = int32(sum(self.digit() << shift for shift in range(0, DIGIT_BITS * count, DIGIT_BITS)))
        value = -(raw >> 1) - 1 if raw & 1 else (raw >> 1) + escape
        return int32(value + offset)

    def decode(self, indexes, cdfs, sizes, offsets) -> list[int]:
        """The next symbols; all, or where it stood before stays."""
        before = self.state, self.rest
        try:
            return [self.symbol(*pick(cdfs, sizes, offsets, index)) for index in indexes]
        except Refused:
            self.state, self.rest = before
            raise


def decode(stream, indexes, cdfs, sizes, offsets) -> list[int]:
    return Decoder(stream).decode(indexes, cdfs, sizes, offsets)


def pmf_to_quantized_cdf(pmf, precision: int) -> list[int]:
    """Frequencies, rounded in float32, then cut to their share of 2^precision; who has none takes one of another."""
    total = 1 << precision
    parts = [np.float32(p) * np.float32(total) for p in pmf]
    if not all(np.isfinite(p) and p >= 0 for p in parts):
        raise Refused("pmf")
    # Halves away from 0.
    freqs = [int(Fraction(float(p)) + Fraction(1, 2)) for p in parts]
    whole = sum(freqs) % (1 << 32)
    if whole == 0 or max(freqs) >= 1 << 32:
        raise Refused("pmf")
    cdf = [0]
    for freq in freqs:
        cdf.append((cdf[-1] + total * freq // whole) % (1 << 32))
    cdf[-1] = total
    for i in range(len(freqs)):
        if cdf[i] != cdf[i + 1]:
            continue
        donors = [((b - a) % (1 << 32), j) for j, (a, b) in enumerate(zip(cdf, cdf[1:], strict=False))]
        _, donor = min((d for d in donors if d[0] > 1), default=(0, None))
        if donor is None:
            raise Refused("pmf")
        step, moved = (-1, range(donor + 1, i + 1)) if donor < i else (1, range(i + 1, donor + 1))
        for j in moved:
            cdf[j] += step
    return cdf
