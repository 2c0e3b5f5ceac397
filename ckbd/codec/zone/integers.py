"""The exact zone of pictures of one size in integers, on a CPU: products by the library, what is between in C++."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ckbd import _passes
from ckbd.codec.machine import Each, in_turn
from ckbd.codec.networks.strips import cuts
from ckbd.codec.zone.layers import FAR, Dense, Far, Gathered, Scratch, Signed, empty
from ckbd.codec.zone.steps import GroupZone, quantise
from ckbd.kernels import products
from ckbd.kernels.network import taps
from ckbd.kernels.numerics import IntLayer
from ckbd.model.model import ExactLayers

SITES = 384  # at a time: 1.2 MB of gathered neighbours with the default model's widths
ALONE = 128  # sites that are not worth sharing
AROUND = [(u, v, v) for u in (-1, 0, 1) for v in (-1, 0, 1)]
CPU = torch.device("cpu")


@dataclass
class IntegerState:
    """psi: uint8 (2, rows, W/2, C_psi) of both halves; mean, r: int16 (2, rows, W/2, M), as far as they are known.
    Rows are those of `count` pictures below one another.
    """

    count: int
    psi: Tensor
    mean: Tensor
    r: Tensor
    context: Signed | None = None
    far: Far | None = None

    @property
    def height(self) -> int:
        return self.psi.shape[1] // self.count

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a phase."""
        return self.count, self.height, self.mean.shape[2], self.mean.shape[3]


class Unserved(ValueError):
    """This device or processor cannot run these layers in integers; the message says why."""


