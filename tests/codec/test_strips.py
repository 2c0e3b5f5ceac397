"""Networks over strips: what the whole network gives, in memory that does not grow with the picture."""

import numpy as np
import pytest
import torch
from conftest import TINY, textured, tiny_model
from torch import nn

import ckbd
from ckbd.codec import batches, image
from ckbd.codec.machine import Team, in_turn
from ckbd.codec.networks import strips
from ckbd.codec.networks.strips import Extent, extent
from ckbd.codec.zone import carriers, integers
from ckbd.kernels import reference
from ckbd.model.model import ExactLayers
from ckbd.model.transforms import Analysis, Block, Synthesis
from ckbd.papers import file as variantfile
from ckbd.papers.minnen import MinnenAnalysis, MinnenSynthesis
from ckbd.papers.variant import Variant, VariantConfig

pytestmark = pytest.mark.usefixtures("one_thread", "eight_bits")

NETWORKS = {
    "analysis": (lambda: Analysis(66, 16, 2, 1), 3, 16),
    "synthesis": (lambda: Synthesis(66, 16, 3, 2), 16, 1),
    "no blocks": (lambda: Synthesis(66, 8, 0, 0), 8, 1),
    "minnen analysis": (lambda: MinnenAnalysis(8, 12), 3, 16),
    "minnen synthesis": (lambda: MinnenSynthesis(8, 12), 12, 1),
}


def network(name: str) -> nn.Module:
    """Weights spread so that every layer has its say in the result, of size about 1."""
    torch.manual_seed(0)
    made = NETWORKS[name][0]().eval().requires_grad_(False)
    for block in (m for m in made.modules() if isinstance(m, Block)):
        block.depthwise.weight.normal_(0, 0.4)
        block.reduce.weight.mul_(20)
        block.reduce.bias.normal_(0, 0.2)
    if isinstance(made, Analysis):  # latents are in the steps that they are rounded to
        made.out.weight.mul_(1 / 16)
    return made.to(memory_format=torch.channels_last)


def pieces(x: torch.Tensor, dim: int, size: int):
    return (x.narrow(dim, n, min(size, x.shape[dim] - n)) for n in range(0, x.shape[dim], size))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("h, w", [(1, 1), (2, 9), (11, 3), (7, 8)])
def test_strips_give_what_the_whole_network_gives(name, h, w):
    made, (_, channels, unit) = network(name), NETWORKS[name]
    x = torch.randn(2, channels, unit * h, unit * w)
    with torch.inference_mode():
        want = made(x)
        assert want.std() > 0.01
        for dim in (2, 3):
            for size in (1, 2, 3, 5, 100):
                got = list(strips.through(made.stages(), pieces(x, dim, unit * size), dim))
                assert torch.allclose(torch.cat(got, dim), want, rtol=0, atol=1e-5), (dim, size)
                assert len(got) > 1 or size > 1 or x.shape[dim] // unit < 5


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("h, w", [(1, 1), (2, 9), (11, 3), (7, 8)])
def test_bands_of_strips_do_too_whoever_works_on_them(name, h, w):
    made, (_, channels, unit) = network(name), NETWORKS[name]
    x = torch.randn(2, channels, unit * h, unit * w)
    with torch.inference_mode():
        want = made(x)
        for dim in (2, 3):
            for size in (2, 5, 100):
                for bands in (2, 3, 8):
                    plain, shared = (
                        torch.cat(
                            list(strips.through(made.stages(), pieces(x, dim, unit * size), dim, bands, each)), dim
                        )
                        for each in (in_turn, Team(3))
                    )
                    assert torch.allclose(plain, want, rtol=0, atol=1e-5), (dim, size, bands)
                    assert torch.equal(plain, shared), "threads change nothing"


@pytest.mark.parametrize("name", ["analysis", "synthesis", "minnen analysis", "minnen synthesis"])
def test_a_band_that_sees_too_little_shows(name, monkeypatch):
    """The comparison above can fail, at the inner edges."""
    made, (_, channels, unit) = network(name), NETWORKS[name]
    x = torch.randn(1, channels, 12 * unit, 2 * unit)
    chains = strips._chains
    monkeypatch.setattr(
        strips, "_chains", lambda stages: [c._replace(extent=c.extent._replace(reach=0)) for c in chains(stages)]
    )
    with torch.inference_mode():
        assert torch.allclose(torch.cat(list(strips.through(made.stages(), [x], 2)), 2), made(x), atol=1e-5)
        got = torch.cat(list(strips.through(made.stages(), [x], 2, 4)), 2)
        assert (got - made(x)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["analysis", "synthesis", "minnen synthesis"])
