"""The exact zone of a batch of one size, step by step: z to psi, phase to (mean, k), residuals to y_hat.

Two that are equal to the bit: Carriers runs ckbd.kernels.reference in floats that carry integers, on any device;
Kernels runs ckbd.kernels in int8, Triton on a GPU. make() chooses.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ckbd import kernels
from ckbd.codec.machine import Each, in_turn
from ckbd.codec.strips import cuts
from ckbd.kernels import Lattice, Network, SubPixel, numerics, reference, twin
from ckbd.kernels.lattice import MAX_SIDE
from ckbd.kernels.ops import resolve
from ckbd.model.model import ExactLayers, hyper_map

SITES = 512  # at a time in Carriers: 6 MB of gathered neighbours with the default model's widths


def make(
    layers: ExactLayers,
    device: torch.device,
    backend: str = "auto",
    carrier: torch.dtype | None = None,
    each: Each = in_turn,
) -> Zone[Any]:
    """The exact zone of proved layers on a device.

    backend: "triton", "torch", or "auto", which is Triton on a GPU. carrier: float32 or float64, for "torch" (None:
    float32, on CUDA float64); it changes no result. each: the threads of a CPU. Raises ValueError if the device
    cannot, or is not exact.
    """
    if resolve(backend, device) == "triton":
        if carrier is not None:
            raise ValueError("carrier: the Triton kernels compute in integers; backend 'torch' takes a carrier")
        return Kernels(layers, device)
    return Carriers(layers, device, carrier or twin.carrier(device), each)


State = TypeVar("State")


class Zone(Protocol[State]):
    """One model's exact zone. begin() gives the state of a batch, which the other calls take and carry on."""

    def begin(self, z: Tensor, quality: Tensor) -> State:
        """z: (B, Hz, Wz, Nz) integers in [-127, 127], of any dtype; quality: (B,) integers 1..100. Runs h_s."""

    ragged: bool  # whether begin_rows takes pictures of different sizes
    most_side: int | None  # latents of a side, at the most

    def begin_rows(self, z: Tensor, quality: Tensor, sizes: Sequence[tuple[int, int]]) -> State:
        """begin() of pictures back to back: z (sites, Nz) and quality (sites,), int16, on the device; sizes (Hz, Wz).

        What phase() gives and assemble() takes are then (sites of a phase, M), or of any shape with as many elements.
        """

    def latents(self, state: State) -> list[Tensor]:
        """y_hat (1, M, H, W) of each picture, as y_hat() has it."""

    def phase(self, state: State, p: int) -> Tensor:
        """k of phase p, uint8 (B, H, W/2, M); of phase 1 after assemble(state, 0, r)."""

    def quantise(self, state: State, p: int, y: Tensor) -> Tensor:
        """The encoder's residuals of phase p, int16 (B, H, W/2, M): y (B, M, H, W) float32."""

    def mean(self, state: State, p: int) -> Tensor:
        """The means of phase p in 1/16 units, float32 (B, H, W/2, M); after phase(state, p)."""

    def room(self, state: State, p: int) -> Tensor:
        """Where the residuals of phase p may be put, flat int16, to be given to assemble()."""

    def assemble(self, state: State, p: int, r: Tensor) -> None:
        """Takes the residuals of phase p, int16 (B, H, W/2, M)."""

    def y_hat(self, state: State) -> Tensor:
        """(B, M, H, W) float32, integers in 1/16 units, channels last in memory."""


@dataclass
class CarrierState:
    """psi: both halves, int8 (B, H, W/2, C_psi). means, halves: of the phases so far, int16 (B, H, W/2, M)."""

    psi: tuple[Tensor, Tensor]
    means: list[Tensor] = field(default_factory=list)
    halves: list[Tensor] = field(default_factory=list)
    context: Tensor | None = None  # the anchors, companded, int8


@dataclass
class KernelState:
    """shape: (B, H, W/2, M) of a phase, or (sites, M) of pictures of several sizes. psi_acc: (2, sites, H1 padded).
    mean, r: of both phases as far as they are known, int16 (2, sites, M).
    """

    lattice: Lattice
    shape: tuple[int, ...]
    psi_acc: Tensor
    mean: Tensor
    r: Tensor
    context: Tensor | None = None


