"""How quick a step of training is: kernels counted, a rehearsal, the table of a day."""

import json
from types import SimpleNamespace

import torch

from bench.gpu import pace
from bench.gpu.day import read
from ckbd.training import compiled


def event(name, *children, cuda=False, note=False):
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    return SimpleNamespace(name=name, device_type=kind, cpu_children=children, is_user_annotation=note)


def test_kernels_are_counted():
    copy, memory = event("aten::copy_"), event("aten::empty_strided")
    inner = event("aten::_to_copy", memory, copy)
    fused = event("graph_0_cpp_fused_add_1")
    call = event("## Call CompiledFxGraph", fused)
    filled = event("aten::zeros", event("aten::empty"), event("aten::zero_"))
    view = event("aten::reshape", event("aten::view"))
    outer = event("aten::to", inner)
    every = [outer, inner, memory, copy, call, fused, filled, *filled.cpu_children, view, *view.cpu_children]
    assert pace.counted(every, False) == 3
    on_gpu = [event("triton_poi_0", cuda=True), event("Memcpy DtoD", cuda=True), event("note", cuda=True, note=True)]
    assert pace.counted([*every, *on_gpu], True) == 2


def test_the_innermost_of_a_call_are_counted():
    x = torch.ones(4)
    clock = SimpleNamespace(cuda=False, wait=lambda: None)
    assert pace.kernels(lambda: (x + 1).double().view(2, 2).t(), clock) == 2  # a sum and a copy


def test_a_rehearsal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compiled, "BACKEND", compiled.BACKEND)  # which a rehearsal changes
    assert pace.main(["--rehearse", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [r["way"] for r in rows] == ["eager", "compiled"] and all(r["kernels"] > 100 for r in rows)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)
    (tmp_path / "rows.json").write_text(json.dumps([*rows, rows[1] | {"batch": 64, "left_out": "out of memory"}]))
    found = read.pace(tmp_path)
    assert "- toy compiled, batch 64: out of memory" in found.markdown and len(found.rows) == 3
    assert set(found.found["megapixels_s"]) == {"toy eager 2", "toy compiled 2"}


def test_no_time_and_no_memory(tmp_path, monkeypatch):
    def measure(*given):
        raise torch.OutOfMemoryError("all of it")

    monkeypatch.setattr(pace, "measure", measure)
    assert pace.main(["--device", "cpu", "--models", "small", "--batches", "1", "--out", str(tmp_path)]) == 0
    assert {r["left_out"] for r in json.loads((tmp_path / "rows.json").read_text())} == {"out of memory"}
    assert pace.main(["--device", "cpu", "--seconds", "-1", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {r["left_out"] for r in rows} == {"no time"} and len(rows) == 12


def test_shipped_widths():
    assert pace.shipped("small").analysis_width == 192 and pace.shipped("base").M == 320


def test_what_cannot_be_compiled_is_left_out(tmp_path, monkeypatch, capsys):
    class Stepper(pace.Stepper):
        def __call__(self, *args):
            if self.losses != self._losses:
                raise torch._dynamo.exc.Unsupported("no such graph")
            super().__call__(*args)

    monkeypatch.setattr(pace, "Stepper", Stepper)
    monkeypatch.setattr(compiled, "BACKEND", compiled.BACKEND)
    assert pace.main(["--rehearse", "--out", str(tmp_path)]) == 0
    eager, other = json.loads((tmp_path / "rows.json").read_text())
    assert eager["ms"] > 0 and eager["kernels"] > 100
    assert "no such graph" in other["left_out"] and "ms" not in other
    assert "no such graph" in capsys.readouterr().out and "no such graph" in read.pace(tmp_path).markdown
