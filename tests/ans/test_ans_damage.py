"""What CompressAI's coder is given that it must refuse: damaged streams, bad tables, arguments of other kinds."""

import random
import re

import numpy as np
import plain_ans
import pytest
import torch
from ans_cases import damaged, make_case
from ans_ways import decode_arrays, decode_lists

from ckbd import _ans

ROW = [0, 30000, 60000, 65000, 65536]
CDFS, SIZES, OFFSETS = np.array([ROW, ROW], np.int32), np.array([5, 5], np.int32), np.array([0, -2], np.int32)
TABLES = _ans.Tables(CDFS, SIZES, OFFSETS)
SYMBOLS, INDEXES = np.array([1, -2, 0, 1, 2, -1], np.int32), np.array([0, 1, 0, 1, 0, 1], np.int32)
STREAM = _ans.encode(TABLES, SYMBOLS, INDEXES)
BATCH = np.stack((SYMBOLS, SYMBOLS)), np.stack((INDEXES, INDEXES))


def every_way(stream, case):
    """What decoding makes of a stream, which must be the same in every way of asking."""
    expected = decode_arrays(stream, case, 7)
    assert decode_lists(stream, case, 7, _ans.RansDecoder()) == expected
    return expected


def test_every_truncation():
    case = make_case(random.Random(4), 60, odd=0)
    stream = plain_ans.encode(case.symbols, case.indexes, *case.tables)
    for size in range(len(stream)):
        assert every_way(stream[:size], case) == "stream"
    assert every_way(stream + b"more", case) == case.symbols


def test_every_bit_flip():
    case = make_case(random.Random(2), 17, odd=0)
    stream = plain_ans.encode(case.symbols, case.indexes, *case.tables)
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        every_way(bytes(flipped), case)


def test_damage_with_all_kinds_of_rows():
    found = set()
    for seed in range(1500):
        rng = random.Random(seed)
        case = make_case(rng, odd=0.4)
        try:
            stream = plain_ans.encode(case.symbols, case.indexes, *case.tables)
        except plain_ans.Refused:
            stream = rng.randbytes(200)
        result = every_way(damaged(rng, stream), case)
        found.add(result if isinstance(result, str) else "symbols")
    assert found == {"symbols", "stream", "cdfs"}


