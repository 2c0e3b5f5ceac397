"""Residuals chosen by bits and error: the costs are the tables', the choice is the best of its own measure."""

import numpy as np
import pytest
import torch
from conftest import textured

import ckbd
from ckbd.codec import container, deadzone, image
from ckbd.kernels import numerics, reference
from ckbd.model import entropy

TABLES = entropy.gaussian_tables() | {
    "table.z.freq": torch.tensor([[4096]], dtype=torch.int16),
    "table.z.low": torch.zeros(1, dtype=torch.int16),
    "table.z.size": torch.ones(1, dtype=torch.int16),
}


def test_costs_are_those_of_the_tables_on_both_sides_of_every_step():
    costs = entropy.residual_costs(TABLES, numerics.R_MAX)
    assert costs.shape == (entropy.SCALES, numerics.R_MAX + 1) and costs.isfinite().all()
    nothing = torch.zeros(0, dtype=torch.int16)
    for k in (0, 1, 17, entropy.NARROW, entropy.NARROW + 1, 41, 63):
        largest = int(TABLES["table.y.max"][k])
        for size in {0, 1, largest, largest + 1, largest + 128, largest + 129, numerics.R_MAX}:
            for r in (size, -size):
                symbol = (torch.tensor([k], dtype=torch.uint8), torch.tensor([r], dtype=torch.int16))
                assert entropy.table_bits(TABLES, nothing, [symbol]) == float(costs[k, size])


@pytest.fixture(scope="module")
def case():
    """r, k, distance (2, 6, 5, 40), share (2, 6, 5, 1), costs: all indices, distances next to .5 and far out."""
    generator = torch.Generator().manual_seed(0)
    k = torch.randint(0, 64, (2, 6, 5, 40), generator=generator).to(torch.uint8)
    distance = torch.randn(k.shape, generator=generator) * entropy.scale_of(k.float()) * 1.5
    near = torch.rand(k.shape, generator=generator) < 0.5
    distance = torch.where(near, distance.round() + distance.sign() * 0.505, distance)
    share = torch.rand((2, 6, 5, 1), generator=generator).pow(4).clamp(min=deadzone.SHARE_MIN)
    r = numerics.round_half_up(distance).clamp(-numerics.R_MAX, numerics.R_MAX).to(torch.int16)
    return r, k, distance, share, entropy.residual_costs(TABLES, numerics.R_MAX).float()


def loss(r, k, distance, share, costs):
    """What choose() is to make least, float64, written out."""
    bits = costs.double()[k.long(), r.long().abs()]
    return bits + deadzone.WEIGHT * share.double() * (distance.double() - r.double()).square()


def test_the_choice_is_the_best_of_the_three_and_never_worse_than_rounding(case):
    r, k, distance, share, costs = case
    chosen = deadzone.choose(*case)
    assert chosen.dtype == torch.int16 and chosen.shape == r.shape
    got = loss(chosen, k, distance, share, costs)
    three = [loss(one, k, distance, share, costs) for one in (r, r - r.sign(), torch.zeros_like(r))]
    least = torch.stack(three).amin(0)
    assert torch.allclose(got, least, rtol=1e-5, atol=1e-3) and (got <= three[0] * (1 + 1e-6)).all()
    moved = chosen != r
    assert (chosen.abs() <= r.abs()).all() and (chosen.sign() * r.sign() >= 0).all(), "towards zero, not past it"
    assert moved.any() and (chosen[moved] == 0).any() and (chosen[moved] != 0).any() and (~moved & (r != 0)).any()


def test_shares_of_sites():
    share = deadzone.shares([(64, 64), (40, 17), (1, 1)], 4, 4)
    assert share.shape == (3, 1, 4, 4) and share.dtype == torch.float32
    assert (share[0] == 1).all()
    assert share[1, 0, 0, 0] == pytest.approx(1 - deadzone.REACH * (1 - (2 + 1 / 16) / 3))
    assert share[1, 0, 2, 0] == pytest.approx((1 - deadzone.REACH) * 0.5 + deadzone.REACH * (2 + 1 / 16) / 3 * 0.5)
    assert (share[1, 0, :, 3] == deadzone.SHARE_MIN).all() and share[2].amax() < 0.01
    alone = deadzone.shares([(40, 17)], 4, 4)
    assert torch.equal(alone[0], share[1])


def symbols(codec, picture, quality, effort):
    ((z, ((k0, r0), (k1, r1))),) = codec.encoder.symbols([picture], [quality], effort)
    return z, k0, r0, k1, r1


