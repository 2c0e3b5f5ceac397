"""The kernels as PyTorch operators, torch.ops.ckbd.*, with fake kernels for torch.compile and export.

Each takes plain tensors and numbers and chooses an implementation by its `backend`: "torch" (the twin), "triton", or
"auto" (Triton on a GPU, the twin elsewhere). The public functions in ckbd.kernels check what they are given and call
these.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ckbd.kernels import tune, twin
from ckbd.kernels.configs import BLOCKS, FORMS, LEAST_K, Config, candidates
from ckbd.kernels.lattice import Lattice

BACKENDS = ("auto", "torch", "triton")
LIB = torch.library.Library("ckbd", "DEF")


class BackendError(ValueError):
    """The implementation that was asked for cannot serve this device; the message says what can."""


def resolve(backend: str, device: torch.device) -> str:
    """ "torch" or "triton" for a device. Raises BackendError, with what would serve instead."""
    if backend not in BACKENDS:
        raise BackendError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        backend = "triton" if device.type == "cuda" else "torch"
    if backend == "triton":
        reason = _refusal(device)
        if reason:
            raise BackendError(f"backend 'triton': {reason}; backend 'torch' serves this device")
    return backend


@lru_cache(maxsize=32)
def _refusal(device: torch.device) -> str:
    """Why Triton cannot serve a device, or nothing."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (pip install 'ckbd[triton]')"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if torch.version.hip is None and capability < (8, 0):
            return f"device {device} has compute capability {capability[0]}.{capability[1]}, 8.0 is needed"
        return ""
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    if device.type == "cpu":
        return "tensors on the CPU need Triton's interpreter (TRITON_INTERPRET=1 before the first import)"
    return f"device {device} is no GPU of Triton's"


def _launch() -> ModuleType:
    from ckbd.kernels import launch  # imports Triton

    return launch


def _module(backend: str, device: torch.device) -> ModuleType:
    return twin if resolve(backend, device) == "torch" else _launch()


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever the tensors' is."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _lattice(sizes: list[int] | Lattice, parity: int) -> Lattice:
    """The lattice that an operator was given as numbers; or as it is, by those who go round the dispatcher."""
    return sizes if isinstance(sizes, Lattice) else _lattice_of(tuple(sizes), parity)


@lru_cache(maxsize=256)
def _lattice_of(sizes: tuple[int, ...], parity: int) -> Lattice:
    return Lattice(tuple(zip(sizes[::2], sizes[1::2], strict=True)), parity)


def call(name: str, x: Tensor, *args: Any) -> Any:
    """The operator of this name with x and other arguments; sizes among them may be a Lattice.

    For plain tensors outside of torch.compile and export the function itself: the dispatcher takes more of the host's
    time than all the rest, since every size goes through it as a number (bench.run interpreter).
    """
    if torch.compiler.is_compiling() or type(x) is not Tensor or torch._C._len_torch_dispatch_stack():
        return getattr(torch.ops.ckbd, name)(x, *(_flat(a) if isinstance(a, Lattice) else a for a in args))
    return FUNCTIONS[name](x, *args)


def _flat(lattice: Lattice) -> list[int]:
    return [n for size in lattice.sizes for n in size]


def encode(config: Config | str | None, dtype: torch.dtype) -> list[int]:
    """A Config, the name of a form or None (choose) as the operators take it; dtype: of the weights."""
    if config is None:
        return []
    if isinstance(config, str):
        if config not in FORMS:
            raise ValueError(f"config: expected one of {', '.join(FORMS)} or a Config, got {config!r}")
        return [FORMS.index(config)]
    if config.block_k < LEAST_K[dtype]:
        raise ValueError(f"config: block_k: expected at least {LEAST_K[dtype]} in {dtype}, got {config.block_k}")
    return [
        (FORMS + BLOCKS).index(config.form),
        config.block_p,
        config.block_n,
        config.block_k,
        config.warps,
        config.stages,
    ]


LIB.define("project(Tensor x, Tensor weight, str backend, int[] config) -> Tensor")
LIB.define(
    "convolve(Tensor x, Tensor weight, Tensor bias, Tensor shift, int N, int[] sizes, int parity, bool split, "
    "int factor, str backend, int[] config) -> Tensor"
)
LIB.define(
    "phase(Tensor psi_acc, Tensor? context, Tensor[] network, Tensor? thresholds, int M, int kernel, float slope, "
    "int[] sizes, int parity, str backend, int[] config, Tensor(a!) mean, Tensor(b!) k) -> ()"
)
LIB.define(
    "assemble(Tensor r, Tensor mean, int[] sizes, int parity, int p, str backend, Tensor(a!)? y_hat, "
    "Tensor(b!)? context) -> ()"
)
LIB.define("quantise(Tensor y, Tensor mean, int[] sizes, int parity, int p, str backend) -> Tensor")
LIB.define("split(Tensor y, int[] sizes, int parity, int p, str backend) -> Tensor")
LIB.define("merge(Tensor packed, int[] sizes, int parity, int p, str backend, Tensor(a!) y) -> ()")


