"""The study of drawn pictures and colours: what it trains and measures, on models too small to conclude anything."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import textured
from PIL import Image

from bench.gpu.training import TOY
from bench.sheets import hard
from bench.studies import content
from ckbd.codec.image import Picture
from ckbd.model import transforms

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("content")
    for n in range(2):
        Image.fromarray(textured(64, 70, n)).save(path / f"{n}.png")
    return path


def study(folder, tmp_path, monkeypatch, *more):
    monkeypatch.setattr(content, "CONFIG", TOY.__dict__ | {"lmbda_max": 0.24})
    monkeypatch.setattr(content, "TRAINING", "--crops 64x2 --fit-tables 0")
    argv = ["--runs", str(tmp_path / "runs"), "--val", str(folder), "--seeds", "1", "--steps", "2"]
    return content.main([*argv, "--json", str(tmp_path / "rows.json"), *more])


def test_arms_are_trained_measured_and_taken_again(folder, tmp_path, monkeypatch, capsys):
    seen = []
    real = content.train.main
    monkeypatch.setattr(content.train, "main", lambda argv: seen.append((argv, transforms.CHROMA)) or real(argv))
    assert study(folder, tmp_path, monkeypatch, "--data", str(folder), "--arms", "drawn", "chroma") == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [r["arm"] for r in rows] == ["plain", "drawn", "chroma"]
    assert rows[0]["change"] == {"photographs": 0, "drawn": 0} and set(rows[0]["kept"]) == {"8", "4", "3", "2", "1"}
    assert [("--drawn" in argv, chroma) for argv, chroma in seen] == [(False, 8), (True, 8), (False, 5)]
    assert transforms.CHROMA == 8
    first = capsys.readouterr().out
    assert study(folder, tmp_path, monkeypatch, "--arms", "drawn", "chroma") == 0 and len(seen) == 3
    assert "| chroma |" in first and first.splitlines()[-5:] == capsys.readouterr().out.splitlines()[-5:]


def test_arms_go_on_from_a_model(folder, tiny_path, tmp_path, monkeypatch):
    more = ["--data", str(folder), "--arms", "colour", "--init", str(tiny_path)]
    assert study(folder, tmp_path, monkeypatch, *more) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [r["arm"] for r in rows] == ["plain", "colour"] and abs(rows[1]["change"]["photographs"]) < 5
    with pytest.raises(SystemExit):
        study(folder, tmp_path, monkeypatch, *more, "--arms", "chroma")


def test_a_change_is_against_plain_of_its_seed(tmp_path, monkeypatch, folder):
    told, measured = [], []

    def curve(path, pictures, device="cpu"):
        # More bytes for later seeds, fewer for the arm; as many as the set has.
        name, seed = path.stem.split("-")
        bpp = [len(pictures) * 0.2 * (1 + int(seed)) * (0.9 if name == "drawn" else 1) * 1.4**i for i in range(7)]
        measured.append((path.stem, len(pictures)))
        return {"bpp": bpp, "psnr": [28.0 + i for i in range(7)]}

    def main(argv):
        told.append(argv)
        (tmp_path / "runs" / f"{argv[argv.index('--export') + 1].split('/')[-1]}").write_bytes(b"")
        return 0

    monkeypatch.setattr(content.train, "main", main)
    monkeypatch.setattr(content.finish, "curve", curve)
    monkeypatch.setattr(content.ckbd, "load", lambda path: None)
    monkeypatch.setattr(content, "kept", lambda codec, side: side / 10)
    argv = ["--runs", str(tmp_path / "runs"), "--val", str(folder), "--every", "2", "--data", "d", "--init", "small"]
    argv += ["--arms", "drawn", "--seeds", "2", "--json", str(tmp_path / "rows.json")]
    assert content.main(argv) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    for row in rows:
        for value in row["change"].values():
            assert value == pytest.approx(-10 if row["arm"] == "drawn" else 0, abs=0.01), row
    assert [(r["arm"], r["seed"]) for r in rows] == [("plain", 0), ("drawn", 0), ("plain", 1), ("drawn", 1)]
    assert all(content.ON in " ".join(one) and "--init small" in " ".join(one) for one in told)
    assert [one[one.index("--seed") + 1] for one in told] == ["0", "0", "1", "1"]
    assert measured[:2] == [("plain-0", 1), ("plain-0", 5)]  # one photograph in two, and all that are drawn
    assert content.main([*argv, "--steps", "7"]) == 1  # those that are there are of other steps


def test_a_run_that_is_missing_is_named(folder, tmp_path, monkeypatch, capsys):
    assert study(folder, tmp_path, monkeypatch) == 1
    assert "plain-0.safetensors: no such file; --data trains it" in capsys.readouterr().err


def test_colour_that_is_kept_is_counted_square_by_square():
    x = hard.checkers().astype(np.float64)

    def codec(rgb):
        return SimpleNamespace(
            encode=lambda pictures, quality: [b""], decode_pictures=lambda streams: [Picture(rgb.astype(np.uint8))]
        )

    gray = np.full_like(x, 128)
    for side in content.SIDES:
        assert content.kept(codec(x), side) == pytest.approx(1)
        assert content.kept(codec(gray), side) == pytest.approx(0)
        assert content.kept(codec(0.25 * x + 0.75 * gray), side) == pytest.approx(0.25, abs=0.01)
        column = np.s_[:, content.SIDES[side] * 64 : (content.SIDES[side] + 1) * 64]
        red = hard.checkers()[column][: hard.HEIGHT // 2, :, 0] > 128
        for edges in (red[0, 1:] != red[0, :-1], red[1:, 0] != red[:-1, 0]):
            assert set(np.diff(np.flatnonzero(edges))) == {side}  # squares of that side
