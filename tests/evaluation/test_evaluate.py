"""Metrics, and a whole evaluation with a stand-in codec."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from conftest import textured
from jpeg_codec import JpegCodec
from PIL import Image, features

from ckbd.evaluation import evaluate, metrics, report, rivals
from ckbd.evaluation.bd import METRICS
from ckbd.evaluation.metrics import measure


def test_every_rival_is_in_the_plot():
    """plot() leaves out what has no style, as the better of both JPEGs."""
    assert set(report.STYLES) == {"ckbd", *rivals.RIVALS}


WHOLE = (1e-3, 1e3)


def test_metrics_of_small_and_equal_pictures():
    a = textured(161, 170)
    found = measure(a, a)
    assert found == {"psnr": 100, "ms_ssim": pytest.approx(1), "ssimulacra2": 100}
    assert measure(a[:160], a[:160]) == {"psnr": 100, "ms_ssim": None, "ssimulacra2": 100}
    assert measure(a[:112], a[:112]) == {"psnr": 100, "ms_ssim": None, "ssimulacra2": None}
    found = measure(a, np.clip(a.astype(int) + 20, 0, 255).astype(np.uint8))
    assert 20 < found["psnr"] < 30 and 0.5 < found["ms_ssim"] < 0.9999 and 20 < found["ssimulacra2"] < 90
    alone = measure(a, np.flip(a, 1), ["ssimulacra2"])
    assert alone["psnr"] is None is alone["ms_ssim"] and alone["ssimulacra2"] < 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pictures, one gray and one too small for MS-SSIM and SSIMULACRA2, and rivals with few settings."""
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
    assert result["curve"].keys() == {"quality", "bpp", *METRICS} and result["absent"] == {}
    assert result["metrics"] == list(METRICS)
    assert all(other.keys() == {"bpp", *METRICS} for other in result["rivals"].values())
    rows = result["rows"]
    assert len(rows) == 3 * (3 + 3 + 2 * (len(rivals.RIVALS) - 1))
    for i, quality in enumerate([20, 70, 90]):
        mine = [row for row in rows if row["codec"] == "ckbd" and row["setting"] == quality]
        assert [row["image"] for row in mine] == result["images"]
        for metric in ("ms_ssim", "ssimulacra2"):
            assert [row[metric] is None for row in mine] == [False, False, True]
            assert result["curve"][metric][i] == pytest.approx(np.mean([row[metric] for row in mine[:2]]))
        bpps = [8 * row["bytes"] / (row["height"] * row["width"]) for row in mine]
        assert result["curve"]["bpp"][i] == pytest.approx(np.mean(bpps))
        assert result["curve"]["psnr"][i] == pytest.approx(np.mean([row["psnr"] for row in mine]))
        assert all(row["estimated_bits"] == 8 * row["bytes"] - 80 for row in mine)
    assert result["bd_rate"]["jpeg-444"] == pytest.approx(0)  # the codec's own twin
    assert result["bd_rate"]["jpeg-best"] > -1e-9
    for metric in ("ms_ssim", "ssimulacra2"):
        assert result[f"bd_rate_{metric}"]["jpeg-444"] == pytest.approx(0)
        assert result[f"bd_rate_{metric}"]["jpeg-best"] > -1e-9
        assert result[f"bd_rate_{metric}"].keys() == result[f"bd_bpp_{metric}"].keys() == result["bd_rate"].keys()
    assert result["estimate"]["excess_bytes"] == 10 and result["estimate"]["within_bound"]

    report.write_json(tmp_path / "r.json", result)
    written = json.loads((tmp_path / "r.json").read_text())
    assert "rows" not in written and written["bd_rate"] == result["bd_rate"]
    assert written["bd_rate_ssimulacra2"] == result["bd_rate_ssimulacra2"]
    report.write_csv(tmp_path / "r.csv", rows)
    with open(tmp_path / "r.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["bpp"]) for row in read] == [row["bpp"] for row in rows]
    small = [row for row in read if row["image"] == "deeper/b.png"]
    assert {row["ms_ssim"] + row["ssimulacra2"] for row in small} == {""}
    scores = [float(row["ssimulacra2"]) for row in read if row not in small]
    assert scores == [row["ssimulacra2"] for row in rows if row["image"] != "deeper/b.png"]


def test_metrics_that_are_not_asked_for_are_not_measured(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(metrics._MEASURES, "ms_ssim", None)
    result = evaluate.run(JpegCodec(), folder, [20, 90], ["jpeg-420"], metrics=["ssimulacra2"])
    assert result["metrics"] == ["psnr", "ssimulacra2"] and "bd_rate_ms_ssim" not in result
    assert result["curve"]["ms_ssim"] == [None, None] == result["rivals"]["jpeg-420"]["ms_ssim"]
    assert None not in result["curve"]["psnr"] + result["curve"]["ssimulacra2"]
    table = report.table(result)
    assert "MS-SSIM" not in table and "by SSIMULACRA2" in table
    report.plot(tmp_path / "r.png", result)
    with Image.open(tmp_path / "r.png") as pil:
        assert 1500 < pil.width < 2400
    with pytest.raises(ValueError, match="metrics: expected some of psnr, ms_ssim, ssimulacra2, got vmaf"):
        evaluate.run(JpegCodec(), folder, [50], (), metrics=["vmaf"])


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
        "SSIMULACRA2  jpeg",
        "by SSIMULACRA2",
    ):
        assert name in table
    report.plot(tmp_path / "r.svg", result)
    report.plot(tmp_path / "r.png", result)
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    with Image.open(tmp_path / "r.png") as pil:
        assert pil.width > 2400 and len(pil.convert("RGB").getcolors(1 << 20)) > 20
    with pytest.raises(ValueError, match="for a plot"):
        report.plot(tmp_path / "r.txt", result)


def test_small_pictures_and_no_rivals_leave_one_panel(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(textured(20, 30)).save(tmp_path / "in" / "a.png")
    result = evaluate.run(JpegCodec(), tmp_path / "in", [20, 90], ())
    assert result["rivals"] == {} == result["bd_rate"] and result["curve"]["ms_ssim"] == [None, None]
    assert result["curve"]["ssimulacra2"] == [None, None]
    assert " 1 image" in report.table(result) and "images" not in report.table(result)
    report.plot(tmp_path / "r.png", result)
    with Image.open(tmp_path / "r.png") as pil:
        assert pil.width < 1200
