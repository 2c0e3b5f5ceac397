"""The study of what a decoder sees: streams that stay as they are, and arms that begin as g_s alone."""

import json

import numpy as np
import pytest
import torch
from conftest import textured
from PIL import Image

import ckbd
from bench.studies import sight
from ckbd.codec import deadzone, image
from ckbd.training import finish

pytestmark = pytest.mark.usefixtures("one_thread")
QUALITY = 60.5


@pytest.fixture
def codec(tiny_path):
    return ckbd.load(tiny_path, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sight")
    for n in range(3):
        Image.fromarray(textured(64, 70 + 64 * n, n)).save(path / f"{n}.png")
    return path


def test_what_is_seen_is_what_the_decoder_has(codec):
    p = image.from_array(textured(64, 70))
    s, y = sight.seen(codec, p, QUALITY)
    (stream,) = codec.encode([p], QUALITY)
    assert np.array_equal(s.y[0].numpy(), codec.decode_latents([stream])[0])
    assert s.psi.shape[1] == codec.model.config.psi and s.x.shape == (1, 3, 64, 128)
    assert not s.r.abs().gt((y - s.y / 16 + s.r).abs() + 0.51).any()  # rounded, or nearer to zero
    x_hat = sight.Beside(codec, "plain")(s)[0].detach().clamp(0, 1) * 255
    got = x_hat.round().to(torch.uint8).permute(1, 2, 0)[:64, :70].numpy()
    assert image.psnr(got, codec.decode_pictures([stream])[0].rgb) > 45  # but for roundings


@pytest.mark.parametrize("arm", sight.ARMS)
def test_arms_begin_as_g_s_and_see_what_they_are_let(codec, arm):
    s, _ = sight.seen(codec, image.from_array(textured(64, 70)), QUALITY)
    model = sight.Beside(codec, arm)
    assert torch.equal(model(s), sight.Beside(codec, "plain")(s))
    if arm == "plain":
        assert model.cost()[1] == 0
        return
    assert model.cost()[1] > 0
    torch.nn.init.normal_(model.more[1].weight)
    before = model(s)
    for part, matters in (("psi", arm != "blind"), ("k", arm != "blind"), ("r", arm == "lrp"), ("quality", True)):
        other = s._replace(**{part: getattr(s, part) + 1})
        if part == "quality":
            other = s._replace(y=s.y, quality=s.quality + 0.001)
        assert torch.equal(model(other), before) is not matters, part


def test_means_are_of_sizes_and_scales(monkeypatch):
    monkeypatch.setattr(sight, "LEAST", 2)
    r = torch.tensor([[[[0, 2, -2, 30]]]], dtype=torch.int16)
    k = torch.tensor([[[[5, 7, 7, 5]]]], dtype=torch.uint8)
    s = sight.Seen(None, 16 * r, r, k, None, None)
    y = torch.tensor([[[[0.3, 2.25, -2.25, 30.5]]]])
    found = sight.means([(s, y)])
    assert found[7, 2] == 0.25 and found.count_nonzero() == 1  # and of one element there is no mean
    found = sight.means([(s, y)] * 2)
    assert found[5, 0] == 0 and found[5, sight.TOP] == 0.5 and found.count_nonzero() == 2
    moved = sight.moved(lambda s, by: s.y / 16 + by, found, s)
    assert moved.tolist() == [[[[0, 2.25, -2.25, 30.5]]]]


def test_arms_are_trained_and_measured_at_the_bytes_of_real_streams(folder, tiny_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sight, "SIDE", 64)
    argv = ["--init", str(tiny_path), "--data", str(folder), "--val", str(folder), "--seeds", "1", "--steps", "2"]
    assert sight.main([*argv, "--weights", "20", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    names = [(r["arm"], r["weight"]) for r in rows]
    assert names == [*((a, 80) for a in ("shipped", "moved", *sight.ARMS)), ("shipped", 20), ("moved", 20)]
    real = finish.curve(tiny_path, [image.read(p) for p in sorted(folder.iterdir())])
    assert all(r["bpp"] == pytest.approx(real["bpp"]) for r in rows[:-2]) and rows[-1]["bpp"] != rows[0]["bpp"]
    assert rows[0]["psnr"] == pytest.approx(real["psnr"], abs=0.02)
    assert all(r["psnr"] != rows[0]["psnr"] for r in rows[1:6]) and deadzone.WEIGHT == 80
    assert "| lrp | 80 |" in capsys.readouterr().out


def test_a_path_that_is_missing_is_named(capsys):
    assert sight.main(["--data", "/nonexistent.tar"]) == 1
    assert "/nonexistent.tar" in capsys.readouterr().err
