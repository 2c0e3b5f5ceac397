"""The integer layers: exhaustive where the domain is small, at the bound where it is not."""

import numpy as np
import pytest
import torch
from conftest import tiny_model

from ckbd.kernels import numerics
from ckbd.kernels.numerics import IntLayer, compand, requantise
from ckbd.model.quant import ACC_LIMIT, QuantLinear, prove


def plain_requantise(acc: int, shift: int, low: int, high: int) -> int:
    half = 1 << (shift - 1) if shift else 0
    return max(low, min(high, (acc + half) >> shift))


@pytest.mark.parametrize("carrier", [torch.float32, torch.float64])
def test_requantise_is_the_integer_shift(carrier):
    near_limit = np.arange(ACC_LIMIT - (1 << 22) - 40, ACC_LIMIT - (1 << 22))
    acc = np.unique(np.concatenate([np.arange(-70000, 70000, 7), np.arange(-600, 600), near_limit, -near_limit]))
    for shift in range(0, 24):
        kept = acc[np.abs(acc) + (1 << shift >> 1) < ACC_LIMIT]
        layer = IntLayer(torch.zeros(1), torch.zeros(1), torch.tensor([float(shift)], dtype=carrier))
        got = requantise(torch.from_numpy(kept).to(carrier)[:, None], layer, -16383, 16383)[:, 0]
        want = [plain_requantise(int(a), shift, -16383, 16383) for a in kept]
        assert torch.equal(got, torch.tensor(want, dtype=carrier))


def test_compand_over_all_of_int16():
    y_hat = np.arange(-32768, 32768)
    v = (y_hat + 2) >> 2
    size = np.abs(v)
    want = np.sign(v) * np.where(size <= 64, size, np.minimum(127, 64 + ((size - 64) >> 4)))
    got = compand(torch.from_numpy(y_hat).float())
    assert torch.equal(got, torch.from_numpy(want).float())
    assert got.abs().max() == 127


def test_sums_at_the_bound_are_exact_in_float32_in_any_order():
    """127 sum|w| just below 2^24: every order of summation must give the integer result."""
    rng = np.random.default_rng(3)
    n = ACC_LIMIT // (127 * 127) - 1
    w = np.full(n, 127) * rng.choice([-1, 1], n)
    a = np.full(n, 127) * np.sign(w)  # all terms add up: the worst case
    assert 127 * np.abs(w).sum() < ACC_LIMIT
    total = int((w.astype(np.int64) * a).sum())
    for order in (np.arange(n), rng.permutation(n), np.argsort(w)):
        x, y = torch.from_numpy(a[order]).float(), torch.from_numpy(w[order]).float()
        assert int(torch.dot(x, y)) == total
        assert int((x[None] @ y[:, None])[0, 0]) == total


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("weight", 128.0, r"h: |first.weight: expected \|w\| <= 127"),
        ("weight", 0.5, "fractions"),
        ("shift", 24.0, "first.shift: expected 0..23"),
        ("shift", -1.0, "first.shift: expected 0..23"),
        ("bias", float(ACC_LIMIT), "first: output channel 1 can reach"),
    ],
)
def test_prove_refuses(field, value, message):
    layer = IntLayer(torch.ones(3, 8), torch.zeros(3), torch.full((3,), 4.0))
    prove(layer, "first")
    bad = {name: getattr(layer, name).clone() for name in ("weight", "bias", "shift")}
    bad[field][1] = value
    with pytest.raises(ValueError, match=message):
        prove(IntLayer(**bad), "first")


def test_prove_counts_every_term_of_the_bound():
    width = (ACC_LIMIT - 1 - 8) // (127 * 127)
    spare = ACC_LIMIT - 1 - 8 - 127 * 127 * width
    layer = IntLayer(torch.full((1, width), 127.0), torch.tensor([float(spare)]), torch.tensor([4.0]))
    prove(layer, "edge")
    with pytest.raises(ValueError, match="can reach 16777216"):
        prove(layer._replace(bias=layer.bias + 1), "edge")
    for phase in (0, 1):  # either of two biases may be the larger one
        both = torch.zeros(2, 1)
        both[phase] = layer.bias
        prove(layer._replace(bias=both), "edge")
        with pytest.raises(ValueError, match="can reach 16777216"):
            prove(layer._replace(bias=both + (both > 0)), "edge")


@pytest.mark.parametrize("scale", [1e-6, 0.02, 1.0, 40.0])
def test_quantised_layers_keep_the_bound_whatever_the_weights(scale):
    torch.manual_seed(1)
    layer = QuantLinear((24, 3200), in_frac=4, out_frac=4, phases=2)
    with torch.no_grad():
        layer.weight.mul_(scale / layer.weight.std())
        layer.weight[3] = 0
        layer.weight[5] = scale
        layer.bias.normal_(0, 3 * scale)
        # At a large scale the shift is at its floor and only int8 saturation is left to keep the sum small.
        if scale > 1:
            layer.bias.clamp_(-scale, scale)
            layer.weight[:, 900:] = 0
    prove(layer.integers(), "layer")


@torch.no_grad()
def test_float_twin_differs_from_the_integers_by_rounding_alone():
    """Each weight and bias moves by at most a half, and the output by a half more."""
    model = tiny_model(2)
    layer = model.exact.hidden
    a = torch.randint(0, 128, (50, layer.weight.shape[1])).float()
    exact = layer.integers()
    out = requantise(torch.nn.functional.linear(a, exact.weight, exact.bias), exact, 0, 127)
    layer.exact = False
    twin = layer.integers()
    smooth = requantise(torch.nn.functional.linear(a, twin.weight, twin.bias), twin, 0, 127).clamp(max=127)
    assert not torch.equal(out, smooth)
    allowed = (a.sum(1, keepdim=True) / 2 + 0.5) * torch.exp2(-exact.shift) + 0.5
    assert bool(((out - smooth).abs() <= allowed + 1e-3).all())
    assert allowed.median() < 20, "a bound that large would say nothing"


def test_straight_through_gradients_reach_every_exact_weight():
    model = tiny_model(4)
    out = model(torch.rand(2, 3, 64, 128), torch.tensor([20.0, 80.0]))
    (out["bits_y"].sum() + out["bits_z"].sum()).backward()
    for name, p in model.exact.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_round_half_up_goes_up():
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.4999])
    assert numerics.round_half_up(x).tolist() == [-2, -1, 0, 1, 2, 2]
