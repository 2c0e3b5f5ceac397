"""What lies between the phases in Triton: residuals to y_hat and context, y to residuals, split and merge.

Bound by memory: each element is read and written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ckbd.kernels.lattice import Lattice, tile_table
from ckbd.kernels.layer import ACT_MAX, tile_sites
from ckbd.kernels.numerics import CONTEXT_KNEE, CONTEXT_SHIFT, CONTEXT_SLOPE, MEAN_STEP, R_MAX

POINTWISE = 32  # sites that a program takes ...
CHANNELS = 128  # ... and channels


@triton.jit(do_not_specialize=["odd"])
def assemble_kernel(
    r_ptr,
    mean_ptr,
    y_hat_ptr,
    context_ptr,
    tiles_ptr,
    stride_r,
    stride_mean,
    stride_y,
    stride_context,
    M,
    odd,
    SHIFT: tl.constexpr,
    KNEE: tl.constexpr,
    SLOPE: tl.constexpr,
    STEP: tl.constexpr,
    HAS_Y: tl.constexpr,
    HAS_CONTEXT: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """y_hat = STEP r + mean of a phase, onto the full lattice, and companded as context, packed; blanks hold 0
    there.
    """
    first, packed, full, h, w, H, W, inside = tile_sites(tiles_ptr, tl.program_id(1), odd, False, BLOCK_P)
    offs_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = packed + first + tl.arange(0, BLOCK_P)
    there = inside & (w < W)
    in_c = offs_c < M
    mask = there[:, None] & in_c[None, :]
    r = tl.load(r_ptr + row[:, None] * stride_r + offs_c[None, :], mask=mask, other=0)
    mean = tl.load(mean_ptr + row[:, None] * stride_mean + offs_c[None, :], mask=mask, other=0)
    if EXACT:
        y = STEP * r.to(tl.int32) + mean.to(tl.int32)
    else:
        y = r.to(tl.float32) + mean
    if HAS_Y:
        to = full + h * W + w
        tl.store(y_hat_ptr + to[:, None] * stride_y + offs_c[None, :], y.to(y_hat_ptr.dtype.element_ty), mask=mask)
    if HAS_CONTEXT:
        if EXACT:
            v = (y + (1 << SHIFT >> 1)) >> SHIFT
            size = tl.abs(v)
            size = tl.minimum(tl.where(size > KNEE, KNEE + ((size - KNEE) >> SLOPE), size), ACT_MAX)
            y = tl.where(v < 0, -size, size)
        tl.store(
            context_ptr + row[:, None] * stride_context + offs_c[None, :],
            y.to(context_ptr.dtype.element_ty),
            mask=inside[:, None] & in_c[None, :],
        )


@triton.jit(do_not_specialize=["odd"])
def quantise_kernel(
    y_ptr,
    mean_ptr,
    r_ptr,
    tiles_ptr,
    stride_y,
    stride_mean,
    stride_r,
    M,
    odd,
    STEP: tl.constexpr,
    R_MAX: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """r = clamp(floor(y - mean / STEP + 1/2)) of a phase: y from the full lattice, r packed; blanks hold 0."""
    first, packed, full, h, w, H, W, inside = tile_sites(tiles_ptr, tl.program_id(1), odd, False, BLOCK_P)
    offs_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = packed + first + tl.arange(0, BLOCK_P)
    in_c = offs_c < M
    mask = (inside & (w < W))[:, None] & in_c[None, :]
    y = tl.load(y_ptr + (full + h * W + w)[:, None] * stride_y + offs_c[None, :], mask=mask, other=0)
    mean = tl.load(mean_ptr + row[:, None] * stride_mean + offs_c[None, :], mask=mask, other=0)
    r = tl.floor(y.to(tl.float32) - mean.to(tl.float32) * (1.0 / STEP) + 0.5)
    r = tl.where(mask, tl.minimum(tl.maximum(r, -R_MAX), R_MAX), 0)
    tl.store(
        r_ptr + row[:, None] * stride_r + offs_c[None, :],
        r.to(r_ptr.dtype.element_ty),
        mask=inside[:, None] & in_c[None, :],
    )


@triton.jit(do_not_specialize=["odd"])
def move_kernel(
    y_ptr,
    packed_ptr,
    tiles_ptr,
    stride_y,
    stride_packed,
    C,
    odd,
    SPLIT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Rows of a phase between the full lattice and its packed half, of any dtype; blanks become 0 when split."""
    first, packed, full, h, w, H, W, inside = tile_sites(tiles_ptr, tl.program_id(1), odd, False, BLOCK_P)
    offs_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = (offs_c < C)[None, :]
    there = inside & (w < W)
    y_ptrs = y_ptr + (full + h * W + w)[:, None] * stride_y + offs_c[None, :]
    packed_ptrs = packed_ptr + (packed + first + tl.arange(0, BLOCK_P))[:, None] * stride_packed + offs_c[None, :]
    if SPLIT:
        y = tl.load(y_ptrs, mask=there[:, None] & in_c, other=0)
        tl.store(packed_ptrs, y, mask=inside[:, None] & in_c)
    else:
        packed = tl.load(packed_ptrs, mask=there[:, None] & in_c, other=0)
        tl.store(y_ptrs, packed, mask=there[:, None] & in_c)


