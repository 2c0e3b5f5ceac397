"""The codecs that Pillow carries, as ckbd is compared with them: RGB pixels to bytes at a setting, and back.

No container is padded or stripped by hand: the bytes counted are those of a file that anyone can open. Each
codec is asked for its better effort (optimised Huffman tables, WebP method 6, AVIF speed 4, the colour
transform of JPEG 2000).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFile, features


@dataclass(frozen=True)
class Rival:
    """A codec of Pillow.

    encode: (rgb uint8 (H, W, 3), setting) -> bytes.
    settings: a ladder from about 0.1 to 2 bpp on photographs; a quality, for JPEG 2000 a rate in bpp.
    feature: the name under which PIL.features knows the library.
    every: all settings to search in, from the smallest file up.
    """

    encode: Callable[[np.ndarray, float], bytes]
    settings: tuple[float, ...]
    feature: str
    every: tuple[float, ...]


def _save(rgb: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, **options)
    return file.getvalue()


def _jpeg(subsampling: str) -> Callable[[np.ndarray, float], bytes]:
    def encode(rgb: np.ndarray, quality: float) -> bytes:
        # Huffman optimisation needs the whole file in one buffer; Pillow's guess of a byte a pixel is too
        # small for noise, and its own remedy is this module-wide size, which only grows here.
        ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 2 * rgb.size)
        return _save(rgb, format="JPEG", quality=int(quality), subsampling=subsampling, optimize=True)

    return encode


def _jpeg2000(rgb: np.ndarray, bpp: float) -> bytes:
    # A raw codestream: the JP2 boxes around it would cost the rival 85 bytes an image for nothing measured
    # here.
    return _save(
        rgb,
        format="JPEG2000",
        no_jp2=True,
        irreversible=True,
        mct=1,
        quality_mode="rates",
        quality_layers=[24 / bpp],
    )


def _webp(rgb: np.ndarray, quality: float) -> bytes:
    return _save(rgb, format="WEBP", quality=quality, method=6)


def _avif(rgb: np.ndarray, quality: float) -> bytes:
    return _save(rgb, format="AVIF", quality=int(quality), subsampling="4:4:4", speed=4, max_threads=1)


_JPEG_QUALITIES = (1, 3, 5, 8, 12, 18, 26, 36, 50, 65, 78, 88, 93)
_WHOLE = tuple(range(101))
# WebP's quantiser follows the cube root of quality (bent at 75): these qualities move it by equal steps of a half.
_CUBES = tuple(150 * (n / 254) ** 3 if n < 202 else 50 + 50 * (n / 254) ** 3 for n in range(255))
_RATES = tuple(0.01 * 1.03**n for n in range(260))  # to 21 bpp

RIVALS = {
    "jpeg-420": Rival(_jpeg("4:2:0"), _JPEG_QUALITIES, "jpg", _WHOLE[1:]),
    "jpeg-444": Rival(_jpeg("4:4:4"), _JPEG_QUALITIES, "jpg", _WHOLE[1:]),
    "jpeg2000": Rival(_jpeg2000, (0.08, 0.12, 0.18, 0.27, 0.4, 0.6, 0.85, 1.2, 1.6, 2.1), "jpg_2000", _RATES),
    "webp": Rival(_webp, (0, 2, 5, 12, 25, 40, 55, 70, 80, 87), "webp", _CUBES),
    "avif": Rival(_avif, (3, 10, 18, 26, 34, 42, 50, 60, 70, 80), "avif", _WHOLE),
}
WOBBLE = 2  # settings beside the one that bisection ends on, tried because sizes do not climb strictly


def why_absent(name: str) -> str | None:
    """Why this Pillow cannot run a rival, or None if it can."""
    if features.check(RIVALS[name].feature):
        return None
    return f"Pillow {Image.__version__} here was built without {RIVALS[name].feature}"


def decode(data: bytes) -> np.ndarray:
    """The pixels of any rival's bytes, uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def largest_within(encode: Callable[[float], bytes], settings: Sequence[float], nbytes: int) -> tuple[float, bytes]:
    """(setting, bytes) of the largest file of at most nbytes bytes, or of the smallest if none fits: see its length.

    Sizes must climb with the settings but for a wobble: after bisection WOBBLE settings on both sides are tried too.
    Of equal sizes that fit the higher setting is taken.
    """
    files: dict[int, bytes] = {}

    def fits(i: int) -> bool:
        files[i] = encode(settings[i])
        return len(files[i]) <= nbytes

    low, high = -1, len(settings)  # settings up to low fit, those from high on do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    for i in range(max(low - WOBBLE, 0), min(high + WOBBLE + 1, len(settings))):
        if i not in files:
            fits(i)
    within = [i for i, data in files.items() if len(data) <= nbytes]
    if within:
        best = max(within, key=lambda i: (len(files[i]), i))
    else:
        best = min(files, key=lambda i: (len(files[i]), i))
    return settings[best], files[best]


def at_size(names: Sequence[str], rgb: np.ndarray, nbytes: int) -> tuple[str, float, bytes]:
    """(name, setting, bytes): the file of at most nbytes bytes, of these rivals', that is nearest to rgb.

    rgb: uint8 (H, W, 3). Each rival gives its largest file that fits; the smallest squared error wins. If none
    fits, the smallest file of all: compare its length with nbytes.
    """
    found = [(name, *largest_within(partial(RIVALS[name].encode, rgb), RIVALS[name].every, nbytes)) for name in names]
    fitting = [one for one in found if len(one[2]) <= nbytes]
    if not fitting:
        return min(found, key=lambda one: len(one[2]))
    return min(fitting, key=lambda one: np.mean((decode(one[2]) - rgb.astype(np.float64)) ** 2))


def jpeg_at_size(rgb: np.ndarray, nbytes: int) -> bytes:
    """at_size of JPEG with 4:2:0 and with 4:4:4: the bytes alone."""
    return at_size(("jpeg-420", "jpeg-444"), rgb, nbytes)[2]
