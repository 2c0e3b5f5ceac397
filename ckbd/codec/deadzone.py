"""Residuals nearer to zero where that saves more bits than it costs; no decoder knows of it (docs/encoding.md).

Of each rounded residual, the one next to it towards zero, and zero, the encoder takes the one with the least
bits(r | k) + w (distance - r)^2, in the bits of the tables that will code it. w is the same for every element but for
what of its site is padding: gains are trained, so that a quantum is worth about the same in every channel and at
every quality. Elements are looked at one by one: what a picture gets does not depend on its batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Bits a squared quantum. Steps that are optimal at high rate make it 6 / ln 2 = 8.7, for errors that know nothing of
# each other. These all lean towards the mean, and together they cost a multiple of what they do singly.
WEIGHT = 80.0
SITE = 16  # pixels a side
# g_s reaches beyond a site's own pixels: a part of its weight comes from the sites around it, and some is left where
# there is but padding.
REACH, SHARE_MIN = 0.05, 0.002


def shares(sizes: list[tuple[int, int]], H: int, W: int) -> Tensor:
    """How much of w each site has, float32 (B, 1, H, W) in [SHARE_MIN, 1]: 1 where it and those around it are inside.

    sizes: (height, width) of each picture in pixels, before it was padded to 16 H x 16 W.
    """
    sides = []
    for count, lengths in ((H, [h for h, _ in sizes]), (W, [w for _, w in sizes])):
        first = SITE * torch.arange(count, device="cpu")
        inside = torch.tensor(lengths, device="cpu")[:, None] - first
        sides.append((inside.float() / SITE).clamp(0, 1))
    inside = sides[0][:, None, :, None] * sides[1][:, None, None, :]
    around = F.avg_pool2d(F.pad(inside, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(inside, around, REACH).clamp(SHARE_MIN, 1)


def choose(r: Tensor, k: Tensor, distance: Tensor, share: Tensor, costs: Tensor) -> Tensor:
    """The residuals to code, of r's shape and dtype.

    r: int16, the distances rounded; k: uint8, table indices; distance: float32, y - mean; (B, H, W/2, M) all three.
    share: float32 (B, H, W/2, 1), of shares(). costs: float32, of entropy.residual_costs up to the largest |r|.
    """
    at = r.flatten().nonzero().squeeze(1)  # a zero stays what it is
    some, weight = r.flatten()[at].long(), WEIGHT * share.flatten()[at // r.shape[-1]]
    row, size, sign = k.flatten()[at].long() * costs.shape[1], some.abs(), some.sign()
    towards = sign * distance.flatten()[at]

    def loss(a: Tensor) -> Tensor:
        return costs.flatten()[row + a] + weight * (towards - a).square()

    best, least = size, loss(size)
    for other in (size - 1, torch.zeros_like(size)):
        found = loss(other)
        best, least = torch.where(found < least, other, best), torch.minimum(found, least)
    return r.flatten().index_copy(0, at, (sign * best).to(r.dtype)).view(r.shape)
