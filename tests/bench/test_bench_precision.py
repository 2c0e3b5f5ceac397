"""bench.run precision: what bfloat16 changes, by quality."""

import json

import pytest
import torch
from conftest import textured
from PIL import Image

from bench import precision, run
from ckbd.kernels import products


@pytest.mark.skipif(not products.gain(torch.bfloat16), reason="no products in bfloat16 here")
def test_rows_have_what_a_reader_needs(tiny_path, tmp_path, capsys):
    Image.fromarray(textured(100, 130)).save(tmp_path / "a.png")
    out = str(tmp_path / "rows.json")
    given = ["precision", "--model", str(tiny_path), "--images", str(tmp_path / "a.png"), "--json", out]
    rows = precision.precision(run.parser().parse_args([*given, "--qualities", "20", "80"]))
    assert [r["quality"] for r in rows] == [20, 80] and rows == json.loads(open(out).read())
    for r in rows:
        assert r["pictures"] == 1 and 0 < abs(r["g_s_mean"]) == abs(r["g_s_worst"]) < 0.02
        assert abs(r["g_a_mean"]) < 0.1 and abs(r["g_a_bytes"]) < 0.02
    assert len(capsys.readouterr().out.splitlines()) == 2
