"""What the context codecs share: the Gaussian part of a latent codec on arrays, and 1x1 networks taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from compressai.entropy_models import GaussianConditional
from compressai.latent_codecs import GaussianConditionalLatentCodec
from torch import Tensor, nn

from ckbd.compat.compressai import entropy
from ckbd.compat.compressai.entropy import Host

CHUNKS = (("scales", "means"), ("means", "scales"))


def is_plain(codec: Host) -> bool:
    """Whether a latent codec is CompressAI's Gaussian one, with nothing overridden, on its own coder."""
    return (
        type(codec) is GaussianConditionalLatentCodec
        and type(codec.gaussian_conditional) is GaussianConditional
        and codec.chunks in CHUNKS
        and entropy.takes(codec.gaussian_conditional)
    )


def compress_y(codec: Host, y: Tensor, params: Tensor) -> dict:
    """codec.compress(y, params). CompressAI's decodes its own strings to get y_hat; here y_hat is what was coded."""
    if not is_plain(codec):
        return codec.compress(y, params)
    model = codec.gaussian_conditional
    scales_hat, means_hat = codec._chunk(codec.entropy_parameters(params))
    indexes = entropy.build_indexes(model, scales_hat)
    symbols = entropy.symbols_of(model, y, means_hat)
    entropy.check_inputs(model, y, indexes)
    strings = entropy.encode(entropy.tables_of(model), symbols, indexes)
    return {"strings": [strings], "shape": y.shape[2:4], "y_hat": model.dequantize(symbols, means_hat)}


def decompress_y(codec: Host, strings: list[list[bytes]], shape: tuple[int, int], params: Tensor) -> dict:
    """codec.decompress(strings, shape, params)."""
    if not is_plain(codec):
        return codec.decompress(strings, shape, params)
    (y_strings,) = strings
    model = codec.gaussian_conditional
    scales_hat, means_hat = codec._chunk(codec.entropy_parameters(params))
    indexes = entropy.build_indexes(model, scales_hat)
    y_hat = entropy.decompress(model, y_strings, indexes, means=means_hat)
    assert y_hat.shape[2:4] == shape
    return {"y_hat": y_hat}


UNPADDED = ((0, 0), "valid")


class Unsupported(Exception):
    """Why a codec cannot have a setting, in words."""


def pointwise_layers(network: nn.Module) -> tuple[list[nn.Conv2d], list[float]]:
    """The 1x1 convolutions of an nn.Sequential and the slopes of the ReLUs between them; raises Unsupported."""
    modules = list(network) if type(network) is nn.Sequential else [network]
    convs: list[nn.Conv2d] = []
    slopes: list[float] = []
    for i, module in enumerate(modules):
        if i % 2 == 0:
            plain = type(module) is nn.Conv2d and module.kernel_size == module.stride == (1, 1)
            if not isinstance(module, nn.Conv2d) or not plain or module.groups != 1 or module.padding not in UNPADDED:
                raise Unsupported(f"its entropy_parameters have {_name(module)} where a 1x1 convolution is needed")
            convs.append(module)
        elif type(module) is nn.LeakyReLU:
            slopes.append(float(module.negative_slope))
        elif type(module) is nn.ReLU:
            slopes.append(0.0)
        else:
            raise Unsupported(f"its entropy_parameters have {_name(module)} where a ReLU or LeakyReLU is needed")
    if len(convs) != len(slopes) + 1:
        raise Unsupported("its entropy_parameters do not end with a convolution")
    return convs, slopes


def weight_of(conv: nn.Conv2d) -> Tensor:
    """(N, C) of a 1x1 convolution."""
    return conv.weight.detach().flatten(1)


def bias_of(conv: nn.Conv2d) -> Tensor:
    """(N,), zeros if it has none."""
    return torch.zeros_like(conv.weight[:, 0, 0, 0]) if conv.bias is None else conv.bias.detach()


def _name(module: nn.Module) -> str:
    return repr(module).splitlines()[0]


class Kept:
    """What was made of some tensors, kept until one of them has another value, dtype or device.

    Values are compared, not version counters: those miss changes through .data, and CompressAI's masked convolutions
    replace their weights by equal ones at every call.
    """

    def __init__(self) -> None:
        self._sources: list[Tensor] = []
        self._made: Any = None

    def get(self, tensors: list[Tensor], make: Callable[[], Any]) -> Any:
        """make() of now, or of an earlier call with equal tensors."""
        if self._made is None or not self._same(tensors):
            self._sources = [t.detach().clone() for t in tensors]
            self._made = make()
        return self._made

    def _same(self, tensors: list[Tensor]) -> bool:
        old = self._sources
        if [(t.shape, t.dtype, t.device) for t in tensors] != [(t.shape, t.dtype, t.device) for t in old]:
            return False
        if not tensors or tensors[0].device.type == "cpu":
            return all(torch.equal(a, b) for a, b in zip(tensors, old, strict=True))
        return bool(torch.stack([(a == b).all() for a, b in zip(tensors, old, strict=True)]).all())
