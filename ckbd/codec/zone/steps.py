"""What the exact zones of a codec have in common: their steps, and how a batch is cut for threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ckbd.kernels import numerics, reference

State = TypeVar("State")


class Zone(Protocol[State]):
    """One model's exact zone. begin() gives the state of a batch, which the other calls take and carry on.

    phases: of a stream, two for each channel group; what is said below of M channels and of phase 0 and 1 is said of
    those of its group.
    """

    phases: int = 2

    def channels(self, p: int) -> slice:
        """Which of the model's channels phase p holds."""
        return slice(None)

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


class GroupZone(Zone[State], Protocol[State]):
    """A zone that may be that of a channel group."""

    def after(self, states: Sequence[State]) -> State:
        """begin() of a group behind others, from their finished states (docs/numerics.md, section 6)."""


def quantise(y: Tensor, mean: Tensor, stripes: Sequence[tuple[int, int]], p: int) -> Tensor:
    """Residuals of phase p, int16 (B, H, W/2, M), stripe by stripe of rows: y (B, M, H, W), mean int16 as they."""
    r = torch.empty(mean.shape, dtype=torch.int16, device=mean.device)
    for top, bottom in stripes:
        half = reference.split(y[:, :, top:bottom].float(), parity=top & 1)[p]
        values = numerics.round_half_up(half - mean[:, top:bottom].float() / numerics.MEAN_STEP)
        r[:, top:bottom] = values.clamp(-numerics.R_MAX, numerics.R_MAX)
    return r
