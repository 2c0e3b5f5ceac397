"""The exact zone's arithmetic against Python's integers, in carriers and in _passes by every instruction set."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import cycled, edged, examples

from ckbd import _passes
from ckbd.codec.image import narrowed
from ckbd.kernels import numerics, reference
from ckbd.model import proof

ISAS = _passes.isas()
EXACT = (1 << 24) - 1
INT32 = edged(-(1 << 31), (1 << 31) - 1, 0, -EXACT, EXACT)


def wrapped(value):
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def clamped(value, low, high):
    return min(max(value, low), high)


def shifted(acc, shift):
    """Rounded half up."""
    return (acc + (1 << shift >> 1)) >> shift


def companded(y):
    v = (y + 2) >> 2
    return v if abs(v) <= 64 else clamped(64 + (abs(v) - 64 >> 4), 0, 127) * (1 if v > 0 else -1)


@examples(90)
@given(st.lists(st.tuples(edged(-EXACT, EXACT, 0), st.integers(0, 23)), min_size=1, max_size=40), st.booleans())
def test_requantise_shifts_as_integers_do(pairs, wide):
    pairs = [(clamped(acc, -EXACT + (1 << s >> 1), EXACT - (1 << s >> 1)), s) for acc, s in pairs]
    dtype = torch.float64 if wide else torch.float32
    acc, shift = (torch.tensor(v, dtype=dtype) for v in zip(*pairs, strict=True))
    layer = numerics.IntLayer(torch.zeros(len(pairs), 1), torch.zeros(len(pairs)), shift)
    for low, high in ((0, 127), (-16383, 16383)):
        got = numerics.requantise(acc.clone(), layer, low, high)
        assert got.tolist() == [clamped(shifted(a, s), low, high) for a, s in pairs]


@examples(60)
@given(st.lists(edged(-32768, 32767, -258, 258, -1280, 1280), min_size=1, max_size=60))
def test_compand_is_that_of_the_document(values):
    want = [companded(v) for v in values]
    assert numerics.compand(torch.tensor(values, dtype=torch.float32)).tolist() == want
    y = np.array(values)
    mean = ((y + 8) % 16 - 8).astype(np.int16)[:, None]
    r = ((y - mean[:, 0]) // 16).astype(np.int16)[:, None]
    for isa in ISAS:
        near, far, seen = (np.zeros(shape, np.uint8) for shape in (r.shape, r.shape, (1,)))
        _passes.assemble(r, mean, near, isa=isa)
        assert (near[:, 0].astype(int) - 127).tolist() == want
        _passes.assemble(r, mean, near, far, seen, isa=isa)
        assert [int(n) - 64 + int(f) - 63 for n, f in zip(near[:, 0], far[:, 0], strict=True)] == want
        assert [int(n) - 64 for n in near[:, 0]] == [clamped(v, -64, 64) for v in want]
        assert bool(seen[0] & 1) == any(abs(v) > 64 for v in want)


@st.composite
def sums(draw, channels):
    """(sums (sites, N), bias (N,), shift (N,)), int32."""
    n, sites = draw(channels), draw(edged(1, 40, 16))
    values = cycled(draw(st.lists(INT32 | edged(-999, 999), min_size=1, max_size=9)), sites * n, np.int64)
    bias = cycled(draw(st.lists(INT32 | edged(-999, 999), min_size=1, max_size=5)), n, np.int64)
    shift = cycled(draw(st.lists(st.integers(0, 31), min_size=1, max_size=5)), n, np.int32)
    return values.reshape(sites, n).astype(np.int32), bias.astype(np.int32), shift


def whole(acc, bias, shift):
    """(sums + bias) >> shift, lists of Python's integers."""
    columns = list(zip(bias.tolist(), shift.tolist(), strict=True))
    return [[wrapped(a + b) >> s for a, (b, s) in zip(row, columns, strict=True)] for row in acc.tolist()]


