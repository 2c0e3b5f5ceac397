"""The exact zone of a batch, step by step: z to psi, phase to (mean, k), residuals to y_hat.

Three that are equal to the bit: Carriers runs ckbd.kernels.reference in floats that carry integers, on any device;
Integers runs in eight bits on a CPU; Kernels runs ckbd.kernels, Triton on a GPU. make() chooses. Grouped has one of
them for each channel group of a model.
"""

from __future__ import annotations

from typing import Any

import torch

from ckbd.codec.machine import Each, alone, in_turn
from ckbd.codec.zone.carriers import Carriers
from ckbd.codec.zone.grouped import Grouped
from ckbd.codec.zone.integers import Integers, Unserved
from ckbd.codec.zone.kernels import Kernels, KernelState
from ckbd.codec.zone.steps import GroupZone, Zone
from ckbd.kernels import products, twin
from ckbd.kernels.ops import BACKENDS, BackendError, resolve
from ckbd.model.model import ExactLayers

__all__ = ["Carriers", "Grouped", "Integers", "KernelState", "Kernels", "Unserved", "Zone", "make"]


def make(
    layers: ExactLayers,
    device: torch.device,
    backend: str = "auto",
    carrier: torch.dtype | None = None,
    each: Each = in_turn,
) -> Zone[Any]:
    """The exact zone of proved layers on a device.

    backend: "triton", "torch", "integers", or "auto": Triton on a GPU, integers on a CPU whose products are exact and
    pay. carrier: float32 or float64, for "torch" (None: float32, on CUDA float64); it changes no result. each: the
    threads of a CPU. Raises ValueError if the device cannot, or is not exact.
    """
    groups = layers.groups()
    if len(groups) > 1:
        zones = [_one(own, device, backend, carrier, each, grouped=True) for own in groups]
        widths = [len(own["output"].weight) // 2 for own in groups]
        if len({type(zone) for zone in zones}) > 1:  # products of a group are not exact, or do not pay
            zones = [Carriers(own, device, carrier or twin.carrier(device), each) for own in groups]
        reaches = {zone.reach for zone in zones if isinstance(zone, Integers)}
        if len(reaches) > 1:  # what a group has companded is read by those behind it
            zones = [Integers(own, each, device, reach=min(reaches)) for own in groups]
        return Grouped(zones, widths)
    return _one(layers, device, backend, carrier, each)


def _one(
    layers: ExactLayers,
    device: torch.device,
    backend: str,
    carrier: torch.dtype | None,
    each: Each,
    grouped: bool = False,
) -> GroupZone[Any]:
    """The zone of a channel group, or of a model without groups."""
    if backend not in (*BACKENDS, "integers"):
        raise BackendError(f"backend: expected one of {', '.join((*BACKENDS, 'integers'))}, got {backend!r}")
    if carrier is not None and backend == "integers":
        raise ValueError("carrier: backend 'integers' computes in integers; backend 'torch' takes a carrier")
    if backend == "integers" or (backend == "auto" and device.type == "cpu" and carrier is None):
        with alone():
            try:
                found = Integers(layers, each, device)
                if backend == "integers" or products.gain(torch.uint8) > 1:
                    return found
            except Unserved as error:
                if backend == "integers":
                    raise BackendError(f"backend 'integers': {error}; 'torch' serves this device") from error
        backend = "torch"
    if resolve(backend, device) == "triton":
        if carrier is not None:
            raise ValueError("carrier: the Triton kernels compute in integers; backend 'torch' takes a carrier")
        return Kernels(layers, device, grouped=grouped)
    return Carriers(layers, device, carrier or twin.carrier(device), each)
