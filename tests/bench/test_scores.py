"""bench.sheets.scores: our SSIMULACRA2 beside another program's."""

import json
import sys

import pytest
from conftest import textured
from PIL import Image

from bench.sheets import scores


@pytest.fixture
def program(tmp_path):
    """A stand-in for the reference that says 75.5 of everything."""
    path = tmp_path / "program"
    path.write_text(f"#!{sys.executable}\nimport sys\nassert len(sys.argv) == 3\nprint('75.50000000')\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(textured(120, 130)).save(tmp_path / "in" / "a.png")
    return tmp_path / "in"


def test_differences_by_band(folder, program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scores, "FILES", {"JPEG": (30,), "WEBP": (30,)})
    argv = ["--images", str(folder), "--reference", program, "--json", str(tmp_path / "r.json")]
    assert scores.main(argv) == 0
    rows = json.loads((tmp_path / "r.json").read_text())
    pairs = [row["pair"] for row in rows]
    assert pairs[:3] == ["a.png jpeg 30", "a.png webp 30", "a.png blur 0.6"] and "a.png 113x113 jpeg 30" in pairs
    assert {row["reference"] for row in rows} == {75.5} and len({row["own"] for row in rows}) > 5
    out = capsys.readouterr().out.splitlines()
    far = max(rows, key=lambda row: abs(row["own"] - 75.5))
    assert len(out) == 3 and out[1].split()[:3] == ["60", "..", "80"]
    assert out[1].endswith(f"{far['own'] - 75.5:+.3f}  {far['pair']}") and f" {len(rows)} " in out[1]


def test_what_fails_is_said(folder, tmp_path, program, capsys):
    assert scores.main(["--images", str(folder), "--reference", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err
    bad = tmp_path / "bad"
    bad.write_text("#!/bin/sh\necho cannot read >&2\nexit 3\n")
    bad.chmod(0o755)
    assert scores.main(["--images", str(folder), "--reference", str(bad)]) == 1
    assert "cannot read" in capsys.readouterr().err
    Image.fromarray(textured(20, 20)).save(folder / "a.png")
    assert scores.main(["--images", str(folder), "--reference", program]) == 1
    assert "no pictures of 113 pixels a side" in capsys.readouterr().err
