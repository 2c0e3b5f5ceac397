"""A codec whose g_a and g_s are those of ckbd.kernels.transforms, by their twins on a CPU: what lies around them."""

import numpy as np
import pytest
import torch
from conftest import SIZES, textured

import ckbd
from ckbd.codec import image
from ckbd.codec.networks import painting
from ckbd.codec.networks.painting import Painter
from ckbd.kernels.lattice import MAX_SIDE
from ckbd.pipeline import warm

pytest.importorskip("triton")
from bench.synthesis import in_kernels  # noqa: E402


@pytest.fixture(scope="module")
def painted(tiny):
    return in_kernels(tiny, torch.float16)


def apart(a, b):
    return int((torch.as_tensor(a).int() - torch.as_tensor(b).int()).abs().max())


def test_pictures_are_those_of_the_layers(painted, streams, want):
    found = painted.decode_pictures(streams)
    assert [p.rgb.shape for p in found] == [(h, w, 3) for h, w in SIZES]
    for p, rgb in zip(found, want, strict=True):
        assert apart(p.rgb, rgb) <= 2
    assert found[3].gray and (found[3].rgb == found[3].rgb[..., :1]).all()


def test_an_iterator_gives_the_same_pixels_as_decode(painted, streams):
    want = [torch.from_numpy(p.rgb) for p in painted.decode_pictures(streams)]
    for count in (1, 3, 64):
        for layout in ("CHW", "HWC"):
            found = [x for _, x in painted.decode_iter(streams, layout=layout, batch_count=count)]
            for x, rgb in zip(found, want, strict=True):
                # To the bit on a GPU; a CPU library's sums may differ with the batch.
                assert x.is_contiguous() and apart(x if layout == "HWC" else x.permute(1, 2, 0), rgb) <= 1


def test_all_sizes_go_through_the_kernels_at_once(painted, streams, monkeypatch):
    seen = []
    real = Painter.paint
    monkeypatch.setattr(Painter, "paint", lambda self, s, p: seen.append((self.dtype, p.sizes())) or real(self, s, p))
    painted.decode_tensors(streams)
    painted.decode_tensors(streams[:2], half=False)
    painted.decode_tensors(streams[:2], half=True)
    half, single = torch.float16, torch.float32
    assert seen == [(half, SIZES), (single, SIZES[:2]), (half, SIZES[:2])]


def test_in_float32_pixels_are_those_of_the_layers(painted, streams, want):
    for x, rgb in zip(painted.decode_tensors(streams, layout="HWC", half=False), want, strict=True):
        assert apart(x, rgb) <= 1 and (x != rgb).float().mean() < 0.01


def test_floats_are_the_pixels_over_255(painted, streams):
    eight = painted.decode_tensors(streams)
    for dtype in (torch.float16, torch.float32):
        for x, y in zip(painted.decode_tensors(streams, dtype=dtype), eight, strict=True):
            assert torch.equal(x, y.float().div(255).to(dtype))


def test_damaged_streams_leave_the_others_alone(painted, streams):
    broken = list(streams)
    for n in (0, 4):
        broken[n] = streams[n][:-6] + bytes([streams[n][-6] ^ 1]) + streams[n][-5:]
    broken[7] = b"ckbd"
    good = painted.decode_tensors(streams)
    found = [x for _, x in painted.decode_iter(broken, on_error="yield")]
    for n, x in enumerate(found):
        assert isinstance(x, ckbd.FormatError) if n in (0, 4, 7) else torch.equal(x, good[n])


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_the_callers_tensors(painted, streams, layout):
    """In one piece, in the midst of others, or laid out as the caller likes."""
    shapes = [(3, h, w) if layout == "CHW" else (h, w, 3) for h, w in SIZES]
    want = painted.decode_tensors(streams, layout=layout)
    whole = [torch.full((n[0] + 2, n[1] + 2, n[2] + 2), 171, dtype=torch.uint8) for n in shapes]
    for outs in (
        [torch.zeros(s, dtype=torch.uint8) for s in shapes],
        [x[1:-1, 1:-1, 1:-1] for x in whole],
        [torch.zeros(s[::-1], dtype=torch.uint8).permute(2, 1, 0) for s in shapes],
    ):
        found = painted.decode_tensors(streams, layout=layout, out=outs)
        assert all(x is out and torch.equal(x, y) for x, out, y in zip(found, outs, want, strict=True))
    for x in whole:
        x[1:-1, 1:-1, 1:-1] = 171
        assert (x == 171).all()
    with pytest.raises(ValueError, match="out: expected torch.uint8"):
        painted.decode_tensors(streams[:1], layout=layout, out=[torch.zeros(3, 2, 2, dtype=torch.uint8)])


