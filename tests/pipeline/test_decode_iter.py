"""decode_iter and decode_tensors: the pictures of decode, in order, whatever goes together."""

import numpy as np
import pytest
import torch
from conftest import SIZES, TINY, textured

import ckbd
from ckbd.codec import batches, container
from ckbd.codec.container import FormatError
from ckbd.papers import file as variantfile
from ckbd.papers.variant import Variant, VariantConfig
from ckbd.pipeline import decode


@pytest.mark.parametrize("batch_count", [1, 3, 256])
@pytest.mark.parametrize("batch_pixels", [1, 1 << 14, None])
def test_pictures_are_those_of_decode_whatever_goes_together(codec, streams, want, batch_count, batch_pixels):
    out = list(codec.decode_iter(streams, layout="HWC", batch_count=batch_count, batch_pixels=batch_pixels))
    assert [name for name, _ in out] == list(range(len(streams)))
    for (_, x), rgb in zip(out, want, strict=True):
        assert torch.equal(x, rgb)
    order = [4, 0, 8, 8, 2]
    for x, i in zip(codec.decode_tensors([streams[i] for i in order], layout="HWC"), order, strict=True):
        assert torch.equal(x, want[i])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_layouts_and_dtypes_are_the_same_pixels(codec, streams, want, dtype, layout):
    for x, rgb in zip(codec.decode_tensors(streams, layout=layout, dtype=dtype), want, strict=True):
        chw = x if layout == "CHW" else x.permute(2, 0, 1)
        assert x.dtype == dtype and x.is_contiguous() and not x.is_inference()
        exact = rgb.permute(2, 0, 1)
        assert torch.equal(chw, exact if dtype == torch.uint8 else exact.float().div(255).to(dtype))


def test_latents_are_those_of_decode_latents_to_the_bit(codec, tiny, streams, monkeypatch):
    found = []
    real = type(codec.decoder.zone).latents

    def look(self, state):
        y_hat = real(self, state)
        found.extend(y[0].to(torch.int16).numpy().copy() for y in y_hat)
        return y_hat

    monkeypatch.setattr(type(codec.decoder.zone), "latents", look)
    list(codec.decode_iter(streams, batch_count=4))
    for y_hat in tiny.decode_latents(streams):
        assert any(y_hat.shape == other.shape and np.array_equal(y_hat, other) for other in found)


def test_residuals_that_eight_bits_do_not_hold_arrive(codec, tiny, monkeypatch):
    """Their list goes beside the bytes."""
    rng = np.random.default_rng(1)
    hard = [(rng.integers(0, 2, (96, 80, 3)) * 255).astype(np.uint8), textured(64, 64)]
    streams = tiny.encode(hard, 100, effort=0)
    symbols = tiny.encoder.symbols([ckbd.Picture(hard[0])], [100.0], 0)
    if max(int(np.abs(r).max()) for _, r in symbols[0][1]) <= 127:
        monkeypatch.setattr(tiny.encoder.model, "log_gain", tiny.encoder.model.log_gain + 2)
        streams = tiny.encode(hard, 100, effort=0)
        symbols = tiny.encoder.symbols([ckbd.Picture(hard[0])], [100.0], 0)
    assert max(int(np.abs(r).max()) for _, r in symbols[0][1]) > 127
    for x, picture in zip(codec.decode_tensors(streams, layout="HWC"), tiny.decode_pictures(streams), strict=True):
        assert np.array_equal(x.numpy(), picture.rgb)


def test_names_paths_buffers_and_pairs(codec, streams, want, tmp_path):
    path = tmp_path / "a.ckbd"
    path.write_bytes(streams[1])
    given = [
        streams[0],
        path,
        str(path),
        ("x", bytearray(streams[2])),
        ("y", path),
        memoryview(streams[3]),
        np.frombuffer(streams[4], np.uint8),
        torch.frombuffer(bytearray(streams[5]), dtype=torch.uint8),
    ]
    names = [0, path, str(path), "x", "y", 5, 6, 7]
    out = list(codec.decode_iter(iter(given), layout="HWC"))
    assert [name for name, _ in out] == names
    for (_, x), i in zip(out, [0, 1, 1, 2, 1, 3, 4, 5], strict=True):
        assert torch.equal(x, want[i])


def test_the_callers_tensors_are_written_and_given_back(codec, streams, want):
    same = [streams[0], streams[7]]
    out = torch.zeros(3, 64, 64, 3, dtype=torch.uint8)
    found = codec.decode_tensors(same, layout="HWC", out=out)
    assert [x.data_ptr() for x in found] == [out[0].data_ptr(), out[1].data_ptr()]
    assert torch.equal(out[0], want[0]) and torch.equal(out[1], want[7]) and not out[2].any()
    bad = [
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), ValueError, r"out: expected torch.uint8 \(64, 64, 3\) on cpu"),
        (torch.zeros(2, 64, 64, 3), ValueError, "got torch.float32"),
        ([np.zeros((64, 64, 3), np.uint8)] * 2, TypeError, "out: expected tensors, got ndarray"),
        (out[:1], ValueError, "there are fewer tensors than sources, none is left for 1"),
    ]
    for given, error, message in bad:
        with pytest.raises(error, match=message):
            codec.decode_tensors(same, layout="HWC", out=given)


