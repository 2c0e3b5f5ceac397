"""CompressAI's coder against its plain twin: any rows, broken ones too, any symbols, any stream."""

import re

import numpy as np
import plain_ans
from ans_cases import TOTAL, Case, cumulative
from hypothesis import given
from hypothesis import strategies as st
from strategies import damaged, edged, edits, examples

from ckbd import _ans

FAR = 1 << 27
INT32 = edged(-(1 << 31), (1 << 31) - 1, 0, -FAR, FAR)
NEAR = edged(-40, 40, 0) | st.integers(-FAR, FAR - 1)
ENDS = st.integers(-FAR - 3, 3 - FAR) | INT32
weights = st.lists(st.sampled_from((0.0, 1e-9, 0.1, 1.0, 50.0)), min_size=2, max_size=20)
clean = st.one_of(
    weights.filter(any).map(cumulative),
    st.lists(st.integers(1, TOTAL - 1), min_size=1, max_size=9, unique=True).map(lambda v: [0, *sorted(v), TOTAL]),
    st.lists(st.integers(0, TOTAL), min_size=3, max_size=9, unique=True).map(sorted),
)
odd = st.lists(edged(-TOTAL, 3 * TOTAL, 0, TOTAL) | INT32, min_size=1, max_size=6)


@st.composite
def cases(draw, rows=clean):
    cdfs = draw(st.lists(rows, min_size=1, max_size=4))
    widest, other = max(map(len, cdfs)), rows is not clean
    sizes = [draw(st.just(n) | edged(-1, n) | st.just(widest + 1)) if other else n for n in map(len, cdfs)]
    offsets = [draw(st.integers(-9, 9) | INT32) for _ in cdfs]
    places = st.integers(0, len(cdfs) - 1) | (st.sampled_from((-1, len(cdfs))) if other else st.nothing())
    pairs = draw(st.lists(st.tuples(places, NEAR), max_size=25))
    if draw(st.booleans()):  # one only: a single symbol too far is enough to refuse all
        i = draw(places)
        last = FAR - 1 + len(cdfs[i % len(cdfs)]) - 2  # that the row's escape has digits for
        pairs.insert(draw(st.integers(0, len(pairs))), (i, draw(ENDS | st.integers(last - 1, last + 2))))
    symbols = [plain_ans.int32(symbol + offsets[i % len(cdfs)]) for i, symbol in pairs]
    return Case(symbols, [i for i, _ in pairs], cdfs, sizes, offsets)


def outcome(call):
    """What it gives, or which argument was refused."""
    try:
        return call()
    except plain_ans.Refused as refused:
        return str(refused).removesuffix("s")
    except ValueError as error:
        return re.match(r"(?:Invalid `)?(\w+?)s?(\[\d+\])*[`:]", str(error))[1]


def ints(values):
    return np.array(values, np.int32)


def faults(case):
    """What may be refused in a case of which something must be: who goes backwards finds another fault first."""
    found = set()
    for symbol, i in zip(case.symbols, case.indexes, strict=True):
        one = outcome(lambda symbol=symbol, i=i: plain_ans.encode([symbol], [i], *case.tables))
        found |= {one} if isinstance(one, str) else set()
        far = 0 <= i < len(case.offsets) and abs(plain_ans.int32(symbol - case.offsets[i])) > FAR
        found |= {"symbol"} if far else set()
    return found


def encoded(case):
    """The stream of a case, the same by every way and the twin, or what the twin refuses and all others do."""
    symbols, indexes = ints(case.symbols), ints(case.indexes)
    tables = _ans.Tables(*case.arrays())
    half = len(symbols) // 2

    def in_steps():
        encoder = _ans.Encoder()
        for part in (slice(half), slice(half, None)):
            encoder.push(tables, symbols[part], indexes[part])
        return encoder.flush()

    def batch():
        pair = (np.stack((a, a)) for a in (symbols, indexes))
        one, other = _ans.encode_batch(tables, *pair, threads=2)
        assert one == other
        return one

    def lists():
        return _ans.RansEncoder().encode_with_indexes(case.symbols, case.indexes, *case.tables)

    want = outcome(lambda: plain_ans.encode(case.symbols, case.indexes, *case.tables))
    for way in (lambda: _ans.encode(tables, symbols, indexes), in_steps, batch, lists):
        got = outcome(way)
        assert got == want or (isinstance(want, str) and got in faults(case))
    return want


