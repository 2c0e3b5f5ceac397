"""Images to streams of version 2: any context, both centrings, mixtures (docs/format.md, section 9).

Plain first: one picture at a time, floats that carry integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ckbd import _rans
from ckbd.codec import batches, container, inputs, machine, sections
from ckbd.codec.container import Header, Stream
from ckbd.codec.image import Picture
from ckbd.codec.inputs import AnyImage, Quality
from ckbd.codec.machine import Team
from ckbd.codec.networks import strips
from ckbd.codec.progress import Progress, Tell
from ckbd.kernels import numerics
from ckbd.model.model import gain_at
from ckbd.papers import scan
from ckbd.papers.file import LoadedVariant
from ckbd.papers.tables import Tables
from ckbd.papers.zone import Zone


class VariantEncoder:
    """A loaded variant's way from images to streams. one_pass: see symbols()."""

    EFFORTS = (0,)

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
        self.one_pass = True

    def encode(
        self,
        images: Sequence[AnyImage],
        quality: Quality = 50.0,
        effort: int | None = None,
        progress: Tell | None = None,
    ) -> list[bytes]:
        """As ckbd.Codec.encode, to streams of version 2, on a CPU side by side. There is but effort 0."""
        return [stream for stream, _ in self._all(images, quality, effort, progress)]

    def encode_at(self, picture: AnyImage, qualities: Sequence[float], effort: int | None = None) -> list[bytes]:
        """As ckbd.Codec.encode_at, though g_a runs every time."""
        return self.encode([picture] * len(qualities), qualities, effort)

    def estimate(self, images: Sequence[AnyImage], quality: Quality = 50.0, effort: int | None = None) -> list[float]:
        """The ideal code length of each image's symbols in bits, by the frequencies that code them."""
        return [bits for _, bits in self._all(images, quality, effort)]

    def _all(
        self, images: Sequence[AnyImage], quality: Quality, effort: int | None, progress: Tell | None = None
    ) -> list[tuple[bytes, float]]:
        inputs.effort_of(effort, self.EFFORTS)
        pictures, qualities = inputs.pictures_and_qualities(images, quality, self.max_pixels)
        told = Progress(progress, len(pictures))

        def encode(one: tuple[Picture, float]) -> tuple[bytes, float]:
            tell, found = told.part(1), self._encode(*one)
            tell(1)
            return found

        with machine.working(self.device):
            return self.team.on(self.device)(encode, list(zip(pictures, qualities, strict=True)))

    @torch.inference_mode()
    def features(self, pictures: list[Picture]) -> Tensor:
        """g_a of pictures whose padded sizes agree, float32 (B, M, H/16, W/16): what no quality has touched yet."""
        most = batches.most_pixels(self.device)
        return strips.features(
            self.model.g_a.stages(), pictures, batches.PATCH, most, self.device, self.team.on(self.device)
        )

    @torch.inference_mode()
    def symbols(self, picture: Picture, quality: float) -> tuple[np.ndarray, ...]:
        """(z (n,), mean, k, share (h, w, mixtures, M), symbols (h, w, M)): all that a stream holds, and where from.

        With centring "integer" y_hat = round(y) is known at the start: everything takes one pass (unless one_pass is
        False: then as with "mean" phase after phase, or site after site, as the decoder goes). A factorised prior has
        its symbols in z, and empty parameters.
        """
        m, c = self.model, self.model.config
        q = torch.tensor([quality], dtype=torch.float32, device=self.device)
        y = (self.features([picture]) * gain_at(m.log_gain, q)).float()
        if not y.isfinite().all():
            raise ValueError("image: its features are not finite with this model")
        site_y = y[0].permute(1, 2, 0).cpu()
        limit = numerics.R_MAX
        if self.zone is None:
            z = numerics.round_half_up(site_y).clamp(-limit, limit).to(torch.int16).numpy()
            nothing = np.zeros((0, 0, c.mixtures, c.M), np.uint8)
            return z.reshape(-1), nothing.astype(np.int16), nothing, nothing, np.zeros((0, 0, c.M), np.int16)
        hyper = numerics.round_half_up(m.h_a(y).clamp(-numerics.ACT_MAX, numerics.ACT_MAX))
        if not hyper.isfinite().all():
            raise ValueError("image: its features are not finite with this model")
        z = hyper[0].permute(1, 2, 0).to(torch.int16).cpu().contiguous().numpy()
        state = self.zone.begin(self.zone.psi(z, math.floor(quality)))
        if not c.centred or not c.has_means:
            if self.one_pass:
                whole = numerics.round_half_up(site_y).clamp(-limit, limit)
                found = self.zone.all(state, numerics.MEAN_STEP * whole)
                return z.reshape(-1), *found, whole.to(torch.int16).numpy()
        H, W = site_y.shape[:2]
        mean, k, share = (np.empty((H, W, c.mixtures, c.M), t) for t in (np.int16, np.uint8, np.uint8))
        symbols = np.empty((H, W, c.M), np.int16)
        values = site_y.numpy()
        for first, last, sites in scan.steps(c.context, H, W, H, "wavefront"):
            mean[sites], k[sites], share[sites] = self.zone.at(state, sites, first)
            centre = mean[sites][:, 0] if c.centred else np.zeros((len(sites[0]), c.M), np.int16)
            r = np.floor(values[sites] - centre.astype(np.float32) / numerics.MEAN_STEP + np.float32(0.5))
            symbols[sites] = np.clip(r, -limit, limit)
            self.zone.put(state, sites, numerics.MEAN_STEP * symbols[sites] + centre, last)
        return z.reshape(-1), mean, k, share, symbols

    def _encode(self, picture: Picture, quality: float) -> tuple[bytes, float]:
        c = self.model.config
        z, mean, k, share, symbols = self.symbols(picture, quality)
        H, W = symbols.shape[:2]
        order = np.arange(H)[:, None] * W + np.arange(W)
        if c.context.order is not None and H:
            order = np.concatenate([r * W + col for r, col in scan.phases(c.context, H, W)])
        order = order.reshape(-1)

        def flat(a: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(a.reshape(H * W, *a.shape[2:])[order])

        options = {} if c.centred else {"mean": flat(mean), "share": flat(share)}
        ks = flat(k)[:, 0] if c.centred else flat(k)
        parts = z, np.ascontiguousarray(ks), flat(symbols)

        def code(tracks: int) -> tuple[bytes, float]:
            track = (order // max(W, 1) % tracks).astype(np.uint16)
            return _rans.encode_tracks(
                self.tables.plain, self.tables.mixtures, tracks, parts[0], track, *parts[1:], **options
            )

        payload, bits = code(1)
        tracks = scan.tracks_for(c.context, H, W, bits) if H else 1
        payload = payload if tracks == 1 else code(tracks)[0]
        header = Header(
            self.model.identity, round(2 * quality), picture.width, picture.height, picture.gray, tracks=tracks
        )
        return container.pack(Stream(header, payload, sections=sections.pack_all(picture))), bits
