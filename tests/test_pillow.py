"""ckbd.pillow: what people do with Pillow's images, and what sits on Pillow."""

import concurrent.futures
import copy
import dataclasses
import io
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import textured, tiny_model
from PIL import Image, ImageCms, ImageFile, ImageOps, ImageSequence, UnidentifiedImageError

import ckbd
import ckbd.pillow
from ckbd.codec import container
from ckbd.codec.container import FormatError
from ckbd.model import file as modelfile

RGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch, tiny_path):
    """`tiny` is a model by name."""
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(tiny_path, models / "tiny.safetensors")
    monkeypatch.setenv("CKBD_MODELS", str(models))
    return models


@pytest.fixture
def rgb():
    return Image.fromarray(textured(40, 56))


@pytest.fixture
def path(tmp_path, rgb):
    rgb.save(tmp_path / "a.ckbd", model="tiny")
    return tmp_path / "a.ckbd"


def alpha(pil):
    pil = pil.copy()
    pil.putalpha(Image.linear_gradient("L").resize(pil.size))
    return pil


MODES = {"RGB": lambda x: x, "L": lambda x: x.convert("L"), "RGBA": alpha, "LA": lambda x: alpha(x.convert("L"))}


@pytest.mark.parametrize("mode", MODES)
def test_what_is_saved_is_opened(mode, rgb, tmp_path, tiny):
    source = MODES[mode](rgb)
    source.save(tmp_path / "a.ckbd", model="tiny", quality=80, effort=0)
    data = (tmp_path / "a.ckbd").read_bytes()
    assert [data] == tiny.encode([source], quality=80, effort=0)
    (want,) = tiny.decode([data])
    with Image.open(tmp_path / "a.ckbd") as pil:
        assert (pil.format, pil.mode, pil.size) == ("CKBD", mode, source.size)
        assert pil.get_format_mimetype() == "image/x-ckbd" and pil.info["ckbd_quality"] == 80
        assert pil.info["ckbd_model"] == tiny.model_hash
        assert np.array_equal(np.asarray(pil), np.asarray(want)) and pil.load()[0, 0] == want.getpixel((0, 0))
    if "A" in mode:
        assert np.array_equal(np.asarray(pil.getchannel("A")), np.asarray(source.getchannel("A")))


def test_it_is_known_by_suffix_and_content(path, tmp_path):
    assert Image.registered_extensions()[".ckbd"] == "CKBD" and Image.MIME["CKBD"] == "image/x-ckbd"
    shutil.copy(path, tmp_path / "noname")
    for source in (path, str(path), tmp_path / "noname", io.BytesIO(path.read_bytes()), open(path, "rb")):
        with Image.open(source) as pil:
            assert pil.format == "CKBD" and pil.getpixel((3, 3))
    with Image.open(path, formats=["CKBD"]) as pil:
        pil.load()
    with pytest.raises(UnidentifiedImageError):
        Image.open(path, formats=["PNG"])
    saved = io.BytesIO()
    pil.save(saved, "CKBD", model="tiny")
    assert container.parse(saved.getvalue()).header.width == 56


def test_pixels_come_late(path, rgb, shelf):
    """The header and the sections are checked when an image is opened, all else when it is loaded."""
    data = bytearray(path.read_bytes())
    data[container.parse(bytes(data)).payload_offset + 5] ^= 1
    pil = Image.open(io.BytesIO(data))
    assert pil.size == rgb.size
    with pytest.raises(FormatError, match="payload_crc"):
        pil.load()
    (shelf / "tiny.safetensors").unlink()
    pil = Image.open(path)
    assert pil.size == rgb.size
    with pytest.raises(FormatError, match="model at byte 4: made by model .*, which is not here"):
        pil.load()
    data[8] ^= 1
    with pytest.raises(FormatError, match="header_crc"):
        Image.open(io.BytesIO(data))


@pytest.mark.parametrize("keep", [0, 3, 9, 20, 60, -1])
def test_damage_is_an_oserror_that_names_field_and_offset(path, keep):
    data = path.read_bytes()[:keep]
    for action in (lambda pil: pil.load(), lambda pil: pil.verify()):
        with pytest.raises(OSError) as caught:  # UnidentifiedImageError is one, too
            action(Image.open(io.BytesIO(data)))
        if keep not in (0,):
            assert isinstance(caught.value, FormatError) and "at byte" in str(caught.value)
            again = pickle.loads(pickle.dumps(caught.value))
            assert str(again) == str(caught.value) and again.field == caught.value.field


