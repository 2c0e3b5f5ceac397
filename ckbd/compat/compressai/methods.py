"""What install() puts in the place of the entropy models' methods: those of `entropy`, and the mixture's."""

from __future__ import annotations

import functools
from typing import Any

import torch
from compressai.entropy_models import EntropyModel, GaussianConditional, GaussianMixtureConditional
from compressai.entropy_models.entropy_models_vbr import EntropyModelVbr
from torch import Tensor

from ckbd import _ans
from ckbd.compat.compressai import entropy
from ckbd.compat.compressai.entropy import Host


def compress_mixture(self: Host, y: Tensor, scales: Tensor, means: Tensor, weights: Tensor) -> tuple[Any, Tensor]:
    if not entropy.takes_rows(self):
        return entropy.ORIGINAL[GaussianMixtureConditional, "compress"](self, y, scales, means, weights)
    abs_max = max(1, max(int(y.max().abs().int()), int(y.min().abs().int())) + 1)
    y_quantized = torch.round(y)
    zero_bitmap = torch.where(torch.sum(torch.abs(y_quantized), (3, 2)).squeeze(0) == 0, 0, 1)
    nonzero = torch.nonzero(zero_bitmap).flatten().tolist()
    symbols = (y_quantized[:, nonzero] + abs_max).reshape(-1).int()
    cdf = self._build_cdf(*self.reshape_entropy_parameters(scales, means, weights, nonzero), abs_max)
    stream = _ans.encode_rows(cdf.to("cpu", torch.int32).contiguous(), symbols.cpu().contiguous())
    return (stream, abs_max, zero_bitmap), y_quantized


def decompress_mixture(
    self: Host, strings: Any, abs_max: int, zero_bitmap: Tensor, scales: Tensor, means: Tensor, weights: Tensor
) -> Tensor:
    if not entropy.takes_rows(self):
        return entropy.ORIGINAL[GaussianMixtureConditional, "decompress"](
            self, strings, abs_max, zero_bitmap, scales, means, weights
        )
    nonzero = torch.nonzero(zero_bitmap).flatten().tolist()
    cdf = self._build_cdf(*self.reshape_entropy_parameters(scales, means, weights, nonzero), abs_max)
    values = torch.empty(cdf.shape[0], dtype=torch.int32)
    _ans.decode_rows(cdf.to("cpu", torch.int32).contiguous(), entropy.stream_of("strings", strings), values)
    symbols = (values.long() - abs_max).reshape(scales.size(0), -1, scales.size(2), scales.size(3))
    y_hat = torch.zeros(scales.size(0), zero_bitmap.size(0), scales.size(2), scales.size(3))
    y_hat[:, nonzero] = symbols.float()
    return y_hat


REPLACEMENT: entropy.Methods = {
    (EntropyModel, "compress"): entropy.compress,
    (EntropyModel, "decompress"): entropy.decompress,
    (EntropyModelVbr, "compress"): entropy.compress_variable,
    (EntropyModelVbr, "decompress"): entropy.decompress_variable,
    (GaussianConditional, "build_indexes"): entropy.build_indexes,
    (GaussianMixtureConditional, "compress"): compress_mixture,
    (GaussianMixtureConditional, "decompress"): decompress_mixture,
}
for _key, _method in REPLACEMENT.items():
    functools.update_wrapper(_method, entropy.ORIGINAL[_key])
