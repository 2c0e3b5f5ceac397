"""CompressAI's checkerboard codec on ckbd's float phase kernels: parameters="fused".

A phase computes its half of the lattice from live taps alone, with the context convolution and the first layer of
the entropy parameters as one linear map (ckbd.kernels). Sums come in another order than CompressAI's, so streams are
its own: they decode with the same setting on the same kind of device. On a GPU the kernels' order of summation does
not depend on the batch; on a CPU images are computed one by one, which comes to the same.
"""

from __future__ import annotations

import weakref

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckbd import kernels
from ckbd.compat.compressai import entropy
from ckbd.compat.compressai.checkerboard import StockCheckerboard, check_strings, is_checkerboard
from ckbd.compat.compressai.plain import (
    CHUNKS,
    Host,
    Kept,
    Unsupported,
    bias_of,
    is_plain,
    pointwise_layers,
    weight_of,
)
from ckbd.kernels import Lattice, Network, reference

_networks: weakref.WeakKeyDictionary[nn.Module, Kept] = weakref.WeakKeyDictionary()


class FusedCheckerboard(StockCheckerboard):
    """Goes before CheckerboardLatentCodec, or a class derived from it, among the bases of a codec's class."""

    REPLACED = (*StockCheckerboard.REPLACED, "merge")

    @staticmethod
    def check(codec: Host) -> None:
        """Raises Unsupported, with the reason, if the kernels do not know such a network."""
        conv, inner = codec.context_prediction, codec.latent_codec["y"]
        if not is_checkerboard(conv) or conv.kernel_size not in ((3, 3), (5, 5), (7, 7)):
            raise Unsupported(
                f"its context_prediction is {conv!r}, not a CheckerboardMaskedConv2d of kernel 3, 5 or 7"
            )
        convs, slopes = pointwise_layers(codec.entropy_parameters)
        if len(convs) != 3 or slopes[0] != slopes[1]:
            raise Unsupported(
                "its entropy_parameters are not three 1x1 convolutions with the same activation between"
            )
        if convs[2].out_channels != 2 * conv.in_channels or convs[0].in_channels <= conv.out_channels:
            raise Unsupported("its entropy_parameters have widths that do not fit its context_prediction")
        if not is_plain(inner) or type(inner.entropy_parameters) is not nn.Identity:
            raise Unsupported(
                f"its latent codec 'y' is not a plain GaussianConditionalLatentCodec with chunks {CHUNKS}"
            )

    @torch.no_grad()
    def compress(self: Host, y: Tensor, side_params: Tensor) -> dict:
        strings, y_hat = self._images(side_params, y.shape[1:], y=y)
        return {"strings": strings, "shape": y_hat.shape[1:], "y_hat": y_hat}

    @torch.no_grad()
    def decompress(
        self: Host, strings: list[list[bytes]], shape: tuple[int, ...], side_params: Tensor, **kwargs: object
    ) -> dict:
        n = check_strings(strings)
        if n != side_params.shape[0]:
            raise ValueError(f"strings: expected one for each of {side_params.shape[0]} side_params, got {n}")
        return {"y_hat": self._images(side_params, shape, strings=strings)[1]}

    def _images(
        self: Host,
        side_params: Tensor,
        shape: tuple[int, ...],
        y: Tensor | None = None,
        strings: list[list[bytes]] | None = None,
    ) -> tuple[list[list[bytes]], Tensor]:
        """(strings [anchors' [n], non-anchors' [n]], y_hat (n, c, h, w)): codes y, or decodes strings."""
        self.check(self)
        c, h, w = shape
        inner = self.latent_codec["y"]
        entropy.check_tables(inner.gaussian_conditional)
        n = side_params.shape[0]
        if c != self.context_prediction.in_channels or tuple(side_params.shape[2:]) != (h, w):
            raise ValueError(
                f"shape: expected ({self.context_prediction.in_channels}, {side_params.shape[2]}, "
                f"{side_params.shape[3]}) as side_params and the context have it, got ({c}, {h}, {w})"
            )
        if not n:
            return [[], []], side_params.new_zeros((n, c, h, w))
        step = n if side_params.is_cuda else 1
        out: list[list[bytes]] = [[], []]
        y_hat = side_params.new_empty((n, c, h, w))
        for i in range(0, n, step):
            lattice = Lattice(((h, w),) * step, int(self.anchor_parity == "odd"))
            batch = _Batch(self, side_params[i : i + step], lattice)
            for p in range(2):
                if strings is None:
                    assert y is not None
                    out[p] += batch.encode(p, y[i : i + step])
                else:
                    batch.decode(p, strings[p][i : i + step])
            y_hat[i : i + step] = batch.y_hat()
        return out, y_hat

    def network(self: Host) -> tuple[Network, tuple[Tensor, ...]]:
        """The weights as the kernels read them, of the values that they have now, and for CPUs those of the context
        alone: live taps (C, taps M), bias (C,), and the first layer's (H1, C).
        """
        conv, inner = self.context_prediction, self.latent_codec["y"]
        convs, slopes = pointwise_layers(self.entropy_parameters)
        model = inner.gaussian_conditional
        tensors = [p.detach() for module in (conv, *convs) for p in module.parameters()]
        tensors += [conv.mask, model.scale_table, model.lower_bound_scale.bound]
        kept = _networks.get(self)
        if kept is None:
            kept = _networks[self] = Kept()
        return kept.get(tensors, lambda: _network(conv, convs, slopes[0], model, inner.chunks))


