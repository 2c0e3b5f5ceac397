"""Pictures from arrays, and to and from the tensors that the networks see."""

import numpy as np
import pytest
import torch

from ckbd.codec import image
from ckbd.codec.image import Picture
from ckbd.codec.networks import tensors


@pytest.fixture
def rgb():
    return np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("bad", [np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3)), np.zeros((0, 3, 3), np.uint8)])
def test_arrays_of_another_kind_are_refused(bad):
    with pytest.raises(ValueError, match="array: expected a uint8 array .* got"):
        image.from_array(bad)


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
