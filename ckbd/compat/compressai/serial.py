"""CompressAI's raster-scan context models, one position after the other.

"stock" runs CompressAI's operations on the same values, so the bytes are the same, and leaves out the lists: tables
are converted once, indexes come from one pass, and the coder works on arrays. "sparse" evaluates a position as a
chain of matrix-vector products over the live taps alone, with the hyperprior's half of the first layer computed for
all positions beforehand. Its sums come in another order: a stream decodes with the same setting on the same kind of
device, whatever the batch, since images are computed one by one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from compressai.entropy_models import GaussianConditional
from compressai.latent_codecs import RasterScanLatentCodec
from compressai.layers import MaskedConv2d
from compressai.models import JointAutoregressiveHierarchicalPriors
from torch import Tensor, nn

from ckbd import _ans
from ckbd.compat.compressai import entropy
from ckbd.compat.compressai.plain import Host, Kept, Unsupported, bias_of, pointwise_layers, weight_of

_sparse: weakref.WeakKeyDictionary[nn.Module, Kept] = weakref.WeakKeyDictionary()


class StockContext:
    """(scales, means), each (1, M, 1, 1), of one position after the other, as CompressAI computes them."""

    def __init__(self, host: Host, params: Tensor, weight: Tensor):
        conv = host.context_prediction
        self.weight, self.bias, self.kernel = weight, conv.bias, conv.kernel_size[0]
        self.network, self.params, self.merge = host.entropy_parameters, params, _merge_of(host)

    def __call__(self, y_hat: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        crop = y_hat[:, :, h : h + self.kernel, w : w + self.kernel]
        context = F.conv2d(crop, self.weight, self.bias)
        p = self.params[:, :, h : h + 1, w : w + 1]
        scales, means = self.network(self.merge(p, context)).chunk(2, 1)
        return scales, means


class SparseContext:
    """The same values up to rounding, from live taps alone. Only called at (0, 0), (0, 1), ..., in raster order."""

    def __init__(self, host: Host, params: Tensor, weight: Tensor | None):
        conv, (convs, slopes) = host.context_prediction, pointwise_layers(host.entropy_parameters)
        tensors = [p for module in (conv, *convs) for p in module.parameters()]
        kept = _sparse.setdefault(host, Kept())
        self.taps, w_context, b_context, w_psi, self.layers = kept.get(
            [*tensors, conv.mask], lambda: _sparse_weights(conv, convs, slopes)
        )
        self.conv = w_context, b_context
        psi = params[0].flatten(1).t()
        self.psi = F.linear(psi, w_psi, self.layers[0][1]).view(*params.shape[2:], -1)

    def __call__(self, y_hat: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        near = y_hat[0].permute(1, 2, 0)  # contiguous: y_hat is kept channels last
        taps = torch.cat([near[h + dh, w + a : w + b].flatten() for dh, a, b in self.taps])
        context = torch.addmv(self.conv[1], self.conv[0], taps)
        out = torch.addmv(self.psi[h, w], self.layers[0][0], context)
        for (weight, bias, _), (_, _, slope) in zip(self.layers[1:], self.layers[:-1], strict=True):
            out = torch.addmv(bias, weight, F.leaky_relu(out, slope))
        scales, means = out.view(1, -1, 1, 1).chunk(2, 1)
        return scales, means


def _sparse_weights(conv: MaskedConv2d, convs: list[nn.Conv2d], slopes: list[float]) -> tuple:
    """(runs of live taps (row, from, to), context weight, its bias, psi weight, [(weight, bias, slope after)])."""
    live = (conv.mask != 0).flatten(0, 1).any(0).tolist()
    runs, pieces = [], []
    for dh, row in enumerate(live):
        start = None
        for dw, on in enumerate([*row, False]):
            if on and start is None:
                start = dw
            elif not on and start is not None:
                runs.append((dh, start, dw))
                pieces.append((conv.weight * conv.mask).detach()[:, :, dh, start:dw].transpose(1, 2).flatten(1))
                start = None
    if not runs:
        raise Unsupported("its context has no live tap")
    C = convs[0].in_channels - conv.out_channels
    first = weight_of(convs[0])
    weights = [first[:, C:].contiguous(), *(weight_of(c).contiguous() for c in convs[1:])]
    layers = [(w, bias_of(c), s) for w, c, s in zip(weights, convs, [*slopes, 1.0], strict=True)]
    return runs, torch.cat(pieces, 1).contiguous(), bias_of(conv), first[:, :C].contiguous(), layers


class _Host:
    """What the stock and sparse settings share; which of them is `context`."""

    context: type
    exact: bool  # the same operations as CompressAI, and its memory formats

    @classmethod
    def check(cls, host: Host) -> None:
        """Raises Unsupported, with the reason."""
        conv, model = host.context_prediction, host.gaussian_conditional
        if type(conv) is not MaskedConv2d or conv.stride != (1, 1) or conv.dilation != (1, 1) or conv.groups != 1:
            raise Unsupported(f"its context_prediction is {conv!r}, not a plain MaskedConv2d")
        if conv.kernel_size[0] != conv.kernel_size[1] or conv.kernel_size[0] % 2 == 0:
            raise Unsupported(f"its context has kernel size {conv.kernel_size}, not an odd square")
        if type(model) is not GaussianConditional or not entropy.takes(model):
            raise Unsupported("its gaussian_conditional is not a plain GaussianConditional on CompressAI's coder")
        if not cls.exact:
            convs, _ = pointwise_layers(host.entropy_parameters)
            if convs[0].in_channels <= conv.out_channels or convs[-1].out_channels != 2 * conv.in_channels:
                raise Unsupported("its entropy_parameters have widths that do not fit its context_prediction")
            if tuple(host.context_prediction.padding) != tuple(k // 2 for k in conv.kernel_size):
                raise Unsupported(f"its context has padding {conv.padding}")

    def _encode(self: Host, y_hat: Tensor, params: Tensor, height: int, width: int, padding: int) -> bytes:
        """The stream of y, padded (1, M, height + 2 padding, ...), which becomes y_hat where it lies."""
        model, conv = self.gaussian_conditional, self.context_prediction
        near = y_hat if self.exact else y_hat.contiguous(memory_format=torch.channels_last)
        context = self.context(self, params, conv.weight * conv.mask)
        symbols = torch.empty((height * width, y_hat.shape[1]), dtype=torch.int32)
        indexes = torch.empty_like(symbols)
        for at in range(height * width):
            h, w = divmod(at, width)
            scales_hat, means_hat = (t.squeeze(3).squeeze(2) for t in context(near, h, w))
            indexes[at] = entropy.build_indexes(model, scales_hat)[0]
            y = near[:, :, h + padding, w + padding]
            y_q = model.quantize(y, "symbols", means_hat)
            near[:, :, h + padding, w + padding] = y_q + means_hat
            symbols[at] = y_q[0]
        if near is not y_hat:
            y_hat.copy_(near)
        return _ans.encode(entropy.tables_of(model), symbols.view(-1), indexes.view(-1))

    def _decode(
        self: Host, string: Any, y_hat: Tensor, params: Tensor, height: int, width: int, padding: int, weight: Tensor
    ) -> None:
        """The inverse: fills y_hat, padded, which holds zeros."""
        model = self.gaussian_conditional
        near = y_hat if self.exact else y_hat.contiguous(memory_format=torch.channels_last)
        context = self.context(self, params, weight)
        decoder, tables = _ans.Decoder(entropy.stream_of("string", string)), entropy.tables_of(model)
        symbols = torch.empty(y_hat.shape[1], dtype=torch.int32)
        for at in range(height * width):
            h, w = divmod(at, width)
            scales_hat, means_hat = context(near, h, w)
            indexes = entropy.build_indexes(model, scales_hat)
            decoder.decode(tables, indexes.view(-1).cpu(), symbols)
            values = symbols.to(means_hat.device, torch.float32).view(means_hat.shape)
            near[:, :, h + padding : h + padding + 1, w + padding : w + padding + 1] = values + means_hat
        if near is not y_hat:
            y_hat.copy_(near)


class _Joint(_Host):
    """Goes before JointAutoregressiveHierarchicalPriors, or a class derived from it, among a model's bases."""

    HOST = JointAutoregressiveHierarchicalPriors
    REPLACED = ("_compress_ar", "_decompress_ar")

    def _compress_ar(
        self: Host, y_hat: Tensor, params: Tensor, height: int, width: int, kernel_size: int, padding: int
    ) -> bytes:
        return self._encode(y_hat, params, height, width, padding)

    def _decompress_ar(
        self: Host,
        y_string: Any,
        y_hat: Tensor,
        params: Tensor,
        height: int,
        width: int,
        kernel_size: int,
        padding: int,
    ) -> None:
        self._decode(y_string, y_hat, params, height, width, padding, self.context_prediction.weight)


