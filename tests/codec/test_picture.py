"""Pictures from arrays, and to and from the tensors that the networks see."""

import numpy as np
import pytest
import torch

from ckbd.codec import image, inputs
from ckbd.codec.image import Picture
from ckbd.codec.networks import tensors


@pytest.fixture
def rgb():
    return np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros((2, 3, 5), np.uint8), r"with 1 to 4 channels, got uint8 \(2, 3, 5\)"),
        (np.zeros((2, 3, 0), np.uint8), "got"),
        (np.zeros((0, 3, 3), np.uint8), "got"),
        (np.zeros(3, np.uint8), "got"),
        (np.zeros((2, 3), np.int64), "got int64"),
        (np.zeros((2, 3), np.uint32), "got uint32"),
        (np.zeros((2, 3)), r"got float64; where 1 is white \(x \* 255\).round"),
        (np.zeros((2, 3), np.float16), "got float16"),
        (np.array([["a"]]), "got <U1"),
    ],
)
def test_arrays_of_another_kind_are_refused(bad, message):
    with pytest.raises(ValueError, match=f"array: expected .*{message}"):
        image.from_array(bad)


def test_what_the_message_says_converts(rgb):
    x = rgb / 255
    made = eval("(x * 255).round().clip(0, 255).astype(np.uint8)", {"x": x, "np": np})
    assert np.array_equal(image.from_array(made).rgb, rgb)


def test_arrays_of_one_to_four_channels(rgb):
    gray = rgb[..., 1]
    for array in (gray, gray[..., None]):
        picture = image.from_array(array)
        assert (
            picture.gray and picture.alpha is None and np.array_equal(picture.rgb, np.repeat(gray[..., None], 3, 2))
        )
    for array, gray in ((rgb[..., :2], True), (np.dstack([rgb, rgb[..., 0]]), False)):
        picture = image.from_array(array)
        assert picture.gray == gray and np.array_equal(picture.alpha, array[..., -1])
        assert np.array_equal(picture.rgb[..., 0], array[..., 0]) and picture.rgb.shape == rgb.shape
    opaque = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    assert image.from_array(opaque).alpha is None and np.array_equal(image.from_array(opaque).rgb, rgb)
    turned = image.from_array(rgb[::-1, ::-1])
    assert np.array_equal(turned.rgb, rgb[::-1, ::-1]) and turned.rgb.flags.c_contiguous


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_wide_integers_and_truths_become_8_bits(kind, rgb):
    wide = np.arange(65536).reshape(256, 256)
    picture = image.from_array(wide.astype(kind))
    assert picture.gray and np.array_equal(picture.rgb[..., 2], np.rint(wide / 257))
    assert np.array_equal(image.from_array(rgb.astype(kind) * 257).rgb, rgb)
    truth = image.from_array(rgb[..., 0] > 100)
    assert truth.gray and np.array_equal(truth.rgb[..., 0], np.where(rgb[..., 0] > 100, 255, 0))


def same(a, b):
    planes = ((a.rgb, b.rgb), (a.alpha, b.alpha))
    return a.gray == b.gray and all((x is None) == (y is None) and np.array_equal(x, y) for x, y in planes)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_tensors_are_as_arrays_channels_first_or_last(channels, dtype):
    array = np.random.default_rng(3).integers(0, 2 if dtype is bool else 250, (9, 7, channels)).astype(dtype)
    want, last = image.from_array(array), torch.from_numpy(array)
    assert same(inputs.from_torch(last), want)
    assert same(inputs.from_torch(last.permute(2, 0, 1)), want)
    if dtype is np.uint8:
        assert same(inputs.from_torch(last.permute(2, 0, 1).double() / 255), want)


def test_where_channels_are_if_both_ends_could_be():
    x = torch.zeros(2, 9, 3, dtype=torch.uint8)
    assert inputs.from_torch(x).rgb.shape == (2, 9, 3) and not inputs.from_torch(x).gray
    assert inputs.from_torch(torch.zeros(3, 9, 4, dtype=torch.uint8)).rgb.shape == (9, 4, 3)
    assert inputs.from_torch(torch.zeros(1, 9, 4, dtype=torch.uint8)).rgb.shape == (9, 4, 3)


def test_a_picture_checks_its_planes(rgb):
    with pytest.raises(ValueError, match=r"rgb: expected a uint8 array \(H, W, 3\), got uint8 \(5, 7\)"):
        Picture(rgb[..., 0])
    with pytest.raises(ValueError, match=r"alpha: expected a uint8 array \(5, 7\), got uint8 \(7, 5\)"):
        Picture(rgb, rgb[..., 0].T)


def test_tensors_there_and_back():
    every = np.arange(256, dtype=np.uint8)
    pictures = [
        image.from_array(np.stack([every, every[::-1], every], 1)[None]),
        image.from_array(every[None]),
    ]
    x = tensors.to_tensor(pictures)
    assert x.shape == (2, 3, 1, 256) and x.dtype == torch.float32 and x.min() == 0 and x.max() == 1
    for picture, again in zip(pictures, tensors.from_tensor(x, [False, True]), strict=True):
        assert np.array_equal(picture.rgb, again.rgb) and picture.gray == again.gray
    with pytest.raises(ValueError, match="expected one size"):
        tensors.to_tensor([pictures[0], image.from_array(every[:, None])])


def test_tensors_are_clamped_rounded_and_averaged_to_gray():
    x = torch.tensor([-0.5, 1.5, 100.4 / 255]).view(1, 3, 1, 1)
    assert tensors.from_tensor(x)[0].rgb.tolist() == [[[0, 255, 100]]]
    (gray,) = tensors.from_tensor(x.clamp(0, 1), [True])
    assert gray.gray and gray.rgb.tolist() == [[[118, 118, 118]]]  # (0 + 255 + 100.4) / 3 = 118.47


def test_planes_are_put_where_they_and_the_pixels_overlap():
    rgb, planes = np.full((4, 5, 3), 7, np.uint8), torch.ones(3, 9, 2)
    tensors.put(rgb[1:, 3:], planes)
    assert (rgb[1:, 3:] == 255).all() and (rgb[0] == 7).all() and (rgb[:, :3] == 7).all()
    tensors.put(rgb, torch.zeros(3, 1, 1))
    assert (rgb == 0).sum() == 3
    tensors.put(rgb[:0], planes)


@pytest.mark.parametrize("height, width", [(1, 1), (64, 64), (65, 3)])
def test_pad_repeats_the_last_row_and_column(height, width):
    x = torch.rand(2, 3, height, width)
    padded = tensors.pad(x)
    assert padded.shape[-2] % 64 == padded.shape[-1] % 64 == 0
    assert padded.shape[-2] - height < 64 and padded.shape[-1] - width < 64
    rows = torch.arange(padded.shape[-2]).clamp(max=height - 1)
    columns = torch.arange(padded.shape[-1]).clamp(max=width - 1)
    assert torch.equal(padded, x[:, :, rows][:, :, :, columns])


def test_psnr():
    a = np.zeros((2, 2, 3), np.uint8)
    assert image.psnr(a, a + 5) == pytest.approx(20 * np.log10(255 / 5))
    assert image.psnr(a, a) == 100 and image.psnr(a, a + 255) == 0
    with pytest.raises(ValueError, match="one shape"):
        image.psnr(a, a[:1])
