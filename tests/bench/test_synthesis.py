"""bench.run synthesis: quality and bytes of g_s and g_a in kernels, by their twins."""

import json

import pytest
import torch
from conftest import textured
from PIL import Image

from bench import run, synthesis
from ckbd.kernels.transforms import twin


@pytest.fixture
def arguments(tiny_path, tmp_path):
    for n, size in enumerate(((64, 80), (50, 30))):
        Image.fromarray(textured(*size, n)).save(tmp_path / f"{n}.png")

    def parsed(*more):
        given = f"synthesis --model {tiny_path} --images {tmp_path} --json {tmp_path}/rows.json --qualities 20 80"
        return run.parser().parse_args([*given.split(), *more])

    return parsed


def test_rows_have_what_a_reader_needs(arguments, capsys):
    args = arguments()
    (moved, *rows) = synthesis.synthesis(args)
    assert [r["quality"] for r in rows] == [20, 80] and json.loads(open(args.json).read()) == [moved, *rows]
    assert [name for name, *_ in moved["launches"]] == ["enter", "block", "up", "block", "paint"]
    assert (
        sum(mb for _, mb, _ in moved["launches"]) == pytest.approx(moved["g_s_mb"])
        and moved["layers_mb"] > moved["g_s_mb"]
    )
    for r in rows:
        assert r["pictures"] == 2 and 0 < r["peak"] < 65504
        assert abs(r["psnr_fp16"] - r["psnr_layers"]) <= abs(r["most_fp16"]) < 0.05 and abs(r["most_fp32"]) < 0.01
        assert r["worst_fp32"] <= 1 and 0 < r["differ_fp16"] < 0.2 and r["differ_fp32"] < 0.01
        assert abs(r["bytes_g_a_kernels"] / r["bytes_g_a_layers"] - 1) < 0.02
        assert abs(r["psnr_g_a_kernels"] - r["psnr_g_a_layers"]) < 0.1
    assert "quality 80: g_s" in capsys.readouterr().out


def test_a_worse_synthesis_shows(arguments, monkeypatch):
    real = twin.paint
    monkeypatch.setattr(twin, "paint", lambda x, *rest: real((x * 0.98).to(x.dtype), *rest))
    _, row = synthesis.synthesis(arguments("--qualities", "80"))
    assert row["most_fp32"] < -0.01 and row["differ_fp32"] > 0.2


def test_features_are_watched_and_left_alone():
    before = twin.rounded
    with synthesis.watched() as found:
        x = twin.rounded(torch.tensor([-7.0, 3.0]), torch.float16)
    assert found == [0.0, 7.0] and x.dtype == torch.float16 and twin.rounded is before
