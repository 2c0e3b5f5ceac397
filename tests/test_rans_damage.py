"""Payloads from outside: every cut, every flipped bit, noise, each rule of docs/format.md broken by hand."""

import numpy as np
import pytest
from rans_cases import TABLES, decode, make_phase, make_z

from ckbd import _rans

FIELDS = {"lane states", "exceptions", "escapes", "words", "tail", "end state"}


def outcome(*args, **kwargs):
    """What a decoder makes of it: None, or (field, offset)."""
    try:
        decode(*args, **kwargs)
    except _rans.StreamError as error:
        assert error.args == (error.args[0], error.field, error.offset)
        assert error.field in FIELDS and error.field in str(error) and str(error.offset) in str(error)
        return error.field, error.offset
    return None


@pytest.mark.parametrize("lanes, skip_max", [(1, 0), (4, 2), (32, 1)])
def test_damage_ends_well(lanes, skip_max):
    """Cut anywhere, or any bit flipped: an error with a place, or other symbols (a CRC above finds those)."""
    rng = np.random.default_rng(lanes)
    z, phases = make_z(rng, 5), [make_phase(rng, 150), make_phase(rng, 150)]
    payload, lanes_log2, tail = _rans.encode(TABLES, z, phases, lanes=lanes, skip_max=skip_max)
    ks = [k for k, _ in phases]
    for size in range(len(payload)):
        found = outcome(payload[:size], lanes_log2, tail, skip_max, len(z), ks)
        assert found is not None and found[1] <= size, f"cut at {size}"
    silent = 0
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        found = outcome(flipped, lanes_log2, tail, skip_max, len(z), ks)
        assert found is None or found[1] <= len(payload)
        silent += found is None
    assert silent < 8 * len(payload) / 2
    for other in range(6):
        outcome(payload, other, tail, skip_max, len(z), ks)
    for other in range(1, 300):
        outcome(payload, lanes_log2, other, skip_max, len(z), ks)
    for other in (301, 2**32 - 1) if lanes == 1 else (0, lanes - 2, 301, 2**32 - 1):
        assert outcome(payload, lanes_log2, other, skip_max, len(z), ks) is not None


def test_noise_ends_well():
    rng = np.random.default_rng(1)
    ks = [rng.integers(0, 64, 100).astype(np.uint8) for _ in range(2)]
    for size in range(300):
        noise = rng.integers(0, 256, size).astype(np.uint8)
        if size % 2:
            noise[20:] %= 4  # short lists, so that the words are reached
        outcome(noise, int(rng.integers(6)), int(rng.integers(40)), int(rng.integers(16)), 8, ks)


K0, K40 = np.zeros(3, np.uint8), np.full(3, 40, np.uint8)
EMPTY = np.zeros(0, np.uint8)