@pytest.mark.parametrize("digits", range(16))
def test_escapes_of_many_digits(digits):
    """Up to 8 digits make 32 bits, of which the last is a sign; more are refused, also where upstream goes on."""
    row = [0, 1, 65535]
    case = make_case(random.Random(0), 1)._replace(indexes=[0], cdfs=[row], sizes=[3], offsets=[-2])
    for raw in (0, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x80000001):
        steps = [(1, 65534, 16), (digits, 1, 4), *((raw >> 4 * j & 15, 1, 4) for j in range(digits))]
        state, words = plain_ans.LOW, []
        for start, freq, bits in reversed(steps):
            if state >= freq << (63 - bits):
                words.append(state % (1 << 32))
                state >>= 32
            state = (state // freq << bits) + state % freq + start
        stream = state.to_bytes(8, "little") + b"".join(word.to_bytes(4, "little") for word in reversed(words))
        result = every_way(stream, case)
        assert (result == "stream") == (digits > 8)
        if digits == 8:
            signed = plain_ans.int32(raw)
            assert result == [plain_ans.int32((-(signed >> 1) - 1 if raw & 1 else (signed >> 1) + 1) - 2)]


REFUSED_ROWS = [
    ("sizes: expected 2..5 for the row of symbol at 3, got 1", CDFS, [5, 1], OFFSETS),
    ("sizes: expected 2..5 for the row of symbol at 3, got 6", CDFS, [5, 6], OFFSETS),
    ("sizes: expected 2..5 for the row of symbol at 3, got -2147483648", CDFS, [5, -(1 << 31)], OFFSETS),
    (
        "cdfs: expected a frequency of 1..65535 for symbol at 3, got 0 in slot 1",
        [ROW, [0, 9, 9, 10, 11]],
        SIZES,
        [0] * 2,
    ),
    (
        "cdfs: expected a frequency of 1..65535 for symbol at 3, got -5 in slot 1",
        [ROW, [0, 9, 4, 10, 11]],
        SIZES,
        [0] * 2,
    ),
    (
        "cdfs: expected a frequency of 1..65535 for symbol at 3, got 65536 in slot 1",
        [ROW, [0, 0, 65536, 65537, 65538]],
        SIZES,
        [0] * 2,
    ),
    (
        "symbols: expected less than 2^27 below or above what the row has, got 1 at 3",
        CDFS,
        SIZES,
        [0, 2 + (1 << 27)],
    ),
    (
        "symbols: expected less than 2^27 below or above what the row has, got 1 at 3",
        CDFS,
        SIZES,
        [0, -2 - (1 << 27)],
    ),
]


@pytest.mark.parametrize("message, cdfs, sizes, offsets", REFUSED_ROWS)
def test_rows_that_cannot_code_a_symbol(message, cdfs, sizes, offsets):
    arrays = [np.array(a, np.int32) for a in (cdfs, sizes, offsets)]
    tables, symbols, indexes = _ans.Tables(*arrays), np.ones(5, np.int32), np.array([0, 0, 0, 1, 1], np.int32)
    lists = [a.tolist() for a in (symbols, indexes, *arrays)]
    for call in (
        lambda: _ans.encode(tables, symbols, indexes),
        lambda: _ans.Encoder().push(tables, symbols, indexes),
        lambda: _ans.RansEncoder().encode_with_indexes(*lists),
        lambda: _ans.BufferedRansEncoder().encode_with_indexes(*lists),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()
    # Who uses it not, sees nothing of it.
    assert len(_ans.encode(tables, symbols[:3], indexes[:3])) >= 8


@pytest.mark.parametrize("index", [-(1 << 31), -1, 2, (1 << 31) - 1])
def test_indexes_of_no_row(index):
    indexes = INDEXES.copy()
    indexes[4] = index
    out, lists = np.empty_like(INDEXES), [CDFS.tolist(), SIZES.tolist(), OFFSETS.tolist()]
    for call in (
        lambda: _ans.encode(TABLES, SYMBOLS, indexes),
        lambda: _ans.decode(TABLES, STREAM, indexes, out),
        lambda: _ans.RansEncoder().encode_with_indexes(SYMBOLS, indexes, *lists),
        lambda: _ans.RansDecoder().decode_with_indexes(STREAM, indexes, *lists),
    ):
        with pytest.raises(ValueError, match=rf"^indexes: expected 0\.\.1, got {index} at 4$"):
            call()
    with pytest.raises(ValueError, match=r"^indexes: expected none, as there are no tables, got 0 at 0$"):
        _ans.RansDecoder().decode_with_indexes(STREAM, [0], [], [], [])


def test_a_batch_names_the_first_that_fails():
    symbols, indexes = BATCH[0].copy(), BATCH[1].copy()
    indexes[1, 2] = 7
    with pytest.raises(ValueError, match=r"^indexes\[1\]: expected 0\.\.1, got 7 at 2$"):
        _ans.encode_batch(TABLES, symbols, indexes)
    with pytest.raises(ValueError, match=r"^streams\[0\]: expected 8 bytes or more, got 3$"):
        _ans.decode_batch(TABLES, [b"abc", b""], BATCH[1], symbols)


def test_a_decoder_without_a_stream():
    decoder = _ans.RansDecoder()
    with pytest.raises(ValueError, match="^stream: "):
        decoder.decode_stream([0], [ROW], [5], [0])
    decoder.set_stream(STREAM)
    with pytest.raises(ValueError, match="^stream: expected 8 bytes or more, got 7$"):
        decoder.set_stream(STREAM[:7])
    lists = CDFS.tolist(), SIZES.tolist(), OFFSETS.tolist()
    with pytest.raises(ValueError, match="^indexes: "):
        decoder.decode_stream([0, 1, 5], *lists)
    assert decoder.decode_stream(INDEXES.tolist(), *lists) == SYMBOLS.tolist()


# ---- arguments of other kinds

WRONG = {
    "int64": lambda a: a.astype(np.int64),
    "uint32": lambda a: a.astype(np.uint32),
    "float32": lambda a: a.astype(np.float32),
    "with gaps": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "one axis more": lambda a: a[None],
    "one less": lambda a: a[..., :-1].copy(),
    "list": lambda a: a.tolist(),
    "none": lambda a: None,
    "other byte order": lambda a: a.astype(">i4"),
    "gradient": lambda a: torch.ones(a.shape, requires_grad=True),
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(np.int32).reshape(a.shape),
}
OUT = np.zeros(6, np.int32)
CALLS = {
    "sizes": lambda wrong: _ans.Tables(CDFS, wrong(SIZES), OFFSETS),
    "offsets": lambda wrong: _ans.Tables(CDFS, SIZES, wrong(OFFSETS)),
    "indexes": lambda wrong: _ans.encode(TABLES, SYMBOLS, wrong(INDEXES)),
    "indexes ": lambda wrong: _ans.encode_batch(TABLES, BATCH[0], wrong(BATCH[1])),
    "indexes  ": lambda wrong: _ans.Encoder().push(TABLES, SYMBOLS, wrong(INDEXES)),
    "out": lambda wrong: _ans.decode(TABLES, STREAM, INDEXES, wrong(OUT)),
    "out ": lambda wrong: _ans.decode_batch(TABLES, [STREAM] * 2, BATCH[1], wrong(np.zeros((2, 6), np.int32))),
    "out  ": lambda wrong: _ans.Decoder(STREAM).decode(TABLES, INDEXES, wrong(OUT)),
    "out   ": lambda wrong: _ans.scale_indexes(np.ones(6, np.float32), np.ones(3, np.float32), 0.1, wrong(OUT)),
    "out    ": lambda wrong: _ans.symbols_of(np.ones(6, np.float32), None, wrong(OUT)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_arrays(kind, name):
    with pytest.raises(ValueError, match=f"^{name.strip()}: expected "):
        CALLS[name](WRONG[kind])


def test_streams_of_other_kinds():
    for stream in ("text", [1, 2], np.zeros(4, np.int16), np.zeros((2, 8), np.uint8), None, 7):
        for call in (
            lambda s=stream: _ans.decode(TABLES, s, INDEXES, OUT),
            lambda s=stream: _ans.Decoder(s),
            lambda s=stream: _ans.decode_rows(np.zeros((6, 5), np.int32), s, OUT),
        ):
            with pytest.raises(ValueError, match="^stream: expected "):
                call()
    for streams in (None, 7, [STREAM], [STREAM] * 3, [STREAM, "text"]):
        with pytest.raises(ValueError, match="^streams"):
            _ans.decode_batch(TABLES, streams, BATCH[1], np.zeros((2, 6), np.int32))
    for threads in (0, -1, 257, 1.5, "2"):
        with pytest.raises(ValueError, match="^threads: expected "):
            _ans.encode_batch(TABLES, *BATCH, threads=threads)
    for tables in (None, 3):
        with pytest.raises(TypeError):
            _ans.Encoder().push(tables, SYMBOLS, INDEXES)


def test_outputs_are_written_apart_from_inputs():
    read_only, both = np.zeros(6, np.int32), np.zeros(12, np.int32)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="^out: expected a writable array"):
        _ans.decode(TABLES, STREAM, INDEXES, read_only)
    for call in (
        lambda: _ans.decode(TABLES, STREAM, both[:6], both[5:11]),
        lambda: _ans.decode(TABLES, both.view(np.uint8)[:24], INDEXES, both[:6]),
        lambda: _ans.Decoder(both.view(np.uint8)).decode(TABLES, INDEXES, both[6:]),
        lambda: _ans.decode_batch(TABLES, [STREAM] * 2, both.reshape(2, 6), both.reshape(2, 6)),
        lambda: _ans.decode_rows(np.zeros((6, 2), np.int32), both.view(np.uint8), both[:6]),
        lambda: _ans.symbols_of(both[:6].view(np.float32), None, both[:6]),
        lambda: _ans.symbols_of(np.zeros(6, np.float32), both[:6].view(np.float32), both[:6]),
        lambda: _ans.scale_indexes(both[:6].view(np.float32), np.ones(3, np.float32), 0.1, both[1:7]),
    ):
        with pytest.raises(ValueError, match="^out: expected outputs apart"):
            call()
    _ans.decode(TABLES, STREAM, INDEXES, both[3:9])
    assert both.tolist() == [0, 0, 0, *SYMBOLS.tolist(), 0, 0, 0]
