"""ICC profiles of other colours than the pixels will have, and of formats that have no place for them."""

import warnings

import numpy as np
import profiles
import pytest
from PIL import Image

from ckbd.codec import image
from ckbd.codec.files import metadata
from ckbd.codec.image import Picture


@pytest.mark.parametrize("gray", [False, True])
def test_transparency_is_written_or_refused(gray, pixels, tmp_path):
    """Never dropped in silence, as Pillow does in some formats."""
    picture = Picture(np.repeat(pixels[..., :1], 3, 2) if gray else pixels, pixels[..., 1], gray)
    for suffix in image.SUFFIXES:
        format = Image.registered_extensions()[suffix]
        if format in image.TRANSPARENT:
            image.write(tmp_path / f"a{suffix}", picture, **({"lossless": True} if format == "WEBP" else {}))
            back = image.read(tmp_path / f"a{suffix}").alpha
            assert back is not None and (format == "AVIF" or np.array_equal(back, picture.alpha)), suffix
        else:
            with pytest.raises(OSError, match=f"{format} files have no transparency"):
                image.write(tmp_path / f"b{suffix}", picture)
    assert not list(tmp_path.glob("b*"))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def test_a_profile_of_gray_does_not_go_to_colours(pixels, tmp_path):
    gray = image.from_array(pixels[..., 0])
    gray.icc = profiles.SRGB[:16] + b"GRAY" + profiles.SRGB[20:]
    for suffix, left in ((".webp", ["the profile"]), (".png", []), (".jpg", []), (".tif", []), (".avif", [])):
        assert image.write(tmp_path / f"a{suffix}", gray) == left
        with Image.open(tmp_path / f"a{suffix}") as pil:
            assert pil.info.get("icc_profile") == (None if left else gray.icc)
    for suffix in (".bmp", ".gif", ".jp2", ".ppm"):
        assert image.write(tmp_path / f"a{suffix}", gray) == ["the profile"]
    colour = Picture(pixels, icc=profiles.SRGB)
    assert image.write(tmp_path / "b.webp", colour) == [] and image.read(tmp_path / "b.webp").icc == profiles.SRGB


def test_cmyk_goes_through_its_profile(tmp_path):
    pixels = np.zeros((16, 48, 4), np.uint8)
    pixels[:, 16:32, 0], pixels[:, 32:, 0] = 128, 255
    pil, red = Image.fromarray(pixels, "CMYK"), profiles.cmyk(ink=(140, 200, 180))
    for suffix in (".tif", ".jpg"):
        options = {"quality": 100} if suffix == ".jpg" else {}
        pil.save(tmp_path / f"a{suffix}", icc_profile=red, **options)
        picture = image.read(tmp_path / f"a{suffix}")
        assert picture.icc is None and not picture.gray
        paper, half, full = picture.rgb[8, 8::16].astype(int)
        assert paper.min() > 250 and full[0] > full[1] + 90 and full[0] > full[2] + 90, "not cyan at all"
        assert paper[1] > half[1] + 40 > full[1] + 80


def test_a_profile_says_what_becomes_of_its_white():
    """By its own intent: paper that is yellow stays so where colours are meant absolutely."""
    pil = Image.new("CMYK", (2, 2))
    for intent, yellow in ((0, False), (1, False), (3, True)):
        pil.info["icc_profile"] = profiles.cmyk(ink=(140, 200, 180), paper=(255, 128, 188), intent=intent)
        red, _, blue = image.from_pil(pil).rgb[0, 0].astype(int)
        assert (red - blue > 80) == yellow


def test_lab_goes_through_its_profile(tmp_path):
    pixels = np.array([[[0, 0, 0], [128, 0, 0], [255, 0, 0], [140, 70, 0]]], np.uint8)  # with signs, as in a file
    Image.fromarray(pixels, "LAB").save(tmp_path / "a.tif", icc_profile=profiles.LAB)
    black, gray, white, red = image.read(tmp_path / "a.tif").rgb[0].astype(int)
    assert black.max() < 8 and white.min() > 247 and np.ptp(gray) < 4 and 100 < gray[0] < 140 and red[0] > red[1] + 80


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_a_profile_that_cannot_be_used_is_a_warning(mode):
    pil = Image.new(mode, (3, 2))
    want = np.asarray(pil.convert("RGB"))
    broken = profiles.SRGB[:16] + metadata.PROFILES[mode] + profiles.SRGB[20:]
    for profile in (broken, broken[:60]):
        pil.info["icc_profile"] = profile
        with pytest.warns(UserWarning, match=f"{mode} pixels are converted without their profile: "):
            assert np.array_equal(image.from_pil(pil).rgb, want)
    pil.info["icc_profile"] = profiles.SRGB  # of another colour space: nothing to do with these pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(image.from_pil(pil).rgb, want)
