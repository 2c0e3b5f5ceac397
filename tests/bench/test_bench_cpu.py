"""bench.run cpu: what a decode is made of, part by part."""

import json

from conftest import textured
from PIL import Image

from bench import cpu, run
from ckbd import _passes
from ckbd.kernels import products

PARTS = ["memory", "small", "g_s", "passes", "outliers", "shell", "training"]


def test_every_part_has_its_rows(tiny_path, tmp_path, capsys):
    Image.fromarray(textured(100, 130)).save(tmp_path / "a.png")
    out = str(tmp_path / "rows.json")
    given = ["cpu", "--quick", "--model", str(tiny_path), "--images", str(tmp_path / "a.png"), "--threads", "2"]
    linear = products.linear
    rows = cpu.cpu(run.parser().parse_args([*given, "--json", out, "--qualities", "10", "100"]))
    assert rows == json.loads(open(out).read()) and len(capsys.readouterr().out.splitlines()) == len(rows)
    assert list(dict.fromkeys(r["part"] for r in rows)) == PARTS
    value = {(r["part"], r["what"]): r["value"] for r in rows}
    assert all(v >= 0 for key, v in value.items() if key[1] != "all of them lose")
    whole, *inside = (value["g_s", name] for name in ("all", "linear", "depthwise", "paint"))
    assert all((whole, *inside)) and products.linear is linear, "what was timed is itself again"
    assert value["g_s", "parallel regions of a decode"] > 3
    assert [r["what"] for r in rows if r["part"] == "passes"][::4] == [f"gather, {isa}" for isa in _passes.isas()]
    assert value["outliers", "quality 10"] <= value["outliers", "quality 100"] <= 16
    assert [r["what"] for r in rows if r["part"] == "shell"] == ["by default", "--backend torch"]
