"""One layer over the lattice in Triton: what a phase and h_s are made of.

Every layer is one product: out[site, n] = act(init[site, n] + sum over taps t and channels c of
x[neighbour(site, t), c] w[n, t C + c] + bias[n]), with x gathered where it lies: the neighbours of the full lattice
(h_s), the live taps of the masked context convolution (anchors around a non-anchor, docs/numerics.md), or the site
itself (1x1 layers). Two shapes of kernel share the code:

- `layer_kernel`, a launch for each layer, a program for each tile of sites and block of output channels;
- `fused_kernel`, all three layers of g_ep in one launch: a program takes a tile of sites through them, with the
  hidden activations in a scratch of its own that stays in L2. Held in registers instead, they spill.

Bytes and operations of a phase are counted by `ckbd.kernels.cost`. Integer mode: int8 x int8 -> int32, each bit as
`reference` has it. Float mode: one accumulator, psi first, then taps and channels in order, whatever the tile, so
that neither the batch nor the tile nor the form of kernel changes a result on a device.
"""

from __future__ import annotations

import triton
import triton.language as tl

MEAN_MAX: tl.constexpr = tl.constexpr(16383)  # ckbd.kernels.numerics has these; a test compares them
K_MAX: tl.constexpr = tl.constexpr(63)
ACT_MAX: tl.constexpr = tl.constexpr(127)
TILE_FIELDS: tl.constexpr = tl.constexpr(6)  # of a row of lattice.tile_table


@triton.jit
def tile_sites(tiles_ptr, tile, odd, FULL: tl.constexpr, BLOCK_P: tl.constexpr):
    """The sites of a tile: (first, packed, full, h, w, H, W, inside).

    odd: (phase + parity) & 1. first: the tile's first site within its image; packed, full: the image's first row in
    packed and in full arrays, int64; h, w, inside: (BLOCK_P,). Addresses are an int64 for the tile and int32 offsets
    from there: an int64 for each element would take the registers that the accumulator needs. MAX_SIDE and
    MAX_STRIDE of `lattice`, which ckbd.kernels checks, keep them below 2^31.
    """
    row = tiles_ptr + tile * TILE_FIELDS
    packed = tl.load(row).to(tl.int64)
    first = tl.load(row + 1)
    H = tl.load(row + 2)
    W = tl.load(row + 3)
    full = tl.load(row + 4).to(tl.int64)
    site = first + tl.arange(0, BLOCK_P)
    if FULL:
        columns = W
        h = site // columns
        w = site - h * columns
    else:
        columns = (W + 1) // 2
        h = site // columns
        w = 2 * (site - h * columns) + ((h + odd) & 1)
    return first, packed, full, h, w, H, W, site < H * columns


