"""Warming up runs what a decode runs, in all sizes, and on a CPU says that there is nothing to do."""

import json

import pytest
import torch

from ckbd import cli
from ckbd.codec import zone
from ckbd.codec.decoder import Decoder
from ckbd.pipeline import warm


def test_every_size_goes_through_every_network(tiny, monkeypatch):
    d = tiny.decoder
    flat = zone.Kernels(d.model.layers, d.device, backend="torch")
    sites = []
    real = flat.phase
    monkeypatch.setattr(flat, "phase", lambda state, p: sites.append((state.lattice.sites, p)) or real(state, p))
    made = Decoder(d.model, flat, d.tables, device=d.device, team=d.team, max_pixels=d.max_pixels)
    drawn = []
    monkeypatch.setattr(made.renderer, "g_s", lambda y_hat, headers: drawn.append(y_hat.shape) or iter(()))
    done = list(warm.warm_up(made, [made.renderer], most=16))
    assert [pixels for pixels, _ in done] == [4096 * n for n in (1, 2, 4, 8, 16)]
    assert sites == [(8 * n, p) for n in (1, 2, 4, 8, 16) for p in (0, 1)]
    assert [shape[2] * shape[3] for shape in drawn] == [16 * n for n in (1, 2, 4, 8, 16)]


def test_memory_ends_it(tiny, monkeypatch):
    calls = []

    def run(decoder, renderers, size):
        calls.append(size)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(warm, "_run", run)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert len(list(warm.warm_up(tiny.decoder, []))) == 2 and len(calls) == 3


@pytest.mark.usefixtures("with_triton")
def test_on_a_cpu_there_is_nothing_to_do(tiny_path, tmp_path, capsys):
    out = tmp_path / "choices.json"
    assert cli.main(["warm-up", "--model", str(tiny_path), "--choices", str(out)]) == 0
    assert capsys.readouterr().out == "cpu: nothing to compile or measure\n" and json.loads(out.read_text()) == {}
    assert cli.main(["warm-up", "--model", str(tiny_path), "--device", "nowhere"]) == 2
    assert cli.main(["warm-up", "--model", str(tiny_path), "--backend", "triton"]) == 2
    assert "backend 'triton': tensors on the CPU need Triton's interpreter" in capsys.readouterr().err
