"""accelerate() of serial models: the same bits in "stock", the same sizes in "sparse" and "wavefront"."""

import pytest
import torch
from compat_models import SERIAL, inputs, model_of, nbytes, picture, same, there_and_back
from compressai.entropy_models import GaussianConditional
from compressai.latent_codecs import RasterScanLatentCodec
from compressai.layers import MaskedConv2d
from compressai.models.base import get_scale_table
from torch import nn

import ckbd.compat.compressai as cc


@pytest.fixture(autouse=True)
def no_grad_and_not_installed():
    with torch.no_grad():
        yield
    cc.uninstall()


@pytest.mark.parametrize("name", SERIAL)
@pytest.mark.parametrize("installed", [False, True], ids=["", "installed"])
def test_serial_models_stay_the_same(name, installed):
    model, x = model_of(name), picture(2, 64, 128)
    stock = model.compress(x)
    back = model.decompress(stock["strings"], stock["shape"])
    if installed:
        cc.install()
    cc.accelerate(model)
    same(model.compress(x), stock)
    same(model.decompress(stock["strings"], stock["shape"]), back)


@pytest.mark.parametrize("name", SERIAL)
@pytest.mark.parametrize("serial", ["sparse", "wavefront"])
def test_serial_models_with_sums_in_another_order(name, serial):
    model, x = model_of(name), picture(2, 64, 128)
    stock = model.compress(x)
    before = model.decompress(stock["strings"], stock["shape"])["x_hat"]
    cc.accelerate(model, serial=serial)
    out = model.compress(x)
    assert abs(nbytes(out["strings"]) - nbytes(stock["strings"])) <= 8
    x_hat = model.decompress(out["strings"], out["shape"])["x_hat"]
    assert (x_hat - before).abs().max() < 1e-3
    one = model.compress(x[1:])
    assert one["strings"][0][0] == out["strings"][0][1]


def raster(kernel=5, M=12, psi=20):
    """A raster-scan codec of one's own."""
    torch.manual_seed(0)
    model = GaussianConditional(get_scale_table().tolist())
    model.update()
    last = nn.Conv2d(40, 2 * M, 1)
    last.bias.copy_(torch.cat((torch.exp(torch.linspace(-1, 3, M)), torch.zeros(M))))
    return RasterScanLatentCodec(
        gaussian_conditional=model,
        entropy_parameters=nn.Sequential(nn.Conv2d(2 * M + psi, 40, 1), nn.ReLU(), last),
        context_prediction=MaskedConv2d(M, 2 * M, kernel, padding=kernel // 2),
    )


@pytest.mark.parametrize("serial", ["stock", "sparse", "wavefront"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_raster_scan_codecs(serial, kernel):
    own = raster(kernel)
    y, side = inputs(1, 5, 7)
    stock = there_and_back(own, y, side)
    cc.accelerate(own, serial=serial)
    out = there_and_back(own, y, side)
    if serial == "stock":
        same(out, stock)
    else:
        same(out[0]["y_hat"], out[1]["y_hat"])
        assert (out[0]["y_hat"] - stock[0]["y_hat"]).abs().max() < 1e-3
    two = inputs(2, 3, 4, seed=1)
    cc.restore(own)
    stock = own.compress(*two)
    cc.accelerate(own, serial="stock")
    same(own.compress(*two), stock)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (4, 2), (6, 3), (3, 4), (2, 5), (7, 8), (8, 16)], ids=str)
def test_wavefronts_of_any_size(size):
    own = raster()
    y, side = inputs(1, *size)
    stock = own.compress(y, side)
    cc.accelerate(own, serial="wavefront")
    out, back = there_and_back(own, y, side)
    same(out["y_hat"], back["y_hat"])
    # Each position has the context that it has in raster order, or its mean would be another.
    assert (out["y_hat"] - stock["y_hat"]).abs().max() < 1e-3
    assert abs(nbytes(out["strings"]) - nbytes(stock["strings"])) <= 8


def test_a_context_that_looks_ahead_has_no_wavefront():
    own = raster()
    own.context_prediction.mask[:, :, 3, 1] = 1
    with pytest.raises(ValueError, match="not causal"):
        cc.accelerate(own, serial="wavefront")