@triton.jit
def gather_dot(
    acc,
    x_ptr,  # at the tile's first site
    stride_x,
    C,
    w_ptr,
    stride_w,
    offs_n,
    first,
    h,
    w,
    H,
    W,
    inside,
    rounds,
    GATHER: tl.constexpr,
    KERNEL: tl.constexpr,
    CP: tl.constexpr,
    MASK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """acc (BLOCK_P, BLOCK_N) + the gathered sites of x times w^T.

    x: rows of C channels, row stride stride_x. w: (N, taps CP), CP >= C being C padded with zero weights to a
    multiple of BLOCK_K; MASK_C: C < CP, so the loads of x need a mask. GATHER: "site", "full" or "context". rounds:
    taps times CP / BLOCK_K, which the compiler must not know: it would unroll the loop, run out of registers and
    spill.
    """
    CHUNKS: tl.constexpr = CP // BLOCK_K
    offs_k = tl.arange(0, BLOCK_K)
    w_ptrs = w_ptr + offs_n[:, None] * stride_w + offs_k[None, :]
    for i in range(0, rounds):
        c = (i % CHUNKS) * BLOCK_K
        if GATHER == "site":
            row = tl.arange(0, BLOCK_P)
            there = inside
        else:
            # Live taps of the checkerboard mask are the odd ones of the window in raster order.
            tap = 2 * (i // CHUNKS) + 1 if GATHER == "context" else i // CHUNKS
            hn = h + tap // KERNEL - KERNEL // 2
            wn = w + tap % KERNEL - KERNEL // 2
            there = inside & (hn >= 0) & (hn < H) & (wn >= 0) & (wn < W)
            # Packed columns 2j and 2j + 1 are one site j, whichever of the two the row's anchors are on.
            row = (hn * ((W + 1) // 2) + (wn >> 1) if GATHER == "context" else hn * W + wn) - first
        mask = there[:, None]
        if MASK_C:
            mask = mask & (c + offs_k < C)[None, :]
        x = tl.load(x_ptr + (row[:, None] * stride_x + (c + offs_k)[None, :]), mask=mask, other=0)
        weight = tl.load(w_ptrs + i * BLOCK_K)
        acc = tl.dot(x, tl.trans(weight), acc, input_precision="ieee", out_dtype=acc.dtype)
    return acc


@triton.jit
def requantise(acc, bias_ptr, shift_ptr, offs_n, low, high):
    """clamp((acc + bias + half) >> shift, low, high), channels last; half = 2^(shift - 1), or 0."""
    shift = tl.load(shift_ptr + offs_n)
    rounding = tl.load(bias_ptr + offs_n) + ((1 << shift) >> 1)
    return tl.minimum(tl.maximum((acc + rounding[None, :]) >> shift[None, :], low), high)


@triton.jit
def activate(acc, bias_ptr, shift_ptr, offs_n, slope, EXACT: tl.constexpr):
    """The hidden activation: requantised ReLU in [0, 127], or in float mode LeakyReLU; still acc's dtype."""
    if EXACT:
        return requantise(acc, bias_ptr, shift_ptr, offs_n, 0, ACT_MAX)
    else:
        x = acc + tl.load(bias_ptr + offs_n)[None, :]
        return tl.where(x >= 0, x, x * slope)


@triton.jit
def store_output(
    acc,
    bias_ptr,
    shift_ptr,
    thresholds_ptr,
    mean_ptr,  # at the tile's first site, as k_ptr
    stride_mean,
    k_ptr,
    stride_k,
    n,
    inside,
    blank,
    M: tl.constexpr,
    MP: tl.constexpr,
    THRESHOLDS: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The last layer's end: channels [0, MP) are means and [MP, 2 MP) table indices; a block is all one or the other.

    Float mode: THRESHOLDS > 0: k is how many thresholds sigma exceeds; 0: sigma itself goes to k_ptr.
    """
    offs_n = n + tl.arange(0, BLOCK_N)
    is_mean = n < MP
    channel = offs_n - (0 if is_mean else MP)
    row = tl.arange(0, BLOCK_P)
    mask = inside[:, None] & (channel < M)[None, :]
    if is_mean:
        if EXACT:
            out = requantise(acc, bias_ptr, shift_ptr, offs_n, -MEAN_MAX, MEAN_MAX)
        else:
            out = acc + tl.load(bias_ptr + offs_n)[None, :]
        out = tl.where(blank[:, None], 0, out)
        to = row[:, None] * stride_mean + channel[None, :]
        tl.store(mean_ptr + to, out.to(mean_ptr.dtype.element_ty), mask=mask)
    else:
        if EXACT:
            k = requantise(acc, bias_ptr, shift_ptr, offs_n, 0, K_MAX)
        else:
            k = acc + tl.load(bias_ptr + offs_n)[None, :]
            if THRESHOLDS > 0:
                sigma = k
                k = tl.zeros_like(acc).to(tl.int32)
                for i in range(0, THRESHOLDS):
                    k += (sigma > tl.load(thresholds_ptr + i)).to(tl.int32)
        k = tl.where(blank[:, None], 0, k)
        to = row[:, None] * stride_k + channel[None, :]
        tl.store(k_ptr + to, k.to(k_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["odd", "phase_sites", "rounds"])
def layer_kernel(
    x_ptr,  # input rows, int8 or float
    w_ptr,  # (N padded to BLOCK_N, TAPS CP)
    bias_ptr,  # (N padded,) int32 or float32
    shift_ptr,  # (N padded,) int32, exact mode
    init_ptr,  # (sites, stride_init) accumulators to start from, int32 or float32, with HAS_INIT
    out_ptr,  # hidden or raw output, or means
    k_ptr,  # OUTPUT only
    thresholds_ptr,
    tiles_ptr,
    stride_x,
    stride_w,
    stride_init,
    stride_out,
    stride_k,
    C,
    N,  # output channels; of OUTPUT those of the padded pair
    odd,
    phase_sites,  # "split", "halves": rows of a packed array of the output lattice
    rounds,  # taps CP / BLOCK_K; 0: there is only init
    slope,
    GATHER: tl.constexpr,
    EPILOGUE: tl.constexpr,  # "raw", "hidden", "output", "shuffle", "split", "halves"
    KERNEL: tl.constexpr,
    CP: tl.constexpr,
    MASK_C: tl.constexpr,
    M: tl.constexpr,
    MP: tl.constexpr,
    THRESHOLDS: tl.constexpr,
    HAS_INIT: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One layer over one tile of sites and one block of output channels.

    Epilogues: "raw" stores the accumulator; "hidden" the activation; "output" (mean, k); "shuffle" and "split" the
    activation of a sub-pixel convolution whose channels come as (a, b, c), onto the full lattice of twice the size
    or onto its two packed halves, anchors first; "halves" the activation onto those of the lattice itself.
    """
    n = tl.program_id(0) * BLOCK_N
    FULL: tl.constexpr = GATHER == "full"
    first, packed, full, h, w, H, W, inside = tile_sites(tiles_ptr, tl.program_id(1), odd, FULL, BLOCK_P)
    base = (full if FULL else packed) + first
    offs_p = tl.arange(0, BLOCK_P)
    offs_n = n + tl.arange(0, BLOCK_N)
    if HAS_INIT:
        init_ptrs = init_ptr + base * stride_init + (offs_p[:, None] * stride_init + offs_n[None, :])
        acc = tl.load(init_ptrs, mask=inside[:, None], other=0)
    else:
        acc = tl.zeros((BLOCK_P, BLOCK_N), tl.int32 if EXACT else tl.float32)
    if CP > 0:
        acc = gather_dot(
            acc, x_ptr + base * stride_x, stride_x, C, w_ptr, stride_w, offs_n, first, h, w, H, W, inside,
            rounds, GATHER, KERNEL, CP, MASK_C, BLOCK_P, BLOCK_K,
        )  # fmt: skip
    if EPILOGUE == "output":
        store_output(
            acc, bias_ptr, shift_ptr, thresholds_ptr, out_ptr + base * stride_out, stride_out,
            k_ptr + base * stride_k, stride_k, n, inside, w >= W, M, MP, THRESHOLDS, EXACT, BLOCK_P, BLOCK_N,
        )  # fmt: skip
    else:
        if EPILOGUE != "raw":
            acc = activate(acc, bias_ptr, shift_ptr, offs_n, slope, EXACT)
        if EPILOGUE == "shuffle" or EPILOGUE == "split":
            channels = N // 4
            corner = offs_n // channels
            a = corner // 2
            b = corner % 2
            channel = offs_n - corner * channels
            h0 = first // W
            if EPILOGUE == "shuffle":
                out_ptr += (4 * full + h0.to(tl.int64) * (4 * W)) * stride_out
                row = (h - h0) * (4 * W) + 2 * w
                to = (a * 2 * W + b) * stride_out + channel
            else:  # site (2h + a, 2w + b) of phase (a + b + parity) & 1 is packed column w of a row of W
                out_ptr += (2 * full + h0.to(tl.int64) * (2 * W)) * stride_out
                row = (h - h0) * (2 * W) + w
                half = ((a + b + odd) & 1).to(tl.int64) * phase_sites
                to = (a * W + half) * stride_out + channel
            out_ptrs = out_ptr + (row * stride_out)[:, None] + to[None, :]
        elif EPILOGUE == "halves":  # site (h, w) of phase (h + w + parity) & 1 is packed column w >> 1
            columns = (W + 1) // 2
            h0 = first // W
            out_ptr += (packed + h0.to(tl.int64) * columns) * stride_out
            row = (h - h0) * columns + (w >> 1)
            half = ((h + w + odd) & 1).to(tl.int64) * phase_sites
            out_ptrs = out_ptr + ((row + half) * stride_out)[:, None] + offs_n[None, :]
        else:
            out_ptrs = out_ptr + base * stride_out + (offs_p[:, None] * stride_out + offs_n[None, :])
        mask = inside[:, None] & (offs_n < N)[None, :]
        tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=mask)
