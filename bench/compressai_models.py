"""CompressAI's models with random weights, made to code something: nobody's trained weights are needed to time them.

As they come, random weights give latents near zero and scales below the bound, so that nearly all symbols are 0 by
one table. `calibrated` stretches the last layers until the latents of a picture, their means and their scales spread
as those of trained models do.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn


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


def build(name: str, **widths: int) -> nn.Module:
    """A model of CompressAI by its registered name, in evaluation mode; widths: N, M, groups as its class has."""
    import_compressai()
    from compressai.registry import MODELS

    return MODELS[name](**widths).eval()


@torch.no_grad()
def calibrated(model: nn.Module, x: Tensor, seed: int = 0) -> nn.Module:
    """The model with latents of standard deviations from 0.2 to 12 (log-uniform over the channels) on x, and tables.

    x: (B, 3, H, W) in [0, 1], sides multiples of 64.
    """
    from compressai.latent_codecs import CheckerboardLatentCodec, RasterScanLatentCodec
    from compressai.models.base import get_scale_table

    generator = torch.Generator().manual_seed(seed)
    _stretch(last_conv(model.g_a), model.g_a, x, 0.2, 12.0, generator)
    y = model.g_a(x)
    spread = y.std((0, 2, 3))
    h_a = model.h_a if hasattr(model, "h_a") else model.latent_codec["hyper"].h_a
    _stretch(last_conv(h_a), h_a, y, 0.5, 4.0, generator)
    model.update(force=True)
    for module in model.modules():
        if hasattr(module, "scale_table"):
            module.update_scale_table(get_scale_table(), force=True)
    h_s = model.h_s if hasattr(model, "h_s") else model.latent_codec["hyper"].h_s
    last = last_conv(h_s)
    _stretch(last, model, x, 1.0, 1.0, generator)
    hosts = [m for m in model.modules() if isinstance(m, (CheckerboardLatentCodec, RasterScanLatentCodec))]
    start = 0
    for host in hosts or [model]:
        if not hasattr(host, "entropy_parameters"):
            continue
        last = last_conv(host.entropy_parameters)
        M = last.out_channels // 2
        means_first = getattr(host, "latent_codec", {}).get("y", None) if hosts else None
        order = means_first is not None and getattr(means_first, "chunks", ("scales",))[0] == "means"
        target = spread[start : start + M]
        start += M
        _stretch(last, model, x, 1.0, 1.0, generator)
        scale, mean = (0.25 * target, 0.5 * target)
        last.weight *= torch.cat((mean, scale) if order else (scale, mean)).view(-1, 1, 1, 1)
        last.bias.copy_(torch.cat((0 * target, target) if order else (target, 0 * target)))
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
    with contextlib.closing(_Hook(conv, seen)):
        network(x)
    out = torch.cat([t.transpose(0, 1).flatten(1) for t in seen], 1)
    target = low * (high / low) ** torch.rand(out.shape[0], generator=generator)
    factor = target / out.std(1).clamp(min=1e-12)
    transposed = isinstance(conv, nn.ConvTranspose2d)
    conv.weight *= factor.view(1, -1, 1, 1) if transposed else factor.view(-1, 1, 1, 1)
    if conv.bias is not None:
        conv.bias.copy_((conv.bias - out.mean(1)) * factor)


class _Hook:
    def __init__(self, module: nn.Module, into: list[Tensor]) -> None:
        self.handle = module.register_forward_hook(lambda m, i, out: into.append(out.detach()))

    def close(self) -> None:
        self.handle.remove()
