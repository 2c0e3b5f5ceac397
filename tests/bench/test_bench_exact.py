"""bench.run exact: rows of each way, model and number of threads, whose latents were compared."""

import json

import pytest
from conftest import TINY, textured
from PIL import Image

from bench import exact, run
from ckbd.codec.zone import Integers
from ckbd.model.model import ExactZone


@pytest.fixture
def pictures(tmp_path, tiny_path, monkeypatch):
    Image.fromarray(textured(100, 130)).save(tmp_path / "a.png")
    monkeypatch.setattr(exact, "MODELS", (str(tiny_path), "Cheng2020"))
    monkeypatch.setattr(exact, "CHENG", TINY)
    return [str(tmp_path / "a.png")]


def test_rows_have_what_a_reader_needs(pictures, capsys):
    rows = exact.measure(pictures, 2, 3)
    ways = ["carriers", f"integers, {Integers(ExactZone(TINY).integers()).reach}"]
    assert [(r["threads"], r["impl"]) for r in rows] == [(n, way) for _ in range(2) for n in (1, 2) for way in ways]
    for r in rows:
        assert r["ms"] > 0 and r["share"] > 0 and (r["impl"] != "carriers" or r["ratio"] == 1)
    exact.report([{"isa": "all", **r} for r in rows])
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_every_product_is_counted():
    """Those of a picture of one site of z, multiplied out by hand."""
    c = TINY
    h_s = 4 * c.h_s * 9 * (c.Nz + 1) + 4 * (4 * c.psi * 9 * c.h_s)
    both = c.H2 * c.H1 + 2 * c.M * c.H2
    phases = 8 * (c.psi * c.H1 + both) + 8 * ((c.psi + 12 * c.M) * c.H1 + both)
    assert exact.multiply_adds(ExactZone(c).integers(), 1) == h_s + phases


def test_ways_that_differ_are_an_error(pictures, monkeypatch):
    real = Integers.y_hat
    monkeypatch.setattr(Integers, "y_hat", lambda self, state: real(self, state) + 1)
    with pytest.raises(RuntimeError, match="integers, .*: other latents than the carriers'"):
        exact.measure(pictures, 1, 3)


def test_a_process_for_each_kind_of_processor(pictures, monkeypatch, tmp_path, capfd):
    asked = []

    def child(command, env, **_):
        asked.append(env.get("ONEDNN_MAX_CPU_ISA"))
        rows = exact.measure(**json.loads(command[-1]))
        return type("Done", (), {"stdout": json.dumps(rows)})

    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(exact.subprocess, "run", child)
    arguments = ["exact", "--images", *pictures, "--threads", "1", "--quick", "--json", str(tmp_path / "rows.json")]
    rows = exact.exact(run.parser().parse_args(arguments))
    assert asked == list(exact.ISAS) and rows == json.loads((tmp_path / "rows.json").read_text())
    assert {r["isa"] for r in rows} == {"all", *exact.ISAS[1:]}
    assert "peak" in capfd.readouterr().out
