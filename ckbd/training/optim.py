"""Muon for training: momentum whose matrices are made orthogonal, many of one shape at once.

Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); its step is scaled to the size
of Adam's as in Liu et al., "Muon is scalable for LLM training" (2025, section 2.2). torch.optim.Muon takes
two-dimensional parameters one by one, which is thousands of small kernels a step; here equal shapes share their
products, 1x1 convolutions count as matrices, and the learning rate may be a tensor: a CUDA graph can hold the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ckbd.training.compiled import compiled

# Coefficients of the quintic iteration, Jordan's.
A, B, C = 3.4445, -4.7750, 2.0315
RMS = 0.2  # of Adam's steps in units of the learning rate


def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """(n, rows, columns) to about U V^T of each one's singular value decomposition U S V^T, by Newton and Schulz.

    Singular values come out between 0.7 and 1.2: enough for a direction of descent, and so are products of dtype
    torch.bfloat16.
    """
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = A * x + torch.baddbmm(B * gram, gram, gram, beta=1, alpha=C) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """params: tensors (n, ...) taken as matrices (n, rest). lr: as Adam's would be, a number or a tensor of no
    dimension. momentum: Nesterov's. dtype: that of the products. Raises ValueError for a parameter that is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | Tensor = 1e-3,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ):
        params, self.dtype = list(params), dtype
        for p in params:
            if p.dim() < 2:
                raise ValueError(f"params: expected matrices, got one of shape {tuple(p.shape)}")
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.update: Callable[..., None] = update
        self.rate: Callable[[float], float | Tensor] = float  # compiled, a number would be a part of the program

    def compile(self) -> None:
        """Update by torch.compile from now on: fewer kernels on a GPU."""
        self.update, self.rate = compiled(update), torch.tensor

    def uncompile(self) -> None:
        """Update without it again."""
        self.update, self.rate = update, float

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # closures are not taken
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            grads = [p.grad for p in params if p.grad is not None]  # as many: see above
            rate = group["lr"] if isinstance(group["lr"], Tensor) else self.rate(group["lr"])
            momenta = [self.state[p]["momentum"] for p in params]
            self.update(params, grads, momenta, rate, group["momentum"], self.dtype)


def update(
    params: list[Tensor],
    grads: list[Tensor],
    momenta: list[Tensor],
    rate: float | Tensor,
    momentum: float,
    dtype: torch.dtype,
) -> None:
    """Moves parameters and their momenta in place. Matrices of one shape, upright or lying, are one batch. dtype: of
    the products.
    """
    torch._foreach_lerp_(momenta, grads, 1 - momentum)
    ahead = [one.flatten(1) for one in torch._foreach_lerp(grads, momenta, momentum)]
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, one in enumerate(ahead):
        shapes.setdefault(tuple(sorted(one.shape)), []).append(i)
    moves = list(ahead)
    for (_, longer), places in shapes.items():
        moved = orthogonalise(torch.stack([_lying(ahead[i]) for i in places]), dtype=dtype)
        for i, one in zip(places, moved * (-RMS * longer**0.5 * rate), strict=True):
            moves[i] = (one if one.shape == ahead[i].shape else one.mT).reshape(params[i].shape)
    torch._foreach_add_(params, moves)


def _lying(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
