"""Models beside one another: nobody has more bytes than the first, and figures are those of whole pictures."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import textured
from PIL import Image

from bench.sheets import beside, sheet
from ckbd.evaluation.ssimulacra import ssimulacra2

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photo(monkeypatch):
    one = sheet.Photo("chelsea", "a texture", "nobody's", (10, 20))
    monkeypatch.setattr(sheet.Photo, "pixels", lambda self: textured(160, 170))
    return one


def test_the_first_sets_the_bytes(photo, tiny):
    with ThreadPoolExecutor(1) as pool:
        rgb, (line,) = beside.beside({"a": tiny, "b": tiny}, "AVIF", photo, [3.0], pool)
    assert rgb.dtype == np.uint8 and line[0] == "chelsea" and float(line[1]) <= 3.0
    a, b, rival = line[2:]
    assert a == b  # of the same bytes the same model makes the same stream
    one = sheet.ckbd_at(tiny, photo.pixels(), int(3 * 160 * 170 / 8))
    assert a == f"{one.psnr:.2f} / {ssimulacra2(photo.pixels(), one.rgb):.1f}"
    other = sheet.rival_at("AVIF", photo.pixels(), one.nbytes)
    assert other.nbytes <= one.nbytes and rival.startswith(f"{other.psnr:.2f} / ")


def test_sheets_and_a_table_are_written(photo, tiny_path, tmp_path, capsys):
    argv = [str(tiny_path), "--out", str(tmp_path), "--bpp", "3", "--photos", "chelsea"]
    assert beside.main(argv) == 0
    assert Image.open(tmp_path / "beside-chelsea.png").size[0] > 300
    text = (tmp_path / "beside.md").read_text()
    assert re.search(r"\| chelsea \| [\d.]+ \| [\d.]+ / -?[\d.]+ \| [\d.]+ / -?[\d.]+ \|", text)
    assert beside.main(["nothing-of-that-name", "--out", str(tmp_path)]) == 1
    assert "no such file or model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        beside.main([*argv, "--photos", "nobody"])
