"""The coder of CompressAI's streams: bytes that its own coder made, a plain twin, batches, steps, rows."""

import os
import random
import threading

import numpy as np
import plain_ans
import pytest
import torch
from ans_cases import Case, clean_row, gaussian_arrays, make_case

from ckbd import _ans

ROWS = [
    [0, 30000, 60000, 65000, 65536],
    [0, 1, 2, 3, 65000, 65536],
    [7, 60, 50000, 50010],
    [0, 32768, 65536, 65537, 131072],
]
SIZES = [len(row) for row in ROWS]
FAR = 1 << 27
# Made by compressai.ans 1.2.8: symbols, indexes, sizes, offsets, the stream.
GOLDEN = {
    "slots": ([0, 1, 2, 1, 0, 0, 1, 2, 1, 1, 0, 1], [0] * 12, SIZES, [0] * 4, "501032d37e3e0300"),
    "the state alone": ([0, 0, 0], [0] * 3, SIZES, [0] * 4, "801f643605000000"),
    "escapes": (
        [3, -1, 4, -2, 19, -17, 300, -300, 5000, -5000, 2],
        [0] * 11,
        SIZES,
        [0] * 4,
        "99fe8d941000000090e8af0d41ff493522ffbfe652b2fd0f42e39f29f4febfb4",
    ),
    "many digits": (
        [1 << 20, -(1 << 20), FAR - 1, -FAR, 1 - (1 << 24), 0xABCDE],
        [0, 1, 0, 1, 0, 1],
        SIZES,
        [0, -3, 0, 0],
        "defe7276ab524f1861fa9f721f77fe35fffffb8ffffffff6fdffff81a69b5701",
    ),
    "negative": (
        [-3, -2, -1, 0, 1, -3, -4, -9, 0],
        [1] * 9,
        SIZES,
        [0, -3, 0, 0],
        "00003ed8e2000000010002008c59034f79ff5025",
    ),
    "two rows": (
        [2, -1, 0, 4, -3, 1, 1, 0, -40, 9],
        [0, 1, 1, 0, 1, 0, 0, 1, 1, 0],
        SIZES,
        [0, -3, 0, 0],
        "0afcfb092c6d3700210000849294e68f",
    ),
    "neither from 0 nor to 2^16": (
        [0, 1, 1, 1, -1, 2, 9, 1, 0, 1],
        [2] * 10,
        SIZES,
        [0] * 4,
        "3b007030f5b900001152c39351c3b0ce",
    ),
    "beyond 2^16": ([0, 1, 0, 1, 1, 0, 0, 1], [3] * 8, [5, 5, 4, 4], [0] * 4, "00004d0080000000"),
    "shorter than it is": ([0, 1, 2, 0, 1, 5, 0, 0], [0] * 8, [4, 6, 4, 4], [0] * 4, "28012cc891784702"),
    "offsets wrap": (
        [-(1 << 31), (1 << 31) - 1, (1 << 31) - 2, 4 - (1 << 31)],
        [0] * 4,
        SIZES,
        [(1 << 31) - 2] * 4,
        "99f266b1f3ef0e00",
    ),
}
NONE = np.zeros(0, np.int32)


def ints(values):
    return np.array(values, np.int32)


def tables_of(case: Case) -> _ans.Tables:
    return _ans.Tables(*case.arrays())


def read(tables, stream, indexes):
    out = np.full(len(indexes), -123, np.int32)
    _ans.decode(tables, stream, ints(indexes), out)
    return out.tolist()


def check(case: Case) -> bytes:
    """The stream of a case, if it is the twin's, and every way of reading it gives the twin's symbols."""
    tables = tables_of(case)
    stream = plain_ans.encode(case.symbols, case.indexes, *case.tables)
    assert _ans.encode(tables, ints(case.symbols), ints(case.indexes)) == stream
    assert _ans.RansEncoder().encode_with_indexes(case.symbols, case.indexes, *case.tables) == stream
    try:
        expected = plain_ans.decode(stream, case.indexes, *case.tables)
    except plain_ans.Refused:
        with pytest.raises(ValueError):
            read(tables, stream, case.indexes)
        return stream
    assert read(tables, stream, case.indexes) == expected
    assert _ans.RansDecoder().decode_with_indexes(stream, case.indexes, *case.tables) == expected
    return stream


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name):
    symbols, indexes, sizes, offsets, stream = GOLDEN[name]
    case = Case(symbols, indexes, ROWS, sizes, offsets)
    assert check(case).hex() == stream
    assert read(tables_of(case), bytes.fromhex(stream), indexes) == symbols


