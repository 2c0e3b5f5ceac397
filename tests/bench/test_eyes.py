"""The study of models for eyes: what it trains and measures, on models too small to conclude anything."""

import json

import numpy as np
import pytest
from conftest import textured
from PIL import Image

from bench.studies import eyes

pytest.importorskip("pytorch_msssim")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("eyes")
    Image.fromarray(textured(200, 192)).save(path / "0.png")
    return path


def study(folder, tmp_path, tiny_path, monkeypatch, *more):
    monkeypatch.setattr(eyes, "TRAINING", "--crops 192x1 --fit-tables 0")
    argv = ["--runs", str(tmp_path / "runs"), "--init", str(tiny_path), "--val", str(folder), "--steps", "1"]
    return eyes.main([*argv, "--shares", "0.5", "0.2,0.6", "--json", str(tmp_path / "rows.json"), *more])


def test_shares_are_trained_measured_and_taken_again(folder, tmp_path, tiny_path, monkeypatch, capsys):
    seen = []
    real = eyes.train.main
    monkeypatch.setattr(eyes.train, "main", lambda argv: seen.append(argv) or real(argv))
    assert study(folder, tmp_path, tiny_path, monkeypatch, "--data", str(folder)) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [r["name"] for r in rows] == ["avif", "0", "0.5", "0.2,0.6", str(tiny_path)]
    assert [argv[argv.index("--ms-ssim-share") + 1] for argv in seen] == ["0", "0.5", "0.2"]
    assert "--ssimulacra2-share 0.6" in " ".join(seen[2]) and "--ssimulacra2-share" not in seen[1]
    assert set(rows[1]["change"]["0"]) == set(rows[2]["change"]["avif"]) == set(eyes.METRICS)
    assert all(found == [0, 0] for found in rows[1]["change"]["0"].values()) and len(rows[0]["each"]) == 1
    first = capsys.readouterr().out
    assert study(folder, tmp_path, tiny_path, monkeypatch) == 0 and len(seen) == 3
    assert "| 0.5 |" in first and first.splitlines()[-5:] == capsys.readouterr().out.splitlines()[-5:]
    assert study(folder, tmp_path, tiny_path, monkeypatch, "--seed", "1") == 1
    assert "share-0.safetensors: not of --init" in capsys.readouterr().err


def test_a_run_that_is_missing_is_named(folder, tmp_path, tiny_path, monkeypatch, capsys):
    assert study(folder, tmp_path, tiny_path, monkeypatch) == 1
    assert "share-0.safetensors: no such file; --data trains it" in capsys.readouterr().err


def test_a_change_by_each_metric():
    rates = [0.1, 0.3, 0.6, 1.2]
    one = {
        "bpp": rates,
        "psnr": [28, 31, 34, 37],
        "ms_ssim": [0.9, 0.95, 0.98, 0.99],
        "ssimulacra2": [-5, 40, 60, 80],
    }
    other = one | {"bpp": [0.9 * rate for rate in rates]}
    for metric in eyes.METRICS:
        assert eyes.change(one, other, metric) == pytest.approx(-10, abs=0.01)
    assert eyes.change(one, one | {"ssimulacra2": [81, 82, 83, 84]}, "ssimulacra2") is None


def test_bits_that_went_to_another_picture_are_no_gain_of_each():
    rates = 0.1 * 2 ** np.arange(5)

    def curve(*factors):
        each = []
        for slope, factor in zip((6, 2), factors, strict=True):  # dB for twice the bits
            dB = 30 + slope * np.log2(factor * rates)
            one = {"bpp": factor * rates, "psnr": dB, "ms_ssim": 1 - 10 ** (-dB / 20), "ssimulacra2": dB}
            each.append({name: values.tolist() for name, values in one.items()})
        return {name: np.mean([one[name] for one in each], axis=0).tolist() for name in each[0]} | {"each": each}

    for means, each in eyes.changes(curve(1, 1), curve(1.3, 1 / 1.3)).values():
        assert means < -5 and each == pytest.approx(0, abs=0.1)
