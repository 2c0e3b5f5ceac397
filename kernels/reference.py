"""The definition of what every kernel must compute (docs/numerics.md), for batches of one size, in carriers.

Sites of one phase are packed, channels last: (B, H, ceil(W/2), C). Those of phase p hold column
2j + ((h + p + parity) & 1) of row h; anchors (phase 0) of the default model are the sites with (row + column) even.
Integers travel in float32 or float64, with gradients: training runs these very functions. `twin` has the same for
batches of any sizes in the kernels' dtypes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ckbd.kernels.network import taps
from ckbd.kernels.numerics import ACT_MAX, K_MAX, MEAN_MAX, WEIGHT_MAX, IntLayer, requantise
from ckbd.kernels.products import linear

TAPS = taps(5)


def _odd_rows(H: int, parity: int, device: torch.device) -> Tensor:
    return ((torch.arange(H, device=device) + parity) & 1).bool()


def split(y: Tensor, parity: int = 0) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) to packed (anchors, non_anchors), each (B, H, ceil(W/2), C); blanks are 0."""
    y = F.pad(y, (0, y.shape[-1] % 2))
    left, right = y[..., 0::2], y[..., 1::2]
    odd_row = _odd_rows(y.shape[2], parity, y.device).view(1, 1, -1, 1)
    anchors = torch.where(odd_row, right, left)
    others = torch.where(odd_row, left, right)
    return anchors.permute(0, 2, 3, 1).contiguous(), others.permute(0, 2, 3, 1).contiguous()


def merge(anchors: Tensor, others: Tensor, parity: int = 0, width: int | None = None) -> Tensor:
    """The inverse of split: two packed halves (B, H, ceil(W/2), C) to (B, C, H, W). width: W, if it is odd."""
    odd_row = _odd_rows(anchors.shape[1], parity, anchors.device).view(1, -1, 1, 1)
    left = torch.where(odd_row, others, anchors)
    right = torch.where(odd_row, anchors, others)
    return torch.stack((left, right), dim=3).flatten(2, 3).permute(0, 3, 1, 2)[..., :width]


def context_columns(anchors: Tensor, first: int, last: int, kernel: int = 5, parity: int = 0) -> Tensor:
    """The live anchor neighbours of every non-anchor site of rows first..last-1.

    anchors: packed (B, H, ceil(W/2), C), blanks 0. Returns (B, last - first, ceil(W/2), taps C), zero outside the
    lattice; tap t of taps(kernel) occupies channels t C .. (t+1) C. The site at column 2j + s, s = (row + 1 +
    parity) & 1, has its neighbour at (dh, dw) in packed column (2j + s + dw) >> 1.
    """
    B, H, columns, C = anchors.shape
    rows, r, side = last - first, kernel // 2, (kernel // 2 + 1) // 2
    lo, hi = max(first - r, 0), min(last + r, H)
    padded = F.pad(anchors[:, lo:hi], (0, 0, side, side, lo - (first - r), (last + r) - hi))
    odd_row = _odd_rows(last, 1 + parity, anchors.device)[first:].view(1, -1, 1, 1)

    def shifted(dh: int, dj: int) -> Tensor:
        return padded[:, r + dh : r + dh + rows, side + dj : side + dj + columns]

    out = []
    for dh, dw in taps(kernel):
        even, odd = dw >> 1, (1 + dw) >> 1
        out.append(shifted(dh, even) if even == odd else torch.where(odd_row, shifted(dh, odd), shifted(dh, even)))
    return torch.cat(out, dim=-1)


def exact_conv3x3(
    x: Tensor, layer: IntLayer, stripe: int = 64, each: Callable[..., list[Tensor]] | None = None
) -> Tensor:
    """3x3 integer convolution with zero border, requantised to [0, 127]: (B, C, H, W) -> (B, N, H, W).

    A matrix product over gathered neighbours, not conv2d: convolution libraries may pick Winograd's algorithm, whose
    intermediate values are no integers (on CPU, torch 2.13 without oneDNN was off by up to 2.5 at batch 16).
    stripe: rows at a time, as in phase(). each: calls a function of every stripe and gives a list (None: in turn).
    """
    H, W = x.shape[2:]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    weight = layer.weight.to(x.dtype).permute(0, 2, 3, 1).flatten(1)
    bias = layer.bias.to(x.dtype)

    def rows_from(top: int) -> Tensor:
        rows = min(stripe, H - top)
        window = [padded[:, top + u : top + u + rows, v : v + W] for u in range(3) for v in range(3)]
        with torch.autocast(x.device.type, enabled=False):
            acc = linear(torch.cat(window, dim=-1), weight, bias)
        return requantise(acc, layer, 0, ACT_MAX)

    tops = range(0, H, stripe)
    parts = [rows_from(top) for top in tops] if each is None else each(rows_from, tops)
    return torch.cat(parts, dim=1).permute(0, 3, 1, 2)


