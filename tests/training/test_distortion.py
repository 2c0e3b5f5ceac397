"""What errors are counted by: each measure alone is what it says, and shares of them are their sum."""

import numpy as np
import pytest
import torch
from conftest import textured

from ckbd.evaluation import ssimulacra
from ckbd.training import distortion, options
from ckbd.training.distortion import Shares
from ckbd.training.similarity import ms_ssim
from ckbd.training.steps import loss_of

POWER = 0.6276336467831387  # of a distance in a score


def tensor(*pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def noisy(picture, size, seed=0):
    noise = np.random.default_rng(seed).normal(0, size, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("height, width", [(128, 192), (131, 250), (113, 113)])
@pytest.mark.parametrize("size", [1, 6, 40])
def test_ssimulacra2_is_the_metric_s_with_gradients(height, width, size):
    pairs = [(a := textured(height, width, n), noisy(a, size, n)) for n in range(2)]
    x, x_hat = (tensor(*one) for one in zip(*pairs, strict=True))
    x_hat.requires_grad_()
    found = distortion.ssimulacra2(x_hat, x)
    for d, pair in zip(found.tolist(), pairs, strict=True):
        assert 100 - 10 * d**POWER == pytest.approx(ssimulacra.ssimulacra2(*pair), abs=0.01)
    found.sum().backward()
    assert x_hat.grad.isfinite().all() and x_hat.grad.abs().max() > 0


def test_equal_pictures_are_at_no_distance_and_pull_at_nothing():
    x = tensor(textured(128, 128), np.zeros((128, 128, 3), np.uint8))
    x_hat = x.clone().requires_grad_()
    found = distortion.ssimulacra2(x_hat, x)
    found.sum().backward()
    assert found.abs().max() < 1e-3 and x_hat.grad.isfinite().all()


def test_a_step_against_the_gradient_makes_a_better_score():
    picture = textured(160, 160)
    x, x_hat = tensor(picture), tensor(noisy(picture, 20)).requires_grad_()
    before = distortion.ssimulacra2(x_hat, x).sum()
    before.backward()
    with torch.no_grad():
        step = 0.02 * x_hat.grad / x_hat.grad.abs().max()
        after = distortion.ssimulacra2((x_hat - step).clamp(0, 1), x)
    assert after.item() < 0.99 * before.item()


@pytest.mark.parametrize("height, width", [(192, 192), (161, 205)])
def test_ms_ssim_is_the_package_s(height, width):
    package = pytest.importorskip("pytorch_msssim")
    x = tensor(*(textured(height, width, n) for n in range(2)))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for size in (0.0, 0.02, 0.3):
        a, b = ((x + size * noise).clamp(0, 1).requires_grad_() for _ in range(2))
        got, want = ms_ssim(a, x), package.ms_ssim(b, x, data_range=1.0, size_average=False)
        assert torch.allclose(got, want, atol=2e-6)
        got.sum().backward()
        want.sum().backward()
        assert torch.allclose(a.grad, b.grad, atol=1e-3 * b.grad.abs().max().item() + 1e-7)


def test_ms_ssim_of_a_negative_has_a_slope_that_is_a_number():
    x = tensor(textured(192, 192))
    a = (1 - x).requires_grad_()
    ms_ssim(a, x).sum().backward()
    assert a.grad.isfinite().all()


def test_errors_are_counted_in_the_shares_that_are_asked_for():
    x = tensor(*(textured(192, 192, n) for n in range(2)))
    x_hat = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    bits, lmbda = torch.tensor([5000.0, 9000.0]), torch.tensor([0.001, 0.1])

    def loss(shares, x_hat=x_hat):
        parts = loss_of({"x_hat": x_hat, "bits_y": bits, "bits_z": 0 * bits}, x, lmbda, shares, 0.01)
        assert torch.equal(parts["bpp"], bits / 192**2)
        return parts["loss"]

    mse = 255**2 * (x_hat - x).square().mean((1, 2, 3))
    similarity = distortion.MS_SSIM_SCALE * (1 - ms_ssim(x_hat, x))
    seen = distortion.SSIMULACRA2_SCALE * distortion.ssimulacra2(x_hat, x)
    for w, v in ((0.0, 0.0), (0.25, 0.0), (1.0, 0.0), (0.0, 1.0), (0.25, 0.6)):
        errors = (1 - w - v) * mse + w * similarity + v * seen
        want = ((bits / 192**2 + lmbda * errors) * (0.01 / lmbda).sqrt()).mean()
        assert loss(Shares(w, v)).item() == pytest.approx(want.item(), rel=1e-5)
    half = Shares(0.3, 0.3)  # as autocast leaves x_hat
    assert loss(half, x_hat.bfloat16()).item() == pytest.approx(loss(half).item(), rel=0.02)


@pytest.mark.parametrize(
    "more, shares",
    [
        ("", Shares()),
        ("--metric mse", Shares()),
        ("--metric ms-ssim", Shares(1)),
        ("--ms-ssim-share 0.3", Shares(0.3)),
        ("--ssimulacra2-share 0.4", Shares(0, 0.4)),
        ("--ms-ssim-share 0.3 --ssimulacra2-share 0.7", Shares(0.3, 0.7)),
    ],
)
def test_shares_as_they_are_asked_for(more, shares):
    args = options.parser().parse_args(["--data", "d", "--out", "o", *more.split()])
    assert options.shares_of(args) == shares
    assert shares.mse == pytest.approx(1 - shares.ms_ssim - shares.ssimulacra2)
