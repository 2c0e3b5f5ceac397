"""g_a and g_s as they run on a CPU: the layers of ckbd.model.transforms, near enough that no picture shows it."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from conftest import textured
from torch import nn

import ckbd
from ckbd.codec import image
from ckbd.codec.machine import Team
from ckbd.codec.networks import floats, strips, tensors
from ckbd.codec.networks.extents import extent
from ckbd.codec.networks.floats import Mixed, Paint
from ckbd.codec.networks.windows import Extent
from ckbd.kernels import products
from ckbd.model.transforms import Block, Pixels, Pointwise, Synthesis

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
BOTH = [
    torch.float32,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(not products.gain(torch.bfloat16), reason="no products in bfloat16 here"),
    ),
]


def drawn(*shape, seed=0, scale=1.0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return x.to(memory_format=torch.channels_last)


@pytest.fixture
def block():
    torch.manual_seed(3)
    made = Block(66)
    with torch.no_grad():
        made.reduce.weight.mul_(20)  # as much as comes in
        made.reduce.bias.normal_()
    return made


def near(got, want, dtype):
    """Sums in another order; bfloat16 has eight bits, of what is added alone."""
    assert got.dtype == torch.float32 and got.shape == want.shape
    error = (got - want).abs().max() / want.abs().max()
    assert error < (1e-5 if dtype == torch.float32 else 2e-2), error
    assert dtype == torch.float32 or error > 1e-5, "it did run in bfloat16"


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("dim, start, length", [(2, 0, 9), (2, 3, 4), (2, 8, 1), (3, 0, 7), (3, 2, 3), (3, 6, 1)])
@torch.inference_mode()
def test_a_block_and_its_parts(block, dtype, dim, start, length):
    x, made = drawn(2, 66, 9, 7), Mixed(block, dtype)
    want = block.part(x, dim, start, length)
    near(made.part(x, dim, start, length), want, dtype)
    whole = drawn(2, 66, 12, 12, seed=9)
    before, out = whole.clone(), whole.narrow(dim, 1, length).narrow(5 - dim, 2, want.shape[5 - dim])
    made.into(x, dim, start, length, out)
    near(out, want, dtype)
    before.narrow(dim, 1, length).narrow(5 - dim, 2, want.shape[5 - dim]).copy_(out)
    assert torch.equal(whole, before), "nothing beside it was written"
    assert extent(made) == extent(block) == Extent(1, 1, 1)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@torch.inference_mode()
def test_a_block_over_strips_and_bands_of_any_number(block, dtype):
    x, stages = drawn(1, 66, 40, 6), floats.stages([block, copy.deepcopy(block)], dtype)
    want = stages[1](stages[0](x))
    for bands, threads in ((1, 1), (4, 1), (4, 2)):
        parts = list(strips.through(stages, iter(x.split(13, 2)), 2, bands, Team(threads)))
        torch.testing.assert_close(torch.cat(parts, 2), want, rtol=0, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("side", [1, 2, 4, 8])
@pytest.mark.parametrize("make", [Pointwise, partial(nn.Conv2d, kernel_size=3, padding=1)], ids=["sites", "around"])
@pytest.mark.parametrize("gray", [[False], [True], [True, False]])
@torch.inference_mode()
def test_painting_is_the_shuffle_and_the_rounding(gray, make, side):
    torch.manual_seed(1)
    layer, x = make(66, 3 * side**2), drawn(len(gray), 66, 15, 13, scale=0.5)
    want = Pixels(side)(layer(x))
    *before, paint = floats.painted(layer, side)
    assert len(before) == (make is not Pointwise)
    got = paint.of(gray)(before[0](x) if before else x)
    assert got.dtype == torch.uint8 and got.is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(tensors.from_tensor(got.float() / 255, gray), tensors.from_tensor(want, gray), strict=True):
        assert len(np.unique(a.rgb)) > 50
        assert np.abs(a.rgb.astype(int) - b.rgb).max() <= 1 and (a.rgb != b.rgb).mean() < 1e-3
    assert extent(paint) == Extent(0, 1, side)


def test_only_what_ends_in_pixels_is_painted():
    stages = floats.stages(Synthesis(66, 8, 1, 0).stages(), torch.float32)
    assert [type(s) for s in stages] == [Pointwise, Pointwise, nn.PixelShuffle, Mixed, Paint]
    for other in ([nn.Identity(), Pixels()], [Pointwise(3, 192), nn.PixelShuffle(8)], [Pixels()]):
        assert floats.stages(other, torch.float32) == other


def test_precision_is_what_pays_here_unless_it_is_said(monkeypatch, tiny_path):
    for gain, want in ((0.35, torch.float32), (1.9, torch.bfloat16), (0.0, torch.float32)):
        monkeypatch.setattr(products, "gain", lambda dtype, gain=gain: gain)
        assert floats.dtype_of("auto", CPU) == want
        assert floats.dtype_of("float32", CPU) == torch.float32
        assert floats.dtype_of("bfloat16", CPU) == torch.bfloat16
    assert floats.dtype_of("auto", torch.device("cuda")) == torch.float32
    with pytest.raises(ValueError, match="precision: 'bfloat16' is for a CPU; device meta takes 'auto'"):
        floats.dtype_of("bfloat16", torch.device("meta"))
    with pytest.raises(ValueError, match="precision: expected one of auto, float32, bfloat16, got 'half'"):
        ckbd.load(tiny_path, precision="half")
    codec = ckbd.load(tiny_path, precision="float32")
    assert codec.decoder.renderer.stages[1].dtype == codec.encoder.g_a[2].dtype == torch.float32


def test_a_processor_without_bfloat16_gains_nothing(monkeypatch):
    def missing(x, *rest):
        if x.dtype == torch.bfloat16:
            raise RuntimeError("could not create a primitive descriptor")

    products.gain.cache_clear()
    monkeypatch.setattr(products, "linear", missing)
    try:
        assert products.gain(torch.bfloat16) == 0
    finally:
        products.gain.cache_clear()


@pytest.mark.skipif(not products.gain(torch.bfloat16), reason="no products in bfloat16 here")
@pytest.mark.parametrize("quality", [10, 50, 90])
def test_nobody_sees_bfloat16(quality):
    """The shipped model: 0.01 dB at the most. What an encoder makes of it is another stream, as good."""
    plain, codec = (ckbd.load(precision=precision) for precision in ("float32", "bfloat16"))
    picture = textured(192, 256)
    (stream,), (other,) = plain.encode([picture], quality), codec.encode([picture], quality)
    want = image.psnr(plain.decode_pictures([stream])[0].rgb, picture)
    assert other != stream, "g_a ran in bfloat16, too"
    got, again = codec.decode_pictures([stream])[0], plain.decode_pictures([other])[0]
    assert abs(image.psnr(got.rgb, picture) - want) < 0.01
    assert abs(image.psnr(again.rgb, picture) - want) < 0.05 and abs(len(other) / len(stream) - 1) < 5e-3
    assert np.array_equal(codec.decode_latents([stream])[0], plain.decode_latents([stream])[0])
