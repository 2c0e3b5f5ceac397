"""BD-rates and envelopes of curves by every metric."""

import math

import bjontegaard
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from ckbd.evaluation import bd


def curve(rates, psnrs):
    return {"bpp": list(rates), "psnr": list(psnrs), "ms_ssim": [None] * len(rates)}


RATES = [0.1, 0.2, 0.3, 0.5, 0.8, 1.3, 2.0]
PSNRS = [24.0, 26.5, 28.0, 30.1, 32.2, 34.5, 37.0]
WHOLE = (1e-3, 1e3)


@pytest.mark.parametrize("window", [WHOLE, (0.15, 1.0), (0.4, 0.6)])
def test_bd_rate_of_a_scaled_curve_is_its_scale(window):
    test = curve([0.7 * rate for rate in RATES], PSNRS)
    assert bd.bd_rate(curve(RATES, PSNRS), test, window).percent == pytest.approx(-30)
    backwards = curve(RATES[::-1], PSNRS[::-1])
    assert bd.bd_rate(test, backwards, window).percent == pytest.approx(100 * (1 / 0.7 - 1))


def test_bd_rate_without_a_window_is_the_library_s():
    rates, psnrs = [0.12, 0.31, 0.77, 1.9], [25.0, 29.5, 33.0, 36.0]
    expected = bjontegaard.bd_rate(
        RATES, PSNRS, rates, psnrs, method="pchip", require_matching_points=False, min_overlap=0
    )
    result = bd.bd_rate(curve(RATES, PSNRS), curve(rates, psnrs), WHOLE)
    assert result.percent == pytest.approx(expected)
    log_rate = PchipInterpolator(PSNRS, np.log10(RATES))
    assert result.anchor_bpp == pytest.approx((10 ** log_rate(25.0), 10 ** log_rate(36.0)))


def test_bd_rate_in_a_window_is_the_mean_over_the_anchor_s_qualities_there():
    rates, psnrs = [0.05, 0.2, 0.6, 1.9], [22.0, 28.5, 33.0, 39.0]
    log_a, log_t = PchipInterpolator(PSNRS, np.log10(RATES)), PchipInterpolator(psnrs, np.log10(rates))
    grid = np.linspace(24, 37, 400_001)
    inside = grid[(log_a(grid) >= math.log10(0.15)) & (log_a(grid) <= 0)]
    expected = 100 * (10 ** np.mean(log_t(inside) - log_a(inside)) - 1)
    result = bd.bd_rate(curve(RATES, PSNRS), curve(rates, psnrs))
    assert result.percent == pytest.approx(expected, abs=1e-3)
    assert result.anchor_bpp == pytest.approx((0.15, 1.0))


def test_what_is_outside_the_window_does_not_count():
    rates = list(np.geomspace(0.05, 4, 200))
    psnrs = [30 + 10 * math.log10(rate) for rate in rates]
    wasteful = [rate if 0.14 < rate < 1.1 else 5 * rate for rate in rates]
    ordered = sorted(zip(wasteful, psnrs, strict=True))
    result = bd.bd_rate(curve(rates, psnrs), curve(*zip(*ordered, strict=True)))
    assert abs(result.percent) < 1e-6


def test_bd_rate_says_how_much_of_the_window_it_covers():
    log_rate = PchipInterpolator(PSNRS, np.log10(RATES))
    result = bd.bd_rate(curve(RATES, PSNRS), curve([0.2, 0.4, 0.6], [28.5, 31.0, 33.0]))
    assert result.anchor_bpp == pytest.approx((10 ** log_rate(28.5), 10 ** log_rate(33.0)))


@pytest.mark.parametrize(
    "rates, psnrs, window",
    [
        ([0.1, 0.2], [10.0, 20.0], WHOLE),
        ([0.1, 0.2], [40.0, 50.0], WHOLE),
        ([0.3], [28.0], WHOLE),
        ([0.1, 0.2], [30.5, 33.0], (2.5, 3.0)),
        ([0.1, 0.2], [24.5, 25.5], (0.5, 1.0)),
    ],
)
def test_no_bd_rate_where_there_is_nothing_to_compare(rates, psnrs, window):
    assert bd.bd_rate(curve(RATES, PSNRS), curve(rates, psnrs), window) is None


