"""From y_hat to pictures, or to what is asked for of them: g_s in strips, rounded into pixels, with what the optional
sections add.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ckbd.codec import batches, sections
from ckbd.codec.container import Header, Stream
from ckbd.codec.image import Picture
from ckbd.codec.machine import Each, in_turn
from ckbd.codec.networks import ends, floats, strips, tensors
from ckbd.codec.networks.floats import Paint
from ckbd.codec.networks.windows import Window
from ckbd.codec.progress import Tell, between, silent
from ckbd.codec.view import SHRINKS, WHOLE, Piece, View
from ckbd.kernels import numerics
from ckbd.model.model import gain_at
from ckbd.model.transforms import Pixels, Pointwise, Staged

Stage = Callable[[str], AbstractContextManager[None]]
# (top, left) in pixels, and what belongs there: x_hat (B, 3, H, W), or the uint8 pixels that it rounds to.
Strip = tuple[tuple[int, int], Tensor]


class Renderer:
    """g_s of a model on a device, and what is done with its output. Floats: reading a bit never needs them."""

    def __init__(
        self,
        g_s: Staged,
        log_ungain: Tensor,
        device: torch.device,
        each: Each = in_turn,
        dtype: torch.dtype = torch.float32,
        products: torch.dtype = torch.float32,
        preview: tuple[Tensor, Tensor] | None = None,
    ):
        """dtype: of the weights of g_s. products: what blocks of float32 multiply in on a CPU, in `floats`. preview:
        the model's, if it has one.
        """
        network = g_s.stages()
        quick = device.type == "cpu" and dtype == torch.float32
        self.stages: list[Any] = floats.stages(network, products) if quick else network
        # By how much the picture is smaller: the stages that make it so. Of other networks there is the whole alone.
        self.smaller: dict[int, list[Any]] = {}
        if isinstance(network[-1], Pixels) and isinstance(network[-2], Pointwise):
            body = self.stages[: -1 if quick else -2]
            for shrink in SHRINKS[1:]:
                if preview and ends.previewed(shrink):
                    before, end = body[:0], ends.preview(*preview, shrink)
                else:
                    before, end = body, ends.means(network[-2], shrink)
                run = floats.stages(end, products) if quick else [one.to(dtype) for one in end]
                self.smaller[shrink] = [*before, *run]
        self.log_ungain, self.device = log_ungain, device
        self.each, self.dtype, self.products = each, dtype, products

    @torch.inference_mode()
    def g_s(
        self, y_hat: Tensor, headers: Sequence[Header], shrink: int = 1, window: Window | None = None
    ) -> Iterator[Strip]:
        """Strips of x_hat of pictures of one padded size with these headers; y_hat (B, M, h, w) in 1/16 units. On a
        CPU they may be bytes already. shrink: 1, or one of self.smaller; window: of the x_hat that is so much
        smaller, from whose corner places are then counted (None: all, padding included).
        """
        quality = torch.tensor([h.quality2 / 2 for h in headers], dtype=torch.float32, device=self.device)
        gain = gain_at(self.log_ungain, quality)

        def latents(rows: slice, columns: slice) -> Tensor:
            y = y_hat[:, :, rows, columns] * (gain / numerics.MEAN_STEP)
            return y.to(self.dtype, memory_format=torch.channels_last)

        size, stages = (y_hat.shape[2], y_hat.shape[3]), self.stages if shrink == 1 else self.smaller[shrink]
        if isinstance(stages[-1], Paint):
            stages = [*stages[:-1], stages[-1].of([h.gray for h in headers])]
        pixels = batches.most_pixels(self.device)
        yield from strips.images(stages, latents, size, pixels, self.device, self.each, window)

    def put(self, strip: Strip, headers: Sequence[Header], rgb: Sequence[np.ndarray]) -> None:
        """Rounds a strip into the pixels of its pictures, uint8 (H, W, 3) each."""
        (top, left), x_hat = strip
        for pixels, one, h in zip(rgb, x_hat, headers, strict=True):
            place = pixels[top : top + x_hat.shape[2], left : left + x_hat.shape[3]]
            height, width = place.shape[:2]
            rows = strips.cuts(height, strips.bands_of(height, width, height * width))
            self.each(partial(_put, place, one, h.gray), rows)

    def pictures(
        self, streams: Sequence[Stream], y_hat: Tensor, stage: Stage, view: View = WHOLE, tell: Tell = silent
    ) -> list[Picture]:
        """All of the above: what is asked for of pictures of streams of one padded size. On a CPU g_s takes each by
        itself, since the last bits of its floats depend on what else is in a batch.
        """
        if len(streams) > 1 and (self.device.type == "cpu" or not view.whole):
            parts = [between(tell, i / len(streams), (i + 1) / len(streams)) for i in range(len(streams))]
            singles = [self.pictures([s], y_hat[i : i + 1], stage, view, parts[i]) for i, s in enumerate(streams)]
            return [picture for (picture,) in singles]
        headers = [s.header for s in streams]
        if view.whole:
            rgb = [np.empty((h.height, h.width, 3), np.uint8) for h in headers]
            self._render(y_hat, headers, rgb, stage, tell)
        else:
            rgb = [self._part(y_hat, headers[0], stage, view, tell)]
        with stage("picture"):
            return [sections.finished(s, pixels, view) for s, pixels in zip(streams, rgb, strict=True)]

    def _part(self, y_hat: Tensor, header: Header, stage: Stage, view: View, tell: Tell) -> np.ndarray:
        """The pixels of a part of one picture. Other networks than ours paint it whole, and it is shrunk then."""
        tells = iter([tell])

        def paint(piece: Piece) -> np.ndarray:
            left, top, right, bottom = piece.box
            rgb = np.empty((bottom - top, right - left, 3), np.uint8)
            # Without a region no row or column is worth being left out.
            window = Window(top, left, bottom, right) if view.region or piece.shrink == 1 else None
            self._render(y_hat, [header], [rgb], stage, next(tells, silent), piece.shrink, window)
            return rgb

        return view.made(header.width, header.height, self.smaller, paint)

    def _render(
        self,
        y_hat: Tensor,
        headers: Sequence[Header],
        rgb: Sequence[np.ndarray],
        stage: Stage,
        tell: Tell,
        shrink: int = 1,
        window: Window | None = None,
    ) -> None:
        found = self.g_s(y_hat, headers, shrink, window)
        done, total = 0, rgb[0].shape[0] * rgb[0].shape[1]
        while True:
            with stage("g_s"):
                strip = next(found, None)
            if strip is None:
                return
            with stage("picture"):
                self.put(strip, headers, rgb)
            done += strip[1].shape[2] * strip[1].shape[3]
            tell(min(done / total, 1.0))


def _put(pixels: np.ndarray, x_hat: Tensor, gray: bool, rows: tuple[int, int]) -> None:
    top, bottom = rows
    tensors.put(pixels[top:bottom], x_hat[:, top:bottom], gray)