def _pointwise(lattice: Lattice, M: int, device: torch.device) -> tuple[Tensor, tuple[int, int]]:
    tiles = tile_table(lattice, POINTWISE, False, device)
    return tiles, (triton.cdiv(M, CHANNELS), tiles.shape[0])


def assemble(r: Tensor, mean: Tensor, lattice: Lattice, p: int, y_hat: Tensor | None, context: Tensor | None) -> None:
    tiles, grid = _pointwise(lattice, r.shape[1], r.device)
    assemble_kernel[grid](
        r,
        mean,
        y_hat if y_hat is not None else r,
        context if context is not None else r,
        tiles,
        r.stride(0),
        mean.stride(0),
        y_hat.stride(0) if y_hat is not None else 0,
        context.stride(0) if context is not None else 0,
        r.shape[1],
        (p + lattice.parity) & 1,
        SHIFT=CONTEXT_SHIFT,
        KNEE=CONTEXT_KNEE,
        SLOPE=CONTEXT_SLOPE,
        STEP=MEAN_STEP,
        HAS_Y=y_hat is not None,
        HAS_CONTEXT=context is not None,
        EXACT=mean.dtype == torch.int16,
        BLOCK_P=POINTWISE,
        BLOCK_C=CHANNELS,
    )


def quantise(y: Tensor, mean: Tensor, lattice: Lattice, p: int) -> Tensor:
    r = torch.empty_like(mean)
    tiles, grid = _pointwise(lattice, y.shape[1], y.device)
    quantise_kernel[grid](
        y,
        mean,
        r,
        tiles,
        y.stride(0),
        mean.stride(0),
        r.stride(0),
        y.shape[1],
        (p + lattice.parity) & 1,
        STEP=MEAN_STEP,
        R_MAX=R_MAX,
        BLOCK_P=POINTWISE,
        BLOCK_C=CHANNELS,
    )
    return r


def split(y: Tensor, lattice: Lattice, p: int) -> Tensor:
    packed = y.new_empty((lattice.sites, y.shape[1]))
    _move(y, packed, lattice, p, True)
    return packed


def merge(packed: Tensor, lattice: Lattice, p: int, y: Tensor) -> None:
    _move(y, packed, lattice, p, False)


def _move(y: Tensor, packed: Tensor, lattice: Lattice, p: int, split: bool) -> None:
    tiles, grid = _pointwise(lattice, y.shape[1], y.device)
    odd = (p + lattice.parity) & 1
    move_kernel[grid](
        y,
        packed,
        tiles,
        y.stride(0),
        packed.stride(0),
        y.shape[1],
        odd,
        SPLIT=split,
        BLOCK_P=POINTWISE,
        BLOCK_C=CHANNELS,
    )
