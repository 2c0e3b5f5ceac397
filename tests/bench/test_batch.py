"""Pictures a second, and where their time goes, as far as a CPU goes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import textured

import ckbd
from bench import batch, busy, interpreter, products, run, synthesis, ways
from bench.gpu import device
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


OURS = ("one by one", "ours", "ours, iterator")
FILES = ("JPEG", "WebP", "AVIF")


def test_rows_have_what_a_reader_needs(tiny_path, pictures, tmp_path, capsys):
    out = tmp_path / "rows.json"
    rows = batch.batch(
        arguments(
            tiny_path, "--images", pictures, "--batches", 1, 5, "--json", out, "--device", "cpu", "--busy", 0, 1
        )
    )
    assert json.loads(out.read_text()) == rows
    rows = [r for r in rows if r["impl"] != "CompressAI"]
    decoded = [*OURS, "ours, latents", "ours, g_s", "ours, OpenMP", *FILES]
    assert [(r["batch"], r["busy_processes"], r["direction"], r["impl"]) for r in rows] == [
        (b, busy, direction, n)
        for b in (1, 5)
        for busy in (0, 1)
        for direction, names in (("decode", decoded), ("encode", [*OURS, *FILES]))
        for n in names
    ]
    for r in rows:
        assert (r["set"], r["device"]) == ("mixed", "cpu")
        count = min(r["batch"], ways.OPENMP_BATCH) if r["impl"] == "ours, OpenMP" else r["batch"]
        assert r["pictures_s"] == pytest.approx(1e3 * count / r["ms"]) and r["runs"] == batch.QUICK_RUNS
        assert ("stages" in r) == (r["impl"] == "ours" and r["direction"] == "decode" and not r["busy_processes"])
    ours, jpeg = (next(r for r in rows if r["impl"] == n and r["batch"] == 5) for n in ("ours", "JPEG"))
    assert set(ours["stages"]) == {"parse", "coder", "h_s", "phases", "g_s", "picture"}
    codec = ckbd.load(tiny_path)
    sizes = [len(s) for s in codec.encode(batch.load_pictures([str(pictures)]), batch.QUALITY)]
    assert ours["bytes"] == 3 * sizes[0] + 2 * sizes[1] and jpeg["psnr"] >= ours["psnr"]
    assert {r["bytes"] for r in rows if r["impl"] in OURS and r["batch"] == 5} == {ours["bytes"]}


def test_one_size_has_its_name(tiny_path, pictures):
    args = arguments(
        tiny_path, "--images", pictures, "--batches", 1, "--pictures", "48x32", "--no-rivals", "--busy", 0
    )
    rows = batch.batch(args)
    assert {r["set"] for r in rows} == {"48x32"} and len(rows) == 9


def test_a_codec_in_kernels_has_ways_of_its_own(tiny):
    pictures = [image.from_array(textured(64, 64)), image.from_array(textured(70, 30, 1))]
    streams, other = tiny.encode(pictures, 50), synthesis.in_kernels(tiny, torch.float16)
    assert other.decoder.painter is not None and other.encoder.reader is not None
    for direction in ways.kernels(other, streams, 30.0, pictures, 50):
        assert list(direction) == ["in kernels", "in kernels, iterator"]
        assert all(len(way.call()) == way.count == 2 for way in direction.values())


def test_a_codec_on_pytorchs_threads_is_that_and_no_more(tiny, monkeypatch):
    streams = tiny.encode([textured(64, 64)])
    seen = []
    real = tiny.decoder.renderer.g_s
    monkeypatch.setattr(tiny.decoder.renderer, "g_s", lambda *a: seen.append(torch.get_num_threads()) or real(*a))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        ways.openmp(tiny, streams, 30.0).call()
        tiny.decode(streams)
    finally:
        torch.set_num_threads(before)
    assert seen == [3, 1] and tiny.decoder.team is tiny.encoder.team


def test_a_busy_machine_is_busy_for_as_long_as_it_is_said(tiny_path, pictures, tmp_path):
    with busy.busy(2):
        pass
    out = tmp_path / "rows.json"
    args = arguments(tiny_path, "--images", pictures, "--busy", 1, "--json", out)
    args.case = "busy"
    rows = busy.busy_case(args)
    assert [(r["direction"], r["impl"]) for r in rows] == [
        (d, i) for i in ("by default", "one thread") for d in ("decode", "encode")
    ]
    assert all(r["busy_processes"] == 1 and 0 < r["ms"] <= r["worst_ms"] for r in rows)
    assert json.loads(out.read_text()) == rows


def test_the_interpreter_s_part_is_measured_without_networks(tiny_path, capsys):
    rows = interpreter.interpreter(arguments(tiny_path, "--batches", 2, 16))
    plans = [(r["impl"], r["plan"], r["batch"]) for r in rows if r["impl"] == "decode_iter"]
    assert plans == [("decode_iter", plan, b) for b in (2, 16) for plan in ("cpu", "cuda")]
    others = [r["impl"] for r in rows if r["impl"] != "decode_iter"]
    assert (
        others[0] == "parse, open"
        and others[1].startswith("_rans.Batch opens")
        and others[2] == "_rans.Batch of none"
    )
    assert others[3:] == 2 * ["phase, plain", "assemble, plain", "phase, dispatcher", "assemble, dispatcher"]
    assert all(r["us"] > 0 for r in rows)


def test_products_are_checked_before_they_are_timed(tiny_path, monkeypatch):
    rows = products.products_case(arguments(tiny_path))
    ways = ["PyTorch", "ckbd"] + ["bfloat16"] * (products.products.gain(torch.bfloat16) > 0)
    ways += ["eight bits"] * (products.products.reach([(64, 64)]) > 0)
    assert [r["impl"] for r in rows] == ways * len(products.SHAPES)
    assert all(r["gops"] > 0 for r in rows)
    monkeypatch.setattr(products.products, "linear", lambda x, weight: x @ weight.T + 1)
    with pytest.raises(RuntimeError, match="products of integers differ"):
        products.products_case(arguments(tiny_path))


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


def test_rivals_files_are_no_better_than_they_must_be():
    rgb = textured(64, 80)
    for least, names, name in (
        (24.0, ways.FILES["JPEG"], "jpeg-420"),
        (38.0, ways.FILES["JPEG"], "jpeg-444"),
        (24.0, ("webp",), "webp"),
    ):
        found = ways.file_of_psnr(names, rgb, least)
        assert found.rival == name and found.data == rivals.RIVALS[name].encode(rgb, found.setting)
        assert found.psnr == image.psnr(rgb, rivals.decode(found.data)) >= least
        every = rivals.RIVALS[name].every
        worse = rivals.RIVALS[name].encode(rgb, every[every.index(found.setting) - 1])
        assert image.psnr(rgb, rivals.decode(worse)) < least
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with pytest.raises(RuntimeError, match="no JPEG of this picture has 90.00 dB"):
        ways.file_of_psnr(ways.FILES["JPEG"], noise, 90.0)
    lacking = {}
    assert set(batch.rival_files(tuple(ways.FILES), [noise], [90.0], lacking)) == set() and set(lacking) == set(
        ways.FILES
    )


def test_whoever_had_its_time_is_not_asked_again(monkeypatch):
    class Told(device.Clock):
        def first(self, call):
            return call()

    asked = []

    def way(name, ms):
        return ways.Way(lambda: asked.append(name) or ms, 1, 1)

    found = batch.in_turn({"slow": way("slow", 1500.0), "quick": way("quick", 1.0)}, {}, Told(torch.device("cpu")), 5)
    assert {name: len(s) for name, s in found.items()} == {"slow": 2, "quick": 5}
    assert asked[:4] == ["slow", "quick", "slow", "quick"] and asked[4:6] == ["quick", "slow"]


def test_what_runs_out_of_memory_is_left_out(monkeypatch, capsys):
    def greedy():
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    these = {"greedy": ways.Way(greedy, 1, 1), "frugal": ways.Way(lambda: None, 1, 1)}
    left_out = {}
    assert set(batch.in_turn(these, left_out, device.Clock(torch.device("cpu")), 2)) == {"frugal"}
    assert left_out == {"greedy": "out of memory"}


def test_what_is_left_out_is_in_the_rows(tiny_path, pictures, monkeypatch, capsys):
    def missing():
        raise ImportError("no module of that name")

    def broken(files, threads):
        raise ValueError("no decoder here")

    monkeypatch.setattr(ways, "import_compressai", missing)
    monkeypatch.setattr(ways, "pillow_decoding", broken)
    rows = batch.batch(arguments(tiny_path, "--images", pictures, "--batches", 1, 2, "--busy", 0))
    assert [(r["batch"], r["impl"], r["left_out"]) for r in rows if "left_out" in r] == [
        (b, *why)
        for b in (1, 2)
        for why in (
            ("CompressAI", "not installed: no module of that name"),
            *((name, "ValueError('no decoder here')") for name in FILES),
        )
    ]
    assert capsys.readouterr().out.count("left out: ") == 8


def test_a_rival_that_fails_is_left_out():
    def broken(count):
        raise ValueError("no decoder here")

    these, left_out = {}, {}
    ways.add(these, left_out, "at once", broken, 1)
    ways.add(these, left_out, "when called", lambda: ways.Way(lambda: broken(1), 1, 1))
    ways.add(these, left_out, "good", lambda: ways.Way(lambda: None, 1, 1))
    assert list(these) == ["good"]
    assert left_out == {name: "ValueError('no decoder here')" for name in ("at once", "when called")}
