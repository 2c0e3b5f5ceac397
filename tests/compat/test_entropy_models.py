"""The entropy models under install(): the same bytes, values, dtypes, strides and errors as CompressAI's methods."""

import pytest
import torch
from compat_models import agree, both, gaussian, latents, same
from compressai.entropy_models import EntropyBottleneck, EntropyBottleneckVbr, GaussianConditional
from compressai.entropy_models.entropy_models import GaussianMixtureConditional
from compressai.models.base import get_scale_table

import ckbd.compat.compressai as cc


@pytest.fixture(autouse=True)
def away():
    yield
    cc.uninstall()


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
