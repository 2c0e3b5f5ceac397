"""Tables: what the format demands of them, and what they cost against the densities they stand for."""

import math
import random

import pytest
import torch

from ckbd.model import entropy
from ckbd.model.entropy import FactorizedPrior, factorized_tables, gaussian_tables, round_frequencies


def test_y_tables_obey_the_format():
    tables = gaussian_tables()
    freq, largest = tables["table.y.freq"].long(), tables["table.y.max"].long()
    assert freq.shape[0] == 64 and largest.shape == (64,)
    for k in range(64):
        m = int(largest[k])
        f = freq[k]
        assert 1 <= m <= (6 if k <= 22 else 126)
        assert f[0] % 2 == 0 and bool((f[: m + 2] >= 1).all()) and bool((f[m + 2 :] == 0).all())
        assert int(f[0] + 2 * f[1 : m + 2].sum()) == 4096
        assert bool((f[1 : m + 1].diff() <= 0).all()), f"table {k} is not unimodal"


def table_cost(k: int, f: torch.Tensor, largest: int) -> tuple[float, float]:
    """(bits by the table, bits by the Gaussian) a symbol of scale k; an escape's value counted as it is coded."""
    r = torch.arange(0, 2000, dtype=torch.float64)
    p = 2.0 ** -entropy.gaussian_bits(r, torch.tensor(float(k), dtype=torch.float64))
    p = torch.where(p > entropy.LIKELIHOOD_MIN, p, 0.0)
    p[1:] *= 2
    share = f.double().clone()
    index = r.clamp(max=largest + 1).long()
    bits = 12 - torch.log2(share[index]) + (r > 0) * 0.0
    extra = (r - largest - 1).clamp(min=0)
    bits = bits + torch.where(r > largest, 8.0 * (1 + torch.floor(torch.log2(extra.clamp(min=1)) / 7)), 0.0)
    ideal = -torch.log2(torch.where(p > 0, torch.where(r > 0, p / 2, p), 1.0))
    return float((p * bits).sum()), float((p * ideal).sum())


@pytest.mark.parametrize("k", [2, 5, 10, 16, 22, 23, 30, 40, 46])
def test_y_tables_cost_little_over_the_gaussian(k):
    """Twelve bits cost under 1 % from where symbols start to matter up to sigma = 31."""
    tables = gaussian_tables()
    coded, ideal = table_cost(k, tables["table.y.freq"][k], int(tables["table.y.max"][k]))
    assert coded >= ideal - 1e-9
    assert coded <= 1.01 * ideal + 0.002


def test_rounding_is_optimal_by_exhaustion():
    p = [0.61, 0.27, 0.1, 0.02]
    total = 13

    def loss(f):
        return -sum(a * math.log(b) for a, b in zip(p, f, strict=True))

    best = min(
        loss((a, b, c, total - a - b - c))
        for a in range(1, total)
        for b in range(1, total - a)
        for c in range(1, total - a - b)
    )
    got = round_frequencies(p, total)
    assert sum(got) == total and min(got) >= 1
    assert loss(got) == pytest.approx(best, abs=1e-12)


def unit_by_unit(p, total):
    """round_frequencies from one unit each: always the one that gains most, the first of equals."""
    f = [1] * len(p)
    for _ in range(total - len(p)):
        f[max(range(len(p)), key=lambda i: (p[i] * math.log1p(1 / f[i]), -i))] += 1
    return f


@pytest.mark.parametrize("seed", range(60))
def test_rounding_knows_beforehand_only_what_it_would_find_unit_by_unit(seed):
    rng = random.Random(seed)
    n = rng.choice([1, 2, 3, 8, 30, 100])
    total = n + rng.choice([0, 1, 5, 200, 1000])
    kinds = [lambda: rng.expovariate(1) ** 9, lambda: float(rng.randrange(4)), lambda: 1.0, lambda: 0.0]
    p = [kinds[seed % 4]() for _ in range(n)]
    assert round_frequencies(p, total) == unit_by_unit(p, total)


