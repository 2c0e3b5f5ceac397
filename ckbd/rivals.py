"""The codecs that Pillow carries, as ckbd is compared with them: RGB pixels to bytes at a setting, and back.

No container is padded or stripped by hand: the bytes counted are those of a file that anyone can open. Each
codec is asked for its better effort (optimised Huffman tables, WebP method 6, AVIF speed 4, the colour
transform of JPEG 2000).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, features


@dataclass(frozen=True)
class Rival:
    """A codec of Pillow.

    encode: (rgb uint8 (H, W, 3), setting) -> bytes.
    settings: a ladder from about 0.1 to 2 bpp on photographs; a quality, for JPEG 2000 a rate in bpp.
    feature: the name under which PIL.features knows the library.
    """

    encode: Callable[[np.ndarray, float], bytes]
    settings: tuple[float, ...]
    feature: str


def _save(rgb: np.ndarray, **options: object) -> bytes:
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

RIVALS = {
    "jpeg-420": Rival(_jpeg("4:2:0"), _JPEG_QUALITIES, "jpg"),
    "jpeg-444": Rival(_jpeg("4:4:4"), _JPEG_QUALITIES, "jpg"),
    "jpeg2000": Rival(_jpeg2000, (0.08, 0.12, 0.18, 0.27, 0.4, 0.6, 0.85, 1.2, 1.6, 2.1), "jpg_2000"),
    "webp": Rival(_webp, (0, 2, 5, 12, 25, 40, 55, 70, 80, 87), "webp"),
    "avif": Rival(_avif, (3, 10, 18, 26, 34, 42, 50, 60, 70, 80), "avif"),
}


def why_absent(name: str) -> str | None:
    """Why this Pillow cannot run a rival, or None if it can."""
    if features.check(RIVALS[name].feature):
        return None
    return f"Pillow {Image.__version__} here was built without {RIVALS[name].feature}"


def decode(data: bytes) -> np.ndarray:
    """The pixels of any rival's bytes, uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def jpeg_at_size(rgb: np.ndarray, nbytes: int) -> bytes:
    """The JPEG of at most nbytes bytes that is nearest to rgb, uint8 (H, W, 3).

    For 4:2:0 and 4:4:4 each the highest quality that fits is searched for, and the one with the smaller
    squared error is returned. If not even quality 1 fits, the smaller of the two at quality 1: compare its
    length with nbytes.
    """
    candidates = []
    for subsampling in ("4:2:0", "4:4:4"):
        encode = _jpeg(subsampling)
        low, high, best = 1, 100, encode(rgb, 1)
        while low < high:
            quality = (low + high + 1) // 2
            data = encode(rgb, quality)
            if len(data) <= nbytes:
                low, best = quality, data
            else:
                high = quality - 1
        candidates.append(best)
    fitting = [data for data in candidates if len(data) <= nbytes]
    if not fitting:
        return min(candidates, key=len)
    return min(fitting, key=lambda data: np.mean((decode(data) - rgb.astype(np.float64)) ** 2))
