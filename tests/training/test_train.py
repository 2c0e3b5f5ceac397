"""The training loop: repeatable, resumable, and what it exports runs."""

import csv
import dataclasses
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

import ckbd
from ckbd.codec.image import Picture, psnr
from ckbd.model.model import Checkerboard, hyper_features
from ckbd.training import finish, optim, start, train
from ckbd.training.data import Crops, Mix, pictures
from ckbd.training.fit import LEAST, SIDE
from ckbd.training.optim import orthogonalise
from ckbd.training.steps import draw_qualities
from ckbd.training.train import learning_rate, main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    for n in range(3):
        Image.fromarray(textured(90, 70 + 10 * n, n)).save(path / f"{n}.png")
    (path / "tiny.json").write_text(json.dumps(dataclasses.asdict(TINY)))
    return path


def run(folder, out, steps, *more, monkeypatch):
    monkeypatch.setattr("ckbd.training.train.LOG_EVERY", 1)
    argv = [
        "--data",
        str(folder),
        "--out",
        str(out),
        "--steps",
        str(steps),
        "--crops",
        "64x2",
        "--config",
        str(folder / "tiny.json"),
        "--rounded-from",
        "0",
        *more,
    ]
    assert main(argv) == 0
    with open(out / "log.csv") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


def test_fixed_seed_repeats_the_loss_curve_and_another_does_not(folder, tmp_path, monkeypatch):
    first = run(folder, tmp_path / "a", 4, monkeypatch=monkeypatch)
    assert len(first) == 4 and first == run(folder, tmp_path / "b", 4, monkeypatch=monkeypatch)
    assert first != run(folder, tmp_path / "c", 4, "--seed", "5", monkeypatch=monkeypatch)


def test_resumed_training_continues_exactly(folder, tmp_path, monkeypatch):
    # The learning rate depends on progress: hold it still, so that stopping early is a stop and nothing else.
    monkeypatch.setattr("ckbd.training.train.learning_rate", lambda peak, step, progress: peak)
    whole = run(folder, tmp_path / "whole", 6, monkeypatch=monkeypatch)
    run(folder, tmp_path / "parts", 3, monkeypatch=monkeypatch)
    assert run(folder, tmp_path / "parts", 6, monkeypatch=monkeypatch) == whole
    a, b = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["average"] for n in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_log_of_a_resumed_run_has_whole_averages(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ckbd.training.train.learning_rate", lambda peak, step, progress: peak)
    argv = ["--data", str(folder), "--crops", "64x2", "--config", str(folder / "tiny.json"), "--rounded-from", "0"]
    monkeypatch.setattr("ckbd.training.train.LOG_EVERY", 3)
    for out, stops in (("whole", [6]), ("parts", [4, 6])):
        for steps in stops:
            assert main([*argv, "--out", str(tmp_path / out), "--steps", str(steps)]) == 0
    rows = [(tmp_path / n / "log.csv").read_text().splitlines() for n in ("whole", "parts")]
    whole, parts = ([row.split(",")[:1] + row.split(",")[3:5] for row in r] for r in rows)
    assert whole == parts and len(whole) == 3


def test_bf16_does_not_reach_the_exact_zone(folder, tmp_path, monkeypatch):
    losses = run(folder, tmp_path / "r", 2, "--bf16", monkeypatch=monkeypatch)
    assert all(np.isfinite(float(v)) for _, v in losses)
    model = Checkerboard(TINY)
    seen = []
    monkeypatch.setattr(
        "ckbd.model.model.hyper_features", lambda z, *rest: seen.append(z.dtype) or hyper_features(z, *rest)
    )
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(1, 3, 64, 64), torch.tensor([50.0]))
    assert seen == [torch.float32]


def test_a_saved_tensor_is_no_checkpoint(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "t.pt")
    with pytest.raises(ValueError, match="not a checkpoint of ckbd train: TypeError: it holds a Tensor"):
        start.read_checkpoint(tmp_path / "t.pt", "cpu")


@pytest.mark.parametrize("rounded_from", ["0", "1"])
def test_training_starts_from_another_runs_weights(folder, tmp_path, monkeypatch, rounded_from):
    run(folder, tmp_path / "a", 1, monkeypatch=monkeypatch)
    start = str(tmp_path / "a" / "checkpoint.pt")
    run(
        folder,
        tmp_path / "b",
        1,
        "--init",
        start,
        "--lr",
        "1e-12",
        "--rounded-from",
        rounded_from,
        monkeypatch=monkeypatch,
    )
    a, b = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in "ab")
    assert all(torch.allclose(a["average"][n], b["model"][n], atol=1e-9) for n in a["average"])


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
    assert found["bd_rate"] == pytest.approx(-10, abs=0.01) and "BD-rate against before: -10.00 %" in said
    assert found["rows"][0] == {
        "quality": 5,
        "bpp": pytest.approx(0.09),
        "psnr": 28,
        "before_bpp": 0.1,
        "before_psnr": 28,
    }
    far = {"bpp": before["bpp"], "psnr": [60.0 + i for i in range(7)]}
    assert "no BD-rate: no PSNR that both reach" in finish.report(before, far, tmp_path / "v.json")
    monkeypatch.setitem(sys.modules, "ckbd.evaluation.evaluate", None)
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
        raise torch._dynamo.exc.BackendCompilerFailed("inductor", RuntimeError("it does not know how"), None)

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


