"""EXIF and XMP: from every format, through a stream, into every format."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from ckbd.codec import container, image, sections
from ckbd.codec.container import FormatError
from ckbd.codec.files import metadata
from ckbd.codec.image import Picture

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" dc:title="\xc3\xbc"/></x:xmpmeta>'
UPRIGHT = XMP.replace(b'"6"', b'"1"')
PLACES = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"]


def exif(orientation=None, order="<", **base):
    found = Image.Exif()
    found.endian = order
    found[ExifTags.Base.Make] = "Maker"
    found[ExifTags.Base.Copyright] = "somebody"
    if orientation:
        found[ExifTags.Base.Orientation] = orientation
    found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:11:30 12:00:00"
    found.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return found


def stored(format, pixels, exif=None, xmp=None):
    """An opened file of that format with metadata, by Pillow alone."""
    file = io.BytesIO()
    options = {}
    if exif is not None:
        options["exif"] = Image.Exif()
        options["exif"].load(exif.tobytes())
    if xmp and format == "PNG":
        from PIL import PngImagePlugin

        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif xmp and format == "TIFF":
        options["exif"] = options.get("exif") or Image.Exif()
        options["exif"][ExifTags.Base.XMLPacket] = xmp
    elif xmp:
        options["xmp"] = xmp
    Image.fromarray(pixels).save(file, format=format, **options)
    return Image.open(file)


def said(tags):
    """What EXIF tags say, of this file's."""
    inner = {one.name: dict(tags.get_ifd(one)) for one in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)}
    own = ExifTags.Base.Make, ExifTags.Base.Copyright, ExifTags.Base.Orientation
    return {tag.name: tags.get(tag) for tag in own} | {name: sorted(ifd.items()) for name, ifd in inner.items()}


def loaded(data):
    tags = Image.Exif()
    tags.load(data)
    return said(tags)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", PLACES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_from_every_format_through_a_stream_and_back(format, order, pixels, tiny, tmp_path):
    source = stored(format, pixels, exif(8, order), XMP)
    picture = image.from_pil(source)
    assert (picture.height, picture.width) == (56, 40)
    want = loaded(picture.exif)
    xmp = picture.xmp
    if format == "TIFF":  # whose orientation Pillow takes away as it turns the pixels
        assert want == said(exif()) and xmp == XMP.replace(b'tiff:Orientation="6"', b"")
    else:
        assert want == said(exif(1)) and xmp == UPRIGHT
    (stream,) = tiny.encode([picture])
    (decoded,) = tiny.decode_pictures([stream])
    assert (decoded.exif, decoded.xmp) == (picture.exif, picture.xmp)
    for other in PLACES:
        path = tmp_path / f"a.{other.lower()}"
        assert image.write(path, decoded) == []
        with Image.open(path) as pil:
            pil.load()
            got = said(pil.getexif())
            assert got.pop("Orientation") in (None, 1) and pil.size == (40, 56)
            assert got == {name: value for name, value in want.items() if name != "Orientation"}
            assert pil.info["xmp"] == xmp
        again = image.read(path)
        assert loaded(again.exif) | {"Orientation": 0} == want | {"Orientation": 0} and again.xmp == xmp


def test_what_a_format_has_no_place_for_is_named(pixels, tmp_path):
    picture = Picture(pixels, exif=exif().tobytes()[6:], xmp=XMP)
    for suffix in (".bmp", ".ppm", ".gif", ".jp2"):
        assert image.write(tmp_path / f"a{suffix}", picture) == ["EXIF", "XMP"]
    picture = Picture(pixels, exif=exif().tobytes()[6:] + bytes(65536), xmp=XMP + b" " * 65536)
    assert image.write(tmp_path / "a.jpg", picture) == ["EXIF", "XMP"]
    assert image.write(tmp_path / "a.png", picture) == []
    assert image.read(tmp_path / "a.png").exif == metadata.upright_exif(picture.exif)
    picture = Picture(pixels, xmp=b"\xff\xfe no UTF-8")
    assert image.write(tmp_path / "b.png", picture) == ["XMP"] and image.write(tmp_path / "b.webp", picture) == []
    head, most = exif().tobytes()[6:], (65533 - len("Exif.."), 65533 - len("http://ns.adobe.com/xap/1.0/."))
    for over, left in ((0, []), (1, ["EXIF", "XMP"])):
        long = Picture(pixels, exif=head + bytes(most[0] + over - len(head)), xmp=b"x" * (most[1] + over))
        assert image.write(tmp_path / "c.jpg", long) == left
        back = image.read(tmp_path / "c.jpg")
        assert left or (back.exif, back.xmp) == (metadata.upright_exif(long.exif), long.xmp)


