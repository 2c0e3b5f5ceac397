"""8-bit pictures to the tensors that the networks see, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from ckbd.codec.image import Picture


def to_tensor(pictures: Sequence[Picture]) -> torch.Tensor:
    """float32 (B, 3, H, W) in [0, 1] of pictures that have one size; raises ValueError if they differ."""
    sizes = {(picture.height, picture.width) for picture in pictures}
    if len(sizes) != 1:
        raise ValueError(f"pictures: expected one size (height, width), got {sorted(sizes)}")
    stacked = np.stack([picture.rgb for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous().float().div_(255)


def from_tensor(x: torch.Tensor, gray: Sequence[bool] | None = None) -> list[Picture]:
    """Pictures of x, floating point (B, 3, H, W), clamped to [0, 1] and rounded to 8 bits.

    gray: for each picture, whether it has no colour: its channels are then averaged. None: all have.
    """
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"x: expected (B, 3, H, W), got {tuple(x.shape)}")
    gray = [False] * len(x) if gray is None else list(gray)
    if len(gray) != len(x):
        raise ValueError(f"gray: expected {len(x)} values, got {len(gray)}")
    pictures = []
    for planes, is_gray in zip(x.detach(), gray, strict=True):
        rgb = np.empty((*planes.shape[1:], 3), np.uint8)
        put(rgb, planes, is_gray)
        pictures.append(Picture(rgb, gray=is_gray))
    return pictures


def put(rgb: np.ndarray, planes: torch.Tensor, gray: bool = False) -> None:
    """Writes planes, floating point (3, H, W), to the corner of uint8 pixels (h, w, 3) as far as both go.

    Clamped to [0, 1], the channels averaged if gray, and rounded to 8 bits; planes of uint8 are all that already.
    """
    height, width = min(planes.shape[1], rgb.shape[0]), min(planes.shape[2], rgb.shape[1])
    planes = planes[:, :height, :width]
    if planes.dtype != torch.uint8:
        planes = planes.float().clamp(0, 1)
        if gray:
            planes = planes.mean(0, keepdim=True).expand(3, -1, -1).contiguous()
        planes = planes.mul_(255).round_().to(torch.uint8)
    torch.from_numpy(rgb[:height, :width]).copy_(planes.permute(1, 2, 0))


def pad(x: torch.Tensor, multiple: int = 64) -> torch.Tensor:
    """x (B, C, H, W) grown at the bottom and right to multiples, by repeating its last row and column."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