def test_bd_rate_by_ms_ssim_is_that_of_its_decibels():
    similarities = [1 - 10 ** (-psnr / 20) for psnr in PSNRS]
    anchor = curve(RATES, PSNRS) | {"ms_ssim": similarities}
    rates, psnrs = [0.12, 0.31, 0.77, 1.9], [25.0, 29.5, 33.0, 36.0]
    test = curve(rates, [20.0] * 4) | {"ms_ssim": [1 - 10 ** (-psnr / 20) for psnr in psnrs]}
    halves = (curve(RATES, [p / 2 for p in PSNRS]), curve(rates, [p / 2 for p in psnrs]))
    got, expected = bd.bd_rate(anchor, test, metric="ms_ssim"), bd.bd_rate(*halves)
    assert got.percent == pytest.approx(expected.percent) and got.anchor_bpp == pytest.approx(expected.anchor_bpp)
    assert bd.bd_rate(anchor, curve(rates, psnrs), metric="ms_ssim") is None
    holes = test | {"bpp": [0.01, *rates, 5.0], "psnr": [1] * 6, "ms_ssim": [None, *test["ms_ssim"], 1.0]}
    assert bd.bd_rate(anchor, holes, metric="ms_ssim") == got
    with pytest.raises(ValueError, match="metric: expected one of psnr, ms_ssim, ssimulacra2, got 'ssim'"):
        bd.bd_rate(anchor, test, metric="ssim")


def test_bd_rate_by_ssimulacra2_is_over_the_score_itself():
    scores = [-30.0, 0.0, 25.0, 40.0, 60.0, 75.0, 90.0]
    anchor = curve(RATES, PSNRS) | {"ssimulacra2": scores}
    test = curve([0.8 * rate for rate in RATES], [20.0] * 7) | {"ssimulacra2": scores}
    assert bd.bd_rate(anchor, test, WHOLE, "ssimulacra2").percent == pytest.approx(-20)
    rates = [0.12, 0.31, 0.77, 1.9]
    bent = curve(rates, [20.0] * 4) | {"ssimulacra2": [-12.0, 31.0, 58.0, 81.0]}
    by_psnr = bd.bd_rate(curve(RATES, scores), curve(rates, bent["ssimulacra2"]))
    assert bd.bd_rate(anchor, bent, metric="ssimulacra2") == by_psnr
    assert bd.scaled(bent, "ssimulacra2") == bent["ssimulacra2"]
    unmeasured = {"bpp": RATES, "psnr": PSNRS}
    assert (
        bd.bd_rate(unmeasured, bent, metric="ssimulacra2") is None is bd.bd_rate(anchor, unmeasured, WHOLE, "ms_ssim")
    )


def test_the_better_jpeg_is_chosen_by_the_metric_that_is_compared():
    low, high = ([0.90, 0.93, 0.95], [0.92, 0.95, 0.97])
    one, other = (curve([0.2, 0.4, 0.8], [28, 30, 32]), curve([0.2, 0.4, 0.8], [29, 31, 33]))
    one["ms_ssim"], other["ms_ssim"] = high, low
    one["ssimulacra2"], other["ssimulacra2"] = [-20.0, 10.0, 45.0], [-30.0, 5.0, 40.0]
    anchors = dict(zip(bd.JPEGS, (one, other), strict=True))
    anchors["jpeg-best"] = bd.envelope(one, other)
    for metric, best in (("psnr", other), ("ms_ssim", one), ("ssimulacra2", one)):
        found = bd.bd_rates(anchors, best, WHOLE, metric)
        assert found["jpeg-best"].percent == pytest.approx(0) and max(d.percent for d in found.values()) < 1e-6


def test_points_that_another_beats_do_not_bend_a_curve():
    anchor = curve(RATES, PSNRS)
    silly = curve([*RATES, 0.9, 0.25, 0.5], [*PSNRS, 32.0, 20.0, 29.0])
    assert bd.bd_rate(anchor, silly, WHOLE).percent == pytest.approx(0, abs=1e-9)


def test_the_envelope_takes_the_better_codec_on_each_side_of_a_crossing():
    low = curve([0.1, 0.2, 0.4, 0.8, 1.6], [25, 28, 30, 31.5, 32])
    high = curve([0.15, 0.3, 0.5, 0.9, 1.8], [23, 27, 31.2, 34, 37])
    assert bd.envelope(low, high) == curve([0.1, 0.2, 0.4, 0.5, 0.9, 1.8], [25, 28, 30, 31.2, 34, 37])
    assert bd.envelope(high, low) == bd.envelope(low, high)
    test = curve([0.08, 0.3, 1.2], [25.5, 30, 36])
    strict = bd.bd_rate(bd.envelope(low, high), test, WHOLE).percent
    assert strict > max(bd.bd_rate(one, test, WHOLE).percent for one in (low, high))


def test_the_envelope_of_one_curve_is_that_curve():
    one = curve(RATES, PSNRS)
    assert bd.envelope(one, one) == one
    assert bd.envelope(one, curve([3 * rate for rate in RATES], PSNRS)) == one
    assert bd.envelope(curve([0.5], [20]), one) == one
