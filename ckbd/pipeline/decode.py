"""Streams to tensors: which go together, and the iterator over all of them.

On a CPU batches go side by side on one thread each; on a GPU several are in flight, each with a stream of its own, so
that coder and copies of one lie under the networks of others. What is done with a batch is ckbd.pipeline.work.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ckbd.codec import batches, checks, container
from ckbd.codec.container import FormatError
from ckbd.codec.decoder import Decoder
from ckbd.codec.machine import Team
from ckbd.codec.networks.painting import Painter
from ckbd.codec.networks.rendering import Renderer
from ckbd.kernels import tune
from ckbd.model.transforms import channels_last
from ckbd.pipeline import flow, sources, warm
from ckbd.pipeline.flow import Window
from ckbd.pipeline.lanes import Lanes
from ckbd.pipeline.pixels import Form
from ckbd.pipeline.render import Layered, Painted, Render
from ckbd.pipeline.sources import Held, Item
from ckbd.pipeline.work import Singly, Work

IN_FLIGHT = 4  # batches on a GPU: one in each of the networks, the coder, the copies, and one that begins
PIXELS = {"cpu": 1 << 22, "cuda": 1 << 25}  # of the streams that are taken from the source together, at the most ...
COUNT = 256  # ... and their number
Named = Iterator[tuple[Any, Any]]


class Decoding:
    """A codec's decoder, and what its iterators use one after the other or at the same time; safe to share."""

    def __init__(self, decoder: Any, team: Team, device: torch.device):
        self.decoder, self.team, self.device = decoder, team, device
        self.parallel = team.threads if device.type == "cpu" else IN_FLIGHT
        self.lanes = Lanes(device, self.parallel)
        self.half = lru_cache(maxsize=1)(lambda: _in_half(decoder, device))
        self.single = lru_cache(maxsize=1)(lambda: _in_single(decoder, device))

    def run(
        self,
        streams: Iterable[Any],
        *,
        layout: str = "CHW",
        dtype: torch.dtype = torch.uint8,
        out: Iterable[Tensor] | None = None,
        on_error: str = "raise",
        batch_pixels: int | None = None,
        batch_count: int = COUNT,
        half: bool | None = None,
    ) -> Named:
        """As ckbd.Codec.decode_iter."""
        form = Form(layout, dtype)
        if on_error not in ("raise", "yield"):
            raise ValueError(f"on_error: expected 'raise' or 'yield', got {on_error!r}")
        batch_pixels = PIXELS.get(self.device.type, PIXELS["cuda"]) if batch_pixels is None else batch_pixels
        for name, value in (("batch_pixels", batch_pixels), ("batch_count", batch_count)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
        if isinstance(self.decoder, Decoder):
            work: Singly = Work(self.decoder, self.device, form, self.lanes, self._render(half, form))
        elif half:
            raise ValueError("half: models of the papers run in float32 alone")
        else:
            work = Singly(self.decoder, self.device, form)
        items = sources.read(streams, checks.read, out)
        return self._iterate(items, work, on_error == "raise", batch_pixels, batch_count)

    def _iterate(self, items: Iterator[Item], work: Singly, raises: bool, pixels: int, count: int) -> Named:
        windows = _windows(items, pixels, count, work)
        found = flow.run(
            windows, work, self.team, self.parallel, 2 if self.device.type == "cpu" else self.parallel + 1
        )
        try:
            for item, result in found:
                if isinstance(result, Exception):
                    if raises:
                        raise sources.noted(result, item.name)
                else:
                    work.hand_over(result)
                yield item.name, result
                del item, result
        finally:
            found.close()  # type: ignore[attr-defined]  # a generator
            items.close()  # type: ignore[attr-defined]

    def _render(self, half: bool | None, form: Form) -> Render:
        """g_s as it is to run: in float16 on a GPU, and in kernels, unless the caller wants it otherwise."""
        d = self.decoder
        if d.painter is not None:
            layers = Layered(d.renderer, d.zone, form, d.stage)
            return Painted(self.single() if half is False else d.painter, layers, form, d.stage)
        halved = self.device.type == "cuda" if half is None else half
        return Layered(self.half() if halved else d.renderer, d.zone, form, d.stage)

    def warm_up(self) -> Iterator[str]:
        """As ckbd.Codec.warm_up."""
        if self.device.type != "cuda" or not isinstance(self.decoder, Decoder):
            yield f"{self.device}: nothing to compile or measure"
            return
        with tune.thorough():
            layers = [] if self.decoder.painter is not None else [self.decoder.renderer, self.half()]
            for pixels, seconds in warm.warm_up(self.decoder, layers):
                yield f"batches of {pixels / 1e6:.3g} megapixels: {seconds:.1f} s"

    def tensors(self, streams: Sequence[Any], **options: Any) -> list[Tensor]:
        """As ckbd.Codec.decode_tensors."""
        return [x for _, x in self.run(streams, **options)]


def _buffer(stream: Any) -> Any:
    """A stream's bytes: a copy of those that whoever gave them may write to while they wait. Raises TypeError."""
    if isinstance(stream, bytes):
        return stream
    if isinstance(stream, (bytearray, memoryview)):
        return bytes(stream)
    about = type(stream).__name__
    if isinstance(stream, (Tensor, np.ndarray)):
        if stream.ndim == 1 and stream.dtype in (torch.uint8, np.uint8):
            return (stream.cpu().numpy() if isinstance(stream, Tensor) else stream).tobytes()
        about += f", {stream.dtype} {tuple(stream.shape)}"
    raise TypeError(f"stream: expected bytes, uint8 of one dimension, or a path, got {about}")


def _in_half(decoder: Decoder, device: torch.device) -> Renderer:
    g_s = channels_last(copy.deepcopy(decoder.model.g_s).half())
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # lanes have streams of their own, which do not wait for this one
    return Renderer(g_s, decoder.model.log_ungain, device, dtype=torch.float16)


def _in_single(decoder: Decoder, device: torch.device) -> Painter:
    assert decoder.painter is not None
    painter = Painter(decoder.model, device, decoder.painter.backend, torch.float32)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return painter


def _windows(items: Iterator[Item], pixels: int, count: int, work: Singly) -> Iterator[Window[Item]]:
    """The items in windows of so many pixels and streams at the most, one in any case.

    work.together: pixels of a batch, whose streams have one padded size; None: a window is a batch.
    """
    taken: list[Item] = []
    sizes: list[tuple[int, int]] = []
    total, most = 0, work.decoder.max_pixels
    held = Held(map(_taken, items))
    for item in held:
        size = None if isinstance(item.value, Exception) else container.peek(item.value)
        # What is too large, or nothing at all, is refused when it is opened.
        height, width = size if size is not None and size[0] * size[1] <= most else (0, 0)
        down, across = batches.patches(height, width)
        if work.most_side is not None and 4 * max(down, across) > work.most_side:
            item = item._replace(value=_refused(work.decoder, item.value))
        own = down * across * batches.PATCH**2  # what it takes, however thin
        if taken and (total + own > pixels or len(taken) == count):
            yield _window(taken, sizes, work.together)
            taken, sizes, total = [], [], 0
        taken.append(item)
        sizes.append((height, width))
        total += own
    if taken:
        yield _window(taken, sizes, work.together)
    held.check()


def _refused(decoder: Decoder, stream: Any) -> Any:
    """The error of a stream whose sides are not for this decoder; or of what is wrong with it before."""
    try:
        decoder.parse(bytes(stream))
    except FormatError as error:
        return error
    return stream


def _taken(item: Item) -> Item:
    """An item as a batch takes it. Raises TypeError for what is no stream."""
    if not isinstance(item.value, Exception):
        try:
            item = item._replace(value=_buffer(item.value))
        except TypeError as error:
            raise sources.noted(error, item.name)  # noqa: B904  # it is the same one
    if isinstance(item.out, Tensor) and item.out.is_cuda:
        item = item._replace(ready=torch.cuda.current_stream(item.out.device).record_event())
    return item


def _window(items: list[Item], sizes: list[tuple[int, int]], together: int | None) -> Window[Item]:
    whole = [list(range(len(items)))] if together is None else batches.groups(sizes, together)
    return Window(items, whole)
