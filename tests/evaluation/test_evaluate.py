"""Metrics, BD-rate, and a whole evaluation with a stand-in codec."""

import csv
import dataclasses
import json
import math

import bjontegaard
import numpy as np
import pytest
from conftest import textured
from jpeg_codec import JpegCodec
from PIL import Image, features
from scipy.interpolate import PchipInterpolator

from ckbd.evaluation import evaluate, report, rivals


def test_every_rival_is_in_the_plot():
    """plot() leaves out what has no style, as the better of both JPEGs."""
    assert set(report.STYLES) == {"ckbd", *rivals.RIVALS}


def curve(rates, psnrs):
    return {"bpp": list(rates), "psnr": list(psnrs), "ms_ssim": [None] * len(rates)}


RATES = [0.1, 0.2, 0.3, 0.5, 0.8, 1.3, 2.0]
PSNRS = [24.0, 26.5, 28.0, 30.1, 32.2, 34.5, 37.0]
WHOLE = (1e-3, 1e3)


def test_metrics_of_small_and_equal_pictures():
    a = textured(161, 170)
    psnr, similarity = evaluate.metrics(a, a)
    assert psnr == 100 and similarity == pytest.approx(1)
    assert evaluate.metrics(a[:160], a[:160])[1] is None
    psnr, similarity = evaluate.metrics(a, np.clip(a.astype(int) + 20, 0, 255).astype(np.uint8))
    assert 20 < psnr < 30 and 0.5 < similarity < 0.9999


@pytest.mark.parametrize("window", [WHOLE, (0.15, 1.0), (0.4, 0.6)])
def test_bd_rate_of_a_scaled_curve_is_its_scale(window):
    test = curve([0.7 * rate for rate in RATES], PSNRS)
    assert evaluate.bd_rate(curve(RATES, PSNRS), test, window).percent == pytest.approx(-30)
    backwards = curve(RATES[::-1], PSNRS[::-1])
    assert evaluate.bd_rate(test, backwards, window).percent == pytest.approx(100 * (1 / 0.7 - 1))


def test_bd_rate_without_a_window_is_the_library_s():
    rates, psnrs = [0.12, 0.31, 0.77, 1.9], [25.0, 29.5, 33.0, 36.0]
    expected = bjontegaard.bd_rate(
        RATES, PSNRS, rates, psnrs, method="pchip", require_matching_points=False, min_overlap=0
    )
    result = evaluate.bd_rate(curve(RATES, PSNRS), curve(rates, psnrs), WHOLE)
    assert result.percent == pytest.approx(expected)
    log_rate = PchipInterpolator(PSNRS, np.log10(RATES))
    assert result.anchor_bpp == pytest.approx((10 ** log_rate(25.0), 10 ** log_rate(36.0)))


def test_bd_rate_in_a_window_is_the_mean_over_the_anchor_s_qualities_there():
    rates, psnrs = [0.05, 0.2, 0.6, 1.9], [22.0, 28.5, 33.0, 39.0]
    log_a, log_t = PchipInterpolator(PSNRS, np.log10(RATES)), PchipInterpolator(psnrs, np.log10(rates))
    grid = np.linspace(24, 37, 400_001)
    inside = grid[(log_a(grid) >= math.log10(0.15)) & (log_a(grid) <= 0)]
    expected = 100 * (10 ** np.mean(log_t(inside) - log_a(inside)) - 1)
    result = evaluate.bd_rate(curve(RATES, PSNRS), curve(rates, psnrs))
    assert result.percent == pytest.approx(expected, abs=1e-3)
    assert result.anchor_bpp == pytest.approx((0.15, 1.0))


def test_what_is_outside_the_window_does_not_count():
    rates = list(np.geomspace(0.05, 4, 200))
    psnrs = [30 + 10 * math.log10(rate) for rate in rates]
    wasteful = [rate if 0.14 < rate < 1.1 else 5 * rate for rate in rates]
    ordered = sorted(zip(wasteful, psnrs, strict=True))
    result = evaluate.bd_rate(curve(rates, psnrs), curve(*zip(*ordered, strict=True)))
    assert abs(result.percent) < 1e-6


