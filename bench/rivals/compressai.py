"""CompressAI's models with random weights, made to code something: nobody's trained weights are needed to time them.

As they come, random weights give latents near zero and scales below the bound, so that nearly all symbols are 0 by
one table. `calibrated` stretches the last layers until the latents of a picture, their means and their scales spread
as those of trained models do.
"""

from __future__ import annotations

import contextlib
import sys

import torch
from torch import Tensor, nn

from bench.gpu import record


def import_compressai():
    """compressai, or ImportError. Its torchvision is built for CUDA: beside a PyTorch without CUDA its library does
    not load, and it fails on the first operator that it takes for granted. CompressAI calls none of them.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_compressai.kept = operators  # they go when it does
    import compressai
    import compressai.latent_codecs
    import compressai.models

    return compressai


def need_compressai() -> None:
    """Imports compressai, or exits with record.UNAVAILABLE."""
    try:
        import_compressai()
    except ImportError as error:
        print(f"CompressAI is not to be had here ({error}); `make compat` makes .venv-compat", file=sys.stderr)
        raise SystemExit(record.UNAVAILABLE) from error


def build(name: str, **widths: int) -> nn.Module:
    """A model of CompressAI by its registered name, in evaluation mode; widths: N, M, groups as its class has."""
    import_compressai()
    from compressai.registry import MODELS

    return MODELS[name](**widths).eval()


def shifted(x: Tensor, count: int) -> Tensor:
    """A batch of so many pictures out of one, x (1, 3, H, W): shifted, so that they are not the same."""
    return torch.cat([x.roll(64 * i, 3) for i in range(count)])


def nested_bytes(strings) -> int:
    """Of a model's "strings", lists of lists of bytes."""
    return len(strings) if isinstance(strings, bytes) else sum(map(nested_bytes, strings))


@torch.no_grad()
def calibrated(model: nn.Module, x: Tensor, seed: int = 0) -> nn.Module:
    """The model with latents of standard deviations from 0.05 to 3 (log-uniform over the channels) on x, and tables.

    x: (B, 3, H, W) in [0, 1], sides multiples of 64.
    """
    from compressai.latent_codecs import CheckerboardLatentCodec, RasterScanLatentCodec
    from compressai.models.base import get_scale_table

    generator = torch.Generator().manual_seed(seed)
    _stretch(last_conv(model.g_a), model.g_a, x, 0.05, 3.0, generator)
    y = model.g_a(x)
    spread = y.std((0, 2, 3))
    h_a = model.h_a if hasattr(model, "h_a") else model.latent_codec["hyper"].h_a
    _stretch(last_conv(h_a), h_a, y, 0.5, 4.0, generator)
    model.update(force=True)
    for module in model.modules():
        if hasattr(module, "scale_table"):
            module.update_scale_table(get_scale_table(), force=True)
    h_s = model.h_s if hasattr(model, "h_s") else model.latent_codec["hyper"].h_s
    _stretch(last_conv(h_s), model, x, 1.0, 1.0, generator)
    hosts = [m for m in model.modules() if isinstance(m, (CheckerboardLatentCodec, RasterScanLatentCodec))] or [model]
    start = 0
    for host in hosts:
        # Where there is no context, h_s gives the parameters.
        last = last_conv(getattr(host, "entropy_parameters", h_s))
        only_scales = last.weight.shape[isinstance(last, nn.ConvTranspose2d)] == len(spread)
        M = host.context_prediction.in_channels if hasattr(host, "context_prediction") else len(spread)
        target = spread[start : start + M]
        start += M
        _stretch(last, model, x, 1.0, 1.0, generator)
        parts = {"scales": (0.25 * target, target), "means": (0.5 * target, 0 * target)}  # deviations, centres
        names = ("scales",) if only_scales else getattr(_inner(host), "chunks", ("scales", "means"))
        deviations, centres = (torch.cat([parts[name][i] for name in names]) for i in range(2))
        last.weight *= _over_outputs(last, deviations)
        last.bias.copy_(centres)
    return model


def last_conv(network: nn.Module) -> nn.Module:
    """The convolution from which a network's outputs come, attention after it left aside."""
    children = [m for m in network.children() if next(m.parameters(), None) is not None]
    last = children[-1]
    while not hasattr(last, "weight"):
        convs = [m for m in last.children() if hasattr(m, "weight")]
        last = convs[0] if isinstance(last, nn.Sequential) and convs else children[-2]
    return last


def _stretch(conv: nn.Module, network: nn.Module, x: Tensor, low: float, high: float, generator) -> None:
    """Scales conv's channels so that, in network(x), they have deviations log-uniform in [low, high] and mean 0."""
    seen = []
    hooks = [conv.register_forward_hook(lambda module, inputs, out: seen.append(out.detach()))]
    if hasattr(network, "g_s"):
        hooks.append(network.g_s.register_forward_pre_hook(_stop))  # the longest part, and nobody looks at it
    with contextlib.suppress(_Stopped):
        network(x)
    for hook in hooks:
        hook.remove()
    out = torch.cat([t.transpose(0, 1).flatten(1) for t in seen], 1)
    target = low * (high / low) ** torch.rand(out.shape[0], generator=generator)
    factor = target / out.std(1).clamp(min=1e-12)
    conv.weight *= _over_outputs(conv, factor)
    if conv.bias is not None:
        conv.bias.copy_((conv.bias - out.mean(1)) * factor)


def _over_outputs(conv: nn.Module, factor: Tensor) -> Tensor:
    """A factor for each output channel, in the shape in which it multiplies a convolution's weights."""
    return factor.view(1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else factor.view(-1, 1, 1, 1)


def _inner(host: nn.Module):
    """The Gaussian codec within a context codec, or None."""
    codecs = getattr(host, "latent_codec", None)
    return codecs["y"] if isinstance(codecs, nn.ModuleDict) and "y" in codecs else None


class _Stopped(Exception):
    pass


def _stop(*_) -> None:
    raise _Stopped
