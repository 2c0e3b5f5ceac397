"""The kernels of g_a and g_s as operators, torch.ops.ckbd.transform_*; ckbd.kernels.ops has those of the phases."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ckbd.kernels import ops, tune
from ckbd.kernels.configs import Config, decode
from ckbd.kernels.lattice import Lattice
from ckbd.kernels.transforms import configs, twin

_PLACE = "int[] sizes, int parity, str backend, int[] config"
ops.LIB.define(f"transform_block(Tensor x, Tensor[] tensors, {_PLACE}) -> Tensor")
ops.LIB.define(
    "transform_enter(Tensor r, Tensor mean, Tensor gains, Tensor table, Tensor weight, Tensor bias, "
    f"{_PLACE}) -> Tensor"
)
ops.LIB.define(f"transform_layer(Tensor x, Tensor weight, Tensor bias, int N, str kind, {_PLACE}) -> Tensor")
ops.LIB.define(
    f"transform_patch(Tensor table, Tensor[] pictures, bool hwc, Tensor weight, Tensor bias, {_PLACE}) -> Tensor"
)
ops.LIB.define(
    "transform_paint(Tensor x, Tensor weight, Tensor bias, Tensor table, Tensor addresses, Tensor(a!)[] pictures, "
    f"bool[] gray, bool hwc, {_PLACE}) -> ()"
)


def _launch() -> ModuleType:
    from ckbd.kernels.transforms import launch  # imports Triton

    return launch


def _run(
    name: str,
    kind: str,
    key: str,
    dtype: torch.dtype,
    width: int,
    device: torch.device,
    args: tuple[Any, ...],
    backend: str,
    config: list[int],
) -> Any:
    """A function of twin, or of launch with the config that is asked for or the quickest of its kind. args: all
    others.
    """
    if ops.resolve(backend, device) == "torch":
        return getattr(twin, name)(*args)
    function = getattr(_launch(), name)
    options = (decode(config),) if config else configs.candidates(kind, dtype, width, configs.gpu_of(device))
    run: Callable[[Config], Any] = lambda c: function(*args, c)  # noqa: E731
    with ops._on(device):
        return run(tune.choose(device, key, options, run))


def _block(
    x: Tensor, tensors: list[Tensor], sizes: list[int] | Lattice, parity: int, backend: str, config: list[int]
) -> Tensor:
    lattice, (rows, CP) = ops._lattice(sizes, parity), x.shape
    if config and decode(config).form != "spread" and CP & (CP - 1):
        raise ValueError(f"config: a block of {CP} channels, no power of two, can only be spread")
    key = f"block {x.dtype} {CP} {tune.bucket(rows)}"
    return _run("block", "block", key, x.dtype, CP, x.device, (x, tensors, lattice), backend, config)


def _enter(
    r: Tensor,
    mean: Tensor,
    gains: Tensor,
    table: Tensor,
    weight: Tensor,
    bias: Tensor,
    sizes: list[int] | Lattice,
    parity: int,
    backend: str,
    config: list[int],
) -> Tensor:
    lattice, dtype = ops._lattice(sizes, parity), weight.dtype
    key = f"enter {dtype} {r.shape[2]} {weight.shape[0]} {tune.bucket(lattice.full_sites)}"
    args = r, mean, gains, table, weight, bias, lattice
    return _run("enter", "enter", key, dtype, weight.shape[0], r.device, args, backend, config)


def _layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    N: int,
    kind: str,
    sizes: list[int] | Lattice,
    parity: int,
    backend: str,
    config: list[int],
) -> Tensor:
    lattice, (NP, K) = ops._lattice(sizes, parity), weight.shape
    key = f"layer {kind} {x.dtype} {K} {NP} {tune.bucket(lattice.full_sites)}"
    return _run("layer", kind, key, x.dtype, K, x.device, (x, weight, bias, N, kind, lattice), backend, config)


def _patch(
    table: Tensor,
    pictures: list[Tensor],
    hwc: bool,
    weight: Tensor,
    bias: Tensor,
    sizes: list[int] | Lattice,
    parity: int,
    backend: str,
    config: list[int],
) -> Tensor:
    lattice, dtype = ops._lattice(sizes, parity), weight.dtype
    key = f"patch {hwc} {dtype} {weight.shape[0]} {tune.bucket(lattice.full_sites)}"
    args = table, pictures, hwc, weight, bias, lattice
    return _run("patch", "patch", key, dtype, weight.shape[0], table.device, args, backend, config)


def _paint(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    table: Tensor,
    addresses: Tensor,
    pictures: list[Tensor],
    gray: list[bool],
    hwc: bool,
    sizes: list[int] | Lattice,
    parity: int,
    backend: str,
    config: list[int],
) -> None:
    lattice, CP = ops._lattice(sizes, parity), x.shape[1]
    key = f"paint {hwc} {pictures[0].dtype} {x.dtype} {CP} {tune.bucket(lattice.full_sites)}"
    args = x, weight, bias, table, pictures, gray, hwc, lattice
    _run("paint", "paint", key, x.dtype, CP, x.device, args, backend, config)


def _paint_wherever(x: Tensor, weight: Tensor, bias: Tensor, table: Tensor, addresses: Tensor, *args: Any) -> None:
    """_paint as the dispatcher calls it, who may have put copies in the pictures' place: then these are written."""
    pointers = [p.data_ptr() if p.numel() else 0 for p in args[0]]
    here = torch.tensor(pointers, dtype=torch.int64, device="cpu")
    if not torch.equal(here, addresses):
        table = torch.cat((here.to(table.device).unsqueeze(1), table[:, 1:]), 1)
    _paint(x, weight, bias, table, here, *args)


def _sites(sizes: list[int]) -> int:
    return sum(h * w for h, w in zip(sizes[::2], sizes[1::2], strict=True))


def _fake_layer(x: Tensor, weight: Tensor, bias: Tensor, N: int, kind: str, sizes: list[int], *_: Any) -> Tensor:
    sites, NP = _sites(sizes), weight.shape[0]
    if kind == "out":
        return x.new_empty((sites, N), dtype=torch.float32)
    return x.new_empty((4 * sites, NP // 4) if kind == "up" else (sites, NP))


def _fake_enter(
    r: Tensor, mean: Tensor, gains: Tensor, table: Tensor, weight: Tensor, bias: Tensor, *rest: Any
) -> Tensor:
    return weight.new_empty((_sites(rest[0]), weight.shape[0]))


def _fake_patch(table: Tensor, pictures: list[Tensor], hwc: bool, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return weight.new_empty((_sites(rest[0]), weight.shape[0]))


ops.register("transform_block", _block, lambda x, *args: torch.empty_like(x))
ops.register("transform_enter", _enter, _fake_enter)
ops.register("transform_layer", _layer, _fake_layer)
ops.register("transform_patch", _patch, _fake_patch)
ops.register("transform_paint", _paint_wherever, lambda *args: None)
ops.FUNCTIONS["transform_paint"] = _paint
