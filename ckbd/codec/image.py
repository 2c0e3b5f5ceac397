"""Image files to 8-bit pictures and back, without torch.

Only the first frame of an animated or multi-page file is read. EXIF orientation is applied to the pixels; of
the metadata EXIF and XMP are kept, and an ICC profile that still describes the pixels.
"""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ckbd.codec import limits
from ckbd.codec.files import metadata, output
from ckbd.forks import Lock

SUFFIXES = tuple(".png .jpg .jpeg .jfif .webp .avif .tif .tiff .bmp .gif .jp2 .j2k .ppm .pgm .pbm .pnm".split())
"""Suffixes (lower case) of the files looked for in a folder, and of those that a picture is written to."""

# Formats, as Pillow calls them, to which it writes alpha, and ICC profiles.
TRANSPARENT = ("PNG", "WEBP", "AVIF", "TIFF", "JPEG2000")
PROFILED = ("PNG", "WEBP", "AVIF", "TIFF", "JPEG")
SIDES = {"JPEG": 65500, "WEBP": 16383, "GIF": 65535}
"""The longest sides that Pillow's writers have room for, of those that say it less clearly."""

# What is read, as Pillow calls it: the formats of SUFFIXES. It knows many more, by readers that hardly anybody looks
# at, and one that runs a program (EPS: Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP", "AVIF", "TIFF", "JPEG2000")

Source = str | os.PathLike[str] | IO[bytes]
_OPENING = Lock()