def probe(device: torch.device, dtype: torch.dtype) -> None:
    """Check that matrix products on this device are exact up to 2^24; ValueError if they are not.

    Sums that run to the limit and back in several orders, with a last unit that any lost bit would take away.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    a = torch.randint(-ACT_MAX, ACT_MAX + 1, (64, 1032), generator=generator, device="cpu")
    w = torch.randint(-WEIGHT_MAX, WEIGHT_MAX + 1, (96, 1032), generator=generator, device="cpu")
    a[:32], w[:48] = ACT_MAX, WEIGHT_MAX
    a[16:32, 1::2], a[:, 0], w[:, 0] = -ACT_MAX, 1, 1
    with torch.autocast(device.type, enabled=False), torch.inference_mode():
        got = linear(a.to(device, dtype), w.to(device, dtype)).cpu()
    if not torch.equal(got.to(torch.int64), a @ w.T):
        raise ValueError(f"device {device}: matrix products in {dtype} are not exact, streams would not decode")


def project_psi(psi: Tensor, first: IntLayer) -> Tensor:
    """The hyperprior's half of the first layer, shared by both phases: packed (B, H, W/2, C) -> (..., H1)."""
    with torch.autocast(psi.device.type, enabled=False):
        return linear(psi, first.weight[:, : psi.shape[-1]].to(psi.dtype))


def context_weight(first: IntLayer, M: int, kernel: int = 5) -> Tensor:
    """The context's half of the first layer, (H1, taps M)."""
    return first.weight[:, first.weight.shape[1] - len(taps(kernel)) * M :]


def phase(
    psi_acc: Tensor,
    context: Tensor | None,
    layers: tuple[IntLayer, IntLayer, IntLayer],
    stripe: int = 64,
    kernel: int = 5,
    parity: int = 0,
) -> tuple[Tensor, Tensor]:
    """(mean, k) of one phase.

    psi_acc: (B, H, W/2, H1), project_psi of this phase's sites. context: packed companded anchors (B, H, W/2, M),
    or None for phase 0. layers: first (H1, C_psi + taps M) with a bias for each phase (2, H1), hidden (H2, H1),
    output (2M, H2). stripe: rows at a time, which bounds the memory of the gathered columns and changes nothing.
    Returns mean in 1/16 units and table index k, each (B, H, W/2, M), integer-valued in psi_acc's dtype.
    """
    H = psi_acc.shape[1]
    parts = []
    for top in range(0, H, stripe):
        bottom = min(top + stripe, H)
        parts.append(phase_rows(psi_acc[:, top:bottom], context, layers, top, bottom, kernel, parity))
    out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    M = out.shape[-1] // 2
    return out[..., :M], out[..., M:]


def phase_rows(
    psi_acc: Tensor,
    context: Tensor | None,
    layers: tuple[IntLayer, IntLayer, IntLayer],
    top: int,
    bottom: int,
    kernel: int = 5,
    parity: int = 0,
    w_context: Tensor | None = None,
    scratch: Tensor | None = None,
) -> Tensor:
    """Rows top..bottom-1 of phase(), mean and k in one tensor (B, bottom - top, W/2, 2M).

    psi_acc: of these rows; context: of all, in any dtype that holds its integers; the rest as phase() has it.
    w_context: context_weight() of psi_acc's dtype, for those who have it at hand without gaps. scratch: memory of
    that dtype for the columns, which fresh pages would cost time.
    """
    first, hidden, output = layers
    dtype, M = psi_acc.dtype, output.weight.shape[0] // 2
    bias = first.bias[0 if context is None else 1].to(dtype)
    low = torch.cat((psi_acc.new_full((M,), -MEAN_MAX), psi_acc.new_zeros(M)))
    high = torch.cat((psi_acc.new_full((M,), MEAN_MAX), psi_acc.new_full((M,), K_MAX)))
    with torch.autocast(psi_acc.device.type, enabled=False):
        acc = psi_acc + bias
        if context is not None:
            w_context = context_weight(first, M, kernel).to(dtype) if w_context is None else w_context
            columns = context_columns(context, top, bottom, kernel, parity)
            if scratch is None or scratch.numel() < columns.numel():
                columns = columns.to(dtype)
            else:
                columns = scratch[: columns.numel()].view(columns.shape).copy_(columns)
            acc = acc + linear(columns, w_context)
        h = requantise(acc, first, 0, ACT_MAX)
        h = requantise(linear(h, hidden.weight.to(dtype), hidden.bias.to(dtype)), hidden, 0, ACT_MAX)
        out = linear(h, output.weight.to(dtype), output.bias.to(dtype))
        return requantise(out, output, low, high)
