"""A whole checkerboard phase in one launch."""

from __future__ import annotations

import triton
import triton.language as tl

from ckbd.kernels.layer import activate, gather_dot, store_output, tile_sites


@triton.jit(do_not_specialize=["odd", "tiles", "rounds1", "rounds2", "rounds3"])
def fused_kernel(
    psi_ptr,  # (sites, H1P) accumulators of the hyperprior's half, int32 or float32
    x_ptr,  # (anchor sites, C) context, with HAS_CONTEXT
    w1_ptr,  # (H1P, TAPS CP)
    bias1_ptr,
    shift1_ptr,
    w2_ptr,  # (H2P, H1P)
    bias2_ptr,
    shift2_ptr,
    w3_ptr,  # (2 MP, H2P)
    bias3_ptr,
    shift3_ptr,
    thresholds_ptr,
    mean_ptr,
    k_ptr,
    scratch_ptr,  # (programs, BLOCK_P, H1P + H2P) activations
    tiles_ptr,
    tiles,
    stride_psi,
    stride_x,
    stride_mean,
    stride_k,
    C,
    odd,
    rounds1,  # of gather_dot in each layer
    rounds2,
    rounds3,
    slope,
    HAS_CONTEXT: tl.constexpr,
    KERNEL: tl.constexpr,
    CP: tl.constexpr,
    MASK_C: tl.constexpr,
    H1P: tl.constexpr,
    H2P: tl.constexpr,
    M: tl.constexpr,
    MP: tl.constexpr,
    THRESHOLDS: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,  # BLOCK_K of the hidden and the output layer
):
    """A whole phase. Programs take tiles in turn, so that their scratch, written and read at once, stays in L2."""
    H3P: tl.constexpr = 2 * MP
    WIDTH: tl.constexpr = H1P + H2P
    offs_s = tl.arange(0, BLOCK_P)
    always = offs_s >= 0
    h1_ptr = scratch_ptr + tl.program_id(0).to(tl.int64) * (BLOCK_P * WIDTH)
    h2_ptr = h1_ptr + BLOCK_P * H1P
    tile = tl.program_id(0)
    while tile < tiles:
        first, packed, full, h, w, H, W, inside = tile_sites(tiles_ptr, tile, odd, False, BLOCK_P)
        base = packed + first
        for n in range(0, H1P, BLOCK_N):
            offs_n = n + tl.arange(0, BLOCK_N)
            psi_ptrs = psi_ptr + base * stride_psi + (offs_s[:, None] * stride_psi + offs_n[None, :])
            acc = tl.load(psi_ptrs, mask=inside[:, None], other=0)
            if HAS_CONTEXT:
                acc = gather_dot(
                    acc, x_ptr + base * stride_x, stride_x, C, w1_ptr, KERNEL * KERNEL // 2 * CP, offs_n, first, h, w,
                    H, W, inside, rounds1, "context", KERNEL, CP, MASK_C, BLOCK_P, BLOCK_K,
                )  # fmt: skip
            acc = activate(acc, bias1_ptr, shift1_ptr, offs_n, slope, EXACT)
            tl.store(h1_ptr + offs_s[:, None] * H1P + offs_n[None, :], acc.to(h1_ptr.dtype.element_ty))
        # Threads read what others of the program wrote: here and once more below. What is written next was last read
        # before the barrier in between, so the loop needs no third.
        tl.debug_barrier()
        for n in range(0, H2P, BLOCK_N):
            offs_n = n + tl.arange(0, BLOCK_N)
            acc = tl.zeros((BLOCK_P, BLOCK_N), tl.int32 if EXACT else tl.float32)
            acc = gather_dot(
                acc, h1_ptr, H1P, H1P, w2_ptr, H1P, offs_n, 0, h, w, H, W, always,
                rounds2, "site", 1, H1P, False, BLOCK_P, BLOCK_H,
            )  # fmt: skip
            acc = activate(acc, bias2_ptr, shift2_ptr, offs_n, slope, EXACT)
            tl.store(h2_ptr + offs_s[:, None] * H2P + offs_n[None, :], acc.to(h2_ptr.dtype.element_ty))
        tl.debug_barrier()
        for n in range(0, H3P, BLOCK_N):
            offs_n = n + tl.arange(0, BLOCK_N)
            acc = tl.zeros((BLOCK_P, BLOCK_N), tl.int32 if EXACT else tl.float32)
            acc = gather_dot(
                acc, h2_ptr, H2P, H2P, w3_ptr, H2P, offs_n, 0, h, w, H, W, always,
                rounds3, "site", 1, H2P, False, BLOCK_P, BLOCK_H,
            )  # fmt: skip
            store_output(
                acc, bias3_ptr, shift3_ptr, thresholds_ptr, mean_ptr + base * stride_mean, stride_mean,
                k_ptr + base * stride_k, stride_k, n, inside, w >= W, M, MP, THRESHOLDS, EXACT, BLOCK_P, BLOCK_N,
            )  # fmt: skip
        tile += tl.num_programs(0)
