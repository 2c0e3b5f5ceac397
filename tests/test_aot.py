"""The gates of the ahead-of-time compilation: what must fail does, for each gate; what is shipped is what is
launched.
"""

import bad_kernels
import pytest
import torch

from bench import aot, launches

SM_80, SM_90 = aot.TARGETS[:2]


def launch(kernel, stages=3, **scalars):
    signature = {"x_ptr": "*i8", "w_ptr": "*i8", "out_ptr": "*i32"} | scalars
    attrs = tuple((i,) for i in range(3))
    options = (("num_warps", 4), ("num_stages", stages))
    return launches.Launch(kernel, kernel.__name__, torch.int8, True, tuple(signature.items()), (), attrs, options)


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


def test_every_config_of_every_dtype_is_compiled():
    labels = " ".join(one.label for one in launches.shipped())
    for configs in launches.CONFIGS.values():
        for config in configs:
            assert str(config) in labels
    assert {one.kernel.__name__ for one in launches.shipped()} == {
        "layer_kernel", "fused_kernel", "assemble_kernel", "quantise_kernel", "move_kernel"
    }  # fmt: skip


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
