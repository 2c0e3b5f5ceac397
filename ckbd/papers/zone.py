"""The exact zone of ckbd.papers.variant's models, for one picture: any context, site by site or all at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ckbd.codec.machine import Each, in_turn
from ckbd.codec.networks import strips
from ckbd.codec.zone.carriers import SITES
from ckbd.kernels import numerics, reference
from ckbd.model.model import ExactLayers, hyper_map
from ckbd.papers import context, scan
from ckbd.papers.variant import VariantConfig, parameters, project_psi, with_context

SHARE, SHARES = 128, 8  # sites that are worth a thread, and into how many shares a phase goes
BLOCK = 3072  # sites at a time, whose neighbours are gathered: 5 MB with the paper's widths


class State:
    """One picture on its way through a Zone: psi_acc (h, w, H1), y_hat (h, w, M) int16 in 1/16, what contexts see.

    companded: (h + 2 r, w + 2 r, M) float32 with a border of r zeros; sites that are not decoded are 0.
    """

    def __init__(self, psi_acc: Tensor, M: int, reach: int):
        H, W = psi_acc.shape[:2]
        self.psi_acc = psi_acc
        self.y_hat = np.zeros((H, W, M), np.int16)
        self.companded = torch.zeros(H + 2 * reach, W + 2 * reach, M, dtype=torch.float32, device="cpu")


class Zone:
    """The exact zone of one picture in float32 that carries integers, on the CPU."""

    def __init__(self, layers: ExactLayers, c: VariantConfig, each: Each = in_turn):
        reference.probe(torch.device("cpu"), torch.float32)
        self.c, self.each = c, each
        self.layers = ExactLayers((name, layer.to("cpu", torch.float32)) for name, layer in layers.items())
        self.w_context = self.layers["first"].weight[:, c.psi :].contiguous()
        self.taps = torch.tensor(c.context.taps, dtype=torch.int64, device="cpu").view(-1, 2)

    def psi(self, z: np.ndarray, quality: int) -> Tensor:
        """h_s of z (h/4, w/4, Nz) int16 and the header's quality, 1..100: (1, C_psi, h, w)."""
        z_hat = torch.from_numpy(z).float().permute(2, 0, 1)[None]
        return hyper_map(z_hat, torch.tensor([quality], device="cpu"), self.layers, SITES, self.each)

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
        n = len(sites[0])
        parts = strips.cuts(n, max(-(-n // BLOCK), min(n // SHARE, SHARES)))
        if len(parts) > 1:
            cut = [(sites[0][a:b], sites[1][a:b]) for a, b in parts]
            found = self.each(lambda some: self._at(state, some, first), cut)
            return tuple(np.concatenate(p) for p in zip(*found, strict=True))
        return self._at(state, sites, first)

    def _at(self, state: State, sites: scan.Sites, first: bool) -> tuple[np.ndarray, ...]:
        rows, columns = (torch.from_numpy(i) for i in sites)
        stride, M = state.companded.shape[1:]
        near = None
        if self.c.taps and not first:
            r = self.c.context.reach
            offsets = (self.taps[:, 0] + r) * stride + self.taps[:, 1] + r
            near = state.companded.view(-1, M)[(rows * stride + columns)[:, None] + offsets].flatten(1)
        phase = torch.full(rows.shape, int(not first), device="cpu")
        return self._parameters(state.psi_acc[rows, columns], near, phase)

    def put(self, state: State, sites: scan.Sites, y_hat: np.ndarray, last: bool = False) -> None:
        """Takes y_hat (n, M) int16 in 1/16 of some sites. last: nobody will look at them."""
        state.y_hat[sites] = y_hat
        if self.c.taps and not last:
            r = self.c.context.reach
            state.companded.numpy()[sites[0] + r, sites[1] + r] = scan.compand(y_hat)

    def _parameters(self, psi_acc: Tensor, seen: Tensor | None, phase: Tensor) -> tuple[np.ndarray, ...]:
        acc = with_context(psi_acc, seen, phase, self.layers, self.c, self.w_context)
        mean, k, share = parameters(acc, self.layers, self.c)
        return mean.to(torch.int16).numpy(), k.to(torch.uint8).numpy(), share.to(torch.uint8).numpy()
