"""A residual block of g_a and g_s in one launch: out = x + reduce(leaky_relu(expand(depthwise 3x3(x)))).

A program takes a tile of sites with the ring of neighbours around it, reads them once and writes once. Three forms:

- "held" keeps what lies between on the multiprocessor: the mixed features as an operand, the expanded ones a chunk at
  a time on their way into the sums of the reduction. For widths that are a power of two, as a tile's sides are;
- "resident" keeps the weights there, too, while its programs take tiles in turn: L2 then moves features alone. For
  widths whose weights fit;
- "spread", for any width, writes both to a scratch of the program's own, which it reads at once and which stays in
  L2.

Sums are float32 and of one order whatever the form and the tile: of the depthwise layer its bias, then the taps in
raster order; of the expanded features their bias, then channels in order (a bias added to a product that starts from
zero would be made its start by Triton, where it sees it, and there alone); of the reduced ones channels in order from
zero, then the bias, then x. Zero padding stands at the border of each picture.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ckbd.kernels.layer import gather_dot, tile_sites

MOST: tl.constexpr = tl.constexpr(65504.0)  # of float16: features stay within it, so none becomes infinite or NaN


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """float32 as features are stored."""
    if dtype == tl.float16:
        x = tl.minimum(tl.maximum(x, -MOST), MOST)
    return x.to(dtype)


@triton.jit
def leaky(x, slope):
    return tl.where(x >= 0, x, x * slope)


@triton.jit
def depthwise(
    x_ptr,  # at the tile's first site
    w_ptr,  # (9, CP) float32
    bias_ptr,
    offs_c,
    h,
    w,
    H,
    W,
    inside,
    taps,
    CP: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """The 3x3 layer at the sites of a tile, channels offs_c, float32."""
    offs_p = tl.arange(0, BLOCK_P)
    acc = tl.zeros((BLOCK_P, offs_c.shape[0]), tl.float32) + tl.load(bias_ptr + offs_c)[None, :]
    for tap in range(0, taps):
        dh = tap // 3 - 1
        dw = tap % 3 - 1
        there = inside & (h + dh >= 0) & (h + dh < H) & (w + dw >= 0) & (w + dw < W)
        row = offs_p + dh * W + dw
        x = tl.load(x_ptr + (row[:, None] * CP + offs_c[None, :]), mask=there[:, None], other=0)
        acc += x.to(tl.float32) * tl.load(w_ptr + tap * CP + offs_c)[None, :]
    return acc


@triton.jit
def add_and_store(acc, bias_ptr, x_ptr, out_ptr, offs_c, inside, CP: tl.constexpr, BLOCK_P: tl.constexpr):
    """The end of a block: bias and skip."""
    to = tl.arange(0, BLOCK_P)[:, None] * CP + offs_c[None, :]
    x = tl.load(x_ptr + to, mask=inside[:, None], other=0)
    acc = acc + tl.load(bias_ptr + offs_c)[None, :] + x.to(tl.float32)
    tl.store(out_ptr + to, rounded(acc, out_ptr.dtype.element_ty), mask=inside[:, None])


@triton.jit
def through(mixed, expand, bias_ptrs, reduce, acc, slope):
    """acc + what some of the expanded features give: expand (n, CP) and their bias, reduce (CP, n)."""
    wide = tl.zeros((mixed.shape[0], expand.shape[0]), tl.float32) + tl.load(bias_ptrs)[None, :]
    wide = tl.dot(mixed, tl.trans(expand), wide, input_precision="ieee")
    return tl.dot(rounded(leaky(wide, slope), mixed.dtype), tl.trans(reduce), acc, input_precision="ieee")


@triton.jit(do_not_specialize=["taps", "chunks"])
def held_kernel(
    x_ptr,  # (sites, CP)
    out_ptr,  # as x, another array
    mix_ptr,
    mix_bias_ptr,
    w_ptr,  # expand, (2 CP, CP)
    bias_ptr,
    reduce_ptr,  # (CP, 2 CP)
    reduce_bias_ptr,
    tiles_ptr,
    taps,  # 9: a number that the compiler knew would unroll the loop, as in layer.gather_dot
    chunks,  # 2 CP / BLOCK_N
    slope,
    CP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    first, _, full, h, w, H, W, inside = tile_sites(tiles_ptr, tl.program_id(0), 0, True, BLOCK_P)
    x_ptr += (full + first) * CP
    out_ptr += (full + first) * CP
    offs_c = tl.arange(0, CP)
    mixed = rounded(depthwise(x_ptr, mix_ptr, mix_bias_ptr, offs_c, h, w, H, W, inside, taps, CP, BLOCK_P), dtype)
    acc = tl.zeros((BLOCK_P, CP), tl.float32)
    for n in range(0, chunks):
        offs_n = n * BLOCK_N + tl.arange(0, BLOCK_N)
        expand = tl.load(w_ptr + (offs_n[:, None] * CP + offs_c[None, :]))
        reduce = tl.load(reduce_ptr + (offs_c[:, None] * (2 * CP) + offs_n[None, :]))
        acc = through(mixed, expand, bias_ptr + offs_n, reduce, acc, slope)
    add_and_store(acc, reduce_bias_ptr, x_ptr, out_ptr, offs_c, inside, CP, BLOCK_P)


@triton.jit(do_not_specialize=["tiles", "taps"])
def resident_kernel(
    x_ptr,
    out_ptr,
    mix_ptr,
    mix_bias_ptr,
    w_ptr,
    bias_ptr,
    reduce_ptr,
    reduce_bias_ptr,
    tiles_ptr,
    tiles,
    taps,
    slope,
    CP: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """The expanded features come in two halves, of which only one at a time takes registers."""
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    offs_c = tl.arange(0, CP)
    w_ptrs = w_ptr + (offs_c[:, None] * CP + offs_c[None, :])
    expand_0 = tl.load(w_ptrs)
    expand_1 = tl.load(w_ptrs + CP * CP)
    reduce_ptrs = reduce_ptr + (offs_c[:, None] * (2 * CP) + offs_c[None, :])
    reduce_0 = tl.load(reduce_ptrs)
    reduce_1 = tl.load(reduce_ptrs + CP)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        first, _, full, h, w, H, W, inside = tile_sites(tiles_ptr, tile, 0, True, BLOCK_P)
        at = (full + first) * CP
        mixed = depthwise(x_ptr + at, mix_ptr, mix_bias_ptr, offs_c, h, w, H, W, inside, taps, CP, BLOCK_P)
        mixed = rounded(mixed, dtype)
        acc = tl.zeros((BLOCK_P, CP), tl.float32)
        acc = through(mixed, expand_0, bias_ptr + offs_c, reduce_0, acc, slope)
        acc = through(mixed, expand_1, bias_ptr + CP + offs_c, reduce_1, acc, slope)
        add_and_store(acc, reduce_bias_ptr, x_ptr + at, out_ptr + at, offs_c, inside, CP, BLOCK_P)


@triton.jit(do_not_specialize=["tiles", "taps", "rounds"])
def spread_kernel(
    x_ptr,
    out_ptr,
    mix_ptr,
    mix_bias_ptr,
    w_ptr,
    bias_ptr,
    reduce_ptr,
    reduce_bias_ptr,
    scratch_ptr,  # (programs, BLOCK_P, 3 CP)
    tiles_ptr,
    tiles,
    taps,
    rounds,  # CP / BLOCK_K
    slope,
    CP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Programs take tiles in turn, so that their scratch stays in L2."""
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    offs_p = tl.arange(0, BLOCK_P)
    always = offs_p >= 0
    mixed_ptr = scratch_ptr + tl.program_id(0).to(tl.int64) * (BLOCK_P * 3 * CP)
    wide_ptr = mixed_ptr + BLOCK_P * CP
    tile = tl.program_id(0)
    while tile < tiles:
        first, _, full, h, w, H, W, inside = tile_sites(tiles_ptr, tile, 0, True, BLOCK_P)
        at = (full + first) * CP
        for n in range(0, CP, BLOCK_N):
            offs_n = n + tl.arange(0, BLOCK_N)
            mixed = depthwise(x_ptr + at, mix_ptr, mix_bias_ptr, offs_n, h, w, H, W, inside, taps, CP, BLOCK_P)
            tl.store(mixed_ptr + (offs_p[:, None] * CP + offs_n[None, :]), rounded(mixed, dtype))
        # As in fused_kernel: threads read what others wrote, here and below, and the loop needs no third barrier.
        tl.debug_barrier()
        for n in range(0, 2 * CP, BLOCK_N):
            offs_n = n + tl.arange(0, BLOCK_N)
            wide = tl.zeros((BLOCK_P, BLOCK_N), tl.float32) + tl.load(bias_ptr + offs_n)[None, :]
            wide = gather_dot(
                wide, mixed_ptr, CP, CP, w_ptr, CP, offs_n, 0, h, w, H, W, always,
                rounds, "site", 1, CP, False, BLOCK_P, BLOCK_K,
            )  # fmt: skip
            wide = rounded(leaky(wide, slope), dtype)
            tl.store(wide_ptr + (offs_p[:, None] * (2 * CP) + offs_n[None, :]), wide)
        tl.debug_barrier()
        for n in range(0, CP, BLOCK_N):
            offs_n = n + tl.arange(0, BLOCK_N)
            acc = gather_dot(
                tl.zeros((BLOCK_P, BLOCK_N), tl.float32), wide_ptr, 2 * CP, 2 * CP, reduce_ptr, 2 * CP, offs_n, 0,
                h, w, H, W, always, 2 * rounds, "site", 1, 2 * CP, False, BLOCK_P, BLOCK_K,
            )  # fmt: skip
            add_and_store(acc, reduce_bias_ptr, x_ptr + at, out_ptr + at, offs_n, inside, CP, BLOCK_P)
        tile += tl.num_programs(0)
