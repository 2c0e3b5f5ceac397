"""Streams of version 2 to pictures: any context, both centrings, mixtures (docs/format.md, section 9).

Plain first: one picture at a time, floats that carry integers; `order` chooses how a raster scan is walked, which
changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ckbd import _rans
from ckbd.codec import batches, container, inputs, machine, sections
from ckbd.codec.checks import check_fits, check_range, damage
from ckbd.codec.container import FormatError, Stream
from ckbd.codec.image import Picture
from ckbd.codec.machine import Team
from ckbd.codec.networks.rendering import Renderer
from ckbd.codec.progress import Progress, Tell
from ckbd.codec.view import WHOLE, View
from ckbd.kernels import numerics
from ckbd.papers import scan
from ckbd.papers.file import LoadedVariant
from ckbd.papers.tables import Tables
from ckbd.papers.zone import Zone

T = TypeVar("T")
WORTH = 8  # sites a step; steps take about as long as so many of scan.TunedRaster's


class VariantDecoder:
    """A loaded variant's way from streams to pictures.

    order: "raster", "wavefront" or "tuned" (scan.TunedRaster), or "auto", that of the last two which suits a stream.
    """

    def __init__(
        self,
        model: LoadedVariant,
        exact: Zone | None,
        tables: Tables,
        *,
        device: torch.device,
        team: Team,
        max_pixels: int,
    ):
        self.model, self.zone, self.tables = model, exact, tables
        self.device, self.team, self.max_pixels = device, team, max_pixels
        self.renderer = Renderer(model.g_s, model.log_ungain, device, team.on(device))
        self.order = "auto"
        serial = exact is not None and model.config.context.order is None
        self._tuned = scan.TunedRaster(model.layers, model.config) if serial else None

    def stage(self, name: str) -> AbstractContextManager[None]:
        """As ckbd.codec.decoder.Decoder.stage."""
        return nullcontext()

    def decode(self, streams: Sequence[bytes], view: View = WHOLE, progress: Tell | None = None) -> list[Picture]:
        """As ckbd.Codec.decode_pictures, each stream by itself, on a CPU side by side."""
        parsed = self._parse_all(streams)
        for s in parsed:
            view.box(s.header.width, s.header.height)
        told = Progress(progress, len(parsed))

        def picture(s: Stream) -> Picture:
            tell = told.part(1)
            s = sections.opened(s)
            found = self.renderer.pictures([s], self.latents(s), self.stage, view)[0]
            tell(1)
            return found

        return self._each(picture, parsed)

    def decode_latents(self, streams: Sequence[bytes]) -> list[np.ndarray]:
        """As ckbd.Codec.decode_latents."""
        return self._each(lambda s: self.latents(s)[0].to(torch.int16).cpu().numpy(), self._parse_all(streams))

    def _each(self, work: Callable[[Stream], T], parsed: list[Stream]) -> list[T]:
        with machine.working(self.device):
            return self.team.on(self.device)(work, parsed)

    def _parse_all(self, streams: Sequence[bytes]) -> list[Stream]:
        with self.stage("parse"):
            return [self.parse(data) for data in inputs.several(streams)]

    def parse(self, data: bytes) -> Stream:
        """A stream's parts, of this model and small enough. Raises FormatError."""
        s = container.parse(data, self.max_pixels, container.TRACKS)
        height, width = batches.patches(s.header.height, s.header.width)
        sites = 16 * height * width if self.zone is None else height * width
        check_fits(s, self.model.identity, sites, self.tables.plain)
        if self.model.config.context.order is not None and s.header.tracks != 1:
            place = 13 + sum(len(container.varint(n)) for n in (s.header.width, s.header.height))
            raise FormatError("tracks", place, f"expected 1, the model codes in phases, got {s.header.tracks}")
        return s

    @torch.inference_mode()
    def latents(self, s: Stream) -> Tensor:
        """y_hat (1, M, h, w) of a stream, float32, integer-valued in 1/16 units."""
        try:
            y_hat = self._read(s)
        except _rans.StreamError as error:
            raise damage(s, error) from error
        return torch.from_numpy(y_hat)[None].permute(0, 3, 1, 2).float().to(self.device)

    def _read(self, s: Stream) -> np.ndarray:
        c, h = self.model.config, s.header
        hz, wz = batches.patches(h.height, h.width)
        H, W = 4 * hz, 4 * wz
        shape = (H, W, c.M) if self.zone is None else (hz, wz, c.Nz)
        z = np.empty(shape, np.int16)
        with self.stage("coder"):
            decoder = _rans.TrackDecoder(self.tables.plain, self.tables.mixtures, s.payload, h.tracks)
            decoder.z(z.reshape(-1))
        if self.zone is None:
            decoder.finish()
            return numerics.MEAN_STEP * z
        check_range([s], z[None], "z symbol", numerics.ACT_MAX)
        with self.stage("h_s"):
            psi = self.zone.psi(z, h.quality2 >> 1)
        with self.stage("phases"):
            state = self.zone.begin(psi)
        order = self.order
        if order == "auto":
            order = "tuned" if self._tuned is not None and self._narrow(H, W, h.tracks) else "wavefront"
        if order == "tuned" and self._tuned is not None:
            y_hat = self._tuned_scan(self._tuned, decoder, state.psi_acc, h.tracks)
            decoder.finish()
            return y_hat
        for first, last, sites in scan.steps(c.context, H, W, h.tracks, order):
            with self.stage("phases"):
                mean, k, share = self.zone.at(state, sites, first)
            with self.stage("coder"):
                r = self._step(decoder, (sites[0] % h.tracks).astype(np.uint16), mean, k, share)
            with self.stage("phases"):
                y = numerics.MEAN_STEP * r + mean[:, 0] if c.centred else numerics.MEAN_STEP * r
                self.zone.put(state, sites, y, last)
        decoder.finish()
        return state.y_hat

    def _narrow(self, height: int, width: int, tracks: int) -> bool:
        """Whether a wavefront would take so few sites a step that a site after the other is quicker."""
        steps = scan.starts(height, width, self.model.config.context.skew, tracks)[-1] + width
        return height * width < WORTH * steps

    def _step(
        self, decoder: _rans.TrackDecoder, track: np.ndarray, mean: np.ndarray, k: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        r = np.empty((len(track), k.shape[-1]), np.int16)
        if self.model.config.centred:
            decoder.step(track, np.ascontiguousarray(k[:, 0]), r)
        else:
            decoder.step(track, np.ascontiguousarray(k), r, mean=np.ascontiguousarray(mean), share=share.copy())
        return r

    def _tuned_scan(
        self, walk: scan.TunedRaster, decoder: _rans.TrackDecoder, psi_acc: Tensor, tracks: int
    ) -> np.ndarray:
        r, track = np.empty((1, self.model.config.M), np.int16), np.zeros(1, np.uint16)

        def decode(row: int, mean: np.ndarray, k: np.ndarray, share: np.ndarray) -> np.ndarray:
            track[0] = row % tracks
            if self.model.config.centred:
                decoder.step(track, k, r)
            else:
                decoder.step(track, k[None], r, mean=mean[None], share=share[None])
            return r[0]

        with self.stage("phases"):
            return walk.run(psi_acc.numpy(), decode)