def test_rounding_refuses_more_symbols_than_slots():
    with pytest.raises(ValueError, match="5 symbols do not fit into 4 slots"):
        round_frequencies([0.2] * 5, 4)


def test_gaussian_bits_are_a_density_with_the_right_scale():
    r = torch.arange(-3000, 3001, dtype=torch.float64)
    for k in (0.0, 20.0, 45.0, 63.0):
        bits = entropy.gaussian_bits(r, torch.tensor(k, dtype=torch.float64))
        p = torch.where(bits < 29.8, 2.0**-bits, 0.0)
        assert float(p.sum()) == pytest.approx(1.0, abs=2e-5)
        sigma = float(entropy.scale_of(torch.tensor(k, dtype=torch.float64)))
        if sigma > 1:
            assert float((p * r**2).sum()) == pytest.approx(sigma**2 + 1 / 12, rel=2e-2)


@torch.no_grad()
def test_factorized_prior_is_a_density_and_its_tables_follow_it():
    torch.manual_seed(0)
    prior = FactorizedPrior(5)
    with torch.no_grad():
        for b in prior.biases:
            b.normal_(0, 2)
        prior.matrices[0][3] += 6  # a channel that is nearly always one value
    grid = torch.arange(-2000, 2001).double().expand(5, -1)
    mass = prior.double().mass(grid)
    assert bool((mass >= 0).all())
    assert torch.allclose(mass.sum(1), torch.ones(5).double(), atol=1e-3)
    assert bool((prior.logits(grid.unsqueeze(1)).diff(dim=-1) > 0).all()), "the cumulative must rise"
    tables = factorized_tables(prior.float(), 127)
    for c in range(5):
        low, size = int(tables["table.z.low"][c]), int(tables["table.z.size"][c])
        f = tables["table.z.freq"][c].long()
        assert 1 <= size <= 255 and -127 <= low and low + size <= 128
        assert bool((f[: size + 1] >= 1).all()) and bool((f[size + 1 :] == 0).all()) and int(f.sum()) == 4096
        p = mass[c, low + 2000 : low + 2000 + size]
        assert float((p * -torch.log2(f[:size] / 4096)).sum()) <= float((p * -torch.log2(p)).sum()) + 0.02


def test_lower_bound_lets_gradients_raise_a_likelihood_but_not_lower_it():
    k = torch.tensor([5.0, 5.0], requires_grad=True)
    entropy.gaussian_bits(torch.tensor([30.0, 0.2]), k).sum().backward()
    assert k.grad[0] <= 0, "a residual far outside must not push the scale down"
    assert torch.isfinite(k.grad).all()


def test_table_bits_add_up_slot_by_slot():
    tables = gaussian_tables()
    tables |= {
        "table.z.freq": torch.tensor([[2048, 1024, 1024, 0], [4, 4000, 90, 2]], dtype=torch.int16),
        "table.z.low": torch.tensor([0, -1], dtype=torch.int16),
        "table.z.size": torch.tensor([2, 3], dtype=torch.int16),
    }
    z = torch.tensor([0, 1, 1, -1, 2, 300])  # ordinary, ordinary, ordinary, ordinary, above by 0, above by 298
    want = 1 - math.log2(90 / 4096) + 2 - math.log2(4 / 4096) + (2 + 8) + (-math.log2(2 / 4096) + 16)
    k, r = torch.tensor([0, 20, 30]), torch.tensor([0, -2, 500])
    f, top = tables["table.y.freq"].long(), int(tables["table.y.max"][30])
    want += -math.log2(int(f[0, 0]) / 4096) - math.log2(int(f[20, 2]) / 4096)
    want += -math.log2(int(f[30, top + 1]) / 4096) + 16
    assert entropy.table_bits(tables, z, [(k, r)]) == pytest.approx(want)
    assert entropy.table_bits(tables, z[:0], []) == 0.0
