"""The layers between the blocks, and the two ends of g_a and g_s: latents to features, features to pixels, and back.

Pixels lie where the caller wants them: each picture is a tensor of its own, whose address and size are a row of a
table (`pictures.FIELDS`). Sums are float32, from zero, channels in order, whatever the tile; then the bias. Programs
come in one row, blocks of a tile beside each other: CUDA takes 65535 of a second dimension.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ckbd.kernels.layer import TILE_FIELDS, tile_sites
from ckbd.kernels.transforms.residual import rounded

FIELDS: tl.constexpr = tl.constexpr(5)  # of a row of a table of pictures: address, height, width, gray, quality


@triton.jit
def picture_of(tiles_ptr, tile, pictures_ptr):
    """A tile's row in the table of pictures."""
    return pictures_ptr + tl.load(tiles_ptr + tile * TILE_FIELDS + 5).to(tl.int64) * FIELDS


@triton.jit(do_not_specialize=["half", "odd", "blocks", "rounds"])
def features_kernel(
    x_ptr,  # (sites, CP) features; HALVES: r of both phases, int16 (2, half, C)
    mean_ptr,  # HALVES: as r
    gain_ptr,  # HALVES: (qualities, C) float32
    pictures_ptr,  # HALVES, PATCHES
    w_ptr,  # (N padded, taps CP)
    bias_ptr,
    out_ptr,
    tiles_ptr,
    half,
    odd,  # HALVES: the lattice's parity
    blocks,  # of output channels
    rounds,  # taps CP / BLOCK_K
    scale,  # PATCHES: of the sums
    stride_out,
    N,  # channels that are stored; SHUFFLE: of a corner, padded
    GATHER: tl.constexpr,  # "site", "halves", "patches", "down"
    SHUFFLE: tl.constexpr,
    C: tl.constexpr,
    CP: tl.constexpr,
    HWC: tl.constexpr,  # PATCHES: how the pictures lie
    STEP: tl.constexpr,  # HALVES: 16
    CELL: tl.constexpr,  # PATCHES: 64, pixels of a site
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A pointwise layer, over one tile of sites and one block of output channels.

    GATHER: "site", the features there; "halves", y_hat / 16 times its picture's gain, y_hat = 16 r + mean; "patches",
    8x8 pixels of uint8 as 2 x - 255, beyond the picture's edge its last row and column; "down", the four sites of the
    lattice of twice the size, whose taps follow one another. SHUFFLE: onto that lattice; channels come as (a, b, n).
    """
    dtype: tl.constexpr = w_ptr.dtype.element_ty
    CHUNKS: tl.constexpr = CP // BLOCK_K
    tile = tl.program_id(0) // blocks
    n = (tl.program_id(0) % blocks) * BLOCK_N
    first, packed, full, h, w, H, W, inside = tile_sites(tiles_ptr, tile, 0, True, BLOCK_P)
    h0 = first // W
    offs_p = tl.arange(0, BLOCK_P)
    offs_n = n + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    if GATHER == "site":
        x_ptr += (full + first) * CP
        row = offs_p
    elif GATHER == "down":
        x_ptr += (4 * full + h0.to(tl.int64) * (4 * W)) * CP
        row = (h - h0) * (4 * W) + 2 * w
    elif GATHER == "halves":
        start = (packed + h0.to(tl.int64) * ((W + 1) // 2)) * C
        phase = ((h + w + odd) & 1).to(tl.int64) * half * C
        row = start + phase + ((h - h0) * ((W + 1) // 2) + (w >> 1)) * C
        picture = picture_of(tiles_ptr, tile, pictures_ptr)
        gain_ptr += tl.load(picture + 4) * C
    else:
        picture = picture_of(tiles_ptr, tile, pictures_ptr)
        height = tl.load(picture + 1).to(tl.int32)
        width = tl.load(picture + 2).to(tl.int32)
        pixels_ptr = tl.load(picture).to(tl.pointer_type(tl.uint8))
        row0 = tl.minimum(8 * h0, height - 1)  # the first that the tile reads
        pixels_ptr += row0.to(tl.int64) * width * (3 if HWC else 1)
        size = height.to(tl.int64) * width
    acc = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    w_ptrs = w_ptr + (offs_n[:, None] * (rounds * BLOCK_K) + offs_k[None, :])
    for i in range(0, rounds):
        if GATHER == "site":
            x = tl.load(x_ptr + (row[:, None] * CP + (i * BLOCK_K + offs_k)[None, :]), mask=inside[:, None], other=0)
        elif GATHER == "down":
            tap = i // CHUNKS
            c = (i % CHUNKS) * BLOCK_K + offs_k
            site = row + (tap // 2) * (2 * W) + tap % 2
            x = tl.load(x_ptr + (site[:, None] * CP + c[None, :]), mask=inside[:, None], other=0)
        elif GATHER == "halves":
            c = i * BLOCK_K + offs_k
            mask = inside[:, None] & (c < C)[None, :]
            r = tl.load(x_ptr + (row[:, None] + c[None, :]), mask=mask, other=0).to(tl.int32)
            mean = tl.load(mean_ptr + (row[:, None] + c[None, :]), mask=mask, other=0).to(tl.int32)
            gain = tl.load(gain_ptr + c, mask=c < C, other=0)
            x = rounded((STEP * r + mean).to(tl.float32) * (1.0 / STEP) * gain[None, :], dtype)
        else:
            k = i * BLOCK_K + offs_k
            down = tl.minimum(8 * h[:, None] + (k // 8 % 8)[None, :], height - 1) - row0
            across = tl.minimum(8 * w[:, None] + (k % 8)[None, :], width - 1)
            plane = i * BLOCK_K // CELL
            at = (down * width + across) * 3 if HWC else down * width + across
            start = pixels_ptr + (plane if HWC else plane * size)
            x = tl.load(start + at, mask=inside[:, None], other=0).to(tl.float32)
            x = (2 * x - 255).to(dtype)
        acc = tl.dot(x, tl.trans(tl.load(w_ptrs + i * BLOCK_K)), acc, input_precision="ieee")
    if GATHER == "patches":
        acc = acc * scale
    acc = rounded(acc + tl.load(bias_ptr + offs_n)[None, :], out_ptr.dtype.element_ty)
    if SHUFFLE:
        corner = n // N
        site = (h - h0) * (4 * W) + 2 * w + (corner // 2) * (2 * W) + corner % 2
        out_ptr += (4 * full + h0.to(tl.int64) * (4 * W)) * stride_out
        tl.store(out_ptr + (site[:, None] * stride_out + (offs_n - corner * N)[None, :]), acc, mask=inside[:, None])
    else:
        out_ptr += (full + first) * stride_out
        mask = inside[:, None] & (offs_n < N)[None, :]
        tl.store(out_ptr + (offs_p[:, None] * stride_out + offs_n[None, :]), acc, mask=mask)


@triton.jit
def store_pixels(x, pixels_ptr, at, mask):
    """Values in [0, 1] as the 8-bit pixels that they are nearest to, or those over 255."""
    dtype: tl.constexpr = pixels_ptr.dtype.element_ty
    x = tl.floor(255 * x + 0.5)
    if dtype != tl.uint8:
        x = tl.div_rn(x, 255.0)
    tl.store(pixels_ptr + at, x.to(dtype), mask=mask)


@triton.jit
def unit(acc, bias):
    return tl.minimum(tl.maximum(acc + bias[None, :], 0.0), 1.0)


@triton.jit(do_not_specialize=["rounds"])
def paint_kernel(
    x_ptr,  # (sites, CP)
    w_ptr,  # (3 CELL, CP): planes, then rows and columns of 8x8 pixels
    bias_ptr,
    pictures_ptr,
    tiles_ptr,
    rounds,  # CP / BLOCK_K
    DTYPE: tl.constexpr,  # of the pixels
    HWC: tl.constexpr,
    CELL: tl.constexpr,
    CP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The last layer of g_s, BLOCK_N of each site's 64 pixels: 8x8 pixels of three planes into their picture, as far
    as it goes; of a gray one the planes' mean.
    """
    tile = tl.program_id(0) // (CELL // BLOCK_N)
    n = (tl.program_id(0) % (CELL // BLOCK_N)) * BLOCK_N
    first, _, full, h, w, H, W, inside = tile_sites(tiles_ptr, tile, 0, True, BLOCK_P)
    x_ptr += (full + first) * CP
    offs_p = tl.arange(0, BLOCK_P)
    offs_n = n + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    red = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    green = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    blue = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    w_ptrs = w_ptr + (offs_n[:, None] * CP + offs_k[None, :])
    for i in range(0, rounds):
        k = i * BLOCK_K
        x = tl.load(x_ptr + (offs_p[:, None] * CP + (k + offs_k)[None, :]), mask=inside[:, None], other=0)
        red = tl.dot(x, tl.trans(tl.load(w_ptrs + k)), red, input_precision="ieee")
        green = tl.dot(x, tl.trans(tl.load(w_ptrs + (CELL * CP + k))), green, input_precision="ieee")
        blue = tl.dot(x, tl.trans(tl.load(w_ptrs + (2 * CELL * CP + k))), blue, input_precision="ieee")
    red = unit(red, tl.load(bias_ptr + offs_n))
    green = unit(green, tl.load(bias_ptr + CELL + offs_n))
    blue = unit(blue, tl.load(bias_ptr + 2 * CELL + offs_n))
    picture = picture_of(tiles_ptr, tile, pictures_ptr)
    if tl.load(picture + 3) != 0:
        red = (red + green + blue) * (1.0 / 3.0)
        green = red
        blue = red
    # Addresses are an int64 for the tile's first row and int32 offsets from there, as in layer.tile_sites.
    height = tl.load(picture + 1).to(tl.int32)
    width = tl.load(picture + 2).to(tl.int32)
    h0 = first // W
    pixels_ptr = tl.load(picture).to(tl.pointer_type(DTYPE)) + 8 * h0.to(tl.int64) * width * (3 if HWC else 1)
    plane = 1 if HWC else height.to(tl.int64) * width
    down = 8 * (h - h0)[:, None] + (offs_n // 8)[None, :]
    across = 8 * w[:, None] + (offs_n % 8)[None, :]
    mask = inside[:, None] & (down < height - 8 * h0)
    at = down * width + across
    SIZE: tl.constexpr = DTYPE.primitive_bitwidth // 8
    if (not HWC) and (width % 8 == 0) & (tl.load(picture) % (8 * SIZE) == 0):
        # Eight pixels of a row lie together, at an address that takes them in one store.
        mask = mask & (8 * w[:, None] < width)
        at = tl.max_contiguous(tl.multiple_of(at, (1, 8)), (1, 8))
        store_pixels(red, tl.multiple_of(pixels_ptr, 8 * SIZE), at, mask)
        store_pixels(green, tl.multiple_of(pixels_ptr + plane, 8 * SIZE), at, mask)
        store_pixels(blue, tl.multiple_of(pixels_ptr + 2 * plane, 8 * SIZE), at, mask)
    else:
        mask = mask & (across < width)
        at = at * (3 if HWC else 1)
        store_pixels(red, pixels_ptr, at, mask)
        store_pixels(green, pixels_ptr + plane, at, mask)
        store_pixels(blue, pixels_ptr + 2 * plane, at, mask)