def test_every_bit_of_a_stream_counts(path):
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 7):
        data[at] ^= 16
        with pytest.raises((FormatError, UnidentifiedImageError)):
            Image.open(io.BytesIO(data)).verify()
        data[at] ^= 16
    pil = Image.open(io.BytesIO(data))
    pil.verify()
    for action in (pil.load, pil.verify):
        with pytest.raises(OSError, match="open it again"):
            action()
    loaded = Image.open(path)
    loaded.load()
    for pil in (loaded, pickle.loads(pickle.dumps(loaded))):
        with pytest.raises(OSError, match="open it again"):
            pil.verify()


def test_truncated_images_are_refused_whatever_the_flag(path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(FormatError, match="payload at byte .* are left; LOAD_TRUNCATED_IMAGES changes nothing"):
        Image.open(io.BytesIO(path.read_bytes()[:100])).load()


def test_metadata(rgb, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    rgb.info |= {"icc_profile": RGB_PROFILE, "xmp": b"<packet/>"}
    rgb.save(tmp_path / "a.ckbd", model="tiny", exif=exif)
    with Image.open(tmp_path / "a.ckbd") as pil:
        assert pil.size == (40, 56), "turned, as the orientation says"
        assert pil.getexif()[0x010F] == "Maker" and pil.getexif()[0x0112] == 1
        assert pil.info["icc_profile"] == RGB_PROFILE and pil.info["xmp"] == b"<packet/>"
        assert ImageOps.exif_transpose(pil).size == pil.size
        pil.save(tmp_path / "b.ckbd", model="tiny")
        pil.save(tmp_path / "c.ckbd", model="tiny", exif=b"", xmp=None, icc_profile=None)
        pil.save(tmp_path / "d.jpg", exif=pil.getexif())
    with Image.open(tmp_path / "b.ckbd") as pil:
        assert pil.getexif()[0x010F] == "Maker" and pil.info["xmp"] == b"<packet/>"
    with Image.open(tmp_path / "c.ckbd") as pil:
        assert not {"exif", "xmp", "icc_profile"} & set(pil.info)
    with Image.open(tmp_path / "d.jpg") as pil:
        assert pil.getexif()[0x010F] == "Maker"
    assert "exif" not in rgb.info and rgb.info["xmp"] == b"<packet/>", "the caller's image is as it was"


def test_metadata_of_another_kind_is_refused(rgb, tmp_path):
    rgb.info["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
    for options in ({"exif": "text"}, {"exif": {}}, {"xmp": 5}, {"icc_profile": "text"}):
        with pytest.raises(TypeError, match="expected bytes or None, got"):
            rgb.save(tmp_path / "a.ckbd", model="tiny", **options)
    rgb.save(tmp_path / "a.ckbd", model="tiny", exif=Image.Exif())
    assert "exif" not in Image.open(tmp_path / "a.ckbd").info
    rgb.save(tmp_path / "a.ckbd", model="tiny")
    assert "exif" in Image.open(tmp_path / "a.ckbd").info


def test_a_model_that_is_replaced_writes_from_then_on(rgb, tmp_path, shelf, tiny):
    rgb.save(tmp_path / "a.ckbd", model="tiny")
    other = modelfile.save(tiny_model(1), shelf / "tiny.safetensors")
    rgb.save(tmp_path / "b.ckbd", model="tiny")
    assert [Image.open(tmp_path / f"{n}.ckbd").info["ckbd_model"] for n in "ab"] == [tiny.model_hash, other.hex()]
    assert Image.open(tmp_path / "b.ckbd").getpixel((3, 3))


def test_sections_are_placed_as_in_the_whole_stream(path):
    s = container.parse(path.read_bytes())
    body = zlib.compress(b"") + b"more"
    data = container.pack(container.Stream(s.header, s.payload, sections={container.XMP: body, 200: b"later"}))
    whole = container.parse(data)
    got = container.outline(io.BytesIO(data))
    assert got == dataclasses.replace(whole, payload=b"")
    with pytest.raises(FormatError) as caught:
        Image.open(io.BytesIO(data))
    assert (caught.value.field, caught.value.offset) == ("xmp", whole.section_offsets[container.XMP])


def test_info_can_be_handed_on(path, tmp_path, tiny):
    with Image.open(path) as pil:
        pil.save(tmp_path / "a.jpg", **pil.info)
        pil.save(tmp_path / "b.ckbd", model=pil.info["ckbd_model"], quality=pil.info["ckbd_quality"])
        pil.save(tmp_path / "c.ckbd", model=None, quality=None)
    assert Image.open(tmp_path / "b.ckbd").info["ckbd_model"] == tiny.model_hash
    assert Image.open(tmp_path / "c.ckbd").info["ckbd_quality"] == 50


def test_wrong_arguments_leave_no_file(rgb, tmp_path):
    for options in ({"quality": 0}, {"quality": "high"}, {"effort": 7}, {"model": "nobody"}):
        with pytest.raises((ValueError, FileNotFoundError)):
            rgb.save(tmp_path / "a.ckbd", **({"model": "tiny"} | options))
    with pytest.raises(ValueError, match="mode F"):
        Image.new("F", (3, 3)).save(tmp_path / "a.ckbd", model="tiny")
    assert not (tmp_path / "a.ckbd").exists()


def test_images_are_copied_pickled_and_shared(path, tiny):
    want = np.asarray(tiny.decode([path.read_bytes()])[0])
    for pil in (
        pickle.loads(pickle.dumps(Image.open(path))),
        copy.copy(Image.open(path)),
        copy.deepcopy(Image.open(path)),
        Image.open(path).copy(),
        next(iter(ImageSequence.Iterator(Image.open(path)))),
    ):
        assert np.array_equal(np.asarray(pil), want)
    pil, gate = Image.open(path), threading.Barrier(8)

    def load(_):
        gate.wait(10)
        return np.asarray(pil)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(one, want) for one in pool.map(load, range(8)))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(np.asarray(one), want) for one in pool.map(Image.open, [path] * 40))


def test_a_parser_is_fed(path, tiny):
    data, parser = path.read_bytes(), ImageFile.Parser()
    for at in range(0, len(data), 100):
        parser.feed(data[at : at + 100])
    assert np.array_equal(np.asarray(parser.close()), np.asarray(tiny.decode([data])[0]))


def test_pixels_can_be_written_to(path):
    pil = Image.open(path)
    pil.putpixel((1, 1), (9, 8, 7))
    pil.paste((1, 2, 3), (5, 5, 9, 9))
    assert pil.getpixel((1, 1)) == (9, 8, 7) and pil.getpixel((6, 6)) == (1, 2, 3)
    pil.thumbnail((20, 20))
    assert max(pil.size) == 20
    pil.seek(0)
    assert pil.tell() == 0
    with pytest.raises(EOFError):
        pil.seek(1)


def test_an_image_is_saved_over_its_own_file(path, tiny):
    with Image.open(path) as pil:
        pil.save(path, model="tiny", quality=10)
    with Image.open(path) as pil:
        assert pil.info["ckbd_quality"] == 10 and pil.getpixel((3, 3))


def test_files_are_closed(path):
    before = len(os.listdir("/proc/self/fd"))
    pils = [Image.open(path) for _ in range(20)]
    files = [pil.fp for pil in pils]
    for pil in pils:
        pil.load()
    assert all(file.closed for file in files)
    assert len(os.listdir("/proc/self/fd")) <= before, "as soon as pixels are there"
    with open(path, "rb") as file:
        Image.open(file).load()
        assert not file.closed, "the caller's stays"


def _mean(name):
    import ckbd.pillow  # noqa: F401

    return float(np.asarray(Image.open(name)).mean())


def test_in_a_spawned_process(path):
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(_mean, path).result(120) == _mean(path)


HEADER = """
import sys
import ckbd.pillow
from PIL import Image
print(Image.open(sys.argv[1]).size, "torch" in sys.modules)
Image.open(sys.argv[1]).verify()
print("torch" in sys.modules)
"""


def test_a_header_needs_no_torch(path):
    done = subprocess.run([sys.executable, "-c", HEADER, path], capture_output=True, text=True)
    assert done.stdout == "(56, 40) False\nFalse\n", done.stderr


def test_a_bomb_is_pillows_to_refuse(path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


# What sits on Pillow


def test_imageio_reads_and_writes(path, tmp_path, rgb):
    iio = pytest.importorskip("imageio.v3")
    want = np.asarray(Image.open(path))
    assert np.array_equal(iio.imread(path), want)
    assert np.array_equal(iio.imread(path, plugin="pillow"), want)
    assert iio.improps(path, plugin="pillow").shape == (40, 56, 3)
    iio.imwrite(tmp_path / "b.ckbd", np.asarray(rgb), plugin="pillow", model="tiny", quality=70)
    with Image.open(tmp_path / "b.ckbd") as pil:
        assert pil.info["ckbd_quality"] == 70


def test_scikit_image_reads(path):
    io_ = pytest.importorskip("skimage.io")
    want = np.asarray(Image.open(path))
    assert np.array_equal(io_.imread(path), want)
    assert np.array_equal(io_.ImageCollection([str(path)])[0], want)


def test_matplotlib_reads(path):
    assert pytest.importorskip("matplotlib.image").imread(path).shape == (40, 56, 3)


def test_ckbd_open_is_the_same_image(path):
    opened = ckbd.open(path)
    assert isinstance(opened, ckbd.pillow.CkbdImageFile) and opened.filename == str(path)
    assert np.array_equal(np.asarray(opened), np.asarray(Image.open(path)))
    assert pickle.loads(pickle.dumps(ckbd.open(path, model="tiny"))).model == "tiny"
    with Path(path).open("rb") as file:
        assert ckbd.open(file).size == (56, 40)


DRAFTS = {(80, 50): 1, (41, 26): 1, (40, 25): 2, (21, 1): 2, (10, 6): 8, (1, 1): 8, (0, 0): 8}


@pytest.mark.parametrize("size, shrink", DRAFTS.items())
def test_a_draft_is_smaller_and_not_too_small(tmp_path, tiny, size, shrink):
    """As a JPEG's draft, which Pillow itself makes."""
    source = Image.fromarray(textured(50, 81))
    source.save(tmp_path / "a.ckbd", model="tiny")
    source.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.ckbd") as pil, Image.open(tmp_path / "a.jpg") as jpeg:
        found = pil.draft("L", size)
        _, box = jpeg.draft(None, size if min(size) else (1, 1))
        assert found == (None if shrink == 1 else ("RGB", box)) and pil.size == jpeg.size
        assert shrink == 1 or pil.draft(None, (1, 1)) is None, "once"
        (want,) = tiny.decode([(tmp_path / "a.ckbd").read_bytes()], scale=1 / shrink)
        assert pil.tobytes() == want.tobytes() and pil.size == want.size
        assert pil.draft(None, (1, 1)) is None, "too late"


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_draft_keeps_its_mode_where_its_means_are_opaque(tmp_path, mode):
    source = Image.fromarray(textured(64, 80)).convert(mode)
    source.putpixel((3, 3), source.getpixel((3, 3))[:-1] + (254,))
    source.save(tmp_path / "a.ckbd", model="tiny")
    with Image.open(tmp_path / "a.ckbd") as pil, Image.open(tmp_path / "a.ckbd") as small:
        pil.draft(None, (10, 8))
        assert np.asarray(pil)[..., -1].min() == 255 and pil.mode == pil.im.mode == mode
        assert pil.getchannel("A").getextrema() == (255, 255) and len(pil.split()) == len(mode)
        small.thumbnail((40, 32))
        assert small.mode == mode and small.size == (40, 32)


def test_thumbnails_are_made_of_drafts(tmp_path, monkeypatch):
    Image.fromarray(textured(400, 640)).save(tmp_path / "a.ckbd", model="tiny")
    asked, real = [], ckbd.Codec.decode
    monkeypatch.setattr(ckbd.Codec, "decode", lambda *a, **options: asked.append(options) or real(*a, **options))
    with Image.open(tmp_path / "a.ckbd") as whole, Image.open(tmp_path / "a.ckbd") as small:
        whole.load()
        small.thumbnail((40, 40))
        assert small.size == (40, 25) and asked == [{"scale": 1}, {"scale": 1 / 4}]
        want = whole.resize((40, 25), Image.Resampling.BOX)
        assert np.abs(np.asarray(small).astype(int) - np.asarray(want)).mean() < 20
    again = Image.open(tmp_path / "a.ckbd")
    again.draft(None, (80, 80))
    copied = pickle.loads(pickle.dumps(again))
    assert copied.size == again.size == (160, 100) and copied.tobytes() == again.tobytes()
