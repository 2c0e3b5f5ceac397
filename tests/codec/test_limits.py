"""How large a picture may be, and that this, like all that is cheap to ask, is asked before much is spent on it."""

import io
import struct
import zlib

import numpy as np
import pytest
from conftest import textured
from open_cases import batch
from PIL import Image, ImageFile

import ckbd
from ckbd.codec import container, image, limits, sections
from ckbd.codec.container import FormatError
from ckbd.codec.networks.rendering import Renderer
from ckbd.light import synthesis
from ckbd.light.decoder import Decoder

THIN = ", a side counting as 64 at least"


@pytest.mark.parametrize(
    "width, height, most, thin",
    [
        (10, 10, 100, None),
        (10, 11, 100, ""),
        (1, 100, 100, THIN),
        (64, 64, 10, ""),
        (64, 64, 4096, None),
        (1, 64, 4096, None),
        (1, 65, 4096, THIN),
        (65, 64, 4160, None),
        (1, 1 << 21, 1 << 27, None),
        (1 << 21, 1, 1 << 27, None),
        (1, (1 << 21) + 1, 1 << 27, THIN),
        ((1 << 32) - 1, (1 << 32) - 1, (1 << 64) - 1, None),
        ((1 << 32) - 1, 1, 0, ""),
    ],
)
def test_a_side_counts_as_64_in_every_reader(width, height, most, thin):
    want = f"{width} x {height} pixels are more than the limit of {most} (max_pixels)"
    want = None if thin is None else want + thin
    assert limits.excess(width, height, most) == want
    header = container.Header(b"nobody", 100, width, height, lanes_log2=0)
    stream = container.pack(container.Stream(header, bytes(100)))
    ((_, *found),) = batch([stream], max_pixels=most).errors()
    if want is None:
        container.parse(stream, most)
        assert found[0] == "model"
    else:
        with pytest.raises(FormatError) as caught:
            container.parse(stream, most)
        assert found == ["height", caught.value.offset, want] and caught.value.reason == want


def png(width, height):
    """A PNG file of a header and hardly any pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    )


@pytest.fixture
def unloaded(monkeypatch):
    def load(self):
        pytest.fail("an image that is too large was loaded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


def test_pixels_are_counted_before_they_are_there(tiny_path, tmp_path, unloaded):
    (tmp_path / "a.png").write_bytes(png(1001, 1000))
    with pytest.raises(ValueError, match=r"image: 1001 x 1000 pixels are more than the limit of 1000000 \(max_pix"):
        image.read(tmp_path / "a.png", 1000000)
    codec = ckbd.load(tiny_path, max_pixels=1000000)
    with pytest.raises(ValueError, match="1001 x 1000 pixels are more"):
        codec.encode([Image.open(tmp_path / "a.png")])
    for source in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        ((_, found),) = codec.encode_iter([source], on_error="yield")
        assert isinstance(found, ValueError) and "1001 x 1000 pixels are more" in str(found)


@pytest.mark.parametrize("kind", ["alpha", "exif", "xmp"])
def test_bad_sections_cost_no_pixels(kind, tiny, tiny_path, monkeypatch):
    alpha = textured(70, 80)[..., 0]
    (data,) = tiny.encode([ckbd.Picture(textured(70, 80), alpha=alpha, exif=b"II*\0" + bytes(9), xmp=b"x")])
    stream = container.parse(data)
    number = {name: n for n, name in container.SECTION_NAMES.items()}[kind]
    stream.sections[number] = zlib.compress(bytes(70 * 80 if kind == "alpha" else sections.MOST + 1))[:-1]
    bad = container.pack(stream)

    def painted(*_):
        pytest.fail("pixels were made")

    monkeypatch.setattr(Renderer, "g_s", painted)
    monkeypatch.setattr(synthesis.Synthesis, "__call__", painted)
    for decode in (lambda: tiny.decode([bad]), lambda: Decoder(tiny_path).decode(bad)):
        with pytest.raises(FormatError, match=f"{kind} at byte"):
            decode()


def test_eps_is_not_read_and_starts_no_program(tmp_path, monkeypatch):
    """Pillow's reader of EPS runs Ghostscript, whatever the suffix."""
    from PIL import EpsImagePlugin

    mark, program = tmp_path / "mark", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\n: > '{mark}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ValueError, match="no image of a kind that is read here"):
        image.read(path)
    assert not mark.exists()
    with pytest.raises(OSError), Image.open(path) as other:  # what would have happened
        other.load()
    assert mark.exists()


@pytest.mark.parametrize("format", ["ICO", "ICNS", "PCX", "TGA", "SGI", "PDF"])
def test_other_formats_by_a_known_name_are_refused(format, tmp_path):
    Image.fromarray(textured(32, 32)).save(tmp_path / "a.png", format=format)
    with pytest.raises(ValueError, match="no image of a kind that is read here"):
        image.read(tmp_path / "a.png")


@pytest.mark.parametrize("format", sorted({image.format_of(suffix) for suffix in image.SUFFIXES}))
@pytest.mark.parametrize("shape", [(1, 66000), (66000, 1), (1, 16384)])
def test_sides_that_a_format_has_no_room_for(format, shape, capfd):
    picture, file = ckbd.Picture(np.zeros((*shape, 3), np.uint8)), io.BytesIO()
    least = {"JPEG": 66000, "GIF": 66000, "AVIF": 66000, "WEBP": 16384}.get(format, 1 << 20)
    if max(shape) >= least:
        with pytest.raises(OSError, match=rf"{format} files (have at most|cannot hold)"):
            image.write_to(file, picture, format)
    else:
        image.write_to(file, picture, format)
    assert capfd.readouterr() == ("", "")
