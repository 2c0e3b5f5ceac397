"""Small CompressAI models and comparisons of what comes out of them, shared by the tests of this folder."""

from __future__ import annotations

import functools

import torch
from compressai.entropy_models import GaussianConditional
from compressai.models.base import get_scale_table
from torch import Tensor

import ckbd.compat.compressai as cc
from bench.rivals import compressai as compressai_models

WIDTHS = {
    "bmshj2018-factorized": {"N": 32, "M": 48},
    "bmshj2018-hyperprior": {"N": 32, "M": 48},
    "mbt2018-mean": {"N": 32, "M": 48},
    "mbt2018": {"N": 32, "M": 48},
    "cheng2020-anchor": {"N": 32},
    "cheng2020-attn": {"N": 32},
    "cheng2020-anchor-checkerboard": {"N": 32},
    "elic2022-official": {"N": 32, "M": 96, "groups": [8, 8, 16, 32, 32]},
    "elic2022-chandelier": {"N": 32, "M": 96, "groups": [8, 8, 16, 32, 32]},
}
CHECKERBOARD = ["cheng2020-anchor-checkerboard", "elic2022-official", "elic2022-chandelier"]
SERIAL = ["mbt2018", "cheng2020-anchor", "cheng2020-attn"]


def picture(batch: int = 1, height: int = 128, width: int = 192, seed: int = 0) -> Tensor:
    """(batch, 3, height, width) in [0, 1]: smooth patches with noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((batch, 3, height // 16, width // 16), generator=generator)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


@functools.cache
def _model(name: str):
    torch.manual_seed(1)
    model = compressai_models.build(name, **WIDTHS[name])
    return compressai_models.calibrated(model, picture()) if name != "bmshj2018-factorized" else _updated(model)


def _updated(model):
    model.update(force=True)
    return model


def model_of(name: str):
    """A calibrated model of its own for each call."""
    import copy

    return copy.deepcopy(_model(name))


def same(a, b) -> None:
    """Equality of nested results to the bit: dtypes, shapes, strides and values of tensors, types of the rest."""
    assert type(a) is type(b), (type(a), type(b))
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, Tensor):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        assert torch.equal(*(t.detach().contiguous().view(-1).view(torch.uint8) for t in (a, b)))
    else:
        assert a == b


def nbytes(strings) -> int:
    return len(strings) if isinstance(strings, bytes) else sum(map(nbytes, strings))


def outcome(call):
    """(what a call returns, None), or (None, the type and text of what it raises)."""
    try:
        return call(), None
    except Exception as error:
        return None, (type(error), str(error))


def inputs(n=2, h=6, w=8, M=12, psi=20, seed=0):
    """y (n, M, h, w) and side_params (n, psi, h, w)."""
    torch.manual_seed(seed)
    spread = torch.exp(torch.linspace(-1, 3, M)).view(-1, 1, 1)
    return spread * torch.randn(n, M, h, w), torch.randn(n, psi, h, w)


def there_and_back(codec, y, side):
    out = codec.compress(y, side)
    return out, codec.decompress(out["strings"], out["shape"], side)


def both(call):
    """The outcome of a call without and with install()."""
    cc.uninstall()
    stock = outcome(call)
    cc.install()
    fast = outcome(call)
    cc.uninstall()
    return stock, fast


def agree(call):
    """Asserts that a call returns, and the same; returns it."""
    stock, fast = both(call)
    assert stock[1] is None and fast[1] is None, (stock[1], fast[1])
    same(stock[0], fast[0])
    return fast[0]


def gaussian(**kwargs) -> GaussianConditional:
    model = GaussianConditional(get_scale_table().tolist(), **kwargs)
    model.update()
    return model


def latents(shape=(2, 6, 5, 7), seed=0):
    """(inputs, scales, means) float32."""
    g = torch.Generator().manual_seed(seed)
    scales = torch.exp(torch.empty(shape).uniform_(-3, 4, generator=g))
    means = 5 * torch.randn(shape, generator=g)
    return scales * torch.randn(shape, generator=g) + means, scales, means
