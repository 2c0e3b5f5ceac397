"""Files to pictures and back: every pixel mode, orientation and profile, and what damaged files do."""

import io
import math
import os
import stat
import threading

import numpy as np
import pytest
from children import forks, in_child
from PIL import Image, ImageCms

from ckbd.codec import image
from ckbd.codec.files import output
from ckbd.codec.image import Picture

RGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CMYK_PROFILE = RGB_PROFILE[:16] + b"CMYK" + RGB_PROFILE[20:]
GRAY_PROFILE = RGB_PROFILE[:16] + b"GRAY" + RGB_PROFILE[20:]


@pytest.fixture
def rgb():
    return np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def alpha():
    return np.random.default_rng(2).integers(0, 256, (5, 7), dtype=np.uint8)


def stored(pil, suffix=".png", **options):
    """pil after a trip through a file in memory, still open."""
    file = io.BytesIO()
    pil.save(file, format=Image.registered_extensions()[suffix], **options)
    return Image.open(file)


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"])
def test_every_mode_gives_the_pixels_that_pillow_shows(mode, rgb, alpha):
    source = Image.fromarray(rgb)
    source.putalpha(Image.fromarray(alpha | 1))  # premultiplied modes cannot hold colour under alpha 0
    via = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode)
    pil = source.convert(via).convert(mode) if via else source.convert(mode)
    picture = image.from_pil(pil)
    assert picture.gray == (mode in ("1", "L", "LA", "La"))
    straight = pil.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode))
    assert np.array_equal(picture.rgb, np.asarray(straight.convert("RGB")))
    if pil.has_transparency_data:
        assert np.array_equal(picture.alpha, np.asarray(straight.convert("RGBA").getchannel("A")))
    else:
        assert picture.alpha is None
    assert (picture.alpha is None) == (mode in ("1", "L", "RGB", "RGBX", "CMYK", "YCbCr"))


def test_lab_becomes_rgb():
    pil = Image.new("LAB", (3, 2), (255, 128, 128))
    assert np.abs(image.from_pil(pil).rgb.astype(int) - 255).max() <= 1


def test_every_16_bit_value_is_rounded():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = image.from_pil(stored(Image.fromarray(values)))
    assert picture.gray
    assert np.array_equal(picture.rgb[..., 0], np.rint(values / 257))
    assert np.array_equal(image.from_pil(Image.fromarray(values.astype(np.int32))).rgb, picture.rgb)
    assert np.array_equal(image.from_pil(Image.fromarray(values.astype(">u2"))).rgb, picture.rgb)


def test_a_transparent_16_bit_value_takes_no_neighbour_with_it():
    pil = stored(Image.fromarray(np.array([[1000, 1001, 0]], np.uint16)), transparency=1000)
    assert image.from_pil(pil).alpha.tolist() == [[0, 255, 255]]


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_beyond_16_bits_are_refused(value):
    with pytest.raises(ValueError, match=rf"mode I: expected values 0..65535, got .*{value}"):
        image.from_pil(Image.fromarray(np.array([[7, value]], np.int32)))


def test_floats_are_refused(tmp_path):
    Image.new("F", (3, 2)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="mode F"):
        image.read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix, key", [(".png", 2), (".png", bytes([255, 0, 128])), (".gif", 1)])
def test_a_transparent_palette_gives_alpha(suffix, key):
    pil = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    pil.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture = image.from_pil(stored(pil, suffix, transparency=key))
    assert not picture.gray
    assert picture.alpha.tolist() == [
        list(key) if isinstance(key, bytes) else [0 if i == key else 255 for i in range(3)]
    ]
    opaque = picture.alpha[0] > 0
    assert np.array_equal(picture.rgb[0][opaque], np.arange(10, 100, 10).reshape(3, 3)[opaque])


def test_a_transparent_gray_and_colour_give_alpha():
    gray = stored(Image.fromarray(np.array([[5, 6]], np.uint8)), transparency=6)
    assert image.from_pil(gray).gray and image.from_pil(gray).alpha.tolist() == [[255, 0]]
    colour = stored(Image.fromarray(np.array([[[5, 6, 7], [5, 6, 8]]], np.uint8)), transparency=(5, 6, 7))
    assert not image.from_pil(colour).gray and image.from_pil(colour).alpha.tolist() == [[0, 255]]


