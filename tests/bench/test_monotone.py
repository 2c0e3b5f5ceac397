"""bench.sheets.monotone: what counts as a fault, and that the command finds one."""

import numpy as np
import pytest
from conftest import textured
from PIL import Image

import ckbd
from bench.sheets import monotone
from bench.sheets.monotone import Fault


def test_faults_are_losses_against_any_lower_quality():
    assert monotone.faults("bytes", [5, 5, 6, 9], [1, 2, 3, 4], 0) == []
    assert monotone.faults("bytes", [5, 9, 8, 7, 9, 10], [1, 2, 3, 4, 5, 6], 0) == [
        Fault("bytes", 2, 3, 1),
        Fault("bytes", 2, 4, 2),
    ]
    # Many steps down, each within the tolerance, add up to a fault.
    found = monotone.faults("dB", [30.0, 29.985, 29.97, 31.0], [1, 2, 3, 4], 0.02)
    assert [(f.before, f.quality) for f in found] == [(1, 3)] and found[0].loss == pytest.approx(0.03)


def test_ladders():
    assert monotone.ladder(1, 100, 1) == list(range(1, 101))
    assert monotone.ladder(10, 12, 0.5) == [10, 10.5, 11, 11.5, 12]
    assert monotone.ladder(1, 100, 33) == [1, 34, 67, 100]
    for bad in ((0, 100, 1), (1, 101, 1), (5, 4, 1), (1, 100, 0), (1, 100, 0.3), (1.2, 100, 1)):
        with pytest.raises(ValueError, match="--qualities: expected 1 <= FIRST"):
            monotone.ladder(*bad)


def test_many_qualities_at_once_give_the_bytes_that_each_alone_gives(tiny):
    picture = textured(70, 130)
    qualities = [1, 30.5, 100]
    assert tiny.encode_at(picture, qualities) == [tiny.encode([picture], quality=q)[0] for q in qualities]
    assert tiny.encode_at(picture, []) == []
    with pytest.raises(ValueError, match="quality: expected 1 to 100, got 101"):
        tiny.encode_at(picture, [1, 101])


@pytest.fixture
def folder(tmp_path):
    for name, seed in (("a.png", 0), ("b.png", 1)):
        Image.fromarray(textured(64, 80, seed)).save(tmp_path / name)
    return tmp_path


def run(folder, monkeypatch, codec, *arguments):
    monkeypatch.setattr(ckbd, "load", lambda *a, **k: codec, raising=False)
    return monotone.main(["--images", str(folder), *arguments])


class Scripted:
    """A codec whose streams have the lengths asked for, and whose pictures get nearer to the original."""

    model_hash = "0123456789ab"

    def __init__(self, lengths, errors):
        self.lengths, self.errors = lengths, errors

    def encode_at(self, picture, qualities):
        self.rgb = picture.rgb
        return [bytes([i]) * n for i, n in enumerate(self.lengths)]

    def decode_pictures(self, streams):
        error = self.errors[streams[0][0]]
        return [ckbd.Picture(np.where(self.rgb < 128, self.rgb + error, self.rgb - error).astype(np.uint8))]


def test_the_command_says_where_and_how_much(folder, monkeypatch, capsys):
    three = ("--qualities", "1", "3", "1")
    assert run(folder, monkeypatch, Scripted([100, 110, 120], [9, 5, 2]), *three) == 0
    out = capsys.readouterr().out
    assert "bytes: rise with" in out and "dB: rise with" in out and "2 pictures, 3 qualities" in out
    assert run(folder, monkeypatch, Scripted([100, 120, 110], [9, 2, 5]), *three) == 1
    out = capsys.readouterr().out
    assert "a.png: 10 bytes less at quality 3 than at 2" in out and "b.png: 7.9588 dB less" in out
    assert "bytes: 2 faults; worst a.png, quality 3: 10 less" in out and "dB: 2 faults" in out


def test_a_real_codec_is_measured(folder, monkeypatch, tiny, capsys):
    sizes, psnrs = monotone.measure(tiny, ckbd.codec.image.read(folder / "a.png"), [1, 100])
    streams = tiny.encode_at(ckbd.codec.image.read(folder / "a.png"), [1, 100])
    assert sizes == [len(s) for s in streams] and all(0 < p < 60 for p in psnrs)
    found = sizes[0] > sizes[1] or psnrs[0] > psnrs[1] + monotone.TOLERANCE
    assert run(folder, monkeypatch, tiny, "--qualities", "1", "100", "99") >= found


def test_usage(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments in (["--images", str(tmp_path / "empty")], ["--images", str(tmp_path / "none")]):
        with pytest.raises(SystemExit, match="2"):
            monotone.main(arguments)
        assert "--images: no pictures in" in capsys.readouterr().err
    for extra in (["--qualities", "1", "100", "0"], ["--model", "nothing"]):
        with pytest.raises(SystemExit, match="2"):
            monotone.main(["--images", str(folder), *extra])
        assert "error: " in capsys.readouterr().err
