"""Differential fuzz: ckbd's coder and the plain twin against compressai.ans itself, both ways, from seeds.

CKBD_ANS_CASES says how many cases; without it there are few enough for every run. The twin goes first: where it
refuses, upstream would crash, hang or read out of bounds, and is not asked. Fewer than three pieces (slots and
digits) in a stream make it write out of bounds.
"""

import os
import random

import compressai.ans as theirs
import numpy as np
import plain_ans
import pytest
import torch
from ans_cases import damaged, make_case
from compressai import _CXX

from ckbd import _ans
from ckbd.compat.compressai import ans as ours

CASES = int(os.environ.get("CKBD_ANS_CASES", 3000))
CHUNK = 500


def answer(call):
    """What a call returns, or None if it refuses."""
    try:
        return call()
    except ValueError:
        return None


def enough(case) -> bool:
    """Whether the twin codes it, in three pieces or more."""
    try:
        rows = [plain_ans.pick(*case.tables, k) for k in case.indexes]
        return sum(len(plain_ans.steps_of(s, *row)) for s, row in zip(case.symbols, rows, strict=True)) >= 3
    except plain_ans.Refused:
        return False


def decode_alike(stream, indexes, tables):
    """Upstream, where it can be asked, and all of ours: the same symbols, or a refusal. Returns them or None."""
    expected = answer(lambda: plain_ans.decode(stream, indexes, *tables))
    if expected is not None:
        assert theirs.RansDecoder().decode_with_indexes(stream, indexes, *tables) == expected
    assert answer(lambda: ours.RansDecoder().decode_with_indexes(stream, indexes, *tables)) == expected
    return expected


def check_one_call(rng):
    case = make_case(rng)
    arrays = _ans.Tables(*case.arrays()), np.array(case.symbols, np.int32), np.array(case.indexes, np.int32)
    lists = case.symbols, case.indexes, *case.tables
    if not enough(case):
        for call in (lambda: ours.RansEncoder().encode_with_indexes(*lists), lambda: _ans.encode(*arrays)):
            with pytest.raises(ValueError):
                call()
        return
    stream = theirs.RansEncoder().encode_with_indexes(*lists)
    assert ours.RansEncoder().encode_with_indexes(*lists) == _ans.encode(*arrays) == stream
    for one in (stream, damaged(rng, stream)):
        expected, out = decode_alike(one, case.indexes, case.tables), np.empty_like(arrays[2])
        if expected is None:
            with pytest.raises(ValueError):
                _ans.decode(arrays[0], one, arrays[2], out)
        else:
            _ans.decode(arrays[0], one, arrays[2], out)
            assert out.tolist() == expected


def check_streams_in_steps(rng):
    """Several encoders by turns, each used again after flush(), and so the decoders."""
    pairs = [(theirs.BufferedRansEncoder(), ours.BufferedRansEncoder()) for _ in range(rng.randint(1, 3))]
    decoders = [(theirs.RansDecoder(), ours.RansDecoder()) for _ in pairs]
    for _ in range(2):
        steps = [[] for _ in pairs]
        while min(map(len, steps)) < 2:
            k, case = rng.randrange(len(pairs)), make_case(rng, odd=0)
            steps[k].append(case)
            for encoder in pairs[k]:
                encoder.encode_with_indexes(case.symbols, case.indexes, *case.tables)
        for pair, both in zip(pairs, decoders, strict=True):
            stream, other = (encoder.flush() for encoder in pair)
            assert stream == other
            for decoder in both:
                decoder.set_stream(stream)
        while any(steps):
            k = rng.choice([k for k, left in enumerate(steps) if left])
            case = steps[k].pop(0)
            for decoder in decoders[k]:
                assert decoder.decode_stream(case.indexes, *case.tables) == case.symbols


def check_pmf(rng):
    precision = rng.choice((16, 16, 12, 8))
    pmf = [rng.random() ** rng.choice((1, 4, 40)) for _ in range(rng.choice((1, 2, 5, 50, 200)))]
    if rng.random() < 0.7:
        pmf = [p / sum(pmf) for p in pmf]
    if rng.random() < 0.1:
        pmf[rng.randrange(len(pmf))] = rng.choice((-1e-9, float("nan"), float("inf"), -0.0, 1e-45))
    # Where nothing is to be had from any element, upstream asserts or writes out of bounds.
    expected = answer(lambda: plain_ans.pmf_to_quantized_cdf(pmf, precision))
    assert answer(lambda: ours.pmf_to_quantized_cdf(pmf, precision)) == expected
    if expected is not None:
        assert _CXX.pmf_to_quantized_cdf(pmf, precision) == expected


CHECKS = {check_one_call: 1, check_streams_in_steps: 12, check_pmf: 8}  # the larger, the fewer


@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_no_difference(check, first):
    for seed in range(first, min(first + CHUNK, CASES), CHECKS[check]):
        try:
            check(random.Random(seed))
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error


