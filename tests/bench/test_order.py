"""The study of no context, checkerboard and channel groups: alike but for it, at one cost, from one start."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import TINY, textured, tiny_model
from PIL import Image

import ckbd
from bench.studies import order
from ckbd.model import file
from ckbd.model.config import SIZES
from ckbd.training import start

pytestmark = pytest.mark.usefixtures("one_thread")
WIDE = dataclasses.replace(TINY, M=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("order")
    for n in range(3):
        Image.fromarray(textured(256, 320, n)).save(path / f"{n}.png")
    (path / "init").mkdir()
    file.save(tiny_model(config=WIDE), path / "init" / "wide.safetensors")
    return path


@pytest.mark.parametrize("name, apart", [("small", 0.01), ("base", 0.04)])
def test_arms_cost_the_same(name, apart):
    base = SIZES[name]
    for arm in order.ARMS:
        c = order.widths(arm, base)
        assert order.cost(c, arm) == pytest.approx(order.cost(base, "checkerboard"), rel=apart)
        assert c.H1 % 32 == c.H2 % 32 == 0 and bool(c.groups) == (arm == "groups")
        assert dataclasses.replace(c, groups=(), channel=base.channel, H1=base.H1, H2=base.H2) == base


def test_channels_are_sorted_and_the_codec_is_as_it_was():
    model = tiny_model(config=WIDE).requires_grad_(False)
    x = torch.from_numpy(textured(256, 256)).permute(2, 0, 1)[None].float() / 255
    features = [model.g_a(x)[0]]
    want = model.g_s(features[0][None] * model.log_gain[0].exp().view(1, -1, 1, 1))
    order.ordered(model, features)
    assert torch.allclose(model.g_a(x)[0], features[0], atol=1e-5)
    got = model.g_s(features[0][None] * model.log_gain[0].exp().view(1, -1, 1, 1))
    assert torch.allclose(got, want, atol=1e-4)
    gain = order.gain_at(model.log_gain, torch.tensor([50.0]))[0]
    energy = torch.log2(1 + (features[0] * gain).abs()).mean((1, 2))
    assert (energy.diff() <= 0).all() and energy[0] > energy[-1]


def test_a_study_from_pictures_to_a_table(folder, tmp_path, capsys):
    argv = ["--runs", str(tmp_path), "--init", str(folder / "init" / "wide.safetensors"), "--data", str(folder)]
    argv += ["--seeds", "1", "--steps", "3", "--fit-tables", "0", "--json", str(tmp_path / "rows.json")]
    assert order.main(argv) == 0
    said = capsys.readouterr().out
    assert all(f"| {arm} |" in said for arm in order.ARMS)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [r["arm"] for r in rows] == list(order.ARMS) and rows[1]["bd_rate"] == pytest.approx(0, abs=1e-9)
    # Without a context the context's columns were never used; the transforms are the same in all.
    models = {arm: start.model_of(tmp_path / f"{arm}-0.safetensors") for arm in order.ARMS}
    columns = models["none"].exact.get_submodule("first").weight[:, models["none"].config.psi :]
    assert not columns.any() and models["checkerboard"].exact.get_submodule("first").weight[:, WIDE.psi :].any()
    assert models["groups"].config.groups == (8, 8, 16, 32)
    for part in ("g_a", "g_s"):
        states = [getattr(one, part).state_dict() for one in models.values()]
        assert all(torch.equal(states[0][name], one[name]) for one in states for name in one)
    # What is there is taken, unless it was made otherwise.
    before = (tmp_path / "none-0.safetensors").read_bytes()
    assert order.main([*argv, "--arms", "none", "checkerboard"]) == 0
    assert (tmp_path / "none-0.safetensors").read_bytes() == before
    assert order.main([*argv, "--steps", "4"]) == 1 and "not of" in capsys.readouterr().err
    codec = ckbd.load(tmp_path / "groups-0.safetensors")
    assert np.array_equal(*[codec.decode_pictures(codec.encode([textured(64, 64)] * 2))[i].rgb for i in (0, 1)])


def test_runs_that_are_not_there_want_data(tmp_path, capsys):
    assert order.main(["--runs", str(tmp_path), "--val", "skimage"]) == 1
    assert capsys.readouterr().err.startswith("bench.studies.order: ")
