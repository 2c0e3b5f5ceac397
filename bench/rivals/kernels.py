"""What the phase kernels are timed against, in plain PyTorch: the same float network on the half lattice, and the
dense way of public code.

Each has call(): one phase 1, inputs already on the device. The weights are random: a time does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ckbd.kernels import Lattice, reference

SLOPE = 0.01


class Half:
    """g_ep in floats over half the lattice, folded as ours is: psi's half of the first layer is given. dtype: of
    weights and of all values.
    """

    def __init__(self, model, lattice: Lattice, dtype: torch.dtype, device: torch.device):
        (H, W), B = lattice.sizes[0], len(lattice.sizes)
        columns, count = (W + 1) // 2, model.kernel**2 // 2
        self.kernel, self.parity = model.kernel, lattice.parity

        def values(*shape: int) -> Tensor:
            return torch.randn(shape, device=device).div_(shape[-1] ** 0.5).to(dtype)

        self.weights = [
            (values(model.H1, count * model.M), values(model.H1)),
            (values(model.H2, model.H1), values(model.H2)),
            (values(2 * model.M, model.H2), values(2 * model.M)),
        ]
        self.thresholds = torch.linspace(-3, 3, 63, device=device)
        self.psi_acc = values(B, H, columns, model.H1)
        self.context = values(B, H, columns, model.M)

    def compiled(self, mode: str) -> Callable[[], object]:
        """call() as torch.compile makes it in one of its modes."""
        # Or its CUDA graphs would copy all of these before every replay.
        for t in (*(t for layer in self.weights for t in layer), self.thresholds, self.psi_acc, self.context):
            torch._dynamo.mark_static_address(t)
        function = torch.compile(self.phase, mode=mode, dynamic=False, fullgraph=True)

        @torch.no_grad()
        def call() -> tuple[Tensor, Tensor]:
            return function(self.psi_acc, self.context)

        return call

    def phase(self, psi_acc: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        (w1, b1), (w2, b2), (w3, b3) = self.weights
        columns = reference.context_columns(context, 0, context.shape[1], self.kernel, self.parity)
        h = F.leaky_relu(psi_acc + F.linear(columns, w1, b1), SLOPE)
        h = F.leaky_relu(F.linear(h, w2, b2), SLOPE)
        mean, sigma = F.linear(h, w3, b3).chunk(2, dim=-1)
        k = torch.bucketize(sigma.float().contiguous(), self.thresholds, out_int32=True)
        return mean.contiguous(), k.to(torch.uint8)

    @torch.no_grad()
    def call(self) -> tuple[Tensor, Tensor]:
        return self.phase(self.psi_acc, self.context)


class Dense:
    """As CompressAI's checkerboard models run it: a masked 5x5 convolution M -> 2M over the whole lattice, its output
    beside psi, three 1x1 convolutions over the whole lattice. Scales are not turned into table indices here, which
    favours the rival. Channels last.
    """

    def __init__(self, model, lattice: Lattice, dtype: torch.dtype, device: torch.device):
        (H, W), B, M, k = lattice.sizes[0], len(lattice.sizes), model.M, model.kernel

        def values(*shape: int) -> Tensor:
            t = torch.randn(shape, device=device).div_((shape[1] if len(shape) > 1 else 1) ** 0.5).to(dtype)
            return t.to(memory_format=torch.channels_last) if t.dim() == 4 else t

        mask = (torch.arange(k * k, device=device) % 2).view(k, k).to(dtype)
        self.layers = [
            ((values(2 * M, M, k, k) * mask).contiguous(memory_format=torch.channels_last), values(2 * M)),
            (values(model.H1, 2 * M + model.C, 1, 1), values(model.H1)),
            (values(model.H2, model.H1, 1, 1), values(model.H2)),
            (values(2 * M, model.H2, 1, 1), values(2 * M)),
        ]
        self.psi = values(B, model.C, H, W)
        row, column = torch.arange(H, device=device).view(-1, 1), torch.arange(W, device=device)
        self.y_hat = values(B, M, H, W) * ((row + column + lattice.parity + 1) % 2).to(dtype)

    @torch.no_grad()
    def call(self) -> tuple[Tensor, Tensor]:
        conv, first, hidden, output = self.layers
        h = torch.cat((F.conv2d(self.y_hat, *conv, padding=conv[0].shape[-1] // 2), self.psi), dim=1)
        h = F.leaky_relu(F.conv2d(h, *first), SLOPE)
        h = F.leaky_relu(F.conv2d(h, *hidden), SLOPE)
        mean, sigma = F.conv2d(h, *output).chunk(2, dim=1)
        return mean, sigma