def test_bd_rate_says_how_much_of_the_window_it_covers():
    log_rate = PchipInterpolator(PSNRS, np.log10(RATES))
    result = evaluate.bd_rate(curve(RATES, PSNRS), curve([0.2, 0.4, 0.6], [28.5, 31.0, 33.0]))
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
    assert evaluate.bd_rate(curve(RATES, PSNRS), curve(rates, psnrs), window) is None


def test_bd_rate_by_ms_ssim_is_that_of_its_decibels():
    similarities = [1 - 10 ** (-psnr / 20) for psnr in PSNRS]
    anchor = curve(RATES, PSNRS) | {"ms_ssim": similarities}
    rates, psnrs = [0.12, 0.31, 0.77, 1.9], [25.0, 29.5, 33.0, 36.0]
    test = curve(rates, [20.0] * 4) | {"ms_ssim": [1 - 10 ** (-psnr / 20) for psnr in psnrs]}
    halves = (curve(RATES, [p / 2 for p in PSNRS]), curve(rates, [p / 2 for p in psnrs]))
    got, expected = evaluate.bd_rate(anchor, test, metric="ms_ssim"), evaluate.bd_rate(*halves)
    assert got.percent == pytest.approx(expected.percent) and got.anchor_bpp == pytest.approx(expected.anchor_bpp)
    assert evaluate.bd_rate(anchor, curve(rates, psnrs), metric="ms_ssim") is None
    holes = test | {"bpp": [0.01, *rates, 5.0], "psnr": [1] * 6, "ms_ssim": [None, *test["ms_ssim"], 1.0]}
    assert evaluate.bd_rate(anchor, holes, metric="ms_ssim") == got
    with pytest.raises(ValueError, match="metric: expected one of psnr, ms_ssim, got 'ssim'"):
        evaluate.bd_rate(anchor, test, metric="ssim")


def test_the_better_jpeg_is_chosen_by_the_metric_that_is_compared():
    low, high = ([0.90, 0.93, 0.95], [0.92, 0.95, 0.97])
    one, other = (curve([0.2, 0.4, 0.8], [28, 30, 32]), curve([0.2, 0.4, 0.8], [29, 31, 33]))
    one["ms_ssim"], other["ms_ssim"] = high, low
    anchors = dict(zip(evaluate.JPEGS, (one, other), strict=True))
    anchors["jpeg-best"] = evaluate.envelope(one, other)
    for metric, best in (("psnr", other), ("ms_ssim", one)):
        found = evaluate.bd_rates(anchors, best, WHOLE, metric)
        assert found["jpeg-best"].percent == pytest.approx(0) and max(d.percent for d in found.values()) < 1e-6


def test_points_that_another_beats_do_not_bend_a_curve():
    anchor = curve(RATES, PSNRS)
    silly = curve([*RATES, 0.9, 0.25, 0.5], [*PSNRS, 32.0, 20.0, 29.0])
    assert evaluate.bd_rate(anchor, silly, WHOLE).percent == pytest.approx(0, abs=1e-9)


def test_the_envelope_takes_the_better_codec_on_each_side_of_a_crossing():
    low = curve([0.1, 0.2, 0.4, 0.8, 1.6], [25, 28, 30, 31.5, 32])
    high = curve([0.15, 0.3, 0.5, 0.9, 1.8], [23, 27, 31.2, 34, 37])
    assert evaluate.envelope(low, high) == curve([0.1, 0.2, 0.4, 0.5, 0.9, 1.8], [25, 28, 30, 31.2, 34, 37])
    assert evaluate.envelope(high, low) == evaluate.envelope(low, high)
    test = curve([0.08, 0.3, 1.2], [25.5, 30, 36])
    strict = evaluate.bd_rate(evaluate.envelope(low, high), test, WHOLE).percent
    assert strict > max(evaluate.bd_rate(one, test, WHOLE).percent for one in (low, high))


