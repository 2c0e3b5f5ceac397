"""g_s of a batch whose latents are there, into a tensor of each picture: by layers, or in kernels all at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ckbd.codec import batches
from ckbd.codec.container import Header
from ckbd.codec.networks import strips
from ckbd.codec.networks.painting import Painter, fits
from ckbd.codec.networks.rendering import Renderer, Strip
from ckbd.codec.zone import Zone
from ckbd.kernels.transforms import Pictures
from ckbd.pipeline.lanes import Lane
from ckbd.pipeline.pixels import Form

Stage = Callable[[str], AbstractContextManager[None]]


class Ready(NamedTuple):
    """A picture whose latents are there: its number among those of the state, header, and where it is to be."""

    number: int
    header: Header
    out: Tensor


class Render(Protocol):
    def __call__(self, lane: Lane, state: Any, count: int, ready: list[Ready]) -> None:
        """Writes out of the pictures that are ready, of the `count` whose latents state has."""


def apart(device: torch.device) -> bool:
    """Whether g_s takes each picture by itself: on a CPU, where the last bits of its floats depend on the batch."""
    return device.type == "cpu"


class Layered:
    """g_s in layers of PyTorch; on a GPU pictures of one padded size go together."""

    def __init__(self, renderer: Renderer, zone: Zone[Any], form: Form, stage: Stage):
        self.renderer, self.zone, self.form, self.stage = renderer, zone, form, stage
        self.device = renderer.device
        self.alone = apart(self.device)

    def __call__(self, lane: Lane, state: Any, count: int, ready: list[Ready]) -> None:
        if not ready:
            return
        y_hat = self.zone.latents(state)
        groups: dict[Any, list[Ready]] = {}
        for one in ready:
            groups.setdefault(one.number if self.alone else y_hat[one.number].shape, []).append(one)
        for group in groups.values():
            step = max(1, batches.most_pixels(self.device) // (y_hat[group[0].number][0, 0].numel() * 256))
            for start in range(0, len(group), step):
                some = group[start : start + step]
                values = [y_hat[one.number] for one in some]
                self._render(values[0] if len(values) == 1 else torch.cat(values), some)

    def _render(self, y_hat: Tensor, group: list[Ready]) -> None:
        found = self.renderer.g_s(y_hat, [one.header for one in group])
        while True:
            with self.stage("g_s"):
                strip = next(found, None)
            if strip is None:
                return
            with self.stage("picture"):
                height, width = strip[1].shape[2:]
                bands = strips.bands_of(height, width, height * width) if self.alone else 1
                self.renderer.each(partial(self._put, group, strip), strips.cuts(height, bands))

    def _put(self, group: list[Ready], strip: Strip, rows: tuple[int, int]) -> None:
        (top, left), x_hat = strip
        pixels = self.form.pixels(x_hat[:, :, rows[0] : rows[1]], [one.header.gray for one in group])
        for ready, one in zip(group, pixels, strict=True):
            self.form.place(ready.out, one, top + rows[0], left)


class Painted:
    """g_s in kernels: all pictures of a batch at once, whatever their sizes; in layers if one is too long."""

    def __init__(self, painter: Painter, layers: Layered, form: Form, stage: Stage):
        self.painter, self.layers, self.form, self.stage = painter, layers, form, stage

    def __call__(self, lane: Lane, state: Any, count: int, ready: list[Ready]) -> None:
        if not ready:
            return
        if not fits(state.lattice):
            self.layers(lane, state, count, ready)
            return
        with self.stage("g_s"):
            # Without pixels, pictures that failed on the way are left out.
            solid = [self.form.empty(0, 0, self.painter.device)] * count
            gray, quality2 = [False] * count, [2] * count
            for one in ready:
                # What a caller has given may lie in memory as it likes; kernels write to what is in one piece.
                empty = partial(torch.empty, one.out.shape, dtype=one.out.dtype, device=one.out.device)
                solid[one.number] = one.out if one.out.is_contiguous() else empty()
                gray[one.number], quality2[one.number] = one.header.gray, one.header.quality2
            pictures = Pictures.of(solid, self.form.layout, gray=gray, quality2=quality2, up=partial(_up, lane))
            self.painter.paint(state, pictures)
        with self.stage("picture"):
            for one in ready:
                if solid[one.number] is not one.out:
                    one.out.copy_(solid[one.number])


def _up(lane: Lane, table: Tensor) -> Tensor:
    flat = lane.host("pictures", table.numel(), table.dtype)
    flat.copy_(table.view(-1))
    return lane.up(flat).view(table.shape)
