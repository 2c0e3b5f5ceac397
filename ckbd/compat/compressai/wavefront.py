"""CompressAI's raster-scan context models, one anti-diagonal of positions after the other: serial="wavefront".

With the causal context of width k, a position needs no other that lies less than k // 2 + 1 columns further for each
row that it lies below: all positions of equal w + (k // 2 + 1) h are computed at once, with the sums of "sparse". The
stream has them in that order too, since a stream in raster order cannot be read in any other. So it is a stream of
its own: it decodes with the same setting on the same kind of device with as many threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ckbd import _ans
from ckbd.compat.compressai import entropy
from ckbd.compat.compressai.plain import Host, Unsupported
from ckbd.compat.compressai.serial import SparseContext, SparseJoint, SparseRaster


class _Diagonals:
    """The anti-diagonals of a latent (height, width), as views of what is laid out in rows of positions."""

    def __init__(self, height: int, width: int, slope: int) -> None:
        self.height, self.width, self.slope = height, width, slope

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """(first row, its column, how many positions): the next one is a row below and `slope` columns before."""
        for t in range(self.width + self.slope * (self.height - 1)):
            h = max(0, -((self.width - 1 - t) // self.slope))
            if t >= self.slope * h:
                yield h, t - self.slope * h, min(t // self.slope, self.height - 1) - h + 1

    def view(self, rows: Tensor, h: int, w: int, n: int, span: int = 1) -> Tensor:
        """(n, span C): the positions of a diagonal from (h, w) on in rows (H, W, C), and span - 1 after each."""
        row, column, _ = rows.stride()
        start = rows.storage_offset() + h * row + w * column
        # A latent that is narrower than the slope has diagonals of one position.
        return rows.as_strided((n, span * rows.shape[2]), (max(row - self.slope * column, 1), 1), start)


class WavefrontContext(SparseContext):
    """(scales, means), each (n, M), of the positions of a diagonal."""

    def __init__(self, host: Host, params: Tensor, weight: Tensor | None, diagonals: _Diagonals):
        super().__init__(host, params, weight)
        self.diagonals = diagonals

    def __call__(  # type: ignore[override]  # of a diagonal's positions, not of one
        self, near: Tensor, h: int, w: int, n: int
    ) -> tuple[Tensor, Tensor]:
        """near: y_hat, padded (H, W, M), contiguous."""
        view = self.diagonals.view
        taps = torch.cat([view(near, h + dh, w + a, n, b - a) for dh, a, b in self.taps], 1)
        context = F.linear(taps, *self.conv)
        out = torch.addmm(view(self.psi, h, w, n), context, self.layers[0][0].t())
        for (weight, bias, _), (_, _, slope) in zip(self.layers[1:], self.layers[:-1], strict=True):
            out = F.linear(F.leaky_relu(out, slope), weight, bias)
        scales, means = out.chunk(2, 1)
        return scales, means


class _Wavefront:
    """Goes before the sparse mixins and takes their loops over positions."""

    @classmethod
    def check(cls, host: Host) -> None:
        super().check(host)  # type: ignore[misc]  # of the mixin that it goes before
        conv = host.context_prediction
        p = conv.padding[0]
        alive = conv.mask != 0
        if bool(alive[:, :, p + 1 :].any()) or bool(alive[:, :, p, p:].any()):
            raise Unsupported("its context is not causal")

    def _start(
        self: Host, y_hat: Tensor, params: Tensor, height: int, width: int, padding: int, weight: Tensor | None
    ) -> tuple[Tensor, _Diagonals, WavefrontContext]:
        """(y_hat padded (H, W, M), diagonals, context of a diagonal)."""
        near = y_hat[0].permute(1, 2, 0).contiguous()
        diagonals = _Diagonals(height, width, padding + 1)
        return near, diagonals, WavefrontContext(self, params, weight, diagonals)

    def _encode(self: Host, y_hat: Tensor, params: Tensor, height: int, width: int, padding: int) -> bytes:
        """The stream of y, padded (1, M, height + 2 padding, ...), which becomes y_hat where it lies."""
        model = self.gaussian_conditional
        near, diagonals, context = self._start(y_hat, params, height, width, padding, None)
        symbols = torch.empty((height * width, near.shape[2]), dtype=torch.int32)
        indexes = torch.empty_like(symbols)
        at = 0
        for h, w, n in diagonals:
            scales_hat, means_hat = context(near, h, w, n)
            indexes[at : at + n] = entropy.build_indexes(model, scales_hat)
            place = diagonals.view(near, h + padding, w + padding, n)
            y_q = model.quantize(place, "symbols", means_hat)
            place.copy_(y_q + means_hat)
            symbols[at : at + n] = y_q
            at += n
        y_hat.copy_(near.permute(2, 0, 1))
        return _ans.encode(entropy.tables_of(model), symbols.view(-1), indexes.view(-1))

    def _decode(
        self: Host, string: Any, y_hat: Tensor, params: Tensor, height: int, width: int, padding: int, weight: Tensor
    ) -> None:
        """The inverse: fills y_hat, padded, which holds zeros."""
        model = self.gaussian_conditional
        near, diagonals, context = self._start(y_hat, params, height, width, padding, weight)
        decoder, tables = _ans.Decoder(entropy.stream_of("string", string)), entropy.tables_of(model)
        symbols = torch.empty((height, near.shape[2]), dtype=torch.int32)
        for h, w, n in diagonals:
            scales_hat, means_hat = context(near, h, w, n)
            indexes = entropy.build_indexes(model, scales_hat).cpu()
            decoder.decode(tables, indexes.view(-1), symbols[:n].view(-1))
            values = symbols[:n].to(means_hat.device, torch.float32)
            diagonals.view(near, h + padding, w + padding, n).copy_(values + means_hat)
        y_hat.copy_(near.permute(2, 0, 1))


class WavefrontJoint(_Wavefront, SparseJoint):
    pass


class WavefrontRaster(_Wavefront, SparseRaster):
    pass
