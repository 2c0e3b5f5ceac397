"""Launchers of the Triton kernels; `twin` has the same functions in torch and says what they compute."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ckbd.kernels.configs import LEAST_K, Config, divisor
from ckbd.kernels.fused import fused_kernel
from ckbd.kernels.lattice import MAX_SIDE, Lattice, tile_table
from ckbd.kernels.layer import layer_kernel
from ckbd.kernels.pointwise import assemble, merge, quantise, split

__all__ = ["assemble", "convolve", "merge", "phase", "project", "quantise", "split"]


def _programs(device: torch.device, tiles: int) -> int:
    """Programs of a persistent launch: two a multiprocessor; in the interpreter so few that they take turns too."""
    if device.type != "cuda":
        return min(tiles, 2)
    return min(tiles, 2 * torch.cuda.get_device_properties(device).multi_processor_count)


def _options(config: Config) -> dict[str, int | bool]:
    """Compiler options of a launch. Fusion is said because Triton's default changes, and float mode's sums must not;
    the register limit, because ptxas by itself spills a few registers where it could take a few more
    (bench/KERNELS.md).
    """
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True}
    return options if torch.version.hip else options | {"maxnreg": 255}


def _fitted(config: Config, C: int, dtype: torch.dtype) -> Config:
    """The config for rows of C channels. Where C is no multiple of 16 they are loaded by the element, each with a
    mask of its own: then as few as a product takes, and in float32 none ahead of time, or the kernel spills.
    """
    if C % 16 == 0:
        return config
    return replace(config, block_k=LEAST_K[dtype], stages=1 if dtype == torch.float32 else config.stages)


def _layer(
    x: Tensor,
    layer: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
    k: Tensor | None,
    *,
    tiles: Tensor,
    config: Config,
    gather: str,
    epilogue: str,
    N: int,
    kernel: int = 1,
    init: Tensor | None = None,
    thresholds: Tensor | None = None,
    M: int = 0,
    odd: int = 0,
    phase_sites: int = 0,
    slope: float = 0.0,
    context: bool = True,
) -> None:
    """One launch of layer_kernel. N: output channels that are stored, of "output" those of the padded pair."""
    weight, bias, shift = layer
    count = kernel * kernel // 2 if gather == "context" else kernel * kernel
    CP = weight.shape[1] // count
    config = _fitted(config, x.shape[1], weight.dtype)
    block_k = divisor(config.block_k, CP)
    block_n = divisor(config.block_n, weight.shape[0] // 2 if epilogue == "output" else weight.shape[0])
    layer_kernel[(weight.shape[0] // block_n, tiles.shape[0])](
        x,
        weight,
        bias,
        shift,
        init if init is not None else out,
        out,
        k if k is not None else out,
        thresholds if thresholds is not None else bias,
        tiles,
        x.stride(0),
        weight.stride(0),
        init.stride(0) if init is not None else 0,
        out.stride(-2),
        k.stride(0) if k is not None else 0,
        x.shape[1],
        N,
        odd,
        phase_sites,
        weight.shape[1] // block_k if context else 0,
        slope,
        GATHER=gather,
        EPILOGUE=epilogue,
        KERNEL=kernel,
        CP=CP if context else 0,
        MASK_C=x.shape[1] != CP,
        M=M,
        MP=weight.shape[0] // 2 if epilogue == "output" else 0,
        THRESHOLDS=thresholds.numel() if thresholds is not None else 0,
        HAS_INIT=init is not None,
        EXACT=weight.dtype == torch.int8,
        BLOCK_P=config.block_p,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        **_options(config),
    )


def project(x: Tensor, weight: Tensor, config: Config) -> Tensor:
    exact = weight.dtype == torch.int8
    out = x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.int32 if exact else torch.float32)
    whole, rest = divmod(x.shape[0], MAX_SIDE)
    strips = Lattice(((1, MAX_SIDE),) * whole + (((1, rest),) if rest else ()))
    tiles = tile_table(strips, config.block_p, True, x.device)
    layer, N = (weight, weight, weight), weight.shape[0]
    _layer(x, layer, out, None, tiles=tiles, config=config, gather="full", epilogue="raw", N=N)
    return out


def convolve(
    x: Tensor, layer: list[Tensor], N: int, lattice: Lattice, split: bool, factor: int, config: Config
) -> Tensor:
    weight, bias, shift = layer
    big = lattice.scaled(factor)
    blank = any(w % 2 for _, w in big.sizes)  # whose sites nobody writes
    empty = x.new_zeros if blank else x.new_empty
    out = empty((2, big.sites, N)) if split or factor == 1 else x.new_empty((big.full_sites, N))
    tiles = tile_table(lattice, config.block_p, True, x.device)
    _layer(
        x,
        (weight, bias, shift),
        out,
        None,
        tiles=tiles,
        config=config,
        gather="full",
        epilogue="halves" if factor == 1 else "split" if split else "shuffle",
        N=factor**2 * N,
        kernel=3,
        odd=lattice.parity,
        phase_sites=big.sites,
    )
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
    config: Config,
) -> None:
    w1, b1, s1, w2, b2, s2, w3, b3, s3 = network
    p = 0 if context is None else 1
    tiles = tile_table(lattice, config.block_p, False, psi_acc.device)
    odd = (p + lattice.parity) & 1
    H1P, H2P, MP = w1.shape[0], w2.shape[0], w3.shape[0] // 2
    CP = w1.shape[1] // (kernel * kernel // 2)
    x = context if context is not None else psi_acc
    if config.form == "layers":
        h1 = psi_acc.new_empty((psi_acc.shape[0], H1P), dtype=w1.dtype)
        h2 = psi_acc.new_empty((psi_acc.shape[0], H2P), dtype=w1.dtype)
        layer = partial(_layer, tiles=tiles, config=config, odd=odd, slope=slope)
        first = (w1, b1[p], s1)
        known = context is not None
        layer(
            x, first, h1, None, gather="context", epilogue="hidden", N=H1P, kernel=kernel, init=psi_acc, context=known
        )
        layer(h1, (w2, b2, s2), h2, None, gather="site", epilogue="hidden", N=H2P)
        last = (w3, b3, s3)
        layer(h2, last, mean, k, gather="site", epilogue="output", N=2 * MP, thresholds=thresholds, M=M)
        return
    fitted = _fitted(config, M, w1.dtype)
    block_k, block_h = divisor(fitted.block_k, CP), divisor(config.block_k, H1P, H2P)
    programs = _programs(psi_acc.device, tiles.shape[0])
    scratch = psi_acc.new_empty((programs, config.block_p * (H1P + H2P)), dtype=w1.dtype)
    fused_kernel[(programs,)](
        psi_acc,
        x,
        w1,
        b1[p],
        s1,
        w2,
        b2,
        s2,
        w3,
        b3,
        s3,
        thresholds if thresholds is not None else b3,
        mean,
        k,
        scratch,
        tiles,
        tiles.shape[0],
        psi_acc.stride(0),
        x.stride(0),
        mean.stride(0),
        k.stride(0),
        M,
        odd,
        w1.shape[1] // block_k,
        H1P // block_h,
        H2P // block_h,
        slope,
        HAS_CONTEXT=context is not None,
        KERNEL=kernel,
        CP=CP,
        MASK_C=M != CP,
        H1P=H1P,
        H2P=H2P,
        M=M,
        MP=MP,
        THRESHOLDS=thresholds.numel() if thresholds is not None else 0,
        EXACT=w1.dtype == torch.int8,
        BLOCK_P=config.block_p,
        BLOCK_N=divisor(config.block_n, H1P, H2P, MP),
        BLOCK_K=block_k,
        BLOCK_H=block_h,
        **_options(fitted),
    )
