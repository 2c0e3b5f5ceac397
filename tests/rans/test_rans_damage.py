"""Payloads from outside: every cut, every flipped bit, noise, each rule of docs/format.md broken by hand.

Whatever they are, all instruction sets must find the same: the same error, or the same symbols.
"""

import functools

import numpy as np
import pytest
from rans_cases import DTYPES, ISAS, TABLES, batch_outcomes, failed, make_phase, make_z, outcome, to_decode

from ckbd import _rans

FIELDS = {"lane states", "exceptions", "escapes", "words", "tail", "end state"}
OTHERS = [isa for isa in ISAS if isa != "plain"]


def check_all(coded, n_z, ks, dtype=np.int16):
    """The outcome of a stream, which must be the same in all instruction sets, in one call and in steps."""
    found = outcome(*coded, n_z, ks, dtype=dtype, isa="plain")
    for isa in OTHERS:
        assert outcome(*coded, n_z, ks, dtype=dtype, isa=isa) == found
    assert outcome(*coded, n_z, ks, dtype=dtype, steps=True) == found
    if failed(found):
        message, field, offset = found
        assert message and field in FIELDS and 0 <= offset <= len(coded[0])
        assert str(_rans.StreamError(*found)) == f"{field} at byte {offset} of the payload: {message}"
    return found


def damaged(payload):
    """Every cut and every flip of a bit: (what, payload)."""
    for size in range(len(payload)):
        yield f"cut at {size}", payload[:size]
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit}", bytes(flipped)


@functools.cache
def stream(kind, lanes, dtype):
    """(coded, z, phases) of a small picture, whose last phase ends with what keeps so many lanes busy."""
    rng = np.random.default_rng((lanes, len(kind)))
    z, n = np.zeros(8, np.int16), 40
    if kind == "words":  # and nothing else
        k = rng.integers(2, 64, (2, n))
        r = rng.integers(-1, 2, (2, n)) * (k > 4)
    elif kind == "exceptions":
        k = np.where(rng.random((2, n)) < 0.4, rng.integers(0, 3, (2, n)), rng.integers(10, 64, (2, n)))
        r = rng.integers(-1, 2, (2, n)) * rng.integers(1, 4, (2, n))
    elif kind == "escapes":
        k = rng.integers(3, 64, (2, n))
        r = np.where(rng.random((2, n)) < 0.2, rng.integers(-128, 128, (2, n)), 0)
        z = make_z(rng, 5)
    elif kind == "far":  # more than a coder holds at a time, few of them coded, most of these at its borders
        k = np.zeros((2, 16384 + 200), int)
        coded = [*range(50, 66), *range(8180, 8200), *range(16370, 16390), 16500, 16583]
        k[:, coded] = rng.integers(3, 64, (2, len(coded)))
        r = np.where(k > 0, rng.integers(-1, 2, k.shape), 0)
        r[:, (8185, 8190, 16375, 16380)] = 120
        r[1, (5, 8191, 16383)] = -1, 1, 2
    ends = [([], []), ([63] * 3 * lanes, np.rint(rng.normal(size=3 * lanes) * 50).clip(-126, 126))]
    phases = []
    for (k_end, r_end), *both in zip(ends, k, r, strict=True):
        phases.append((np.append(both[0], k_end).astype(np.uint8), np.append(both[1], r_end).astype(dtype)))
    return _rans.encode(TABLES, z, phases, lanes=lanes, skip_max=2), z, phases


