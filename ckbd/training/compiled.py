"""torch.compile for training: what may be compiled where, and how.

Only whole graphs: a break would leave its small kernels behind without a word. Inductor, and not its CUDA graphs,
since Stepper captures the step itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

BACKEND = "inductor"
LIMIT = "recompile_limit"  # in PyTorch 2.6 of another name
KINDS = 64  # of arguments for which one function may be compiled: crop sizes, counts, rates with noise or without


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as one graph of fused kernels for each kind of its arguments; what cannot be traced raises."""
    # An argument of torch.compile in newer versions only.
    limits = torch._dynamo.config
    setattr(limits, LIMIT, max(getattr(limits, LIMIT), KINDS))
    return torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND)


def refusal(device: str) -> str | None:
    """Why torch.compile cannot work on devices of a type, "cuda" or "cpu"; None if it can."""
    if not hasattr(torch._dynamo.config, LIMIT):  # of 2.6, whose dynamo breaks at functional_call and at ExactLayers
        return f"PyTorch {torch.__version__} cannot trace a step as one graph"
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:  # of what kind depends on what is missing, and on PyTorch's version
        return f"no C++ compiler: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
    if device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "no Triton for this GPU"
    return None


def wanted(asked: bool | None, device: str) -> bool:
    """Whether to compile; asked: None for what the type of device suggests, a GPU if it can, a CPU never.

    Raises ValueError if it was asked for and cannot be; says so if it was merely suggested.
    """
    if asked is False or asked is None and device != "cuda":
        return False
    why = refusal(device)
    if why and asked:
        raise ValueError(f"compile: {why}")
    if why:
        print(f"steps are not compiled: {why}", flush=True)
    return why is None
