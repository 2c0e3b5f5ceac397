"""The exact zone of pictures of one size in floats that carry integers, on any device: ckbd.kernels.reference."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ckbd.codec.machine import Each, in_turn
from ckbd.codec.networks.strips import cuts
from ckbd.codec.zone.steps import GroupZone, quantise
from ckbd.kernels import numerics, reference
from ckbd.model.model import ExactLayers, channel_features, hyper_map

SITES = 512  # at a time: 6 MB of gathered neighbours with the default model's widths


@dataclass
class CarrierState:
    """psi: both halves, int8 (B, H, W/2, C_psi). means, halves: of the phases so far, int16 (B, H, W/2, M)."""

    psi: tuple[Tensor, Tensor]
    means: list[Tensor] = field(default_factory=list)
    halves: list[Tensor] = field(default_factory=list)
    context: Tensor | None = None  # the anchors, companded, int8


class Carriers(GroupZone[CarrierState]):
    """Between the steps integers wait in int8 and int16; only a stripe at a time travels in floats."""

    ragged, most_side = False, None

    def __init__(self, layers: ExactLayers, device: torch.device, dtype: torch.dtype, each: Each = in_turn):
        reference.probe(device, dtype)
        self.device, self.dtype, self.each = device, dtype, each
        self.layers = ExactLayers((name, layer.to(device, dtype)) for name, layer in layers.items())
        M = self.layers["output"].weight.shape[0] // 2
        self.w_context = reference.context_weight(self.layers["first"], M).contiguous()
        self.local = threading.local()
        self.wary = device.type == "cuda" and dtype == torch.float32  # TF32 may be allowed meanwhile

    def begin(self, z: Tensor, quality: Tensor) -> CarrierState:
        if self.wary:
            reference.probe(self.device, self.dtype)
        z_hat = z.to(self.device, self.dtype).permute(0, 3, 1, 2)
        psi = hyper_map(z_hat, quality.to(self.device), self.layers, SITES, self.each)
        return CarrierState(reference.split(psi.to(torch.int8)))

    def after(self, states: Sequence[CarrierState]) -> CarrierState:
        done = [reference.merge(state.halves[0], state.halves[1]).to(self.dtype) for state in states]
        sites = done[0].shape[0] * done[0].shape[3]
        stripe = max(1, min(SITES // sites, -(-done[0].shape[2] // 2)))
        features = reference.split(channel_features(done, self.layers, stripe, self.each).to(torch.int8))
        C = self.layers["first"].weight.shape[1] - self.w_context.shape[1] - features[0].shape[-1]
        psi = [torch.cat((own[..., :C], more), -1) for own, more in zip(states[0].psi, features, strict=True)]
        return CarrierState((psi[0], psi[1]))

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
        return quantise(y, state.means[p], _stripes(state.means[p].shape), p)

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
