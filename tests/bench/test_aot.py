"""The gates of the ahead-of-time compilation: what must fail does, for each gate; what is shipped is what is
launched.
"""

import dataclasses
import sys
from pathlib import Path

import bad_kernels
import pytest
import torch

from bench import aot, launches, recorder
from ckbd.kernels.configs import LEAST_K
from ckbd.kernels.transforms import configs as transform_configs

sys.path.append(str(Path(__file__).parents[1] / "gpu"))

import vectors  # noqa: E402

SM_80, SM_90 = aot.TARGETS[:2]


def launch(kernel, stages=3, **scalars):
    signature = {"x_ptr": "*i8", "w_ptr": "*i8", "out_ptr": "*i32"} | scalars
    attrs = tuple((i,) for i in range(3))
    options = (("num_warps", 4), ("num_stages", stages))
    return recorder.Launch(kernel, kernel.__name__, torch.int8, True, tuple(signature.items()), (), attrs, options)


@pytest.mark.parametrize("target", [SM_80, SM_90], ids=lambda t: t.name)
def test_spills_are_seen_in_the_code_and_not_by_the_register_count(target):
    report = aot.inspect(launch(bad_kernels.spilling_kernel), target)
    assert any("spills" in f for f in report.failures) and any("of stack" in f for f in report.failures)
    assert report.registers <= 255


@pytest.mark.parametrize("target", aot.TARGETS, ids=lambda t: t.name)
def test_a_product_without_tensor_cores_is_seen(target):
    report = aot.inspect(launch(bad_kernels.scalar_kernel), target)
    assert "no tensor-core instruction" in report.failures


@pytest.mark.parametrize("target", aot.TARGETS[:3], ids=lambda t: t.name)
def test_too_much_shared_memory_is_seen(target):
    report = aot.inspect(launch(bad_kernels.greedy_kernel, stages=8, rounds="i32"), target)
    assert any("shared memory" in f for f in report.failures)


def test_serialised_wgmma_is_seen():
    said = (
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to "
        "non wgmma instructions defining accumulator registers of a wgmma between start and end of the pipeline stage"
    )
    assert aot.serialised(said) == ["wgmma serialised"]
    assert aot.serialised("ptxas info    : Used 96 registers, used 1 barriers") == []


def phase_launch(form):
    return next(one for one in launches.shipped() if form in one.label and "context" in one.label)


@pytest.mark.parametrize("target, form", [(SM_80, "layers"), (SM_90, "fused"), (aot.TARGETS[3], "layers")])
def test_a_shipped_kernel_passes_and_fails_where_less_is_allowed(target, form):
    one = phase_launch(form)
    report = aot.inspect(one, target)
    assert report.failures == () and report.tensor > 0 and report.shared > 0
    narrow = aot.Target(target.name, target.gpu, report.shared - 1, report.registers - 1, {one.dtype: "NO SUCH"})
    failures = " ".join(aot.inspect(one, narrow).failures)
    assert "registers" in failures and "shared memory" in failures and "no tensor-core instruction" in failures
    crowded = dataclasses.replace(target, registers_all=32 * dict(one.options)["num_warps"] * report.registers - 1)
    assert any("registers of" in f for f in aot.inspect(one, crowded).failures)


def test_every_config_of_every_dtype_is_compiled():
    labels = " ".join(one.label for one in launches.shipped())
    held = [[config for config, _ in some] for some in transform_configs.HELD.values()]
    tables = [launches.CONFIGS, transform_configs.BLOCKS, *transform_configs.LAYERS.values()]
    for configs in (*held, *(some for one in tables for some in one.values())):
        for config in configs:
            assert str(config) in labels
    assert {one.kernel.__name__ for one in launches.shipped()} == {
        *("layer_kernel", "fused_kernel", "assemble_kernel", "quantise_kernel", "move_kernel"),
        *("held_kernel", "resident_kernel", "spread_kernel", "features_kernel", "paint_kernel"),
    }


def test_every_network_that_a_gpu_is_tested_with_is_compiled():
    def tuples(models):
        return {(m.C, m.M, m.H1, m.H2, m.kernel) for m in models}

    def widths(these):
        return {(w.C, w.M, w.H1, w.H2, w.kernel) for w in these}

    integers = tuples(launches.INTEGER_MODELS + launches.ODD_INTEGERS)
    assert widths(case.widths for case in vectors.PHASES) <= integers
    assert widths((*vectors.FLOAT_WIDTHS, vectors.CHENG)) <= tuples(launches.FLOAT_MODELS + launches.ODD_FLOATS)
    hypers = set(launches.ODD_HYPERS + launches.HYPERS[1:])
    found = {(case.C, case.N, case.split, case.factor) for case in vectors.HYPERS}
    assert found - {(96, 128, False, 2)} <= hypers


