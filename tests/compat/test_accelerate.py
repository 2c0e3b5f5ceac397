"""accelerate(): the same bits in "stock", the same sizes within 0.1 % in "fused", and models that stay models."""

import copy
import io
import pickle

import pytest
import torch
from compat_models import CHECKERBOARD, inputs, model_of, nbytes, outcome, picture, same, there_and_back
from compressai.latent_codecs import CheckerboardLatentCodec, GaussianConditionalLatentCodec
from compressai.layers import CheckerboardMaskedConv2d
from compressai.models.base import get_scale_table
from torch import nn

import ckbd.compat.compressai as cc
from ckbd.compat.compressai import checkerboard


@pytest.fixture(autouse=True)
def no_grad_and_not_installed():
    checkerboard._half_context._known.clear()
    with torch.no_grad():
        yield
    cc.uninstall()


def codec(parity="even", kernel=5, M=12, psi=20, act=nn.LeakyReLU, chunks=("scales", "means"), bias=True, **kwargs):
    """A checkerboard codec of one's own, with latents worth coding."""
    torch.manual_seed(0)
    inner = GaussianConditionalLatentCodec(scale_table=get_scale_table().tolist(), chunks=chunks, quantizer="ste")
    inner.gaussian_conditional.update()
    last = nn.Conv2d(40, 2 * M, 1)
    spread = torch.exp(torch.linspace(-1, 3, M))
    parts = {"scales": spread, "means": torch.zeros(M)}
    last.weight.mul_(torch.cat([spread, spread]).view(-1, 1, 1, 1))
    last.bias.copy_(torch.cat([parts[c] for c in chunks]))
    return CheckerboardLatentCodec(
        latent_codec={"y": inner},
        entropy_parameters=nn.Sequential(nn.Conv2d(2 * M + psi, 50, 1), act(), nn.Conv2d(50, 40, 1), act(), last),
        context_prediction=CheckerboardMaskedConv2d(M, 2 * M, kernel, padding=kernel // 2, bias=bias),
        anchor_parity=parity,
        **kwargs,
    ).eval()


# ---- stock


@pytest.mark.parametrize("name", CHECKERBOARD)
@pytest.mark.parametrize("installed", [False, True], ids=["", "installed"])
def test_models_write_the_same_bytes_and_read_the_same_pictures(name, installed):
    model, x = model_of(name), picture(2)
    stock = model.compress(x)
    picture_back = model.decompress(stock["strings"], stock["shape"])
    if installed:
        cc.install()
    assert cc.accelerate(model) is model
    for _ in range(4):  # dense, dense and compared, strided, strided
        same(model.compress(x), stock)
        same(model.decompress(stock["strings"], stock["shape"]), picture_back)


@pytest.mark.parametrize("parity", ["even", "odd"])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9])
@pytest.mark.parametrize("size", [(6, 8), (1, 2), (2, 2), (7, 10), (33, 4)], ids=str)
def test_stock_is_stock_for_any_parity_kernel_and_size(parity, kernel, size):
    own, (y, side) = codec(parity, kernel), inputs(2, *size)
    stock = there_and_back(own, y, side)
    cc.accelerate(own)
    for _ in range(3):
        same(there_and_back(own, y, side), stock)


def test_half_of_the_convolution_is_left_out_once_it_is_known_to_be_equal(monkeypatch):
    own, (y, side) = codec(), inputs()
    dense = []
    original = checkerboard.dense_context
    monkeypatch.setattr(checkerboard, "dense_context", lambda *a: dense.append(1) or original(*a))
    cc.accelerate(own)
    out, _ = there_and_back(own, y, side)
    assert len(dense) == 2 and set(checkerboard._half_context._known.values()) == {checkerboard.HalfContext.EQUAL}
    same(own.compress(y, side), out)
    assert len(dense) == 2


def test_where_the_strided_way_differs_the_dense_one_stays(monkeypatch):
    own, (y, side) = codec(), inputs()
    stock = there_and_back(own, y, side)
    strided = checkerboard.HalfContext._strided
    monkeypatch.setattr(checkerboard.HalfContext, "_strided", staticmethod(lambda *a: strided(*a) * (1 + 2**-23)))
    cc.accelerate(own)
    for _ in range(3):
        same(there_and_back(own, y, side), stock)
    assert set(checkerboard._half_context._known.values()) == {checkerboard.HalfContext.DIFFERENT}