def test_the_twin_agrees_on_clean_rows():
    for seed in range(400):
        case = make_case(random.Random(seed), odd=0)
        stream = check(case)
        assert read(tables_of(case), stream, case.indexes) == case.symbols


def test_the_twin_agrees_on_odd_rows():
    coded = 0
    for seed in range(400):
        case = make_case(random.Random(seed), odd=0.8)
        try:
            plain_ans.encode(case.symbols, case.indexes, *case.tables)
        except plain_ans.Refused as refused:
            with pytest.raises(ValueError, match=f"^{refused}: expected"):
                _ans.encode(tables_of(case), ints(case.symbols), ints(case.indexes))
            continue
        check(case)
        coded += 1
    assert coded > 40


def test_slots_at_the_borders_of_a_row():
    """States below 2^47 and above, so that they are looked up with and without a word to follow."""
    rng = random.Random(3)
    for row in ([0, 65535, 65536], [0, 1, 65536], *(clean_row(rng) for _ in range(20))):
        table = _ans.Tables(ints([row]), ints([len(row)]), ints([5]))
        borders = {entry + d for entry in rng.sample(row, min(len(row), 20)) for d in (-1, 0, 1)}
        for slot in sorted(borders.intersection(range(65536)) | {0, 65535} | set(rng.sample(range(65536), 20))):
            for high in (1 << 15, 1 << 40):
                stream = (high << 16 | slot).to_bytes(8, "little") + bytes([slot % 251] * 44)
                try:
                    expected = plain_ans.decode(stream, [0], [row], [len(row)], [5])
                except plain_ans.Refused:
                    with pytest.raises(ValueError, match="^stream: "):
                        read(table, stream, [0])
                else:
                    assert read(table, stream, [0]) == expected


def test_many_symbols_of_gaussian_tables():
    cdfs, sizes, offsets = gaussian_arrays()
    rng = np.random.default_rng(0)
    indexes = rng.integers(0, 64, 30000).astype(np.int32)
    symbols = np.rint(rng.normal(size=30000) * 0.11 * (256 / 0.11) ** (indexes / 63)).astype(np.int32)
    rows = [cdf[:size].tolist() for cdf, size in zip(cdfs, sizes, strict=True)]
    check(Case(symbols.tolist(), indexes.tolist(), rows, sizes.tolist(), offsets.tolist()))


def test_no_symbols_are_a_state():
    tables = _ans.Tables(np.zeros((0, 0), np.int32), NONE, NONE)
    assert _ans.encode(tables, NONE, NONE) == _ans.Encoder().flush() == (1 << 31).to_bytes(8, "little")
    _ans.decode(tables, bytes(8), NONE, NONE.copy())
    assert _ans.encode_rows(np.zeros((0, 3), np.int32), NONE) == (1 << 31).to_bytes(8, "little")


def batch(rng, count, n):
    case = make_case(rng, count * n, odd=0)
    return case, ints(case.symbols).reshape(count, n), ints(case.indexes).reshape(count, n)


@pytest.mark.parametrize("threads", [None, 1, 2, 3, 64])
@pytest.mark.parametrize("count, n", [(0, 7), (1, 500), (3, 0), (7, 30000)])
def test_batches_are_singles(count, n, threads):
    case, symbols, indexes = batch(random.Random(n), count, n)
    tables = tables_of(case)
    streams = _ans.encode_batch(tables, torch.from_numpy(symbols), indexes, threads=threads)
    assert streams == [_ans.encode(tables, s, k) for s, k in zip(symbols, indexes, strict=True)]
    out = np.full((count, n), -9, np.int32)
    _ans.decode_batch(tables, streams, torch.from_numpy(indexes), torch.from_numpy(out), threads=threads)
    assert np.array_equal(out, symbols)


def test_steps_are_one_stream():
    """Also with other tables in between, and with the stream held by nobody else."""
    for seed in range(60):
        rng = random.Random(seed)
        steps = [make_case(rng, rng.choice((0, 1, 3, 40)), odd=0) for _ in range(rng.randint(1, 5))]
        encoder, rows, flat = _ans.Encoder(), [], Case([], [], [], [], [])
        for step in steps:
            encoder.push(tables_of(step), ints(step.symbols), ints(step.indexes))
            flat.symbols.extend(step.symbols)
            flat.indexes.extend(k + len(rows) for k in step.indexes)
            for joined, part in zip(flat.tables, step.tables, strict=True):
                joined.extend(part)
            rows += step.cdfs
        stream = encoder.flush()
        assert stream == check(flat)
        assert encoder.flush() == _ans.Encoder().flush()
        decoder = _ans.Decoder(bytearray(stream))
        for step in steps:
            out = np.empty(len(step.symbols), np.int32)
            decoder.decode(tables_of(step), ints(step.indexes), out)
            assert out.tolist() == step.symbols


