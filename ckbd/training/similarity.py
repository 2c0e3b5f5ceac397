"""MS-SSIM (Wang, Simoncelli and Bovik, 2003) as a loss: values of the pytorch_msssim package, but nothing of it comes
from the host, so that a step which has it can be a CUDA graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
SIDE, SIGMA = 11, 1.5  # of the window
LUMINANCE, CONTRAST = 0.01**2, 0.03**2
LEAST = 1e-6  # of a scale: below it a power's slope has no bound


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """(B,) of two (B, C, H, W) float32 in [0, 1], H and W at least 161: the mean of the channels."""
    at = torch.arange(SIDE, device=a.device, dtype=a.dtype) - SIDE // 2
    window = torch.exp(-at.square() / (2 * SIGMA**2))
    window = (window / window.sum()).expand(a.shape[1], 1, 1, SIDE)

    def blurred(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, window.transpose(2, 3), groups=x.shape[1]), window, groups=x.shape[1])

    found = torch.ones(a.shape[:2], device=a.device, dtype=a.dtype)
    for n, weight in enumerate(WEIGHTS):
        mean_a, mean_b, aa, bb, ab = (blurred(x) for x in (a, b, a * a, b * b, a * b))
        power, product = mean_a.square() + mean_b.square(), mean_a * mean_b
        similar = (2 * (ab - product) + CONTRAST) / (aa + bb - power + CONTRAST)
        if n == len(WEIGHTS) - 1:
            similar = similar * (2 * product + LUMINANCE) / (power + LUMINANCE)
        found = found * similar.mean((2, 3)).clamp(min=LEAST) ** weight
        odd = [side % 2 for side in a.shape[2:]]
        a, b = F.avg_pool2d(a, 2, padding=odd), F.avg_pool2d(b, 2, padding=odd)
    return found.mean(1)