class Carriers(Zone[CarrierState]):
    """Between the steps integers wait in int8 and int16; only a stripe at a time travels in floats."""

    ragged, most_side = False, None

    def __init__(self, layers: ExactLayers, device: torch.device, dtype: torch.dtype, each: Each = in_turn):
        reference.probe(device, dtype)
        self.device, self.dtype, self.each = device, dtype, each
        self.layers = ExactLayers((name, layer.to(device, dtype)) for name, layer in layers.items())
        M = self.layers["output"].weight.shape[0] // 2
        self.w_context = reference.context_weight(self.layers["first"], M).contiguous()
        self.local = threading.local()

    def begin(self, z: Tensor, quality: Tensor) -> CarrierState:
        z_hat = z.to(self.device, self.dtype).permute(0, 3, 1, 2)
        psi = hyper_map(z_hat, quality.to(self.device), self.layers, SITES, self.each)
        return CarrierState(reference.split(psi.to(torch.int8)))

    def begin_rows(self, z: Tensor, quality: Tensor, sizes: Sequence[tuple[int, int]]) -> CarrierState:
        (Hz, Wz), B = sizes[0], len(sizes)
        return self.begin(z.view(B, Hz, Wz, -1), quality.view(B, -1)[:, 0])

    def phase(self, state: CarrierState, p: int) -> Tensor:
        shape = (*state.psi[p].shape[:3], self.layers["output"].weight.shape[0] // 2)
        mean, k = (torch.empty(shape, dtype=t, device=self.device) for t in (torch.int16, torch.uint8))
        context = state.context if p else None

        def stripe(rows: tuple[int, int]) -> None:
            top, bottom = rows
            psi = state.psi[p][:, top:bottom].to(self.dtype)
            psi_acc = reference.project_psi(psi, self.layers["first"])
            out = reference.phase_rows(
                psi_acc,
                context,
                self.layers.g_ep,
                top,
                bottom,
                w_context=self.w_context,
                scratch=self._scratch() if p and self.device.type == "cpu" else None,
            )
            mean[:, top:bottom], k[:, top:bottom] = out.chunk(2, dim=-1)

        self.each(stripe, _stripes(shape))
        state.means.append(mean)
        return k

    def _scratch(self) -> Tensor:
        """The thread's memory for the columns of a stripe."""
        if not hasattr(self.local, "columns"):
            with torch.inference_mode(False):  # also for calls outside of it
                columns = torch.empty(SITES * self.w_context.shape[1], dtype=self.dtype, device=self.device)
            self.local.columns = columns
        return self.local.columns

    def quantise(self, state: CarrierState, p: int, y: Tensor) -> Tensor:
        r = torch.empty(state.means[p].shape, dtype=torch.int16, device=self.device)
        for top, bottom in _stripes(r.shape):
            half = reference.split(y[:, :, top:bottom].float(), parity=top & 1)[p]
            values = numerics.round_half_up(half - state.means[p][:, top:bottom].float() / numerics.MEAN_STEP)
            r[:, top:bottom] = values.clamp(-numerics.R_MAX, numerics.R_MAX)
        return r

    def mean(self, state: CarrierState, p: int) -> Tensor:
        return state.means[p].float()

    def room(self, state: CarrierState, p: int) -> Tensor:
        return torch.empty(state.means[p].numel(), dtype=torch.int16, device=self.device)

    def assemble(self, state: CarrierState, p: int, r: Tensor) -> None:
        means = state.means[p]
        half = numerics.MEAN_STEP * r.to(self.device).view(means.shape) + means  # below 2^15: docs/numerics.md
        state.halves.append(half)
        if p == 0:
            state.context = torch.empty(half.shape, dtype=torch.int8, device=self.device)
            for top, bottom in _stripes(half.shape):
                state.context[:, top:bottom] = numerics.compand(half[:, top:bottom].to(self.dtype))

    def y_hat(self, state: CarrierState) -> Tensor:
        anchors, others = state.halves
        return reference.merge(anchors, others).to(torch.float32, memory_format=torch.channels_last)

    def latents(self, state: CarrierState) -> list[Tensor]:
        return list(self.y_hat(state).split(1))


def _stripes(shape: Sequence[int]) -> list[tuple[int, int]]:
    """(top, bottom) of stripes of about SITES sites of a packed array (B, H, W/2, C)."""
    B, H, columns = shape[:3]
    count = -(-B * H * columns // SITES)
    return cuts(H, count + count % 2)  # an even number, for two threads to end together


class Kernels(Zone[KernelState]):
    ragged, most_side = True, MAX_SIDE

    def __init__(self, layers: ExactLayers, device: torch.device, backend: str = "triton"):
        self.device, self.backend = device, backend
        self.network = Network.integers(*layers.g_ep, device=device)
        self.h_s = [SubPixel.pack(layers[name], device) for name in ("h_s.0", "h_s.1")]

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
        lattice = coarse.scaled(4)
        psi_acc = kernels.project(psi.flatten(0, 1), self.network, backend=self.backend).view(2, psi.shape[1], -1)
        shape = lattice.sites, self.network.M
        mean, r = (torch.empty((2, *shape), dtype=torch.int16, device=self.device) for _ in range(2))
        return KernelState(lattice, shape, psi_acc, mean, r)

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
        full = torch.empty((state.lattice.full_sites, self.network.M), device=self.device)
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
