"""scale_indexes and symbols_of against torch, to the bit, in every instruction set that the machine has."""

import numpy as np
import pytest
import torch

from ckbd import _ans

ISAS = _ans.isas()
LENGTHS = (0, 1, 7, 8, 9, 31, 1000)
SPECIAL = np.array(
    [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 2.0**31, -(2.0**31)]
    + [s * (h + 0.5) for s in (-1, 1) for h in (0, 1, 2, 3, 1000, 4194303, 4194304)]
    + [
        s * np.nextafter(np.float32(b), np.float32(to))
        for s in (-1, 1)
        for b in (2.0**31, 0.5, 1.5)
        for to in (0, 9e9)
    ],
    np.float32,
)


def room(n):
    """n int32 amid others that must stay as they are."""
    return np.full(n + 20, 77, np.int32)[10 : 10 + n]


def filled(call, n):
    out = room(n)
    call(out)
    assert np.all(out.base[:10] == 77) and np.all(out.base[10 + n :] == 77)
    return out


def plain_indexes(scales, table, bound):
    """build_indexes: S - 1, less one for each entry but the last that the scale is at or below."""
    # torch.max gives what is no number, which comparisons are false for.
    clipped = torch.max(torch.from_numpy(scales), torch.tensor(bound, dtype=torch.float32))
    index = torch.full(clipped.shape, len(table) - 1, dtype=torch.int32)
    for border in torch.from_numpy(table)[:-1]:
        index -= (clipped <= border).int()
    return index.numpy()


def tables():
    rng = np.random.default_rng(1)
    for size in (1, 2, 3, 8, 9, 17, 63, 64, 65, 66, 200):
        yield np.exp(np.linspace(np.log(0.11), np.log(256), size)).astype(np.float32)
        yield rng.normal(size=size).astype(np.float32)  # in no order
        odd = rng.choice(SPECIAL, size)
        yield odd
        yield np.repeat(odd[: size // 2 + 1], 2)[:size]


@pytest.mark.parametrize("isa", [None, *ISAS])
@pytest.mark.parametrize("bound", [0.11, 0.0, -5.0, 300.0, float("inf"), -float("inf"), float("nan"), 1e300])
def test_scale_indexes(bound, isa):
    rng = np.random.default_rng(0)
    for table in tables():
        around = [np.nextafter(table, np.float32(to)) for to in (-np.inf, np.inf)]
        scales = np.concatenate((SPECIAL, table, *around, rng.exponential(4, 50).astype(np.float32)))
        rng.shuffle(scales)
        for part in (scales, scales[3:], scales[:5]):
            found = filled(lambda out, s=part, t=table: _ans.scale_indexes(s, t, bound, out, isa=isa), len(part))
            assert np.array_equal(found, plain_indexes(part, table, bound))


@pytest.mark.parametrize("isa", [None, *ISAS])
@pytest.mark.parametrize("n", LENGTHS)
def test_lengths(n, isa):
    rng = np.random.default_rng(n)
    x, means = rng.normal(size=(2, n)).astype(np.float32) * 40
    table = np.exp(np.linspace(-2, 5, 64)).astype(np.float32)
    found = filled(lambda out: _ans.scale_indexes(np.abs(x), table, 0.11, out, isa=isa), n)
    assert np.array_equal(found, plain_indexes(np.abs(x), table, 0.11))
    found = filled(lambda out: _ans.symbols_of(torch.from_numpy(x), means, out, isa=isa), n)
    assert np.array_equal(found, np.rint(x - means).astype(np.int32))


def plain_symbols(x, means=None):
    """Rounded half to even in float32; -2^31 for what int32 has not."""
    rounded = torch.round(torch.from_numpy(x if means is None else x - means)).double().numpy()
    return np.array([int(v) if -(2**31) <= v < 2**31 else -(2**31) for v in rounded], np.int32)


@pytest.mark.parametrize("isa", [None, *ISAS])
def test_symbols_of_what_is_special(isa):
    for shift in range(8):  # through all lanes
        x = np.roll(np.tile(SPECIAL, 3), shift)
        assert np.array_equal(
            filled(lambda out, x=x: _ans.symbols_of(x, None, out, isa=isa), len(x)), plain_symbols(x)
        )
    x, means = (a.reshape(-1).copy() for a in np.meshgrid(SPECIAL, SPECIAL))
    with np.errstate(all="ignore"):
        expected = plain_symbols(x, means)
    assert np.array_equal(filled(lambda out: _ans.symbols_of(x, means, out, isa=isa), len(x)), expected)


@pytest.mark.parametrize("isa", [None, *ISAS])
def test_symbols_of_random_bits(isa):
    bits = np.random.default_rng(3).integers(0, 1 << 32, (2, 20000), dtype=np.uint32).view(np.float32)
    x, means = bits
    with np.errstate(all="ignore"):
        expected = plain_symbols(x, means)
    assert np.array_equal(filled(lambda out: _ans.symbols_of(x, means, out, isa=isa), len(x)), expected)


def test_an_instruction_set_that_is_none():
    one = np.ones(3, np.float32)
    for call in (
        lambda isa: _ans.scale_indexes(one, one, 0.1, room(3), isa=isa),
        lambda isa: _ans.symbols_of(one, None, room(3), isa=isa),
    ):
        for isa in ("avx9", "", 3):
            with pytest.raises(ValueError, match=rf"^isa: expected one that this machine has \({', '.join(ISAS)}\)"):
                call(isa)


def test_wrong_floats():
    one = np.ones(3, np.float32)
    for wrong in (one.astype(np.float64), one.astype(np.int32), one[:2], one[None], [1.0] * 3, None):
        with pytest.raises(ValueError, match="^(x|out): expected "):
            _ans.symbols_of(wrong, None, room(3))
        with pytest.raises(ValueError, match="^(scales|out): expected "):
            _ans.scale_indexes(wrong, one, 0.1, room(3))
        if wrong is not None:
            with pytest.raises(ValueError, match="^means: expected "):
                _ans.symbols_of(one, wrong, room(3))
    with pytest.raises(ValueError, match=r"^table: expected 1\.\.2\^24 entries, got 0$"):
        _ans.scale_indexes(one, one[:0], 0.1, room(3))
