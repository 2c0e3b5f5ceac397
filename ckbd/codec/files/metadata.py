"""What a picture file holds beside pixels: EXIF, XMP, and profiles of colours that are neither gray nor RGB."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable
from typing import Any

from PIL import ExifTags, Image

MARKER = b"Exif\0\0"  # what a JPEG file has before EXIF data, and Pillow in info["exif"]
JPEG_MOST = 65533  # bytes of a segment
PROFILES = {"CMYK": b"CMYK", "LAB": b"Lab "}  # modes that are converted, and what a profile calls them
RAW = "Raw profile type exif"  # where some programs put EXIF into a PNG file's text
# What IFD 0 says of the picture, rather than of how a TIFF file stores it.
ABOUT = (270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# What Pillow raises over EXIF data that is damaged, besides what it warns of.
DAMAGE = (
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    OSError,
    EOFError,
    struct.error,
)
_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)(\d)")


def of(image: Image.Image) -> tuple[bytes | None, bytes | None]:
    """(EXIF, XMP) of an image whose pixels are then turned upright; None where there is none that can be read."""
    exif, xmp = _exif(image), _xmp(image)
    return upright_exif(exif) if exif else None, upright_xmp(xmp) if xmp else None


def orientation(image: Image.Image) -> int:
    """1 to 8, as EXIF says it, else XMP; 1 where neither does, or what they say cannot be read. All that upright_exif
    and upright_xmp reset is seen here.
    """
    try:
        said = image.getexif().get(ExifTags.Base.Orientation)
        if said is None and (match := _ORIENTATION.search(_xmp(image) or b"")):
            said = match[2]
        said = int(said[0] if isinstance(said, tuple) else 1 if said is None else said)
    except DAMAGE:  # viewers show such a photo as it is stored; so it is taken here
        return 1
    return said if 1 <= said <= 8 else 1


def _xmp(image: Image.Image) -> bytes | None:
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):
        return xmp.encode("utf-8", "surrogateescape")
    return bytes(xmp) if isinstance(xmp, (bytes, bytearray)) else None


def _exif(image: Image.Image) -> bytes | None:
    exif = image.info.get("exif")
    if isinstance(exif, (bytes, bytearray)):
        return bytes(exif)
    try:
        if isinstance(exif, Image.Exif):
            return exif.tobytes() if len(exif) else None
        if RAW in image.info:
            return bytes.fromhex("".join(image.info[RAW].split("\n")[3:]))
        if image.format == "TIFF":  # whose own tags they are
            found = about(image.getexif())
            return found.tobytes() if len(found) else None
    except DAMAGE:
        pass  # as of a photo whose EXIF is damaged: viewers show it without
    return None


def about(exif: Image.Exif) -> Image.Exif:
    """The tags that belong to a picture wherever it is stored."""
    found = Image.Exif()
    for tag in ABOUT:
        if tag in exif:
            found[tag] = exif[tag]
    for ifd in IFDS:
        if inner := exif.get_ifd(ifd):
            found.get_ifd(ifd).update(inner)
            found[ifd] = 0  # there is one; tobytes() says where
    return found


def upright_exif(data: bytes) -> bytes | None:
    """EXIF data without the marker before it, the orientation set to 1, all else in its place (makers' notes point to
    where they were). None if its first directory cannot be walked.
    """
    data = data.removeprefix(MARKER)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    out = bytearray(data)
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            (tag,) = struct.unpack_from(f"{order}H", data, entry)
            if tag == ExifTags.Base.Orientation:
                struct.pack_into(f"{order}HIHxx", out, entry + 2, 3, 1, 1)  # one SHORT, 1
    except struct.error:
        return None
    return bytes(out)


def upright_xmp(packet: bytes) -> bytes:
    """The packet, of the same length, with the orientation set to 1."""
    return _ORIENTATION.sub(rb"\g<1>1", packet)


Put = Callable[[bytes, dict[str, Any]], bool]


def options(format: str, exif: bytes | None, xmp: bytes | None) -> tuple[dict[str, Any], list[str]]:
    """(arguments of Pillow's save that take EXIF and XMP along, names of what this format has no place for)."""
    found: dict[str, Any] = {}
    left = []
    for name, data, ways in (("EXIF", exif, _EXIF), ("XMP", xmp, _XMP)):
        put = ways.get(format, lambda data, found: False)
        if data and not put(data, found):
            left.append(name)
    return found, left


def _as(name: str, before: bytes = b"", most: float = float("inf")) -> Put:
    """As the argument of this name, where that and what stands before it in the file are not too long together."""

    def put(data: bytes, found: dict[str, Any]) -> bool:
        fits = len(before) + len(data) <= most
        if fits:
            found[name] = before + data if name == "exif" else data  # before XMP Pillow writes it
        return fits

    return put


def _avif_exif(data: bytes, found: dict[str, Any]) -> bool:
    readable = _loaded(data) is not None  # Pillow reads what it writes there
    return readable and _as("exif")(data, found)


def _tiff_exif(data: bytes, found: dict[str, Any]) -> bool:
    tags = _loaded(data)
    if tags is not None:
        found["exif"] = about(tags)
    return tags is not None


def _tiff_xmp(data: bytes, found: dict[str, Any]) -> bool:
    found.setdefault("exif", Image.Exif())[ExifTags.Base.XMLPacket] = data
    return True


def _png_xmp(data: bytes, found: dict[str, Any]) -> bool:
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    try:
        text.add_itxt("XML:com.adobe.xmp", data.decode())
    except UnicodeDecodeError:
        return False
    found["pnginfo"] = text
    return True


# By Pillow's name of a format: what adds one or the other to save's arguments, if the format has a place for it.
_EXIF: dict[str, Put] = {
    "JPEG": _as("exif", MARKER, JPEG_MOST),
    "PNG": _as("exif"),
    "WEBP": _as("exif"),
    "AVIF": _avif_exif,
    "TIFF": _tiff_exif,
}
_XMP: dict[str, Put] = {
    "JPEG": _as("xmp", b"http://ns.adobe.com/xap/1.0/\0", JPEG_MOST),
    "PNG": _png_xmp,
    "WEBP": _as("xmp"),
    "AVIF": _as("xmp"),
    "TIFF": _tiff_xmp,
}


def _loaded(exif: bytes) -> Image.Exif | None:
    tags = Image.Exif()
    try:
        tags.load(exif)
        tags.tobytes()
    except DAMAGE:
        return None
    return tags


def in_rgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """An image of mode CMYK or LAB with a profile, converted through it to sRGB; any other as it is.

    A profile that cannot be used is a warning, and no reason to refuse the picture.
    """
    if not icc or icc[16:20] != PROFILES.get(image.mode):
        return image
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        converted = ImageCms.profileToProfile(image, profile, srgb, intent, "RGB")
    except (ImportError, OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        warnings.warn(f"{image.mode} pixels are converted without their profile: {error}", stacklevel=3)
        return image
    assert converted is not None  # it is of what is converted in place
    return converted
