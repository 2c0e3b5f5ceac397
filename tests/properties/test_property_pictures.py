"""Pictures of every small size through the whole codec: any kind, quality, effort, lanes, skip_max and sections."""

from functools import cache
from pathlib import Path

import numpy as np
import plain_decoder
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rans_cases import LANES
from strategies import cycled, damaged, edged, edits, examples

import ckbd
from ckbd import _rans
from ckbd.codec import container
from ckbd.codec.container import FormatError
from ckbd.codec.image import from_array
from ckbd.light.decoder import Decoder

GOLDEN = Path(__file__).parents[1] / "golden"
SIDE = edged(1, 70, 16, 64)
QUALITY = st.integers(2, 200).map(lambda q: q / 2) | st.floats(1, 100)
META = st.none() | st.binary(min_size=1, max_size=40) | st.just(b"II*\0" + bytes(300))


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def model_of(name):
    """(codec, decoder without torch, the model as the plain decoder has it)."""
    path = GOLDEN / f"{name}.safetensors"
    return ckbd.load(path, precision="float32", threads=1), Decoder(path), plain_decoder.load_model(path)


MODEL = st.sampled_from(("model", "groups")).map(model_of)


@st.composite
def arrays(draw, channels=(0, 1, 2, 3, 4), dtypes=(np.uint8, np.uint16, bool)):
    """Pixels: a few values again and again, or noise of a seed; 0 channels: of two dimensions."""
    shape = draw(SIDE), draw(SIDE), draw(st.sampled_from(channels))
    dtype, size = draw(st.sampled_from(dtypes)), int(np.prod([n for n in shape if n]))
    most = {np.uint8: 255, np.uint16: 65535, bool: 1}[dtype]
    if draw(st.booleans()):
        pixels = cycled(draw(st.lists(edged(0, most), min_size=1, max_size=9)), size, dtype)
    else:
        pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, most + 1, size).astype(dtype)
    return pixels.reshape(shape if shape[2] else shape[:2])


@st.composite
def pictures(draw):
    """What an array makes, with sections; an alpha plane of 255 alone now and then."""
    found = from_array(draw(arrays()))
    if found.alpha is None and draw(st.booleans()):
        found.alpha = np.full(found.rgb.shape[:2], 255, np.uint8)
    found.icc, found.exif, found.xmp = (draw(META) for _ in range(3))
    return found


def same_but_pixels(got, want):
    assert got.rgb.shape == want.rgb.shape and got.rgb.dtype == np.uint8
    assert (got.gray, got.icc, got.exif, got.xmp) == (want.gray, want.icc, want.exif, want.xmp)
    assert (got.alpha is None) == (want.alpha is None) and (
        got.alpha is None or np.array_equal(got.alpha, want.alpha)
    )
    assert not got.gray or (got.rgb == got.rgb[..., :1]).all()


