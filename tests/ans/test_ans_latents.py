"""encode_latents and decode_latents: what the steps that they join give, to the bit."""

import numpy as np
import pytest
from ans_cases import gaussian_arrays
from test_ans_quantize import SPECIAL

from ckbd import _ans


def tables():
    """CompressAI's 64 scales. The first of them are so narrow that a decoder guesses."""
    return _ans.Tables(*gaussian_arrays())


def latents(shape, seed=0, runs=True):
    """x, means, indexes: indexes in runs, or each by itself."""
    rng = np.random.default_rng(seed)
    n = shape[0] * shape[1]
    kinds = np.repeat(rng.integers(0, 4, n // 40 + 1), 40)[:n] if runs else rng.integers(0, 4, n)
    indexes = np.array([0, 5, 20, 45])[kinds]
    means = rng.normal(0, 3, n).astype(np.float32)
    x = means + np.array([0.1, 0.2, 1.0, 20.0], np.float32)[kinds] * rng.normal(size=n).astype(np.float32)
    x[:: max(1, n // 7)] += 300  # escapes
    return x.reshape(shape), means.reshape(shape), indexes.astype(np.int32).reshape(shape)


@pytest.mark.parametrize("runs", [True, False], ids=["runs", "mixed"])
@pytest.mark.parametrize("with_means", [True, False], ids=["means", "alone"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 511), (2, 513), (3, 5000), (2, 0)], ids=str)
def test_the_same_as_in_steps(shape, with_means, runs):
    table = tables()
    x, means, indexes = latents(shape, runs=runs)
    means = means if with_means else None
    symbols = np.empty(shape, np.int32)
    _ans.symbols_of(x.reshape(-1), None if means is None else means.reshape(-1), symbols.reshape(-1))
    streams = _ans.encode_latents(table, x, means, indexes)
    assert streams == _ans.encode_batch(table, symbols, indexes)
    for threads in (1, 2, 5):
        assert _ans.encode_latents(table, x, means, indexes, threads=threads) == streams
        out, back = np.full(shape, np.nan, np.float32), np.empty(shape, np.int32)
        _ans.decode_latents(table, streams, indexes, means, out, threads=threads)
        _ans.decode_batch(table, streams, indexes, back, threads=threads)
        assert np.array_equal(back, symbols)
        want = back.astype(np.float32) if means is None else back.astype(np.float32) + means
        assert np.array_equal(out.view(np.int32), want.view(np.int32))


def test_special_values_are_rounded_as_symbols_of_does_it():
    table = tables()
    for value in SPECIAL:
        x, indexes = np.full((1, 3), value, np.float32), np.full((1, 3), 2, np.int32)
        symbols = np.empty((1, 3), np.int32)
        _ans.symbols_of(x[0], None, symbols[0])

        def outcome(call):
            try:
                return call()
            except ValueError as error:
                return str(error)

        want = outcome(lambda s=symbols, i=indexes: _ans.encode_batch(table, s, i))
        assert outcome(lambda x=x, i=indexes: _ans.encode_latents(table, x, None, i)) == want


def test_the_first_that_is_refused_is_told():
    table = tables()
    x, means, indexes = latents((2, 600))
    x[1, 20] = x[1, 500] = np.nan
    with pytest.raises(ValueError, match=r"symbols\[1\].* -2147483648 at 20"):
        _ans.encode_latents(table, x, means, indexes)
    indexes[0, 3] = 64
    with pytest.raises(ValueError, match=r"indexes\[0\].* 64 at 3"):
        _ans.encode_latents(table, x, means, indexes)


def test_damaged_streams_and_wrong_arrays():
    table = tables()
    x, means, indexes = latents((2, 600))
    streams = _ans.encode_latents(table, x, means, indexes)
    out = np.empty_like(x)
    with pytest.raises(ValueError, match=r"streams\[1\]"):
        _ans.decode_latents(table, [streams[0], streams[1][:20]], indexes, means, out)
    with pytest.raises(ValueError, match="streams: expected 2"):
        _ans.decode_latents(table, streams[:1], indexes, means, out)
    with pytest.raises(ValueError, match="out: .*memory"):
        _ans.decode_latents(table, streams, indexes, out, out)
    with pytest.raises(ValueError, match="out"):
        _ans.decode_latents(table, streams, indexes, means, out[:1])
    with pytest.raises(ValueError, match="means"):
        _ans.decode_latents(table, streams, indexes, means[:, :5], out)
    with pytest.raises(ValueError, match="means"):
        _ans.encode_latents(table, x, means.astype(np.float64), indexes)
    with pytest.raises(ValueError, match="x"):
        _ans.encode_latents(table, x.astype(np.int32), means, indexes)
