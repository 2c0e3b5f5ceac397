"""bench.sheets.sizes: multiply-adds are what the layers say, and figures of another model are refused."""

import json

import pytest
from conftest import TINY, tiny_model

from bench.sheets import sizes
from ckbd.model import file as modelfile

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    modelfile.save(tiny_model(), path)
    return path


def test_multiply_adds_are_counted_from_the_widths(model):
    c = TINY
    got = sizes.multiply_adds(modelfile.load(model))
    block8, block16 = (9 * n + 4 * n * n for n in (c.width, c.M))
    g_s = (c.M**2 + block16 + 4 * c.M * c.width) / 16**2 + (block8 + 192 * c.width) / 8**2
    g_a = (192 * c.width + block8) / 8**2 + (4 * c.M * c.width + block16 + c.M**2) / 16**2
    assert got["g_s"] == pytest.approx(g_s) and got["g_a"] == pytest.approx(g_a)
    first = (c.psi + 12 / 2 * c.M) * c.H1
    exact = (first + c.H1 * c.H2 + 2 * c.M * c.H2) / 16**2
    exact += 9 * 4 * ((c.Nz + 1) * c.h_s / 64**2 + c.h_s * c.psi / 32**2)
    assert got["exact"] == pytest.approx(exact)


def test_a_row_a_model_and_a_plot(model, tmp_path, capsys):
    curve = {"bpp": [0.2, 0.5, 1.0], "psnr": [28.0, 32.0, 36.0], "ms_ssim": [0.9, 0.95, 0.99]}
    rival = curve | {"bpp": [0.4, 1.0, 2.0]}
    result = {"model": modelfile.load(model).identity.hex(), "curve": curve, "rivals": {"webp": rival}}
    figures = tmp_path / "tiny.json"
    figures.write_text(json.dumps(result))
    assert sizes.main([f"{model}={figures}", "--runs", "1", "--plot", str(tmp_path / "p.png")]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[:2] == ["tiny", result["model"]] and row[-1] == "-50.0"
    cost = sizes.multiply_adds(modelfile.load(model))
    assert (
        row[3] == f"{cost['g_a'] + cost['h_a'] + cost['exact']:.0f}"
        and row[4] == f"{cost['exact'] + cost['g_s']:.0f}"
    )
    assert (tmp_path / "p.png").stat().st_size > 5000
    assert sizes.main([f"{model}={figures}", "--rival", "none"]) == 1
    assert "no rival none, there are webp" in capsys.readouterr().err
    figures.write_text(json.dumps(result | {"model": "0" * 12}))
    assert sizes.main([f"{model}={figures}"]) == 1
    assert "its figures are of model 000000000000" in capsys.readouterr().err
