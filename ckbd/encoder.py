"""Images to streams in two phases: the half of a codec that only a sender needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ckbd import _rans, container, deadzone, entropy, image, modelfile, numerics, sections, strips, zone
from ckbd.container import Header, Stream
from ckbd.image import Picture
from ckbd.kernels import reference
from ckbd.model import gain_at

PATCH = 64  # pictures are padded to multiples of this; z has one site for each such square
MAX_BATCH_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 25}  # what g_a and g_s take at once; larger pictures go in strips

Images = Sequence[Image.Image | np.ndarray | Picture]
Quality = float | Sequence[float]


class Encoder:
    """What a codec is made of, and its way from images to streams; use ckbd.codec.Codec."""

    EFFORTS = (0, 1)  # what effort= takes; the last is the default

    def __init__(
        self, model: modelfile.Loaded, exact: zone.Zone, device: torch.device, threads: int, max_pixels: int
    ):
        self.model, self.zone, self.device = model, exact, device
        self.threads, self.max_pixels = threads, max_pixels
        self.tables = _rans.Tables(
            *(model.tables[f"table.{name}"].numpy() for name in ("y.freq", "y.max", "z.freq", "z.low", "z.size"))
        )
        self.costs = entropy.residual_costs(model.tables, numerics.R_MAX).float().to(device)

    @property
    def model_hash(self) -> str:
        """The model's identity, 12 hex digits; a stream decodes only with the model whose identity it carries."""
        return self.model.identity.hex()

    def encode(self, images: Images, quality: Quality = 50.0, effort: int | None = None) -> list[bytes]:
        """Compress images: PIL images, uint8 arrays (H, W, 3) or (H, W), or Pictures; one stream each.

        quality: 1 (smallest) to 100, in steps of 1/2, one for all or one for each image. effort: 0 rounds, 1 (or
        None) weighs bits against error (docs/encoding.md); no decoder sees a difference. Streams carry gray-ness, ICC
        profile and alpha (lossless). Raises ValueError or TypeError for what cannot be coded.
        """
        pictures, qualities = self._checked(images, quality)
        streams: list[bytes] = [b""] * len(pictures)
        for indices in self._groups([(p.height, p.width) for p in pictures]):
            some, wanted = [pictures[i] for i in indices], [qualities[i] for i in indices]
            for i, stream in zip(indices, self._coded(some, self.features(some), wanted, effort), strict=True):
                streams[i] = stream
        return streams

    def encode_at(
        self,
        picture: Image.Image | np.ndarray | Picture,
        qualities: Sequence[float],
        effort: int | None = None,
    ) -> list[bytes]:
        """One picture at several qualities: the streams that encode gives of it at each, but g_a runs once."""
        pictures, qualities = self._checked([picture] * len(qualities), qualities)
        features = self.features(pictures[:1]) if pictures else None
        return [self._coded(pictures[:1], features, [quality], effort)[0] for quality in qualities]

    def _coded(
        self, pictures: list[Picture], features: Tensor, qualities: list[float], effort: int | None
    ) -> list[bytes]:
        symbols = self.quantise(features, [(p.height, p.width) for p in pictures], qualities, effort)
        coded = _rans.encode_batch(self.tables, symbols, threads=self.threads)
        return [self._pack(p, q, *one) for p, q, one in zip(pictures, qualities, coded, strict=True)]

    def estimate(self, images: Images, quality: Quality = 50.0, effort: int | None = None) -> list[float]:
        """The ideal code length of each image's symbols in bits, by the model's integer tables (entropy.table_bits).

        Nothing for header, checksums or the coder's state: what these cost is the difference to real streams.
        """
        pictures = [image.as_picture(i) for i in images]
        bits = []
        for picture, q in zip(pictures, self._qualities(quality, len(pictures)), strict=True):
            ((z, phases),) = self._analyse([picture], [q], effort)
            flat = [(torch.from_numpy(k), torch.from_numpy(r)) for k, r in phases]
            bits.append(entropy.table_bits(self.model.tables, torch.from_numpy(z), flat))
        return bits

    def _analyse(self, pictures: list[Picture], qualities: list[float], effort: int | None = None) -> list[tuple]:
        """The symbols of each picture; padded sizes must agree."""
        sizes = [(p.height, p.width) for p in pictures]
        return self.quantise(self.features(pictures), sizes, qualities, effort)

    @torch.inference_mode()
    def features(self, pictures: list[Picture]) -> Tensor:
        """g_a of pictures whose padded sizes agree, float32 (B, M, H/16, W/16): what no quality has touched yet."""
        return strips.features(self.model.g_a.stages(), pictures, PATCH, self._most_pixels(), self.device)

    @torch.inference_mode()
    def quantise(
        self,
        features: Tensor,
        sizes: list[tuple[int, int]],
        qualities: list[float],
        effort: int | None = None,
    ) -> list[tuple]:
        """(z, ((k, r), (k, r))) of each picture, flat numpy arrays int16, uint8, int16, from its features.

        sizes: (height, width) of each in pixels, before padding.
        """
        m, effort = self.model, self._effort(effort)
        quality = torch.tensor(qualities, dtype=torch.float32, device=self.device)
        y = features * gain_at(m.log_gain, quality)
        z = numerics.round_half_up(m.h_a(y).clamp(-numerics.ACT_MAX, numerics.ACT_MAX))
        if not (y.isfinite().all() and z.isfinite().all()):
            raise ValueError("image: its features are not finite with this model")
        z = z.permute(0, 2, 3, 1).to(torch.int16)
        state, phases = self.zone.begin(z, torch.floor(quality)), []
        if effort:
            share = deadzone.shares(sizes, *y.shape[2:]).to(self.device)
            share, halves = reference.split(share), reference.split(y.float())
        for p in (0, 1):
            k = self.zone.phase(state, p)
            r = self.zone.quantise(state, p, y)
            if effort:
                distance = halves[p] - self.zone.mean(state, p) / numerics.MEAN_STEP
                r = deadzone.choose(r, k, distance, share[p], self.costs)
            self.zone.assemble(state, p, r)
            phases.append((k.flatten(1).cpu().numpy(), r.flatten(1).cpu().numpy()))
        z = z.flatten(1).cpu().numpy()
        return [(z[b], tuple((k[b], r[b]) for k, r in phases)) for b in range(len(z))]

    def _pack(
        self, picture: Picture, quality: float, payload: bytes, lanes_log2: int, skip_max: int, tail: int
    ) -> bytes:
        shape = picture.width, picture.height, picture.gray
        header = Header(self.model.identity, round(2 * quality), *shape, lanes_log2, skip_max, tail)
        return container.pack(Stream(header, payload, sections=self._extra(picture)))

    def _extra(self, picture: Picture) -> dict[int, bytes]:
        """The optional sections of a picture's stream."""
        extra = {}
        if picture.icc:
            extra[container.ICC] = picture.icc
        if picture.alpha is not None:
            extra[container.ALPHA] = sections.pack_alpha(picture.alpha)
        return extra

    def _checked(self, images, quality) -> tuple[list[Picture], list[float]]:
        """What encode takes, as pictures and a quality for each."""
        if isinstance(images, (Image.Image, np.ndarray, Picture)):
            raise TypeError("images: expected a sequence of images, got a single one")
        pictures = [image.as_picture(i) for i in images]
        qualities = self._qualities(quality, len(pictures))
        for picture in pictures:
            if picture.width * picture.height > self.max_pixels:
                raise ValueError(
                    f"image: {picture.width} x {picture.height} pixels are more than the limit of "
                    f"{self.max_pixels} (max_pixels)"
                )
        return pictures, qualities

    def _qualities(self, quality: float | Sequence[float], count: int) -> list[float]:
        values = [float(quality)] * count if np.isscalar(quality) else [float(q) for q in quality]
        if len(values) != count:
            raise ValueError(f"quality: expected one number or {count} of them, got {len(values)}")
        for q in values:
            if not 1 <= q <= 100:
                raise ValueError(f"quality: expected 1 to 100, got {q:g}")
        return [round(2 * q) / 2 for q in values]

    def _effort(self, effort: int | None) -> int:
        if effort is None:
            return self.EFFORTS[-1]
        if isinstance(effort, bool) or effort not in self.EFFORTS:
            raise ValueError(f"effort: expected {' or '.join(map(str, self.EFFORTS))}, got {effort!r}")
        return effort

    def _most_pixels(self) -> int:
        """What g_a and g_s take at once."""
        return MAX_BATCH_PIXELS.get(self.device.type, MAX_BATCH_PIXELS["cpu"])

    def _groups(self, sizes: list[tuple[int, int]]) -> list[list[int]]:
        """Indices that share a batch: equal padded sizes, and not more pixels than the device takes at once."""
        limit = self._most_pixels()
        groups: dict[tuple[int, int], list[list[int]]] = {}
        for i, (height, width) in enumerate(sizes):
            key = math.ceil(height / PATCH), math.ceil(width / PATCH)
            batches = groups.setdefault(key, [[]])
            if (len(batches[-1]) + 1) * key[0] * key[1] * PATCH**2 > limit and batches[-1]:
                batches.append([])
            batches[-1].append(i)
        return [batch for batches in groups.values() for batch in batches]
