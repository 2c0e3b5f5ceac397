"""Likelihoods for training, and the integer tables that code real symbols.

y's residuals follow zero-mean Gaussians whose scales form a fixed log-spaced ladder; z follows a learned density per
channel (Balle et al., "Variational image compression with a scale hyperprior", ICLR 2018, appendix 6.1). Tables are
built once at export, stored as integers in the model file and named by its hash: erfc differs between platforms, so
they are never derived again.
"""

from __future__ import annotations

import copy
import heapq
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 256.0
LOG_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALES - 1)
LIKELIHOOD_MIN = 1e-9
SHARES_A_BIT = 8


def scale_of(k: Tensor) -> Tensor:
    """Standard deviation of scale index k (any shape, may be fractional): 0.11 at 0, 256 at 63."""
    return SCALE_MIN * torch.exp(LOG_STEP * k)


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x >= bound)
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return grad * (above | (grad < 0)), None


def _bits(p: Tensor) -> Tensor:
    return -torch.log2(_LowerBound.apply(p, LIKELIHOOD_MIN))


def gaussian_bits(r: Tensor, k: Tensor) -> Tensor:
    """-log2 of the mass that N(0, scale_of(k)) gives to [r - 1/2, r + 1/2]; r and k of one shape, float."""
    return _bits(_gaussian_mass(r, k))


def _gaussian_mass(r: Tensor, k: Tensor) -> Tensor:
    inverse = 1.0 / (scale_of(k) * math.sqrt(2.0))
    size = r.abs()
    # Both arguments on the negative side, where erfc keeps its relative precision.
    return 0.5 * (torch.erfc((size - 0.5) * inverse) - torch.erfc((size + 0.5) * inverse))


def mixture_bits(r: Tensor, k: Tensor, share: Tensor) -> Tensor:
    """-log2 of the mass that sum_j w_j N(0, scale_of(k_j)) gives to [r_j - 1/2, r_j + 1/2]: three (..., K, M) ->
    (..., M).

    r: distances from the means. share: logarithms of the weights in steps of 1/8 bit, so w_j is proportional to
    2^(share_j / 8) (Cheng et al., "Learned image compression with discretized Gaussian mixture likelihoods and
    attention modules", CVPR 2020, equation 5).
    """
    weight = torch.softmax(share * (math.log(2.0) / SHARES_A_BIT), dim=-2)
    return _bits((weight * _gaussian_mass(r, k)).sum(-2))


class FactorizedPrior(nn.Module):
    """A density per channel, as the slope of a learned monotone function (layers 1-3-3-1 of the source above)."""

    WIDTHS = (1, 3, 3, 1)

    def __init__(self, channels: int, spread: float = 8.0):
        super().__init__()
        self.matrices, self.biases, self.gates = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        steps = len(self.WIDTHS) - 1
        for i, (n_in, n_out) in enumerate(zip(self.WIDTHS, self.WIDTHS[1:], strict=False)):
            start = math.log(math.expm1(spread ** (-1.0 / steps) / n_out))
            self.matrices.append(nn.Parameter(torch.full((channels, n_out, n_in), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, n_out, 1) - 0.5))
            if i + 1 < steps:
                self.gates.append(nn.Parameter(torch.zeros(channels, n_out, 1)))

    def logits(self, z: Tensor) -> Tensor:
        """The cumulative's logits at z, (C, 1, n) -> (C, 1, n)."""
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            z = torch.matmul(F.softplus(matrix), z) + bias
            if i < len(self.gates):
                z = z + torch.tanh(self.gates[i]) * torch.tanh(z)
        return z

    def mass(self, z: Tensor) -> Tensor:
        """Probability of [z - 1/2, z + 1/2] for each channel, (C, n) -> (C, n)."""
        lower, upper = self.logits((z - 0.5).unsqueeze(1)), self.logits((z + 0.5).unsqueeze(1))
        sign = -torch.sign(lower + upper).detach()
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs().squeeze(1)

    def bits(self, z: Tensor) -> Tensor:
        """-log2 mass of z (B, C, h, w), same shape."""
        B, C, h, w = z.shape
        with torch.autocast(z.device.type, enabled=False):
            p = self.mass(z.transpose(0, 1).reshape(C, -1))
        return _bits(p).view(C, B, h, w).transpose(0, 1)


PRECISION = 12
TOTAL = 1 << PRECISION
NARROW = 22  # scale indices up to here have at most MAX_NARROW + 1 thresholds, which fit in registers
MAX_NARROW = 6
MAX_WIDE = 126


def round_frequencies(p: list[float], total: int) -> list[int]:
    """Integers f >= 1 that add to total and lose the least against p (any non-negative numbers): argmin sum -p log f.

    The loss is convex in each f, so adding one unit at a time where it gains most is optimal.
    Raises ValueError if there are more symbols than slots.
    """
    if len(p) > total:
        raise ValueError(f"round_frequencies: {len(p)} symbols do not fit into {total} slots")
    # Most units are known beforehand. Let g be the least gain of a unit that is added. A last unit gains less than
    # p / (f - 1), so f < p / g + 1 for all; their sum gives 1 / g > (total - n) / sum p. The next unit gains at most
    # g, and more than p / (f + 1): f > p / g - 1 > p (total - n) / sum p - 1. (A hair less, for the rounding here.)
    known = (1 - 1e-9) * (total - len(p)) / (sum(p) or math.inf)
    f = [max(1, math.floor(value * known)) for value in p]
    heap = [(-value * math.log1p(1 / have), i) for i, (value, have) in enumerate(zip(p, f, strict=True))]
    heapq.heapify(heap)
    for _ in range(total - sum(f)):
        _, i = heap[0]
        f[i] += 1
        heapq.heapreplace(heap, (-p[i] * math.log1p(1 / f[i]), i))
    return f


