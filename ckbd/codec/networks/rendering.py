"""From y_hat to pictures: g_s in strips, rounded into pixels, with what the optional sections add."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ckbd.codec import batches, sections
from ckbd.codec.container import Header, Stream
from ckbd.codec.image import Picture
from ckbd.codec.machine import Each, in_turn
from ckbd.codec.networks import floats, strips, tensors
from ckbd.codec.networks.floats import Paint
from ckbd.kernels import numerics
from ckbd.model.model import gain_at
from ckbd.model.transforms import Staged

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
    ):
        """dtype: of the weights of g_s. products: what blocks of float32 multiply in on a CPU, in `floats`."""
        whole = device.type == "cpu" and dtype == torch.float32
        self.stages = floats.stages(g_s, products) if whole else g_s.stages()
        self.log_ungain, self.device = log_ungain, device
        self.each, self.dtype, self.products = each, dtype, products

    @torch.inference_mode()
    def g_s(self, y_hat: Tensor, headers: Sequence[Header]) -> Iterator[Strip]:
        """Strips of x_hat of pictures of one padded size with these headers; y_hat (B, M, h, w) in 1/16 units. On a
        CPU they may be bytes already.
        """
        quality = torch.tensor([h.quality2 / 2 for h in headers], dtype=torch.float32, device=self.device)
        gain = gain_at(self.log_ungain, quality)

        def latents(rows: slice, columns: slice) -> Tensor:
            y = y_hat[:, :, rows, columns] * (gain / numerics.MEAN_STEP)
            return y.to(self.dtype, memory_format=torch.channels_last)

        size, stages = (y_hat.shape[2], y_hat.shape[3]), self.stages
        if isinstance(stages[-1], Paint):
            stages = [*stages[:-1], stages[-1].of([h.gray for h in headers])]
        yield from strips.images(stages, latents, size, batches.most_pixels(self.device), self.device, self.each)

    def put(self, strip: Strip, headers: Sequence[Header], rgb: Sequence[np.ndarray]) -> None:
        """Rounds a strip into the pixels of its pictures, uint8 (H, W, 3) each."""
        (top, left), x_hat = strip
        for pixels, one, h in zip(rgb, x_hat, headers, strict=True):
            place = pixels[top : top + x_hat.shape[2], left : left + x_hat.shape[3]]
            height, width = place.shape[:2]
            rows = strips.cuts(height, strips.bands_of(height, width, height * width))
            self.each(partial(_put, place, one, h.gray), rows)

    def pictures(self, streams: Sequence[Stream], y_hat: Tensor, stage: Stage) -> list[Picture]:
        """All of the above: pictures of streams of one padded size. On a CPU g_s takes each by itself, since the last
        bits of its floats depend on what else is in a batch.
        """
        if self.device.type == "cpu" and len(streams) > 1:
            singles = [self.pictures([s], y_hat[i : i + 1], stage) for i, s in enumerate(streams)]
            return [picture for (picture,) in singles]
        headers = [s.header for s in streams]
        rgb = [np.empty((h.height, h.width, 3), np.uint8) for h in headers]
        found = self.g_s(y_hat, headers)
        while True:
            with stage("g_s"):
                strip = next(found, None)
            if strip is None:
                break
            with stage("picture"):
                self.put(strip, headers, rgb)
        with stage("picture"):
            return [sections.finished(s, pixels) for s, pixels in zip(streams, rgb, strict=True)]


def _put(pixels: np.ndarray, x_hat: Tensor, gray: bool, rows: tuple[int, int]) -> None:
    top, bottom = rows
    tensors.put(pixels[top:bottom], x_hat[:, top:bottom], gray)
