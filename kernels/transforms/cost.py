"""Multiply-adds and bytes of g_a and g_s, launch by launch, as the kernels move them and as eager layers do."""

from __future__ import annotations

from dataclasses import dataclass

from ckbd.kernels.lattice import Lattice
from ckbd.kernels.transforms.weights import CELL, Analysis, Block, Synthesis


@dataclass(frozen=True)
class Part:
    """One launch. macs: multiply-adds of the model's channels. bytes: each input, weight and output once."""

    kernel: str
    macs: int
    bytes: int


def _block(b: Block, sites: int) -> Part:
    weights = sum(t.numel() * t.element_size() for t in b.tensors)
    CP, size = b.tensors[4].shape[0], b.tensors[4].element_size()
    return Part("block", sites * (9 * b.C + 4 * b.C * b.C), 2 * sites * CP * size + weights)


def synthesis_cost(g_s: Synthesis, lattice: Lattice, pixels: int, pixel_bytes: int = 1) -> list[Part]:
    """Of ckbd.kernels.transforms.synthesise, in the order of its launches. pixels: that the pictures have in all."""
    sites, fine, size = lattice.full_sites, 4 * lattice.full_sites, g_s.up.weight.element_size()
    M, MP, W, WP = g_s.M, g_s.enter.weight.shape[0], g_s.width, g_s.pixels.weight.shape[1]
    read = 2 * 2 * 2 * lattice.sites * M  # r and mean of both phases, int16
    return [
        Part("enter", sites * M * M, read + sites * MP * size + g_s.enter.weight.numel() * size),
        *(_block(b, sites) for b in g_s.blocks16),
        Part("up", sites * M * 4 * W, sites * MP * size + fine * WP * size + g_s.up.weight.numel() * size),
        *(_block(b, fine) for b in g_s.blocks8),
        Part(
            "paint",
            fine * W * 3 * CELL,
            fine * WP * size + 3 * pixels * pixel_bytes + g_s.pixels.weight.numel() * size,
        ),
    ]


def analysis_cost(g_a: Analysis, lattice: Lattice, pixels: int) -> list[Part]:
    """Of ckbd.kernels.transforms.analyse, as synthesis_cost."""
    sites, fine, size = lattice.full_sites, 4 * lattice.full_sites, g_a.out.weight.element_size()
    M, MP, W, WP = g_a.M, g_a.down.weight.shape[0], g_a.width, g_a.patch.weight.shape[0]
    return [
        Part("patch", fine * 3 * CELL * W, 3 * pixels + fine * WP * size + g_a.patch.weight.numel() * size),
        *(_block(b, fine) for b in g_a.blocks8),
        Part("down", fine * W * M, fine * WP * size + sites * MP * size + g_a.down.weight.numel() * size),
        *(_block(b, sites) for b in g_a.blocks16),
        Part("out", sites * M * M, sites * MP * size + 4 * sites * M + g_a.out.weight.numel() * size),
    ]


def eager_bytes(g_s: Synthesis, lattice: Lattice, pixels: int, size: int = 2) -> int:
    """What g_s moves as layers of PyTorch in a dtype of `size` bytes, each reading its input and writing its output:
    y_hat float32 to features, layers and activations each by itself, and the pixels' clamp, product and rounding.
    """
    sites, fine, M, W = lattice.full_sites, 4 * lattice.full_sites, g_s.M, g_s.width

    def block(C: int) -> int:
        # depthwise 1 + 1, expand 1 + 2, leaky ReLU in place 2 + 2, reduce 2 + 1, skip 2 + 1: in units of x
        return 15 * C

    features = sites * (2 * M + len(g_s.blocks16) * block(M) + M + 4 * W)
    features += sites * 8 * W + fine * (len(g_s.blocks8) * block(W) + W + 3 * CELL)  # shuffle, blocks, last layer
    entry = sites * M * (4 + 4 + 4 + size)  # y_hat / 16, times gain, rounded
    x_hat = fine * 3 * CELL * (2 * size + 2 * size)  # shuffle to pixels, + 1/2
    shown = 3 * pixels * (size + 4 + 2 * 4 + 2 * 4 + 2 * 4 + 4 + 1 + 2)  # float, clamp, product, round, uint8, crop
    return features * size + entry + x_hat + shown
