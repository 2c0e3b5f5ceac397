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
from compressai.entropy_models import EntropyBottleneck, EntropyBottleneckVbr, GaussianConditional
from compressai.entropy_models.entropy_models import EntropyModel, GaussianMixtureConditional, _EntropyCoder
from compressai.models.base import get_scale_table
from compressai.registry import MODELS
from models import WIDTHS, model_of, outcome, picture, same

import ckbd.compat.compressai as cc
from ckbd.compat.compressai import ans, entropy, patch

STOCK = {name: getattr(compressai.ans, name) for name in ("RansEncoder", "RansDecoder", "BufferedRansEncoder")}


@pytest.fixture(autouse=True)
def away():
    yield
    cc.uninstall()


def both(call):
    """The outcome of a call without and with install()."""
    cc.uninstall()
    stock = outcome(call)
    cc.install()
    fast = outcome(call)
    cc.uninstall()
    return stock, fast


def agree(call):
    """Asserts that a call returns, and the same; returns it."""
    stock, fast = both(call)
    assert stock[1] is None and fast[1] is None, (stock[1], fast[1])
    same(stock[0], fast[0])
    return fast[0]


def gaussian(**kwargs) -> GaussianConditional:
    model = GaussianConditional(get_scale_table().tolist(), **kwargs)
    model.update()
    return model


def latents(shape=(2, 6, 5, 7), seed=0):
    """(inputs, scales, means) float32."""
    g = torch.Generator().manual_seed(seed)
    scales = torch.exp(torch.empty(shape).uniform_(-3, 4, generator=g))
    means = 5 * torch.randn(shape, generator=g)
    return scales * torch.randn(shape, generator=g) + means, scales, means


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
    methods = {key: getattr(*key) for key in entropy.REPLACEMENT}
    cc.install()
    assert all(getattr(*key) is not method for key, method in methods.items())
    cc.uninstall()
    assert all(getattr(*key) is method for key, method in methods.items())


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
        from bench.compressai_models import import_compressai
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


# ---- entropy models


