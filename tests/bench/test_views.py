"""The cases of regions, smaller pictures and large ones: what they time, and what they hold beside decimation."""

import argparse

import numpy as np
import pytest
from conftest import textured
from PIL import Image

import ckbd
from bench import large, views
from ckbd.codec import image

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_mosaic_is_full_of_pictures():
    pictures = [image.from_array(textured(h, w, n)) for n, (h, w) in enumerate(((20, 30), (24, 11), (9, 50)))]
    found = views.mosaic(pictures, 61, 95)
    assert found.shape == (61, 95, 3)
    assert np.array_equal(found[:9, :30], pictures[0].rgb[:9]) and np.array_equal(found[:9, 41:91], pictures[2].rgb)


def test_rows(tmp_path, tiny_path, monkeypatch, capsys):
    monkeypatch.setattr(views, "SIDES", (64, 4096))
    monkeypatch.setattr(views, "mosaic", lambda pictures, real=views.mosaic: real(pictures, 160, 192))
    for n in range(2):
        Image.fromarray(textured(80, 96, n)).save(tmp_path / f"{n}.png")
    args = {"model": str(tiny_path), "threads": 1, "images": [str(tmp_path)], "qualities": [20, 80], "runs": 2}
    rows = views.views(argparse.Namespace(**args))
    assert [row["view"] for row in rows[:5]] == [
        "scale 1",
        "scale 0.5",
        "scale 0.25",
        "scale 0.125",
        "region 64 x 64",
    ]
    assert rows[0]["total_percent"] == rows[0]["g_s_percent"] == 100 and rows[4]["area_percent"] == pytest.approx(
        13.33, 0.01
    )
    assert all(row["total_ms"] >= row["g_s_ms"] > 0 for row in rows[:5])
    assert [(row["quality"], row["scale"]) for row in rows[5:]] == [(q, 2.0**-n) for q in (20, 80) for n in (1, 2, 3)]
    assert all(abs(row["psnr"] - row["psnr_decimated"]) < 0.5 for row in rows[5:]), "without a preview they are means"
    assert "scale 0.125: " in capsys.readouterr().out
    assert ckbd.load(tiny_path).model.preview is None


def test_the_command_on_a_large_picture(tiny_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CKBD_MODELS", str(tiny_path.parent))
    Image.fromarray(textured(80, 96)).save(tmp_path / "a.png")
    args = {"model": "tiny", "threads": 1, "images": [str(tmp_path)], "side": 200, "noise": True}
    rows = large.large(argparse.Namespace(**args))
    commands = ["encode --model tiny --quality 50", "decode", "decode --scale 1/8", "decode --region 0,0,200,200"]
    assert [row["command"] for row in rows[:4]] == commands and len(rows) == 8
    assert all(row["seconds"] > 0 and 20 < row["megabytes"] < 4000 for row in rows)
    assert rows[4]["bytes"] > rows[0]["bytes"] > 100
    with pytest.raises(RuntimeError, match="ckbd decode nothing: exit status 1"):
        large.run("decode", "nothing")
