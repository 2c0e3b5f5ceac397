"""Streams to tensors: which go together, the steps of a batch, and the iterator over all of them.

The steps are those of ckbd.codec.decoder, over flat arrays of a whole batch: what a picture costs in the interpreter
is its tensor and its place in lists. On a CPU batches go side by side on one thread each; on a GPU several are in
flight, each with a stream of its own, so that coder and copies of one lie under the networks of others.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ckbd import _rans
from ckbd.codec import batches, container, machine, strips
from ckbd.codec.container import FormatError, Header
from ckbd.codec.decoder import Decoder
from ckbd.codec.machine import Team
from ckbd.codec.rendering import Renderer, Strip
from ckbd.kernels import tune
from ckbd.model.transforms import channels_last
from ckbd.pipeline import flow, sources, warm
from ckbd.pipeline.flow import Window
from ckbd.pipeline.lanes import Lane, Lanes
from ckbd.pipeline.pixels import Form
from ckbd.pipeline.sources import Held, Item

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
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if isinstance(self.decoder, Decoder):
            work: _Singly = _Work(self, form, self.device.type == "cuda" if half is None else half)
        elif half:
            raise ValueError("half: models of the papers run in float32 alone")
        else:
            work = _Singly(self, form)
        items = sources.read(streams, _read, out)
        return self._iterate(items, work, on_error == "raise", batch_pixels, batch_count)

    def _iterate(self, items: Iterator[Item], work: _Singly, raises: bool, pixels: int, count: int) -> Named:
        windows = _windows(items, pixels, count, work.together, self.decoder.max_pixels)
        found = flow.run(
            windows, work, self.team, self.parallel, 2 if self.device.type == "cpu" else self.parallel + 1
        )
        try:
            for item, result in found:
                if isinstance(result, Exception):
                    if raises or not isinstance(result, (OSError, FormatError)):
                        raise result
                else:
                    work.hand_over(result)
                yield item.name, result
                del item, result
        finally:
            found.close()  # type: ignore[attr-defined]  # a generator
            items.close()  # type: ignore[attr-defined]

    def warm_up(self) -> Iterator[str]:
        """As ckbd.Codec.warm_up."""
        if self.device.type != "cuda" or not isinstance(self.decoder, Decoder):
            yield f"{self.device}: nothing to compile or measure"
            return
        with tune.thorough():
            for pixels, seconds in warm.warm_up(self.decoder, [self.decoder.renderer, self.half()]):
                yield f"batches of {pixels / 1e6:.3g} megapixels: {seconds:.1f} s"

    def tensors(self, streams: Sequence[Any], **options: Any) -> list[Tensor]:
        """As ckbd.Codec.decode_tensors."""
        return [x for _, x in self.run(streams, **options)]


def _read(path: Any) -> bytes:
    return Path(path).read_bytes()


def _buffer(stream: Any) -> Any:
    """A stream's bytes: bytes and the like as they are, the memory of a uint8 tensor or array of one dimension."""
    if isinstance(stream, (bytes, bytearray, memoryview)):
        return stream
    if (
        isinstance(stream, Tensor)
        and stream.dtype == torch.uint8
        and stream.ndim == 1
        and stream.device.type == "cpu"
    ):
        stream = stream.numpy()
    if isinstance(stream, np.ndarray) and stream.dtype == np.uint8 and stream.ndim == 1:
        return memoryview(np.ascontiguousarray(stream))
    raise TypeError(f"stream: expected bytes, uint8 of one dimension, or a path, got {type(stream).__name__}")


def _in_half(decoder: Decoder, device: torch.device) -> Renderer:
    g_s = channels_last(copy.deepcopy(decoder.model.g_s).half())
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # lanes have streams of their own, which do not wait for this one
    return Renderer(g_s, decoder.model.log_ungain, device, dtype=torch.float16)


def _windows(
    items: Iterator[Item], pixels: int, count: int, together: int | None, most: int
) -> Iterator[Window[Item]]:
    """The items in windows of so many pixels and streams at the most, one in any case.

    together: pixels of a batch, whose streams have one padded size; None: a window is a batch, whatever is in it.
    """
    taken: list[Item] = []
    sizes: list[tuple[int, int]] = []
    total = 0
    held = Held(map(_taken, items))
    for item in held:
        size = None if isinstance(item.value, Exception) else container.peek(item.value)
        # What is too large, or nothing at all, is refused when it is opened.
        height, width = size if size is not None and size[0] * size[1] <= most else (0, 0)
        own = math.prod(batches.patches(height, width)) * batches.PATCH**2  # what it takes, however thin
        if taken and (total + own > pixels or len(taken) == count):
            yield _window(taken, sizes, together)
            taken, sizes, total = [], [], 0
        taken.append(item)
        sizes.append((height, width))
        total += own
    if taken:
        yield _window(taken, sizes, together)
    held.check()


