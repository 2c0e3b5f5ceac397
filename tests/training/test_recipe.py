"""`ckbd train CONFIG`: what is logged depends on the recipe alone, whatever kills the process."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, textured
from PIL import Image
from safetensors.torch import load_file

import ckbd
from ckbd import cli
from ckbd.papers import context
from ckbd.papers.cut import cut
from ckbd.training.recipe import COLUMNS, Recipe, averaged_model, draw_mask, run

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = dataclasses.asdict(TINY) | {"context": "raster", "centring": "integer"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    for n in range(2):
        Image.fromarray(textured(80, 70 + 10 * n, n)).save(path / f"{n}.png")
    return path


def recipe(pictures, out, **changes) -> dict:
    fields = {
        "model": MODEL,
        "data": [str(pictures)],
        "out": str(out),
        "steps": 6,
        "crops": "64x1",
        "checkpoint_every": 2,
    }
    return fields | changes


def log(out) -> str:
    return (out / "log.csv").read_text()


def test_killed_training_goes_on_to_the_last_digit(data, tmp_path, small_env):
    changes = {"steps": 40, "checkpoint_every": 4, "threads": 1}
    run(Recipe(**recipe(data, tmp_path / "whole", **changes)), quiet=True)
    config = tmp_path / "recipe.json"
    config.write_text(json.dumps(recipe(data, tmp_path / "parts", **changes)))
    command = [sys.executable, "-m", "ckbd.cli", "train", str(config)]
    process = subprocess.Popen(command, env=small_env, stdout=subprocess.DEVNULL)
    path, deadline = tmp_path / "parts" / "log.csv", time.monotonic() + 120
    while not (path.exists() and path.read_text().count("\n") > 7) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = path.read_text().count("\n") - 1
    assert 6 < reached < 40 and not (tmp_path / "parts" / "model.safetensors").exists()
    with open(path, "a") as file:
        file.write("41,0.")  # what a kill in the middle of a row would leave
    subprocess.run(command, env=small_env, stdout=subprocess.DEVNULL, check=True)
    assert log(tmp_path / "parts") == log(tmp_path / "whole") and log(tmp_path / "whole").count("\n") == 41
    models = [load_file(tmp_path / n / "model.safetensors") for n in ("whole", "parts")]
    assert models[0].keys() == models[1].keys() and all(torch.equal(t, models[1][n]) for n, t in models[0].items())


def test_a_seed_fixes_the_log_and_another_changes_it(data, tmp_path):
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 1})):
        run(Recipe(**recipe(data, tmp_path / name, **changes)), quiet=True)
    assert log(tmp_path / "a") == log(tmp_path / "b") != log(tmp_path / "c")
    assert log(tmp_path / "a").splitlines()[0] == ",".join(COLUMNS)


def test_a_run_may_start_from_the_average_of_another(data, tmp_path):
    run(Recipe(**recipe(data, tmp_path / "a", steps=2)), quiet=True)
    start = {"init": str(tmp_path / "a" / "checkpoint.pt"), "steps": 1, "lr": 1e-12}
    run(Recipe(**recipe(data, tmp_path / "b", **start)), quiet=True)
    a, b = (averaged_model(tmp_path / n / "checkpoint.pt").state_dict() for n in "ab")
    assert all(torch.allclose(a[name], b[name], atol=1e-9) for name in a)
    with pytest.raises(ValueError, match="init: .* is of another model"):
        run(Recipe(**recipe(data, tmp_path / "c", **start | {"model": MODEL | {"context": "none"}})), quiet=True)


def test_bits_of_z_are_in_the_loss(data, tmp_path):
    run(Recipe(**recipe(data, tmp_path, steps=1)), quiet=True)
    row = dict(zip(COLUMNS, map(float, log(tmp_path).splitlines()[1].split(",")), strict=True))
    assert 0 < row["bpp_z"] < row["bpp"]


@pytest.mark.parametrize("changes", [{"rate": "rounded"}, {"latent": "noise"}, {"bf16": True}, {"supernet": True}])
def test_options_train_and_what_comes_out_codes(data, tmp_path, changes):
    model = MODEL | ({"context": "none", "supernet": True} if changes.pop("supernet", False) else {})
    path = run(Recipe(**recipe(data, tmp_path, model=model, steps=2, **changes)), quiet=True)
    losses = [float(row.split(",")[2]) for row in log(tmp_path).splitlines()[1:]]
    assert np.isfinite(losses).all() and len(losses) == 2
    codec = ckbd.load(path)
    assert codec.decode(codec.encode([textured(50, 70)]))[0].size == (70, 50)
    if model.get("supernet"):
        assert cut(averaged_model(tmp_path / "checkpoint.pt"), context.NAMED["corners"]).config.taps > 0


def test_ms_ssim_trains(data, tmp_path):
    Image.fromarray(textured(200, 200)).save(tmp_path / "large.png")
    run(Recipe(**recipe(tmp_path, tmp_path / "run", metric="ms-ssim", crops="192x1", steps=1)), quiet=True)
    assert np.isfinite(float(log(tmp_path / "run").splitlines()[1].split(",")[2]))


def test_training_lowers_the_loss(data, tmp_path):
    run(Recipe(**recipe(data, tmp_path, steps=60, lr=1e-2, checkpoint_every=60)), quiet=True)
    losses = [float(row.split(",")[2]) for row in log(tmp_path).splitlines()[1:]]
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])


def test_masks_are_drawn_by_step_from_none_to_all():
    masks = torch.stack([draw_mask(24, 3, step) for step in range(400)])
    assert torch.equal(masks, torch.stack([draw_mask(24, 3, step) for step in range(400)]))
    assert not torch.equal(masks, torch.stack([draw_mask(24, 4, step) for step in range(400)]))
    counts = masks.sum(1)
    assert (counts == 0).sum() > 10 and (counts == 24).sum() > 10 and (counts == 1).sum() > 60
    assert masks.mean(0).min() > 0.2 and set(masks.unique().tolist()) == {0.0, 1.0}


def test_a_checkpoint_of_another_recipe_is_refused(data, tmp_path, capsys):
    run(Recipe(**recipe(data, tmp_path, steps=1)), quiet=True)
    with pytest.raises(ValueError, match="made by another recipe"):
        run(Recipe(**recipe(data, tmp_path, steps=1, seed=9)), quiet=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a checkpoint of ckbd train CONFIG"):
        run(Recipe(**recipe(data, tmp_path, steps=1)), quiet=True)
    torch.save(torch.zeros(3), tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="not a checkpoint of ckbd train CONFIG: TypeError: it holds a Tensor"):
        run(Recipe(**recipe(data, tmp_path, steps=1)), quiet=True)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rate": "loud"}, "rate: expected one of noise, rounded, got 'loud'"),
        ({"steps": 0}, "steps: expected a number above 0"),
        ({"steps": True}, "steps: expected int"),
        ({"ema": 1}, "ema: expected 0 to 1"),
        ({"crops": "60x2"}, "crops: expected SIZExCOUNT"),
        ({"metric": "ms-ssim"}, "crops: MS-SSIM needs at least 192 pixels"),
        ({"data": []}, "data: expected folders or tar files"),
        ({"colour": 1}, "colour: no such field; there are model, data, "),
        ({"model": {"depth": 1}}, "model: depth: no such field"),
        ({"model": {"context": "chess"}}, "context: expected one of"),
        ({"data": ["/nonexistent.tar"]}, "No such file"),
    ],
)
def test_wrong_recipes_end_in_one_line(data, tmp_path, capsys, changes, message):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe(data, tmp_path / "run", **changes)))
    assert cli.main(["train", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1

    assert re.search(message, error)


def test_the_command_line_changes_a_recipe(data, tmp_path, capsys):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe("/nonexistent", tmp_path / "x")))
    argv = ["train", str(path), "--data", str(data), "--out", str(tmp_path / "y"), "--steps", "2", "--seed", "4"]
    assert cli.main(argv) == 0
    assert "model.safetensors" in capsys.readouterr().out and log(tmp_path / "y").count("\n") == 3


def test_the_recipe_in_the_docs_is_one():
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (block,) = re.findall(r"```json\n(.*?)```", text, re.S)
    assert Recipe(**json.loads(block)).config.context == context.NAMED["raster"]
    for name in re.findall(r"`([a-z0-9-]+)`", text[text.index("| context | a name") :].split("\n")[0]):
        assert name in context.NAMED or name in ("none", "context")