def test_what_cannot_be_meant_is_refused_before_anything_is_read(codec, streams):
    def never():
        raise AssertionError("nothing was asked for")
        yield

    for options, message in (
        ({"layout": "WHC"}, "layout: expected CHW or HWC, got 'WHC'"),
        ({"dtype": torch.int8}, "dtype: expected torch.uint8, torch.float16, torch.float32, got torch.int8"),
        ({"on_error": "skip"}, "on_error: expected 'raise' or 'yield', got 'skip'"),
        ({"batch_pixels": 0}, "batch_pixels: expected a whole number of at least 1, got 0"),
        ({"batch_count": -1}, "batch_count: expected a whole number of at least 1, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            codec.decode_iter(never(), **options)
    with pytest.raises(TypeError, match="expected several, got a single one"):
        list(codec.decode_iter(streams[0]))
    for wrong in (5, None, np.zeros((2, 2), np.uint8), torch.zeros(3)):
        with pytest.raises(TypeError, match="stream: expected bytes"):
            list(codec.decode_iter([wrong], on_error="yield"))
    assert list(codec.decode_iter([])) == [] and codec.decode_tensors([]) == []


def test_models_of_the_papers_go_through_it_too(tmp_path):

    torch.manual_seed(0)
    small = {k: getattr(TINY, k) for k in ("width", "M", "Nz", "hyper", "h_s", "psi", "H1", "H2")}
    variantfile.save(Variant(VariantConfig(**small, context="raster")), tmp_path / "v.safetensors")
    codec = ckbd.load(tmp_path / "v.safetensors")
    given = codec.encode([textured(70, 90), textured(64, 64)[..., 0]])
    for x, picture in zip(codec.decode_tensors(given), codec.decode_pictures(given), strict=True):
        assert np.array_equal(x.permute(1, 2, 0).numpy(), picture.rgb)
    out = torch.zeros(1, 3, 70, 90)
    codec.decode_tensors(given[:1], dtype=torch.float32, out=out)
    assert torch.equal(out[0] * 255, codec.decode_tensors(given[:1])[0].float())
    found = [x for _, x in codec.decode_iter([given[0][:30], given[1]], on_error="yield")]
    assert isinstance(found[0], FormatError) and found[1].shape == (3, 64, 64)


def test_peeking_says_what_the_header_says(streams):

    for s, size in zip(streams, SIZES, strict=True):
        assert container.peek(s) == size
        for n in range(len(s)):
            assert container.peek(s[:n]) in (None, size)
    assert container.peek(b"\xff" * 40) is None


def test_large_pictures_go_in_strips_and_windows_hold_one(codec, tiny, monkeypatch):
    monkeypatch.setitem(batches.MAX_BATCH_PIXELS, "cpu", 1 << 13)
    monkeypatch.setitem(decode.PIXELS, "cpu", 1 << 12)
    (data,) = tiny.encode([textured(330, 260)])
    (picture,) = tiny.decode_pictures([data])
    for x in codec.decode_tensors([data, data], layout="HWC"):
        assert np.array_equal(x.numpy(), picture.rgb)


def test_half_precision_is_near(codec, streams, want):
    """What a GPU does by default: the latents are the same, pixels nearly."""
    for (_, x), rgb in zip(codec.decode_iter(streams, layout="HWC", half=True), want, strict=True):
        assert (x.int() - rgb.int()).abs().max() <= 4 and (x.int() - rgb.int()).float().abs().mean() < 0.5


def test_a_callers_autocast_reaches_no_pixel(tiny_path, streams, want):
    codec = ckbd.load(tiny_path, threads=3)
    picture = textured(300, 300)
    stream = codec.encode([picture])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert codec.encode([picture]) == stream and [s for _, s in codec.encode_iter([picture])] == stream
        for x, p, rgb in zip(
            codec.decode_tensors(streams, layout="HWC"), codec.decode_pictures(streams), want, strict=True
        ):
            assert torch.equal(x, rgb) and np.array_equal(p.rgb, rgb.numpy())


def test_what_is_given_may_be_written_over_at_once(codec, streams, want):
    """Compressed bytes are copied when they are taken."""
    length = max(map(len, streams))
    buffer = bytearray(length)

    def source():
        for s in streams:
            buffer[: len(s)] = s
            yield memoryview(buffer)[: len(s)]

    for (_, x), rgb in zip(codec.decode_iter(source(), layout="HWC"), want, strict=True):
        assert torch.equal(x, rgb)


def test_mappings_and_lists_of_two_name_their_streams(codec, streams, want):
    for given in ({"a": streams[0], "b": streams[1]}, [["a", streams[0]], ["b", streams[1]]]):
        out = list(codec.decode_iter(given, layout="HWC"))
        assert [name for name, _ in out] == ["a", "b"] and torch.equal(out[1][1], want[1])