@pytest.mark.parametrize("shape", [(1, 3), (3, 5), (2, 6, 5, 7), (1, 4, 1, 1), (2, 2, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("with_means", [False, True], ids=["", "means"])
def test_gaussian_conditional(shape, with_means):
    inputs, scales, means = latents(shape)
    model = gaussian()
    means = means if with_means else None

    def run():
        indexes = model.build_indexes(scales)
        strings = model.compress(inputs, indexes, means)
        return indexes, strings, model.decompress(strings, indexes, means=means)

    agree(run)


@pytest.mark.parametrize("transform", ["channels_last", "transposed", "strided", "half", "double", "grad"])
def test_inputs_of_other_layouts_and_dtypes(transform):
    inputs, scales, means = latents((2, 6, 8, 8))
    change = {
        "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "transposed": lambda t: t.transpose(2, 3),
        "strided": lambda t: t[:, ::2, 1::3],
        "half": torch.Tensor.half,
        "double": torch.Tensor.double,
        "grad": lambda t: t.clone().requires_grad_(),
    }[transform]
    inputs, scales, means = map(change, (inputs, scales, means))
    model = gaussian()

    def run():
        indexes = model.build_indexes(scales)
        strings = model.compress(inputs, indexes, means)
        return indexes, strings, model.decompress(strings, indexes, inputs.dtype, means).detach()

    agree(run)


def test_means_that_broadcast():
    inputs, scales, _ = latents((2, 6, 5, 7))
    means = torch.randn(2, 6, 1, 1)
    model = gaussian()

    def run():
        indexes = model.build_indexes(scales)
        strings = model.compress(inputs, indexes, means)
        return strings, model.decompress(strings, indexes, means=means)

    agree(run)


@pytest.mark.parametrize("values", ["nan", "inf", "huge"])
def test_scales_and_latents_that_are_no_numbers(values):
    inputs, scales, means = latents((1, 4, 4, 4))
    model = gaussian()
    scales[0, 0, 0] = {"nan": torch.nan, "inf": torch.inf, "huge": 1e30}[values]
    scales[0, 1, 0] = -scales[0, 0, 0]
    agree(lambda: model.build_indexes(scales))
    if values == "huge":
        inputs[0, 0, 0, 0], inputs[0, 1, 0, 0] = 1e6, -1e6  # escapes of many digits
        agree(lambda: model.compress(inputs, model.build_indexes(scales), means))


def test_what_would_hang_or_crash_raises():
    inputs, scales, means = latents((1, 4, 4, 4))
    model = gaussian()
    cc.install()
    indexes = model.build_indexes(scales)
    strings = model.compress(inputs, indexes, means)
    for bad in (torch.full_like(inputs, torch.nan), torch.full_like(inputs, 1e12)):
        with pytest.raises(ValueError, match="symbol"):
            model.compress(bad, indexes, means)
    for bad in (indexes + 64, indexes - 64):
        with pytest.raises(ValueError, match="index"):
            model.compress(inputs, bad, means)
    with pytest.raises(ValueError):
        model.decompress([strings[0][:12]], indexes, means=means)
    empty = torch.zeros(1, 0, 3, 3)
    assert model.compress(empty, empty.int()) == [bytes.fromhex("0000008000000000")]
    assert model.decompress(model.compress(empty, empty.int()), empty.int()).shape == empty.shape


def test_errors_are_compressais():
    inputs, scales, means = latents((2, 6, 5, 7))
    model, bare = gaussian(), GaussianConditional(None)
    indexes = model.build_indexes(scales)
    strings = model.compress(inputs, indexes, means)
    for call in (
        lambda: model.compress(inputs, indexes[:, :3], means),
        lambda: model.compress(inputs[0, 0, 0], indexes[0, 0, 0]),
        lambda: model.compress(inputs, indexes, means[:, :3]),
        lambda: bare.compress(inputs, indexes),
        lambda: bare.decompress(strings, indexes),
        lambda: model.decompress("not a list", indexes),
        lambda: model.decompress(strings[:1], indexes),
        lambda: model.decompress(strings, indexes, means=means[:1]),
        lambda: model.decompress(strings, indexes, means=means[:, :, :2]),
        lambda: model.decompress([b"", b""][:1], indexes[0, 0, 0, :1]),
        lambda: model.decompress([1, 2], indexes),
        lambda: model.decompress([None, None], indexes),
    ):
        stock, fast = both(call)
        assert stock[1] is not None and fast[1] is not None, stock
        assert fast[1][0] is stock[1][0]
        if "incompatible function arguments" not in stock[1][1]:
            assert fast[1] == stock[1]


def test_a_scale_table_without_entries_gives_indexes_all_the_same():
    agree(lambda: GaussianConditional(None).build_indexes(latents()[1]))


def test_tables_changed_in_place_are_noticed():
    inputs, scales, means = latents()
    model = gaussian()
    indexes = model.build_indexes(scales)
    cc.install()
    first = model.compress(inputs, indexes, means)
    with torch.no_grad():
        model._quantized_cdf.data[5, 1] += 1  # no version counter sees this
        model._offset.data += 1
    cc.uninstall()
    want = model.compress(inputs, indexes, means)
    cc.install()
    assert model.compress(inputs, indexes, means) == want != first
    y_hat = model.quantize(inputs, "symbols", means) + means
    same(model.decompress(want, indexes, means=means).round(), y_hat.round())
    model.update_scale_table(get_scale_table(0.2, 64, 32), force=True)
    again = model.build_indexes(scales)
    assert agree(lambda: model.compress(inputs, again, means)) != want


def test_scale_tables_of_other_kinds():
    _, scales, _ = latents()
    for table, bound in (([0.05, 0.5, 0.6, 9.0], 0.11), ([1.0], 0.11), ([0.5, 2.0], 3.0)):
        model = GaussianConditional(table, scale_bound=bound)
        agree(lambda model=model: model.build_indexes(scales))
    model = gaussian()
    model.scale_table = model.scale_table.flip(0)
    agree(lambda: model.build_indexes(scales))
    edges = gaussian().scale_table
    near = torch.cat([edges, torch.nextafter(edges, edges + 1), torch.nextafter(edges, edges - 1)])
    agree(lambda: gaussian().build_indexes(near))


@pytest.mark.parametrize("kind", [EntropyBottleneck, EntropyBottleneckVbr])
@pytest.mark.parametrize("spatial", [(), (3,), (4, 5), (2, 3, 2)], ids=str)
def test_bottlenecks(kind, spatial):
    torch.manual_seed(0)
    model = kind(6)
    model.update()
    x = 8 * torch.randn(3, 6, *spatial)

    def run():
        strings = model.compress(x)
        return strings, model.decompress(strings, x.shape[2:])

    agree(run)


def test_variable_rate_models_with_a_step():
    model = EntropyBottleneckVbr(6)
    model.update_variable(qs=torch.tensor(0.7))
    x, qs = 8 * torch.randn(2, 6, 4, 5), torch.tensor(0.7)

    def run():
        strings = model.compress(x, qs=qs)
        return strings, model.decompress(strings, x.shape[2:], qs=qs)

    agree(run)


def test_mixtures():
    torch.manual_seed(0)
    K, M = 3, 5
    model = GaussianMixtureConditional(K=K)
    y = 6 * torch.randn(1, M, 4, 6)
    y[:, 2] = 0  # a channel that is not coded
    scales, means = torch.rand(1, K * M, 4, 6) * 4, 6 * torch.randn(1, K * M, 4, 6)
    weights = torch.softmax(torch.randn(1, K, M, 4, 6), 1).flatten(1, 2)

    def run():
        (stream, abs_max, bitmap), y_q = model.compress(y, scales.clone(), means.clone(), weights)
        y_hat = model.decompress(stream, abs_max, bitmap, scales.clone(), means.clone(), weights)
        return stream, abs_max, bitmap, y_q, y_hat

    *_, y_q, y_hat = agree(run)
    assert torch.equal(y_q, y_hat)


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
