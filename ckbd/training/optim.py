"""Muon for training: momentum whose matrices are made orthogonal, many of one shape at once.

Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); its step is scaled to the size
of Adam's as in Liu et al., "Muon is scalable for LLM training" (2025, section 2.2). torch.optim.Muon takes
two-dimensional parameters one by one, which is thousands of small kernels a step; here equal shapes share their
products, 1x1 convolutions count as matrices, and the learning rate may be a tensor: a CUDA graph can hold the step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Coefficients of the quintic iteration, Jordan's.
A, B, C = 3.4445, -4.7750, 2.0315
RMS = 0.2  # of Adam's steps in units of the learning rate


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """(n, rows, columns) to about U V^T of each one's singular value decomposition U S V^T, by Newton and Schulz.

    Singular values come out between 0.7 and 1.2: enough for a direction of descent. In bfloat16 on a GPU.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
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
    dimension. momentum: Nesterov's. Raises ValueError for a parameter that is no matrix.
    """

    def __init__(self, params: Iterable[Tensor], lr: float | Tensor = 1e-3, momentum: float = 0.95):
        params = list(params)
        for p in params:
            if p.dim() < 2:
                raise ValueError(f"params: expected matrices, got one of shape {tuple(p.shape)}")
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # closures are not taken
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for (rows, columns), params in shapes.items():
                for p in params:
                    if not self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                grads = [p.grad for p in params if p.grad is not None]  # as many: see above
                kept = [self.state[p]["momentum"] for p in params]
                torch._foreach_lerp_(kept, grads, 1 - group["momentum"])
                ahead = torch._foreach_lerp(grads, kept, group["momentum"])
                moved = orthogonalise(torch.stack([one.reshape(rows, columns) for one in ahead]))
                moved = moved * (-RMS * max(rows, columns) ** 0.5 * group["lr"])
                torch._foreach_add_(params, [one.reshape(p.shape) for one, p in zip(moved, params, strict=True)])
