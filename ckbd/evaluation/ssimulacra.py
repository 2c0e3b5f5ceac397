"""SSIMULACRA2 of two pictures: Jon Sneyers's metric, version 2.1 (https://github.com/cloudinary/ssimulacra2).

Both pictures are taken to XYB, JPEG XL's space of opponent colours, at six sizes, each half the one before. At each,
three maps a channel tell how far the two are apart: 1 - SSIM, edges that the second has and the first lacks (ringing,
blocks), and edges that it lost (blur). Each map gives its mean and its 4-norm; 108 weights, fitted by the metric's
author to people's opinions, make one number of them, and a polynomial and a power a score. 100 is an equal picture,
90 one that cannot be told from the original, 70 high quality, 50 medium, 30 low; below 0 there is no end.

Scores are the definition's, to 0.005. The reference's recursions round as they go, which counts the more the less two
pictures differ: on photographs it gives the same to 0.03 below 60, up to 0.2 less from 60 to 80 and 0.3 less above,
on flat colours up to 1.5 less (bench/RESULTS.md).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Number = TypeVar("Number", float, Tensor)
SCALES = 6
# Under 8 pixels a side there is no further halving, and the weights of a picture with fewer sizes would fall on other
# maps than they were fitted to: the reference gives numbers there, from 8 pixels on, that say little.
MIN_SIDE = 113
_SIGMA, _RADIUS = 1.5, 5
C2 = 0.0009
OPSIN = ((0.30, 0.622, 0.078), (0.23, 0.692, 0.078), (0.24342268924547819, 0.20476744424496821, 0.5518098665095536))
BIAS = 0.0037930732552754493
# Channel, size, norm (mean, 4-norm), map (SSIM, edges gained, edges lost): numbers of the reference, which is
# under the BSD 3-clause licence, copyright Jon Sneyers, Cloudinary, and the JPEG XL Project Authors.
# fmt: off
WEIGHTS = torch.tensor([
    0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0,
    0.0, 0.0004371155730107379, 0.0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752,
    0.0, 0.0016406437456599754, 0.0, 1.8422455520539298, 11.441172603757666, 0.0,
    0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387, 10.94906990605142, 0.0,
    0.0007289346991508072, 0.9677937080626833, 0.0,
    0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053,
    0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0,

    0.0, 0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262,
    0.0006235601634041466, 0.0, 0.0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264,
    225.20515300849274, 0.0, 0.0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985,
    176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408,
    0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0,
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0,

    0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0,
    0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0,
    0.0020827005846636437, 0.0, 0.0, 8.826982764996862, 23.19243343998926, 0.0,
    95.1080498811086, 0.9863978034400682, 0.9834382792465353,
    0.0012286405048278493, 171.2667255897307, 0.9807858872435379,
    0.0, 0.0, 0.0, 0.0005130064588990679, 0.0, 0.00010854057858411537,
], dtype=torch.float64)
# fmt: on


def _taps() -> list[float]:
    """The blur's 9 taps: three cosines that stand for a Gaussian.

    Charalampidis's (2016) cosines of 1, 3 and 5 quarter waves over a radius, which the reference runs as recursions:
    the Gaussian's own coefficients, moved as little as gives the taps a sum of 1 and the Gaussian's variance.
    """
    omega = np.array([1, 3, 5]) * np.pi / (2 * _RADIUS)
    n = np.arange(1 - _RADIUS, _RADIUS)  # at the radius itself every one of the cosines is 0
    cosines = np.cos(np.outer(omega, n))
    own = np.exp(-0.5 * (_SIGMA * omega) ** 2) / _RADIUS
    moments = np.stack([cosines.sum(axis=1), cosines @ n**2])
    missing = np.array([1, _SIGMA**2]) - moments @ own
    return ((own + np.linalg.pinv(moments) @ missing) @ cosines).tolist()


TAPS = _taps()
_LINEAR = np.array([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255], "f4")


def _xyb(linear: Tensor) -> Tensor:
    """Linear sRGB in 0..1 to the metric's X, Y and B - Y, each in about 0..1: float32 (3, H, W) both."""
    cones = torch.einsum("ij,jhw->ihw", linear.new_tensor(OPSIN), linear).add_(BIAS).pow_(1 / 3)
    long, middle, short = cones.sub_(BIAS ** (1 / 3))
    y = (long + middle) / 2
    return torch.stack([(long - middle) * 7 + 0.42, y + 0.01, short - y + 0.55])


