"""Image files to 8-bit pictures and back, without torch.

Only the first frame of an animated or multi-page file is read. EXIF orientation is applied to the pixels; of
the metadata only an ICC profile that still describes them is kept.
"""

from __future__ import annotations

import math
import os
import secrets
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

SUFFIXES = tuple(".png .jpg .jpeg .jfif .webp .avif .tif .tiff .bmp .gif .jp2 .j2k .ppm .pgm .pbm .pnm".split())
"""Suffixes (lower case) of the files looked for in a folder, and of those that a picture is written to."""


Source = str | os.PathLike[str] | IO[bytes]
_OPENING = threading.Lock()


@dataclass
class Picture:
    """One image as the codec takes it and gives it.

    rgb: uint8 (H, W, 3), H and W at least 1; where gray is set the three channels are equal.
    alpha: uint8 (H, W), 255 opaque, or None if every pixel is opaque.
    gray: the picture has no colour and is written with one channel.
    icc: an ICC profile that describes the pixels (an RGB one, or a gray one if gray), or None.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    icc: bytes | None = None

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


def _check(array: np.ndarray, name: str, fits: bool | int, shape: str) -> None:
    if array.dtype != np.uint8 or not fits:
        raise ValueError(f"{name}: expected a uint8 array {shape}, got {array.dtype} {array.shape}")


def from_array(array: np.ndarray) -> Picture:
    """A picture of uint8 pixels (H, W, 3), or gray (H, W). Raises ValueError for any other array."""
    array = np.asarray(array)
    gray = array.ndim == 2
    _check(
        array,
        "array",
        array.size and (gray or (array.ndim == 3 and array.shape[2] == 3)),
        "(H, W, 3) or (H, W)",
    )
    return Picture(np.repeat(array[:, :, None], 3, axis=2) if gray else array, gray=gray)


def from_pil(image: Image.Image) -> Picture:
    """A picture of any Pillow image but a floating-point one.

    Turned upright by its EXIF orientation; 16-bit gray is rounded to 8 bits, whatever has another colour
    space than gray or RGB is converted to RGB. Raises ValueError for mode F and for mode I beyond 16 bits.
    """
    icc, image = image.info.get("icc_profile"), _upright(image)
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
    return picture


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    # What Pillow raises over damaged EXIF data. Viewers show such a photo as it is stored; so it is taken
    # here.
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):
        orientation = None
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation or 1)
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """L or LA from the 16-bit gray modes, I;16 and its byte orders, and I."""
    wide = np.asarray(image).astype(np.int32)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError(f"mode {image.mode}: expected values 0..65535, got {wide.min()}..{wide.max()}")
    narrow = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    # Matched before rounding: 256 neighbours would otherwise turn transparent with it.
    if "transparency" in image.info:
        narrow.putalpha(Image.fromarray(np.where(wide == image.info["transparency"], 0, 255).astype(np.uint8)))
    return narrow


def to_pil(picture: Picture) -> Image.Image:
    """A Pillow image of mode RGB, L, RGBA or LA, the ICC profile in its info."""
    image = Image.fromarray(picture.rgb)
    if picture.gray:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    if picture.icc is not None:
        image.info["icc_profile"] = picture.icc
    return image


def read(path: Source) -> Picture:
    """The picture in an image file, its path or the file itself, by its contents, not its suffix.

    Raises OSError if it cannot be read, ValueError if it is no image, damaged, larger than Pillow's own
    limit of safety (PIL.Image.MAX_IMAGE_PIXELS) or not to be had in 8 bits.
    """
    with ExitStack() as stack:
        try:
            # The warning that Pillow gives about size is made an error through the process's warning filters, which
            # several threads at once would leave as none of them has found them.
            with _OPENING, warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = stack.enter_context(Image.open(path))
            image.load()
        except UnidentifiedImageError as error:
            raise ValueError("no image of a kind that this Pillow reads") from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            limit = Image.MAX_IMAGE_PIXELS
            raise ValueError(f"more than {limit} pixels, the limit PIL.Image.MAX_IMAGE_PIXELS") from error
        # What Pillow's readers raise for damaged files besides OSError and ValueError.
        except (SyntaxError, TypeError, RuntimeError, EOFError, struct.error) as error:
            raise ValueError(f"damaged image file: {error}") from error
        return from_pil(image)


def find(folder: str | os.PathLike[str], suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The files below a folder, sorted, whose suffix is one of these (lower case); not the hidden ones."""
    paths = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return [path for path in paths if path.suffix.lower() in suffixes]


def write(path: str | os.PathLike[str], picture: Picture, **options: Any) -> None:
    """Write an image file in the format of the suffix (PNG if there is none); options go to Pillow's save.

    The file appears whole or not at all. The ICC profile goes along where the format has a place for it.
    Raises ValueError for a suffix that Pillow cannot write, OSError for a picture that the format cannot
    hold. PNG goes through zlib's run-length strategy unless there are options: on decoded photographs it takes
    a quarter of the default's time and up to 3 % more bytes (bench/RESULTS.md).
    """
    path = Path(path)
    suffix = path.suffix.lower() or ".png"
    format = Image.registered_extensions().get(suffix)
    if format not in Image.SAVE:
        raise ValueError(f"{path}: this Pillow writes no {suffix} files")
    if format == "PNG" and not options:
        options = {"compress_level": 1, "compress_type": zlib.Z_RLE}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        to_pil(picture).save(file, format=format, icc_profile=picture.icc, **options)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside path to write to: renamed to path at the end, removed on an exception.

    Raises OSError if path exists and is not a regular file (a device or a pipe would be replaced by a file).
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: not a regular file")
    temporary = path.with_name(f".{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB over all samples of two uint8 arrays of one shape.

    Equal arrays have 100 dB and none has more, so that means over images stay finite.
    """
    if a.shape != b.shape or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"a, b: expected uint8 of one shape, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    mse = float(np.mean((a.astype(np.float64) - b) ** 2))
    return min(10 * math.log10(255**2 / mse), 100.0) if mse else 100.0
