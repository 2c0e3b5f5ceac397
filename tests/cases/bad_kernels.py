"""Kernels that must not pass the gates of bench/aot.py, each for a reason of its own."""

import triton
import triton.language as tl


@triton.jit
def spilling_kernel(x_ptr, w_ptr, out_ptr):
    """Two accumulators of 128 x 256 in four warps: 512 registers a thread, where 255 are to be had."""
    offs_p = tl.arange(0, 128)
    offs_n = tl.arange(0, 256)
    x = tl.load(x_ptr + offs_p[:, None] * 64 + tl.arange(0, 64)[None, :])
    a = tl.dot(x, tl.trans(tl.load(w_ptr + offs_n[:, None] * 64 + tl.arange(0, 64)[None, :])), out_dtype=tl.int32)
    y = tl.load(x_ptr + 8192 + offs_p[:, None] * 64 + tl.arange(0, 64)[None, :])
    b = tl.dot(
        y, tl.trans(tl.load(w_ptr + 16384 + offs_n[:, None] * 64 + tl.arange(0, 64)[None, :])), out_dtype=tl.int32
    )
    tl.store(out_ptr + offs_p[:, None] * 256 + offs_n[None, :], (a * b) ^ (a >> 3) ^ (b << 2))


@triton.jit
def scalar_kernel(x_ptr, w_ptr, out_ptr):
    """A product without tl.dot: right, and no tensor core."""
    offs = tl.arange(0, 32)
    acc = tl.zeros((32, 32), tl.int32)
    for i in range(0, 32):
        x = tl.load(x_ptr + offs * 32 + i).to(tl.int32)
        w = tl.load(w_ptr + offs * 32 + i).to(tl.int32)
        acc += x[:, None] * w[None, :]
    tl.store(out_ptr + offs[:, None] * 32 + offs[None, :], acc)


@triton.jit
def greedy_kernel(x_ptr, w_ptr, out_ptr, rounds):
    """Tiles of 256 x 128 bytes in eight stages: more shared memory than there is."""
    offs_p = tl.arange(0, 128)
    offs_k = tl.arange(0, 256)
    acc = tl.zeros((128, 128), tl.int32)
    for i in range(0, rounds):
        x = tl.load(x_ptr + offs_p[:, None] * 4096 + i * 256 + offs_k[None, :])
        w = tl.load(w_ptr + offs_p[:, None] * 4096 + i * 256 + offs_k[None, :])
        acc = tl.dot(x, tl.trans(w), acc, out_dtype=tl.int32)
    tl.store(out_ptr + offs_p[:, None] * 128 + offs_p[None, :], acc)