@pytest.mark.parametrize("method", ["onepass", "twopass", "twopass_faster"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("parity", ["even", "odd"])
@pytest.mark.parametrize("parameters", ["stock", "fused"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_forward_and_its_gradients(method, training, parity, parameters, layout):
    def run(own):
        own.train(training)
        y, side = (t.contiguous(memory_format=layout).requires_grad_() for t in inputs())
        torch.manual_seed(5)
        with torch.enable_grad():
            out = own(y, side)
            (out["likelihoods"]["y"].log().sum() + out["y_hat"].square().sum()).backward()
        return out, y.grad, side.grad, {n: p.grad for n, p in own.named_parameters()}

    want = run(codec(parity, forward_method=method))
    same(run(cc.accelerate(codec(parity, forward_method=method), parameters)), want)


def test_codecs_with_other_parts_keep_them():
    class Inner(GaussianConditionalLatentCodec):
        def compress(self, y, params):
            return super().compress(y + 1, params)

    own, (y, side) = codec(), inputs()
    inner = Inner(scale_table=get_scale_table().tolist())
    inner.gaussian_conditional.update()
    own.y = own.latent_codec["y"] = inner
    own.context_prediction = nn.Sequential(own.context_prediction, nn.Tanh())
    stock = there_and_back(own, y, side)
    cc.accelerate(own)
    same(there_and_back(own, y, side), stock)


def test_odd_widths_raise_as_in_stock():
    own, (y, side) = codec(), inputs(w=7)
    stock = outcome(lambda: own.compress(y, side))
    assert stock[1] is not None
    cc.accelerate(own)
    assert outcome(lambda: own.compress(y, side)) == stock
    strings = [[b""] * 2] * 2
    stock = outcome(lambda: cc.restore(own).decompress(strings, y.shape[1:], side))
    assert outcome(lambda: cc.accelerate(own).decompress(strings, y.shape[1:], side)) == stock


def test_width_1_on_which_stock_crashes_is_refused():
    own, (y, side) = cc.accelerate(codec()), inputs(w=1)
    with pytest.raises(ValueError, match="width"):
        own.compress(y, side)
    with pytest.raises(ValueError, match="width"):
        own.decompress([[b""] * 2] * 2, (12, 6, 1), side)


# ---- fused


@pytest.mark.parametrize("name", CHECKERBOARD)
def test_fused_sizes_and_pictures_are_those_of_stock(name):
    model, x = model_of(name), picture(2, 192, 256)
    stock = model.compress(x)
    before = model.decompress(stock["strings"], stock["shape"])["x_hat"]
    cc.install()
    cc.accelerate(model, "fused")
    out = model.compress(x)
    assert abs(nbytes(out["strings"]) / nbytes(stock["strings"]) - 1) < 1e-3
    same(out["shape"], stock["shape"])
    x_hat = model.decompress(out["strings"], out["shape"])["x_hat"]
    assert (x_hat - before).abs().max() < 1e-3


@pytest.mark.parametrize("parity", ["even", "odd"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("act", [nn.LeakyReLU, nn.ReLU])
@pytest.mark.parametrize("chunks", [("scales", "means"), ("means", "scales")], ids=["", "means first"])
@pytest.mark.parametrize("bias", [True, False], ids=["", "no bias"])
def test_fused_for_any_parity_kernel_activation_and_order(parity, kernel, act, chunks, bias):
    own, (y, side) = codec(parity, kernel, act=act, chunks=chunks, bias=bias), inputs()
    stock, back = there_and_back(own, y, side)
    cc.accelerate(own, "fused")
    out, fused_back = there_and_back(own, y, side)
    assert out["shape"] == stock["shape"] and [len(s) for s in out["strings"]] == [2, 2]
    same(out["y_hat"].contiguous(), fused_back["y_hat"].contiguous())
    # A mean a rounding error away may put a symbol on the other side of 1/2, and its latent up to 1 away from there.
    assert ((out["y_hat"] - back["y_hat"]).abs() > 1e-3).float().mean() < 1e-3
    assert abs(nbytes(out["strings"]) - nbytes(stock["strings"])) <= 8


@pytest.mark.parametrize("width", [1, 3, 9])
@pytest.mark.parametrize("parity", ["even", "odd"])
def test_fused_takes_odd_widths(width, parity):
    own, (y, side) = cc.accelerate(codec(parity), "fused"), inputs(w=width, h=5)
    out, back = there_and_back(own, y, side)
    assert torch.equal(out["y_hat"], back["y_hat"])
    assert (out["y_hat"] - y).abs().max() <= 0.5001  # every site is coded


def test_fused_streams_do_not_depend_on_the_batch_or_the_threads():
    own, (y, side) = cc.accelerate(codec(), "fused"), inputs(5, 12, 14)
    whole = own.compress(y, side)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            for i in range(5):
                one = own.compress(y[i : i + 1], side[i : i + 1])
                assert one["strings"] == [[s[i]] for s in whole["strings"]]
    finally:
        torch.set_num_threads(threads)


def test_fused_notices_changed_weights():
    own, (y, side) = codec(), inputs()
    cc.accelerate(own, "fused")
    first = own.compress(y, side)["strings"]
    changes = [
        lambda: own.entropy_parameters[2].weight.data.mul_(1.5),  # no version counter sees this
        lambda: own.context_prediction.weight.mul_(0.5),
        lambda: setattr(own.entropy_parameters[0], "bias", nn.Parameter(torch.ones(50))),
    ]
    seen = [first]
    for change in changes:
        change()
        strings = own.compress(y, side)["strings"]
        assert strings == cc.accelerate(copy.deepcopy(own), "fused").compress(y, side)["strings"]
        assert strings not in seen
        seen.append(strings)
    own.load_state_dict(codec().state_dict())
    assert own.compress(y, side)["strings"] == first


def test_fused_in_other_dtypes():
    own, (y, side) = cc.accelerate(codec(), "fused"), inputs()
    out, back = there_and_back(own, y.double(), side.double())
    assert out["y_hat"].dtype == back["y_hat"].dtype == torch.float64
    assert torch.equal(out["y_hat"], back["y_hat"])


def test_fused_refuses_what_does_not_fit():
    own, (y, side) = cc.accelerate(codec(), "fused"), inputs()
    strings = own.compress(y, side)["strings"]
    for call, error in (
        (lambda: own.decompress(strings, (12, 6, 6), side), ValueError),
        (lambda: own.decompress(strings, (11, 6, 8), side), ValueError),
        (lambda: own.decompress([s[:1] for s in strings], (12, 6, 8), side), ValueError),
        (lambda: own.decompress(strings[:1], (12, 6, 8), side), AssertionError),
        (lambda: own.decompress([[b""] * 2] * 2, (12, 6, 8), side), ValueError),
        (lambda: own.compress(y, side[:, :5]), ValueError),
    ):
        with pytest.raises(error):
            call()


# ---- models stay models

SETTINGS = [{}, {"parameters": "fused", "serial": "sparse"}, {"serial": "wavefront"}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["cheng2020-anchor-checkerboard", "elic2022-official", "mbt2018"])
def test_copies_pickles_and_state(name, settings):
    model, x = model_of(name), picture(1, 64, 128)
    text, state = repr(model), {k: v.clone() for k, v in model.state_dict().items()}
    cc.accelerate(model, **settings)
    assert repr(model) == text
    same(dict(model.state_dict()), state)
    strings = model.compress(x)["strings"]
    same(list(model.state_dict()), list(state))
    others = [copy.deepcopy(model), model.to("cpu")]
    if name != "elic2022-official":  # has classes that cannot be pickled
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        others += [pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]
    for other in others:
        assert [type(m) for m in other.modules()] == [type(m) for m in model.modules()]
        assert other.compress(x)["strings"] == strings
    plain = cc.restore(model)
    assert [type(m).__mro__ for m in plain.modules()] == [type(m).__mro__ for m in model_of(name).modules()]
    cc.accelerate(plain, **settings)
    assert plain.compress(x)["strings"] == strings


def test_settings_can_be_changed():
    own, (y, side) = codec(), inputs()
    stock = there_and_back(own, y, side)
    cc.accelerate(own, "fused")
    cc.accelerate(own, "stock")
    same(there_and_back(own, y, side), stock)
    assert isinstance(own, CheckerboardLatentCodec)


class Derived(CheckerboardLatentCodec):
    """A user's class that overrides nothing that matters."""


class Overriding(CheckerboardLatentCodec):
    def decompress(self, *args, **kwargs):
        return super().decompress(*args, **kwargs)


def test_derived_classes():
    own, (y, side) = codec(), inputs()
    stock = there_and_back(own, y, side)
    own.__class__ = Derived
    cc.accelerate(own)
    same(there_and_back(own, y, side), stock)
    same(there_and_back(pickle.loads(pickle.dumps(own)), y, side), stock)
    assert type(cc.restore(own)) is Derived
    own.__class__ = Overriding
    with pytest.raises(ValueError, match="Overriding.*decompress of its own"):
        cc.accelerate(own)


def test_what_cannot_be_had_is_refused_and_nothing_changes():
    own = codec()
    own.entropy_parameters[1] = nn.GELU()
    with pytest.raises(ValueError, match="GELU"):
        cc.accelerate(own, "fused")
    assert type(own) is CheckerboardLatentCodec
    with pytest.raises(ValueError, match="kernel 3, 5 or 7"):
        cc.accelerate(codec(kernel=9), "fused")
    with pytest.raises(ValueError, match="holds nothing"):
        cc.accelerate(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="parameters: expected"):
        cc.accelerate(codec(), "fast")
    with pytest.raises(ValueError, match="serial: expected"):
        cc.accelerate(codec(), serial="fast")
    with pytest.raises(TypeError, match="Module"):
        cc.accelerate("model")
    model = model_of("cheng2020-anchor-checkerboard")
    model.latent_codec["y"].entropy_parameters.append(nn.Conv2d(64, 64, 1))
    with pytest.raises(ValueError, match="latent_codec.y"):
        cc.accelerate(model, "fused")