def decoded(stream, case):
    """The symbols of a stream, or what was refused, which is the same by every way and the twin."""
    tables, indexes = _ans.Tables(*case.arrays()), ints(case.indexes)
    out = np.empty((2, len(indexes)), np.int32)

    def whole():
        _ans.decode(tables, stream, indexes, out[0])
        return out[0].tolist()

    def batch():
        _ans.decode_batch(tables, [stream] * 2, np.stack((indexes, indexes)), out, threads=2)
        assert (out[0] == out[1]).all()
        return out[1].tolist()

    def in_steps():
        decoder = _ans.Decoder(stream)
        for i in range(0, len(indexes), 3):
            decoder.decode(tables, indexes[i : i + 3], out[0, i : i + 3])
        return out[0].tolist()

    def lists():
        return _ans.RansDecoder().decode_with_indexes(stream, case.indexes, *case.tables)

    want = outcome(lambda: plain_ans.decode(stream, case.indexes, *case.tables))
    for way in (whole, batch, in_steps, lists):
        assert outcome(way) == want
    return want


@examples(90)
@given(cases())
def test_symbols_come_back(case):
    stream = encoded(case)
    pairs = zip(case.symbols, case.indexes, strict=True)
    farthest = max((abs(plain_ans.int32(symbol - case.offsets[i])) for symbol, i in pairs), default=0)
    if farthest < FAR:
        assert decoded(stream, case) == case.symbols
    elif farthest > FAR + 40:
        assert stream == "symbol"


@examples(90)
@given(cases(clean | odd))
def test_broken_rows_are_refused_alike(case):
    stream = encoded(case)
    if isinstance(stream, bytes):
        decoded(stream, case)


@examples(90)
@given(cases() | cases(clean | odd), edits, st.binary(max_size=60))
def test_damaged_and_foreign_streams_are_read_alike(case, changes, foreign):
    stream = encoded(case)
    if isinstance(stream, bytes):
        decoded(damaged(stream, changes), case)
    decoded(foreign, case)


@examples(50)
@given(st.lists(cases(), min_size=1, max_size=3), st.integers(1, 5))
def test_streams_of_several_tables_are_read_in_steps_of_any_size(parts, step):
    encoder, stepped = _ans.Encoder(), []
    for case in parts:
        tables = _ans.Tables(*case.arrays())
        try:
            encoder.push(tables, ints(case.symbols), ints(case.indexes))
        except ValueError:
            continue  # all of it or nothing
        stepped.append((tables, case))
    decoder = _ans.Decoder(encoder.flush())
    for tables, case in stepped:
        out = np.empty(len(case.indexes), np.int32)
        for i in range(0, len(out), step):
            decoder.decode(tables, ints(case.indexes)[i : i + step], out[i : i + step])
        assert out.tolist() == case.symbols


masses = st.floats(0, 1, width=32) | st.sampled_from((0.0, 1e-30, 1e-9, 0.5, 1.0)) | st.floats(width=32)


@examples(90)
@given(st.lists(masses, max_size=40), st.sampled_from((1, 4, 8, 12, 16, 16, 24)))
def test_frequencies_are_those_of_the_twin(pmf, precision):
    with np.errstate(over="ignore"):
        want = outcome(lambda: plain_ans.pmf_to_quantized_cdf(pmf, precision))
    assert outcome(lambda: _ans.pmf_to_quantized_cdf(pmf, precision)) == want