@dataclass
class Picture:
    """One image as the codec takes it and gives it.

    rgb: uint8 (H, W, 3), H and W at least 1; where gray is set the three channels are equal.
    alpha: uint8 (H, W), 255 opaque, or None if every pixel is opaque.
    gray: the picture has no colour and is written with one channel.
    icc: an ICC profile that describes the pixels (an RGB one, or a gray one if gray), or None.
    exif: EXIF data from its TIFF header on, xmp: an XMP packet, both without an orientation of their own, or None.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def __post_init__(self) -> None:
        _check(self.rgb, "rgb", self.rgb.ndim == 3 and self.rgb.shape[-1] == 3 and self.rgb.size, "(H, W, 3)")
        if self.alpha is not None:
            _check(self.alpha, "alpha", self.alpha.shape == self.rgb.shape[:2], f"{self.rgb.shape[:2]}")

    @property
    def height(self) -> int:
        return self.rgb.shape[0]

    @property
    def width(self) -> int:
        return self.rgb.shape[1]


def strip(picture: Picture) -> Picture:
    """The picture without EXIF and XMP, which change no pixel; the profile stays."""
    return dataclasses.replace(picture, exif=None, xmp=None)


def _check(array: np.ndarray, name: str, fits: bool | int, shape: str) -> None:
    if array.dtype != np.uint8 or not fits:
        raise ValueError(f"{name}: expected a uint8 array {shape}, got {array.dtype} {array.shape}")


def from_array(array: np.ndarray) -> Picture:
    """A picture of pixels (H, W) or (H, W, 1), gray, (H, W, 3), RGB, or (H, W, 2) or (H, W, 4), with alpha last.

    uint8, or uint16, which is rounded to 8 bits, or bool, black and white. Raises ValueError for any other array.
    """
    array = np.asarray(array)
    if array.dtype.kind == "f":
        raise ValueError(
            f"array: expected uint8, uint16 or bool, got {array.dtype}; where 1 is white "
            "(x * 255).round().clip(0, 255).astype(np.uint8) converts x"
        )
    if array.dtype == bool:
        array = array * np.uint8(255)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = narrowed(array)
    pixels = array[:, :, None] if array.ndim == 2 else array
    fits = pixels.size and pixels.ndim == 3 and pixels.shape[2] <= 4
    _check(array, "array", fits, "(H, W) or (H, W, channels) with 1 to 4 channels")
    gray, alpha = pixels.shape[2] < 3, pixels[:, :, -1] if pixels.shape[2] in (2, 4) else None
    rgb = np.repeat(pixels[:, :, :1], 3, axis=2) if gray else np.ascontiguousarray(pixels[:, :, :3])
    return Picture(rgb, None if alpha is None or alpha.min() == 255 else alpha, gray)


def narrowed(wide: np.ndarray) -> np.ndarray:
    """uint8 of integers in 0..65535, rounded."""
    return ((wide.astype(np.int32) * 255 + 32767) // 65535).astype(np.uint8)


def from_pil(image: Image.Image) -> Picture:
    """A picture of any Pillow image but a floating-point one.

    Turned upright by its EXIF orientation; 16-bit gray is rounded to 8 bits, whatever has another colour space than
    gray or RGB is converted to RGB, CMYK and LAB through their profile. EXIF and XMP are those of image.info.
    Raises ValueError for mode F and for mode I beyond 16 bits.
    """
    image.load()  # Pillow turns TIFF files as it does so
    if image.mode == "P" and image.palette is None:
        raise ValueError("places in a palette (mode P) without the palette")
    icc, (exif, xmp) = image.info.get("icc_profile"), metadata.of(image)
    icc = icc if isinstance(icc, bytes) else None  # TIFF files may have numbers there
    image = metadata.in_rgb(_upright(image), icc)
    if image.mode == "F":
        raise ValueError("floating-point pixels (mode F): the range meant for black to white is unknown")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("LA" if gray else "RGBA")
        alpha = np.array(image.getchannel("A"))
    else:
        alpha = None
    picture = from_array(np.array(image.convert("L" if gray else "RGB")))
    if alpha is not None and alpha.min() < 255:
        picture.alpha = alpha
    # Bytes 16 to 19 of a profile name its colour space; after a conversion it describes pixels that are gone.
    if icc is not None and icc[16:20] == (b"GRAY" if gray else b"RGB "):
        picture.icc = icc
    picture.exif, picture.xmp = exif, xmp
    return picture


def _upright(image: Image.Image) -> Image.Image:
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(metadata.orientation(image))
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """L or LA from the 16-bit gray modes, I;16 and its byte orders, and I."""
    wide = np.asarray(image).astype(np.int32)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError(f"mode {image.mode}: expected values 0..65535, got {wide.min()}..{wide.max()}")
    narrow = Image.fromarray(narrowed(wide))
    # Matched before rounding: 256 neighbours would otherwise turn transparent with it.
    if "transparency" in image.info:
        narrow.putalpha(Image.fromarray(np.where(wide == image.info["transparency"], 0, 255).astype(np.uint8)))
    return narrow


def to_pil(picture: Picture) -> Image.Image:
    """A Pillow image of mode RGB, L, RGBA or LA, with profile, EXIF and XMP in its info, where Pillow has them."""
    image = Image.fromarray(picture.rgb)
    if picture.gray:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    if picture.icc is not None:
        image.info["icc_profile"] = picture.icc
    if picture.exif is not None:
        image.info["exif"] = metadata.MARKER + picture.exif
    if picture.xmp is not None:
        image.info["xmp"] = picture.xmp
    return image


def read(path: Source, max_pixels: int = limits.MAX_PIXELS) -> Picture:
    """The picture in an image file, its path or the file itself, by its contents, not its suffix: one of FORMATS.

    Raises OSError if it cannot be read, ValueError if it is no image, damaged, not to be had in 8 bits, or larger, as
    its header says, than max_pixels or than Pillow's own limit of safety (PIL.Image.MAX_IMAGE_PIXELS).
    """
    with ExitStack() as stack:
        try:
            # The warning that Pillow gives about size is made an error through the process's warning filters, which
            # several threads at once would leave as none of them has found them.
            with _OPENING.held(), warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = stack.enter_context(Image.open(path, formats=FORMATS))
            refuse_excess(image, max_pixels)
            image.load()
        except UnidentifiedImageError as error:
            raise ValueError(f"no image of a kind that is read here ({', '.join(FORMATS)})") from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            limit = Image.MAX_IMAGE_PIXELS
            raise ValueError(f"more than {limit} pixels, the limit PIL.Image.MAX_IMAGE_PIXELS") from error
        except (OSError, ValueError, MemoryError):
            raise
        except Exception as error:  # Pillow's readers have run into what they did not expect
            raise ValueError(f"damaged image file: {error or type(error).__name__}") from error
        return from_pil(image)


def refuse_excess(image: Image.Image | Picture, max_pixels: int) -> None:
    """Raises ValueError for an image, which need not have been loaded, of more than max_pixels."""
    if reason := limits.excess(image.width, image.height, max_pixels):
        raise ValueError(f"image: {reason}")


def find(
    folder: str | os.PathLike[str],
    suffixes: Sequence[str] = SUFFIXES,
    onerror: Callable[[OSError], object] | None = None,
) -> list[Path]:
    """The files below a folder, sorted, whose suffix is one of these (lower case); not the hidden ones.

    onerror: called of a folder that cannot be read, which is left out.
    """
    paths = []
    for parent, folders, names in os.walk(folder, onerror=onerror):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return [path for path in paths if path.suffix.lower() in suffixes]


def write(path: str | os.PathLike[str], picture: Picture, **options: Any) -> list[str]:
    """Write an image file in the format of the suffix (PNG if there is none), as write_to does.

    The file appears whole or not at all. Raises also ValueError for a suffix that Pillow cannot write.
    """
    path = Path(path)
    format = format_of(path.suffix.lower() or ".png")
    with output.writing(path) as file:
        return write_to(file, picture, format, **options)


def format_of(suffix: str) -> str:
    """Pillow's name of the format of a suffix (lower case, with its dot). Raises ValueError if it writes none."""
    format = Image.registered_extensions().get(suffix)
    if format is None or format not in Image.SAVE:
        raise ValueError(f"this Pillow writes no {suffix} files")
    return format