def test_only_what_says_something_of_the_picture_goes_to_a_tiff_file():
    tags = exif(6)
    for tag, value in ((256, 9), (273, 99), (282, 72.0), (317, 2), (50706, b"dng")):
        tags[tag] = value
    assert sorted(metadata.about(tags)) == [271, 33432, 34665, 34853]


@pytest.mark.parametrize("format", PLACES)
@pytest.mark.parametrize("kind", range(14))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tags_of_any_type_spoil_no_file(format, kind, pixels, tmp_path):
    """A description that is a number, a maker that is a fraction: photographs hold such things."""
    entries = b"".join(
        struct.pack("<HHII", tag, kind, 1, 8) for tag in (270, 271, 305, 306, 315, 33432, 34665, 34853)
    )
    data = b"II*\0" + struct.pack("<IH", 8, 8) + entries + bytes(40)
    picture = Picture(pixels, exif=data)
    image.write(tmp_path / f"a.{format.lower()}", picture)
    assert image.read(tmp_path / f"a.{format.lower()}").rgb.shape == pixels.shape


@pytest.mark.parametrize("format", PLACES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_metadata_of_any_kind_spoils_no_file(format, pixels, tmp_path):
    """What a stream carries is from outside: a writer leaves out what it cannot read, and the pixels stay."""
    rng, whole = np.random.default_rng(1), exif().tobytes()[6:]
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 4):
            data[at] = rng.integers(256)
        data = bytes(data[: rng.integers(1, len(data) + 1)])
        path = tmp_path / f"a.{format.lower()}"
        image.write(path, Picture(pixels, exif=data, xmp=data))
        with Image.open(path) as pil:
            pil.load()
            assert pil.size in ((56, 40), (40, 56))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind, count, value", [(3, 1, 6), (1, 1, 6), (4, 1, 6), (3, 9, 999)])
def test_every_orientation_becomes_1_and_nothing_else_moves(order, kind, count, value):
    head = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHII", 0x0112, kind, count, value)
    other = struct.pack(f"{order}HHII", 0x010F, 4, 1, 77)
    data = head + struct.pack(f"{order}IH", 8, 3) + other + entry + entry + bytes(4) + b"maker's notes"
    upright = struct.pack(f"{order}HHIH", 0x0112, 3, 1, 1) + bytes(2)
    assert metadata.upright_exif(data) == data.replace(entry, upright)
    assert metadata.upright_exif(b"Exif\0\0" + data) == data.replace(entry, upright)
    assert metadata.upright_exif(data[:30]) is None, "the second entry is cut"


