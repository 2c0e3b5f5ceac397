"""Networks, latents and calls of given widths, as the benchmarks of the kernels time and profile them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from bench.gpu import record
from bench.launches import Model
from bench.rivals.kernels import SLOPE
from ckbd import kernels
from ckbd.kernels import Config, Lattice, Network
from ckbd.kernels.network import taps
from ckbd.kernels.numerics import IntLayer


def latents(width: int, height: int) -> tuple[int, int]:
    """(H, W) of a picture's latents: sides are padded to multiples of 64, a latent is 16 pixels a side."""
    return tuple(-(-n // 64) * 4 for n in (height, width))


def integers(model: Model, device: torch.device) -> Network:
    """Random integers that keep to the bound of docs/numerics.md."""
    g, inputs = torch.Generator().manual_seed(0), model.C + len(taps(model.kernel)) * model.M
    out = []
    for n, k, shift in ((model.H1, inputs, 9), (model.H2, model.H1, 8), (2 * model.M, model.H2, 10)):
        spread = min(127, 2**24 // (140 * k))
        bias = torch.randint(-4000, 4001, (2, n) if not out else (n,), generator=g)
        weight = torch.randint(-spread, spread + 1, (n, k), generator=g)
        out.append(IntLayer(weight.float(), bias.float(), torch.full((n,), float(shift))))
    return Network.integers(*out, kernel=model.kernel, device=device)


def floats(model: Model, dtype: torch.dtype, device: torch.device) -> Network:
    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g) / shape[-1] ** 0.5

    g, k = torch.Generator().manual_seed(0), model.kernel
    return Network.floats(
        values(model.H1, model.C),
        values(model.H1, model.M, k, k),
        values(2, model.H1),
        (values(model.H2, model.H1), values(model.H2)),
        (values(2 * model.M, model.H2), values(2 * model.M)),
        slope=SLOPE,
        thresholds=torch.linspace(-3, 3, 63),
        dtype=dtype,
        device=device,
    )


def network(model: Model, dtype: torch.dtype, device: torch.device) -> Network:
    return integers(model, device) if dtype == torch.int8 else floats(model, dtype, device)


def values(rows: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    x = torch.randint(-127, 128, (rows, channels), dtype=torch.int8, device=device)
    return x if dtype == torch.int8 else x.to(dtype) / 64


def backend_of(device: torch.device) -> str:
    return "triton" if device.type == "cuda" else "torch"


class Ours:
    """One phase in ckbd.kernels. Configs of one network share its inputs and outputs."""

    def __init__(self, net: Network, lattice: Lattice):
        device = net.psi.device
        self.net, self.lattice, self.backend = net, lattice, backend_of(device)
        H1P = net.hidden[0].shape[1]
        self.psi_acc = torch.randint(-9000, 9000, (lattice.sites, H1P), device=device, dtype=torch.int32)
        if not net.exact:
            self.psi_acc = self.psi_acc.float() / 9000
        self.context = values(lattice.sites, net.M, net.psi.dtype, device)
        self.out = tuple(
            torch.empty(lattice.sites, net.M, dtype=d, device=device) for d in (net.mean_dtype, net.k_dtype)
        )

    def call(self, p: int, config: Config | None) -> Callable[[], object]:
        args = self.psi_acc, self.context if p else None, self.net, self.lattice
        return lambda: kernels.phase(*args, out=self.out, backend=self.backend, config=config)


def need_cuda(device: str) -> torch.device:
    """The device, or exit with record.UNAVAILABLE: a figure of a GPU comes from a GPU."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; --device cpu makes a dry run", file=sys.stderr)
        raise SystemExit(record.UNAVAILABLE)
    return torch.device(device)
