"""The exact zone of a model with channel groups: a zone for each group, whose psi has features of the groups before.

docs/numerics.md, section 6. What a group's zone is (Carriers, Integers or Kernels) is the same for all of a codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ckbd.codec.zone.steps import GroupZone, Zone


@dataclass
class GroupedState:
    """States of the groups so far. lattice, r, mean: of all groups, as the painter has them of a zone of kernels."""

    parts: list[Any] = field(default_factory=list)

    @property
    def lattice(self) -> Any:
        return self.parts[0].lattice

    @property
    def r(self) -> Tensor:
        """(2, sites, M) int16."""
        return torch.cat([part.r for part in self.parts], -1)

    @property
    def mean(self) -> Tensor:
        """(2, sites, M) int16."""
        return torch.cat([part.mean for part in self.parts], -1)


class Grouped(Zone[GroupedState]):
    def __init__(self, zones: Sequence[GroupZone[Any]], widths: Sequence[int]):
        """zones: of each group in order, all of one kind; widths: their channels."""
        self.zones = list(zones)
        self.ragged, self.most_side = zones[0].ragged, zones[0].most_side
        self.phases = 2 * len(zones)
        ends = [sum(widths[: g + 1]) for g in range(len(widths))]
        self.slices = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]

    def channels(self, p: int) -> slice:
        return self.slices[p // 2]

    def begin(self, z: Tensor, quality: Tensor) -> GroupedState:
        return GroupedState([self.zones[0].begin(z, quality)])

    def begin_rows(self, z: Tensor, quality: Tensor, sizes: Sequence[tuple[int, int]]) -> GroupedState:
        return GroupedState([self.zones[0].begin_rows(z, quality, sizes)])

    def phase(self, state: GroupedState, p: int) -> Tensor:
        zone = self.zones[p // 2]
        if len(state.parts) <= p // 2:
            state.parts.append(zone.after(state.parts))
        return zone.phase(state.parts[p // 2], p % 2)

    def quantise(self, state: GroupedState, p: int, y: Tensor) -> Tensor:
        return self.zones[p // 2].quantise(state.parts[p // 2], p % 2, y[:, self.channels(p)])

    def mean(self, state: GroupedState, p: int) -> Tensor:
        return self.zones[p // 2].mean(state.parts[p // 2], p % 2)

    def room(self, state: GroupedState, p: int) -> Tensor:
        return self.zones[p // 2].room(state.parts[p // 2], p % 2)

    def assemble(self, state: GroupedState, p: int, r: Tensor) -> None:
        self.zones[p // 2].assemble(state.parts[p // 2], p % 2, r)

    def y_hat(self, state: GroupedState) -> Tensor:
        parts = [zone.y_hat(part) for zone, part in zip(self.zones, state.parts, strict=True)]
        return torch.cat(parts, 1).contiguous(memory_format=torch.channels_last)

    def latents(self, state: GroupedState) -> list[Tensor]:
        groups = [zone.latents(part) for zone, part in zip(self.zones, state.parts, strict=True)]
        pictures = (torch.cat(parts, 1) for parts in zip(*groups, strict=True))
        return [y_hat.contiguous(memory_format=torch.channels_last) for y_hat in pictures]