@pytest.mark.parametrize("metric", ["mse", "ms-ssim"])
def test_training_lowers_the_loss_and_exports_a_model_that_runs(folder, tmp_path, monkeypatch, metric):
    if metric == "ms-ssim":
        pytest.importorskip("pytorch_msssim")
        folder = tmp_path / "large"
        folder.mkdir()
        Image.fromarray(textured(200, 200)).save(folder / "a.png")
        (folder / "tiny.json").write_text(json.dumps(dataclasses.asdict(TINY)))
    more = ["--metric", metric, "--export", str(tmp_path / "m.safetensors"), "--lr", "1e-2", "--fit-tables", "0"]
    more += ["--crops", "192x2"] if metric == "ms-ssim" else []
    losses = [
        float(v)
        for _, v in run(folder, tmp_path / "r", 120 if metric == "mse" else 4, *more, monkeypatch=monkeypatch)
    ]
    assert np.isfinite(losses).all()
    if metric == "mse":
        assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:30])
    codec = ckbd.load(tmp_path / "m.safetensors")
    (image,) = codec.decode(codec.encode([textured(50, 70)], quality=90))
    assert image.size == (70, 50)


def test_another_config_cannot_resume(folder, tmp_path, monkeypatch, capsys):
    run(folder, tmp_path / "r", 1, monkeypatch=monkeypatch)
    argv = ["--data", str(folder), "--out", str(tmp_path / "r"), "--steps", "2", "--crops", "64x2"]
    assert main(argv) == 1
    assert "made with another config" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        (["--crops", "100x2"], "crops: expected SIZExCOUNT"),
        (["--crops", "64"], "crops: expected SIZExCOUNT"),
        (["--crops", "128x2"], "none of the 3 pictures is at least 128 pixels"),
        (["--data", "/nonexistent.tar"], "No such file"),
        (["--data", __file__], "neither a folder nor a tar file"),
        (["--config", __file__], "config: "),
        (["--metric", "ms-ssim", "--crops", "64x2"], "MS-SSIM needs at least 192 pixels"),
        (["--export", "/nonexistent/model.safetensors"], "export: expected a name in .safetensors in a folder that"),
        (["--export", "small"], "export: expected a name in .safetensors"),
        (["--device", "nonsense"], "device 'nonsense'"),
        (["--crops", "64x2", "--export", "m.safetensors"], "expected at least 20 pictures to fit tables to, got 3"),
        (["--fit-tables", "7"], "fit-tables: expected 0 or at least 20 pictures, got 7"),
        (["--val", "/nonexistent.tar"], "val: expected --export with it"),
        (["--val", "/nonexistent.tar", "--export", "m.safetensors"], "No such file"),
        (["--drawn", "1.5"], "drawn: expected a share from 0 to 1"),
        (["--colour", "-1"], "colour: expected a share from 0 to 1"),
        (["--init", "nonesuch"], "nonesuch"),
        (["--init", __file__], "not a safetensors file"),
    ],
)
def test_wrong_arguments_end_in_one_line(folder, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)  # where "m.safetensors" would be
    assert main(["--data", str(folder), "--out", str(tmp_path), "--steps", "1", *more]) == 1
    assert message in capsys.readouterr().err


def test_crops_are_upright_squares_turned_and_flipped(folder):
    crops = Crops([str(folder)], 64, 0)
    assert len(crops.pictures) == 3
    batch = crops.batch(5, 64)
    assert batch.shape == (5, 3, 64, 64) and batch.dtype == torch.float32
    assert 0 <= batch.min() and batch.max() <= 1
    assert not torch.equal(batch, crops.batch(5, 64))


def test_pictures_of_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no pictures"):
        list(pictures(tmp_path))


def test_qualities_cover_the_range_in_half_steps():
    q = torch.cat([draw_qualities(8) for _ in range(400)])
    assert q.min() == 1 and q.max() == 100 and torch.equal(2 * q, torch.round(2 * q))
    assert torch.histc(q, 4).min() > 600


def test_learning_rate_warms_up_and_falls():
    assert learning_rate(1.0, 0, 0.0) < 0.01
    assert learning_rate(1.0, 300, 0.0) == pytest.approx(1.0)
    assert learning_rate(1.0, 10**6, 1.0) == pytest.approx(0.01)
