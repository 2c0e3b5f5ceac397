"""Images to streams, many at once: files are read ahead, and several batches are encoded at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ckbd.codec import image, inputs
from ckbd.codec.image import Picture
from ckbd.codec.machine import Team
from ckbd.pipeline import flow, sources
from ckbd.pipeline.flow import Window
from ckbd.pipeline.lanes import Lanes
from ckbd.pipeline.sources import Held, Item

IN_FLIGHT = 2  # batches on a GPU
BATCH = {"cpu": 1, "cuda": 32}  # images: on a CPU each by itself
PIXELS = 1 << 25  # of a batch, at about the most
Named = Iterator[tuple[Any, Any]]


class Encoding:
    """A codec's encoder, and what its iterators use; safe to share."""

    def __init__(self, encoder: Any, team: Team, device: torch.device):
        self.encoder, self.team, self.device = encoder, team, device
        self.parallel = team.threads if device.type == "cpu" else IN_FLIGHT
        self.lanes = Lanes(device, self.parallel)
        self.batch = BATCH.get(device.type, BATCH["cuda"])

    def run(
        self,
        images: Iterable[Any],
        quality: str | float | Iterable[float],
        effort: int | None,
        *,
        on_error: str = "raise",
    ) -> Named:
        """As ckbd.Codec.encode_iter."""
        if on_error not in ("raise", "yield"):
            raise ValueError(f"on_error: expected 'raise' or 'yield', got {on_error!r}")
        if isinstance(images, (Image.Image, Picture)) or (
            isinstance(images, (np.ndarray, Tensor)) and images.ndim < 4
        ):
            raise TypeError("images: expected several, got a single one")
        if isinstance(quality, str) or not isinstance(quality, Iterable):
            quality = repeat(*inputs.qualities(float(quality), 1))
        inputs.effort_of(effort, self.encoder.EFFORTS)
        # Pictures that are read are large, so not many more than are needed.
        load = partial(image.read, max_pixels=self.encoder.max_pixels)
        items = sources.read(images, load, ahead=min(2 * self.parallel * self.batch, sources.READ_AHEAD))
        return self._iterate(items, iter(quality), effort, on_error == "raise")

    def _iterate(self, items: Iterator[Item], quality: Iterator[float], effort: int | None, raises: bool) -> Named:
        def work(batch: list[tuple[Item, float]]) -> list[Any]:
            return self._encode([item.value for item, _ in batch], [q for _, q in batch], effort)

        found = flow.run(
            _windows(items, quality, self.batch, self.encoder.max_pixels),
            work,
            self.team,
            self.parallel,
            2 * self.parallel,
        )
        try:
            for (item, _), result in found:
                if isinstance(result, Exception) and (raises or not isinstance(result, (OSError, ValueError))):
                    raise sources.noted(result, item.name)
                yield item.name, result
                del item, result
        finally:
            found.close()  # type: ignore[attr-defined]  # a generator
            items.close()  # type: ignore[attr-defined]

    def _encode(self, images: list[Any], qualities: list[float], effort: int | None) -> list[Any]:
        """A stream, or what was wrong with the image, of each."""
        results: list[Any] = [_picture(one, self.encoder.max_pixels) for one in images]
        good = [i for i, one in enumerate(results) if isinstance(one, Picture)]
        lane = self.lanes.take()
        try:
            with lane.working():
                try:
                    coded = self.encoder.encode([results[i] for i in good], [qualities[i] for i in good], effort)
                    for i, stream in zip(good, coded, strict=True):
                        results[i] = stream
                except (ValueError, MemoryError):
                    # One of them cannot be coded: which?
                    for i in good:
                        results[i] = self._one(results[i], qualities[i], effort)
        finally:
            self.lanes.give(lane)
        return results

    def _one(self, picture: Picture, quality: float, effort: int | None) -> Any:
        try:
            return self.encoder.encode([picture], quality, effort)[0]
        except (ValueError, MemoryError) as error:
            return error


def _picture(source: Any, max_pixels: int) -> Any:
    """A Picture, or what is wrong with it."""
    try:
        return source if isinstance(source, Exception) else inputs.as_picture(source, max_pixels)
    except (ValueError, TypeError) as error:
        return error


def _pixels(source: Any) -> int:
    """About how many an image has; of what is none, nothing."""
    if isinstance(source, (Image.Image, Picture)):
        return source.width * source.height
    if isinstance(source, (np.ndarray, Tensor)):
        return math.prod(source.shape) // 3
    return 0


def _windows(
    items: Iterator[Item], quality: Iterator[float], count: int, max_pixels: int
) -> Iterator[Window[tuple[Item, float]]]:
    taken: list[tuple[Item, float]] = []
    pixels = 0
    held = Held(_with_quality(items, quality, max_pixels))
    for item, own in held:
        taken.append((item, own))
        pixels += _pixels(item.value)
        if len(taken) == count or pixels >= PIXELS:
            yield Window(taken, [list(range(len(taken)))])
            taken, pixels = [], 0
    if taken:
        yield Window(taken, [list(range(len(taken)))])
    held.check()


def _with_quality(items: Iterator[Item], quality: Iterator[float], max_pixels: int) -> Iterator[tuple[Item, float]]:
    for item in items:
        own = next(quality, None)
        if own is None:
            raise ValueError(f"quality: there are fewer than images, none is left for {item.name!r}")
        (own,) = inputs.qualities(own, 1)
        if isinstance(item.value, Tensor):
            item = item._replace(value=_picture(item.value.clone(), max_pixels))  # here, on the stream of who made it
        elif isinstance(item.value, np.ndarray):
            item = item._replace(value=item.value.copy())  # whoever gave it may write to it while it waits
        yield item, own
