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

from ckbd import _rans, container, image, numerics, sections, strips
from ckbd.container import FormatError, Header, Stream
from ckbd.encoder import PATCH, Encoder
from ckbd.image import Picture
from ckbd.model import gain_at


class Codec(Encoder):
    """A loaded model, safe to share between threads; make it with ckbd.load().

    stage: called with "parse", "coder", "h_s", "phases", "g_s" or "picture" as decoding enters that stage, returns a
    context manager; for profilers, does nothing unless replaced.
    """

    stage = staticmethod(lambda name: nullcontext())

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

    def _picture(self, s: Stream, rgb: np.ndarray) -> Picture:
        h = s.header
        alpha = s.sections.get(container.ALPHA)
        if alpha is not None:
            alpha = sections.unpack_alpha(alpha, h.height, h.width, s.section_offsets[container.ALPHA])
        return Picture(rgb, alpha, h.gray, s.sections.get(container.ICC))

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