def test_anchors_of_effort_1_are_the_choice_made_of_those_of_effort_0(tiny):
    picture = image.from_array(textured(128, 192))
    z, k, r, *_ = symbols(tiny, picture, 60.0, 0)
    z_1, k_1, r_1, *_ = symbols(tiny, picture, 60.0, 1)
    assert np.array_equal(z, z_1) and np.array_equal(k, k_1)
    changed = r != r_1
    assert changed.any() and (np.abs(r_1) <= np.abs(r)).all()


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (70, 150)])
@pytest.mark.parametrize("effort", [0, 1])
def test_the_decoder_reads_what_every_effort_chose(tiny, size, effort):
    picture = image.from_array(textured(*size))
    (data,) = tiny.encode([picture], 70, effort)
    z, k0, r0, k1, r1 = symbols(tiny, picture, 70.0, effort)
    (y_hat,) = tiny.decode_latents([data])
    hz, wz = (-(-n // 64) for n in size)
    state = tiny.decoder.zone.begin(torch.from_numpy(z).view(1, hz, wz, -1), torch.tensor([70]))
    for p, (k, r) in enumerate([(k0, r0), (k1, r1)]):
        got = tiny.decoder.zone.phase(state, p)
        assert np.array_equal(got.flatten(), k)
        tiny.decoder.zone.assemble(state, p, torch.from_numpy(r).view(got.shape))
    assert np.array_equal(tiny.decoder.zone.y_hat(state)[0], y_hat)
    (bits,) = tiny.estimate([picture], 70, effort)
    assert len(data) <= 1.005 * bits / 8 + 48


def test_means_of_the_zone_are_those_that_y_hat_has(tiny):
    y = torch.randn(2, 16, 4, 8, generator=torch.Generator().manual_seed(1)) * 9
    state = tiny.decoder.zone.begin(torch.zeros(2, 1, 2, 6, dtype=torch.int16), torch.tensor([20, 90]))
    halves = []
    for p in (0, 1):
        tiny.decoder.zone.phase(state, p)
        r, mean = tiny.decoder.zone.quantise(state, p, y), tiny.decoder.zone.mean(state, p)
        distance = reference.split(y)[p] - mean / numerics.MEAN_STEP
        assert torch.equal(numerics.round_half_up(distance).to(torch.int16), r)
        tiny.decoder.zone.assemble(state, p, r)
        halves.append(numerics.MEAN_STEP * r.float() + mean)
    assert torch.equal(torch.stack(reference.split(tiny.decoder.zone.y_hat(state))), torch.stack(halves))


def test_padding_costs_less_with_effort_1(tiny):
    """A picture of one column takes part in an eighth of a percent of what it is padded to."""
    picture = image.from_array(textured(128, 1))
    zeros = [sum(int((r == 0).sum()) for r in symbols(tiny, picture, 90.0, e)[2::2]) for e in (0, 1)]
    sizes = [len(tiny.encode([picture], 90, e)[0]) for e in (0, 1)]
    assert zeros[0] < zeros[1] and sizes[1] < sizes[0]


def test_a_picture_s_symbols_do_not_depend_on_its_batch(case):
    r, k, distance, share, costs = case
    both = deadzone.choose(r, k, distance, share, costs)
    for b in (0, 1):
        assert torch.equal(
            deadzone.choose(r[b : b + 1], k[b : b + 1], distance[b : b + 1], share[b : b + 1], costs), both[b : b + 1]
        )


def test_the_default_is_effort_1(tiny):
    picture = textured(100, 90)
    assert tiny.encode([picture], 50) == tiny.encode([picture], 50, 1) != tiny.encode([picture], 50, effort=0)
    assert tiny.estimate([picture], 50) == tiny.estimate([picture], 50, 1)


@pytest.mark.parametrize("effort", [2, -1, 0.5, True, "1"])
def test_other_efforts_are_refused(tiny, effort):
    for call in (tiny.encode, tiny.estimate):
        with pytest.raises(ValueError, match=f"effort: expected 0 or 1, got {effort!r}"):
            call([textured(8, 8)], 50, effort)


def test_more_quality_is_more_bytes_and_less_error_with_the_default_model():
    """The shipped model, both efforts: the curve rises, and effort 1 is no larger at any quality."""
    from skimage.data import astronaut

    codec, picture = ckbd.load(), image.from_array(astronaut()[64:320, 128:384].copy())
    curves = {}
    for effort in (0, 1):
        streams = codec.encode([picture] * 5, [5, 25, 50, 75, 95], effort)
        psnrs = [image.psnr(picture.rgb, decoded.rgb) for decoded in codec.decode_pictures(streams)]
        sizes = [len(container.parse(stream).payload) for stream in streams]
        assert sizes == sorted(sizes) and psnrs == sorted(psnrs)
        curves[effort] = sizes
    assert all(new <= old for old, new in zip(curves[0], curves[1], strict=True))