def gaussian_tables() -> dict[str, Tensor]:
    """The y tables of docs/format.md for Gaussians of the ladder of scales."""
    rows = []
    for k in range(SCALES):
        spread = SCALE_MIN * math.exp(LOG_STEP * k) * math.sqrt(2.0)

        def tail(edge: float, spread: float = spread) -> float:
            return 0.5 * math.erfc(edge / spread)

        # An escape owns two slots at the least: symbols rarer than that together are not worth a slot each.
        cap, top = largest_size(k), 1
        while top < cap and 2 * tail(top + 0.5) > 2 / TOTAL:
            top += 1
        p = [1 - 2 * tail(0.5)] + [2 * (tail(m - 0.5) - tail(m + 0.5)) for m in range(1, top + 1)]
        rows.append([*p, 2 * tail(top + 0.5)])
    return y_tables(rows)


def largest_size(k: int) -> int:
    """What max_k of the y table of scale index k may be at most."""
    return MAX_NARROW if k <= NARROW else MAX_WIDE


def y_tables(rows: list[list[float]]) -> dict[str, Tensor]:
    """table.y.freq int16 (64, n) and table.y.max uint8 (64) of docs/format.md that lose the least against rows.

    rows[k]: the masses of |r| = 0, 1, ..., max_k, both signs together, and of all beyond.
    """
    # In pairs of slots: f_0 grows by one pair at a time, f_m by a slot for +m and one for -m.
    paired = [round_frequencies(p, TOTAL // 2) for p in rows]
    return {
        "table.y.freq": _padded([[2 * f[0], *f[1:]] for f in paired]),
        "table.y.max": torch.tensor([len(p) - 2 for p in rows], dtype=torch.uint8),
    }


def factorized_tables(prior: FactorizedPrior, limit: int) -> dict[str, Tensor]:
    """The z tables of docs/format.md for symbols within [-limit, limit]."""
    with torch.no_grad():
        channels = prior.matrices[0].shape[0]
        grid = torch.arange(-limit, limit + 1, dtype=torch.float64)
        mass = FactorizedPrior.mass(copy.deepcopy(prior).double(), grid.expand(channels, -1)).tolist()
    rows, lows = [], []
    for p in mass:
        kept = [i for i, value in enumerate(p) if value * TOTAL > 0.5] or [max(range(len(p)), key=p.__getitem__)]
        inside = p[kept[0] : kept[-1] + 1]
        rows.append([*inside, max(1 - sum(inside), 0.0)])
        lows.append(kept[0] - limit)
    return z_tables(rows, lows)


def z_tables(rows: list[list[float]], lows: list[int]) -> dict[str, Tensor]:
    """table.z.freq int16 (Nz, n), .low and .size int16 (Nz) of docs/format.md that lose the least against rows.

    rows[c]: the masses of the symbols lows[c], lows[c] + 1, ... and of all others.
    """
    return {
        "table.z.freq": _padded([round_frequencies(p, TOTAL) for p in rows]),
        "table.z.low": torch.tensor(lows, dtype=torch.int16),
        "table.z.size": torch.tensor([len(p) - 1 for p in rows], dtype=torch.int16),
    }


def _padded(rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int16)


def table_bits(tables: dict[str, Tensor], z: Tensor, phases: list[tuple[Tensor, Tensor]]) -> float:
    """Ideal code length of an image's symbols by its model's integer tables: sum of -log2(f / 4096), in bits.

    z: (n,) with channels last; phases: (k, r) each (n,). Skipped classes count by their tables as well, an escape
    counts its slot and the bytes of its value.
    """
    z, low, size = z.long(), tables["table.z.low"].long(), tables["table.z.size"].long()
    channel = torch.arange(z.numel(), device=z.device) % low.numel()
    t = z - low[channel]
    beyond = torch.where(t < 0, -2 * t - 1, 2 * (t - size[channel]))
    escaped = (t < 0) | (t >= size[channel])
    bits = _slot_bits(tables["table.z.freq"], channel, torch.where(escaped, size[channel], t), beyond, escaped)
    for k, r in phases:
        k, largest = k.long(), tables["table.y.max"].long()[k.long()]
        beyond = r.long().abs() - largest - 1
        index = torch.minimum(r.long().abs(), largest + 1)
        bits += _slot_bits(tables["table.y.freq"], k, index, beyond, beyond >= 0)
    return bits


def residual_costs(tables: dict[str, Tensor], limit: int) -> Tensor:
    """What a residual costs by the tables: bits of |r| from 0 to limit under each index, float64 (64, limit + 1).

    As table_bits counts them, escapes included.
    """
    freq, largest = tables["table.y.freq"], tables["table.y.max"].long().view(-1, 1)
    size = torch.arange(limit + 1, device=freq.device).expand(len(freq), -1)
    beyond = size - largest - 1
    cost = (PRECISION - torch.log2(freq.double())).gather(1, torch.minimum(size, largest + 1))
    return cost + 8.0 * sum((beyond >= first).double() for first in (0, 1 << 7, 1 << 14))


def _slot_bits(freq: Tensor, row: Tensor, column: Tensor, beyond: Tensor, escaped: Tensor) -> float:
    cost = PRECISION - torch.log2(freq.double())
    varint_bytes = escaped.sum() + (beyond[escaped] >= 1 << 7).sum() + (beyond[escaped] >= 1 << 14).sum()
    return float(cost[row, column].sum()) + 8.0 * float(varint_bytes)