@pytest.mark.parametrize(
    "payload, ks, field, offset",
    [
        ("", (EMPTY, EMPTY), "lane states", 0),
        ("0000", (EMPTY, EMPTY), "lane states", 2),
        ("000010 00 00 00", (EMPTY, EMPTY), "lane states", 2),
        ("000000", (EMPTY, EMPTY), "exceptions", 3),
        ("000000 80", (EMPTY, EMPTY), "exceptions", 3),
        ("000000 8000 00 00", (EMPTY, EMPTY), "exceptions", 3),
        ("000000 ffffffff1f 00 00", (EMPTY, EMPTY), "exceptions", 3),
        ("000000 ffffffffff00 00 00", (EMPTY, EMPTY), "exceptions", 3),
        ("000000 ffffffff0f" + "00" * 10, (EMPTY, EMPTY), "exceptions", 18),
        ("000000 8080808008" + "00" * 10, (EMPTY, EMPTY), "exceptions", 18),
        ("000000 00 05", (EMPTY, EMPTY), "exceptions", 5),  # no b
        ("000000 01 19 00 00 00", (K0, EMPTY), "exceptions", 4),  # b = 25
        ("000000 01 00", (K0, EMPTY), "exceptions", 5),  # no bits
        ("000000 01 00 ff", (K0, EMPTY), "exceptions", 6),  # a gap without end
        ("000000 01 00 fc", (K0, EMPTY), "exceptions", 6),  # a size without end
        ("000000 01 00 08 00 00", (K0, EMPTY), "exceptions", 5),  # the padding
        ("000000 01 00 07 00 00", (K0, EMPTY), "exceptions", 5),  # the fourth of three
        ("000000 02 00 18 00 00", (K0, EMPTY), "exceptions", 6),  # the same, after one that is there
        ("000000 01 18 feffff01 00 00", (K0, EMPTY), "exceptions", 5),  # 2^24 - 1 away
        ("000000 00 01 00 00 00", (EMPTY, K40), "exceptions", 6),  # none is skipped
        ("000000 01 00 fcff03" + "00" * 9, (K0, EMPTY), "exceptions", 7),  # m = 16
        ("000000 01 00 fcff010000 00 00", (K0, EMPTY), "exceptions", 5),  # r = 2^15
        ("000000 01 00 feff050000 00 00", (K0, EMPTY), "exceptions", 5),  # r = -2^15 - 1
        ("000000 00 00", (EMPTY, EMPTY), "escapes", 5),
        ("000000 00 00 7f", (EMPTY, EMPTY), "escapes", 5),
        ("000000 00 00 01 80", (EMPTY, EMPTY), "escapes", 6),
        ("000000 00 00 01 05", (EMPTY, EMPTY), "escapes", 6),
        ("f0ff00 00 00 00 0000", (K40, EMPTY), "escapes", 6),
        ("f0ff00 00 00 01 ffffffff0f 0000", (K40, EMPTY), "escapes", 6),
        ("000000 00 00 00 00", (EMPTY, EMPTY), "words", 6),
        ("000000 00 00 00 00000000", (EMPTY, EMPTY), "words", 6),
        ("000000 00 00 00", (K40, EMPTY), "words", 6),
        ("100000 00 00 00", (EMPTY, EMPTY), "end state", 6),
    ],
)
def test_damage_is_named(payload, ks, field, offset):
    assert outcome(bytes.fromhex(payload), 0, 0, 1, 0, ks) == (field, offset)


@pytest.mark.parametrize(
    "payload, lanes_log2, tail, ks",
    [
        ("000000 00 00 00", 0, 1, (EMPTY, K40)),  # one lane has none
        ("0000000000 00 00 00", 1, 0, (EMPTY, K40[:0])),  # two lanes have one
        ("0000000000 00 00 00", 1, 4, (K40, K40)),  # more than the symbols
        ("000010000000 00 00 00", 1, 0, (EMPTY, EMPTY)),  # the other lane is at 2^17
    ],
)
def test_damaged_tail_is_named(payload, lanes_log2, tail, ks):
    payload = bytes.fromhex(payload) + bytes(2 * len(ks[0]))
    assert outcome(payload, lanes_log2, tail, 1, 0, ks)[0] == "tail"


def test_lanes_above_their_words():
    """A lane at 2^17 + w instead of 2^16 + w, with a phase that is all tail: the word w alone does not tell."""
    ks = EMPTY, np.full(8, 63, np.uint8)
    phases = [(k, np.full(len(k), 100, np.int16)) for k in ks]
    for n in range(1, 9):
        cut = [(k[:n], r[:n]) for k, r in phases]
        payload, lanes_log2, tail = _rans.encode(TABLES, np.empty(0, np.int16), cut, lanes=2)
        if (lanes_log2, tail) == (1, n):
            break
    assert outcome(payload, 1, n, 1, 0, [k[:n] for k in ks]) is None
    number, at = int.from_bytes(payload, "little"), 20 + (payload[0] & 15)
    end = at + 20
    word = number >> at + 4 & 0xFFFF
    states = number & ((1 << at) - 1) | (1 | word << 4) << at
    changed = states.to_bytes(-(-(end + 1) // 8), "little") + payload[-(-end // 8) :]
    assert outcome(changed, 1, n, 1, 0, [k[:n] for k in ks]) == ("tail", len(changed))


def test_no_use_after_an_error():
    decoder = _rans.Decoder(TABLES, bytes(6), lanes_log2=0, skip_max=1, tail=0)
    decoder.z(np.empty(0, np.int16))
    with pytest.raises(_rans.StreamError):
        decoder.phase(K40, np.empty(3, np.int16))
    with pytest.raises(RuntimeError, match="after a failed one"):
        decoder.phase(K40, np.empty(3, np.int16))