def _blur(plane: Tensor) -> Tensor:
    """The Gaussian both ways, with zeros beyond the border: float32 (H, W) both.

    Sums of shifted planes: convolutions of one channel take PyTorch many times as long.
    """
    for dim in (1, 0):
        size, margin = plane.shape[dim], (_RADIUS - 1, _RADIUS - 1)
        padded = F.pad(plane, margin if dim else (0, 0, *margin))
        plane = padded.narrow(dim, 0, size) * TAPS[0]
        for i, tap in enumerate(TAPS[1:], 1):
            plane.add_(padded.narrow(dim, i, size), alpha=tap)
    return plane


def _halved(linear: Tensor) -> Tensor:
    """Means of 2x2 pixels, an odd side's last row or column taken twice; float32 (3, H, W)."""
    height, width = linear.shape[-2:]
    return F.avg_pool2d(F.pad(linear, (0, width % 2, 0, height % 2), mode="replicate"), 2)


def _norms(a: Tensor, b: Tensor) -> Tensor:
    """Means and 4-norms of one channel's three maps: float32 (H, W), twice, to float64 (2 norms, 3 maps).

    With e = a - b, 1 - SSIM is m + (1 - m) var(e) / (var(a) + var(b) + C2), m being the squared mean of e: the
    definition's covariance of a and b would be a small difference of large numbers where they are nearly equal.
    """
    mean_a, mean_b = _blur(a), _blur(b)
    m = (mean_a - mean_b).square_()
    variance = _blur((a - b).square_()) - m
    variances = _blur(a * a + b * b) - mean_a * mean_a - mean_b * mean_b
    unlike = m + (1 - m) * variance / (variances + C2)
    edges = (1 + (b - mean_b).abs_()) / (1 + (a - mean_a).abs_()) - 1
    found = []
    for values in (unlike, edges, -edges):
        values = values.clamp_(min=0)
        found.append([values.mean().item(), values.square().square_().mean().item() ** 0.25])
    return torch.tensor(found, dtype=torch.float64).T


def polynomial(weighted: Number) -> Number:
    """What becomes of the weighted norms, float or any shape; below 0 it counts as 0."""
    d = 0.9562382616834844 * weighted
    return 2.326765642916932 * d - 0.020884521182843837 * d**2 + 6.248496625763138e-05 * d**3


@torch.no_grad()
def ssimulacra2(original: np.ndarray, distorted: np.ndarray) -> float | None:
    """The score of two uint8 (H, W, 3), taken as sRGB: 100 for equal ones, below 0 for very bad ones.

    None if a side is under MIN_SIDE. Raises ValueError if the shapes differ.
    """
    if original.shape != distorted.shape:
        raise ValueError(f"distorted: expected the original's shape {original.shape}, got {distorted.shape}")
    if min(original.shape[:2]) < MIN_SIDE:
        return None
    # Each by itself: side by side, equal pixels would meet other lanes of PyTorch's vectors, and round otherwise.
    pair = [torch.from_numpy(_LINEAR[one.transpose(2, 0, 1)]) for one in (original, distorted)]
    norms = []
    for scale in range(SCALES):
        pair = [_halved(linear) for linear in pair] if scale else pair
        norms.append(torch.stack([_norms(a, b) for a, b in zip(*map(_xyb, pair), strict=True)]))
    distance = (torch.stack(norms, dim=1).flatten() @ WEIGHTS).item()
    return 100 - 10 * max(polynomial(distance), 0.0) ** 0.6276336467831387
