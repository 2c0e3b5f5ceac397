"""One step of training and what it is made of: Muon, crops cut on the device, sums and averages."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY, textured, turned
from PIL import Image

from ckbd.model.model import Checkerboard, carried_gains, first_gains
from ckbd.training.data import DeviceCrops, pictures
from ckbd.training.optim import Muon, orthogonalise
from ckbd.training.steps import Stepper, draw_qualities, optimisers, seen

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 8, 40), (1, 64, 16)])
def test_orthogonalise_keeps_directions_and_evens_out_their_sizes(shape, dtype):
    m = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    got = orthogonalise(m, dtype=dtype)
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    in_basis = u.mT @ got @ vh.mT
    sizes = in_basis.diagonal(dim1=1, dim2=2)
    assert sizes.min() > 0.3 and sizes.max() < 1.3  # the smallest directions of all are still on their way
    assert (in_basis - torch.diag_embed(sizes)).abs().max() < (0.05 if dtype == torch.float32 else 0.1)
    assert got.dtype == torch.float32


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has its own from 2.9 on")
def test_muon_is_torchs_own_for_matrices():
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(n, generator=generator) for n in ((24, 40), (24, 40), (50, 12))]
    ours, theirs = ([torch.nn.Parameter(t.clone()) for t in start] for _ in range(2))
    a = Muon(ours, lr=torch.tensor(0.01))
    b = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q, t in zip(ours, theirs, start, strict=True):
        # torch's iterates in bfloat16.
        assert (p - q).norm() < 0.03 * (q - t).norm()


def test_muon_takes_convolutions_and_refuses_vectors():
    conv = torch.nn.Parameter(torch.randn(8, 6, 2, 2).to(memory_format=torch.channels_last))
    flat = torch.nn.Parameter(conv.detach().flatten(1).clone())
    conv.grad = torch.randn(8, 6, 2, 2)
    flat.grad = conv.grad.flatten(1)
    Muon([conv, flat], lr=1e-2).step()
    assert torch.allclose(conv.detach().flatten(1), flat.detach(), atol=1e-6)
    with pytest.raises(ValueError, match=r"expected matrices, got one of shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("muon_lr", [0.0, 1e-3])
def test_every_weight_has_one_optimiser(muon_lr):
    model = Checkerboard(TINY)
    found = optimisers(model, 1e-3, muon_lr, capturable=False)
    held = [id(p) for o in found for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    if muon_lr:
        matrices = {id(p) for p in found[1].param_groups[0]["params"]}
        assert id(model.g_a.patch.weight) in matrices and id(model.g_s.blocks8[0].reduce.weight) in matrices
        assert (
            id(model.exact.hidden.weight) not in matrices
            and id(model.g_a.blocks8[0].depthwise.weight) not in matrices
        )


def test_device_crops_are_cut_out_of_the_pictures():
    torch.manual_seed(0)
    sources = [textured(5, 7, 0), textured(9, 4, 1)]
    crops = DeviceCrops(sources, "cpu")
    windows = {}
    for n, p in enumerate(sources):
        for top in range(p.shape[0] - 3):
            for left in range(p.shape[1] - 3):
                for one in turned(p[top : top + 4, left : left + 4]):
                    windows[one] = n, top, left
    x = crops.batch(600, 4)
    assert x.shape == (600, 3, 4, 4) and x.dtype == torch.float32
    whole = torch.round(x * 255)
    assert torch.allclose(x * 255, whole, atol=1e-4)
    seen = [one.tobytes() for one in whole.permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy()]
    assert set(seen) <= windows.keys()
    assert {windows[one] for one in seen} == set(windows.values())  # every place of every picture
    assert len(set(seen)) > 0.9 * len(windows)  # turned every way


def test_pictures_come_in_name_order(tmp_path):
    for n in range(12):
        Image.fromarray(np.full((3, 3, 3), n, np.uint8)).save(tmp_path / f"{n:02}.png")
    assert [int(p[0, 0, 0]) for p in pictures(tmp_path)] == list(range(12))


def test_gains_are_carried_to_another_range():
    wider = dataclasses.replace(TINY, lmbda_min=TINY.lmbda_min / 3, lmbda_max=TINY.lmbda_max * 2, levels=5)
    assert torch.allclose(carried_gains(first_gains(TINY), TINY, wider), first_gains(wider), atol=1e-5)
    some = torch.randn(TINY.levels, TINY.M)
    assert torch.allclose(carried_gains(some, TINY, TINY), some, atol=1e-5)


def stepper(draw=None, **more) -> Stepper:
    torch.manual_seed(3)
    model, average = Checkerboard(TINY), Checkerboard(TINY)
    average.load_state_dict(model.state_dict())
    crops = DeviceCrops([textured(80, 80)], "cpu")
    return Stepper(model, average, optimisers(model, 1e-3, 1e-3, False), draw or crops.batch, **more)


def test_a_step_moves_weights_average_and_sums():
    one = stepper()
    before = [p.detach().clone() for p in one.weights]
    one(64, 3, True, 0.5, 0.25)
    assert [o.param_groups[0]["lr"] for o in one.optimisers] == [5e-4, 5e-4]
    assert any(not torch.equal(p, q) for p, q in zip(one.weights, before, strict=True))
    for p, q, average in zip(one.weights, before, one.averaged, strict=True):
        assert torch.allclose(average, q + 0.25 * (p - q), atol=1e-6)
    loss, bpp, *rest = one.sums.tolist()
    assert loss > 0 and bpp > 0 and rest[3:] == [1, 1, 1] and all(5 < psnr < 60 for psnr in rest[:3])
    one(64, 3, False, 0.5, 0.25)
    assert one.sums[5:].tolist() == [2, 2, 2] and one.sums[0] > loss


def test_learning_rate_of_nothing_moves_nothing():
    one = stepper()
    before = [p.detach().clone() for p in one.weights]
    one(64, 2, False, 0.0, 1.0)
    assert all(torch.equal(p, q) for p, q in zip(one.weights, before, strict=True))


def test_what_is_seen_is_counted_by_thirds_of_the_qualities():
    quality = torch.tensor([1.0, 34.0, 34.5, 67.0, 67.5, 100.0])
    mse = 10.0 ** -torch.arange(1.0, 7.0)  # 10, 20 ... 60 dB
    parts = {"loss": torch.tensor(2.0), "bpp": torch.arange(6.0), "mse": mse}
    assert seen(parts, quality).tolist() == pytest.approx([2.0, 2.5, 30, 70, 110, 2, 2, 2], rel=1e-5)


def test_qualities_rise_one_from_each_stratum():
    q = draw_qualities(4)
    assert (q.diff() > 0).all() and 1 <= q[0] <= 26 and 75 <= q[3] <= 100