def test_a_reach_that_is_too_short_shows(name, monkeypatch):
    """The comparison above can fail, at the inner edges."""
    made, (_, channels, unit) = network(name), NETWORKS[name]
    x = torch.randn(1, channels, 12 * unit, 2 * unit)
    real = extent
    monkeypatch.setattr(strips, "extent", lambda stage: real(stage)._replace(reach=0))
    with torch.inference_mode():
        got = torch.cat(list(strips.through(made.stages(), pieces(x, 2, 4 * unit), 2)), 2)
        assert (got - made(x)).abs().max() > 1e-3


def test_a_block_computes_a_part_as_it_computes_the_whole():
    block, x = network("synthesis").blocks8[0], torch.randn(1, 66, 9, 7)
    for dim, start, length in ((2, 0, 9), (2, 3, 2), (3, 6, 1)):
        assert torch.allclose(block.part(x, dim, start, length), block(x).narrow(dim, start, length), atol=1e-6)


def test_blocks_train_as_they_run():
    """In inference the activation works in place; with gradients it must not, and the values are the same."""
    block, x = Block(66), torch.randn(1, 66, 5, 5, requires_grad=True)
    out = block(x)
    out.sum().backward()
    assert x.grad.abs().sum() > 0
    with torch.inference_mode():
        assert torch.equal(block(x), out)


@pytest.mark.parametrize(
    "stage, want",
    [
        (nn.Conv2d(4, 4, 1), Extent(0, 1, 1)),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), Extent(1, 1, 1)),
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2), Extent(2, 1, 1)),
        (nn.Conv2d(4, 4, 2, stride=2), Extent(0, 2, 1)),
        (nn.Conv2d(4, 4, 5, stride=2, padding=2), Extent(2, 2, 1)),
        (nn.ConvTranspose2d(4, 4, 5, stride=2, padding=2, output_padding=1), Extent(1, 1, 2)),
        (nn.PixelShuffle(2), Extent(0, 1, 2)),
        (nn.PixelUnshuffle(8), Extent(0, 8, 1)),
        (nn.LeakyReLU(), Extent(0, 1, 1)),
        (Block(66), Extent(1, 1, 1)),
        (nn.Sequential(Block(66), nn.Sequential(Block(66), nn.Conv2d(66, 66, 5, padding=2))), Extent(4, 1, 1)),
    ],
    ids=str,
)
def test_extents_come_from_the_layers(stage, want):
    assert extent(stage) == want


@pytest.mark.parametrize(
    "stage, error, message",
    [
        (nn.Conv2d(4, 4, 3), ValueError, "expected zero padding that keeps the size"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), ValueError, "expected zero padding"),
        (nn.Conv2d(4, 4, (3, 1), padding=(1, 0)), ValueError, "expected the same kernel down and across"),
        (nn.ConvTranspose2d(4, 4, 5, stride=2, padding=2), ValueError, "expected zero padding"),
        (nn.AdaptiveAvgPool2d(1), TypeError, "stage AdaptiveAvgPool2d: how far it reaches is not known"),
        (nn.Sequential(nn.PixelShuffle(2), nn.ReLU()), TypeError, "stage Sequential: how far"),
    ],
    ids=str,
)
def test_what_cannot_go_in_strips_is_refused(stage, error, message):
    with pytest.raises(error, match=message):
        extent(stage)


@pytest.mark.parametrize(
    "height, width, pixels, want",
    [
        (64, 64, 1, (2, [(0, 64)])),
        (640, 64, 1 << 14, (2, [(0, 256), (256, 512), (512, 640)])),
        (64, 640, 1 << 14, (3, [(0, 256), (256, 512), (512, 640)])),
        (192, 256, 1 << 14, (2, [(0, 64), (64, 128), (128, 192)])),
        (512, 768, 1 << 19, (2, [(0, 512)])),
    ],
)
def test_plans(height, width, pixels, want):
    assert strips.plan(height, width, pixels, 64) == want


def largest(codec, work) -> int:
    """The most values that any layer of g_a or g_s was given while work ran."""
    seen = [0]

    def look(module, args):
        seen[0] = max(seen[0], args[0].numel())

    layers = [m for part in (codec.model.g_a, codec.model.g_s) for m in part.modules() if not list(m.children())]
    hooks = [m.register_forward_pre_hook(look) for m in layers]
    work()
    for hook in hooks:
        hook.remove()
    return seen[0]