def _taken(item: Item) -> Item:
    """An item as a batch takes it. Raises TypeError for what is no stream."""
    if not isinstance(item.value, Exception):
        item = item._replace(value=_buffer(item.value))
    if isinstance(item.out, Tensor) and item.out.is_cuda:
        item = item._replace(ready=torch.cuda.current_stream(item.out.device).record_event())
    return item


def _window(items: list[Item], sizes: list[tuple[int, int]], together: int | None) -> Window[Item]:
    whole = [list(range(len(items)))] if together is None else batches.groups(sizes, together)
    return Window(items, whole)


class Ready(NamedTuple):
    """A picture whose latents are there: its number in the batch, and y_hat (1, M, h, w)."""

    number: int
    item: Item
    header: Header
    y_hat: Tensor


def apart(device: torch.device) -> bool:
    """Whether g_s takes each picture by itself: on a CPU, where the last bits of its floats depend on the batch."""
    return device.type == "cpu"


class _Singly:
    """One stream after the other through a decoder that knows no more than decode()."""

    together: int | None = 1

    def __init__(self, decoding: Decoding, form: Form):
        self.decoder, self.device, self.form = decoding.decoder, decoding.device, form

    def __call__(self, items: list[Item]) -> list[Any]:
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Any:
        if isinstance(item.value, Exception):
            return item.value
        try:
            (picture,) = self.decoder.decode([item.value])
        except FormatError as error:
            return error
        out = self.form.of(torch.from_numpy(picture.rgb)).to(self.device)
        if item.out is not None:
            target = self.out(item, picture.height, picture.width)
            if item.ready is not None:
                item.ready.synchronize()
            out = target.copy_(out)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return out

    def out(self, item: Item, height: int, width: int) -> Tensor:
        """Where an item's picture is to be; ValueError or TypeError if the caller's tensor does not fit."""
        if item.out is None:
            return self.form.empty(height, width, self.device)
        return self.form.check(item.out, height, width, self.device)

    def hand_over(self, result: Tensor) -> None:
        """What is to be known when a result goes from the thread that made it to the one that asked for it."""