def test_streams_of_either_decode_with_the_other_to_the_same_latents(tiny, painted):
    pictures = [textured(h, w, i) for i, (h, w) in enumerate(SIZES)]
    for effort in (0, 1):
        streams = painted.encode(pictures, 60, effort)
        mine, others = painted.decode_latents(streams), tiny.decode_latents(streams)
        assert all(np.array_equal(a, b) for a, b in zip(mine, others, strict=True))
        there = tiny.encode(pictures, 60, effort)
        assert abs(sum(map(len, streams)) / sum(map(len, there)) - 1) < 0.01
        for p, a, b in zip(pictures, painted.decode_pictures(streams), tiny.decode_pictures(there), strict=True):
            assert abs(image.psnr(p, a.rgb) - image.psnr(p, b.rgb)) < 0.2


def test_features_are_those_of_the_layers(tiny, painted):
    """Read-only pixels and those of a part of a picture, too."""
    rgb = textured(150, 170)
    rgb.flags.writeable = False
    for some in (
        [image.Picture(rgb), image.from_array(textured(190, 130, 7))],
        [image.Picture(rgb[5:90, 3:100])] * 2,
    ):
        want, got = tiny.encoder.features(some), painted.encoder.features(some)
        assert got.shape == want.shape and got.dtype == torch.float32
        assert (got - want).abs().max() < 0.01 * want.abs().max()


def test_layers_take_what_is_longer_than_the_kernels_may(painted, tiny, monkeypatch):
    """Both ways, alone and among others."""
    assert painting.MOST_SIDE == MAX_SIDE // 2
    monkeypatch.setattr(painting, "MOST_SIDE", 12)
    monkeypatch.setattr(painting.transforms, "analyse", lambda *args, **options: pytest.fail("g_a in kernels"))
    long, other = textured(5, 200), image.from_array(textured(7, 193, 1))
    streams = painted.encode([long, other.rgb], 60)
    assert streams == tiny.encode([long, other.rgb], 60)
    monkeypatch.setattr(Painter, "paint", lambda *args: pytest.fail("g_s in kernels"))
    want = [p.rgb for p in tiny.decode_pictures(streams)]
    assert all(np.array_equal(a.rgb, b) for a, b in zip(painted.decode_pictures(streams), want, strict=True))
    small = tiny.encode([textured(20, 30)], 60)
    for x, y in zip(painted.decode_tensors([*small, *streams], layout="HWC")[1:], want, strict=True):
        assert apart(x, y) <= 1


def test_a_batch_that_failed_has_no_pixels_to_paint(painted, streams, monkeypatch):
    monkeypatch.setattr(Painter, "paint", lambda *args: pytest.fail("painted"))
    bad = streams[0][:-6] + bytes([streams[0][-6] ^ 1]) + streams[0][-5:]
    assert [type(x) for _, x in painted.decode_iter([bad, bad], on_error="yield")] == [ckbd.FormatError] * 2


def test_only_those_who_ask_have_kernels_until_they_have_passed(monkeypatch):
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    monkeypatch.setattr(painting, "resolve", lambda backend, device: "triton" if device.type == "cuda" else "torch")
    for passed in (False, True):
        monkeypatch.setattr(painting, "PASSED", passed)
        assert painting.wanted("triton", cuda) and painting.wanted("triton", cpu)
        assert painting.wanted("auto", cuda) == passed
        assert not painting.wanted("auto", cpu) and not painting.wanted("torch", cpu)


def test_warming_up_paints_in_both_layouts(painted, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Painter, "paint", lambda self, state, pictures: seen.append((pictures.layout, pictures.sizes()))
    )
    list(warm.warm_up(painted.decoder, [], most=2))
    assert seen == [(layout, [size]) for size in ((64, 64), (64, 128)) for layout in ("CHW", "HWC")]


def test_regions_and_smaller_pictures_go_through_layers(painted, tiny):
    """Kernels paint whole pictures; what else is asked for is what the other codec gives."""
    streams = painted.encode([textured(100, 150), textured(100, 150, 1), textured(64, 70)[..., 0]])
    for options in ({"region": (3, 5, 60, 64)}, {"scale": 1 / 4}, {"region": (3, 5, 60, 64), "scale": 1 / 2}):
        got, want = painted.decode_pictures(streams, **options), tiny.decode_pictures(streams, **options)
        for a, b in zip(got, want, strict=True):
            assert a.rgb.shape == b.rgb.shape and np.abs(a.rgb.astype(int) - b.rgb).max() <= 1
    said = []
    painted.decode(streams, progress=said.append)
    assert said == sorted(said) and said[-1] == pytest.approx(1)
