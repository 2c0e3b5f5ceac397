"""The benchmark of contexts: what its rows hold, not how long anything takes."""

import argparse
import json

import numpy as np
import pytest

from bench import contexts, run
from ckbd.papers.context import NAMED

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"width": 66, "M": 16, "Nz": 6, "hyper": 16, "h_s": 8, "psi": 32, "H1": 64, "H2": 32}


def test_every_context_is_measured_after_its_latents_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contexts, "WIDTHS", SMALL)
    path = tmp_path / "c.json"
    monkeypatch.setattr(
        "sys.argv",
        ["run", "contexts", "--sizes", "64x64", "128x64", "--runs", "1", "--threads", "1", "--json", str(path)],
    )
    run.main()
    rows = json.loads(path.read_text())
    assert [r["context"] for r in rows[:5]] == ["none", "raster", "wavefront", "checkerboard", "raster-public"]
    assert {(r["width"], r["height"]) for r in rows} == {(64, 64), (128, 64)} and len(rows) == 10
    assert all(set(r) == {"context", "width", "height", "context_and_coding_ms", "decode_ms"} for r in rows)
    assert all(0 < r["context_and_coding_ms"] < r["decode_ms"] for r in rows)
    out = capsys.readouterr().out
    assert "x as fast as raster-public, end to end" in out and "checkerboard: " in out


def test_a_power_law_is_found():
    rows = [contexts._row("x", 1024, n, 7.0 * (n / 1024) ** 1.5, 9.0) for n in (64, 512, 2048)]
    exponent, level = contexts.growth(rows, "x")
    assert exponent == pytest.approx(1.5) and level == pytest.approx(7.0)
    assert contexts.growth(rows[:1], "x") is None


def test_latents_that_differ_stop_the_benchmark(monkeypatch):
    monkeypatch.setattr(contexts, "WIDTHS", SMALL)
    monkeypatch.setattr(
        "ckbd.papers.decoder.VariantDecoder.decode_latents", lambda *_: [np.zeros((16, 4, 4), np.int16)]
    )
    args = argparse.Namespace(threads=1, transform="ckbd", sizes=[(64, 64)], runs=1, public_pixels=0)
    with pytest.raises(RuntimeError, match="none: the latents are not the encoder's"):
        contexts.contexts(args)


def test_the_public_scan_sees_what_mask_a_sees():
    public = contexts.PublicRaster(M=8)
    seen = public.context.abs().sum((0, 1)) > 0
    assert np.array_equal(seen.numpy().astype(int), np.array(NAMED["raster"].mask))


def test_sizes_are_read():
    assert contexts.size("768x512") == (768, 512)
    with pytest.raises(argparse.ArgumentTypeError, match="expected WxH"):
        contexts.size("0x512")