def outcomes(call):
    """What both coders make of it: a value, or the type of the error."""

    def one(coder):
        try:
            return call(coder)
        except (TypeError, ValueError) as error:
            return type(error)

    stock, fast = one(theirs), one(ours)
    assert stock == fast
    return fast


CASE = make_case(random.Random(5), 20, odd=0)
FORMS = {
    "lists": lambda v: list(v),
    "tuples": lambda v: tuple(v),
    "int32": lambda v: np.array(v, np.int32),
    "int64": lambda v: np.array(v, np.int64),
    "int16": lambda v: np.array(v, np.int16),
    "uint8": lambda v: np.array(v, np.uint8),
    "bools": lambda v: [bool(x) for x in v],
    "numpy integers": lambda v: [np.int64(x) for x in v],
    "array scalars": lambda v: [np.array(x) for x in v],
    "gaps": lambda v: np.repeat(np.array(v, np.int32), 2)[::2],
    "columns": lambda v: np.array([v], np.int32),
    "floats": lambda v: [float(x) for x in v],
    "float32": lambda v: np.array(v, np.float32),
    "tensor": lambda v: torch.tensor(v),
    "tensors": lambda v: [torch.tensor(x) for x in v],
    "texts": lambda v: [str(x) for x in v],
    "text": lambda v: "abc",
    "bytes": lambda v: bytes(len(v)),
    "range": lambda v: range(len(v)),
    "iterator": lambda v: iter(v),
    "too large": lambda v: [*v[:-1], 1 << 31],
    "far too large": lambda v: [*v[:-1], 1 << 70],
    "nothing": lambda v: None,
}


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("form", FORMS)
def test_the_same_is_accepted(form, at):
    """Of each argument in turn. All values that a form may turn into are such that upstream reads what is there: of
    tables nothing, of others what fits."""
    row = [0, 30, 60, 90, 120, 128]
    arguments = [[1, 0], [0, 1, 1, 0, 1, 0], [row] * 6, [6] * 6, [0] * 6]
    if at >= 2:
        arguments[:2] = [], []
    stream = theirs.RansEncoder().encode_with_indexes(CASE.symbols, CASE.indexes, *CASE.tables)

    def given():
        changed = [FORMS[form](r) for r in arguments[2]] if at == 2 else FORMS[form](arguments[at])
        return [*arguments[:at], changed, *arguments[at + 1 :]]

    def encode(coder):
        encoder = coder.BufferedRansEncoder()
        encoder.encode_with_indexes(CASE.symbols, CASE.indexes, *CASE.tables)
        encoder.encode_with_indexes(*given())
        return encoder.flush()

    outcomes(encode)
    if at > 0:
        zeros = bytes(len(stream) + 64)  # slot 0 again and again
        outcomes(lambda coder: coder.RansDecoder().decode_with_indexes(zeros, *given()[1:]))


def test_sets_are_refused():
    """They have no order. Whether upstream takes them depends on the pybind11 that it was built with."""
    with pytest.raises(TypeError, match="symbols"):
        ours.RansEncoder().encode_with_indexes(set(CASE.symbols), CASE.indexes, *CASE.tables)


def test_the_same_streams_are_accepted():
    stream = theirs.RansEncoder().encode_with_indexes(CASE.symbols, CASE.indexes, *CASE.tables)
    for form in (bytes, bytearray, memoryview, list, lambda s: None, lambda s: np.frombuffer(s, np.uint8)):
        given = form(stream)
        outcomes(lambda coder, s=given: coder.RansDecoder().decode_with_indexes(s, CASE.indexes, *CASE.tables))
        outcomes(lambda coder, s=given: coder.RansDecoder().set_stream(s))
    text = "characters of one byte each"
    outcomes(lambda coder: coder.RansDecoder().decode_with_indexes(text, CASE.indexes[:2], *CASE.tables))


def test_the_same_calls_are_accepted():
    for call in (
        lambda coder: coder.RansEncoder().encode_with_indexes(CASE.symbols),
        lambda coder: coder.RansEncoder(1),
        lambda coder: coder.RansEncoder().flush() if hasattr(coder.RansEncoder, "flush") else "none",
        lambda coder: coder.BufferedRansEncoder().flush(1),
        lambda coder: coder.BufferedRansEncoder().encode_with_indexes(CASE.symbols, CASE.indexes, *CASE.tables),
        lambda coder: coder.RansDecoder().set_stream(),
        lambda coder: coder.RansEncoder().encode_with_indexes(symbols=[], indexes=[], cdfs=[], sizes=[], offsets=[]),
        lambda coder: coder.pmf_to_quantized_cdf(torch.ones(3), 16) if coder is ours else TypeError,
    ):
        outcomes(call)
    assert outcomes(lambda coder: type(coder.RansDecoder().decode_with_indexes(bytes(99), [], [], [], []))) is list
