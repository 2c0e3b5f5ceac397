"""The training loop: repeatable, resumable, and what it exports runs."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import GROUPED, TINY, textured
from PIL import Image
from training_cases import few, run

import ckbd
from ckbd.model.config import SIZES
from ckbd.model.model import Checkerboard, hyper_map
from ckbd.training import start
from ckbd.training.data import Crops, pictures
from ckbd.training.steps import draw_qualities
from ckbd.training.train import learning_rate, main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return few(tmp_path_factory.mktemp("pictures"))


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
    monkeypatch.setattr("ckbd.model.model.hyper_map", lambda z, *rest: seen.append(z.dtype) or hyper_map(z, *rest))
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


@pytest.mark.parametrize(
    "options",
    ["--metric mse", "--metric ms-ssim", "--ms-ssim-share 0.2 --ssimulacra2-share 0.5 --bf16"],
    ids=["mse", "ms-ssim", "all"],
)
def test_training_lowers_the_loss_and_exports_a_model_that_runs(folder, tmp_path, monkeypatch, options):
    mse = options == "--metric mse"
    if not mse:
        folder = tmp_path / "large"
        folder.mkdir()
        Image.fromarray(textured(200, 200)).save(folder / "a.png")
        (folder / "tiny.json").write_text(json.dumps(dataclasses.asdict(TINY)))
    more = [*options.split(), "--export", str(tmp_path / "m.safetensors"), "--lr", "1e-2", "--fit-tables", "0"]
    more += [] if mse else ["--crops", "192x2"]
    rows = run(folder, tmp_path / "r", 120 if mse else 4, *more, monkeypatch=monkeypatch)
    losses = [float(v) for _, v in rows]
    assert np.isfinite(losses).all()
    if mse:
        assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:30])
    codec = ckbd.load(tmp_path / "m.safetensors")
    (image,) = codec.decode(codec.encode([textured(50, 70)], quality=90))
    assert image.size == (70, 50)


def test_channel_groups_are_trained_exported_and_gone_on_from(folder, tmp_path, monkeypatch):
    (folder / "groups.json").write_text(json.dumps(GROUPED.to_json()))
    argv = ["--config", str(folder / "groups.json"), "--export", str(tmp_path / "g.safetensors"), "--fit-tables", "0"]
    losses = run(folder, tmp_path / "a", 3, *argv, monkeypatch=monkeypatch)
    codec = ckbd.load(tmp_path / "g.safetensors")
    assert codec.model.config == GROUPED and codec.decoder.zone.phases == 6
    (decoded,) = codec.decode_pictures(codec.encode([textured(70, 90)], 60))
    assert decoded.rgb.shape == (70, 90, 3)
    # A run goes on, and another starts from what it has exported.
    assert run(folder, tmp_path / "a", 4, *argv, monkeypatch=monkeypatch)[:3] == losses
    run(folder, tmp_path / "b", 1, *argv, "--init", str(tmp_path / "g.safetensors"), monkeypatch=monkeypatch)


def test_sizes_have_names(folder, tmp_path, monkeypatch, capsys):
    built = []
    monkeypatch.setattr("ckbd.training.train.Checkerboard", lambda config: built.append(config) or Checkerboard(TINY))
    monkeypatch.setattr("ckbd.training.train.steps.optimisers", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["--data", str(folder), "--out", str(tmp_path), "--config", "large", "--crops", "64x1"])
    assert built[0] is SIZES["large"] and sum(SIZES["large"].groups) == SIZES["large"].M
    assert all(start.model_of(name).config == SIZES[name] for name in ("small", "base"))


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
        (["--ms-ssim-share", "0.1", "--crops", "128x2"], "MS-SSIM needs at least 192 pixels, got 128"),
        (["--ssimulacra2-share", "0.1", "--crops", "64x2"], "SSIMULACRA2 needs at least 128 pixels, got 64"),
        (["--ms-ssim-share", "1.5"], "ms_ssim: expected a share from 0 to 1, got 1.5"),
        (["--ssimulacra2-share", "nan"], "ssimulacra2: expected a share from 0 to 1"),
        (["--metric", "ms-ssim", "--ssimulacra2-share", "0.1"], "shares: expected 1 at the most together"),
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
