"""How far a stage of a network reaches, from its layers."""

from __future__ import annotations

from torch import nn

from ckbd.codec.networks.windows import Extent


def extent(stage: nn.Module) -> Extent:
    """The extent of a stage, from its layers.

    Convolutions, their transposes and (un)shuffles speak for themselves; leaves of torch.nn.modules.activation and
    classes with the attribute pointwise = True look at one site; other modules are taken for their children, one
    after the other or side by side, which must then keep the resolution. A stage with an Extent in its attribute
    `extent` is believed. Raises TypeError for a leaf that is none of
    these, ValueError for a layer whose padding does not keep size times scale.
    """
    if isinstance(own := getattr(stage, "extent", None), Extent):
        return own
    if isinstance(stage, nn.PixelShuffle):
        return Extent(0, 1, stage.upscale_factor)
    if isinstance(stage, nn.PixelUnshuffle):
        return Extent(0, stage.downscale_factor, 1)
    if isinstance(stage, (nn.Conv2d, nn.ConvTranspose2d)):
        return _convolution(stage)
    if getattr(stage, "pointwise", False) or type(stage).__module__ == "torch.nn.modules.activation":
        return Extent(0, 1, 1)
    parts = [extent(part) for part in stage.children()]
    if not parts or any((part.down, part.up) != (1, 1) for part in parts):
        raise TypeError(f"stage {type(stage).__name__}: how far it reaches is not known")
    return Extent(sum(part.reach for part in parts), 1, 1)


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d) -> Extent:
    found = set()
    transposed = isinstance(layer, nn.ConvTranspose2d)
    if isinstance(layer.padding, str):
        raise ValueError(f"{layer}: expected padding in numbers")
    for n in (0, 1):
        padding, stride = layer.padding[n], layer.stride[n]
        beyond = layer.dilation[n] * (layer.kernel_size[n] - 1) - padding  # of an output's first input, to its last
        if transposed:
            fits = beyond - padding + layer.output_padding[n] + 1 == stride
            found.add(Extent(max(beyond // stride, (stride - 1 + padding) // stride), 1, stride))
        else:
            fits = 0 <= beyond - padding < stride and layer.padding_mode == "zeros"
            found.add(Extent(max(padding, beyond - stride + 1), stride, 1))
        if not fits:
            raise ValueError(f"{layer}: expected zero padding that keeps the size times its scale")
    if len(found) != 1:
        raise ValueError(f"{layer}: expected the same kernel down and across")
    return found.pop()
