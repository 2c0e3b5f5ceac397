"""What a caller sets in PyTorch and NumPy, for the thread or the process, reaches nothing that a codec gives."""

import os
import random
import runpy
import signal
import warnings
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import textured
from torch.overrides import BaseTorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import ckbd
from ckbd.codec import deadzone, zone
from ckbd.codec.decoder import Decoder
from ckbd.codec.encoder import Encoder
from ckbd.codec.networks.painting import Painter, Reader
from ckbd.kernels import products, reference
from ckbd.kernels.lattice import Lattice, tile_table
from ckbd.papers import scan
from ckbd.papers.context import NAMED
from ckbd.pipeline.lanes import Lane
from ckbd.pipeline.pixels import Form

CPU, mkldnn = torch.device("cpu"), torch.backends.mkldnn
pytestmark = pytest.mark.usefixtures("eight_bits")
GOLDEN = Path(__file__).parents[1] / "golden"
# Of the first, a default dtype of fewer bits once changed what weighing bits against error chooses.
IMAGES, QUALITIES = [textured(67, 90, 22), textured(20, 30)[..., 0]], [90, 40]
FLOATS = [torch.from_numpy(IMAGES[0]).permute(2, 0, 1) / 255, torch.from_numpy(IMAGES[1]) / 255]


@contextmanager
def changed(change, value, before):
    """What lasts until it is set again."""
    change(value)
    try:
        yield
    finally:
        change(before)


@contextmanager
def warnings_as_errors():
    with warnings.catch_warnings(), changed(torch.set_warn_always, True, False):
        warnings.simplefilter("error")
        yield