class _Work(_Singly):
    """The steps of a batch."""

    def __init__(self, decoding: Decoding, form: Form, half: bool):
        super().__init__(decoding, form)
        self.decoder: Decoder = decoding.decoder
        self.lanes = decoding.lanes
        self.renderer = decoding.half() if half else self.decoder.renderer
        self.threads = self.decoder.coder_threads
        self.alone = apart(self.device)
        self.together = None if self.decoder.zone.ragged else batches.together(self.device)

    def hand_over(self, result: Tensor) -> None:
        if self.device.type == "cuda":  # it was made on a stream of ours
            result.record_stream(torch.cuda.current_stream(self.device))

    @torch.inference_mode()
    def __call__(self, items: list[Item]) -> list[Any]:
        found: list[Any] = [item.value if isinstance(item.value, Exception) else None for item in items]
        numbers = [i for i, one in enumerate(found) if one is None]
        for i in numbers:
            found[i] = self._too_long(items[i].value)
        numbers = [i for i in numbers if found[i] is None]
        lane = self.lanes.take()
        try:
            with lane.working(), machine.working(self.device):
                for i in numbers:
                    lane.after(items[i].ready)
                for i, result in zip(numbers, self.batch(lane, [items[i] for i in numbers]), strict=True):
                    found[i] = result
        finally:
            try:
                lane.wait()  # also after an error: nothing of the caller's is written any more
            finally:
                self.lanes.give(lane)
        return found

    def _too_long(self, stream: Any) -> FormatError | None:
        """The error of a stream with a side that the zone's kernels cannot take; None of all others."""
        most, size = self.decoder.zone.most_side, container.peek(stream)
        if most is None or size is None or 4 * max(batches.patches(*size)) <= most:
            return None
        try:
            self.decoder.parse(bytes(stream))
        except FormatError as error:
            return error
        return None

    def batch(self, lane: Lane, items: list[Item]) -> list[Any]:
        """A tensor, or a FormatError, of each."""
        d = self.decoder
        streams = [item.value for item in items]
        results: list[Any] = [None] * len(streams)
        with d.stage("parse"):
            batch = _rans.Batch(
                d.tables,
                streams,
                model=d.model.identity,
                channels=d.model.config.M,
                max_pixels=d.max_pixels,
                threads=self.threads,
            )
            table = np.empty((len(streams), 8), np.int64)
            batch.headers(table)
            rows = table.tolist()
            opened = [i for i, row in enumerate(rows) if row[0]]
        if opened:
            patches = [batches.patches(rows[i][2], rows[i][1]) for i in opened]
            y_hat = self.latents(lane, batch, [rows[i][3] >> 1 for i in opened], patches)
            failed = {error[0] for error in batch.errors()}
            good = [
                Ready(int(i), items[i], _header(rows[i]), y_hat[n]) for n, i in enumerate(opened) if i not in failed
            ]
            self.render(results, good)
        for i, field, offset, reason in batch.errors():
            results[i] = FormatError(field, offset, reason)
        return results

    def latents(
        self, lane: Lane, batch: _rans.Batch, quality: list[int], patches: list[tuple[int, int]]
    ) -> list[Tensor]:
        """y_hat (1, M, h, w) of each stream that was opened; of one that fails on the way it means nothing."""
        d, c = self.decoder, self.decoder.model.config
        counts = [h * w for h, w in patches]
        with d.stage("coder"):
            z = lane.host("z", sum(counts) * (c.Nz + 1), torch.int16)
            symbols, per_site = z[: sum(counts) * c.Nz], z[sum(counts) * c.Nz :]
            batch.z(symbols, threads=self.threads)
            per_site.numpy()[:] = np.repeat(quality, counts)
        with d.stage("h_s"):
            z = lane.up(z)
            state = d.zone.begin_rows(z[: symbols.numel()].view(-1, c.Nz), z[symbols.numel() :], patches)
        for p in (0, 1):
            with d.stage("phases"):
                k = lane.down("k", d.zone.phase(state, p))
            with d.stage("coder"):
                r = lane.host("r", k.numel(), torch.int8)
                at, values = batch.phase(k, r, threads=self.threads)
            with d.stage("phases"):
                r = lane.up(r).to(torch.int16)
                if at:
                    where = torch.frombuffer(bytearray(at), dtype=torch.int64).to(self.device)
                    r[where] = torch.frombuffer(bytearray(values), dtype=torch.int16).to(self.device)
                d.zone.assemble(state, p, r.view(-1, c.M))
        with d.stage("coder"):
            batch.finish()
        return d.zone.latents(state)

    def render(self, results: list[Any], ready: list[Ready]) -> None:
        """g_s, and the pixels into results; on a GPU pictures of one padded size go together."""
        groups: dict[Any, list[Ready]] = {}
        for one in ready:
            groups.setdefault(one.number if self.alone else one.y_hat.shape, []).append(one)
        for group in groups.values():
            step = max(1, batches.most_pixels(self.device) // (group[0].y_hat[0, 0].numel() * 256))
            for start in range(0, len(group), step):
                self._render(results, group[start : start + step])

    def _render(self, results: list[Any], group: list[Ready]) -> None:
        outs = [self.out(one.item, one.header.height, one.header.width) for one in group]
        y_hat = group[0].y_hat if len(group) == 1 else torch.cat([one.y_hat for one in group])
        found = self.renderer.g_s(y_hat, [one.header for one in group])
        while True:
            with self.decoder.stage("g_s"):
                strip = next(found, None)
            if strip is None:
                break
            with self.decoder.stage("picture"):
                height, width = strip[1].shape[2:]
                bands = strips.bands_of(height, width, height * width) if self.alone else 1
                put = partial(self._put, outs, strip, [one.header.gray for one in group])
                self.renderer.each(put, strips.cuts(height, bands))
        for one, out in zip(group, outs, strict=True):
            results[one.number] = out

    def _put(self, outs: list[Tensor], strip: Strip, gray: list[bool], rows: tuple[int, int]) -> None:
        (top, left), x_hat = strip
        pixels = self.form.pixels(x_hat[:, :, rows[0] : rows[1]], gray)
        for out, one in zip(outs, pixels, strict=True):
            self.form.place(out, one, top + rows[0], left)


def _header(row: list[int]) -> Header:
    _, width, height, quality2, gray, *_ = row
    return Header(b"", quality2, width, height, bool(gray))
