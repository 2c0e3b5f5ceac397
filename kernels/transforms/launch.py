"""Launchers of the kernels of g_a and g_s; `twin` has the same functions in torch and says what they compute."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from ckbd.kernels.configs import Config, divisor
from ckbd.kernels.lattice import Lattice, tile_table
from ckbd.kernels.launch import _options, _programs
from ckbd.kernels.numerics import MEAN_STEP
from ckbd.kernels.transforms.ends import features_kernel, paint_kernel
from ckbd.kernels.transforms.pictures import DTYPES
from ckbd.kernels.transforms.residual import held_kernel, resident_kernel, spread_kernel
from ckbd.kernels.transforms.twin import SLOPE
from ckbd.kernels.transforms.weights import CELL

TAPS = 9
TYPES = dict(zip(DTYPES, (tl.uint8, tl.float16, tl.float32), strict=True))


def _rows(of: Tensor, rows: int, channels: int, dtype: torch.dtype | None = None) -> Tensor:
    """What a kernel is to write, every row of it."""
    return of.new_empty((rows, channels), dtype=dtype)


def _resident(device: torch.device, tiles: int, CP: int) -> int:
    """Programs of resident_kernel: as many as have room for their weights at a time."""
    return max(1, _programs(device, tiles) // (2 if CP > 64 and device.type == "cuda" else 1))


def block(x: Tensor, tensors: list[Tensor], lattice: Lattice, config: Config) -> Tensor:
    out, CP = _rows(x, *x.shape), x.shape[1]
    tiles = tile_table(lattice, config.block_p, True, x.device)
    if config.form == "held":
        block_n = divisor(config.block_n, 2 * CP)
        held_kernel[(tiles.shape[0],)](
            x,
            out,
            *tensors,
            tiles,
            TAPS,
            2 * CP // block_n,
            SLOPE,
            CP=CP,
            BLOCK_P=config.block_p,
            BLOCK_N=block_n,
            **_options(config),
        )
        return out
    if config.form == "resident":
        resident_kernel[(_resident(x.device, tiles.shape[0], CP),)](
            x,
            out,
            *tensors,
            tiles,
            tiles.shape[0],
            TAPS,
            SLOPE,
            CP=CP,
            BLOCK_P=config.block_p,
            **_options(config),
        )
        return out
    programs = _programs(x.device, tiles.shape[0])
    scratch = _rows(x, programs, config.block_p * 3 * CP)
    block_k = divisor(config.block_k, CP)
    spread_kernel[(programs,)](
        x,
        out,
        *tensors,
        scratch,
        tiles,
        tiles.shape[0],
        TAPS,
        CP // block_k,
        SLOPE,
        CP=CP,
        BLOCK_P=config.block_p,
        BLOCK_N=divisor(config.block_n, CP),
        BLOCK_K=block_k,
        **_options(config),
    )
    return out


def _features(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    lattice: Lattice,
    config: Config,
    *,
    gather: str,
    N: int,
    C: int,
    CP: int,
    mean: Tensor | None = None,
    gains: Tensor | None = None,
    pictures: Tensor | None = None,
    shuffle: bool = False,
    hwc: bool = False,
    scale: float = 1.0,
) -> Tensor:
    tiles = tile_table(lattice, config.block_p, True, weight.device)
    block_n = divisor(config.block_n, N if shuffle else weight.shape[0])
    block_k = divisor(config.block_k, CP)
    blocks = weight.shape[0] // block_n
    features_kernel[(blocks * tiles.shape[0],)](
        x,
        mean if mean is not None else x,
        gains if gains is not None else bias,
        pictures if pictures is not None else tiles,
        weight,
        bias,
        out,
        tiles,
        lattice.sites,
        lattice.parity,
        blocks,
        weight.shape[1] // block_k,
        scale,
        out.stride(0),
        N,
        GATHER=gather,
        SHUFFLE=shuffle,
        C=C,
        CP=CP,
        HWC=hwc,
        STEP=MEAN_STEP,
        CELL=CELL,
        BLOCK_P=config.block_p,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        **_options(config),
    )
    return out


def enter(
    r: Tensor, mean: Tensor, gains: Tensor, table: Tensor, weight: Tensor, bias: Tensor, lattice: Lattice, c: Config
) -> Tensor:
    out = _rows(weight, lattice.full_sites, weight.shape[0])
    return _features(
        r,
        weight,
        bias,
        out,
        lattice,
        c,
        gather="halves",
        N=weight.shape[0],
        C=r.shape[2],
        CP=weight.shape[1],
        mean=mean,
        gains=gains,
        pictures=table,
    )


def layer(x: Tensor, weight: Tensor, bias: Tensor, N: int, kind: str, lattice: Lattice, config: Config) -> Tensor:
    CP, NP = x.shape[1], weight.shape[0]
    if kind == "up":
        out = _rows(x, 4 * lattice.full_sites, NP // 4)
        return _features(x, weight, bias, out, lattice, config, gather="site", N=NP // 4, C=CP, CP=CP, shuffle=True)
    if kind == "down":
        out = _rows(x, lattice.full_sites, NP)
        return _features(x, weight, bias, out, lattice, config, gather="down", N=NP, C=CP, CP=CP)
    out = _rows(x, lattice.full_sites, N, torch.float32)
    return _features(x, weight, bias, out, lattice, config, gather="site", N=N, C=CP, CP=CP)


def patch(
    table: Tensor, pictures: list[Tensor], hwc: bool, weight: Tensor, bias: Tensor, lattice: Lattice, config: Config
) -> Tensor:
    out = _rows(weight, lattice.full_sites, weight.shape[0])
    return _features(
        table,
        weight,
        bias,
        out,
        lattice,
        config,
        gather="patches",
        N=weight.shape[0],
        C=3 * CELL,
        CP=3 * CELL,
        pictures=table,
        hwc=hwc,
        scale=1 / 510,
    )


def paint(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    table: Tensor,
    pictures: list[Tensor],
    gray: list[bool],
    hwc: bool,
    lattice: Lattice,
    config: Config,
) -> None:
    tiles = tile_table(lattice, config.block_p, True, x.device)
    CP = x.shape[1]
    block_n, block_k = divisor(config.block_n, CELL), divisor(config.block_k, CP)
    paint_kernel[(CELL // block_n * tiles.shape[0],)](
        x,
        weight,
        bias,
        table,
        tiles,
        CP // block_k,
        DTYPE=TYPES[pictures[0].dtype],
        HWC=hwc,
        CELL=CELL,
        CP=CP,
        BLOCK_P=config.block_p,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        **_options(config),
    )