SETTINGS = {
    "device": lambda: torch.device("meta"),
    "set_default_device": lambda: changed(torch.set_default_device, "meta", None),
    "float64": lambda: changed(torch.set_default_dtype, torch.float64, torch.float32),
    "float16": lambda: changed(torch.set_default_dtype, torch.float16, torch.float32),
    "bfloat16": lambda: changed(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "autocast_bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast_float16": lambda: torch.autocast("cpu", torch.float16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "deterministic": lambda: changed(torch.use_deterministic_algorithms, True, False),  # and torch.empty gives NaN
    "flush_denormal": lambda: changed(torch.set_flush_denormal, True, False),
    "threads": lambda: changed(torch.set_num_threads, 3, torch.get_num_threads()),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "function_mode": BaseTorchFunctionMode,
    "dispatch_mode": lambda: FlopCounterMode(display=False),
    "numpy_errors": lambda: np.errstate(all="raise"),
    "warnings": warnings_as_errors,
}
# What reaches the process's oneDNN, and there is no way round it: floats may be others, latents are not.
ONEDNN = {
    "high": lambda: changed(torch.set_float32_matmul_precision, "high", "highest"),
    "medium": lambda: changed(torch.set_float32_matmul_precision, "medium", "highest"),
    "off": lambda: mkldnn.flags(enabled=False),
}


@contextmanager
def all_but(*names):
    with ExitStack() as stack:
        for name in (one for one in SETTINGS if one not in names):
            stack.enter_context(SETTINGS[name]())
        yield


# In each other's way: in PyTorch 2.6 a default device inside of another.
APART = ["set_default_device"] if torch.__version__.startswith("2.6.") else []
TOGETHER = {  # without those that are slow, or in each other's way
    "all_and_float64": lambda: all_but("float16", "bfloat16", "dispatch_mode", "warnings", *APART),
    "all_and_bfloat16": lambda: all_but("float16", "float64", "dispatch_mode", "warnings", *APART),
}


def rebuilt(path, exact, painted=False):
    """The codec of a model with another exact zone; painted: its networks are the kernels' twins."""
    codec = ckbd.load(path)
    model, options = codec.model, {"device": codec.device, "team": codec.team, "max_pixels": codec.decoder.max_pixels}
    parts = model, exact(model.layers), codec.decoder.tables
    reader, painter = (kind(model, codec.device, "torch") if painted else None for kind in (Reader, Painter))
    encoder, decoder = Encoder(*parts, reader=reader, **options), Decoder(*parts, painter=painter, **options)
    return ckbd.Codec(encoder, decoder, codec.team, codec.device)


KINDS = {
    "auto": lambda path: ckbd.load(path, threads=2),
    "bfloat16": lambda path: ckbd.load(path, precision="bfloat16"),
    "narrow": lambda path: rebuilt(path, lambda layers: zone.Integers(layers, reach=products.NARROW)),
    "float32": lambda path: ckbd.load(path, backend="torch", carrier=torch.float32),
    "float64": lambda path: ckbd.load(path, backend="torch", carrier=torch.float64),
    "twins": lambda path: rebuilt(path, lambda layers: zone.Kernels(layers, CPU, backend="torch"), painted=True),
    "mixture": lambda path: ckbd.load(GOLDEN / "variant_mixture.safetensors"),
    "raster": lambda path: ckbd.load(GOLDEN / "variant_raster.safetensors"),
}


def given(codec, streams):
    """Everything that a codec gives: of these streams, and of IMAGES."""
    yield from codec.encode(IMAGES, QUALITIES) + codec.encode_at(IMAGES[0], QUALITIES)
    yield from codec.estimate(FLOATS, QUALITIES) + [stream for _, stream in codec.encode_iter(FLOATS, QUALITIES)]
    yield from (x.tobytes() for x in codec.decode_latents(streams) + codec.decode(streams))
    tensors = codec.decode_tensors(streams) + [x for _, x in codec.decode_iter(streams, dtype=torch.float32)]
    if isinstance(codec.decoder, Decoder) and codec.decoder.painter is None:
        tensors += codec.decode_tensors(streams, half=True)
    for x in tensors:
        yield str(x.dtype), x.device.type, x.is_inference(), x.requires_grad, x.numpy().tobytes()


@pytest.fixture(scope="module")
def kinds(tiny_path, one_thread):
    """Of each: how to load it, a codec, streams of its own, and all that it gives without any setting."""

    @cache
    def one(kind):
        codec = KINDS[kind](tiny_path)
        streams = codec.encode(IMAGES, QUALITIES)
        return lambda: KINDS[kind](tiny_path), codec, streams, list(given(codec, streams))

    return one


@pytest.mark.parametrize("kind, setting", [*product(("auto", "mixture"), SETTINGS), *product(KINDS, TOGETHER)])
def test_what_a_caller_sets_changes_nothing(kinds, kind, setting):
    """Set after a codec was loaded, and before another is, whether or not it is still set when that one works."""
    load, codec, streams, want = kinds(kind)
    with (SETTINGS | TOGETHER)[setting]():
        assert list(given(codec, streams)) == want
        other = load()
    assert list(given(other, streams)) == want


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("setting", ONEDNN)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_caller_sets_of_onednn_changes_no_latent(kinds, kind, setting):
    load, codec, streams, _ = kinds(kind)
    want = codec.decode_latents(streams)
    with ONEDNN[setting]():
        assert all(map(np.array_equal, codec.decode_latents(streams) + load().decode_latents(streams), want + want))


@pytest.mark.parametrize("kind", KINDS)
def test_products_in_bfloat16_change_no_latent(kinds, kind, monkeypatch):
    """What fp32_precision allows a library, also where this processor has no units for it."""
    (_, codec, streams, _), called = kinds(kind), []
    want = codec.decode_latents(streams)

    def rounding(real):
        def call(x, weight, *rest):
            called.append(real)
            return real(x.bfloat16().to(x.dtype), weight.bfloat16().to(x.dtype), *rest)

        return call

    monkeypatch.setattr(products, "_onednn", products._onednn and rounding(products._onednn))
    monkeypatch.setattr(torch.nn.functional, "linear", rounding(torch.nn.functional.linear))
    assert all(map(np.array_equal, codec.decode_latents(streams), want))
    assert called or isinstance(codec.decoder.zone, zone.Integers)


def test_products_that_are_no_longer_exact_are_noticed_where_a_setting_could_do_that(kinds, monkeypatch):
    """TF32 on a GPU with carrier float32, which here is played by a product that loses the last bits of its sums."""
    load, codec, streams, _ = kinds("float32")
    assert not codec.decoder.zone.wary, "on a CPU no setting does"
    wary = load()
    wary.decoder.zone.wary = True
    want = codec.decode_latents(streams)
    assert all(map(np.array_equal, wary.decode_latents(streams), want))
    real = reference.linear
    monkeypatch.setattr(reference, "linear", lambda *args: real(*args).bfloat16().to(args[0].dtype))
    with pytest.raises(ValueError, match="are not exact, streams would not decode"):
        wary.decode_latents(streams)


@pytest.mark.parametrize("setting", ["device", "autocast_bfloat16", "no_grad", "inference_mode", "dispatch_mode"])
def test_iterators_are_begun_in_one_setting_and_go_on_in_another(tiny, setting):
    coded = tiny.encode(FLOATS, QUALITIES)
    want = tiny.decode_tensors(coded)
    for begin, then in ((setting, None), (None, setting)):
        with SETTINGS[begin]() if begin else nullcontext():
            decoding, encoding = tiny.decode_iter(coded, batch_count=1), tiny.encode_iter(FLOATS, QUALITIES)
            pixels, streams = [next(decoding)[1]], [next(encoding)[1]]
        with SETTINGS[then]() if then else nullcontext():
            pixels, streams = pixels + [x for _, x in decoding], streams + [stream for _, stream in encoding]
        assert all(map(torch.equal, pixels, want)) and streams == coded


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
def test_gradients_may_need_what_is_given_and_go_through_a_models_networks(tiny_path, mode):
    with mode():
        codec = ckbd.load(tiny_path)
        tensors = codec.decode_tensors(codec.encode(IMAGES), dtype=torch.float32)
    y = torch.ones(1, len(codec.model.log_gain[0]), 4, 4, requires_grad=True)
    (codec.model.g_s(y).sum() + sum(x.requires_grad_().square().sum() for x in tensors)).backward()
    assert all(torch.equal(x.grad, 2 * x.detach()) for x in tensors) and y.grad.abs().sum() > 0


def test_what_a_gpu_is_told_and_what_is_made_at_import_knows_no_setting():
    """What tests above cannot reach, since threads of ours have no default device, and a CPU runs no launch."""
    x, lattice, sizes = torch.rand(2, 3, 8, 8), Lattice(((3, 5), (8, 2))), [(67, 90)]
    want = tile_table(lattice, 4, False, CPU), Form().pixels(x, [True, False]), deadzone.shares(sizes, 8, 8)
    tile_table.cache_clear()
    with SETTINGS["device"](), SETTINGS["float64"]():
        got = tile_table(lattice, 4, False, CPU), Form().pixels(x, [True, False]), deadzone.shares(sizes, 8, 8)
        assert Lane(CPU).host("r", 4, torch.int8).device == NAMED["raster"].phase_map(2, 3).device == CPU
        assert NAMED["none"].live(2, 3).device == CPU and NAMED["none"].live(2, 3).dtype == torch.float32
        assert np.array_equal(runpy.run_path(scan.__file__)["COMPANDED"], scan.COMPANDED)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(got, want, strict=True))


def state():
    """What a caller may have set, and would miss."""
    yield from (torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.empty(0).device)
    yield from (torch.get_num_threads(), torch.get_float32_matmul_precision(), mkldnn.enabled)
    yield from (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    yield from (torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled())
    yield from (str(np.random.get_state()), random.getstate(), np.geterr(), list(warnings.filters), dict(os.environ))
    yield [signal.getsignal(number) for number in signal.valid_signals()]


@pytest.mark.parametrize("setting", [None, *TOGETHER, "threads"])
def test_what_a_caller_has_set_stays_as_it_is(tiny_path, setting):
    with (SETTINGS | TOGETHER).get(setting, nullcontext)():
        before = list(state())
        for path in (tiny_path, GOLDEN / "variant_mixture.safetensors"):
            codec = ckbd.load(path, threads=5)
            streams = [stream for _, stream in codec.encode_iter(IMAGES)] + codec.encode(IMAGES)
            assert codec.decode(streams) and list(codec.decode_iter(streams)) and list(state()) == before


def test_how_pixels_lie_in_memory_changes_nothing(tiny):
    rgb, chw = IMAGES[0], torch.from_numpy(IMAGES[0]).permute(2, 0, 1)
    arrays = rgb[::-1].copy()[::-1], rgb[:, ::-1].copy()[:, ::-1], rgb[..., ::-1].copy()[..., ::-1]
    arrays += np.asfortranarray(rgb), np.repeat(rgb, 2, 0)[::2], np.ascontiguousarray(rgb.T).T
    tensors = chw, chw.contiguous(), chw.repeat_interleave(2, 2)[..., ::2], torch.nn.Parameter(chw / 255)
    want = tiny.encode([rgb], 40)
    for image in (*arrays, *tensors, chw[None].contiguous(memory_format=torch.channels_last)[0].half() / 255):
        assert tiny.encode([image], 40) == tiny.encode_at(image, [40]) == want
        assert [stream for _, stream in tiny.encode_iter([image], 40)] == want
    (pixels,) = tiny.decode_tensors(want)
    for out in (torch.zeros_like(pixels).mT.contiguous().mT, pixels.repeat(1, 2, 2)[:, ::2, ::2]):
        assert tiny.decode_tensors(want, out=[out])[0] is out and torch.equal(out, pixels)