@pytest.mark.parametrize("data", [b"", b"no exif at all", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II+\0\x08\0\0\0\0\0"])
def test_exif_that_cannot_be_walked_is_left_behind(data, pixels):
    assert metadata.upright_exif(data) is None
    pil = Image.fromarray(pixels)
    pil.info["exif"] = b"Exif\0\0" + data
    assert image.from_pil(pil).exif is None


@pytest.mark.parametrize(
    "text", ['Orientation="6"', "Orientation='6'", 'Orientation = "6"', "Orientation>6<", "Orientation> 6<"]
)
def test_orientations_in_xmp(text):
    packet = f"<a tiff:{text} exif:{text}/>".encode()
    assert metadata.upright_xmp(packet) == packet.replace(b"6", b"1", 1)


@pytest.mark.parametrize("format", PLACES)
@pytest.mark.parametrize("said", [b'="6"', b"='6'", b' = "6"', b"> 6</tiff:Orientation>"])
def test_an_orientation_that_only_xmp_has_turns_the_pixels(format, said, pixels):
    """Whatever is reset was heeded, also what Pillow does not see."""
    packet = b"<a tiff:Orientation" + said + b" />"
    source = stored(format, pixels, xmp=packet)
    source.load()
    as_it_is = np.asarray(source) if source.size == (56, 40) else np.rot90(np.asarray(source))
    picture = image.from_pil(source)
    assert np.array_equal(picture.rgb, np.rot90(as_it_is, -1)) and b"6" not in picture.xmp


@pytest.mark.parametrize(
    "kind, count, value", [(3, 2, b"\6\0\1\0"), (2, 2, b"6\0\0\0"), (8, 1, b"\6\0\0\0"), (4, 1, b"\6\0\0\0")]
)
def test_an_orientation_of_an_odd_type_turns_the_pixels(kind, count, value, pixels):
    pil = Image.fromarray(pixels)
    pil.info["exif"] = b"Exif\0\0II*\0" + struct.pack("<IHHHI", 8, 1, 0x0112, kind, count) + value + bytes(4)
    assert np.array_equal(image.from_pil(pil).rgb, np.rot90(pixels, -1))


@pytest.mark.parametrize("value", [0, 9, 255, 60000])
def test_an_orientation_that_is_none_turns_nothing(value, pixels):
    pil = Image.fromarray(pixels)
    pil.info["exif"] = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)
    assert np.array_equal(image.from_pil(pil).rgb, pixels)


def test_images_in_memory(pixels):
    pil = Image.fromarray(pixels)
    assert (image.from_pil(pil).exif, image.from_pil(pil).xmp) == (None, None)
    pil.info |= {"exif": exif(3), "xmp": XMP.decode()}
    picture = image.from_pil(pil)
    assert loaded(picture.exif) == said(exif(1)) and picture.xmp == UPRIGHT
    assert metadata.of(image.to_pil(picture)) == (picture.exif, picture.xmp)
    pil.info = {metadata.RAW: "\nexif\n  10\n" + exif(6).tobytes().hex()}
    assert loaded(image.from_pil(pil).exif) == said(exif(1))
    for odd in (
        {metadata.RAW: "nothing\nof\nthe\nkind"},
        {metadata.RAW: 5},
        {"xmp": 5},
        {"exif": 5},
        {"exif": b""},
        {"exif": Image.Exif()},
    ):
        pil.info = odd
        assert metadata.of(pil) == (None, None)


def test_strip_leaves_the_profile(pixels):
    picture = image.strip(Picture(pixels, icc=b"profile", exif=b"II*\0", xmp=b"x"))
    assert (picture.icc, picture.exif, picture.xmp) == (b"profile", None, None)


def test_metadata_changes_no_bit_of_the_payload(tiny, pixels):
    plain = Picture(pixels)
    full = Picture(pixels, exif=exif().tobytes()[6:], xmp=XMP)
    a, b = (container.parse(stream) for stream in tiny.encode([plain, full]))
    assert a.payload == b.payload and a.sections == {} and set(b.sections) == {container.EXIF, container.XMP}
    assert not np.any(tiny.decode_latents(tiny.encode([full]))[0] - tiny.decode_latents(tiny.encode([plain]))[0])


@pytest.mark.parametrize("kind, name", [(container.EXIF, "exif"), (container.XMP, "xmp")])
def test_sections_that_hold_something_else_are_refused(kind, name, tiny, pixels, monkeypatch):
    s = container.parse(tiny.encode([Picture(pixels)])[0])
    monkeypatch.setattr(sections, "MOST", 1000)
    good = sections.pack_metadata(name, bytes(1000))
    for body in (
        b"",
        b"no zlib",
        good[:-1],
        good + b"\0",
        zlib.compress(bytes(1001)),
        zlib.compress(b""),
    ):
        data = container.pack(container.Stream(s.header, s.payload, sections={kind: body}))
        with pytest.raises(FormatError, match=f"^{name} at byte") as caught:
            tiny.decode([data])
        assert caught.value.offset == container.parse(data).section_offsets[kind]
        assert tiny.decode_latents([data])[0].any() and len(tiny.decode_tensors([data])) == 1, "none asked for it"
    whole = container.pack(container.Stream(s.header, s.payload, sections={kind: good}))
    assert getattr(tiny.decode_pictures([whole])[0], name) == bytes(1000)
    with pytest.raises(ValueError, match=f"{name}: 1001 bytes are more than the 1000"):
        tiny.encode([Picture(pixels, **{name: bytes(1001)})])


def test_a_bomb_is_not_expanded():
    bomb = zlib.compress(bytes(1 << 28), 9)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=f"at most {1 << 24} bytes"):
            sections.unpack_metadata("xmp", bomb, 0)
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
    finally:
        tracemalloc.stop()


def test_a_tiff_file_that_is_not_loaded_yet_is_turned_once(pixels, tiny):
    """Pillow turns TIFF files as it loads them."""
    source = stored("TIFF", pixels, exif(6))
    assert np.array_equal(image.from_pil(source).rgb, np.rot90(pixels, -1))
