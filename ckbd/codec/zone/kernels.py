"""The exact zone of pictures of any sizes in ckbd.kernels: int8, by Triton on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ckbd import kernels
from ckbd.codec.zone.steps import GroupZone
from ckbd.kernels import Lattice, Network, SubPixel
from ckbd.kernels.lattice import MAX_SIDE
from ckbd.model.model import ExactLayers


@dataclass
class KernelState:
    """shape: (B, H, W/2, M) of a phase, or (sites, M) of pictures of several sizes. psi: (2, sites, C) int8, for the
    channel groups behind the first. psi_acc: (2, sites, H1 padded). mean, r: of both phases as far as they are known,
    int16 (2, sites, M).
    """

    lattice: Lattice
    shape: tuple[int, ...]
    psi: Tensor | None
    psi_acc: Tensor
    mean: Tensor
    r: Tensor
    context: Tensor | None = None


class Kernels(GroupZone[KernelState]):
    ragged, most_side = True, MAX_SIDE

    def __init__(self, layers: ExactLayers, device: torch.device, backend: str = "triton", grouped: bool = False):
        """grouped: whether it is the zone of a channel group, and those behind it want its psi."""
        self.device, self.backend, self.grouped = device, backend, grouped
        self.network = Network.integers(*layers.g_ep, device=device)
        self.h_s = [SubPixel.pack(layers[name], device) for name in ("h_s.0", "h_s.1")]
        self.channel = SubPixel.pack(layers["channel"], device, factor=1) if "channel" in layers else None

    def begin(self, z: Tensor, quality: Tensor) -> KernelState:
        B, Hz, Wz, _ = z.shape
        rows = quality.to(self.device).view(B, 1).expand(B, Hz * Wz).reshape(-1)
        state = self.begin_rows(z.to(self.device).flatten(0, 2), rows, ((Hz, Wz),) * B)
        state.shape = (B, 4 * Hz, 2 * Wz, self.network.M)
        return state

    def begin_rows(self, z: Tensor, quality: Tensor, sizes: Sequence[tuple[int, int]]) -> KernelState:
        first, second = self.h_s
        coarse, Nz = Lattice(tuple(sizes)), z.shape[1]
        x = torch.zeros((coarse.full_sites, first.width), dtype=torch.int8, device=self.device)
        x[:, :Nz] = z
        x[:, Nz] = quality
        f = kernels.convolve(x, first, coarse, backend=self.backend)
        psi = kernels.convolve(f, second, coarse.scaled(2), split=True, backend=self.backend)
        return self._state(coarse.scaled(4), psi)

    def _state(self, lattice: Lattice, psi: Tensor) -> KernelState:
        psi_acc = kernels.project(psi.flatten(0, 1), self.network, backend=self.backend).view(2, psi.shape[1], -1)
        shape = lattice.sites, self.network.M
        mean, r = (torch.empty((2, *shape), dtype=torch.int16, device=self.device) for _ in range(2))
        return KernelState(lattice, shape, psi if self.grouped else None, psi_acc, mean, r)

    def after(self, states: Sequence[KernelState]) -> KernelState:
        """Companded y_hat of the groups before onto one full map, a convolution of it into halves beside psi's."""
        assert self.channel is not None
        first = states[0]
        assert first.psi is not None
        lattice = first.lattice
        x = torch.zeros((lattice.full_sites, self.channel.width), dtype=torch.int8, device=self.device)
        at = 0
        for state in states:
            M = state.mean.shape[-1]
            for p in (0, 1):
                seen = state.context if p == 0 else None
                if seen is None:
                    seen = torch.empty((lattice.sites, M), dtype=torch.int8, device=self.device)
                    self._assemble(state, p, None, seen)
                kernels.merge(seen, lattice, p, x[:, at : at + M], backend=self.backend)
            at += M
        features = kernels.convolve(x, self.channel, lattice, backend=self.backend)
        made = self._state(lattice, torch.cat((first.psi, features), -1))
        made.shape = (*first.shape[:-1], self.network.M)
        return made

    def phase(self, state: KernelState, p: int) -> Tensor:
        context = state.context if p else None
        k = torch.empty(state.mean.shape[1:], dtype=torch.uint8, device=self.device)
        out = state.mean[p], k
        kernels.phase(state.psi_acc[p], context, self.network, state.lattice, out=out, backend=self.backend)
        return k.view(state.shape)

    def quantise(self, state: KernelState, p: int, y: Tensor) -> Tensor:
        rows = y.permute(0, 2, 3, 1).float().contiguous().flatten(0, 2)
        return kernels.quantise(rows, state.mean[p], state.lattice, p, backend=self.backend).view(state.shape)

    def mean(self, state: KernelState, p: int) -> Tensor:
        return state.mean[p].view(state.shape).float()

    def room(self, state: KernelState, p: int) -> Tensor:
        return state.r[p].view(-1)

    def assemble(self, state: KernelState, p: int, r: Tensor) -> None:
        """What g_s reads is r and mean as they are; y_hat is made of them when it is asked for."""
        if r.data_ptr() != state.r[p].data_ptr():
            state.r[p].copy_(r.reshape(-1, self.network.M))
        if p == 0:
            state.context = torch.empty((state.lattice.sites, self.network.M), dtype=torch.int8, device=self.device)
            self._assemble(state, p, None, state.context)

    def _assemble(self, state: KernelState, p: int, y_hat: Tensor | None, context: Tensor | None) -> None:
        kernels.assemble(state.r[p], state.mean[p], state.lattice, p, y_hat, context, backend=self.backend)

    def _full(self, state: KernelState) -> Tensor:
        """y_hat, (full sites, M)."""
        shape = state.lattice.full_sites, self.network.M
        full = torch.empty(shape, dtype=torch.float32, device=self.device)
        for p in (0, 1):
            self._assemble(state, p, full, None)
        return full

    def y_hat(self, state: KernelState) -> Tensor:
        B, H, half, M = state.shape
        return self._full(state).view(B, H, 2 * half, M).permute(0, 3, 1, 2)

    def latents(self, state: KernelState) -> list[Tensor]:
        full = self._full(state)
        parts = [full[rows] for rows in state.lattice.rows(full=True)]
        sizes = state.lattice.sizes
        return [part.view(1, *size, -1).permute(0, 3, 1, 2) for part, size in zip(parts, sizes, strict=True)]