def test_the_envelope_of_one_curve_is_that_curve():
    one = curve(RATES, PSNRS)
    assert evaluate.envelope(one, one) == one
    assert evaluate.envelope(one, curve([3 * rate for rate in RATES], PSNRS)) == one
    assert evaluate.envelope(curve([0.5], [20]), one) == one


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pictures, one gray and one too small for MS-SSIM, and rivals with few settings."""
    path = tmp_path / "pictures"
    (path / "deeper").mkdir(parents=True)
    Image.fromarray(textured(165, 180)).save(path / "a.png")
    Image.fromarray(textured(33, 50, 1)).save(path / "deeper" / "b.png")
    Image.fromarray(textured(170, 163, 2)[..., 0]).save(path / "c.png")
    for name, rival in rivals.RIVALS.items():
        settings = (rival.settings[2], rival.settings[-2])
        monkeypatch.setitem(rivals.RIVALS, name, dataclasses.replace(rival, settings=settings))
    twin = dataclasses.replace(rivals.RIVALS["jpeg-444"], settings=(20, 70, 90))
    monkeypatch.setitem(rivals.RIVALS, "jpeg-444", twin)
    return path


def test_run_means_rows_and_deltas(folder, tmp_path):
    result = evaluate.run(JpegCodec(), folder, [20, 70, 90], window=WHOLE, threads=2)
    assert result["images"] == ["a.png", "c.png", "deeper/b.png"] and result["model"] == "0123456789ab"
    assert set(result["rivals"]) == {*rivals.RIVALS, "jpeg-best"} == set(result["bd_rate"])
    assert result["curve"].keys() == {"quality", "bpp", "psnr", "ms_ssim"} and result["absent"] == {}
    assert all(other.keys() == {"bpp", "psnr", "ms_ssim"} for other in result["rivals"].values())
    rows = result["rows"]
    assert len(rows) == 3 * (3 + 3 + 2 * (len(rivals.RIVALS) - 1))
    for i, quality in enumerate([20, 70, 90]):
        mine = [row for row in rows if row["codec"] == "ckbd" and row["setting"] == quality]
        assert [row["image"] for row in mine] == result["images"]
        assert [row["ms_ssim"] is None for row in mine] == [False, False, True]
        bpps = [8 * row["bytes"] / (row["height"] * row["width"]) for row in mine]
        assert result["curve"]["bpp"][i] == pytest.approx(np.mean(bpps))
        assert result["curve"]["psnr"][i] == pytest.approx(np.mean([row["psnr"] for row in mine]))
        assert result["curve"]["ms_ssim"][i] == pytest.approx(np.mean([row["ms_ssim"] for row in mine[:2]]))
        assert all(row["estimated_bits"] == 8 * row["bytes"] - 80 for row in mine)
    assert result["bd_rate"]["jpeg-444"] == pytest.approx(0)  # the codec's own twin
    assert result["bd_rate"]["jpeg-best"] > -1e-9
    assert result["bd_rate_ms_ssim"]["jpeg-444"] == pytest.approx(0) and result["bd_bpp_ms_ssim"].keys() == set(
        result["bd_rate"]
    )
    assert result["estimate"]["excess_bytes"] == 10 and result["estimate"]["within_bound"]

    report.write_json(tmp_path / "r.json", result)
    written = json.loads((tmp_path / "r.json").read_text())
    assert "rows" not in written and written["bd_rate"] == result["bd_rate"]
    report.write_csv(tmp_path / "r.csv", rows)
    with open(tmp_path / "r.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["bpp"]) for row in read] == [row["bpp"] for row in rows]
    assert {row["ms_ssim"] == "" for row in read if row["image"] == "deeper/b.png"} == {True}


def test_a_stream_far_from_its_estimate_is_found(folder):
    class Liar(JpegCodec):
        def estimate(self, pictures, quality, effort):
            (bits,) = super().estimate(pictures, quality)
            return [bits - 1000 if pictures[0].height == 33 and quality == 70 else bits]

    estimate = evaluate.run(Liar(), folder, [20, 70], ())["estimate"]
    assert (estimate["image"], estimate["setting"], estimate["within_bound"]) == ("deeper/b.png", 70, False)
    assert estimate["excess_bytes"] == 135


def test_only_pixels_are_given_to_the_codec(folder):
    pil = Image.fromarray(textured(20, 30))
    pil.putalpha(7)
    pil.save(folder / "a.png", icc_profile=bytes(16) + b"RGB " + bytes(100))

    class Recorder(JpegCodec):
        def encode(self, images, quality, effort):
            assert images[0].alpha is None and images[0].icc is None
            return super().encode(images, quality)

    evaluate.run(Recorder(), folder, [50], ())


def test_a_rival_that_pillow_lacks_is_named(folder, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    result = evaluate.run(JpegCodec(), folder, [50], ["jpeg-420", "avif"])
    assert result["rivals"].keys() == {"jpeg-420"} and "without avif" in result["absent"]["avif"]
    assert "avif" in report.table(result) and "without avif" in report.table(result)


def test_a_rival_that_fails_on_one_image_gets_no_curve(folder, monkeypatch):
    def encode(rgb, quality):
        if rgb.shape[0] == 33:
            raise ValueError("too small for me")
        return rivals.RIVALS["jpeg-420"].encode(rgb, quality)

    monkeypatch.setitem(rivals.RIVALS, "webp", dataclasses.replace(rivals.RIVALS["webp"], encode=encode))
    result = evaluate.run(JpegCodec(), folder, [50], ["jpeg-420", "webp"])
    assert result["absent"] == {"webp": "deeper/b.png: too small for me"}
    assert "webp" not in result["rivals"] and {row["codec"] for row in result["rows"]} == {"ckbd", "jpeg-420"}


def test_run_refuses_what_it_cannot_measure(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image files"):
        evaluate.run(JpegCodec(), tmp_path / "empty")
    with pytest.raises(ValueError, match="rivals: expected some of jpeg-420, .*, got flif"):
        evaluate.run(JpegCodec(), folder, [50], ["flif"])
    (folder / "z.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="z.png"):
        evaluate.run(JpegCodec(), folder, [50], ())


def test_the_table_and_plot_show_every_curve(folder, tmp_path):
    result = evaluate.run(JpegCodec(), folder, [20, 90])
    table = report.table(result)
    for name in (
        *result["rivals"],
        "quality",
        "bpp",
        "PSNR dB",
        "model 0123456789ab",
        "3 images",
        "deeper/b.png",
        "by PSNR",
        "by MS-SSIM",
    ):
        assert name in table
    report.plot(tmp_path / "r.svg", result)
    report.plot(tmp_path / "r.png", result)
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    with Image.open(tmp_path / "r.png") as pil:
        assert pil.width > 1500 and len(pil.convert("RGB").getcolors(1 << 20)) > 20
    with pytest.raises(ValueError, match="for a plot"):
        report.plot(tmp_path / "r.txt", result)


def test_small_pictures_and_no_rivals_leave_one_panel(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(textured(20, 30)).save(tmp_path / "in" / "a.png")
    result = evaluate.run(JpegCodec(), tmp_path / "in", [20, 90], ())
    assert result["rivals"] == {} == result["bd_rate"] and result["curve"]["ms_ssim"] == [None, None]
    assert " 1 image" in report.table(result) and "images" not in report.table(result)
    report.plot(tmp_path / "r.png", result)
    with Image.open(tmp_path / "r.png") as pil:
        assert pil.width < 1200