class Integers(GroupZone[IntegerState]):
    ragged, most_side = False, None

    def __init__(
        self, layers: ExactLayers, each: Each = in_turn, device: torch.device = CPU, reach: int | None = None
    ):
        """reach: products.WIDE or NARROW, for what is signed (None: what this processor can). Raises Unserved where
        the products of these layers are not exact.
        """
        self.each, self.scratch = each, Scratch()
        if device.type != "cpu":
            raise Unserved(f"device {device}: integers run on a CPU only")
        self.reach = products.reach(_shapes(layers)) if reach is None else reach
        if not self.reach:
            raise Unserved("this processor and this PyTorch have no exact products of eight bits")
        layers = ExactLayers((name, layer.to("cpu", torch.int32)) for name, layer in layers.items())
        first, hidden, output = layers.g_ep
        self.M = len(output.weight) // 2
        self.psi = first.weight.shape[1] - 12 * self.M  # with what a channel group has of those before it
        self.h_s = self._h_s(layers["h_s.0"], signed=True), self._h_s(layers["h_s.1"], signed=False)
        self.anchors = Dense(first, first.weight[:, : self.psi], first.bias[0])
        around = [(dh, (1 + dw) >> 1, dw >> 1) for dh, dw in taps(5)]  # non-anchors of even rows are in odd columns
        others = Dense(first, first.weight, first.bias[1])
        self.others = Gathered(others, around, np.full(self.M, self.reach, np.int32))
        self.hidden, self.output = (Dense(one, one.weight, one.bias) for one in (hidden, output))
        self.channel = self._channel(layers["channel"]) if "channel" in layers else None

    def _h_s(self, conv: IntLayer, signed: bool) -> Gathered:
        """A sub-pixel convolution; its rows come by corner, as _passes.requantise wants them."""
        N4, C = conv.weight.shape[:2]
        order = torch.from_numpy(np.arange(N4).reshape(-1, 4).T.ravel().copy())
        weight = conv.weight[order].permute(0, 2, 3, 1).flatten(1)
        dense = Dense(IntLayer(weight, conv.bias, conv.shift[order]), weight, conv.bias[order])
        offset = np.zeros(C, np.int32)
        offset[: C - 1] = self.reach if signed else 0  # the last of the signed ones is the quality, which is not
        return Gathered(dense, AROUND, offset)

    def _channel(self, conv: IntLayer) -> Gathered:
        """The layer that sees the groups before."""
        weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
        dense = Dense(IntLayer(weight, conv.bias, conv.shift), weight, conv.bias)
        return Gathered(dense, AROUND, np.full(conv.weight.shape[1], self.reach, np.int32))

    def begin(self, z: Tensor, quality: Tensor) -> IntegerState:
        B, Hz, Wz, _ = z.shape
        plane = quality.to(z.device).view(B, 1, 1).expand(B, Hz, Wz)
        return self._begin(z.reshape(B * Hz, Wz, -1), plane.reshape(B * Hz, Wz), B)

    def begin_rows(self, z: Tensor, quality: Tensor, sizes: Sequence[tuple[int, int]]) -> IntegerState:
        Hz, Wz = sizes[0]
        rows = len(sizes) * Hz
        return self._begin(z.view(rows, Wz, -1), quality.view(rows, Wz), len(sizes))

    def _begin(self, z: Tensor, quality: Tensor, count: int) -> IntegerState:
        rows, width, _ = z.shape
        f = self._signed(z, quality)
        grown = empty((2 * rows, 2 * width, len(self.h_s[0].bias) // 4), torch.uint8)
        self._grow(self.h_s[0], f, rows // count, grown)
        psi = empty((2, 4 * rows, 2 * width, self.psi), torch.uint8)
        self._grow(self.h_s[1], Signed(grown), 2 * rows // count, psi)
        return self._state(count, psi)

    def _state(self, count: int, psi: Tensor) -> IntegerState:
        mean, r = (empty((*psi.shape[:3], self.M), torch.int16) for _ in range(2))
        return IntegerState(count, psi, mean, r)

    def after(self, states: Sequence[IntegerState]) -> IntegerState:
        assert self.channel is not None
        layer, first = self.channel, states[0]
        parts = [[self._companded(state, p) for p in (0, 1)] for state in states]
        x = Signed(_whole([[half.near for half in halves] for halves in parts]))
        if self.reach != products.WIDE:
            far = _whole([[half.far for half in halves if half.far is not None] for halves in parts])
            some = [torch.stack([half.any for half in halves if half.any is not None]).amax(0) for halves in parts]
            x = Signed(x.near, far, torch.cat(some))
        beyond, N = layer.far(x), len(layer.dense.weight)
        features = empty((*x.near.shape[:2], N), torch.uint8)

        def stripe(rows: tuple[int, int]) -> None:
            sums, bias = layer.sums(x, beyond, first.height, rows, self.scratch)
            _passes.requantise(sums, bias, layer.dense.shift, features[slice(*rows)].flatten(0, 1))

        self.each(stripe, _stripes(*x.near.shape[:2]))
        shared = first.psi[..., : self.psi - N]
        return self._state(first.count, torch.cat((shared, _halves(features)), -1))

    def _signed(self, z: Tensor, quality: Tensor) -> Signed:
        """z and the quality as a map."""
        if self.reach == products.WIDE:
            return Signed(torch.cat(((z + self.reach).to(torch.uint8), quality.to(torch.uint8)[..., None]), -1))
        close = z.clamp(-self.reach, self.reach)
        near = torch.cat(((close + self.reach).to(torch.uint8), quality.to(torch.uint8)[..., None]), -1)
        far = torch.full_like(near, FAR)
        far[..., :-1] = (z - close + FAR).to(torch.uint8)
        return Signed(near, far, (far != FAR).flatten(0, 1).any(0))

    def _grow(self, layer: Gathered, x: Signed, height: int, out: Tensor) -> None:
        far = layer.far(x)

        def stripe(rows: tuple[int, int]) -> None:
            sums, bias = layer.sums(x, far, height, rows, self.scratch)
            _passes.requantise(sums, bias, layer.dense.shift, out, rows=rows)

        self.each(stripe, _stripes(*x.near.shape[:2]))

    def phase(self, state: IntegerState, p: int) -> Tensor:
        _, rows, width, M = state.mean.shape
        k = empty((rows, width, M), torch.uint8)
        psi, mean = state.psi[p], state.mean[p]

        def stripe(some: tuple[int, int]) -> None:
            h = self._first(state, psi, some) if p else self._hidden(self.anchors, psi[slice(*some)].flatten(0, 1))
            h = self._hidden(self.hidden, h)
            sums = self.output.sums(h, self.scratch)
            flat = (part[slice(*some)].flatten(0, 1) for part in (mean, k))
            _passes.output(sums, self.output.bias, self.output.shift, *flat)

        self.each(stripe, _stripes(rows, width))
        return k.view(state.shape)

    def _first(self, state: IntegerState, psi: Tensor, rows: tuple[int, int]) -> Tensor:
        """The first layer of non-anchors."""
        assert state.context is not None
        plain = psi[slice(*rows)].flatten(0, 1)
        sums, bias = self.others.sums(state.context, state.far, state.height, rows, self.scratch, plain)
        h = empty(sums.shape, torch.uint8)
        _passes.requantise(sums, bias, self.others.dense.shift, h)
        return h

    def _hidden(self, layer: Dense, x: Tensor) -> Tensor:
        sums = layer.sums(x, self.scratch)
        h = empty(sums.shape, torch.uint8)
        _passes.requantise(sums, layer.bias, layer.shift, h)
        return h

    def quantise(self, state: IntegerState, p: int, y: Tensor) -> Tensor:
        return quantise(y, state.mean[p].view(state.shape), _stripes(state.height, state.count * state.shape[2]), p)

    def mean(self, state: IntegerState, p: int) -> Tensor:
        return state.mean[p].view(state.shape).float()

    def room(self, state: IntegerState, p: int) -> Tensor:
        return state.r[p].view(-1)

    def assemble(self, state: IntegerState, p: int, r: Tensor) -> None:
        if r.data_ptr() != state.r[p].data_ptr():
            state.r[p] = r.view(state.r[p].shape)
        if p:
            return
        state.context = self._companded(state, 0)
        state.far = self.others.far(state.context)

    def _companded(self, state: IntegerState, p: int) -> Signed:
        """y_hat of phase p as contexts see it."""
        if p == 0 and state.context is not None:
            return state.context
        r, mean = state.r[p].flatten(0, 1), state.mean[p].flatten(0, 1)
        near, shape = empty(r.shape, torch.uint8), state.r[p].shape
        if self.reach == products.WIDE:
            _passes.assemble(r, mean, near)
            return Signed(near.view(shape))
        far, some = torch.empty_like(near), near.new_zeros(r.shape[1])
        _passes.assemble(r, mean, near, far, some)
        return Signed(near.view(shape), far.view(shape), some)

    def y_hat(self, state: IntegerState) -> Tensor:
        B, H, half, M = state.shape
        out = empty((B * H, 2 * half, M), torch.float32)
        self.each(lambda rows: _passes.merge(state.r, state.mean, H, rows, out), _stripes(B * H, half))
        return out.view(B, H, 2 * half, M).permute(0, 3, 1, 2)

    def latents(self, state: IntegerState) -> list[Tensor]:
        return list(self.y_hat(state).split(1))


def _whole(parts: Sequence[Sequence[Tensor]]) -> Tensor:
    """Maps of both halves, (rows, W/2, M_g) each, of one group or several: (rows, W, M_0 + M_1 + ...)."""
    halves = [torch.cat(one, -1) if len(one) > 1 else one[0] for one in zip(*parts, strict=True)]
    even, odd = torch.stack(halves, 2).flatten(1, 2), torch.stack(halves[::-1], 2).flatten(1, 2)
    even[1::2] = odd[1::2]  # a picture's rows are a multiple of four
    return even


def _halves(x: Tensor) -> Tensor:
    """A map (rows, W, C) as its two halves, (2, rows, W/2, C)."""
    pairs = x.unflatten(1, (-1, 2))
    out = pairs.permute(2, 0, 1, 3).contiguous()
    out[:, 1::2] = pairs[1::2].flip(2).permute(2, 0, 1, 3)
    return out


def _shapes(layers: ExactLayers) -> list[tuple[int, int]]:
    """(inputs, outputs) of every product."""
    found = [(layer.weight[0].numel(), len(layer.weight)) for layer in layers.values()]
    first = layers["first"].weight
    return [*found, (first.shape[1] - 12 * (len(layers["output"].weight) // 2), len(first))]


def _stripes(rows: int, width: int) -> list[tuple[int, int]]:
    """(top, bottom) of stripes of about SITES sites; an even number, for two threads to end together."""
    if rows * width <= ALONE:
        return [(0, rows)]
    count = -(-rows * width // SITES)
    return cuts(rows, count + count % 2)
