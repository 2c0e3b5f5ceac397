"""How far a decoded picture is from its original: PSNR, MS-SSIM and SSIMULACRA2."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from pytorch_msssim import ms_ssim

from ckbd.codec import image
from ckbd.codec.image import Picture
from ckbd.codec.networks import tensors
from ckbd.evaluation.bd import METRICS
from ckbd.evaluation.ssimulacra import ssimulacra2

MS_SSIM_MIN_SIDE = 161  # four halvings under an 11x11 window


def _ms_ssim(a: np.ndarray, b: np.ndarray) -> float | None:
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    return ms_ssim(*(tensors.to_tensor([Picture(one)]) for one in (a, b)), data_range=1.0).item()


_MEASURES = dict(zip(METRICS, (image.psnr, _ms_ssim, ssimulacra2), strict=True))


def measure(original: np.ndarray, decoded: np.ndarray, wanted: Collection[str] = METRICS) -> dict[str, float | None]:
    """Each of METRICS of two uint8 (H, W, 3), None for those that are not wanted.

    PSNR in dB (image.psnr); MS-SSIM in 0..1, None if a side is under 161; SSIMULACRA2 up to 100, None if a side is
    under 113 (ckbd.evaluation.ssimulacra).
    """
    return {metric: of(original, decoded) if metric in wanted else None for metric, of in _MEASURES.items()}
