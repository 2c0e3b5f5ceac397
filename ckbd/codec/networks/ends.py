"""Other ends of g_s, for a picture at 1/2, 1/4 or 1/8 of its size: what a square of pixels is on average, at once.

`means` takes g_s to its last layer but one, and gives averages of what it would have painted. `preview` leaves it
out altogether: a linear map from the latents around each one, which a model file may hold (docs/pictures.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ckbd.model.config import PREVIEW_SIDE
from ckbd.model.transforms import Pixels, Pointwise, bias_of, channels_last

SQUARE, LATENT = 8, 16  # pixels of a side that a site makes in the last layer, and a latent in all


def means(last: Pointwise, shrink: int) -> list[nn.Module]:
    """Instead of the last layer of g_s and of Pixels: (B, C, h, w) -> (B, 3, 8 h / shrink, 8 w / shrink)."""
    weight, bias = _averaged(last.weight.flatten(1), bias_of(last), SQUARE, shrink)
    with torch.device("meta"):  # shapes alone; no number is drawn for them
        end = Pointwise(weight.shape[1], len(weight))
    return _stages(end, weight[..., None, None], bias)


def previewed(shrink: int) -> bool:
    """Whether preview() gives pictures that are so much smaller."""
    return LATENT % shrink == 0 and LATENT // shrink <= PREVIEW_SIDE


def preview(weight: Tensor, bias: Tensor, shrink: int) -> list[nn.Module]:
    """g_s at 1/4 or 1/8 in one layer: (B, M, h, w) -> (B, 3, 16 h / shrink, 16 w / shrink).

    weight (48, M, 3, 3), bias (48,): of a model file, for 4 x 4 pixels a latent, colour by colour.
    """
    weight, bias = _averaged(weight, bias, PREVIEW_SIDE, shrink * PREVIEW_SIDE // LATENT)
    with torch.device("meta"):
        end = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1)
    return _stages(end, weight, bias)


def _averaged(weight: Tensor, bias: Tensor, side: int, shrink: int) -> tuple[Tensor, Tensor]:
    """Of a layer that gives squares (3, side, side): that of the means of their squares of shrink x shrink."""
    n = side // shrink
    by_pixel = weight.float().unflatten(0, (3, n, shrink, n, shrink)), bias.float().view(3, n, shrink, n, shrink)
    return by_pixel[0].mean((2, 4)).flatten(0, 2), by_pixel[1].mean((2, 4)).flatten()


def _stages(end: nn.Conv2d, weight: Tensor, bias: Tensor) -> list[nn.Module]:
    end.weight, end.bias = (nn.Parameter(one, requires_grad=False) for one in (weight, bias))
    return [channels_last(end).eval(), Pixels(math.isqrt(len(bias) // 3))]