KINDS = ["words", "exceptions", "escapes"]
CASES = [(kind, lanes) for kind in KINDS for lanes in (1, 4, 16, 32)] + [("far", 4), ("far", 32)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind, lanes", CASES)
def test_damage_ends_well(kind, lanes, dtype):
    """Cut anywhere, or any bit flipped: an error with a place, or other symbols (a CRC above finds those)."""
    (payload, *header), z, phases = stream(kind, lanes, dtype)
    assert 1 << header[0] == lanes and len(payload) < 400
    ks, silent = [k for k, _ in phases], 0
    right = check_all((payload, *header), len(z), ks, dtype)
    assert right == (z.tobytes(), *(r.tobytes() for _, r in phases))
    for what, wrong in damaged(payload):
        found = check_all((wrong, *header), len(z), ks, dtype)
        assert found != right, what
        assert failed(found) or len(wrong) == len(payload), what
        silent += not failed(found)
    assert silent < 8 * len(payload) / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind, lanes", CASES)
def test_damage_stays_with_its_stream(kind, lanes, dtype):
    """The same beside another stream: one that is good, or one that is damaged too."""
    (payload, *header), z, phases = stream(kind, lanes, dtype)
    ks, n_z = [k for k, _ in phases], len(z)
    coded, z, phases = stream("escapes", 32, dtype)
    good = coded, len(z), [k for k, _ in phases]
    right = outcome(*coded, *good[1:], dtype=dtype)
    before = None
    for number, (what, wrong) in enumerate(damaged(payload)):
        if kind == "far" and number % 3:
            continue
        this = (wrong, *header), n_z, ks
        found = outcome(wrong, *header, n_z, ks, dtype=dtype, isa="plain")
        pairs = [[(this, found), (good, right)][:: -1 if number % 2 else 1]]
        if before is not None:
            pairs.append([before, (this, found)])
        for isa in ISAS:
            for pair in pairs:
                images = [to_decode(*one, dtype) for one, _ in pair]
                errors = _rans.decode_batch(TABLES, images, threads=1, isa=isa)
                assert batch_outcomes(images, errors) == [expected for _, expected in pair], what
        before = this, found


@pytest.mark.parametrize("lanes", [1, 4, 32])
def test_wrong_headers_end_well(lanes):
    rng = np.random.default_rng(lanes)
    z, phases = make_z(rng, 5), [make_phase(rng, 150), make_phase(rng, 150)]
    payload, lanes_log2, skip_max, tail = _rans.encode(TABLES, z, phases, lanes=lanes, skip_max=1)
    ks = [k for k, _ in phases]
    for other in set(range(6)) - {lanes_log2}:
        check_all((payload, other, skip_max, tail), len(z), ks)
    for other in set(range(16)) - {skip_max}:
        check_all((payload, lanes_log2, other, tail), len(z), ks)
    for other in range(1, 300):
        check_all((payload, lanes_log2, skip_max, other), len(z), ks)
    for other in (301, 2**32 - 1) if lanes == 1 else (0, lanes - 2, 301, 2**32 - 1):
        assert failed(check_all((payload, lanes_log2, skip_max, other), len(z), ks))


def test_noise_ends_well():
    rng = np.random.default_rng(1)
    ks = [rng.integers(0, 64, 100).astype(np.uint8) for _ in range(2)]
    for size in range(300):
        noise = rng.integers(0, 256, size).astype(np.uint8)
        if size % 2:
            noise[20:] %= 4  # short lists, so that the words are reached
        check_all((noise, int(rng.integers(6)), int(rng.integers(16)), int(rng.integers(40))), 8, ks)


@pytest.mark.parametrize("n", [1, 300])  # in the tail, and before it
@pytest.mark.parametrize("k, field", [(0, "exceptions"), (12, "escapes"), (30, "escapes"), (63, "escapes")])
def test_a_symbol_that_int8_does_not_hold(k, field, n):
    for value in (-128, 127, -129, 128, -32768, 32767):
        ks, r = [np.full(n, k, np.uint8)], np.full(n, 0, np.int16)
        r[0] = value
        coded = _rans.encode(TABLES, np.zeros(0, np.int16), [(ks[0], r)], lanes=4, skip_max=0)
        found = check_all(coded, 0, ks, np.int8)
        if -128 <= value <= 127:
            assert found == (b"", r.astype(np.int8).tobytes())
        else:
            message, where, offset = found
            assert message == f"a symbol of {value} is outside int8"
            assert where == field and 0 < offset < len(coded[0])
        assert check_all(coded, 0, ks, np.int16) == (b"", r.tobytes())


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
    assert check_all((bytes.fromhex(payload), 0, 1, 0), 0, ks)[1:] == (field, offset)


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
    assert check_all((payload, lanes_log2, 1, tail), 0, ks)[1] == "tail"


def test_lanes_above_their_words():
    """A lane at 2^17 + w instead of 2^16 + w, with a phase that is all tail: the word w alone does not tell."""
    ks = EMPTY, np.full(8, 63, np.uint8)
    phases = [(k, np.full(len(k), 100, np.int16)) for k in ks]
    for n in range(1, 9):
        cut = [(k[:n], r[:n]) for k, r in phases]
        payload, lanes_log2, _, tail = _rans.encode(TABLES, np.empty(0, np.int16), cut, lanes=2, skip_max=1)
        if (lanes_log2, tail) == (1, n):
            break
    assert not failed(check_all((payload, 1, 1, n), 0, [k[:n] for k in ks]))
    number, at = int.from_bytes(payload, "little"), 20 + (payload[0] & 15)
    end = at + 20
    word = number >> at + 4 & 0xFFFF
    states = number & ((1 << at) - 1) | (1 | word << 4) << at
    changed = states.to_bytes(-(-(end + 1) // 8), "little") + payload[-(-end // 8) :]
    assert check_all((changed, 1, 1, n), 0, [k[:n] for k in ks])[1:] == ("tail", len(changed))


def test_no_use_after_an_error():
    decoder = _rans.Decoder(TABLES, bytes(6), lanes_log2=0, skip_max=1, tail=0)
    decoder.z(np.empty(0, np.int16))
    with pytest.raises(_rans.StreamError):
        decoder.phase(K40, np.empty(3, np.int16))
    with pytest.raises(RuntimeError, match="after a failed one"):
        decoder.phase(K40, np.empty(3, np.int16))
