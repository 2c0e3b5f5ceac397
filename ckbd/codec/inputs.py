"""What encode() and decode() take, checked: images, a quality for each, an effort; streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ckbd.codec import image
from ckbd.codec.image import Picture

AnyImage = Image.Image | np.ndarray | Picture | Tensor
TENSORS = (torch.uint8, torch.uint16, torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64)
CHANNELS = 4  # of a tensor at the most
NEARLY = 0.5 / 255  # beyond [0, 1], what rounding to 8 bits makes nothing of
Quality = float | Sequence[float]


def from_torch(x: Tensor) -> Picture:
    """A picture of a tensor (C, H, W), (H, W, C) or, gray, (H, W), C from 1 to 4 as in ckbd.codec.image.from_array.

    uint8, uint16, bool, or floating point in [0, 1], which is rounded to 8 bits; on any device. Channels are first
    where the first size is 3, else last where the last is 3, else first where the first is at most 4. Raises
    ValueError for anything else, for values beyond [0, 1] and for NaN.
    """
    x = x.detach()
    if x.layout != torch.strided or x.device.type == "meta" or x.dtype not in TENSORS:
        raise ValueError(
            f"tensor: expected uint8, uint16, bool or floating point in [0, 1], got {x.dtype} {x.device}"
        )
    if x.ndim == 3 and (x.shape[0] == 3 or (x.shape[2] != 3 and x.shape[0] <= CHANNELS)):
        x = x.permute(1, 2, 0)
    if not x.numel() or not (x.ndim == 2 or (x.ndim == 3 and x.shape[2] <= CHANNELS)):
        raise ValueError(
            f"tensor: expected (C, H, W), (H, W, C) or (H, W), C from 1 to {CHANNELS}, got {tuple(x.shape)}"
        )
    if x.is_floating_point():
        low, high = float(x.min()), float(x.max())
        if not (low >= -NEARLY and high <= 1 + NEARLY):  # neither is so with a NaN
            near = low > -0.1 and high < 1.1
            hint = "; clamp(0, 1) makes them so" if near else "; 0 is to be black, 1 white"
            raise ValueError(f"tensor: expected values in [0, 1], got {low:.7g} to {high:.7g}{hint}")
        x = x.float().clamp(0, 1).mul(255).round_().to(torch.uint8)
    return image.from_array(x.cpu().contiguous().numpy())


def as_picture(source: AnyImage, max_pixels: int) -> Picture:
    """A Picture of any of the four kinds that encode takes; TypeError for anything else, ValueError for one that is
    too large: of a Pillow image, which may not have been loaded yet, before it is.
    """
    if isinstance(source, Image.Image):
        image.refuse_excess(source, max_pixels)
        return image.from_pil(source)
    if isinstance(source, (Picture, np.ndarray, Tensor)):
        picture = source if isinstance(source, Picture) else _of_array(source)
        image.refuse_excess(picture, max_pixels)
        return picture
    raise TypeError(f"image: expected a PIL image, a numpy array, a tensor or a Picture, got {type(source).__name__}")


def _of_array(array: np.ndarray | Tensor) -> Picture:
    return image.from_array(array) if isinstance(array, np.ndarray) else from_torch(array)


def pictures_and_qualities(
    images: Sequence[AnyImage], quality: Quality, max_pixels: int
) -> tuple[list[Picture], list[float]]:
    """Pictures, and a quality for each. Raises TypeError for a single image, ValueError for one that is too large."""
    several = isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4
    if isinstance(images, (Image.Image, np.ndarray, Picture, Tensor)) and not several:
        raise TypeError("images: expected a sequence of images, got a single one")
    pictures = [as_picture(i, max_pixels) for i in images]
    return pictures, qualities(quality, len(pictures))


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