def test_an_opaque_alpha_plane_is_dropped(rgb):
    pil = Image.fromarray(rgb)
    pil.putalpha(255)
    assert image.from_pil(pil).alpha is None
    pil.putpixel((6, 4), (0, 0, 0, 254))
    assert image.from_pil(pil).alpha.min() == 254


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("gray", [False, True])
def test_exif_orientation_turns_the_pixels(orientation, gray, rgb, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = rgb[:, :, 0].astype(np.uint16) * 257 if gray else rgb
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    expected = UPRIGHT[orientation](np.repeat(rgb[:, :, :1], 3, 2) if gray else rgb)
    picture = image.read(tmp_path / "a.png")
    assert np.array_equal(picture.rgb, expected)
    image.write(tmp_path / "b.png", picture)
    assert np.array_equal(image.read(tmp_path / "b.png").rgb, expected)  # not turned a second time


@pytest.mark.parametrize("exif", [b"no exif at all", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x05\0"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_no_reason_to_refuse_a_photo(exif, rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif)
    assert image.read(tmp_path / "a.jpg").rgb.shape == rgb.shape


@pytest.mark.parametrize(
    "mode, profile, kept",
    [
        ("RGB", RGB_PROFILE, True),
        ("RGBA", RGB_PROFILE, True),
        ("P", RGB_PROFILE, True),
        ("L", GRAY_PROFILE, True),
        ("L", RGB_PROFILE, False),
        ("RGB", GRAY_PROFILE, False),
        ("CMYK", CMYK_PROFILE, False),
        ("RGB", b"short", False),
        ("RGB", None, False),
    ],
)
def test_a_profile_is_kept_while_it_describes_the_pixels(mode, profile, kept, rgb, tmp_path):
    Image.fromarray(rgb).convert(mode).save(tmp_path / "a.tif", icc_profile=profile)
    picture = image.read(tmp_path / "a.tif")
    assert picture.icc == (profile if kept else None)
    image.write(tmp_path / "b.png", picture)
    assert image.read(tmp_path / "b.png").icc == picture.icc
    assert image.to_pil(picture).info.get("icc_profile") == picture.icc


@pytest.mark.parametrize("height, width", [(1, 1), (5, 7), (64, 63)])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
def test_png_round_trip(height, width, gray, transparent, tmp_path):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (height, width) if gray else (height, width, 3), dtype=np.uint8)
    picture = image.from_array(pixels)
    if transparent:
        picture.alpha = rng.integers(0, 255, (height, width), dtype=np.uint8)
    path = tmp_path / "a.png"
    image.write(path, picture)
    with Image.open(path) as pil:
        assert pil.mode == {(0, 0): "RGB", (1, 0): "L", (0, 1): "RGBA", (1, 1): "LA"}[gray, transparent]
    again = image.read(path)
    assert again.gray == gray and (again.height, again.width) == (height, width)
    assert np.array_equal(again.rgb, picture.rgb)
    assert (again.alpha is None) != transparent and np.array_equal(again.alpha, picture.alpha)


def test_the_suffix_names_the_format_and_none_is_png(rgb, tmp_path):
    picture = Picture(rgb)
    for name, format in {"a.jpg": "JPEG", "a.WEBP": "WEBP", "a.tiff": "TIFF", "a": "PNG"}.items():
        image.write(tmp_path / name, picture)
        with Image.open(tmp_path / name) as pil:
            assert pil.format == format
    with pytest.raises(ValueError, match="writes no .xyz files"):
        image.write(tmp_path / "a.xyz", picture)
    image.write(tmp_path / "b.jpg", picture, quality=100, subsampling="4:4:4")
    assert (tmp_path / "b.jpg").stat().st_size > (tmp_path / "a.jpg").stat().st_size


def test_png_files_stay_small_and_options_overrule(rgb, tmp_path):
    picture = Picture(np.kron(rgb[:8, :8], np.ones((64, 64, 1), np.uint8)))
    image.write(tmp_path / "a.png", picture)
    image.write(tmp_path / "b.png", picture, compress_level=0)
    assert (tmp_path / "a.png").stat().st_size < picture.rgb.size / 40
    assert (tmp_path / "b.png").stat().st_size > picture.rgb.size
    assert np.array_equal(image.read(tmp_path / "a.png").rgb, picture.rgb)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(rgb, alpha, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="JPEG files have no transparency"):
        image.write(path, Picture(rgb, alpha))
    with pytest.raises(KeyboardInterrupt), output.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.jpg"]


def test_only_regular_files_are_replaced(rgb, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(OSError, match="not a regular file"):
            image.write(tmp_path / name, Picture(rgb))
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)


def test_written_files_have_the_permissions_of_any_new_file(rgb, tmp_path):
    image.write(tmp_path / "a.png", Picture(rgb))
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("limit", [30, 10])  # Pillow warns above the limit and raises above twice the limit
def test_too_many_pixels_are_a_clear_error(limit, rgb, tmp_path, monkeypatch):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=f"more than {limit} pixels"):
        image.read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".webp"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_truncated_files_raise_what_read_promises(suffix, rgb, tmp_path):
    path = tmp_path / ("a" + suffix)
    Image.fromarray(np.tile(rgb, (4, 4, 1))).save(path)
    data = path.read_bytes()
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 97)):
        path.write_bytes(data[:length])
        try:
            image.read(path)
        except (OSError, ValueError):
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_raise_what_read_promises(format, rgb, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)
    rng, exif, file = np.random.default_rng(5), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.tile(rgb, (4, 4, 1))).save(file, format=format, exif=exif)
    outcomes = {True: 0, False: 0}
    for _ in range(400):
        data = bytearray(file.getvalue())
        for at in rng.integers(0, min(len(data), 600), 2):
            data[at] = rng.integers(256)
        (tmp_path / "a").write_bytes(data)
        try:
            image.read(tmp_path / "a")
            outcomes[True] += 1
        except (OSError, ValueError):
            outcomes[False] += 1
    assert outcomes[True] and outcomes[False]


@forks
def test_a_fork_while_another_thread_opens_an_image(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with image._OPENING.held():
            held.set()
            go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        in_child(lambda: image.read(tmp_path / "a.png"))
    finally:
        go_on.set()
        thread.join(60)


def test_the_first_frame_is_read(tmp_path):
    frames = [Image.new("L", (3, 2), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.all(image.read(tmp_path / "a.gif").rgb == 10)


def test_find_sorts_and_leaves_out_hidden_and_other_files(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.webp", ".hidden.png", ".cache/c.png", "note.txt", "b/d.ckbd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in image.find(tmp_path)] == ["a.webp", "b/1.png", "b/2.JPG"]
    assert image.find(tmp_path, (".ckbd",)) == [tmp_path / "b/d.ckbd"]


def test_psnr_is_that_of_the_mean_square():
    """To the bit, however many samples there are, and wherever they lie."""
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 3), (700, 901, 3), (5,)):
        a, b = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
        for one, other in ((a, b), (a.T, b.T), (a, a // 2)):
            mse = np.mean((one.astype(np.float64) - other) ** 2)
            assert image.psnr(one, other) == 10 * math.log10(255**2 / mse)
        assert image.psnr(a, a.copy()) == 100