def test_a_step_that_fails_changes_nothing():
    case = make_case(random.Random(1), 50, odd=0)
    tables, symbols, indexes = tables_of(case), ints(case.symbols), ints(case.indexes)
    encoder = _ans.Encoder()
    encoder.push(tables, symbols[:20], indexes[:20])
    with pytest.raises(ValueError, match="^indexes: expected 0.."):
        encoder.push(tables, symbols[20:], np.full(30, 99, np.int32))
    encoder.push(tables, symbols[20:], indexes[20:])
    stream = encoder.flush()
    assert stream == check(case)
    decoder, out = _ans.Decoder(stream), np.empty(50, np.int32)
    with pytest.raises(ValueError, match="^indexes: .* at 7$"):
        decoder.decode(tables, np.concatenate((indexes[:7], ints([-1]))), out[:8])
    decoder.decode(tables, indexes, out)
    assert np.array_equal(out, symbols)


@pytest.mark.parametrize("n, m", [(1, 3), (5, 2), (300, 9)])
def test_a_row_for_each_symbol(n, m):
    rng = random.Random(n)
    rows = [sorted(rng.sample(range(65536), m)) for _ in range(n)]
    symbols = [rng.choice((*range(m - 1), -7, m + 1000, FAR - 1)) for _ in range(n)]
    stream = _ans.encode_rows(ints(rows), ints(symbols))
    assert stream == plain_ans.encode(symbols, range(n), rows, [m] * n, [0] * n)
    out = np.empty(n, np.int32)
    _ans.decode_rows(ints(rows), stream, out)
    assert out.tolist() == symbols


def test_tables_match_what_they_were_made_from():
    case = Case([], [], ROWS, [5, 6, 3, 0], [1, 2, 3, 4])
    cdfs, sizes, offsets = case.arrays()
    tables = _ans.Tables(cdfs, sizes, offsets)
    assert tables.matches(cdfs, sizes, offsets)
    cdfs[0, 5], cdfs[2, 3], cdfs[3] = 1, 1, 1  # behind the sizes
    assert tables.matches(cdfs, sizes, offsets)
    assert not tables.matches(cdfs[:3], sizes[:3], offsets[:3]) and not tables.matches(cdfs, sizes[:3], offsets)
    assert not tables.matches(cdfs[:, :5].copy(), sizes, offsets)
    for array, at in ((cdfs, (1, 5)), (cdfs, (0, 0)), (sizes, 3), (offsets, 0)):
        array[at] += 1
        assert not tables.matches(cdfs, sizes, offsets)
        array[at] -= 1
    assert tables.matches(cdfs, sizes, offsets)


def test_threads_share_tables_and_coders():
    case, symbols, indexes = batch(random.Random(8), 8, 5000)
    tables, results, encoder = tables_of(case), {}, _ans.Encoder()

    def work(b):
        stream, out = _ans.encode(tables, symbols[b], indexes[b]), np.empty(5000, np.int32)
        _ans.decode(tables, stream, indexes[b], out)
        encoder.push(tables, symbols[0], indexes[0])
        results[b] = np.array_equal(out, symbols[b])

    threads = [threading.Thread(target=work, args=(b,)) for b in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)
    assert encoder.flush() == _ans.encode(tables, np.tile(symbols[0], 8), np.tile(indexes[0], 8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_batches_across_a_fork():
    case, symbols, indexes = batch(random.Random(9), 4, 20000)
    tables = tables_of(case)
    expected = _ans.encode_batch(tables, symbols, indexes, threads=2)
    child = os.fork()
    if child == 0:
        os._exit(int(_ans.encode_batch(tables, symbols, indexes, threads=2) != expected))
    assert os.waitpid(child, 0)[1] == 0


def test_of_rows_the_first_that_is_wrong_is_named():
    rows, symbols = [[0, 10, 65536], [0, 65536, 0], [0, 10, 65536], [5, 5, 5]], [0, 0, -(2**31), 0]
    with pytest.raises(ValueError, match="^cdfs: .* at 1"):
        _ans.encode_rows(ints(rows), ints(symbols))
    with pytest.raises(ValueError, match="^symbols: .* at 1"):
        _ans.encode_rows(ints(rows[::2] + rows[3:]), ints([0, -(2**31), 0]))
