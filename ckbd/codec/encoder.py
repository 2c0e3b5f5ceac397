"""The plain algorithm, from images to streams in two phases. Encoder.encode tells it from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ckbd import _rans
from ckbd.codec import batches, container, deadzone, inputs, machine, sections, zone
from ckbd.codec.container import Header, Stream
from ckbd.codec.image import Picture
from ckbd.codec.inputs import AnyImage, Quality
from ckbd.codec.machine import Team
from ckbd.codec.networks import floats, strips
from ckbd.codec.networks.painting import Reader, fits, lattice_of
from ckbd.codec.progress import Progress, Tell, between, silent
from ckbd.kernels import numerics, reference
from ckbd.model import entropy
from ckbd.model.file import Loaded
from ckbd.model.model import gain_at

# What a stream holds: z, and (k, r) of every phase, flat: int16, uint8, int16.
Symbols = tuple[np.ndarray, tuple[tuple[np.ndarray, np.ndarray], ...]]

G_A = 0.65  # of an encoder's time, about, as a CPU was measured; for progress alone
AT_ONCE = 1 << 22  # residuals whose bits and errors are weighed


class Encoder:
    """A loaded model's way from images to streams; safe to share between threads."""

    EFFORTS = (0, 1)  # what effort= takes; the last is the default

    def __init__(
        self,
        model: Loaded,
        exact: zone.Zone[Any],
        tables: _rans.Tables,
        *,
        device: torch.device,
        team: Team,
        max_pixels: int,
        reader: Reader | None = None,
        products: torch.dtype = torch.float32,
    ):
        """products: what g_a multiplies in on a CPU. reader: g_a in kernels, in place of layers where it fits."""
        self.model, self.zone, self.tables = model, exact, tables
        self.device, self.team, self.max_pixels = device, team, max_pixels
        self.reader = reader
        self.g_a = floats.stages(model.g_a.stages(), products) if device.type == "cpu" else model.g_a.stages()
        self.costs = entropy.residual_costs(model.tables, numerics.R_MAX).float().to(device)

    # The journey

    def encode(
        self,
        images: Sequence[AnyImage],
        quality: Quality = 50.0,
        effort: int | None = None,
        progress: Tell | None = None,
    ) -> list[bytes]:
        """Images to streams. As ckbd.Codec.encode. On a GPU those whose padded sizes agree go together, on a CPU each
        by itself, side by side.
        """
        pictures, qualities = inputs.pictures_and_qualities(images, quality, self.max_pixels)
        told = Progress(progress, sum(p.height * p.width for p in pictures))

        def encode(indices: Sequence[int]) -> list[bytes]:
            some, wanted = [pictures[i] for i in indices], [qualities[i] for i in indices]
            tell = told.part(sum(p.height * p.width for p in some))
            features = [self.features(some, between(tell, 0, G_A))]
            return self._coded(some, features, wanted, effort, between(tell, G_A, 1))

        sizes = [(p.height, p.width) for p in pictures]
        alone = self.device.type == "cpu"
        groups = (
            [[i] for i in range(len(sizes))] if alone else batches.groups(sizes, batches.most_pixels(self.device))
        )
        with machine.working(self.device):
            coded = self.team.on(self.device)(encode, groups)
        streams = dict(zip(chain(*groups), chain(*coded), strict=True))
        return [streams[i] for i in range(len(pictures))]

    def encode_at(self, picture: AnyImage, qualities: Sequence[float], effort: int | None = None) -> list[bytes]:
        """As ckbd.Codec.encode_at."""
        pictures, values = inputs.pictures_and_qualities([picture] * len(qualities), qualities, self.max_pixels)
        if not pictures:
            return []
        with machine.working(self.device):
            features = self.features(pictures[:1])
            return [self._coded(pictures[:1], [features], [q], effort)[0] for q in values]

    def estimate(self, images: Sequence[AnyImage], quality: Quality = 50.0, effort: int | None = None) -> list[float]:
        """As ckbd.Codec.estimate, by entropy.table_bits."""
        pictures, values = inputs.pictures_and_qualities(images, quality, self.max_pixels)

        def estimate(one: tuple[Picture, float]) -> float:
            picture, q = one
            ((z, phases),) = self.symbols([picture], [q], effort)
            flat = [(torch.from_numpy(k), torch.from_numpy(r)) for k, r in phases]
            return entropy.table_bits(self.model.tables, torch.from_numpy(z), flat)

        with machine.working(self.device):
            return self.team.on(self.device)(estimate, list(zip(pictures, values, strict=True)))

    def _coded(
        self,
        pictures: list[Picture],
        features: list[Tensor],
        qualities: list[float],
        effort: int | None,
        tell: Tell = silent,
    ) -> list[bytes]:
        """Streams of pictures of one padded size, from their features, which are taken out of their list: nobody who
        has no more use for them keeps them while y is there.
        """
        sizes = [(p.height, p.width) for p in pictures]
        symbols = self._symbols(self._y(features, qualities), sizes, qualities, effort, tell)
        coded = _rans.encode_batch(self.tables, symbols, threads=self.team.threads)
        tell(1)
        return [self.pack(p, q, *one) for p, q, one in zip(pictures, qualities, coded, strict=True)]

    # Its steps

    def symbols(self, pictures: list[Picture], qualities: list[float], effort: int | None = None) -> list[Symbols]:
        """features and quantise: the symbols of each of some pictures of one padded size."""
        sizes = [(p.height, p.width) for p in pictures]
        return self.quantise(self.features(pictures), sizes, qualities, effort)

    @torch.inference_mode()
    def features(self, pictures: list[Picture], tell: Tell = silent) -> Tensor:
        """g_a of pictures whose padded sizes agree, float32 (B, M, H/16, W/16): what no quality has touched yet."""
        if self.reader is not None and fits(lattice_of(pictures)):
            return self.reader.features(pictures)
        return strips.features(
            self.g_a,
            pictures,
            batches.PATCH,
            batches.most_pixels(self.device),
            self.device,
            self.team.on(self.device),
            tell,
        )

    def quantise(
        self,
        features: Tensor,
        sizes: list[tuple[int, int]],
        qualities: list[float],
        effort: int | None = None,
    ) -> list[Symbols]:
        """(z, ((k, r), (k, r), ...)) of each picture, flat numpy arrays int16, uint8, int16, from its features.

        sizes: (height, width) of each in pixels, before padding.
        """
        return self._symbols(self._y([features], qualities), sizes, qualities, effort)

    @torch.inference_mode()
    def _y(self, features: list[Tensor], qualities: list[float]) -> list[Tensor]:
        """y, in a list again, of the features in one that is empty then."""
        quality = torch.tensor(qualities, dtype=torch.float32, device=self.device)
        return [features.pop() * gain_at(self.model.log_gain, quality)]

    @torch.inference_mode()
    def _symbols(
        self,
        y_of: list[Tensor],
        sizes: list[tuple[int, int]],
        qualities: list[float],
        effort: int | None,
        tell: Tell = silent,
    ) -> list[Symbols]:
        """quantise() of the y in a list, which is empty then."""
        m, effort, y = self.model, inputs.effort_of(effort, self.EFFORTS), y_of.pop()
        quality = torch.tensor(qualities, dtype=torch.float32, device=self.device)
        z = numerics.round_half_up(m.h_a(y).clamp(-numerics.ACT_MAX, numerics.ACT_MAX))
        if not (y.isfinite().all() and z.isfinite().all()):
            raise ValueError("image: its features are not finite with this model")
        z = z.permute(0, 2, 3, 1).to(torch.int16)
        state, phases = self.zone.begin(z, torch.floor(quality)), []
        if effort:
            shares = reference.split(deadzone.shares(sizes, *y.shape[2:]).to(self.device))
        for p in range(self.zone.phases):
            k = self.zone.phase(state, p)
            r = self.zone.quantise(state, p, y)
            if effort:
                own, mean = y[:, self.zone.channels(p)], self.zone.mean(state, p)
                for rows in _stripes(r):
                    half = reference.split(own[:, :, rows].float())[p % 2]  # rows begin with an even one
                    distance = half - mean[:, rows] / numerics.MEAN_STEP
                    some = r[:, rows], k[:, rows], distance, shares[p % 2][:, rows]
                    r[:, rows] = deadzone.choose(*some, self.costs)
            self.zone.assemble(state, p, r)
            phases.append((k.flatten(1).cpu().numpy(), r.flatten(1).cpu().numpy()))
            tell((p + 1) / (self.zone.phases + 1))
        flat = z.flatten(1).cpu().numpy()
        return [(flat[b], tuple((k[b], r[b]) for k, r in phases)) for b in range(len(flat))]

    def pack(
        self, picture: Picture, quality: float, payload: bytes, lanes_log2: int, skip_max: int, tail: int
    ) -> bytes:
        """The stream of a payload, and of what the coder says that its header must hold."""
        shape = picture.width, picture.height, picture.gray
        header = Header(self.model.identity, round(2 * quality), *shape, lanes_log2, skip_max, tail)
        return container.pack(Stream(header, payload, sections=sections.pack_all(picture)))


def _stripes(r: Tensor) -> list[slice]:
    """Of rows of r (B, H, W/2, M), an even number each, about AT_ONCE elements."""
    B, H, half, M = r.shape
    step = max(AT_ONCE // (B * half * M) // 2 * 2, 2)
    return [slice(top, top + step) for top in range(0, H, step)]
