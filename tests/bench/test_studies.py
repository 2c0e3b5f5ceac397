"""The studies run from training to words, CSV and plot, on models and pictures too small to conclude anything."""

import argparse
import csv
import json

import numpy as np
import pytest
from conftest import textured
from PIL import Image

from bench.studies import run as studies
from bench.studies.report import interval

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"width": 66, "M": 16, "Nz": 6, "hyper": 16, "h_s": 8, "psi": 32, "H1": 64, "H2": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies")
    for name in ("images", "data"):
        (path / name).mkdir()
        for n in range(2):
            Image.fromarray(textured(66, 64, n)).save(path / name / f"{n}.png")
    return path


def study(folders, monkeypatch, name, *more) -> list[dict]:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(studies, "MODEL", studies.MODEL | SMALL)
    argv = [name, "--images", str(folders / "images"), "--runs", str(folders / "runs"), "--out", str(folders / "out")]
    argv += ["--data", str(folders / "data"), "--steps", "2", "--crops", "64x1", "64x1", "--resamples", "20", *more]
    assert studies.main(argv) == 0
    if name != "estimates":
        assert (folders / "out" / f"{name}.png").stat().st_size > 5000
    with open(folders / "out" / f"{name}.csv") as file:
        return list(csv.DictReader(file))


def test_positions_are_all_that_a_raster_scan_may_see(folders, monkeypatch, capsys):
    rows = study(folders, monkeypatch, "positions", "--limit", "1")
    assert len(rows) == 24 and {"dh", "dw", "distance", "value", "low", "high"} == set(rows[0])
    assert [float(r["distance"]) for r in rows] == sorted(float(r["distance"]) for r in rows)
    assert all((int(r["dh"]), int(r["dw"])) < (0, 0) for r in rows)
    assert "Rank correlation of saving with distance" in capsys.readouterr().out


def test_masks_are_measured_on_one_supernet(folders, monkeypatch, capsys):
    rows = study(folders, monkeypatch, "masks")
    share = {r["mask"]: float(r["sites_with_context"]) for r in rows}
    assert share["raster7"] == 1 and share["checkerboard"] == 0.5 and share["corners"] == 0.75
    assert "The checkerboard saves" in capsys.readouterr().out


def test_rate_and_distortion_of_three_models(folders, monkeypatch, capsys):
    monkeypatch.setattr(studies, "QUALITIES", (1, 100))
    rows = study(folders, monkeypatch, "rd")
    assert len(rows) == 3 * 2 * 2 and all(float(r["bpp"]) > 0 for r in rows)
    assert "checkerboard: BD-rate" in capsys.readouterr().out


def test_estimates_are_held_against_bytes(folders, monkeypatch, capsys):
    for name in ("none", "raster", "checkerboard"):
        args = argparse.Namespace(runs=folders / "runs", data=[str(folders / "data")], steps=2, seed=0, threads=1)
        args.crops = ["64x1", "64x1"]
        monkeypatch.setattr(studies, "MODEL", studies.MODEL | SMALL)
        studies.trained(name, args)
    models = [str(folders / "runs" / name / "model.safetensors") for name in ("none", "raster", "checkerboard")]
    rows = study(folders, monkeypatch, "estimates", "--models", *models, "default")
    assert len(rows) == 4 * 2 * 2 and all(float(r["share_of_bound"]) <= 1 for r in rows)
    assert capsys.readouterr().out.count("within the bound") == 4


def test_growth_reads_what_the_benchmark_wrote(folders, monkeypatch, capsys):
    rows = [
        {"context": c, "width": n, "height": 1024, "context_and_coding_ms": 3.0 * n, "decode_ms": 9.0}
        for c in ("raster", "checkerboard")
        for n in (512, 1024)
    ]
    (folders / "c.json").write_text(json.dumps(rows))
    assert len(study(folders, monkeypatch, "growth", "--json", str(folders / "c.json"))) == 4
    assert "raster: 3072 ms x megapixels^1.00" in capsys.readouterr().out


def test_runs_that_are_missing_are_named(folders, tmp_path, capsys):
    argv = ["rd", "--images", str(folders / "images"), "--runs", str(tmp_path), "--out", str(tmp_path)]
    assert studies.main(argv) == 1
    assert "no model.safetensors; --data trains it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        studies.main(["growth", "--out", str(tmp_path)])


def test_intervals_hold_the_value_and_shrink_with_pictures():
    rng = np.random.default_rng(1)
    widths = []
    for count in (10, 1000):
        x = rng.normal(5, 1, count)
        found = interval(count, lambda i, x=x: x[i].mean(), 300)
        assert found["value"] == pytest.approx(x.mean()) and found["low"] < x.mean() < found["high"]
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 5