def _network(
    conv: Host, convs: list[nn.Conv2d], slope: float, model: Host, chunks: tuple[str, str]
) -> tuple[Network, tuple[Tensor, ...]]:
    first, hidden, last = ((weight_of(c).double().cpu(), bias_of(c).double().cpu()) for c in convs)
    C = conv.out_channels
    w_context, bias = kernels.fold_context(
        first[0][:, :C], (conv.weight * conv.mask).detach().cpu(), bias_of(conv).cpu()
    )
    # The kernels give means above scales.
    order = [chunks.index("means"), chunks.index("scales")]
    weight, out_bias = (torch.stack([t.chunk(2)[i] for i in order]).flatten(0, 1).float() for t in last)
    device = conv.weight.device
    network = Network.floats(
        first[0][:, C:].float(),
        w_context.float(),
        torch.stack([first[1], first[1] + bias]).float(),
        (hidden[0].float(), hidden[1].float()),
        (weight, out_bias),
        slope=slope,
        thresholds=_thresholds(model) if device.type == "cuda" else None,
        device=device,
    )
    live = (conv.weight * conv.mask).detach().flatten(2)[:, :, 1::2].transpose(1, 2).flatten(1)
    return network, (live.contiguous(), bias_of(conv), weight_of(convs[0])[:, :C].contiguous())


def _thresholds(model: Host) -> Tensor:
    """What sigma must exceed, one after the other, for the indices 1, 2, ...: build_indexes with its lower bound."""
    edges = torch.sort(model.scale_table[:-1].float().cpu()).values
    return torch.where(edges < model.lower_bound_scale.bound.cpu(), torch.tensor(-torch.inf), edges)


class _Batch:
    """Images of one size on their way through both phases. Rows are sites, channels last, as in ckbd.kernels."""

    def __init__(self, codec: Host, side_params: Tensor, lattice: Lattice):
        self.lattice = lattice
        self.network, self.context_layers = codec.network()
        self.model = codec.latent_codec["y"].gaussian_conditional
        self.tables = entropy.tables_of(self.model)
        self.n = len(lattice.sizes)
        side = _to_rows(side_params.float())
        channels = self.network.C
        if side.shape[1] != channels:
            raise ValueError(f"side_params: expected {channels} channels, got {side.shape[1]}")
        self.psi = [kernels.split(side, lattice, p) for p in range(2)]
        self.full = side.new_zeros((lattice.full_sites, self.network.M))
        self.context: Tensor | None = None

    def encode(self, p: int, y: Tensor) -> list[bytes]:
        mean, k = self._parameters(p)
        half = kernels.split(_to_rows(y.float()), self.lattice, p)
        r = torch.round(half - mean).int()
        self._put(p, r, mean)
        return entropy.encode(self.tables, self._planes(r, p), self._indexes(k, p))

    def decode(self, p: int, strings: list[bytes]) -> None:
        mean, k = self._parameters(p)
        symbols = entropy.decode(self.tables, strings, self._indexes(k, p), mean.device)
        r = torch.zeros(mean.shape, dtype=torch.int32, device=mean.device)
        keep = self._sites(p)
        r.view(self.n, -1, self.network.M)[:, keep] = symbols.transpose(1, 2)
        self._put(p, r, mean)

    def y_hat(self) -> Tensor:
        h, w = self.lattice.sizes[0]
        return self.full.view(self.n, h, w, -1).permute(0, 3, 1, 2)

    def _parameters(self, p: int) -> tuple[Tensor, Tensor]:
        psi_acc = kernels.project(self.psi[p], self.network)
        ((h, w), *_), context = self.lattice.sizes, self.context
        if context is not None and not context.is_cuda and w % 2 == 0:
            # Fewer products: the fused layer pays where a layer's output has to leave the chip. Without a context,
            # the phase adds the first layer's own bias.
            live, bias, first = self.context_layers
            near = context.view(self.n, h, w // 2, -1)
            columns = reference.context_columns(near, 0, h, self.network.kernel, self.lattice.parity)
            psi_acc[:, : len(first)] += F.linear(F.linear(columns.flatten(0, 2), live, bias), first)
            context = None
        return kernels.phase(psi_acc, context, self.network, self.lattice)

    def _put(self, p: int, r: Tensor, mean: Tensor) -> None:
        self.context = context = r.float() + mean
        kernels.merge(context, self.lattice, p, self.full)

    def _indexes(self, k: Tensor, p: int) -> Tensor:
        """Table indexes (n, M, sites that exist): k is sigma on a CPU, and the index itself on a GPU."""
        planes = self._planes(k, p)
        if k.dtype == torch.uint8:
            return planes
        model = self.model
        return entropy.scale_indexes(planes, model.scale_table, float(model.lower_bound_scale.bound))

    def _planes(self, rows: Tensor, p: int) -> Tensor:
        """Rows (n sites, M) in the order of the stream: (n, M, sites), each channel in raster order, no blanks."""
        return rows.view(self.n, -1, rows.shape[1]).transpose(1, 2)[:, :, self._sites(p)]

    def _sites(self, p: int) -> slice | Tensor:
        """Which packed sites of an image exist: at odd widths every other row ends with one that does not."""
        h, w = self.lattice.sizes[0]
        if w % 2 == 0:
            return slice(None)
        row = torch.arange(h).view(-1, 1)
        column = 2 * torch.arange((w + 1) // 2) + ((row + p + self.lattice.parity) & 1)
        return (column < w).flatten().to(self.full.device)


def _to_rows(t: Tensor) -> Tensor:
    """(n, C, h, w) as (n h w, C), contiguous."""
    return t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]).contiguous()
