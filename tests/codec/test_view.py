"""Regions and smaller pictures: what they are of the whole one, whatever made it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import GROUPED, TINY, textured, tiny_model
from safetensors import safe_open
from safetensors.torch import save_file
from view_cases import with_preview

import ckbd
from ckbd.codec import batches, image
from ckbd.codec.networks import ends, strips
from ckbd.codec.view import SHRINKS, View, shrink_of, shrunk, view
from ckbd.model import file as modelfile
from ckbd.model.transforms import Pixels, Synthesis
from ckbd.papers import file as variantfile
from ckbd.papers.variant import Variant, VariantConfig

pytestmark = pytest.mark.usefixtures("one_thread", "eight_bits")
SIZE = HEIGHT, WIDTH = 131, 203
# At every border and across blocks, latents and patches; a pixel; the whole.
REGIONS = [
    (0, 0, WIDTH, HEIGHT),
    (0, 0, 1, 1),
    (WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT),
    (0, HEIGHT - 1, WIDTH, HEIGHT),
    (WIDTH - 1, 0, WIDTH, HEIGHT),
    (63, 64, 65, 66),
    (16, 16, 32, 48),
    (17, 0, 90, 131),
    (0, 33, 203, 100),
    (100, 71, 101, 120),
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory, tiny_path):
    folder = tmp_path_factory.mktemp("view")
    torch.manual_seed(0)
    modelfile.save(tiny_model(2, GROUPED), folder / "grouped.safetensors")
    small = {k: getattr(TINY, k) for k in ("width", "M", "Nz", "hyper", "h_s", "psi", "H1", "H2")}
    variant = Variant(VariantConfig(**small, context="checkerboard", transform="minnen2018"))
    variantfile.save(variant, folder / "minnen.safetensors")
    with_preview(tiny_path, folder / "preview.safetensors")
    return {"tiny": tiny_path} | {path.stem: path for path in folder.iterdir()}


@pytest.fixture(params=["tiny", "grouped", "minnen", "preview"])
def codec(request, paths):
    return ckbd.load(paths[request.param], threads=1, precision="float32")


@pytest.fixture(scope="module")
def pictures():
    """In colour, in gray, and with transparency."""
    alpha = np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)
    rgb = textured(*SIZE)
    return [ckbd.Picture(rgb), image.from_array(rgb[..., 0]), ckbd.Picture(rgb, alpha, xmp=b"<x/>")]


def near(a, b, share=5e-3):
    """Pixels within one of each other, all but a share of them equal."""
    assert a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1 and (a != b).mean() < share


def test_a_region_is_the_cut_of_the_whole(codec, pictures):
    streams = codec.encode(pictures, [20, 60, 90])
    whole = codec.decode_pictures(streams)
    for region in REGIONS:
        left, top, right, bottom = region
        for got, want in zip(codec.decode_pictures(streams, region=region), whole, strict=True):
            near(got.rgb, want.rgb[top:bottom, left:right])
            assert got.gray == want.gray and got.xmp == want.xmp
            alpha = None if want.alpha is None else want.alpha[top:bottom, left:right]
            assert (got.alpha is None) == (alpha is None) and (alpha is None or np.array_equal(got.alpha, alpha))
            assert not got.gray or (got.rgb == got.rgb[..., :1]).all()


def test_a_transparent_picture_may_have_an_opaque_region(tiny):
    alpha = np.full((64, 80), 255, np.uint8)
    alpha[:10] = 7
    (stream,) = tiny.encode([ckbd.Picture(textured(64, 80), alpha)])
    top, rest = (tiny.decode([stream], region=(0, t, 80, b))[0] for t, b in ((0, 20), (10, 64)))
    assert (top.mode, rest.mode) == ("RGBA", "RGB")


@pytest.mark.parametrize("name", ["tiny", "grouped", "minnen"])
@pytest.mark.parametrize("height, width", [(131, 203), (128, 192), (1, 1), (7, 300)])
def test_a_smaller_picture_is_made_of_means(paths, name, height, width):
    """Of the whole picture, where nothing in it is beyond black and white; at its edges of what there is of it."""
    codec = ckbd.load(paths[name], threads=1, precision="float32")
    rgb = 100 + textured(height, width) // 5
    streams = codec.encode([rgb, rgb[..., 0], ckbd.Picture(rgb, rgb[..., 1])], 90)
    whole = codec.decode_pictures(streams)
    if name != "minnen":  # which has not learnt to paint
        assert all(0 < one.rgb.min() and one.rgb.max() < 255 and one.rgb.std() >= 3 * (height > 1) for one in whole)
    for shrink in SHRINKS:
        for got, want in zip(codec.decode_pictures(streams, scale=1 / shrink), whole, strict=True):
            near(got.rgb, shrunk(want.rgb, shrink), 0.25)  # these are means of pixels that were rounded already
            assert got.gray == want.gray
            assert want.alpha is None or np.array_equal(got.alpha, shrunk(want.alpha, shrink))


def test_a_region_of_a_smaller_picture_is_its_cut(codec, pictures):
    streams = codec.encode(pictures[:2], 60)
    for shrink in SHRINKS:
        whole = codec.decode_pictures(streams, scale=1 / shrink)
        for region in REGIONS:
            left, top, right, bottom = region
            some = codec.decode_pictures(streams, region=region, scale=Fraction(1, shrink))
            for got, want in zip(some, whole, strict=True):
                near(got.rgb, want.rgb[top // shrink : -(-bottom // shrink), left // shrink : -(-right // shrink)])


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_ends_are_means_of_what_the_network_paints(shrink):
    torch.manual_seed(0)
    network = Synthesis(66, 16, 1, 1).eval().requires_grad_(False)
    last, x = network.pixels, torch.randn(2, 66, 4, 6)
    want = torch.nn.functional.avg_pool2d(Pixels()(last(x)), shrink)
    got = torch.nn.Sequential(*ends.means(last, shrink))(x)
    assert got.shape == want.shape and torch.allclose(got, want, atol=1e-5)


def test_a_preview_is_its_layer_and_its_means():
    """At 1/4 the layer of the model file, at 1/8 the means of that; at 1/2 it has nothing to give."""
    torch.manual_seed(0)
    weight, bias, y = torch.randn(48, 16, 3, 3), torch.randn(48), torch.randn(1, 16, 5, 3)
    want = torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(y, weight, bias, padding=1), 4) + 0.5
    for shrink in (4, 8):
        got = torch.nn.Sequential(*ends.preview(weight, bias, shrink))(y)
        wanted = torch.nn.functional.avg_pool2d(want, shrink // 4)
        assert got.shape == wanted.shape and torch.allclose(got, wanted, atol=1e-4)
    assert [ends.previewed(s) for s in SHRINKS] == [False, False, True, True]


@pytest.mark.parametrize("height, width", [(64, 700), (700, 64), (130, 900)])
def test_strips_and_bands_change_nothing(paths, monkeypatch, height, width):
    """As of pictures that are very wide: bands of strips may be one site across."""
    codec = ckbd.load(paths["preview"], threads=2, precision="float32")
    streams = codec.encode([textured(height, width)], 60)
    asked = [{"scale": s} for s in (1, 1 / 2, 1 / 4, 1 / 8)] + [{"region": (3, 5, width - 1, 60), "scale": 1 / 8}]
    want = [codec.decode_pictures(streams, **options)[0].rgb for options in asked]
    for pixels, band in ((1 << 10, 1 << 8), (1 << 13, 1 << 9)):
        monkeypatch.setitem(batches.MAX_BATCH_PIXELS, "cpu", pixels)
        monkeypatch.setattr(strips, "BAND", band)
        for options, rgb in zip(asked, want, strict=True):
            near(codec.decode_pictures(streams, **options)[0].rgb, rgb)


def test_a_preview_leaves_g_s_out(paths, monkeypatch):
    codec = ckbd.load(paths["preview"], threads=1, precision="float32")
    streams = codec.encode([textured(128, 192)])
    half = codec.decode_pictures(streams, scale=1 / 2)
    monkeypatch.setattr(codec.decoder.renderer, "stages", None)
    assert [codec.decode_pictures(streams, scale=s)[0].rgb.shape for s in (1 / 4, 1 / 8)] == [
        (32, 48, 3),
        (16, 24, 3),
    ]
    plain = ckbd.load(paths["tiny"], threads=1, precision="float32")
    near(plain.decode_pictures(streams, scale=1 / 2)[0].rgb, half[0].rgb)
    assert (
        plain.decode_pictures(streams, scale=1 / 8)[0].rgb != codec.decode_pictures(streams, scale=1 / 8)[0].rgb
    ).any()


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("preview.bias", None, "tensor preview.bias is missing"),
        ("preview.weight", torch.zeros(48, 8, 3, 3), r"tensor preview.weight: expected float32 \(48, 16, 3, 3\)"),
        ("preview.bias", torch.full((48,), torch.nan), "preview.bias holds values that are not finite"),
        ("preview.more", torch.zeros(1), "the config has no place for tensor preview.more"),
    ],
)
def test_a_preview_is_checked_as_all_of_a_model_file(paths, tmp_path, name, value, message):
    with safe_open(str(paths["preview"]), "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    tensors = {key: one for key, one in (tensors | {name: value}).items() if one is not None}
    save_file(tensors, tmp_path / "m.safetensors", metadata)
    with pytest.raises(ValueError, match=message):
        ckbd.load(tmp_path / "m.safetensors")


def test_shrunk_is_the_rounded_mean_of_what_there_is():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (5, 9), (16, 24, 3), (7, 1, 3), (90, 4000)):
        array = rng.integers(0, 256, shape).astype(np.uint8)
        for shrink in (2, 4, 8):
            got = shrunk(array, shrink)
            assert got.shape == (-(-shape[0] // shrink), -(-shape[1] // shrink), *shape[2:]) and got.dtype == np.uint8
            for i, j in zip(rng.integers(0, got.shape[0], 20), rng.integers(0, got.shape[1], 20), strict=True):
                square = array[i * shrink : (i + 1) * shrink, j * shrink : (j + 1) * shrink]
                mean = square.reshape(-1, *shape[2:]).mean(0)
                assert np.array_equal(got[i, j], np.floor(mean + 0.5))


@pytest.mark.parametrize(
    "region, message",
    [
        ((0, 0, WIDTH + 1, 5), f"right <= {WIDTH} and 0 <= top < bottom <= {HEIGHT} of this picture, got"),
        ((0, 0, 5, HEIGHT + 1), "region: expected 0 <= left"),
        ((-1, 0, 5, 5), "region: expected 0 <= left"),
        ((5, 5, 5, 9), "region: expected 0 <= left"),
        ((9, 9, 5, 12), "region: expected 0 <= left"),
        ((1 << 70, 0, 1 << 71, 4), "region: expected 0 <= left"),
        ((0, 0, 5), "region: expected .left, top, right, bottom., four integers"),
        ((0, 0, 5.5, 5), "four integers"),
        ("0,0,5,5", "four integers"),
        (7, "four integers"),
    ],
    ids=str,
)
def test_regions_that_will_not_do(tiny, pictures, region, message):
    streams = tiny.encode(pictures[:1])
    with pytest.raises(ValueError, match=message):
        tiny.decode(streams, region=region)


@pytest.mark.parametrize(
    "scale", [0, 2, 0.3, 1 / 16, -0.5, float("nan"), float("inf"), "1/2", None, True, 10**400, [0.5]]
)
def test_scales_that_will_not_do(tiny, scale):
    with pytest.raises(ValueError, match="scale: expected 1, 1/2, 1/4 or 1/8, got"):
        tiny.decode([], scale=scale)


def test_what_may_be_asked_for():
    assert view() == View() and view().whole and not view(scale=0.5).whole
    assert view(np.array([1, 2, 3, 4]), np.float32(0.25)) == View((1, 2, 3, 4), 4)
    assert [shrink_of(one) for one in (1, Fraction(1, 8), 0.25)] == [1, 8, 4]
    assert View((9, 15, 17, 16), 8).box(20, 20) == (1, 1, 3, 2)
    assert not View((0, 0, 20, 20)).whole


def test_a_region_must_be_in_every_picture_before_any_is_decoded(tiny, monkeypatch):
    streams = tiny.encode([textured(64, 80), textured(64, 40)])
    monkeypatch.setattr(tiny.decoder, "state", None)
    with pytest.raises(ValueError, match="right <= 40 and"):
        tiny.decode(streams, region=(0, 0, 60, 20))


def test_progress_goes_from_nothing_to_all(codec):
    pictures = [textured(200, 90), textured(64, 64), textured(90, 200), textured(64, 64)]
    said = []
    streams = codec.encode(pictures, progress=said.append)
    assert said == sorted(said) and said[-1] == pytest.approx(1) and said[0] > 0 and len(said) >= 4
    for options in ({}, {"scale": 1 / 8}, {"region": (3, 4, 50, 50)}, {"region": (3, 4, 50, 50), "scale": 1 / 2}):
        said = []
        codec.decode_pictures(streams, progress=said.append, **options)
        assert said == sorted(said) and said[-1] == pytest.approx(1) and said[0] > 0 and len(said) >= 4


def test_progress_counts_rows(tiny):
    """In strips, as of a large picture; what it raises ends the call."""
    said, picture = [], textured(2000, 600)
    streams = tiny.encode([picture], progress=said.append)
    assert len(said) > 4 and max(b - a for a, b in zip([0, *said], said, strict=False)) < 0.4
    with pytest.raises(KeyboardInterrupt):
        tiny.decode(streams, progress=lambda share: (_ for _ in ()).throw(KeyboardInterrupt))
