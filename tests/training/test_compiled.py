"""Steps through torch.compile against steps without: one graph, the same integers, losses and weights within noise.

Whole steps are traced, differentiated and decomposed as inductor has them, and run by PyTorch's own kernels, since
inductor's take a minute and a half to be compiled; CKBD_INDUCTOR=1 has those. The exact zone is always inductor's.
"""

import os

import pytest
import torch
from conftest import GROUPED, TINY, textured, tiny_model

from ckbd.kernels import reference
from ckbd.model.model import Checkerboard, hyper_map, projected
from ckbd.training import compiled, steps, train
from ckbd.training.data import DeviceCrops
from ckbd.training.distortion import Shares
from ckbd.training.steps import Stepper, draw_qualities, optimisers

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(compiled.refusal("cpu") is not None, reason=f"{compiled.refusal('cpu')}"),
]
BACKEND = "inductor" if os.environ.get("CKBD_INDUCTOR") else "aot_eager_decomp_partition"
STEPS = 5


def stepped(compile: bool, size: int = 64, steps: int = STEPS, **more) -> tuple[list[list[float]], torch.Tensor]:
    """The sums after each step, and all weights."""
    torch.manual_seed(3)
    model, average = Checkerboard(TINY), Checkerboard(TINY)
    average.load_state_dict(model.state_dict())
    draw = DeviceCrops([textured(200, 200)], "cpu").batch
    one = Stepper(model, average, optimisers(model, 1e-3, 1e-3, False), draw, compile=compile, **more)
    sums = []
    for _ in range(steps):
        one(size, 2, False, 1.0, 0.1)
        sums.append(one.sums.tolist())
    return sums, torch.cat([p.detach().flatten() for p in one.weights])


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_compiled_steps_are_steps(bf16, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", BACKEND)
    torch.manual_seed(3)
    start = torch.cat([p.detach().flatten() for p in Checkerboard(TINY).parameters()])
    (plain, want), (sums, got) = stepped(False, bf16=bf16), stepped(True, bf16=bf16)
    # The first losses differ by the order of sums; bfloat16, where compiled, rounds less often (2^-9 a time).
    assert sums[0] == pytest.approx(plain[0], rel=1e-3 if bf16 else 1e-5)
    # Later a latent or two that sat on a rounding boundary fell to the other side.
    assert sums[-1] == pytest.approx(plain[-1], rel=5e-3 if bf16 else 5e-4)
    # Adam and Muon divide gradients by their size, so where that is noise the weight moves by noise.
    assert (got - want).norm() < (0.3 if bf16 else 0.03) * (want - start).norm()


def test_ms_ssim_is_one_graph_too(monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    (plain, _), (sums, _) = (stepped(one, 192, 1, shares=Shares(0.2, 0.5)) for one in (False, True))
    assert sums[0] == pytest.approx(plain[0], rel=1e-5)


@pytest.mark.parametrize("config", [TINY, GROUPED], ids=["plain", "groups"])
def test_the_exact_zone_is_exact_as_inductor_has_it(config):
    model = tiny_model(config=config)
    generator = torch.Generator().manual_seed(0)
    y = 30 * torch.randn(3, config.M, 8, 12, generator=generator)
    z_hat = torch.randint(-127, 128, (3, TINY.Nz, 2, 3), generator=generator).float()
    quality = torch.tensor([1.0, 49.5, 100.0])

    def zone(y, z_hat, quality):
        layers = model.exact.integers()
        own = layers.groups()[0]
        psi = projected(hyper_map(z_hat, torch.floor(quality), layers), own)
        y_hat, bits = model.two_phases(y, z_hat, quality, False)
        out = [part for one in layers.values() for part in one[:3]]
        near = torch.round(y[:, : len(own["output"].weight) // 2]).clamp(-127, 127)
        for psi_acc, context in zip(psi, (None, reference.split(near)[0]), strict=True):
            out += reference.phase(psi_acc, context, own.g_ep)
        return [*psi, y_hat, *out], bits

    # With gradients, as in training: products are PyTorch's choice then, and what the backward pass needs is kept.
    (want, bits), (got, compiled_bits) = zone(y, z_hat, quality), compiled.compiled(zone)(y, z_hat, quality)
    for n, (one, other) in enumerate(zip(got, want, strict=True)):
        assert torch.equal(one, other), n
    assert want[-1].unique().numel() > 8 and want[2].abs().max() > 64, "much is tried"
    assert torch.allclose(compiled_bits, bits, rtol=1e-5)


def test_weights_that_are_halved_at_once_have_autocast_s_gradients(monkeypatch):
    torch.manual_seed(3)
    model, x, quality = tiny_model(), torch.rand(2, 3, 64, 64), draw_qualities(2)
    one = Stepper(model, tiny_model(), [], lambda count, size: x, bf16=True)
    halved, grads = one.halved, []
    for one.halved in (halved, []):
        model.zero_grad()
        loss, _ = one.losses(x, quality, False)
        loss.backward()
        grads.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    applied = []
    real = steps.functional_call
    monkeypatch.setattr(
        steps, "functional_call", lambda m, weights, *more: applied.append(weights) or real(m, weights, *more)
    )
    one.halved = halved
    one.losses(x, quality, False)
    assert set(applied[0]) == set(halved) and all(t.dtype == torch.bfloat16 for t in applied[0].values())
    assert "g_s.up.bias" in halved and all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert Stepper(model, tiny_model(), [], lambda count, size: x).halved == []


def test_what_cannot_be_compiled_is_said(monkeypatch, capsys, tmp_path):
    from torch._inductor import cpp_builder

    def none():
        raise RuntimeError("No working C++ compiler found\nat length")

    assert compiled.wanted(True, "cpu") and not compiled.wanted(None, "cpu") and not compiled.wanted(False, "cuda")
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    assert compiled.refusal("cpu") == "no C++ compiler: No working C++ compiler found"
    assert compiled.wanted(None, "cuda") is False
    assert capsys.readouterr().out == "steps are not compiled: no C++ compiler: No working C++ compiler found\n"
    from PIL import Image

    Image.fromarray(textured(64, 64)).save(tmp_path / "a.png")
    args = ["--data", str(tmp_path), "--out", str(tmp_path / "run"), "--crops", "64x1", "--steps", "1", "--compile"]
    assert train.main(args) == 1
    assert capsys.readouterr().err == "ckbd train: compile: no C++ compiler: No working C++ compiler found\n"


def test_a_pytorch_that_cannot_trace_a_step_is_named(monkeypatch):
    monkeypatch.setattr(compiled, "LIMIT", "a_name_of_later")
    assert compiled.refusal("cpu") == f"PyTorch {torch.__version__} cannot trace a step as one graph"