@examples(90)
@given(arrays())
def test_an_array_is_the_picture_of_its_channels(array):
    eight = {1: lambda a: a, 2: lambda a: (a.astype(int) + 128) // 257}[array.dtype.itemsize](array)
    eight = eight * 255 if array.dtype == bool else eight
    pixels = eight.reshape(*array.shape[:2], -1)
    got, channels = from_array(array), pixels.shape[2]
    assert got.gray == (channels < 3)
    assert np.array_equal(got.rgb, np.broadcast_to(pixels[..., : 1 if got.gray else 3], got.rgb.shape))
    alpha = pixels[..., -1] if channels in (2, 4) else None
    if alpha is None or (alpha == 255).all():
        assert got.alpha is None
    else:
        assert np.array_equal(got.alpha, alpha)


@examples(25)
@given(MODEL, pictures(), QUALITY, st.sampled_from((None, 0, 1)))
def test_pictures_come_back(model, picture, quality, effort):
    codec, light, _ = model
    (stream,) = codec.encode([picture], quality, effort)
    assert codec.encode_at(picture, [quality], effort) == [stream]
    again, got = codec.decode_pictures([stream, stream])
    same_but_pixels(got, picture)
    assert np.array_equal(got.rgb, again.rgb)
    assert stream[11] == round(2 * quality)
    ((z, parts),) = codec.encoder.symbols([picture], [round(2 * quality) / 2], effort)
    estimate = sum(_rans.ideal_bits(codec.encoder.tables, [part]) for part in parts)
    assert codec.estimate([picture], quality, effort)[0] >= estimate - 1
    (latents,) = codec.decode_latents([stream])
    assert np.array_equal(light.latents(stream), latents)
    other = light.decode(stream)
    same_but_pixels(other, picture)
    assert np.abs(other.rgb.astype(int) - got.rgb).max() <= 1
    (tensor,) = codec.decode_tensors([stream], layout="HWC")
    assert np.array_equal(tensor.numpy(), got.rgb)
    shown = codec.decode([stream])[0]
    assert shown.size == (picture.width, picture.height)
    assert shown.mode == ("L" if picture.gray else "RGB") + ("A" if picture.alpha is not None else "")


@examples(10)
@given(
    MODEL,
    pictures(),
    st.integers(2, 200),
    st.none() | st.sampled_from(LANES),
    st.none() | st.integers(0, 15),
    st.booleans(),
)
def test_any_lanes_and_skip_max_read_as_the_plain_decoder_reads_them(
    model, picture, quality2, lanes, skip_max, effort
):
    codec, light, plain = model
    ((z, parts),) = codec.encoder.symbols([picture], [quality2 / 2], int(effort))
    coded = _rans.encode(codec.encoder.tables, z, parts, lanes=lanes, skip_max=skip_max)
    stream = codec.encoder.pack(picture, quality2 / 2, *coded)
    want = plain_decoder.decode(stream, plain)
    assert np.array_equal(want.z.ravel(), z)
    for (k, r), plain_k, plain_r in zip(parts, want.k, want.r, strict=True):
        assert np.array_equal(plain_k.ravel(), k) and np.array_equal(plain_r.ravel(), r)
    assert (want.width, want.height, want.gray, want.quality) == (
        picture.width,
        picture.height,
        picture.gray,
        quality2,
    )
    (latents,) = codec.decode_latents([stream])
    assert np.array_equal(latents, want.y_hat) and np.array_equal(light.latents(stream), want.y_hat)
    same_but_pixels(codec.decode_pictures([stream])[0], picture)


@examples(10)
@given(MODEL, st.lists(st.tuples(pictures(), QUALITY), min_size=2, max_size=4))
def test_neighbours_change_nothing(model, some):
    codec, _, _ = model
    alone = [codec.encode([picture], quality)[0] for picture, quality in some]
    assert codec.encode([p for p, _ in some], [q for _, q in some]) == alone
    together = codec.decode_pictures(alone)
    iterated = dict(codec.decode_iter(alone, layout="HWC", batch_count=3))
    for i, stream in enumerate(alone):
        one = codec.decode_pictures([stream])[0]
        assert np.array_equal(one.rgb, together[i].rgb) and np.array_equal(one.rgb, iterated[i].numpy())


def outcome(call):
    try:
        return call()
    except FormatError as error:
        return error.field, error.offset, error.reason


@examples(35)
@given(MODEL, pictures(), QUALITY, edits)
def test_damage_is_refused_alike(model, picture, quality, changes):
    codec, light, _ = model
    stream = codec.encode([picture], quality)[0]
    bad = damaged(stream, changes)
    found = outcome(lambda: codec.decode_pictures([bad]))
    assert outcome(lambda: light.decode(bad)) == found if bad != stream else isinstance(found, list)
    if bad != stream:
        assert 0 <= found[1] <= len(bad)
        (one,) = [result for _, result in codec.decode_iter([bad], on_error="yield")]
        assert (one.field, one.offset, one.reason) == found


@examples(35)
@given(MODEL, pictures(), QUALITY, edits)
def test_a_damaged_payload_under_right_checksums_reads_alike(model, picture, quality, changes):
    """Whoever wrote it: decoders find the same latents or say the same."""
    codec, light, plain = model
    stream = codec.encode([picture], quality)[0]
    s = container.parse(stream)
    bad = container.pack(type(s)(s.header, damaged(s.payload, changes), sections=s.sections))
    found = outcome(lambda: codec.decode_latents([bad])[0].tobytes())
    assert outcome(lambda: light.latents(bad).tobytes()) == found
    (one,) = [result for _, result in codec.decode_iter([bad], on_error="yield")]
    assert isinstance(one, FormatError) == isinstance(found, tuple)
    if isinstance(found, tuple):
        assert (one.field, one.offset, one.reason) == found and 0 <= found[1] <= len(bad)
    try:
        assert plain_decoder.decode(bad, plain).y_hat.tobytes() == found
    except plain_decoder.PlainError:
        assert isinstance(found, tuple)


@examples(20)
@given(MODEL, arrays(channels=(1, 2, 3, 4), dtypes=(np.uint8,)))
def test_arrays_and_tensors_and_pillow_images_are_one(model, array):
    """Where it is told apart which of the sizes are the channels."""
    codec, _, _ = model
    want = codec.encode([from_array(array)], 30)
    assert codec.encode([array], 30) == want
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    assert codec.encode([image], 30) == want
    if array.shape[0] > 4 and array.shape[1] > 4:
        tensor = torch.from_numpy(array)
        assert codec.encode([tensor.permute(2, 0, 1)], 30) == codec.encode([tensor.float() / 255], 30) == want