class _Raster(_Host):
    """Goes before RasterScanLatentCodec, or a class derived from it, among a codec's bases."""

    HOST = RasterScanLatentCodec
    REPLACED: tuple[str, ...] = ("compress", "decompress")

    def compress(self: Host, y: Tensor, ctx_params: Tensor) -> dict:
        n, _, h, w = y.shape
        padded = F.pad(y, (self.padding,) * 4)
        strings = [self._encode(padded[i : i + 1], ctx_params[i : i + 1], h, w, self.padding) for i in range(n)]
        y_hat = F.pad(padded, (-self.padding,) * 4)
        # One list a string is how CompressAI collates a batch.
        return {"strings": [[s] for s in strings], "y_hat": y_hat, "shape": y.shape[2:4]}

    def decompress(
        self: Host, strings: list[list[bytes]], shape: tuple[int, int], ctx_params: Tensor, **kwargs: object
    ) -> dict:
        (y_strings,) = strings
        h, w = shape
        conv, p = self.context_prediction, self.padding
        y_hat = torch.zeros((len(y_strings), conv.in_channels, h + 2 * p, w + 2 * p), device=ctx_params.device)
        for i, string in enumerate(y_strings):
            self._decode(string, y_hat[i : i + 1], ctx_params[i : i + 1], h, w, p, conv.weight * conv.mask)
        return {"y_hat": F.pad(y_hat, (-p,) * 4)}


class StockJoint(_Joint):
    context, exact = StockContext, True


class SparseJoint(_Joint):
    context, exact = SparseContext, False


class StockRaster(_Raster):
    context, exact = StockContext, True


class SparseRaster(_Raster):
    REPLACED = (*_Raster.REPLACED, "merge")
    context, exact = SparseContext, False


def _merge_of(host: Host) -> Callable[..., Tensor]:
    """How a host joins the hyperprior's features and the context."""
    return getattr(host, "merge", None) or (lambda *parts: torch.cat(parts, dim=1))