def write_to(file: IO[bytes], picture: Picture, format: str, **options: Any) -> list[str]:
    """Write an image file of a format to a file; options go to Pillow's save.

    ICC profile, EXIF and XMP go along where the format has a place for them; what it is known to have none for is
    named in what is returned. Raises OSError for a picture that the format cannot hold. PNG goes through zlib's
    run-length strategy unless there are options: on decoded photographs it takes a quarter of the default's time and
    up to 3 % more bytes (bench/RESULTS.md).
    """
    if format == "PNG" and not options:
        options = {"compress_level": 1, "compress_type": zlib.Z_RLE}
    if picture.alpha is not None and format not in TRANSPARENT:
        raise OSError(f"{format} files have no transparency (png, webp, avif, tiff and jp2 do)")
    side = max(picture.width, picture.height)
    if side > SIDES.get(format, side):
        raise OSError(f"{format} files have at most {SIDES[format]} pixels a side, the picture has {side}")
    extra, left = metadata.options(format, picture.exif, picture.xmp)
    icc = picture.icc
    # WebP has no gray: a profile of it would not fit.
    if icc and (format not in PROFILED or (picture.gray and format == "WEBP")):
        icc, left = None, ["the profile", *left]
    options = {"icc_profile": icc} | extra | options
    try:
        to_pil(dataclasses.replace(strip(picture), icc=icc)).save(file, format=format, **options)
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # as reading
        size = f"{picture.width} x {picture.height} pixels"
        raise OSError(
            f"{format} files cannot hold this picture of {size}: {error or type(error).__name__}"
        ) from error
    return left


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB over all samples of two uint8 arrays of one shape.

    Equal arrays have 100 dB and none has more, so that means over images stay finite.
    """
    if a.shape != b.shape or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"a, b: expected uint8 of one shape, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    # In integers and a part at a time: exact, and without eight bytes a sample of a large picture.
    flat, step = (a.reshape(-1), b.reshape(-1)), 1 << 20
    parts = ([one[n : n + step].astype(np.int32) for one in flat] for n in range(0, a.size, step))
    mse = sum(int(np.square(one - other).sum(dtype=np.int64)) for one, other in parts) / max(a.size, 1)
    return min(10 * math.log10(255**2 / mse), 100.0) if mse else 100.0
