"""install(): the same bytes, values, dtypes, strides and errors as CompressAI's own methods, and a way back."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import textwrap

import compressai.ans
import pytest
import torch
from compat_models import WIDTHS, agree, gaussian, latents, model_of, picture, same
from compressai.entropy_models.entropy_models import EntropyModel, _EntropyCoder
from compressai.registry import MODELS

import ckbd.compat.compressai as cc
from ckbd.compat.compressai import ans, entropy, methods, patch

STOCK = {name: getattr(compressai.ans, name) for name in ("RansEncoder", "RansDecoder", "BufferedRansEncoder")}


@pytest.fixture(autouse=True)
def away():
    yield
    cc.uninstall()


# ---- names


def test_every_name_of_the_coder_is_rebound_and_given_back():
    from compressai import _CXX
    from compressai.entropy_models import entropy_models
    from compressai.latent_codecs import rasterscan
    from compressai.models import google, vbr

    places = [
        (module, name)
        for module in (compressai.ans, google, rasterscan, vbr)
        for name in STOCK
        if hasattr(module, name)
    ]
    assert len(places) == 9
    cc.install()
    for module, name in places:
        assert getattr(module, name) is getattr(patch, name)
    assert _CXX.pmf_to_quantized_cdf is entropy_models._pmf_to_quantized_cdf is patch.pmf_to_quantized_cdf
    cc.uninstall()
    for module, name in places:
        assert getattr(module, name) is STOCK[name]
    assert _CXX.pmf_to_quantized_cdf is entropy_models._pmf_to_quantized_cdf is not patch.pmf_to_quantized_cdf


def test_the_methods_go_back_too():
    before = {key: getattr(*key) for key in methods.REPLACEMENT}
    cc.install()
    assert all(getattr(*key) is not method for key, method in before.items())
    cc.uninstall()
    assert all(getattr(*key) is method for key, method in before.items())


def test_twice_is_once():
    assert not cc.installed()
    cc.install()
    cc.install()
    assert cc.installed()
    cc.uninstall()
    assert not cc.installed() and EntropyModel.compress is entropy.ORIGINAL[EntropyModel, "compress"]
    cc.uninstall()


def test_modules_that_bound_the_names_before_and_after(tmp_path, monkeypatch):
    (tmp_path / "bound_before.py").write_text("from compressai.ans import RansDecoder as Theirs\n")
    (tmp_path / "bound_after.py").write_text("from compressai.ans import RansDecoder as Theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    import bound_before

    cc.install()
    import bound_after

    assert bound_before.Theirs is bound_after.Theirs is patch.RansDecoder
    cc.uninstall()
    assert bound_before.Theirs is bound_after.Theirs is STOCK["RansDecoder"]


def test_who_has_ckbds_coder_by_choice_keeps_it(tmp_path, monkeypatch):
    (tmp_path / "chosen.py").write_text("from ckbd.compat.compressai.ans import RansDecoder, pmf_to_quantized_cdf\n")
    monkeypatch.syspath_prepend(tmp_path)
    import chosen

    cc.install()
    cc.uninstall()
    assert chosen.RansDecoder is ans.RansDecoder and chosen.pmf_to_quantized_cdf is ans.pmf_to_quantized_cdf


def test_models_alive_change_their_coder_and_change_it_back():
    before = gaussian()
    cc.install()
    after = gaussian()
    for model in (before, after, copy.deepcopy(before), pickle.loads(pickle.dumps(before))):
        assert type(model.entropy_coder._encoder) is patch.RansEncoder
        assert type(model.entropy_coder._decoder) is patch.RansDecoder
    cc.uninstall()
    for model in (before, after, copy.deepcopy(after)):
        assert type(model.entropy_coder._encoder) is STOCK["RansEncoder"]
    assert not any(
        type(o._decoder) is patch.RansDecoder for o in gc.get_objects() if issubclass(type(o), _EntropyCoder)
    )


def test_a_pickle_made_under_it_loads_where_ckbd_is_not_imported(tmp_path):
    cc.install()
    model = gaussian()
    inputs, scales, means = latents()
    strings = model.compress(inputs, model.build_indexes(scales), means)
    torch.save({"model": model, "scales": scales, "means": means, "strings": strings}, tmp_path / "m.pt")
    script = textwrap.dedent(
        """
        import sys, torch
        from bench.rivals.compressai import import_compressai
        import_compressai()
        d = torch.load(sys.argv[1], weights_only=False)
        y = d["model"].decompress(d["strings"], d["model"].build_indexes(d["scales"]), means=d["means"])
        assert not any(name.startswith("ckbd") for name in sys.modules)
        torch.save(y, sys.argv[2])
        """
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "m.pt", tmp_path / "y.pt"], check=True)
    y_hat = model.decompress(strings, model.build_indexes(scales), means=means)
    assert torch.equal(torch.load(tmp_path / "y.pt"), y_hat)


# ---- whole models


@pytest.mark.parametrize("name", WIDTHS)
@torch.no_grad()
def test_models_write_and_read_the_same(name):
    model, x = model_of(name), picture(2 if "checkerboard" in name or "mean" in name else 1)

    def run():
        out = model.compress(x)
        return out, model.decompress(**{k: out[k] for k in ("strings", "shape")})

    agree(run)


@pytest.mark.parametrize("name", ["bmshj2018-hyperprior-vbr", "mbt2018-mean-vbr", "mbt2018-vbr"])
@torch.no_grad()
def test_variable_rate_models(name):
    torch.manual_seed(0)
    model = MODELS[name](32, 48).eval()
    model.update(force=True)
    x = picture(1, 64, 64)

    def run():
        out = model.compress(x, stage=2, s=2)
        return out, model.decompress(out["strings"], out["shape"], stage=2, s=2)

    agree(run)


@torch.no_grad()
def test_streams_cross_over_and_threads_do_not_matter():
    model, x = model_of("cheng2020-anchor-checkerboard"), picture(4)
    stock = model.compress(x)
    decoded = model.decompress(stock["strings"], stock["shape"])
    threads = torch.get_num_threads()
    cc.install()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            model.latent_codec["hyper"].entropy_bottleneck.compress(torch.randn(4, 32, 2, 3))
            indexes = torch.randint(0, 64, (4, 8, 5, 5), dtype=torch.int32)
            coder = model.latent_codec["y"].latent_codec["y"].gaussian_conditional
            symbols = torch.randn(4, 8, 5, 5) * 3
            strings = coder.compress(symbols, indexes)
            assert [coder.compress(s[None], i[None])[0] for s, i in zip(symbols, indexes, strict=True)] == strings
    finally:
        torch.set_num_threads(threads)
    same(model.decompress(stock["strings"], stock["shape"]), decoded)


def test_state_dict_and_training_are_not_touched():
    model = model_of("mbt2018-mean")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cc.install()
    same(dict(model.state_dict()), before)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    model.train()
    torch.manual_seed(3)
    loss = sum(p.log().sum() for p in model(picture(1))["likelihoods"].values())
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    cc.uninstall()
    other = model_of("mbt2018-mean").train()
    torch.manual_seed(3)
    sum(p.log().sum() for p in other(picture(1))["likelihoods"].values()).backward()
    same(grads, {n: p.grad for n, p in other.named_parameters() if p.grad is not None})
