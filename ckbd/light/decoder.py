"""From a stream to a picture, one at a time; the steps are those of ckbd.codec.decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ckbd import _passes, _rans
from ckbd.codec import batches, checks, container, limits, payload, sections
from ckbd.codec.container import Stream
from ckbd.codec.image import Picture
from ckbd.codec.networks.windows import Window
from ckbd.codec.view import SHRINKS, WHOLE, Piece, View
from ckbd.light.synthesis import Synthesis, shapes
from ckbd.light.zone import Zone, exact
from ckbd.model import arrays, library
from ckbd.model.config import Config, by_group, exact_shapes

MEAN_STEP = 16  # docs/numerics.md, section 1


class Decoder:
    """A checkerboard model's decoder. Raises what ckbd.load raises for what it reads of a model file, ValueError also
    where NumPy's products are not exact.
    """

    def __init__(self, model: str | Path = "default", max_pixels: int = limits.MAX_PIXELS):
        if not exact():
            raise ValueError("NumPy's products in float32 are not exact here, streams would not decode")
        read, text = arrays.read(library.find(model), arrays.FORMAT)
        self.config = c = Config.from_json(text)
        self.zones = [Zone(own) for own in by_group(arrays.layers(read, exact_shapes(c)))]
        with np.errstate(all="ignore"):  # as in decode()
            self.g_s = Synthesis(arrays.weights(read, "g_s", shapes(c)), c, arrays.preview(read, c.M))
        self.log_ungain = arrays.expect(read, "log_ungain", "float32", (c.levels, c.M))
        t = arrays.tables(read, c.Nz)
        names = ("table.y.freq", "table.y.max", "table.z.freq", "table.z.low", "table.z.size")
        self.tables = _rans.Tables(*(t[name] for name in names))
        self.identity, self.max_pixels = arrays.identity(read), max_pixels

    def decode(self, stream: bytes, view: View = WHOLE) -> Picture:
        """A stream's picture, or what is asked for of it. Raises FormatError, and ValueError as View.box."""
        s = self._parse(stream)
        view.box(s.header.width, s.header.height)
        s = sections.opened(s)
        h, y_hat = s.header, self._y_hat(s)
        with np.errstate(all="ignore"):  # a model's numbers may be beyond all use, and are black pixels then
            gain = np.exp(self._log_gain(h.quality2 / 2)).astype(np.float32)
            y = y_hat / np.float32(MEAN_STEP) * gain

            def paint(piece: Piece) -> np.ndarray:
                left, top, right, bottom = piece.box
                return self.g_s(y, h.gray, piece.shrink, Window(top, left, bottom, right))

            rgb = view.made(h.width, h.height, SHRINKS, paint)
        return sections.finished(s, rgb, view)

    def latents(self, stream: bytes) -> np.ndarray:
        """y_hat in 1/16 units, int16 (M, h, w), as ckbd.Codec.decode_latents gives it."""
        return self._y_hat(self._parse(stream)).transpose(2, 0, 1).astype(np.int16)

    def _parse(self, stream: bytes) -> Stream:
        s = container.parse(stream, self.max_pixels)
        height, width = batches.patches(s.header.height, s.header.width)
        checks.check_fits(s, self.identity, height * width, self.tables)
        return s

    def _y_hat(self, s: Stream) -> np.ndarray:
        """float32 (H, W, M), integers in 1/16 units."""
        h = s.header
        Hz, Wz = batches.patches(h.height, h.width)
        coder = payload.coders([s], self.tables, 2 * len(self.zones))
        z = np.empty((Hz, Wz, self.config.Nz), np.int16)
        payload.z([s], coder, z[None], threads=1)
        psi = self.zones[0].begin(z, h.quality2 >> 1)
        done: list[tuple[np.ndarray, np.ndarray]] = []
        for zone in self.zones:  # of the channels, or of each group of them
            own = zone.after(psi, done) if done else psi
            r, mean = (np.empty((2, 4 * Hz, 2 * Wz, zone.M), np.int16) for _ in range(2))
            for p in (0, 1):  # the anchors from the hyperprior alone, then all the others from the anchors
                mean[p], k = zone.phase(own[p], (r[0], mean[0]) if p else None)
                payload.residuals([s], coder, k[None], r[p][None], threads=1)
            done.append((r, mean))
        payload.finish([s], coder)
        r, mean = (np.concatenate(one, -1) if len(one) > 1 else one[0] for one in zip(*done, strict=True))
        y_hat = np.empty((4 * Hz, 4 * Wz, self.config.M), np.float32)
        _passes.merge(r, mean, len(y_hat), (0, len(y_hat)), y_hat)
        return y_hat

    def _log_gain(self, quality: float) -> np.ndarray:
        """As ckbd.model.model.gain_at, before its exponential."""
        place = (quality - 1) / 99 * (len(self.log_ungain) - 1)
        low = min(int(place), len(self.log_ungain) - 2)
        return self.log_ungain[low] * (1 - (place - low)) + self.log_ungain[low + 1] * (place - low)