@examples(60)
@given(sums(edged(1, 70, 16, 32, 64)))
def test_passes_requantise_as_integers_do(layer):
    want = [[clamped(v, 0, 127) for v in row] for row in whole(*layer)]
    for isa in ISAS:
        out = np.full(layer[0].shape, 200, np.uint8)
        _passes.requantise(*layer, out, isa=isa)
        assert out.tolist() == want


@examples(60)
@given(sums(edged(1, 40, 8, 16, 32).map(lambda m: 2 * m)))
def test_passes_put_out_means_and_indexes_as_integers_do(layer):
    want, m = whole(*layer), len(layer[1]) // 2
    for isa in ISAS:
        mean, k = np.empty((len(want), m), np.int16), np.empty((len(want), m), np.uint8)
        _passes.output(*layer, mean, k, isa=isa)
        assert mean.tolist() == [[clamped(v, -16383, 16383) for v in row[:m]] for row in want]
        assert k.tolist() == [[clamped(v, 0, 63) for v in row[m:]] for row in want]


@examples(35)
@given(edged(1, 6), edged(1, 9), edged(1, 20), st.data())
def test_halves_and_maps_turn_into_each_other(rows, half, M, data):
    """Of an even width, as the codec has them: the site of phase p in row h and column j is where the format says."""
    values = st.lists(st.integers(-1000, 1000), min_size=1, max_size=9)
    r = cycled(data.draw(values), 2 * rows * half * M, np.int16).reshape(2, rows, half, M)
    mean = cycled(data.draw(values), r.size, np.int16).reshape(r.shape)
    want = np.zeros((rows, 2 * half, M), np.float32)
    for p in (0, 1):
        for h in range(rows):
            for j in range(half):
                column = 2 * j + (h & 1) if p == 0 else 2 * j + 1 - (h & 1)
                want[h, column] = 16 * r[p, h, j].astype(int) + mean[p, h, j]
    for isa in ISAS:
        out = np.empty_like(want)
        _passes.merge(r, mean, rows, (0, rows), out, isa=isa)
        assert np.array_equal(out, want)
    packed = [torch.from_numpy(16.0 * r[p] + mean[p])[None] for p in (0, 1)]
    merged = reference.merge(*packed)
    assert np.array_equal(merged[0].permute(1, 2, 0).numpy(), want)
    assert all(torch.equal(a, b) for a, b in zip(reference.split(merged), packed, strict=True))


@examples(60)
@given(st.data(), edged(1, 5), edged(1, 40), edged(0, 23))
def test_a_layer_is_proved_if_no_sum_can_leave_24_bits(data, n, inputs, shift):
    weights = cycled(data.draw(st.lists(edged(-127, 127), min_size=1, max_size=9)), n * inputs, np.int8)
    weight = weights.reshape(n, inputs)
    most = [127 * sum(map(abs, row)) + (1 << shift >> 1) for row in weight.tolist()]
    near = edged(0, 1 << 24, *(max((1 << 24) - m, 0) for m in most))
    bias = [data.draw(near) * data.draw(st.sampled_from((-1, 1))) for _ in range(n)]
    bounds = [m + abs(b) for m, b in zip(most, bias, strict=True)]
    arrays = weight, np.array(bias, np.int32), np.full(n, shift, np.uint8)
    assert proof.accumulator_bound(*arrays).tolist() == bounds
    if max(bounds) < 1 << 24:
        proof.prove(*arrays, "layer")
    else:
        worst = bounds.index(max(bounds))
        with pytest.raises(ValueError, match=f"^layer: output channel {worst} can reach {bounds[worst]}, "):
            proof.prove(*arrays, "layer")


def test_sixteen_bits_are_rounded_to_eight():
    """All of them, to the nearest: 257 of 16 bits are one of 8, so that there are no halves."""
    assert np.array_equal(narrowed(np.arange(65536, dtype=np.uint16)), (np.arange(65536) + 128) // 257)
