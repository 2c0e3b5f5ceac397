"""Real streams of ckbd.variant's models: any context, both centrings, mixtures (docs/format.md, section 9).

A VariantCodec does what ckbd.Codec does, by the same methods. Plain first: one picture at a time, floats that carry
integers; `order` chooses how a raster scan is walked, which changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ckbd import _rans, container, context, numerics, scan
from ckbd.codec import Codec
from ckbd.container import FormatError, Header, Stream
from ckbd.encoder import PATCH
from ckbd.image import Picture
from ckbd.kernels import reference
from ckbd.model import ExactLayers, gain_at, hyper_map
from ckbd.numerics import IntLayer
from ckbd.variant import VariantConfig, parameters, project_psi, with_context
from ckbd.variantfile import LoadedVariant

ORDERS = ("raster", "wavefront", "tuned")
BLOCK = 3072  # sites at a time, whose neighbours are gathered: 5 MB with the paper's widths


class State:
    """One picture on its way through a Zone: psi_acc (h, w, H1), y_hat (h, w, M) int16 in 1/16, what contexts see.

    companded: (h + 2 r, w + 2 r, M) float32 with a border of r zeros; sites that are not decoded are 0.
    """

    def __init__(self, psi_acc: Tensor, M: int, reach: int):
        H, W = psi_acc.shape[:2]
        self.psi_acc = psi_acc
        self.y_hat = np.zeros((H, W, M), np.int16)
        self.companded = torch.zeros(H + 2 * reach, W + 2 * reach, M)


class Zone:
    """The exact zone of one picture in float32 that carries integers, on the CPU."""

    def __init__(self, layers: ExactLayers, c: VariantConfig):
        reference.probe(torch.device("cpu"), torch.float32)
        self.c = c
        self.layers = ExactLayers((name, IntLayer(*(t.float() for t in layer[:3]))) for name, layer in layers.items())
        self.taps = torch.tensor(c.context.taps, dtype=torch.int64).view(-1, 2)

    def psi(self, z: np.ndarray, quality: int) -> Tensor:
        """h_s of z (h/4, w/4, Nz) int16 and the header's quality, 1..100: (1, C_psi, h, w)."""
        z_hat = torch.from_numpy(z).float().permute(2, 0, 1)[None]
        return hyper_map(z_hat, torch.tensor([quality]), self.layers)

    def begin(self, psi: Tensor) -> State:
        return State(project_psi(psi, self.layers)[0], self.c.M, self.c.context.reach)

    def all(self, state: State, y_hat: Tensor) -> tuple[np.ndarray, ...]:
        """Parameters of every site, (h, w, mixtures, M) each, from a finished y_hat (h, w, M) in 1/16: one pass."""
        c, (H, W) = self.c, y_hat.shape[:2]
        seen = context.columns(numerics.compand(y_hat)[None], c.context, c.context.live(H, W))[0]
        return self._parameters(state.psi_acc, seen, c.context.phase_map(H, W))

    def at(self, state: State, sites: scan.Sites, first: bool = False) -> tuple[np.ndarray, ...]:
        """Parameters of some sites, int16, uint8, uint8 (n, mixtures, M), from what put() has taken so far.

        first: they are of phase 0 of a pattern, which sees nothing.
        """
        if len(sites[0]) > BLOCK:
            ends = range(BLOCK, len(sites[0]), BLOCK)
            parts = zip(*(np.split(i, ends) for i in sites), strict=True)
            return tuple(np.concatenate(p) for p in zip(*(self.at(state, s, first) for s in parts), strict=True))
        rows, columns = (torch.from_numpy(i) for i in sites)
        stride, M = state.companded.shape[1:]
        near = None
        if self.c.taps and not first:
            r = self.c.context.reach
            offsets = (self.taps[:, 0] + r) * stride + self.taps[:, 1] + r
            near = state.companded.view(-1, M)[(rows * stride + columns)[:, None] + offsets].flatten(1)
        phase = torch.full(rows.shape, int(not first))
        return self._parameters(state.psi_acc[rows, columns], near, phase)

    def put(self, state: State, sites: scan.Sites, y_hat: np.ndarray, last: bool = False) -> None:
        """Takes y_hat (n, M) int16 in 1/16 of some sites. last: nobody will look at them."""
        state.y_hat[sites] = y_hat
        if self.c.taps and not last:
            r = self.c.context.reach
            state.companded.numpy()[sites[0] + r, sites[1] + r] = scan.compand(y_hat)

    def _parameters(self, psi_acc: Tensor, seen: Tensor | None, phase: Tensor) -> tuple[np.ndarray, ...]:
        acc = with_context(psi_acc, seen, phase, self.layers, self.c)
        mean, k, share = parameters(acc, self.layers, self.c)
        return mean.to(torch.int16).numpy(), k.to(torch.uint8).numpy(), share.to(torch.uint8).numpy()


