"""Products that add in order, in place of a library's, where the order of summation is looked at."""

import numpy as np
import torch


def in_order(x: np.ndarray, w: np.ndarray, acc: np.ndarray) -> np.ndarray:
    """acc (rows, N) with x (rows, K) times w (N, K) added k by k, in place."""
    for k in range(x.shape[1]):
        acc += (x[:, k, None].astype(acc.dtype) * w[:, k].astype(acc.dtype)).astype(acc.dtype)
    return acc


def ordered_linear(x: torch.Tensor, weight: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
    """As ckbd.kernels.transforms.twin.linear, channels in order."""
    rows = x.reshape(-1, x.shape[-1])
    first = torch.zeros(len(weight)) if start is None else start
    acc = in_order(rows.numpy(), weight.numpy(), first.numpy()[None].repeat(len(rows), 0))
    return torch.from_numpy(acc).view(*x.shape[:-1], -1)
