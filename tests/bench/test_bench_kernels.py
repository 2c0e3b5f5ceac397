"""The benches of the kernels as far as a CPU goes: arithmetic, rows, what they read of ncu."""

import argparse
import json

import pytest
import torch

from bench import launches, run
from bench.gpu import device, profile, record
from bench.gpu import kernels as bench_kernels
from bench.rivals.kernels import SLOPE
from ckbd import kernels
from ckbd.kernels import Lattice, reference
from ckbd.kernels.configs import CONFIGS

CPU = torch.device("cpu")
TINY = launches.Model("tiny", 24, 16, 64, 32, 3)
TOPS = device.Ceilings(bandwidth=2e12, int8=1e15, float16=5e14, float32=5e13)
KEYS = {"shape", "batch", "impl", "device", "us", "bytes", "ops", "roofline_share"}


# The roofline


def test_share_is_of_whichever_ceiling_is_nearer():
    assert device.roofline_share(2e6, 1, 1.0, 2e12, 1e15) == pytest.approx(1)
    assert device.roofline_share(1, 1e9, 2.0, 2e12, 1e15) == pytest.approx(0.5)
    assert device.roofline_share(2e6, 1e10, 20.0, 2e12, 1e15) == pytest.approx(0.5)


def test_each_dtype_has_its_ceiling():
    assert [TOPS.rate(d) for d in (torch.int8, torch.float16, torch.float32)] == [1e15, 5e14, 5e13]


def test_ceilings_of_this_machine_are_positive():
    assert all(v > 0 for v in vars(device.ceilings(device.Clock(CPU), 1 << 12, 32)).values())


def test_quantiles():
    assert device.quantiles([3.0]) == (3.0, 3.0, 3.0)
    assert device.quantiles([float(n) for n in range(11)]) == (1.0, 5.0, 9.0)


