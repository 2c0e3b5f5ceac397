"""Whole files for fuzz/pictures.py: pictures of every format and mode that `ckbd encode` reads, and other kinds."""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image

# Suffix -> Pillow's name of what is written under it: one suffix a kind of file.
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "avif": "AVIF", "tiff": "TIFF", "bmp": "BMP", "gif": "GIF"}
FORMATS |= {"jp2": "JPEG2000", "j2k": "JPEG2000", "ppm": "PPM", "pgm": "PPM", "pbm": "PPM"}
MODES = {
    "png": "1 L LA P RGB RGBA I;16",
    "jpg": "L RGB CMYK",
    "webp": "RGB RGBA",
    "avif": "L RGB RGBA",
    "tiff": "1 L LA P RGB RGBA I;16 CMYK LAB I F YCbCr",
    "bmp": "1 L P RGB RGBA",
    "gif": "1 L P RGB RGBA",
    "jp2": "L LA RGB RGBA I;16",
    "j2k": "L RGB RGBA",
    "ppm": "RGB",
    "pgm": "L I;16",
    "pbm": "1",
}
# Pillow's wheels before 12 have no zstd, and libtiff, asked for it, ends the process a little later.
ZSTD = [{"compression": "zstd"}] if int(PIL.__version__.split(".")[0]) >= 12 else []
# Further ways to store the same, each as arguments of save.
WAYS = {
    "png": [{"compress_level": 0}, {"bits": 4}],
    "jpg": [{"progressive": True}, {"optimize": True, "subsampling": 0}, {"restart_marker_blocks": 1}],
    "webp": [{"lossless": True}, {"quality": 10}],
    "avif": [{"subsampling": "4:4:4"}],
    "tiff": [{"compression": f"tiff_{c}"} for c in ("lzw", "adobe_deflate")]
    + [{"compression": "packbits"}, *ZSTD, {"big_tiff": True}, {"tiffinfo": {278: 3}}],
    "gif": [{"interlace": 0}],
    "jp2": [{"irreversible": True}, {"tile_size": (16, 16)}],
    "j2k": [{"num_resolutions": 2}],
}
# libtiff complains of these for other modes.
TIFF_WAYS = {"1": [{"compression": "group4"}], "L": [{"compression": "jpeg"}], "RGB": [{"compression": "jpeg"}]}
FRAMES = ("png", "webp", "avif", "tiff", "gif")
PAGES = 3
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
REFUSED = ("F",)  # modes that the reader promises nothing of
WRITTEN = "EPS PDF ICNS ICO PCX TGA SGI DDS IM MSP SPIDER XBM BLP QOI DIB MPO PALM".split()
# Kinds that Pillow reads and does not write, or hands to other programs: their first bytes, the rest is noise.
MAGIC = {
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<4hHIH", 0, 0, 40, 30, 72, 0, 0) + b"\x01\0\x09\0\0\x03",
    "emf": struct.pack("<II8i4sI", 1, 108, 0, 0, 40, 30, 0, 0, 400, 300, b" EMF", 0x10000),
    "fits": b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80),
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "bufr": b"BUFR\0\0\x40\x04",
    "grib": b"GRIB\0\0\x40\x01",
    "psd": b"8BPS\0\1\0\0\0\0\0\0" + struct.pack(">HIIHH", 3, 20, 30, 8, 3),
    "xpm": b'/* XPM */\nstatic char *x[] = {\n"2 2 2 1",\n"a c #ff0000",\n"b c #0000ff",\n"ab","ba"};',
    "fli": struct.pack("<IHHHHHH", 512, 0xAF12, 3, 32, 24, 8, 3),
    "mpeg": b"\0\0\1\xb3\x02\x80\x1e\x00",
    "cur": b"\0\0\2\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 0, 0, 300, 22),
    "dcx": struct.pack("<III", 987654321, 12, 0) + b"\x0a\x05\x01\x08",
    "gbr": struct.pack(">7I", 32, 2, 20, 20, 1, 0x47494D50, 10) + b"abc\0",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1",
    "jxl": b"\0\0\0\x0cJXL \r\n\x87\n",
    "sun": struct.pack(">8I", 0x59A66A95, 20, 20, 8, 400, 1, 0, 0),
    "iptc": b"\x1c\x03\x14\0\2\0\1\x1c\x03\x1e\0\2\0\1",
    "mcidas": b"\0\0\0\0\0\0\0\4" + struct.pack(">8i", 0, 0, 0, 0, 0, 20, 30, 1),
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "zip": b"PK\3\4\x14\0\0\0\0\0",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "none": b"",
}
# What has started a program, or ended this one.
HARMFUL = ("ps", "ps-cr", "dos-eps", "eps", "icns", "no-palette", "number-as-profile", "no-clock")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n"
POSTSCRIPT += b"(w) file (ps-was-here) (w) file closefile\n0 0 40 30 rectfill\nshowpage\n%%EOF\n"


class Whole(NamedTuple):
    """A file, what it holds, and the (width, height) that comes out of it; None where it may be refused."""

    data: bytes
    name: str
    size: tuple[int, int] | None


def pixels(rng, mode, size):
    """A Pillow image of smooth colours and some noise."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    planes = [128 + 90 * np.sin(x / rng.uniform(2, 20)) * np.cos(y / rng.uniform(2, 20)) for _ in range(4)]
    drawn = np.clip(np.stack(planes, -1) + rng.normal(0, 9, (*x.shape, 4)), 0, 255).astype(np.uint8)
    if mode in ("I;16", "I"):
        return Image.fromarray(drawn[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    image = Image.fromarray(drawn if mode in ("RGBA", "LA") else drawn[..., :3])
    if mode == "LA":
        return Image.merge("LA", image.split()[2:])
    return image.quantize(int(rng.integers(2, 257))) if mode == "P" else image.convert(mode)


def saved(image, format, **options):
    """The file's bytes, or None where Pillow writes no such file."""
    file = io.BytesIO()
    try:
        image.save(file, format, **options)
    except Exception:  # of options that are noise Pillow raises anything
        return None
    return file.getvalue()


