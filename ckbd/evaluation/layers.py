"""What a page shows of a picture: its pixels, ckbd's, and rivals' files of at most as many bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, features

from ckbd.codec import image
from ckbd.codec.image import Picture
from ckbd.codec.machine import Each
from ckbd.evaluation.evaluate import Codec
from ckbd.evaluation.metrics import measure
from ckbd.evaluation.rivals import at_size, decode

# What a viewer's rival is called -> the rivals of which the better one is shown.
SHOWN = {"jpeg": ("jpeg-420", "jpeg-444"), "webp": ("webp",), "avif": ("avif",)}
MOST_PIXELS = 1 << 21  # of a picture that is shown whole
SIDE = 1024  # of a cut
STEPS = 8  # places of a cut that are looked at, along each side


@dataclass
class Layer:
    """One of the pictures that lie on each other.

    name: "original", "ckbd" or a rival's. made: how, in words. size: bytes of stream or file, None of the original.
    fits: whether that is at most as many as ckbd's. values: as ckbd.evaluation.metrics.measure has them, of the whole
    picture; empty for the original. data: a rival's file, to be shown as it is; None where pixels are shown, which
    then are those of `pixels`, a lossless file.
    """

    name: str
    made: str
    size: int | None = None
    fits: bool = True
    values: dict[str, float | None] = field(default_factory=dict)
    data: bytes | None = None
    pixels: Path | None = None


@dataclass
class Shot:
    """A picture's layers, the original first and ckbd second, and what is missing: {rival: why}.

    cut: (x, y, width, height) of the part that the layers show, or None if it is all.
    """

    name: str
    width: int
    height: int
    cut: tuple[int, int, int, int] | None
    layers: list[Layer]
    missing: dict[str, str]


def shown(rivals: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{name in the viewer: rivals to take the better one of}, of the rivals that were measured."""
    found = {name: tuple(one for one in ones if one in rivals) for name, ones in SHOWN.items()}
    return {name: ones for name, ones in found.items() if ones}


def cut_of(rgb: np.ndarray) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) of the part of uint8 (H, W, 3) to be shown, None if it can be shown whole.

    Among up to STEPS x STEPS places the one where the green of neighbours differs most.
    """
    height, width, _ = rgb.shape
    # A picture that is long and thin has few pixels, and yet may have a side that WebP has no room for.
    if height * width <= MOST_PIXELS and max(height, width) <= image.SIDES["WEBP"]:
        return None
    size_y, size_x = min(SIDE, height), min(SIDE, width)
    places = [
        (y, x)
        for y in np.unique(np.linspace(0, height - size_y, STEPS).astype(int))
        for x in np.unique(np.linspace(0, width - size_x, STEPS).astype(int))
    ]

    def detail(place: tuple[int, int]) -> float:
        y, x = place
        green = rgb[y : y + size_y, x : x + size_x, 1].astype(np.float32)
        return float(sum(np.square(np.diff(green, axis=axis)).sum() for axis in (0, 1)))

    y, x = max(places, key=detail)
    return int(x), int(y), size_x, size_y


def collect(
    codec: Codec,
    path: Path,
    name: str,
    rivals: Sequence[str],
    *,
    quality: float,
    effort: int | None,
    metrics: Sequence[str],
    each: Each,
    folder: Path,
) -> Shot:
    """A picture file's layers, called by a name.

    rivals: names of RIVALS, whose files are made through each. folder: an empty one, where the pixels that are to be
    shown are left in lossless files. Raises ValueError for a file that is no picture.
    """
    try:
        picture = image.read(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    picture = Picture(picture.rgb, gray=picture.gray)
    rgb = picture.rgb
    (stream,) = codec.encode([picture], quality, effort)
    (decoded,) = codec.decode_pictures([stream])
    cut = cut_of(rgb)

    def keep(pixels: np.ndarray) -> Path:
        if cut:
            x, y, width, height = cut
            pixels = pixels[y : y + height, x : x + width]
        file = folder / str(len(os.listdir(folder)))
        file.write_bytes(lossless(pixels))
        return file

    values = measure(rgb, decoded.rgb, metrics)
    layers = [
        Layer("original", "the file's pixels", pixels=keep(rgb)),
        Layer("ckbd", f"quality {quality:g}", len(stream), True, values, pixels=keep(decoded.rgb)),
    ]
    made = each(partial(_rival, rgb, len(stream), metrics), list(shown(rivals).items()))
    found = [layer for layer in made if isinstance(layer, Layer)]
    for layer in found:
        if cut and layer.data:
            layer.pixels, layer.data = keep(decode(layer.data)), None
    missing = {name: str(why) for name, why in zip(shown(rivals), made, strict=True) if not isinstance(why, Layer)}
    return Shot(name, picture.width, picture.height, cut, [*layers, *found], missing)


def _rival(
    rgb: np.ndarray, nbytes: int, metrics: Sequence[str], rival: tuple[str, Sequence[str]]
) -> Layer | OSError | ValueError:
    """The file of at most nbytes bytes that is nearest to rgb, of rivals under one name, or what they raised.

    The smallest if none fits.
    """
    name, ones = rival
    try:
        one, setting, data = at_size(ones, rgb, nbytes)
    except (OSError, ValueError) as error:
        return error
    made = f"quality {setting:.3g}"
    if one.startswith("jpeg-"):
        made += f", {':'.join(one.removeprefix('jpeg-'))}"
    return Layer(name, made, len(data), len(data) <= nbytes, measure(rgb, decode(data), metrics), data)


def lossless(rgb: np.ndarray) -> bytes:
    """A file of exactly these pixels, uint8 (H, W, 3): WebP, or PNG where Pillow lacks that."""
    if features.check("webp"):
        return _file(rgb, format="WEBP", lossless=True, quality=20, method=2)
    return _file(rgb, format="PNG")


@dataclass(frozen=True)
class Ladder:
    """How pixels are made smaller to be shown: a format by the name that people know, and its way to write."""

    name: str
    options: Callable[[int], dict[str, object]]

    def encode(self, rgb: np.ndarray, quality: int) -> bytes:
        """A file that looks like uint8 (H, W, 3)."""
        return _file(rgb, **self.options(quality))


def ladder() -> Ladder:
    """The best that this Pillow has: AVIF, else WebP, else JPEG."""
    if features.check("avif"):
        more = {"format": "AVIF", "subsampling": "4:4:4", "speed": 6, "max_threads": 1}
        return Ladder("AVIF 4:4:4", lambda quality: more | {"quality": quality})
    if features.check("webp"):
        return Ladder("WebP", partial(_quality, "WEBP"))
    return Ladder("JPEG", partial(_quality, "JPEG"))


def _quality(format: str, quality: int) -> dict[str, object]:
    return {"format": format, "quality": quality}


def _file(rgb: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, **options)  # type: ignore[arg-type]
    return file.getvalue()


def media_type(data: bytes) -> str:
    """Of a file of one of the formats that a page may hold, by its first bytes."""
    starts = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}
    return next((kind for start, kind in starts.items() if data.startswith(start)), "image/avif")


def pixel_layers(shots: Sequence[Shot]) -> Iterator[tuple[int, int, Path]]:
    """(number of the shot, number of its layer, lossless file) of all layers that are shown by their pixels."""
    for i, shot in enumerate(shots):
        for j, layer in enumerate(shot.layers):
            if layer.pixels is not None:
                yield i, j, layer.pixels