def _project(x: Tensor, weight: Tensor, backend: str, config: list[int]) -> Tensor:
    if resolve(backend, x.device) == "torch":
        return twin.project(x, weight)
    launch, (rows, C), N = _launch(), x.shape, weight.shape[0]
    key = f"project {weight.dtype} {C} {N} {tune.bucket(rows)}"
    options = candidates(weight.dtype, config, "layers")
    run = lambda c: launch.project(x, weight, c)  # noqa: E731
    with _on(x.device):
        return run(tune.choose(x.device, key, options, run))


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor,
    N: int,
    sizes: list[int] | Lattice,
    parity: int,
    split: bool,
    factor: int,
    backend: str,
    config: list[int],
) -> Tensor:
    lattice, layer = _lattice(sizes, parity), [weight, bias, shift]
    if resolve(backend, x.device) == "torch":
        return twin.convolve(x, layer, N, lattice, split, factor)
    launch = _launch()
    key = f"convolve {x.shape[1]} {N} {split if factor == 2 else 'halves'} {tune.bucket(x.shape[0])}"
    options = candidates(weight.dtype, config, "layers")
    run = lambda c: launch.convolve(x, layer, N, lattice, split, factor, c)  # noqa: E731
    with _on(x.device):
        return run(tune.choose(x.device, key, options, run))


def _phase(
    psi_acc: Tensor,
    context: Tensor | None,
    network: list[Tensor],
    thresholds: Tensor | None,
    M: int,
    kernel: int,
    slope: float,
    sizes: list[int] | Lattice,
    parity: int,
    backend: str,
    config: list[int],
    mean: Tensor,
    k: Tensor,
) -> None:
    lattice = _lattice(sizes, parity)
    args = psi_acc, context, network, thresholds, M, kernel, slope, lattice, mean, k
    if resolve(backend, psi_acc.device) == "torch":
        twin.phase(*args)
        return
    launch, dtype = _launch(), network[0].dtype
    H1P, H2P = network[0].shape[0], network[3].shape[0]
    where = "anchors" if context is None else f"kernel {kernel}"
    key = f"phase {dtype} {M} {H1P} {H2P} {where} {tune.bucket(psi_acc.shape[0])}"
    run = lambda c: launch.phase(*args, c)  # noqa: E731
    with _on(psi_acc.device):
        run(tune.choose(psi_acc.device, key, candidates(dtype, config), run))


def _assemble(
    r: Tensor,
    mean: Tensor,
    sizes: list[int] | Lattice,
    parity: int,
    p: int,
    backend: str,
    y_hat: Tensor | None,
    context: Tensor | None,
) -> None:
    module = _module(backend, r.device)
    with _on(r.device):
        module.assemble(r, mean, _lattice(sizes, parity), p, y_hat, context)


def _quantise(y: Tensor, mean: Tensor, sizes: list[int] | Lattice, parity: int, p: int, backend: str) -> Tensor:
    module = _module(backend, y.device)
    with _on(y.device):
        return module.quantise(y, mean, _lattice(sizes, parity), p)


def _split(y: Tensor, sizes: list[int] | Lattice, parity: int, p: int, backend: str) -> Tensor:
    module = _module(backend, y.device)
    with _on(y.device):
        return module.split(y, _lattice(sizes, parity), p)


def _merge(packed: Tensor, sizes: list[int] | Lattice, parity: int, p: int, backend: str, y: Tensor) -> None:
    module = _module(backend, y.device)
    with _on(y.device):
        module.merge(packed, _lattice(sizes, parity), p, y)


def _sites(sizes: list[int]) -> int:
    return sum(h * ((w + 1) // 2) for h, w in zip(sizes[::2], sizes[1::2], strict=True))


def _fake_convolve(
    x: Tensor,
    weight: Tensor,
    b: Tensor,
    s: Tensor,
    N: int,
    sizes: list[int],
    parity: int,
    split: bool,
    factor: int,
    *_: Any,
) -> Tensor:
    big = [factor * n for n in sizes]
    return x.new_empty((2, _sites(big), N) if split or factor == 1 else (4 * x.shape[0], N))


FAKES: dict[str, Callable[..., Any]] = {
    "project": lambda x, weight, backend, config: x.new_empty(
        (x.shape[0], weight.shape[0]), dtype=torch.int32 if weight.dtype == torch.int8 else torch.float32
    ),
    "convolve": _fake_convolve,
    "phase": lambda *args: None,
    "assemble": lambda *args: None,
    "quantise": lambda y, mean, *args: torch.empty_like(mean),
    "split": lambda y, sizes, *args: y.new_empty((_sites(sizes), y.shape[1])),
    "merge": lambda *args: None,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "project": _project,
    "convolve": _convolve,
    "phase": _phase,
    "assemble": _assemble,
    "quantise": _quantise,
    "split": _split,
    "merge": _merge,
}


def register(name: str, function: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """A defined operator's implementation, and what torch.compile and export take instead of it."""
    FUNCTIONS[name] = function
    # For every device, so that one that cannot be served gets resolve()'s reason and not the dispatcher's.
    LIB.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"ckbd::{name}", fake, lib=LIB)


for _name, _function in FUNCTIONS.items():
    register(_name, _function, FAKES[_name])