def interlaced(image):
    """A PNG file in Adam7's seven passes, which Pillow reads and does not write."""
    values = np.asarray(image)
    rows = b""
    for top, left, down, right in [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
    ] + [(1, 0, 2, 1)]:
        part = values[top::down, left::right]
        rows += b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""
    head = struct.pack(">IIBBBBB", *image.size, 8, {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}[image.mode], 0, 0, 1)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def as_text(image):
    """P1, P2 or P3: the numbers written out."""
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    head = {"1": "P1", "L": "P2", "RGB": "P3"}[image.mode]
    if image.mode == "1":
        values = values < 128
    most = "" if image.mode == "1" else "255\n"
    numbers = " ".join(map(str, values.astype(int).ravel()))
    return f"{head}\n# written by hand\n{image.width} {image.height}\n{most}{numbers}\n".encode()


def transparent(rng, mode):
    """Arguments of save that make some colour of a picture without alpha transparent."""
    if mode == "P":
        return {"transparency": rng.bytes(int(rng.integers(1, 20)))}
    return {"transparency": (1, 2, 3) if mode == "RGB" else int(rng.integers(2))}


def pictures(rng, suffix):
    """Whole files of one suffix."""
    format, out = FORMATS[suffix], []

    def add(name, data, mode):
        if data is not None:
            out.append(Whole(data, f"{suffix} {name}", None if mode in REFUSED else size))

    for mode in MODES[suffix].split():
        for way in [{}, *WAYS.get(suffix, []), *TIFF_WAYS.get(mode, [])[: suffix == "tiff"]]:
            size = tuple(int(n) for n in rng.integers(8, 49, 2))
            image = pixels(rng, mode, size)
            more = {"no_jp2": True} if suffix == "j2k" else {}
            add(f"{mode} {way}", saved(image, format, **way, **more), mode)
        if suffix == "png" and mode in ("L", "LA", "RGB", "RGBA"):
            add(f"{mode} interlaced", interlaced(image), mode)
        if suffix in ("png", "gif") and mode in ("1", "L", "P", "RGB"):
            add(f"{mode} transparency", saved(image, format, **transparent(rng, mode)), mode)
        if format == "PPM" and mode in ("1", "L", "RGB"):
            add(f"{mode} text", as_text(image), mode)
        if suffix in FRAMES:
            others = [pixels(rng, mode, size) for _ in range(PAGES - 1)]
            add(f"{mode} frames", saved(image, format, save_all=True, append_images=others), mode)
    return out


def large(rng, suffix):
    """A file of some kilobytes, of a format that has such files, whose picture takes the memory of a large one."""
    width = int(rng.integers(3000, 9000))
    image = Image.new("L", (width, int(10e6 / width * rng.integers(1, 9))), int(rng.integers(256)))
    format = FORMATS[suffix] if suffix in ("png", "gif", "webp", "tiff", "jpg") else "PNG"
    return saved(image, format, **({"compression": "tiff_lzw"} if format == "TIFF" else {}))


def odd(rng):
    """Pictures that Pillow opens and then stumbles over: a palette that is not there, a number for a profile, and a
    film without a clock."""
    size = (15, 8)
    png = saved(pixels(rng, "L", size), "PNG")
    yield Whole(png[:8] + chunk(b"IHDR", png[16:25] + b"\3\0\0\0") + png[33:], "no-palette", None)
    tiff = saved(pixels(rng, "CMYK", size), "TIFF", icc_profile=bytes(132))
    yield Whole(tiff.replace(struct.pack("<HH", 34675, 7), struct.pack("<HH", 34675, 4)), "number-as-profile", None)
    film = saved(pixels(rng, "RGB", size), "AVIF", save_all=True, append_images=[pixels(rng, "RGB", size)])
    if film is not None:  # this Pillow writes AVIF
        cut = film.find(b"mdhd") + 24
        yield Whole(film[:cut] + bytes(4) + film[cut + 4 :], "no-clock", None)


def foreign(rng):
    """Files of kinds that nobody asked for: what lies in a folder under a picture's name."""
    for format in WRITTEN:
        image = pixels(rng, "RGB", (40, 40))
        for mode in ("RGB", "L", "P", "1"):
            data = saved(image.convert(mode), format)
            if data is not None:
                yield Whole(data, format.lower(), None)
    yield from odd(rng)
    for name, start in MAGIC.items():
        yield Whole(start + rng.bytes(int(rng.integers(600)) if start else 0), name, None)
    yield Whole(POSTSCRIPT, "ps", None)
    head = b"\xc5\xd0\xd3\xc6" + struct.pack("<6IHH", 32, len(POSTSCRIPT), 0, 0, 0, 0, 0xFFFF, 0)
    yield Whole(head + POSTSCRIPT, "dos-eps", None)
    yield Whole(POSTSCRIPT.replace(b"\n", b"\r"), "ps-cr", None)


def everything(seed):
    """({suffix: whole files}, {other kind: files})."""
    rng = np.random.default_rng(seed)
    others = {}
    for one in foreign(rng):
        others.setdefault(one.name, []).append(one)
    return {suffix: pictures(rng, suffix) for suffix in FORMATS}, others
