"""Runs that go on from a model, and what they end with: a file with fitted tables and what it is worth."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, textured
from PIL import Image
from safetensors.torch import load_file
from training_cases import few, run

import ckbd
from ckbd.codec.image import Picture, psnr
from ckbd.training import finish, optim, train
from ckbd.training.data import Crops, Mix, pictures
from ckbd.training.fit import LEAST, SIDE
from ckbd.training.optim import orthogonalise
from ckbd.training.train import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return few(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Pictures enough to fit tables to."""
    path = tmp_path_factory.mktemp("many")
    for n in range(LEAST):
        Image.fromarray(textured(64, 80, n)).save(path / f"{n:02}.png")
    return path


@pytest.mark.parametrize("kind", ["model file", "checkpoint"])
def test_a_run_from_a_model_says_what_it_gained(folder, many, tiny_path, tmp_path, monkeypatch, capsys, kind):
    first = tiny_path
    if kind == "checkpoint":
        run(folder, tmp_path / "a", 1, monkeypatch=monkeypatch)
        first = tmp_path / "a" / "checkpoint.pt"
    out, model = tmp_path / "b", tmp_path / "m.safetensors"
    argv = ["--data", str(many), "--out", str(out), "--init", str(first), "--crops", "64x2", "--steps", "2"]
    argv += ["--drawn", "0.5", "--colour", "0.5", "--bf16", "--muon-lr", "1e-3", "--rounded-from", "0"]
    argv += ["--fit-tables", str(LEAST), "--export", str(model), "--val", str(folder)]
    monkeypatch.setattr("ckbd.training.finish.QUALITIES", (20.0, 90.0))
    assert main(argv) == 0
    said, found = capsys.readouterr().out, json.loads((out / "validation.json").read_text())
    assert [r["quality"] for r in found["rows"]] == [20, 90] and f"model {ckbd.load(model).model_hash}" in said
    raw = load_file(out / "unfitted.safetensors")
    assert not torch.equal(load_file(model)["table.y.freq"], raw["table.y.freq"])  # they are fitted
    for row in found["rows"]:
        # two steps of a warm-up change little; tables of a checkpoint are fitted before as after
        assert row["psnr"] == pytest.approx(row["before_psnr"], abs=0.5)
        assert row["bpp"] == pytest.approx(row["before_bpp"], rel=0.02 if kind == "checkpoint" else 0.5)
        assert f"{row['bpp']:.4f} bpp {row['psnr']:.3f} dB, before {row['before_bpp']:.4f} bpp" in said
    codec, pictures_ = ckbd.load(model), [Picture(p) for p in pictures(folder)]
    streams = codec.encode(pictures_, 90)
    sizes = [8 * len(s) / (p.width * p.height) for s, p in zip(streams, pictures_, strict=True)]
    psnrs = [psnr(p.rgb, d.rgb) for p, d in zip(pictures_, codec.decode_pictures(streams), strict=True)]
    assert found["rows"][1]["bpp"] == pytest.approx(np.mean(sizes))
    assert found["rows"][1]["psnr"] == pytest.approx(np.mean(psnrs))
    assert main(argv) == 0  # the run is over: there is nothing to take from it
    assert "resumed at step 2" in capsys.readouterr().out
    assert codec.model.config == TINY


def test_what_is_asked_for_reaches_crops_fit_and_muon(many, tiny_path, tmp_path, monkeypatch):
    seen = {}

    def crops(*args):
        seen["mix"] = args[3]
        return Crops(*args)

    def sample(*args):
        seen["sample"] = args
        return real(*args)

    def orthogonal(x, dtype):
        seen["dtype"] = dtype
        return orthogonalise(x, dtype=dtype)

    real = finish.data.sample
    monkeypatch.setattr(train, "Crops", crops)
    monkeypatch.setattr(finish.data, "sample", sample)
    monkeypatch.setattr(optim, "orthogonalise", orthogonal)
    argv = ["--data", str(many), "--out", str(tmp_path), "--init", str(tiny_path), "--crops", "64x2", "--steps", "1"]
    argv += ["--drawn", "0.5", "--colour", "0.25", "--bf16", "--muon-lr", "1e-3", "--seed", "7"]
    assert main([*argv, "--fit-tables", str(LEAST), "--export", str(tmp_path / "m.safetensors")]) == 0
    assert seen == {"mix": Mix(0.5, 0.25), "sample": ([str(many)], LEAST, SIDE, 7), "dtype": torch.bfloat16}


