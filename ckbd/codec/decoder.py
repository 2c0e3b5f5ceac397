"""The plain algorithm, from streams to pictures in two phases.

Decoder.decode tells it from top to bottom. Each step that it takes is a method of its own, from plain data to plain
data: arrays of symbols, a state of the exact zone, pixels. None knows who calls it or when; whoever wants them in
another order, on other threads or at another time (several batches in flight, the coder under the networks) calls
the same steps. Those marked (CPU) are the entropy coder's, those marked (device) the networks'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ckbd import _rans
from ckbd.codec import batches, checks, container, inputs, machine, payload, sections, zone
from ckbd.codec.container import Stream
from ckbd.codec.image import Picture
from ckbd.codec.machine import Team
from ckbd.codec.networks.painting import Painter, fits
from ckbd.codec.networks.rendering import Renderer
from ckbd.codec.progress import Progress, Tell, between, silent
from ckbd.codec.view import WHOLE, View
from ckbd.model.file import Loaded

T = TypeVar("T")


@dataclass
class Batch:
    """Streams of one padded size, and the coder of each, which goes through its payload once: z, then every phase."""

    streams: list[Stream]
    coders: list[_rans.Decoder]

    @property
    def sites(self) -> tuple[int, int]:
        """Sites of z, down and across; those of y are four times as many each way."""
        header = self.streams[0].header
        return batches.patches(header.height, header.width)


class Decoder:
    """A loaded model's way from streams to pictures; safe to share between threads, a Batch is not."""

    def __init__(
        self,
        model: Loaded,
        exact: zone.Zone[Any],
        tables: _rans.Tables,
        *,
        device: torch.device,
        team: Team,
        max_pixels: int,
        painter: Painter | None = None,
        products: torch.dtype = torch.float32,
    ):
        """products: what g_s multiplies in on a CPU. painter: g_s in kernels, in place of the renderer's layers where
        it fits; exact is then zone.Kernels.
        """
        self.model, self.zone, self.tables = model, exact, tables
        self.device, self.team, self.max_pixels = device, team, max_pixels
        self.renderer = Renderer(
            model.g_s, model.log_ungain, device, team.on(device), products=products, preview=model.preview
        )
        self.painter = painter

    @property
    def coder_threads(self) -> int:
        """Threads of a batch in the entropy coder; on a CPU batches go side by side, each on one."""
        return 1 if self.device.type == "cpu" else self.team.threads

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Entered with "parse", "coder", "h_s", "phases", "g_s" or "picture"; for profilers, which replace it."""
        return nullcontext()

    # The journey

    def decode(self, streams: Sequence[bytes], view: View = WHOLE, progress: Tell | None = None) -> list[Picture]:
        """Streams to pictures: those whose padded sizes agree go together. Raises as ckbd.Codec.decode."""
        with self.stage("parse"):
            parsed = self.parse_all(streams)
            for s in parsed:
                view.box(s.header.width, s.header.height)
        told = Progress(progress, sum(map(_pixels, parsed)))

        def pictures(group: list[Stream]) -> list[Picture]:
            tell, begin = told.part(sum(map(_pixels, group))), _before_g_s(group[0], view)
            group = [sections.opened(s) for s in group]
            state = self.state(group, between(tell, 0, begin))
            if view.whole and self.painter is not None and fits(state.lattice):
                found = self.painter.pictures(group, state, self.stage)
            else:
                rest = between(tell, begin, 1)
                found = self.renderer.pictures(group, self.y_hat(state), self.stage, view, rest)
            tell(1)
            return found

        return self.by_group(pictures, parsed)

    def decode_latents(self, streams: Sequence[bytes]) -> list[np.ndarray]:
        """y_hat of each stream in 1/16 units, int16 (M, h, w): decode without g_s."""

        def latents(group: list[Stream]) -> list[np.ndarray]:
            return list(self.latents(group).to(torch.int16).cpu().numpy())

        return self.by_group(latents, self.parse_all(streams))

    def by_group(self, work: Callable[[list[Stream]], list[T]], parsed: list[Stream]) -> list[T]:
        """work of the streams that go together, in the order of all of them; on a CPU groups go side by side."""
        sizes = [(s.header.height, s.header.width) for s in parsed]
        groups = batches.groups(sizes, batches.together(self.device))
        with machine.working(self.device):
            found = self.team.on(self.device)(lambda group: work([parsed[i] for i in group]), groups)
        out = {
            i: one
            for group, results in zip(groups, found, strict=True)
            for i, one in zip(group, results, strict=True)
        }
        return [out[i] for i in range(len(parsed))]

    def latents(self, streams: list[Stream]) -> Tensor:
        """y_hat (B, M, h, w) of streams of one padded size, float32, integer-valued in 1/16 units."""
        return self.y_hat(self.state(streams))

    def state(self, streams: list[Stream], tell: Tell = silent) -> Any:
        """The exact zone of streams of one padded size, all phases done."""
        with self.stage("coder"):
            batch = self.open(streams)
            z = self.z(batch)
        with self.stage("h_s"):
            state = self.h_s(batch, z)
        # The anchors from the hyperprior alone, then all the others from the anchors; so for each channel group,
        # from the hyperprior and all groups before it.
        for p in range(self.zone.phases):
            with self.stage("phases"):
                k = self.phase(state, p).cpu().contiguous().numpy()
            with self.stage("coder"):
                r = self.residuals(batch, k)
            with self.stage("phases"):
                self.assemble(state, p, r)
            tell((p + 1) / self.zone.phases)
        self.finish(batch)
        return state

    # Its steps

    def parse_all(self, streams: Sequence[bytes]) -> list[Stream]:
        """parse() of each; TypeError for the bytes of a single one."""
        return [self.parse(data) for data in inputs.several(streams)]

    def parse(self, data: bytes) -> Stream:
        """A stream's parts, of this model and small enough. Raises FormatError."""
        s = container.parse(data, self.max_pixels)
        height, width = batches.patches(s.header.height, s.header.width)
        checks.check_fits(s, self.model.identity, height * width, self.tables)
        checks.check_sides(s, self.zone.most_side)
        return s

    def open(self, streams: list[Stream]) -> Batch:
        """Coders at the first symbols of their payloads (CPU); streams have one padded size."""
        return Batch(streams, payload.coders(streams, self.tables, self.zone.phases))

    def z(self, batch: Batch, out: np.ndarray | None = None) -> np.ndarray:
        """z's symbols, int16 (B, Hz, Wz, Nz) (CPU). out: where to put them."""
        out = np.empty((len(batch.streams), *batch.sites, self.model.config.Nz), np.int16) if out is None else out
        payload.z(batch.streams, batch.coders, out, self.coder_threads)
        return out

    @torch.inference_mode()
    def h_s(self, batch: Batch, z: np.ndarray) -> Any:
        """The hyper features, and with them the state that phase, assemble and y_hat take (device)."""
        quality = torch.tensor([s.header.quality2 >> 1 for s in batch.streams], device="cpu")
        return self.zone.begin(torch.from_numpy(z), quality)

    @torch.inference_mode()
    def phase(self, state: Any, p: int) -> Tensor:
        """k, the table of each symbol of phase p, uint8 (B, h, w/2, M) (device), after assemble() of the one before.

        M is here, and below, that of the phase's channel group.
        """
        return self.zone.phase(state, p)

    def residuals(self, batch: Batch, k: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The next phase's symbols, int16 (B, h, w/2, M), from their tables (CPU). out: where to put them."""
        out = np.empty(k.shape, np.int16) if out is None else out
        payload.residuals(batch.streams, batch.coders, k, out, self.coder_threads)
        return out

    @torch.inference_mode()
    def assemble(self, state: Any, p: int, r: np.ndarray) -> None:
        """y_hat = r + mean at the sites of phase p (device)."""
        self.zone.assemble(state, p, torch.from_numpy(r))

    def finish(self, batch: Batch) -> None:
        """After the last phase: nothing is left of any payload (CPU)."""
        payload.finish(batch.streams, batch.coders)

    @torch.inference_mode()
    def y_hat(self, state: Any) -> Tensor:
        """(B, M, h, w) float32, integers in 1/16 units (device); g_s and all after it are self.renderer."""
        return self.zone.y_hat(state)


def _pixels(s: Stream) -> int:
    return s.header.height * s.header.width


def _before_g_s(s: Stream, view: View) -> float:
    """What all but g_s takes of a picture's time, about, as a CPU was measured; for progress alone."""
    left, top, right, bottom = view.box(s.header.width, s.header.height)
    g_s = 6.0 * (right - left) * (bottom - top) * view.shrink**2 / _pixels(s)
    return 1 / (1 + g_s)
