"""A preview fitted: that it is least squares, that streams stay as they are, and that the command writes it."""

import numpy as np
import pytest
import torch
from conftest import textured, tiny_model
from PIL import Image
from safetensors import safe_open
from torch.nn import functional as F

import ckbd
from ckbd import cli
from ckbd.codec.view import shrunk, view
from ckbd.light.decoder import Decoder
from ckbd.training import finish, preview
from ckbd.training.fit import LEAST

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_linear_map_is_found_again():
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 4, 3, 3) / 9, torch.randn(48) / 9
    sums = preview.Sums(4)
    for _ in range(3):
        y = torch.randn(1, 4, 9, 11)
        small = F.pixel_shuffle(F.conv2d(y, weight, bias, padding=1), 4) + 0.5
        sums.add(y, F.interpolate(small, scale_factor=4))  # each pixel four times four: means are what they were
    found = sums.solution()
    assert found[0].shape == weight.shape and found[1].shape == bias.shape and found[0].dtype == torch.float16
    assert torch.allclose(found[0].float(), weight, atol=2e-3) and torch.allclose(found[1].float(), bias, atol=2e-3)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    for n in range(25):
        Image.fromarray(textured(130 + n, 200, n)).save(path / f"{n:02}.png")
    Image.fromarray(textured(40, 300)).save(path / "flat.png")  # has no whole square
    return path


def test_the_command(tiny_path, folder, tmp_path, capsys):
    out = tmp_path / "new.safetensors"
    argv = ["fit-preview", str(tiny_path), "--data", str(folder), "--out", str(out), "--threads", "1"]
    assert cli.main(argv) == 0
    old, new = ckbd.load(tiny_path, threads=1), ckbd.load(out, threads=1)
    assert capsys.readouterr().out == f"{out}: model {old.model_hash}, with a preview\n"
    with safe_open(str(tiny_path), "np") as before, safe_open(str(out), "np") as after:
        assert set(after.keys()) - set(before.keys()) == {"preview.weight", "preview.bias"}
        assert all(np.array_equal(before.get_tensor(k), after.get_tensor(k)) for k in before.keys())
        assert before.metadata() == after.metadata()
    x = textured(128, 192, 99)
    streams = old.encode([x], 80)
    assert new.encode([x], 80) == streams and new.decode(streams)[0].tobytes() == old.decode(streams)[0].tobytes()
    for scale, shrink in ((1 / 4, 4), (1 / 8, 8)):
        small, want = new.decode_pictures(streams, scale=scale)[0].rgb.astype(int), shrunk(x, shrink).astype(int)
        error = np.mean((small - want) ** 2)
        assert error < 0.2 * np.mean((want.mean((0, 1)) - want) ** 2), "it shows the picture"
        light = Decoder(out).decode(streams[0], view(scale=scale)).rgb
        assert np.abs(light.astype(int) - small).max() <= 1
    assert cli.main(argv) == 1 and "exists (--force overwrites it)" in capsys.readouterr().err
    assert cli.main([*argv, "--force"]) == 0


@pytest.mark.parametrize(
    "change, message",
    [
        (["--pictures", "0"], "pictures: expected at least 1"),
        (["--out", "new.png"], "out: expected a name in .safetensors"),
        (["--data", "nowhere"], "nowhere"),
    ],
    ids=lambda one: str(one)[:20],
)
def test_what_cannot_be_done_is_said_in_a_line(tiny_path, folder, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    argv = ["fit-preview", str(tiny_path), "--data", str(folder), "--out", "new.safetensors", *change]
    assert cli.main(argv) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "new.safetensors").exists()


def test_pictures_without_a_whole_square_are_none(tiny_path):
    codec = ckbd.load(tiny_path, threads=1)
    with pytest.raises(ValueError, match="data: expected a picture of at least 64 x 64"):
        preview.fit(codec, [textured(63, 500), textured(500, 63)])


def test_latents_that_are_all_zero_have_a_preview_too():
    sums = preview.Sums(4)
    sums.add(torch.zeros(1, 4, 8, 8), torch.full((1, 3, 128, 128), 0.75))
    weight, bias = sums.solution()
    assert not weight.any() and torch.allclose(bias.float(), torch.tensor(0.25), atol=1e-3)


def test_an_export_stays_where_no_picture_is_large_enough(tmp_path, capsys):
    """Its tables are fitted, and it says why there is no preview."""
    folder, path = tmp_path / "pictures", tmp_path / "m.safetensors"
    folder.mkdir()
    for n in range(LEAST):
        Image.fromarray(textured(40, 50, n)).save(folder / f"{n:02}.png")
    identity = finish.export(tiny_model(), path, tmp_path / "raw.safetensors", [str(folder)], LEAST, 0, "cpu")
    assert f"{path}: no preview: data: expected a picture of at least 64 x 64" in capsys.readouterr().err
    codec = ckbd.load(path, threads=1)
    assert codec.model_hash == identity.hex() and codec.model.preview is None
