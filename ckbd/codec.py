"""The plain algorithm: images -> streams in two phases, streams -> images in two phases.

Pictures whose padded sizes agree share a batch; what a stream decodes to depends on neither the batch, the device nor
the number of threads (docs/numerics.md). The entropy coder takes the pictures of a batch at once, on its own threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ckbd import _rans, container, entropy, image, modelfile, numerics, sections, strips, zone
from ckbd.container import FormatError, Header, Stream
from ckbd.image import Picture
from ckbd.model import gain_at

PATCH = 64  # pictures are padded to multiples of this; z has one site for each such square
MAX_BATCH_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 25}  # what g_a and g_s take at once; larger pictures go in strips


class Codec:
    """A loaded model, safe to share between threads; make it with ckbd.load().

    stage: called with "parse", "coder", "h_s", "phases", "g_s" or "picture" as decoding enters that stage, returns a
    context manager; for profilers, does nothing unless replaced.
    """

    stage = staticmethod(lambda name: nullcontext())

    def __init__(
        self, model: modelfile.Loaded, exact: zone.Zone, device: torch.device, threads: int, max_pixels: int
    ):
        self.model, self.zone, self.device = model, exact, device
        self.threads, self.max_pixels = threads, max_pixels
        self.tables = _rans.Tables(
            *(model.tables[f"table.{name}"].numpy() for name in ("y.freq", "y.max", "z.freq", "z.low", "z.size"))
        )

    @property
    def model_hash(self) -> str:
        """The model's identity, 12 hex digits; a stream decodes only with the model whose identity it carries."""
        return self.model.identity.hex()

    # Encoding

    def encode(
        self, images: Sequence[Image.Image | np.ndarray | Picture], quality: float | Sequence[float] = 50.0
    ) -> list[bytes]:
        """Compress images: PIL images, uint8 arrays (H, W, 3) or (H, W), or Pictures; one stream each.

        quality: 1 (smallest) to 100, in steps of 1/2, one for all or one for each image. Streams carry gray-ness, ICC
        profile and alpha (lossless). Raises ValueError or TypeError for what cannot be coded.
        """
        pictures, qualities = self._checked(images, quality)
        streams: list[bytes] = [b""] * len(pictures)
        for indices in self._groups([(p.height, p.width) for p in pictures]):
            some, wanted = [pictures[i] for i in indices], [qualities[i] for i in indices]
            for i, stream in zip(indices, self._coded(some, self.features(some), wanted), strict=True):
                streams[i] = stream
        return streams

    def encode_at(self, picture: Image.Image | np.ndarray | Picture, qualities: Sequence[float]) -> list[bytes]:
        """One picture at several qualities: the streams that encode gives of it at each, but g_a runs once."""
        pictures, qualities = self._checked([picture] * len(qualities), qualities)
        features = self.features(pictures[:1]) if pictures else None
        return [self._coded(pictures[:1], features, [quality])[0] for quality in qualities]

    def _coded(self, pictures: list[Picture], features: Tensor, qualities: list[float]) -> list[bytes]:
        coded = _rans.encode_batch(self.tables, self.quantise(features, qualities), threads=self.threads)
        return [self._pack(p, q, *one) for p, q, one in zip(pictures, qualities, coded, strict=True)]

    def estimate(
        self, images: Sequence[Image.Image | np.ndarray | Picture], quality: float | Sequence[float] = 50.0
    ) -> list[float]:
        """The ideal code length of each image's symbols in bits, by the model's integer tables (entropy.table_bits).

        Nothing for header, checksums or the coder's state: what these cost is the difference to real streams.
        """
        pictures = [image.as_picture(i) for i in images]
        bits = []
        for picture, q in zip(pictures, self._qualities(quality, len(pictures)), strict=True):
            ((z, phases),) = self._analyse([picture], [q])
            flat = [(torch.from_numpy(k), torch.from_numpy(r)) for k, r in phases]
            bits.append(entropy.table_bits(self.model.tables, torch.from_numpy(z), flat))
        return bits

    def _analyse(self, pictures: list[Picture], qualities: list[float]) -> list[tuple]:
        """The symbols of each picture; padded sizes must agree."""
        return self.quantise(self.features(pictures), qualities)

    @torch.inference_mode()
    def features(self, pictures: list[Picture]) -> Tensor:
        """g_a of pictures whose padded sizes agree, float32 (B, M, H/16, W/16): what no quality has touched yet."""
        return strips.features(self.model.g_a.stages(), pictures, PATCH, self._most_pixels(), self.device)

    @torch.inference_mode()
    def quantise(self, features: Tensor, qualities: list[float]) -> list[tuple]:
        """(z, ((k, r), (k, r))) of each picture, flat numpy arrays int16, uint8, int16, from its features."""
        m = self.model
        quality = torch.tensor(qualities, dtype=torch.float32, device=self.device)
        y = features * gain_at(m.log_gain, quality)
        z = numerics.round_half_up(m.h_a(y).clamp(-numerics.ACT_MAX, numerics.ACT_MAX))
        if not (y.isfinite().all() and z.isfinite().all()):
            raise ValueError("image: its features are not finite with this model")
        z = z.permute(0, 2, 3, 1).to(torch.int16)
        state, phases = self.zone.begin(z, torch.floor(quality)), []
        for p in (0, 1):
            k = self.zone.phase(state, p)
            r = self.zone.quantise(state, p, y)
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

    # Decoding

    def decode(self, streams: Sequence[bytes]) -> list[Image.Image]:
        """Streams to PIL images of mode L, LA, RGB or RGBA, with the ICC profile in .info if there was one.

        Raises FormatError, naming the field and its offset, for a stream that is damaged, hostile, too large, or made
        by another model. One bad stream fails the call: decode singly to keep the others.
        """
        return [image.to_pil(p) for p in self.decode_pictures(streams)]

    def decode_pictures(self, streams: Sequence[bytes]) -> list[Picture]:
        """As decode, to Pictures."""
        with self.stage("parse"):
            parsed = self._parse_all(streams)
        out: list[Picture | None] = [None] * len(parsed)
        for indices in self._groups([(s.header.height, s.header.width) for s in parsed]):
            group = [parsed[i] for i in indices]
            pixels = self._synthesise(self._read(group), [s.header for s in group])
            with self.stage("picture"):
                for i, s, rgb in zip(indices, group, pixels, strict=True):
                    out[i] = self._picture(s, rgb)
        return out

    def decode_latents(self, streams: Sequence[bytes]) -> list[np.ndarray]:
        """y_hat of each stream in 1/16 units, int16 (M, 4 ceil(height/64), 4 ceil(width/64)); raises as decode."""
        return [self._read([s])[0].to(torch.int16).cpu().numpy() for s in self._parse_all(streams)]

    def _parse_all(self, streams: Sequence[bytes]) -> list[Stream]:
        if isinstance(streams, (bytes, bytearray, memoryview)):
            raise TypeError("streams: expected a sequence of streams, got the bytes of one")
        return [self._parse(data) for data in streams]

    def _parse(self, data: bytes) -> Stream:
        s = container.parse(data, self.max_pixels)
        self._check_fits(s, math.ceil(s.header.height / PATCH) * math.ceil(s.header.width / PATCH))
        return s

    def _check_fits(self, s: Stream, sites: int) -> None:
        """Whether the stream is of this model and its payload can hold the sites of z."""
        if s.header.model != self.model.identity:
            raise FormatError("model", 4, f"made by model {s.header.model.hex()}, this decoder has {self.model_hash}")
        # Near the lower bound of the state a step may cost as little as 0.94 of a symbol's ideal bits.
        if 8 * len(s.payload) < 7 / 8 * sites * self.tables.min_z_bits:
            raise FormatError(
                "payload",
                s.payload_offset,
                f"{len(s.payload)} bytes cannot hold a picture of {s.header.width} x {s.header.height} pixels",
            )

    @torch.inference_mode()
    def _read(self, group: list[Stream]) -> Tensor:
        """y_hat (B, M, h, w) of streams of one padded size, float32, integer-valued in 1/16 units."""
        m, M = self.model, self.model.config.M
        hz, wz = (math.ceil(n / PATCH) for n in (group[0].header.height, group[0].header.width))
        z = np.empty((len(group), hz, wz, m.config.Nz), np.int16)
        with self.stage("coder"):
            decoders = [self._decoder(s) for s in group]
            self._settle(group, _rans.z_batch(decoders, [one.reshape(-1) for one in z], threads=self.threads))
        self._check(group, z, "z symbol", numerics.ACT_MAX)
        with self.stage("h_s"):
            quality = torch.tensor([s.header.quality2 >> 1 for s in group])
            state = self.zone.begin(torch.from_numpy(z), quality)
        r = np.empty((len(group), 4 * hz, 2 * wz, M), np.int16)
        for p in (0, 1):
            with self.stage("phases"):
                k = self.zone.phase(state, p).cpu().contiguous().numpy()
            with self.stage("coder"):
                ks, rs = ([one.reshape(-1) for one in array] for array in (k, r))
                self._settle(group, _rans.phase_batch(decoders, ks, rs, threads=self.threads))
            self._check(group, r, "residual", numerics.R_MAX)
            with self.stage("phases"):
                self.zone.assemble(state, p, torch.from_numpy(r))
        for s, decoder in zip(group, decoders, strict=True):
            try:
                decoder.finish()
            except _rans.StreamError as error:
                raise self._damage(s, error) from error
        return self.zone.y_hat(state)

    def _check(self, group: list[Stream], symbols: np.ndarray, name: str, limit: int) -> None:
        for s, values in zip(group, symbols, strict=True):
            if int(values.max()) > limit or int(values.min()) < -limit:
                raise FormatError("payload", s.payload_offset, f"a {name} is beyond {limit} in size")

    @torch.inference_mode()
    def _synthesise(self, y_hat: Tensor, headers: list[Header]) -> list[np.ndarray]:
        """Pixels of pictures of one padded size, uint8 (H, W, 3) each; y_hat (B, M, h, w) in 1/16 units."""
        quality = torch.tensor([h.quality2 / 2 for h in headers], dtype=torch.float32, device=self.device)
        gain = gain_at(self.model.log_ungain, quality)

        def latents(rows: slice, columns: slice) -> Tensor:
            y = y_hat[:, :, rows, columns] / numerics.MEAN_STEP * gain
            return y.contiguous(memory_format=torch.channels_last)

        out = [np.empty((h.height, h.width, 3), np.uint8) for h in headers]
        parts = strips.images(self.model.g_s.stages(), latents, y_hat.shape[2:], self._most_pixels())
        while True:
            with self.stage("g_s"):
                part = next(parts, None)
            if part is None:
                return out
            (top, left), x_hat = part
            with self.stage("picture"):
                for rgb, planes, h in zip(out, x_hat, headers, strict=True):
                    image.put(rgb[top:, left:], planes, h.gray)

    def _most_pixels(self) -> int:
        """What g_a and g_s take at once."""
        return MAX_BATCH_PIXELS.get(self.device.type, MAX_BATCH_PIXELS["cpu"])

    def _picture(self, s: Stream, rgb: np.ndarray) -> Picture:
        h = s.header
        alpha = s.sections.get(container.ALPHA)
        if alpha is not None:
            alpha = sections.unpack_alpha(alpha, h.height, h.width, s.section_offsets[container.ALPHA])
        return Picture(rgb, alpha, h.gray, s.sections.get(container.ICC))

    # Helpers

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

    def _decoder(self, s: Stream) -> _rans.Decoder:
        h = s.header
        try:
            return _rans.Decoder(
                self.tables, s.payload, lanes_log2=h.lanes_log2, skip_max=h.skip_max, tail=h.tail, phases=2
            )
        except _rans.StreamError as error:
            raise self._damage(s, error) from error

    def _settle(self, group: list[Stream], errors: list[_rans.StreamError | None]) -> None:
        """Raise the first of a batch's errors."""
        for s, error in zip(group, errors, strict=True):
            if error is not None:
                raise self._damage(s, error) from error

    def _damage(self, s: Stream, error: _rans.StreamError) -> FormatError:
        """The coder's error, with the place in the file."""
        return FormatError(error.field, s.payload_offset + error.offset, str(error.args[0]))