@pytest.mark.parametrize("tall", [True, False])
def test_layers_never_see_more_than_a_strip(tiny, monkeypatch, tall):
    monkeypatch.setitem(batches.MAX_BATCH_PIXELS, "cpu", 1 << 14)
    most = []
    for length in (512, 2048):
        x = textured(length, 100) if tall else textured(100, length)
        most.append(largest(tiny, lambda x=x: tiny.decode(tiny.encode([x]))))
    # What `reduce` is given at 1/8 of a strip of 2^14 pixels, and of four rows of 64 that waited before.
    assert max(most) <= 2 * TINY.width * (256 + 4 * 64)
    monkeypatch.setitem(batches.MAX_BATCH_PIXELS, "cpu", 1 << 30)
    monkeypatch.setattr(strips, "BAND", 1 << 30)
    assert largest(tiny, lambda: tiny.decode(tiny.encode([x]))) > 8 * max(most)


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """A small variant with the transforms of Minnen et al."""
    torch.manual_seed(0)
    small = {k: getattr(TINY, k) for k in ("width", "M", "Nz", "hyper", "h_s", "psi", "H1", "H2")}
    path = tmp_path_factory.mktemp("variant") / "v.safetensors"
    variantfile.save(Variant(VariantConfig(**small, context="checkerboard", transform="minnen2018")), path)
    return ckbd.load(path)


@pytest.mark.parametrize("height, width", [(1, 1), (65, 700), (700, 65), (330, 260)])
@pytest.mark.parametrize("kind", ["tiny", "papers"])
def test_strips_change_a_picture_by_rounding_only(request, kind, monkeypatch, height, width):
    codec = request.getfixturevalue(kind)
    pictures = [ckbd.Picture(textured(height, width)), image.from_array(textured(height, width)[..., 0])]
    streams = codec.encode(pictures, quality=60)
    with torch.inference_mode():
        want_y = codec.encoder.features(pictures)
    want, latents = codec.decode_pictures(streams), codec.decode_latents(streams)
    monkeypatch.setitem(batches.MAX_BATCH_PIXELS, "cpu", 1 << 13)
    with torch.inference_mode():
        assert torch.allclose(
            codec.encoder.features(pictures), want_y, rtol=0, atol=1e-5 * max(1, float(want_y.abs().max()))
        )
    for a, b, picture in zip(codec.decode_pictures(streams), want, pictures, strict=True):
        assert a.rgb.shape == b.rgb.shape == (height, width, 3) and a.gray == picture.gray
        assert np.abs(a.rgb.astype(int) - b.rgb).max() <= 1
        assert (a.rgb != b.rgb).mean() < 1e-3
    for a, b in zip(codec.decode_latents(streams), latents, strict=True):
        assert np.array_equal(a, b)
    assert [p.rgb.shape for p in codec.decode_pictures(codec.encode(pictures))] == [(height, width, 3)] * 2


@pytest.mark.parametrize("kind", [carriers, integers], ids=["carriers", "integers"])
def test_stripes_of_the_exact_zone_change_nothing(tiny_path, monkeypatch, kind):
    tiny = ckbd.load(tiny_path, backend="torch" if kind is carriers else "integers")
    pictures = [ckbd.Picture(textured(200, 330, seed)) for seed in (1, 2)]
    symbols, streams = tiny.encoder.symbols(pictures, [20, 80]), tiny.encode(pictures, [20, 80])
    latents = tiny.decode_latents(streams)
    for sites in (1, 50):
        monkeypatch.setattr(kind, "SITES", sites)
        monkeypatch.setattr(integers, "ALONE", 0)
        for (z, phases), (want_z, want) in zip(tiny.encoder.symbols(pictures, [20, 80]), symbols, strict=True):
            assert np.array_equal(z, want_z)
            for pair, want_pair in zip(phases, want, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(pair, want_pair, strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(tiny.decode_latents(streams), latents, strict=True))


def test_the_exact_zone_gathers_no_more_than_its_stripe(monkeypatch):
    """Columns of neighbours are the widest thing in the zone: twelve times M a site."""
    widest = []
    real = reference.context_columns
    monkeypatch.setattr(reference, "context_columns", lambda *a: widest.append(real(*a)) or widest[-1])
    layers = ExactLayers((n, layer) for n, layer in tiny_model().exact.integers().items())
    made = carriers.Carriers(layers, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        state = made.begin(torch.zeros(1, 20, 10, TINY.Nz), torch.tensor([50]))
        for p in (0, 1):
            made.assemble(state, p, torch.zeros(made.phase(state, p).shape, dtype=torch.int16))
    assert len(widest) > 2
    assert max(c.shape[1] * c.shape[2] for c in widest) <= carriers.SITES
