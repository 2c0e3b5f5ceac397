"""Torch twins of the Triton launchers: same names, arguments and results, on any device, written to be read.

Rows are (sites, C), images of any sizes one after the other (`lattice`). Integer mode goes through `reference` and is
the definition of every bit. Float mode says what is meant: its sums are in another order than the kernels'.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ckbd.kernels import reference
from ckbd.kernels.lattice import Lattice, blanks, half
from ckbd.kernels.network import taps
from ckbd.kernels.numerics import MEAN_STEP, R_MAX, IntLayer, compand, round_half_up


def carrier(device: torch.device) -> torch.dtype:
    """What integers travel in on a device: tensor cores add floats in ways that no document promises, and float64 has
    29 bits to spare."""
    return torch.float64 if device.type == "cuda" else torch.float32


def _batches(lattice: Lattice, full: bool = False) -> list[tuple[slice, tuple[int, int, int]]]:
    """(rows, (B, H, columns)) of images that may be computed together: all, if of one size, else each by itself."""
    rows = lattice.rows(full)
    H, W = lattice.sizes[0]
    if len(set(lattice.sizes)) == 1:
        return [(slice(0, rows[-1].stop), (len(rows), H, W if full else half(W)))]
    return [(r, (1, H, W if full else half(W))) for r, (H, W) in zip(rows, lattice.sizes, strict=True)]


def project(x: Tensor, weight: Tensor) -> Tensor:
    """The hyperprior's half of the first layer, for both phases: x (rows, C) int8 or float, weight (N, C or more) of
    the same dtype, as padded as the kernels want it. Returns accumulators (rows, N), int32 or float32.
    """
    exact = weight.dtype == torch.int8
    dtype = carrier(x.device) if exact else torch.float32
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.to(dtype), weight[:, : x.shape[1]].to(dtype)).to(torch.int32 if exact else torch.float32)


def convolve(x: Tensor, layer: list[Tensor], N: int, lattice: Lattice, split: bool, factor: int) -> Tensor:
    """A sub-pixel convolution in integers: 3x3, requantise to [0, 127], shuffle to the lattice of `factor` times the
    size.

    x: int8 (full sites, C). layer, N, factor: of network.SubPixel. Returns int8 (4 full sites, N), or with split or a
    factor of 1 the two packed halves (2, sites, N), anchors first; blanks hold 0.
    """
    weight, bias, shift = layer
    C = x.shape[1]
    dtype = carrier(x.device)
    kernel = weight.unflatten(1, (9, -1))[..., :C].transpose(1, 2).unflatten(2, (3, 3))
    corners, split = factor**2, split or factor == 1
    order = torch.arange(corners * N, device=x.device).view(corners, N).t().flatten()  # a shuffle reads (n, a, b)
    conv = IntLayer(kernel[order], bias[order], shift[order])
    big = lattice.scaled(factor)
    out = x.new_empty((2, big.sites, N) if split else (big.full_sites, N))
    for (rows, (B, H, W)), (to, _) in zip(_batches(lattice, True), _batches(big, not split), strict=True):
        image = x[rows].view(B, H, W, C).permute(0, 3, 1, 2).to(dtype)
        f = F.pixel_shuffle(reference.exact_conv3x3(image, conv), factor)
        if split:
            for half_out, values in zip(out, reference.split(f, lattice.parity), strict=True):
                half_out[to] = values.flatten(0, 2).to(torch.int8)
        else:
            out[to] = f.permute(0, 2, 3, 1).flatten(0, 2).to(torch.int8)
    return out


def phase(
    psi_acc: Tensor,
    context: Tensor | None,
    network: list[Tensor],
    thresholds: Tensor | None,
    M: int,
    kernel: int,
    slope: float,
    lattice: Lattice,
    mean: Tensor,
    k: Tensor,
) -> None:
    """Writes (mean, k) of one phase, each (sites, M); blanks hold 0. ckbd.kernels.phase says what the arguments
    are.
    """
    w1, b1, s1, w2, b2, s2, w3, b3, s3 = network
    exact = w1.dtype == torch.int8
    dtype = carrier(psi_acc.device) if exact else torch.float32
    count = len(taps(kernel))
    w1 = w1.unflatten(1, (count, -1))[..., :M].flatten(1)
    w3, b3 = (t.unflatten(0, (2, -1))[:, :M].flatten(0, 1) for t in (w3, b3))
    p = 0 if context is None else 1
    if context is not None:
        context = _cleared(context, lattice, 0)
    for rows, shape in _batches(lattice):
        acc = psi_acc[rows].view(*shape, -1).to(dtype)
        c = None if context is None else context[rows].view(*shape, M).to(dtype)
        if exact:
            s3_ = s3.unflatten(0, (2, -1))[:, :M].flatten(0, 1)
            layers = IntLayer(w1, b1, s1), IntLayer(w2, b2, s2), IntLayer(w3, b3, s3_)
            out = reference.phase(acc, c, layers, kernel=kernel, parity=lattice.parity)
        else:
            weights = [t.to(dtype) for t in (w1, w2, w3)]
            out = _float_phase(acc, c, weights, (b1[p], b2, b3), slope, network[0].dtype, kernel, lattice.parity)
            if thresholds is not None:
                out = out[0], (out[1].unsqueeze(-1) > thresholds).sum(-1)
        mean[rows], k[rows] = (t.flatten(0, 2).to(to.dtype) for t, to in zip(out, (mean, k), strict=True))
    if _has_blanks(lattice):
        empty = blanks(lattice, p, mean.device)
        mean[empty] = 0
        k[empty] = 0


def _float_phase(
    acc: Tensor,
    context: Tensor | None,
    weights: list[Tensor],
    biases: tuple[Tensor, Tensor, Tensor],
    slope: float,
    dtype: torch.dtype,
    kernel: int,
    parity: int,
) -> tuple[Tensor, Tensor]:
    """(mean, sigma) in float32, activations rounded to dtype between the layers."""
    with torch.autocast(acc.device.type, enabled=False):
        if context is not None:
            columns = reference.context_columns(context, 0, context.shape[1], kernel, parity)
            acc = acc + F.linear(columns, weights[0])
        h = F.leaky_relu(acc + biases[0], slope).to(dtype).float()
        h = F.leaky_relu(F.linear(h, weights[1], biases[1]), slope).to(dtype).float()
        mean, sigma = F.linear(h, weights[2], biases[2]).chunk(2, dim=-1)
        return mean, sigma


def assemble(r: Tensor, mean: Tensor, lattice: Lattice, p: int, y_hat: Tensor | None, context: Tensor | None) -> None:
    """Writes y_hat = 16 r + mean of phase p onto the full lattice, and companded to context.

    r: int16 (sites, M). mean: int16 in 1/16 units, or float32, with which y_hat = r + mean and context is y_hat.
    y_hat: (full sites, M), int16 or float32, of which the phase's sites are written, or None. context: (sites, M)
    int8 (in float mode: any float dtype) or None; blanks hold 0 there.
    """
    if mean.dtype == torch.int16:
        y = MEAN_STEP * r.to(torch.int32) + mean
        seen = compand(y.to(torch.float32)) if context is not None else y
    else:
        y = seen = r.float() + mean
    empty = blanks(lattice, p, r.device)
    if y_hat is not None:
        y_hat[full_rows(lattice, p, r.device)[~empty]] = y[~empty].to(y_hat.dtype)
    if context is not None:
        context.copy_(seen.masked_fill(empty[:, None], 0))


def quantise(y: Tensor, mean: Tensor, lattice: Lattice, p: int) -> Tensor:
    """r = clamp(floor(y - mean / 16 + 1/2)) of phase p: y float32 (full sites, M), mean int16 (sites, M) in 1/16
    units.

    Returns int16 (sites, M) in [-1023, 1023]; blanks hold 0.
    """
    empty = blanks(lattice, p, y.device)
    rows = full_rows(lattice, p, y.device).masked_fill(empty, 0)
    r = round_half_up(y[rows] - mean.float() / MEAN_STEP).clamp(-R_MAX, R_MAX)
    return r.masked_fill(empty[:, None], 0).to(torch.int16)


def split(y: Tensor, lattice: Lattice, p: int) -> Tensor:
    """The sites of phase p, packed: y (full sites, C) of any dtype -> (sites, C); blanks hold 0."""
    rows = full_rows(lattice, p, y.device)
    if _has_blanks(lattice):
        rows = rows.masked_fill(blanks(lattice, p, y.device), 0)
    return _cleared(y[rows], lattice, p)


def merge(packed: Tensor, lattice: Lattice, p: int, y: Tensor) -> None:
    """The inverse of split: writes the sites of phase p to y (full sites, C)."""
    rows = full_rows(lattice, p, y.device)
    if _has_blanks(lattice):
        there = ~blanks(lattice, p, y.device)
        rows, packed = rows[there], packed[there]
    y[rows] = packed


def _has_blanks(lattice: Lattice) -> bool:
    return any(w % 2 for _, w in lattice.sizes)


def _cleared(packed: Tensor, lattice: Lattice, p: int) -> Tensor:
    """packed with blanks set to 0; itself if there are none."""
    if not _has_blanks(lattice):
        return packed
    return packed.masked_fill(blanks(lattice, p, packed.device)[:, None], 0)


def full_rows(lattice: Lattice, p: int, device: torch.device) -> Tensor:
    """int64 (sites,): the row in full arrays of every packed site of phase p; meaningless for blanks."""
    out, base = [], 0
    for H, W in lattice.sizes:
        row = torch.arange(H, device=device).view(-1, 1)
        column = 2 * torch.arange(half(W), device=device) + ((row + p + lattice.parity) & 1)
        out.append((base + row * W + column).flatten())
        base += H * W
    return torch.cat(out)
