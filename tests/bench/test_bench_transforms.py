"""The bench of g_s and g_a as far as a CPU goes: its rows, its gate, its rivals, its bars."""

import argparse
import json

import pytest
import torch

from bench.gpu import device, kernels, rows
from bench.gpu import transforms as bench_transforms
from bench.gpu.day import read
from ckbd.kernels import transforms
from ckbd.kernels.transforms.configs import LAYERS, candidates
from ckbd.model import file

CPU = torch.device("cpu")
TOPS = device.Ceilings(bandwidth=2e12, int8=1e15, float16=5e14, float32=5e13)
KEYS = {"shape", "batch", "model", "device", "impl", "us", "p10", "p90", "call_us", "bytes", "ops", "roofline_share"}
LAUNCHES = ["enter", "block 1/16", "up", "block 1/8", "paint"]
WHOLE = ["g_s ours fp16", "g_s ours fp32", "g_a ours fp16", "g_s eager fp16", "g_a eager fp32"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def found(tiny_path, tmp_path_factory):
    """A dry run of the case as the command line has it, of one narrow model and without phases: (rows, --json)."""
    parser, path = argparse.ArgumentParser(), tmp_path_factory.mktemp("rows") / "rows.json"
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--rivals", action="store_true", default=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    kernels.add_arguments(parser)
    given = ["--device", "cpu", "--pictures", "64x64", "--batches", "1", "2", "--no-compile", "--json", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "INTEGER_MODELS", ())
        patch.setattr(bench_transforms, "MODELS", (str(tiny_path),))
        patch.setattr(device, "SAMPLE", 1e-6)
        return kernels.kernels_case(parser.parse_args(given)), path


@pytest.fixture(scope="module")
def model(tiny_path):
    return file.load(tiny_path)


@pytest.fixture
def case(model):
    """Two pictures of 50x60 pixels."""
    return bench_transforms.Case(model.config.M, bench_transforms.Lattice(((4, 4),) * 2), ((60, 50),) * 2, CPU)


def rows_of(model, **options):
    options = {"against": True, "compiled": False} | options
    return bench_transforms.rows(model, (64, 64), 1, device.Clock(CPU), 1, TOPS, **options)


# Rows


def test_rows_of_a_dry_run_have_what_a_reader_needs(found, tiny_path):
    made, path = found
    assert all(set(r) >= KEYS and "phase" not in r for r in made)
    assert {(r["shape"], r["batch"], r["model"], r["device"]) for r in made} == {
        ("64x64", b, str(tiny_path), "cpu") for b in (1, 2)
    }
    for batch in (1, 2):
        impls = [r["impl"] for r in made if r["batch"] == batch]
        assert len(impls) == len(set(impls))
        assert set(impls) == {*WHOLE, *(f"g_s ours fp16: {name}" for name in LAUNCHES)}
    assert json.loads(path.read_text()) == made


def test_rows_count_the_launches(found, model):
    lattice = bench_transforms.Lattice(((4, 4),) * 2)
    at = {r["impl"]: r for r in found[0] if r["batch"] == 2}
    for dtype in ("fp16", "fp32"):
        g_s, g_a = bench_transforms.networks(model, bench_transforms.DTYPES[dtype], CPU)
        parts = transforms.synthesis_cost(g_s, lattice, 2 * 64 * 64)
        whole = sum(p.bytes for p in parts), sum(2 * p.macs for p in parts)
        assert (at[f"g_s ours {dtype}"]["bytes"], at[f"g_s ours {dtype}"]["ops"]) == whole
        if dtype == "fp16":
            assert (at["g_s eager fp16"]["bytes"], at["g_s eager fp16"]["ops"]) == whole
            for name, p in zip(LAUNCHES, parts, strict=True):  # the narrow model has one block of each size
                row = at[f"g_s ours fp16: {name}"]
                assert (row["bytes"], row["ops"]) == (p.bytes, 2 * p.macs)
        parts = transforms.analysis_cost(g_a, lattice, 2 * 64 * 64)
        row = at["g_a ours fp16" if dtype == "fp16" else "g_a eager fp32"]
        assert (row["bytes"], row["ops"]) == (sum(p.bytes for p in parts), sum(2 * p.macs for p in parts))


def test_of_equal_blocks_one_is_timed():
    names = ["enter", "block", "block", "up", "block", "block", "paint"]
    found = list(bench_transforms.labels([transforms.Part(name, 1, 1) for name in names]))
    assert list(dict.fromkeys(found)) == LAUNCHES and found[2] == "block 1/16" and found[5] == "block 1/8"


def test_launches_by_themselves_are_those_of_the_whole(model, case):
    g_s, _ = bench_transforms.networks(model, torch.float16, CPU)
    calls = bench_transforms.launches(lambda: case.g_s(g_s))
    want = [x.clone() for x in case.painted.tensors]
    assert len(calls) == len(LAUNCHES) and all(x.float().std() > 1 for x in want)
    for x in case.painted.tensors:
        x.zero_()
    for call in calls:
        call()
    assert all(torch.equal(a, b) for a, b in zip(case.painted.tensors, want, strict=True))


# The gate


def test_every_config_has_its_turn(monkeypatch, tiny_path):
    seen = {name: set() for name in (*LAYERS, "block")}

    def listening(function, name=None):
        def call(*args, **options):
            for key, config in (options.get("configs") or {name: options.get("config")}).items():
                seen.setdefault(key, set()).add(config)
            return function(*args, **options)

        return call

    for function, name in (("synthesise", None), ("analyse", None), ("block", "block")):
        monkeypatch.setattr(transforms, function, listening(getattr(transforms, function), name))
    bench_transforms.gate(str(tiny_path), CPU)
    g_s, _ = bench_transforms.networks(file.load(tiny_path), torch.float16, CPU)
    for name in seen.keys() - {None}:
        widths = [b.tensors[4].shape[0] for b in g_s.blocks16 + g_s.blocks8] if name == "block" else [g_s.M]
        for dtype in bench_transforms.DTYPES.values():
            assert {c for w in widths for c in candidates(name, dtype, w)} <= seen[name]


def wrong_pixels(by):
    def wrong(real):
        def synthesise(r, mean, lattice, g_s, pictures, *, configs=None, **options):
            real(r, mean, lattice, g_s, pictures, configs=configs, **options)
            if configs and g_s.enter.weight.dtype == torch.float16:
                pictures.tensors[1][2, 7, 5] += by

        return synthesise

    return wrong


def wrong_features(option):
    def wrong(real):
        def function(*args, **options):
            out = real(*args, **options)
            if options.get(option):
                out[-1, 3] = float("nan")
            return out

        return function

    return wrong


@pytest.mark.parametrize(
    "name, wrong, said",
    [
        ("synthesise", wrong_pixels(3), "pixels of g_s fp16.*: 3 from the twin's, 2 may be: nothing is timed"),
        ("synthesise", wrong_pixels(2), None),
        ("analyse", wrong_features("configs"), "g_a fp16.*: nan from the twin's"),
        ("block", wrong_features("config"), "a block of .* channels fp16.*: nan from the twin's"),
    ],
)
def test_nothing_is_timed_if_a_kernel_is_wrong(monkeypatch, tiny_path, name, wrong, said):
    monkeypatch.setattr(transforms, name, wrong(getattr(transforms, name)))
    if said is None:
        bench_transforms.gate(str(tiny_path), CPU)
        return
    with pytest.raises(SystemExit, match=said):
        bench_transforms.gate(str(tiny_path), CPU)


# What fails


def broken(*args, **options):
    raise ValueError("no compiler here")


def test_a_rival_that_fails_costs_no_figure_of_ours(monkeypatch, model):
    monkeypatch.setattr(bench_transforms.rivals.Synthesis, "call", broken)
    monkeypatch.setattr(bench_transforms.rivals.Synthesis, "compiled", broken)
    made = rows_of(model, compiled=True)
    why = "ValueError('no compiler here')"
    assert made[-2:] == [
        {"impl": f"g_s {name} fp16", "left_out": why} for name in ("eager", "torch.compile")
    ] and all("left_out" not in r for r in made[:-2])
    assert made[-3]["impl"] == "g_a eager fp32"
    assert rows.table(made[-1:]).splitlines()[1].split() == f"g_s torch.compile fp16 - left out: {why}".split()
    monkeypatch.setattr(transforms, "synthesise", broken)
    with pytest.raises(ValueError, match="no compiler here"):
        rows_of(model)


def test_what_the_device_has_no_memory_for_is_left_out(monkeypatch, model):
    def greedy(*args, **options):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(transforms, "synthesise", greedy)
        made = rows_of(model, against=False)
        impls = ["g_s ours fp16", "g_s ours fp32", *(f"g_s ours fp16: {name}" for name in LAUNCHES)]
        assert made[0]["impl"] == "g_a ours fp16" and "left_out" not in made[0]
        assert made[1:] == [{"impl": impl, "left_out": rows.MEMORY} for impl in impls]
    monkeypatch.setattr(bench_transforms, "Case", greedy)
    assert rows_of(model) == [{"impl": "g_s and g_a", "left_out": rows.MEMORY}]


# Rivals


@pytest.mark.parametrize("at_once", [1, 2])
def test_rivals_and_ours_compute_one_function(monkeypatch, model, case, at_once):
    monkeypatch.setattr(bench_transforms.rivals.batches, "most_pixels", lambda device: at_once * 64 * 64)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    g_s, g_a = bench_transforms.networks(model, torch.float32, CPU)
    want = torch.stack([x.clone() for x in case.g_s(g_s)]).int()
    layers = bench_transforms.rivals.Synthesis(model, case.y_hat(), case.painted.tensors)
    assert len(layers.parts) == 2 // at_once
    for x in case.painted.tensors:
        x.zero_()
    layers.call()
    assert (torch.stack(case.painted.tensors).int() - want).abs().max() <= 2
    assert (torch.cat(layers.compiled("max-autotune")()).int() - want).abs().max() <= 2
    features = torch.cat(bench_transforms.rivals.Analysis(model, case.given.tensors).call())
    assert torch.allclose(features.permute(0, 2, 3, 1).reshape(-1, g_a.M), case.g_a(g_a), atol=1e-4)


# The bars


def test_bars_are_the_worst_case(tmp_path):
    common = {"shape": "768x512", "batch": 64, "call_us": 1.0}
    made = [
        common | {"model": name, "impl": impl, "us": us, "roofline_share": share}
        for name, times in (("small", (100, 350, 140)), ("base", (100, 290, 160)))
        for impl, us, share in zip(
            ("g_s ours fp16", "g_s eager fp16", "g_s torch.compile fp16"), times, (0.45, 0.1, 0.2), strict=True
        )
    ]
    made += [r | {"batch": 1, "us": 1.0} for r in made]
    made[3]["roofline_share"] = 0.4125
    made.append(common | {"model": "small", "impl": "g_a eager fp32", "left_out": "out of memory"})
    eager, compiled, share = read.bar_names(read.PAINTER)
    assert read.bars(made) == {eager: (2.9, 3.0), compiled: (1.4, 1.5), share: (0.4125, 0.4)}
    (tmp_path / "rows.json").write_text(json.dumps(made))
    result = read.kernels(tmp_path)
    assert result.bars == {
        eager: {"value": 2.9, "met": False},
        compiled: {"value": 1.4, "met": False},
        share: {"value": 0.412, "met": True},
    }
    lines = result.markdown.splitlines()
    assert lines[0] == "| model | picture | batch | impl | us | call us | roofline | config |"
    assert "| base | 768x512 | 64 | g_s eager fp16 | 290.0 | 1.0 | 10.0 % |  |" in lines
    assert f"- {eager}: 2.9, missed" in lines and f"- {share}: 0.412, met" in lines
    assert lines[-1] == "- g_a eager fp32, batch 64: out of memory"
    phase = {"phase": 1, "impl": "ours int8 auto", "us": 1.0, "roofline_share": 0.6, "config": "layers"}
    (tmp_path / "rows.json").write_text(json.dumps([common | {"model": "m"} | phase, *made]))
    assert read.kernels(tmp_path).markdown.count("| model |") == 2
