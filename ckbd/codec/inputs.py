"""What encode() and decode() take, checked: images, a quality for each, an effort; streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from ckbd.codec import image
from ckbd.codec.image import Picture

AnyImage = Image.Image | np.ndarray | Picture | torch.Tensor
Quality = float | Sequence[float]


def pictures_and_qualities(
    images: Sequence[AnyImage], quality: Quality, max_pixels: int
) -> tuple[list[Picture], list[float]]:
    """Pictures, and a quality for each. Raises TypeError for a single image, ValueError for one that is too large."""
    several = isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4
    if isinstance(images, (Image.Image, np.ndarray, Picture, torch.Tensor)) and not several:
        raise TypeError("images: expected a sequence of images, got a single one")
    pictures = [image.as_picture(i) for i in images]
    values = qualities(quality, len(pictures))
    for picture in pictures:
        if picture.width * picture.height > max_pixels:
            raise ValueError(
                f"image: {picture.width} x {picture.height} pixels are more than the limit of "
                f"{max_pixels} (max_pixels)"
            )
    return pictures, values


def qualities(quality: Quality, count: int) -> list[float]:
    """count qualities from 1 to 100 in steps of 1/2, of one number for all or one for each; ValueError otherwise."""
    if isinstance(quality, Iterable) and not isinstance(quality, str):
        values = [float(q) for q in quality]
    else:
        values = [float(quality)] * count
    if len(values) != count:
        raise ValueError(f"quality: expected one number or {count} of them, got {len(values)}")
    for q in values:
        if not 1 <= q <= 100:
            raise ValueError(f"quality: expected 1 to 100, got {q:g}")
    return [round(2 * q) / 2 for q in values]


def effort_of(effort: int | None, known: tuple[int, ...]) -> int:
    """The effort that is asked for, the last of those known for None; ValueError for another."""
    if effort is None:
        return known[-1]
    if isinstance(effort, bool) or effort not in known:
        raise ValueError(f"effort: expected {' or '.join(map(str, known))}, got {effort!r}")
    return effort


def several(streams: Sequence[bytes]) -> Sequence[bytes]:
    """Streams as they are; TypeError for the bytes of a single one, which are a sequence, too."""
    if isinstance(streams, (bytes, bytearray, memoryview)):
        raise TypeError("streams: expected a sequence of streams, got the bytes of one")
    return streams
