"""Pillow's codecs as ckbd is measured against them."""

import io

import numpy as np
import pytest
from conftest import textured
from PIL import Image

from ckbd.codec.image import psnr
from ckbd.evaluation import evaluate, rivals


@pytest.mark.parametrize("name", rivals.RIVALS)
@pytest.mark.parametrize("height, width", [(1, 1), (7, 5), (33, 50)])
def test_rivals_take_odd_sizes(name, height, width):
    rgb = textured(height, width)
    decoded = rivals.decode(rivals.RIVALS[name].encode(rgb, rivals.RIVALS[name].settings[-1]))
    assert decoded.shape == rgb.shape and decoded.dtype == np.uint8
    assert psnr(rgb, decoded) > 20


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_ladders_climb(name):
    rgb = textured(96, 120)
    rival = rivals.RIVALS[name]
    rows = [evaluate._rival_row(name, setting, "photo", rgb) for setting in rival.settings[1::3]]
    assert sorted(row["bytes"] for row in rows) == [row["bytes"] for row in rows]
    assert sorted(row["psnr"] for row in rows) == [row["psnr"] for row in rows]


def test_rivals_are_asked_for_what_they_should_be():
    rgb = textured(64, 64)
    for name, sampling in {"jpeg-420": (2, 2), "jpeg-444": (1, 1)}.items():
        with Image.open(io.BytesIO(rivals.RIVALS[name].encode(rgb, 50))) as pil:
            assert pil.layer[0][1:3] == sampling
    stream = rivals.RIVALS["jpeg2000"].encode(rgb, 1.0)
    cod = stream.index(b"\xff\x52")  # the COD marker segment; at 8 the colour transform, at 13 the wavelet (0: 9-7)
    assert stream[cod + 8] == 1 and stream[cod + 13] == 0
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (200, 60, 60)
    stripes[:, 1::2] = (60, 104, 200)
    avif = rivals.decode(rivals.RIVALS["avif"].encode(stripes, 95))
    assert np.abs(avif.astype(int) - stripes).max() < 25  # halved chroma would average the two columns


def test_jpeg_optimises_noise_that_outgrows_pillow_s_buffer():
    noise = np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)
    assert len(rivals.RIVALS["jpeg-444"].encode(noise, 100)) > 2 * 256 * 300


@pytest.mark.parametrize("nbytes", [900, 1500, 4000, 10**6])
def test_jpeg_at_size_is_the_nearest_that_fits(nbytes):
    rgb = textured(80, 96)
    fitting = []
    for name in ("jpeg-420", "jpeg-444"):
        streams = [rivals.RIVALS[name].encode(rgb, quality) for quality in range(1, 101)]
        fitting.append([stream for stream in streams if len(stream) <= nbytes][-1:])
    psnrs = [psnr(rgb, rivals.decode(stream)) for streams in fitting for stream in streams]
    best = rivals.jpeg_at_size(rgb, nbytes)
    assert len(best) <= nbytes
    assert psnr(rgb, rivals.decode(best)) == max(psnrs)


def test_jpeg_at_size_gives_the_smallest_if_none_fits():
    rgb = textured(80, 96)
    smallest = min((rivals.RIVALS[name].encode(rgb, 1) for name in ("jpeg-420", "jpeg-444")), key=len)
    assert rivals.jpeg_at_size(rgb, 10) == smallest


def wobbling(settings):
    """A coder whose sizes climb by 10 a setting, but every fourth file is 25 smaller."""
    return lambda setting: bytes(100 + 10 * setting - 25 * (setting % 4 == 3))


@pytest.mark.parametrize("nbytes", [*range(60, 140), 555, 560, 10**6])
def test_largest_within_is_what_trying_every_setting_finds(nbytes):
    settings = range(100)
    encode = wobbling(settings)
    setting, data = rivals.largest_within(encode, settings, nbytes)
    assert data == encode(setting)
    sizes = [(len(encode(s)), s) for s in settings]
    fitting = [one for one in sizes if one[0] <= nbytes]
    assert (len(data), setting) == (max(fitting) if fitting else (100, 0))


@pytest.mark.parametrize("name", rivals.RIVALS)
@pytest.mark.parametrize("bpp", [0.1, 2.0])
def test_rivals_files_are_never_larger_and_close_to_the_best_setting(name, bpp):
    rgb = textured(48, 64)
    nbytes = int(bpp * 48 * 64 / 8)
    rival = rivals.RIVALS[name]
    files = {setting: rival.encode(rgb, setting) for setting in rival.every[:: len(rival.every) // 12]}
    setting, data = rivals.largest_within(files.__getitem__, list(files), nbytes)
    assert data == files[setting]
    fitting = [len(file) for file in files.values() if len(file) <= nbytes]
    assert len(data) == max(fitting) if fitting else len(data) == min(map(len, files.values())) > nbytes


@pytest.mark.parametrize("nbytes", [400, 2500])
def test_at_size_is_the_nearest_of_those_that_fit(nbytes):
    rgb = textured(48, 64)
    alone = {name: rivals.at_size([name], rgb, nbytes) for name in ("jpeg-420", "jpeg2000", "webp")}
    name, setting, data = rivals.at_size(list(alone), rgb, nbytes)
    assert (name, setting, data) == alone[name] and len(data) <= nbytes
    assert data == rivals.RIVALS[name].encode(rgb, setting)
    fitting = [psnr(rgb, rivals.decode(one[2])) for one in alone.values() if len(one[2]) <= nbytes]
    assert psnr(rgb, rivals.decode(data)) == max(fitting)


def test_at_size_without_any_that_fits_gives_the_smallest():
    rgb = textured(48, 64)
    alone = [rivals.at_size([name], rgb, 10) for name in ("jpeg-420", "webp")]
    assert rivals.at_size(["jpeg-420", "webp"], rgb, 10) == min(alone, key=lambda one: len(one[2]))