def test_samples_are_taken_in_turn(monkeypatch):
    order, clock = [], device.Clock(CPU)
    monkeypatch.setattr(clock, "count", lambda call: 1)
    samples = clock.turns({name: lambda name=name: order.append(name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab" and all(len(s) == 3 for s in samples.values())


def test_events_on_cuda_are_shared_among_the_calls_between_them(monkeypatch):
    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            order.append("event")

        def synchronize(self):
            order.append("wait")

        def elapsed_time(self, end):
            return 0.3  # milliseconds

    order = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    us = device.Clock(torch.device("cuda")).sample(lambda: order.append("call"), 3)
    assert us == pytest.approx(100) and order == ["event", "call", "call", "call", "event", "wait"]


def test_what_runs_out_of_memory_is_left_out(monkeypatch):
    def greedy():
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert set(device.Clock(CPU).turns({"greedy": greedy, "frugal": lambda: None}, 2)) == {"frugal"}


@pytest.mark.parametrize("size, want", [((768, 512), (32, 48)), ((1920, 1080), (68, 120)), ((1, 1), (4, 4))])
def test_latents_are_those_of_the_codec(size, want):
    assert bench_kernels.latents(*size) == want


# The bench


@pytest.fixture(scope="module")
def rows(one_thread):
    """A dry run of the case as the command line has it, with narrow models."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--rivals", action="store_true", default=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    bench_kernels.add_arguments(parser)
    args = parser.parse_args("--device cpu --pictures 64x64 100x70 --batches 1 2 --no-compile --only phases".split())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_kernels, "INTEGER_MODELS", (TINY,))
        patch.setattr(device, "SAMPLE", 1e-6)
        return bench_kernels.kernels_case(args)


def test_rows_of_a_dry_run_have_what_a_reader_needs(rows):
    assert all(set(r) >= KEYS for r in rows)
    assert {(r["shape"], r["batch"]) for r in rows} == {(s, b) for s in ("64x64", "100x70") for b in (1, 2)}
    impls = {r["impl"] for r in rows if r.get("phase") == 1}
    assert impls == {f"ours {n}" for n in ("int8 fused", "int8 layers", "int8 auto", "fp16", "fp32")} | {
        "torch eager fp16",
        "compressai dense fp16",
        "compressai dense fp32",
    }
    assert {r["impl"] for r in rows if r.get("phase") == 0} == {n for n in impls if n.startswith("ours")}
    assert {r["device"] for r in rows} == {"cpu"}
    json.dumps(rows)


def test_rows_count_by_the_op_and_shares_by_the_ceilings(rows):
    net, lattice = bench_kernels.integers(TINY, CPU), Lattice(((4, 4),) * 2)
    for r in rows:
        if r["impl"] == "ours int8 layers" and (r["shape"], r["batch"]) == ("64x64", 2):
            cost = kernels.phase_cost(net, lattice, r["phase"], CONFIGS[torch.int8][0])
            assert (r["bytes"], r["ops"]) == (cost.bytes, 2 * cost.macs)
    row = bench_kernels.row_of("x", [2.0, 4.0, 6.0], [8.0], {"bytes": 4e6, "ops": 1e9}, torch.int8, TOPS)
    assert (row["us"], row["call_us"], row["roofline_share"]) == (4.0, 8.0, pytest.approx(0.5))
    assert bench_kernels.table([row | {"phase": 1}]).count("\n") == 1


def test_nothing_is_timed_if_a_bit_differs(monkeypatch):
    phase = kernels.phase

    def off_by_one(*args, **options):
        mean, k = phase(*args, **options)
        return (mean, k) if options["config"] is None else (mean + (mean == mean.max()).to(mean.dtype), k)

    bench_kernels.gate(TINY, CPU)
    monkeypatch.setattr(kernels, "phase", lambda *a, config=None, **o: off_by_one(*a, config=config, **o))
    with pytest.raises(SystemExit, match="tiny.*phase 0 is not the twin's"):
        bench_kernels.gate(TINY, CPU)


def test_a_rival_that_fails_costs_no_figure_of_ours(monkeypatch):
    def broken(self):
        raise ValueError("no compiler here")

    lattice, clock = Lattice(((4, 4),)), device.Clock(CPU)
    monkeypatch.setattr(bench_kernels.Half, "call", broken)
    made = bench_kernels.entries(TINY, lattice, clock, True, False)
    assert ("compressai dense fp16", 1) in made.found and not any("eager" in name for name, _ in made.found)
    row = made.rows(1, TOPS)[-1]
    assert row == {"impl": "torch eager fp16", "phase": 1, "left_out": "ValueError('no compiler here')"}
    assert bench_kernels.table([row]).splitlines()[1].split() == [
        *"torch eager fp16 1 left out: ValueError('no compiler here')".split()
    ]
    monkeypatch.setattr(kernels, "phase", lambda *a, **o: broken(None))
    with pytest.raises(ValueError, match="no compiler here"):
        bench_kernels.entries(TINY, lattice, clock, True, False)


def test_rivals_see_anchors_alone():
    lattice = Lattice(((6, 8),) * 2)
    dense = bench_kernels.Dense(TINY, lattice, torch.float32, CPU)
    row, column = torch.arange(6).view(-1, 1), torch.arange(8)
    assert (dense.y_hat[:, :, (row + column) % 2 == 1] == 0).all() and (dense.y_hat != 0).any()
    kernel = dense.layers[0][0].flatten(2)
    assert (kernel[..., 0::2] == 0).all() and (kernel[..., 1::2] != 0).any()
    half = bench_kernels.Half(TINY, lattice, torch.float32, CPU)
    mean, k = half.call()
    assert mean.shape == k.shape == (2, 6, 4, TINY.M) and k.dtype == torch.uint8 and k.unique().numel() > 4


@pytest.mark.parametrize("parity", [0, 1])
def test_rivals_and_ours_compute_one_function(parity):
    """The dense way's weights, folded, give the same in the half-lattice rival and in our float network."""
    lattice, M = Lattice(((6, 8),) * 2, parity), TINY.M
    dense, half = (kind(TINY, lattice, torch.float32, CPU) for kind in (bench_kernels.Dense, bench_kernels.Half))
    (w_conv, b_conv), (w1, b1), (w2, b2), (w3, b3) = dense.layers
    w1, w2, w3 = (w.flatten(1) for w in (w1, w2, w3))
    w_context, b_context = kernels.fold_context(w1[:, : 2 * M], w_conv, b_conv)
    first = (b_context + b1).float()
    live = w_context.float().flatten(2)[:, :, 1::2].transpose(1, 2).flatten(1)
    half.weights = [(live, first), (w2, b2), (w3, b3)]
    psi = reference.split(dense.psi, parity)[1]
    half.psi_acc, half.context = psi @ w1[:, 2 * M :].T, reference.split(dense.y_hat, parity)[0]
    want_mean, want_sigma = (reference.split(t, parity)[1] for t in dense.call())
    mean, k = half.call()
    assert torch.allclose(mean, want_mean, atol=1e-4)
    net = kernels.Network.floats(
        w1[:, 2 * M :],
        w_context.float(),
        torch.stack((first, first)),
        (w2, b2),
        (w3, b3),
        slope=SLOPE,
        thresholds=half.thresholds,
    )
    rows = [t.flatten(0, 2) for t in (psi, half.context, mean, k, want_sigma)]
    ours_mean, ours_k = kernels.phase(kernels.project(rows[0], net), rows[1], net, lattice, backend="torch")
    assert torch.allclose(ours_mean, rows[2], atol=1e-4)
    sure = ((rows[4].unsqueeze(-1) - half.thresholds).abs() > 1e-3).all(-1)
    assert sure.float().mean() > 0.9 and torch.equal(ours_k[sure], rows[3][sure])


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
@pytest.mark.parametrize("command", [["kernels"], ["batch", "--device", "cuda"]], ids=lambda c: c[0])
def test_without_a_gpu_one_line_and_a_status_that_says_so(command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run", *command])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    assert stopped.value.code == record.UNAVAILABLE
    assert capsys.readouterr().err.count("\n") == 1


# The profile


@pytest.mark.parametrize("p", [0, 1])
def test_layers_add_up_to_the_phase(p):
    net, lattice = bench_kernels.integers(TINY, CPU), Lattice(((5, 7), (4, 4)))
    layers, fused = CONFIGS[torch.int8][0], CONFIGS[torch.int8][3]
    cost = kernels.phase_cost(net, lattice, p, layers)
    parts = profile.work(net, lattice, p, layers)
    assert sum(k.ops for k in parts) == 2 * cost.macs
    between = 2 * lattice.sites * (net.hidden[0].shape[1] + net.hidden[0].shape[0])  # written, then read
    assert sum(k.bytes for k in parts) == cost.bytes + between
    (whole,) = profile.work(net, lattice, p, fused)
    assert (whole.ops, whole.bytes) == (2 * cost.macs, cost.bytes)


def test_launches_are_told_apart_by_their_order():
    expected = [profile.Kernel("a", 2_000_000, 1), profile.Kernel("b", 1, 10**9)]
    a, b = profile.timed(expected, [2.0, 4.0, 2.0, 5.0, 3.0, 4.0], TOPS, torch.int8)
    assert (a.us, b.us) == (2.0, 4.0) and (a.share, b.share) == (pytest.approx(0.5), pytest.approx(0.25))
    with pytest.raises(ValueError, match="3 launches were seen"):
        profile.timed(expected, [1.0, 2.0, 3.0], TOPS, torch.int8)


def test_dry_run_writes_a_trace_and_no_times(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(profile, "INTEGER_MODELS", (TINY,))
    out = tmp_path / "out"
    monkeypatch.setattr(
        "sys.argv", ["profile", "--out", str(out), "--device", "cpu", "--batch", "1", "--model", "tiny"]
    )
    assert profile.main() == 0
    assert json.loads((out / "trace.json").read_text())["traceEvents"]
    assert (out / "roofline.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "rows.json").read_text())
    assert [r["name"] for r in found] == [f"phase {p} {n}" for p in (0, 1) for n in ("first", "hidden", "output")]
    said = capsys.readouterr().out
    assert said.count("not timed") == 6 and " us " not in said and "nothing was timed" in said


NCU = """==PROF== Connected to process 7 (/usr/bin/python3)
a line of the program
==PROF== Profiling "layer_kernel" - 0: 0%....50%....100% - 8 passes
==PROF== Disconnected from process 7
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC",\
"dram__bytes.sum","gpu__time_duration.sum","launch__registers_per_thread"
"","","","","","","","","","","","byte","nsecond","register/thread"
"0","7","python3","127.0.0.1","layer_kernel","1","7","(128, 1, 1)","(10, 12, 1)","0","9.0","1,234,567","12,345","96"
"1","7","python3","127.0.0.1","fused_kernel, extra","1","7","(256, 1, 1)","(264, 1, 1)","0","9.0","n/a","222","168"
"""


def test_ncu_s_table_is_read():
    first, second = profile.parse_ncu(NCU)
    assert first == {
        "kernel": "layer_kernel",
        "time": "12,345 nsecond",
        "memory traffic": "1,234,567 byte",
        "registers": "96 register/thread",
    }
    assert second["kernel"] == "fused_kernel, extra" and second["memory traffic"] == "n/a byte"
    table = profile.markdown([first, second]).splitlines()
    assert len(table) == 4 and table[0] == "| kernel | time | memory traffic | registers |"


def test_ncu_s_refusal_is_passed_on():
    with pytest.raises(ValueError, match="no table: ==ERROR== ERR_NVGPUCTRPERM"):
        profile.parse_ncu("==ERROR== ERR_NVGPUCTRPERM: no permission\nbye\n")
    with pytest.raises(ValueError, match="no table"):
        profile.parse_ncu("")


def test_ncu_s_command_names_our_kernels_and_every_metric(monkeypatch, tmp_path, capsys):
    command = profile.ncu_command("ncu", ["python", "-m", "x"])
    assert command[-3:] == ["python", "-m", "x"] and "--csv" in command
    assert command[command.index("--metrics") + 1].split(",") == list(profile.METRICS)
    monkeypatch.setattr(profile.shutil, "which", lambda name: None)
    args = argparse.Namespace(model="tiny", form="fused", batch=1, picture=(64, 64))
    assert profile.nsight(tmp_path, args) is False
    assert "ncu is not on PATH" in capsys.readouterr().out