def test_a_report_is_of_after_against_before(tmp_path, monkeypatch):
    before = {"bpp": [0.1 * 1.5**i for i in range(7)], "psnr": [28.0 + i for i in range(7)]}
    after = before | {"bpp": [0.9 * bpp for bpp in before["bpp"]]}
    said = finish.report(before, after, tmp_path / "v.json")
    found = json.loads((tmp_path / "v.json").read_text())
    assert (
        found["bd_rate"] == pytest.approx(-10, abs=0.01)
        and "BD-rate against before: -10.00 % over 0.10 to 1.14 bpp" in said
    )
    assert found["rows"][0] == {
        "quality": 5,
        "bpp": pytest.approx(0.09),
        "psnr": 28,
        "before_bpp": 0.1,
        "before_psnr": 28,
    }
    far = {"bpp": before["bpp"], "psnr": [60.0 + i for i in range(7)]}
    assert "no BD-rate: no PSNR that both reach" in finish.report(before, far, tmp_path / "v.json")
    monkeypatch.setitem(sys.modules, "ckbd.evaluation.bd", None)
    assert "no BD-rate: " in finish.report(before, after, tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text())["bd_rate"] is None


def test_training_begins_where_packages_for_evaluation_are_missing():
    missing = "import sys; sys.modules |= dict.fromkeys(('bjontegaard', 'pytorch_msssim', 'tqdm', 'matplotlib'))"
    code = f"{missing}; import bench.gpu.pace, bench.gpu.training, ckbd.training.train"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent.parent, timeout=120)


def test_an_export_is_whole_or_not_there(many, tiny_path, tmp_path, monkeypatch):
    def fail(*args):
        raise ValueError("no tables today")

    monkeypatch.setattr(finish.fit, "fit_file", fail)
    argv = ["--data", str(many), "--out", str(tmp_path / "run"), "--init", str(tiny_path), "--crops", "64x2"]
    assert main([*argv, "--steps", "1", "--export", str(tmp_path / "m.safetensors")]) == 1
    assert not (tmp_path / "m.safetensors").exists()
    assert ckbd.load(tmp_path / "run" / "unfitted.safetensors").decode([]) == []


def test_a_step_that_cannot_be_compiled_is_a_step_all_the_same(many, tiny_path, tmp_path, monkeypatch, capsys):
    def refuse(*args):
        raise torch._dynamo.exc.TorchDynamoException("inductor: it does not know how")

    monkeypatch.setattr(train.compiled, "wanted", lambda asked, device: True)
    monkeypatch.setattr("ckbd.training.steps.compiled", lambda function: refuse)
    argv = ["--data", str(many), "--init", str(tiny_path), "--crops", "64x2", "--steps", "2"]
    assert main([*argv, "--out", str(tmp_path / "a")]) == 0
    assert re.search("steps are not compiled: .*it does not know how", capsys.readouterr().out)
    assert main([*argv, "--out", str(tmp_path / "b"), "--compile"]) == 1
    assert re.search("ckbd train: compile: .*it does not know how", capsys.readouterr().err)


def test_validation_leaves_the_losses_as_they_are(folder, tmp_path, monkeypatch):
    run(folder, tmp_path / "a", 1, monkeypatch=monkeypatch)
    more = ["--init", str(tmp_path / "a" / "checkpoint.pt"), "--export", str(tmp_path / "m.safetensors")]
    more += ["--fit-tables", "0", "--rounded-from", "1"]
    monkeypatch.setattr("ckbd.training.finish.QUALITIES", (20.0, 90.0))
    losses = [
        run(folder, tmp_path / name, 2, *more, *val, monkeypatch=monkeypatch)
        for name, val in (("b", []), ("c", ["--val", str(folder)]))
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_validation_without_a_start_has_nothing_to_compare(folder, tmp_path, monkeypatch, capsys):
    more = ["--export", str(tmp_path / "m.safetensors"), "--fit-tables", "0", "--val", str(folder)]
    run(folder, tmp_path / "r", 1, *more, monkeypatch=monkeypatch)
    found = json.loads((tmp_path / "r" / "validation.json").read_text())
    assert found["bd_rate"] is None and set(found["rows"][0]) == {"quality", "bpp", "psnr"}
    assert "BD-rate" not in capsys.readouterr().out
