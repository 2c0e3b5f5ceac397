"""Checkerboard phase kernels: exact integers, or floats of a fixed order, over half the lattice.

Rows are sites, channels last: packed arrays (sites, C) hold one phase of a batch of any sizes, full arrays the whole
lattice (`Lattice`). Every function takes backend: "triton", "torch" (its plain twin, the definition) or "auto"
(Triton on a GPU, the twin elsewhere), and raises BackendError, naming what would serve, if that cannot be had. The
first call of a shape may measure and copies a table to the device; later ones never synchronise, and may be captured
in a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ckbd.kernels import ops
from ckbd.kernels.configs import Config
from ckbd.kernels.cost import Cost, dense_macs, phase_cost
from ckbd.kernels.lattice import MAX_STRIDE, Lattice
from ckbd.kernels.network import Network, SubPixel, fold_context
from ckbd.kernels.ops import BackendError

__all__ = [
    "BackendError",
    "Config",
    "Cost",
    "Lattice",
    "Network",
    "SubPixel",
    "assemble",
    "convolve",
    "dense_macs",
    "fold_context",
    "merge",
    "phase",
    "phase_cost",
    "project",
    "quantise",
    "split",
]

FLOATS = (torch.float32, torch.float16)


def project(psi: Tensor, network: Network, *, backend: str = "auto", config: Config | None = None) -> Tensor:
    """The hyperprior's half of the first layer, once for both phases: psi (rows, C_psi), int8 in [-127, 127] or of
    the network's float dtype. Returns accumulators (rows, H1 padded), int32 or float32, for `phase`.
    """
    _rows("psi", psi, psi.shape[0], network.C, (network.psi.dtype,), network.psi.device)
    return ops.call("project", psi, network.psi, backend, ops.encode(config, network.psi.dtype))


def convolve(
    x: Tensor,
    conv: SubPixel,
    lattice: Lattice,
    *,
    split: bool = False,
    backend: str = "auto",
    config: Config | None = None,
) -> Tensor:
    """A layer of h_s, or of what a channel group sees: 3x3 convolution, requantise to [0, 127], shuffle, in integers.

    x: int8 (full sites of lattice, C) in [-127, 127], or as wide as conv.width, which loads faster. With a factor of
    2: int8 (4 full sites, N), or with split the packed halves (2, sites, N) of the lattice of twice the size, anchors
    first. With a factor of 1 always the packed halves of the lattice; blanks hold 0.
    """
    weight, bias, shift = conv.layer
    wide = x.dim() == 2 and x.shape[1] == conv.width
    _rows("x", x, lattice.full_sites, conv.width if wide else conv.C, (torch.int8,), weight.device)
    args = lattice, lattice.parity, split, conv.factor, backend, ops.encode(config, weight.dtype)
    return ops.call("convolve", x, weight, bias, shift, conv.N, *args)


def phase(
    psi_acc: Tensor,
    context: Tensor | None,
    network: Network,
    lattice: Lattice,
    *,
    out: tuple[Tensor, Tensor] | None = None,
    backend: str = "auto",
    config: Config | str | None = None,
) -> tuple[Tensor, Tensor]:
    """(mean, k) of one phase of a batch: He et al. 2021, section 3.2, with W1 psi + conv(context) as one sum.

    psi_acc: (sites, H1 padded), `project` of the phase's sites. context: None for anchors; for non-anchors the
    anchors' latents (sites, M), int8 in [-127, 127] or of the network's float dtype, blanks ignored. lattice: sizes
    of the images. Returns, or writes to out, mean (sites, M), int16 in 1/16 units or float32, and k (sites, M),
    uint8 table indices (float networks without thresholds: sigma, float32); blanks hold 0. Arguments may be slices
    of channels of wider arrays. config: a Config or "fused" or "layers"; None takes what is quickest, measured once
    a device and shape. No gradients: train with ckbd.kernels.reference.
    """
    device = network.psi.device
    _rows("psi_acc", psi_acc, lattice.sites, network.hidden[0].shape[1], (network.acc_dtype,), device)
    if context is not None:
        _rows("context", context, lattice.sites, network.M, (network.psi.dtype,), device)
    if out is None:
        shape = (lattice.sites, network.M)
        mean = torch.empty(shape, dtype=network.mean_dtype, device=device)
        out = mean, torch.empty(shape, dtype=network.k_dtype, device=device)
    for name, t, dtype in zip(("mean", "k"), out, (network.mean_dtype, network.k_dtype), strict=True):
        _rows(name, t, lattice.sites, network.M, (dtype,), device)
    args = lattice, lattice.parity, backend, ops.encode(config, network.psi.dtype)
    ops.call(
        "phase",
        psi_acc,
        context,
        network.tensors,
        network.thresholds,
        network.M,
        network.kernel,
        network.slope,
        *args,
        *out,
    )
    return out


def assemble(
    r: Tensor,
    mean: Tensor,
    lattice: Lattice,
    p: int,
    y_hat: Tensor | None,
    context: Tensor | None = None,
    *,
    backend: str = "auto",
) -> None:
    """Writes y_hat of phase p: r int16 (sites, M) with mean of `phase` onto y_hat (full sites, M), and to context;
    either may be None.

    Integer mode (mean int16): y_hat = 16 r + mean, int16 or float32; context int8 (sites, M), companded
    (docs/numerics.md). Float mode: y_hat = r + mean, float32; context is that in any float dtype. Blanks of context
    hold 0.
    """
    _phase_number(p)
    exact = mean.dtype == torch.int16
    M = r.shape[-1]
    _rows("r", r, lattice.sites, M, (torch.int16,), r.device)
    _rows("mean", mean, lattice.sites, M, (torch.int16, torch.float32), r.device)
    if y_hat is not None:
        _rows("y_hat", y_hat, lattice.full_sites, M, (torch.int16, torch.float32)[0 if exact else 1 :], r.device)
    if context is not None:
        _rows("context", context, lattice.sites, M, (torch.int8,) if exact else FLOATS, r.device)
    ops.call("assemble", r, mean, lattice, lattice.parity, p, backend, y_hat, context)


def quantise(y: Tensor, mean: Tensor, lattice: Lattice, p: int, *, backend: str = "auto") -> Tensor:
    """The encoder's r = clamp(floor(y - mean / 16 + 1/2)) of phase p: y float32 (full sites, M), mean int16 (sites,
    M).

    Returns int16 (sites, M) in [-1023, 1023]; blanks hold 0.
    """
    _phase_number(p)
    _rows("y", y, lattice.full_sites, y.shape[-1], (torch.float32,), y.device)
    _rows("mean", mean, lattice.sites, y.shape[-1], (torch.int16,), y.device)
    return ops.call("quantise", y, mean, lattice, lattice.parity, p, backend)


def split(y: Tensor, lattice: Lattice, p: int, *, backend: str = "auto") -> Tensor:
    """The sites of phase p, packed: y (full sites, C) of any dtype -> (sites, C); blanks hold 0."""
    _phase_number(p)
    _rows("y", y, lattice.full_sites, y.shape[-1], (y.dtype,), y.device)
    return ops.call("split", y, lattice, lattice.parity, p, backend)


def merge(packed: Tensor, lattice: Lattice, p: int, y: Tensor, *, backend: str = "auto") -> None:
    """The inverse of split: writes the sites of phase p to y (full sites, C)."""
    _phase_number(p)
    _rows("packed", packed, lattice.sites, y.shape[-1], (y.dtype,), y.device)
    _rows("y", y, lattice.full_sites, y.shape[-1], (y.dtype,), y.device)
    ops.call("merge", packed, lattice, lattice.parity, p, backend, y)


def _phase_number(p: int) -> None:
    if p not in (0, 1):
        raise ValueError(f"p: expected phase 0 (anchors) or 1 (non-anchors), got {p}")


def _rows(
    name: str, t: Tensor, rows: int, channels: int, dtypes: tuple[torch.dtype, ...], device: torch.device
) -> None:
    """Check a (rows, channels) argument: kernels read and write what they are told without looking."""
    if tuple(t.shape) != (rows, channels):
        raise ValueError(f"{name}: expected shape ({rows}, {channels}), got {tuple(t.shape)}")
    if t.dtype not in dtypes:
        raise TypeError(f"{name}: expected {' or '.join(str(d) for d in dtypes)}, got {t.dtype}")
    if t.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got one on {t.device}")
    if t.stride(1) != 1 and channels > 1:
        raise ValueError(f"{name}: expected channels to be contiguous, got strides {t.stride()}")
    if t.stride(0) > MAX_STRIDE and rows > 1:
        raise ValueError(f"{name}: expected rows at most {MAX_STRIDE} elements apart, got strides {t.stride()}")
    if t.stride(0) < channels and rows > 1:
        raise ValueError(f"{name}: expected rows apart from each other, got strides {t.stride()}")
    if t.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name}: the kernels have no gradient; train with ckbd.kernels.reference")
