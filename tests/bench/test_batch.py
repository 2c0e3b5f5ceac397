"""Pictures a second, and where their time goes, as far as a CPU goes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import textured

import ckbd
from bench import batch, run
from bench.gpu import device, trace
from bench.gpu.trace import Span
from ckbd.codec import image
from ckbd.evaluation import rivals


def arguments(model, *more):
    return run.parser().parse_args(["batch", "--model", str(model), "--quick", "--threads", "1", *map(str, more)])


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, (height, width) in enumerate(((64, 96), (96, 64))):
        image.write(folder / f"{i}.png", image.from_array(textured(height, width, i)))
    return folder


def test_rows_have_what_a_reader_needs(tiny_path, pictures, tmp_path, capsys):
    out = tmp_path / "rows.json"
    rows = batch.batch(
        arguments(tiny_path, "--images", pictures, "--batches", 1, 5, "--json", out, "--device", "cpu")
    )
    assert json.loads(out.read_text()) == rows
    assert [(r["batch"], r["impl"]) for r in rows if r["impl"] != "CompressAI"] == [
        (b, n) for b in (1, 5) for n in ("ours", "ours, latents", "ours, g_s", "JPEG, Pillow")
    ]
    rows = [r for r in rows if "left_out" not in r]
    for r in rows:
        assert (r["set"], r["direction"], r["device"], r["busy_processes"]) == ("mixed", "decode", "cpu", 0)
        assert r["pictures_s"] == pytest.approx(1e3 * r["batch"] / r["ms"]) and r["runs"] == batch.QUICK_RUNS
        assert r["gpixel_s"] == pytest.approx(r["pictures_s"] * 64 * 96 / 1e9)
        assert ("stages" in r) == (r["impl"] == "ours")
    ours, jpeg = (next(r for r in rows if r["impl"] == n and r["batch"] == 5) for n in ("ours", "JPEG, Pillow"))
    assert set(ours["stages"]) == {"parse", "coder", "h_s", "phases", "g_s", "picture"}
    codec = ckbd.load(tiny_path)
    sizes = [len(s) for s in codec.encode(batch.load_pictures([str(pictures)]), batch.QUALITY)]
    assert ours["bytes"] == 3 * sizes[0] + 2 * sizes[1] and jpeg["psnr"] >= ours["psnr"]


def test_one_size_has_its_name(tiny_path, pictures):
    args = arguments(tiny_path, "--images", pictures, "--batches", 1, "--pictures", "48x32", "--no-rivals")
    rows = batch.batch(args)
    assert {r["set"] for r in rows} == {"48x32"} and len(rows) == 3


def test_a_batch_of_none_and_a_picture_that_is_none(tiny_path, tmp_path, capsys):
    for number in ("0", "-1", "1.5", "x"):
        with pytest.raises(SystemExit):
            arguments(tiny_path, "--batches", number)
        assert "expected a whole number above 0" in capsys.readouterr().err
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="cut.png: "):
        batch.batch(arguments(tiny_path, "--images", tmp_path / "cut.png"))


def test_nothing_is_timed_if_a_latent_differs(tiny_path, tiny, monkeypatch):
    streams = tiny.encode([textured(64, 64), textured(64, 64, 1)])
    args = arguments(tiny_path)
    batch.check_latents(tiny, streams, args)
    other = SimpleNamespace(decode_latents=lambda s: [a + (i == 1) for i, a in enumerate(tiny.decode_latents(s))])
    with pytest.raises(RuntimeError, match="not the CPU's"):
        batch.check_latents(other, streams, args)
    decoder = tiny.decoder
    wrong = SimpleNamespace(
        decode_latents=tiny.decode_latents,
        decoder=SimpleNamespace(
            parse=decoder.parse,
            parse_all=decoder.parse_all,
            device=decoder.device,
            latents=lambda s: decoder.latents(s).roll(1, 0),
        ),
    )
    with pytest.raises(RuntimeError, match="not those of its streams"):
        batch.check_latents(wrong, streams, args)


def test_jpegs_are_no_better_than_they_must_be():
    rgb = textured(64, 80)
    for least, name in ((24.0, "jpeg-420"), (38.0, "jpeg-444")):
        found = batch.jpeg_of_psnr(rgb, least)
        settings = [q for q in range(1, 101) if rivals.RIVALS[name].encode(rgb, q) == found]
        assert settings and image.psnr(rgb, rivals.decode(found)) >= least
        worse = rivals.RIVALS[name].encode(rgb, settings[0] - 1)
        assert image.psnr(rgb, rivals.decode(worse)) < least
    with pytest.raises(RuntimeError, match="no JPEG of this picture has 90.00 dB"):
        batch.jpeg_of_psnr(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), 90.0)


def test_whoever_had_its_time_is_not_asked_again(monkeypatch):
    class Told(device.Clock):
        def first(self, call):
            return call()

    asked = []

    def way(name, ms):
        return batch.Way(lambda: asked.append(name) or ms, 1, 1)

    found = batch.in_turn({"slow": way("slow", 1500.0), "quick": way("quick", 1.0)}, {}, Told(torch.device("cpu")), 5)
    assert {name: len(s) for name, s in found.items()} == {"slow": 2, "quick": 5}
    assert asked[:4] == ["slow", "quick", "slow", "quick"] and asked[4:6] == ["quick", "slow"]


def test_what_runs_out_of_memory_is_left_out(monkeypatch, capsys):
    def greedy():
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    ways = {"greedy": batch.Way(greedy, 1, 1), "frugal": batch.Way(lambda: None, 1, 1)}
    left_out = {}
    assert set(batch.in_turn(ways, left_out, device.Clock(torch.device("cpu")), 2)) == {"frugal"}
    assert left_out == {"greedy": "out of memory"}


def test_what_is_left_out_is_in_the_rows(tiny_path, pictures, monkeypatch, capsys):
    def missing():
        raise ImportError("no module of that name")

    def broken(jpegs, threads, psnr):
        raise ValueError("no decoder here")

    monkeypatch.setattr(batch, "import_compressai", missing)
    monkeypatch.setattr(batch, "pillow", broken)
    rows = batch.batch(arguments(tiny_path, "--images", pictures, "--batches", 1, 2))
    assert [(r["batch"], r["impl"], r["left_out"]) for r in rows if "left_out" in r] == [
        (b, *why)
        for b in (1, 2)
        for why in (
            ("CompressAI", "not installed: no module of that name"),
            ("JPEG, Pillow", "ValueError('no decoder here')"),
        )
    ]
    assert capsys.readouterr().out.count("left out: ") == 4 and len(rows) == 10


def test_a_rival_that_fails_is_left_out():
    def broken(count):
        raise ValueError("no decoder here")

    ways, left_out = {}, {}
    batch.add(ways, left_out, "at once", broken, 1)
    batch.add(ways, left_out, "when called", lambda: batch.Way(lambda: broken(1), 1, 1))
    batch.add(ways, left_out, "good", lambda: batch.Way(lambda: None, 1, 1))
    assert list(ways) == ["good"]
    assert left_out == {name: "ValueError('no decoder here')" for name in ("at once", "when called")}


# The trace


def event(name, start, end, cuda=False, parent=None):
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    return SimpleNamespace(
        name=name, device_type=kind, cpu_parent=parent, time_range=SimpleNamespace(start=start, end=end)
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
    assert trace.covered([Span("", "", 0, 10), Span("", "", 2, 3), Span("", "", 20, 21)]) == 11


def test_a_trace_of_a_decode(tiny_path, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["--out", out, "--device", "cpu", "--model", tiny_path, "--images", pictures, "--batch", 3]
    assert trace.main(list(map(str, args))) == 0
    rows = json.loads((out / "rows.json").read_text())
    stages = {r["name"]: r["calls"] for r in rows if r["lane"] == "stage"}
    assert set(stages) == {"parse", "coder", "h_s", "phases", "g_s", "picture"} and stages["parse"] == 1
    assert {p.name for p in out.iterdir()} == {"rows.json", "timeline.png"}
    assert (out / "timeline.png").stat().st_size < 1 << 20
