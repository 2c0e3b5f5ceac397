"""A batch of streams, step by step: what a thread of an iterator does.

The steps are those of ckbd.codec.decoder, over flat arrays of a whole batch: what a picture costs in the interpreter
is its tensor and its place in lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ckbd import _rans
from ckbd.codec import batches, machine
from ckbd.codec.container import FormatError, Header
from ckbd.codec.decoder import Decoder
from ckbd.pipeline.lanes import Lane, Lanes
from ckbd.pipeline.pixels import Form
from ckbd.pipeline.render import Ready, Render
from ckbd.pipeline.sources import Item


class Singly:
    """One stream after the other through a decoder that knows no more than decode()."""

    together: int | None = 1
    most_side: int | None = None  # latents

    def __init__(self, decoder: Any, device: torch.device, form: Form):
        self.decoder, self.device, self.form = decoder, device, form

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


class Work(Singly):
    """The steps of a batch."""

    def __init__(self, decoder: Decoder, device: torch.device, form: Form, lanes: Lanes, render: Render):
        """render: g_s as it is to run."""
        super().__init__(decoder, device, form)
        self.decoder: Decoder = decoder
        self.lanes, self.render, self.threads = lanes, render, decoder.coder_threads
        self.together = None if decoder.zone.ragged else batches.together(device)
        self.most_side = decoder.zone.most_side

    def hand_over(self, result: Tensor) -> None:
        if self.device.type == "cuda":  # it was made on a stream of ours
            result.record_stream(torch.cuda.current_stream(self.device))

    @torch.inference_mode()
    def __call__(self, items: list[Item]) -> list[Any]:
        found: list[Any] = [item.value if isinstance(item.value, Exception) else None for item in items]
        numbers = [i for i, one in enumerate(found) if one is None]
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
                channels=d.model.config.groups or d.model.config.M,
                max_pixels=d.max_pixels,
                threads=self.threads,
            )
            table = np.empty((len(streams), 8), np.int64)
            batch.headers(table)
            rows = table.tolist()
            opened = [i for i, row in enumerate(rows) if row[0]]
        if opened:
            patches = [batches.patches(rows[i][2], rows[i][1]) for i in opened]
            state = self.state(lane, batch, [rows[i][3] >> 1 for i in opened], patches)
            failed = {error[0] for error in batch.errors()}
            ready = []
            for n, i in enumerate(opened):
                if i not in failed:
                    header = _header(rows[i])
                    results[i] = self.out(items[i], header.height, header.width)
                    ready.append(Ready(n, header, results[i]))
            self.render(lane, state, len(opened), ready)
        for i, field, offset, reason in batch.errors():
            results[i] = FormatError(field, offset, reason)
        return results

    def state(self, lane: Lane, batch: _rans.Batch, quality: list[int], patches: list[tuple[int, int]]) -> Any:
        """The exact zone of the streams that were opened, done; of one that fails on the way it means nothing."""
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
        for p in range(d.zone.phases):
            with d.stage("phases"):
                k = lane.down("k", d.zone.phase(state, p))
            with d.stage("coder"):
                r = lane.host("r", k.numel(), torch.int8)
                at, values = batch.phase(k, r, threads=self.threads)
            with d.stage("phases"):
                small, r = lane.up(r), d.zone.room(state, p)
                r.copy_(small)
                if at:
                    where = torch.frombuffer(bytearray(at), dtype=torch.int64).to(self.device)
                    r[where] = torch.frombuffer(bytearray(values), dtype=torch.int16).to(self.device)
                d.zone.assemble(state, p, r)
        with d.stage("coder"):
            batch.finish()
        return state


def _header(row: list[int]) -> Header:
    _, width, height, quality2, gray, *_ = row
    return Header(b"", quality2, width, height, bool(gray))