class VariantCodec(Codec):
    """A loaded variant; make it with ckbd.load(). order: "raster", "wavefront" or "tuned" (scan.TunedRaster)."""

    EFFORTS = (0,)

    def __init__(self, model: LoadedVariant, device: torch.device, threads: int, max_pixels: int):
        self.model, self.device, self.threads, self.max_pixels = model, device, threads, max_pixels
        t, c = {name: value.numpy() for name, value in model.tables.items()}, model.config
        self.tables = _rans.Tables(*(t[f"table.{name}"] for name in ("y.freq", "y.max", "z.freq", "z.low", "z.size")))
        self.mixtures = _rans.MixtureTables(*(t[f"table.m.{n}"] for n in ("cdf", "inverse", "share", "radius")))
        self.factorised = c.prior == "factorised"
        self.centred = c.centring == "mean" or not c.has_means
        if not self.factorised:
            self.zone = Zone(model.layers, c)
            self._tuned = scan.TunedRaster(model.layers, c) if c.context.order is None else None
        self.order = "wavefront"
        self.one_pass = True

    # Encoding

    def encode(self, images, quality=50.0, effort=None) -> list[bytes]:
        """As Codec.encode, to streams of version 2, one picture after the other. There is but effort 0."""
        self._effort(effort)
        pictures, qualities = self._checked(images, quality)
        return [self._encode(p, q)[0] for p, q in zip(pictures, qualities, strict=True)]

    def encode_at(self, picture, qualities, effort=None) -> list[bytes]:
        """As Codec.encode_at, though g_a runs every time."""
        return self.encode([picture] * len(qualities), qualities, effort)

    def estimate(self, images, quality=50.0, effort=None) -> list[float]:
        """The ideal code length of each image's symbols in bits, by the frequencies that code them."""
        self._effort(effort)
        pictures, qualities = self._checked(images, quality)
        return [self._encode(p, q)[1] for p, q in zip(pictures, qualities, strict=True)]

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
        if self.factorised:
            z = numerics.round_half_up(site_y).clamp(-limit, limit).to(torch.int16).numpy()
            nothing = np.zeros((0, 0, c.mixtures, c.M), np.uint8)
            return z.reshape(-1), nothing.astype(np.int16), nothing, nothing, np.zeros((0, 0, c.M), np.int16)
        z = numerics.round_half_up(m.h_a(y).clamp(-numerics.ACT_MAX, numerics.ACT_MAX))
        if not z.isfinite().all():
            raise ValueError("image: its features are not finite with this model")
        z = z[0].permute(1, 2, 0).to(torch.int16).cpu().contiguous().numpy()
        state = self.zone.begin(self.zone.psi(z, math.floor(quality)))
        if not self.centred or not c.has_means:
            r = numerics.round_half_up(site_y).clamp(-limit, limit)
            if self.one_pass:
                return z.reshape(-1), *self.zone.all(state, numerics.MEAN_STEP * r), r.to(torch.int16).numpy()
        H, W = site_y.shape[:2]
        mean, k, share = (np.empty((H, W, c.mixtures, c.M), t) for t in (np.int16, np.uint8, np.uint8))
        symbols = np.empty((H, W, c.M), np.int16)
        values = site_y.numpy()
        for first, last, sites in self._steps(H, W, H, "wavefront"):
            mean[sites], k[sites], share[sites] = self.zone.at(state, sites, first)
            centre = mean[sites][:, 0] if self.centred else np.zeros((len(sites[0]), c.M), np.int16)
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

        options = {} if self.centred else {"mean": flat(mean), "share": flat(share)}
        ks = flat(k)[:, 0] if self.centred else flat(k)
        parts = z, np.ascontiguousarray(ks), flat(symbols)

        def code(tracks: int) -> tuple[bytes, float]:
            track = (order // max(W, 1) % tracks).astype(np.uint16)
            return _rans.encode_tracks(self.tables, self.mixtures, tracks, parts[0], track, *parts[1:], **options)

        payload, bits = code(1)
        tracks = scan.tracks_for(c.context, H, W, bits) if H else 1
        payload = payload if tracks == 1 else code(tracks)[0]
        header = Header(
            self.model.identity, round(2 * quality), picture.width, picture.height, picture.gray, tracks=tracks
        )
        return container.pack(Stream(header, payload, sections=self._extra(picture))), bits

    # Decoding

    def decode_pictures(self, streams) -> list[Picture]:
        """As Codec.decode_pictures."""
        out = []
        for s in self._parse_all(streams):
            (rgb,) = self._synthesise(self._read([s]), [s.header])
            with self.stage("picture"):
                out.append(self._picture(s, rgb))
        return out

    def _parse(self, data: bytes) -> Stream:
        s = container.parse(data, self.max_pixels, container.TRACKS)
        patches = math.ceil(s.header.height / PATCH) * math.ceil(s.header.width / PATCH)
        self._check_fits(s, 16 * patches if self.factorised else patches)
        if self.model.config.context.order is not None and s.header.tracks != 1:
            place = 13 + sum(len(container.varint(n)) for n in (s.header.width, s.header.height))
            raise FormatError("tracks", place, f"expected 1, the model codes in phases, got {s.header.tracks}")
        return s

    def _steps(self, H: int, W: int, tracks: int, order: str) -> Iterator[tuple[bool, bool, scan.Sites]]:
        """(whether they are of the first phase of a pattern, of the last, sites) of every step."""
        c = self.model.config.context
        if c.order is not None:
            return ((p == 0, p == c.phases - 1, sites) for p, sites in enumerate(scan.phases(c, H, W)))
        steps = scan.raster(H, W) if order == "raster" else scan.wavefront(H, W, c.skew, tracks)
        return ((False, False, sites) for sites in steps)

    @torch.inference_mode()
    def _read(self, group: list[Stream]) -> Tensor:
        """y_hat (B, M, h, w) of streams of one padded size, float32, integer-valued in 1/16 units."""
        out = []
        for s in group:
            try:
                out.append(self._read_one(s))
            except _rans.StreamError as error:
                raise self._damage(s, error) from error
        return torch.stack([torch.from_numpy(y) for y in out]).permute(0, 3, 1, 2).float().to(self.device)

    def _read_one(self, s: Stream) -> np.ndarray:
        c, h = self.model.config, s.header
        hz, wz = (math.ceil(n / PATCH) for n in (h.height, h.width))
        H, W = 4 * hz, 4 * wz
        shape = (H, W, c.M) if self.factorised else (hz, wz, c.Nz)
        z = np.empty(shape, np.int16)
        with self.stage("coder"):
            decoder = _rans.TrackDecoder(self.tables, self.mixtures, s.payload, h.tracks)
            decoder.z(z.reshape(-1))
        if self.factorised:
            decoder.finish()
            return numerics.MEAN_STEP * z
        self._check([s], z[None], "z symbol", numerics.ACT_MAX)
        with self.stage("h_s"):
            psi = self.zone.psi(z, h.quality2 >> 1)
        with self.stage("phases"):
            state = self.zone.begin(psi)
        if self.order == "tuned" and self._tuned is not None:
            y_hat = self._tuned_scan(decoder, state.psi_acc, h.tracks)
            decoder.finish()
            return y_hat
        for first, last, sites in self._steps(H, W, h.tracks, self.order):
            with self.stage("phases"):
                mean, k, share = self.zone.at(state, sites, first)
            with self.stage("coder"):
                r = self._step(decoder, (sites[0] % h.tracks).astype(np.uint16), mean, k, share)
            with self.stage("phases"):
                y = numerics.MEAN_STEP * r + mean[:, 0] if self.centred else numerics.MEAN_STEP * r
                self.zone.put(state, sites, y, last)
        decoder.finish()
        return state.y_hat

    def _step(self, decoder, track, mean, k, share) -> np.ndarray:
        r = np.empty((len(track), k.shape[-1]), np.int16)
        if self.centred:
            decoder.step(track, np.ascontiguousarray(k[:, 0]), r)
        else:
            decoder.step(track, np.ascontiguousarray(k), r, mean=np.ascontiguousarray(mean), share=share.copy())
        return r

    def _tuned_scan(self, decoder, psi_acc: Tensor, tracks: int) -> np.ndarray:
        r, track = np.empty((1, self.model.config.M), np.int16), np.zeros(1, np.uint16)

        def decode(row: int, mean: np.ndarray, k: np.ndarray, share: np.ndarray) -> np.ndarray:
            track[0] = row % tracks
            if self.centred:
                decoder.step(track, k, r)
            else:
                decoder.step(track, k[None], r, mean=mean[None], share=share[None])
            return r[0]

        with self.stage("phases"):
            return self._tuned.run(psi_acc.numpy(), decode)
