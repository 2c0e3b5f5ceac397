"""Where the time of a batch goes: lanes, folding, a trace of a decode."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import textured
from PIL import Image

from bench.gpu import trace
from bench.gpu.trace import Span


def event(name, start, end, cuda=False, parent=None):
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    return SimpleNamespace(
        name=name, device_type=kind, cpu_parent=parent, thread=1, time_range=SimpleNamespace(start=start, end=end)
    )


OUTER = event("aten::conv2d", 0, 5)
EVENTS = [
    event("stage: g_s", 0, 10),
    event("stage: g_s", 2, 9, cuda=True),  # a profiler's note on the device's own timeline
    OUTER,
    event("aten::convolution", 1, 4, parent=OUTER),
    event("cudaLaunchKernel", 1, 2),
    event("layer_kernel", 6, 9, cuda=True),
    event("layer_kernel", 8, 12, cuda=True),
    event("Memcpy DtoH (Device -> Pinned)", 14, 15, cuda=True),
]


def test_a_trace_s_lanes():
    on_gpu = {(s.lane, s.name, s.start) for s in trace.spans_of(EVENTS, True)}
    assert on_gpu == {
        ("stage", "g_s", 0),
        ("kernel", "layer_kernel", 6),
        ("kernel", "layer_kernel", 8),
        ("copy", "Memcpy DtoH (Device -> Pinned)", 14),
    }
    assert {(s.lane, s.name) for s in trace.spans_of(EVENTS, False)} == {("stage", "g_s"), ("kernel", "aten::conv2d")}


def test_a_trace_is_folded():
    rows = {
        (r["lane"], r["name"]): (r["calls"], r["us"], r["share"]) for r in trace.fold(trace.spans_of(EVENTS, True))
    }
    assert rows["kernel", "layer_kernel"] == (2, 7, pytest.approx(7 / 15))
    assert rows["kernel", "busy"] == (2, 6, pytest.approx(6 / 15)), "what overlaps is busy once"
    assert rows["copy", "busy"][1] == 1 and rows["stage", "g_s"][:2] == (1, 10)
    assert rows["copy", "hidden"] == (1, 0, 0) and rows["stage", "hidden"][2] == 1, "no coder, all hidden"
    coder, kernels = [Span("", "", 0, 10), Span("", "", 20, 30)], [Span("", "", 5, 24)]
    assert trace.hidden(coder, kernels) == pytest.approx(9 / 20)
    assert trace.covered([Span("", "", 0, 10), Span("", "", 2, 3), Span("", "", 20, 21)]) == 11


def test_a_trace_of_a_decode(tiny_path, tmp_path, capsys):
    out, pictures = tmp_path / "out", [tmp_path / f"{n}.png" for n in range(2)]
    for size, path in zip(((64, 96), (96, 64)), pictures, strict=True):
        Image.fromarray(textured(*size)).save(path)
    args = ["--out", out, "--device", "cpu", "--model", tiny_path, "--images", *pictures, "--batch", 3, "--repeat", 1]
    assert trace.main(list(map(str, args))) == 0
    rows = json.loads((out / "rows.json").read_text())
    stages = {r["name"]: r["calls"] for r in rows if r["lane"] == "stage"}
    assert set(stages) == {"parse", "coder", "h_s", "phases", "g_s", "picture", "hidden"}
    assert stages["parse"] == 2, "a batch a size"
    assert {p.name for p in out.iterdir()} == {"rows.json", "timeline.png"}
    assert (out / "timeline.png").stat().st_size < 1 << 20