def test_every_run_compiles_each_kernel_and_a_release_every_launch():
    """What CI leaves out differs from what it compiles by widths or target only, and the default model is whole."""
    kinds = {}
    for scope in ("default", "everyday", "all"):
        jobs = [(one, t) for one in launches.shipped() for t in aot.TARGETS if aot.wanted(one, t, scope)]
        kinds[scope] = {(one.kernel.__name__, one.dtype, one.product, one.label.rsplit(": ")[-1]) for one, _ in jobs}
        assert {t.name for _, t in jobs} == {t.name for t in aot.TARGETS}
        default = [one for one in launches.shipped() if one.scope == "default"]
        for t in aot.TARGETS:
            wanted = [one for one in default if not one.targets or t.name in one.targets]
            assert wanted and all((one, t) in jobs for one in wanted)
    assert kinds["default"] < kinds["everyday"] == kinds["all"]
    assert {one.scope for one in launches.shipped()} == set(launches.SCOPES)


@pytest.mark.parametrize("target", [t for t in aot.TARGETS if t.odd], ids=lambda t: t.name)
def test_odd_widths_pass_the_gates(target):
    """One of each that once did not compile (psi of 24, 33 and 48 channels) or spilled (rows of 65)."""
    for part, step in (
        ("odd 24, 40, 70, 100, 3, i8", "raw"),
        ("odd 33, 8, 64, 64, 7, fp16", "raw"),
        ("odd 24, 40, 70, 100, 3, fp32", "raw"),
        ("odd h_s, i8, layers 64x128x128", "shuffle"),
    ):
        one = next(one for one in launches.shipped() if part in one.label and step in one.label)
        assert aot.inspect(one, target).failures == ()


@pytest.mark.parametrize("target", aot.TARGETS[:3], ids=lambda t: t.name)
def test_a_product_too_small_for_a_gpu_does_not_compile(target, monkeypatch):
    """What the gates are for: the first of these networks as it was, with psi's weights not padded."""
    m, config = launches.ODD_INTEGERS[1], launches.CONFIGS[torch.int8][0]
    net, found = launches.integer_network(m), []
    with recorder.recording("unpadded", found, (launches.launch,)):
        launches.launch.project(torch.zeros(8, m.C, dtype=torch.int8), net.psi[:, : m.C].contiguous(), config)
    assert "K >= 32" in " ".join(aot.inspect(found[0], target).failures)


def test_no_launch_has_a_product_smaller_than_its_dtype_takes():
    for one in launches.shipped():
        values = {one.kernel.arg_names[i]: value for (i,), value in one.constants}
        for name in ("BLOCK_K", "BLOCK_H") if one.product else ():
            assert values.get(name, 64) >= LEAST_K[one.dtype], one.label


def test_the_table_keeps_what_other_versions_wrote(tmp_path, monkeypatch):
    row = aot.Report("a", "sm_80", 40, 0, 0, 2048, 7, ())
    path = tmp_path / "K.md"
    for version in ("3.6.0", "3.10.0", "3.6.0"):
        monkeypatch.setattr(aot.triton, "__version__", version)
        aot.write(path, [row])
    text = path.read_text()
    assert text.count("| a | 40 / 0 / 2 / 7 |") == 2
    assert text.index("## Triton 3.10.0") < text.index("## Triton 3.6.0")
    aot.write(path, [aot.Report("a", "sm_80", 40, 3, 0, 2048, 7, ("3 spills",))])
    assert "| a | 40 / 3 / 2 / 7 **3 spills** |" in path.read_text()


def test_odd_widths_are_counted_and_those_that_fail_are_shown(tmp_path):
    rows = [aot.Report(label, "sm_80", 40, 0, 0, 2048, 7, ()) for label in ("a", "odd b", "odd c")]
    rows += [aot.Report("a", "sm_100", 41, 0, 0, 2048, 7, ()), aot.Report("odd d", "sm_80", 0, 0, 0, 0, 0, ("no",))]
    aot.write(tmp_path / "K.md", rows)
    text = (tmp_path / "K.md").read_text()
    assert "| a | 40 / 0 / 2 / 7 | 41 / 0 / 2 / 7 |" in text and "odd b" not in text
    assert "| odd d | 0 / 0 / 0 / 0 **no** |  |" in text and "odd widths: 3, of which 1 fail a gate." in text
