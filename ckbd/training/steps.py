"""One step of training, eagerly or as a CUDA graph: R + lmbda D, the optimisers and the moving average.

On a GPU a step is hundreds of small kernels, which take longer to launch than to run. So all that a step needs is
drawn on the device, nothing in it waits for the host, and it is captured once for each crop size and replayed.
Compiled, it is fewer kernels: loss and gradients are one graph for torch.compile, Muon's update another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ckbd.model.model import Checkerboard
from ckbd.training.compiled import compiled
from ckbd.training.distortion import Shares, distortion
from ckbd.training.optim import Muon

THIRDS = (0, 34), (34, 67), (67, 100)  # of the qualities: above, and at most
SUMS = 8  # loss, bpp, and sum and count of the PSNRs of the lower, middle and upper third of the qualities
WARM_UP = 3  # steps before a capture: libraries allocate and choose in their first calls


def loss_of(out: dict[str, Tensor], x: Tensor, lmbda: Tensor, shares: Shares, balance: float) -> dict[str, Tensor]:
    """Per-image bpp and mse (B,), and the scalar loss: mean of (bpp + lmbda D) / (lmbda / balance)^0.5.

    D is ckbd.training.distortion's. Bits grow roughly as lmbda^0.5, so the division lets every quality pull on the
    shared weights with about the same force; the optimum at each single quality is unchanged by it. x: (B, 3, H, W);
    lmbda: (B,).
    """
    bpp = (out["bits_y"] + out["bits_z"]) / (x.shape[2] * x.shape[3])
    mse = (out["x_hat"] - x).square().flatten(1).mean(1)
    errors = distortion(out["x_hat"], x, mse, shares)
    loss = ((bpp + lmbda * errors) * (balance / lmbda) ** 0.5).mean()
    return {"loss": loss, "bpp": bpp, "mse": mse}


def draw_qualities(count: int, device: str | torch.device = "cpu") -> Tensor:
    """(count,) rising qualities in half steps, one from each of count equal strata of [1, 100]."""
    place = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    return torch.round(2 + 198 * place) / 2


def optimisers(
    model: nn.Module, lr: float, muon_lr: float, capturable: bool, bf16: bool = False
) -> list[torch.optim.Optimizer]:
    """Adam for everything, or Muon (muon_lr above 0) for the matrices of g_a, g_s and h_a and Adam for the rest.

    capturable: for CUDA graphs. bf16: Muon's products in bfloat16, as always on a GPU.
    """
    rate: Callable[[float], float | Tensor] = float
    more: dict[str, Any] = {"fused": True}
    if capturable:
        device = next(model.parameters()).device
        rate, more = (lambda value: torch.tensor(value, device=device)), {"capturable": True, "fused": True}
    matrices = [
        p
        for name, p in model.named_parameters()
        if muon_lr and name.split(".")[0] in ("g_a", "g_s", "h_a") and p.dim() == 4 and p.shape[1] > 1
    ]
    ours = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in ours]
    out: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=rate(lr), **more)]
    dtype = torch.bfloat16 if bf16 or capturable else torch.float32
    return [*out, Muon(matrices, lr=rate(muon_lr), dtype=dtype)] if matrices else out


class _Halves(torch.autograd.Function):
    """Tensors in bfloat16 and their gradients back, in a call for all of them; autocast has two for each."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        return _copied(weights, torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return _copied(grads, torch.float32)


def _copied(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    out = [torch.empty_like(t, dtype=dtype) for t in tensors]
    torch._foreach_copy_(out, list(tensors))
    return tuple(out)


def seen(parts: dict[str, Tensor], quality: Tensor) -> Tensor:
    """What a step adds to the sums, (SUMS,) float64, of loss_of's parts at qualities (B,)."""
    psnr = -10 * torch.log10(parts["mse"].clamp(min=1e-10))
    thirds = torch.stack([(quality > low) & (quality <= high) for low, high in THIRDS]).to(psnr)
    means = torch.stack((parts["loss"], parts["bpp"].mean()))
    return torch.cat((means, (thirds * psnr).sum(1), thirds.sum(1))).double()


class Stepper:
    """Steps of a model and its moving average; sums (SUMS,) hold what was seen since they were last cleared.

    draw: (count, size) -> x (count, 3, size, size); on the model's device, if steps are to be graphs. compile:
    through torch.compile, which takes its time at the first step of each kind; compiled.refusal says where it cannot.
    shares: of what errors are counted by.
    """

    def __init__(
        self,
        model: Checkerboard,
        average: Checkerboard,
        optimisers: list[torch.optim.Optimizer],
        draw: Callable[[int, int], Tensor],
        *,
        shares: Shares = Shares(),  # noqa: B008  # frozen
        clip: float = 1.0,
        bf16: bool = False,
        graphs: bool = False,
        compile: bool = False,
    ):
        self.model, self.optimisers, self.draw = model, optimisers, draw
        self.shares, self.clip, self.bf16 = shares, clip, bf16
        self.weights: list[Tensor] = list(model.parameters())
        self.averaged: list[Tensor] = list(average.parameters())
        self.device = self.weights[0].device
        self.balance = math.sqrt(model.config.lmbda_min * model.config.lmbda_max)
        self.sums = torch.zeros(SUMS, dtype=torch.float64, device=self.device)
        self.forget = torch.zeros((), device=self.device)
        self.peaks = [float(o.param_groups[0]["lr"]) for o in optimisers]
        self.graphs: dict[tuple, torch.cuda.CUDAGraph | int] | None = {} if graphs else None
        # What autocast would turn into bfloat16, one by one.
        parts = ("g_a.", "h_a.", "g_s.") if bf16 else ()
        self.halved = [name for name, _ in model.named_parameters() if name.startswith(parts)] if parts else []
        self.losses = compiled(self._losses) if compile else self._losses
        for optimiser in optimisers:
            if compile and isinstance(optimiser, Muon):
                optimiser.compile()

    def uncompile(self) -> None:
        """Goes on without torch.compile."""
        self.losses = self._losses
        for optimiser in self.optimisers:
            if isinstance(optimiser, Muon):
                optimiser.uncompile()

    def __call__(self, size: int, count: int, noise: bool, lr_share: float, forget: float) -> None:
        """One step on count crops. noise: as Checkerboard has it. lr_share: of the optimisers' peaks; forget: 1 minus
        the decay of the moving average."""
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            for group in optimiser.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(peak * lr_share)
                else:
                    group["lr"] = peak * lr_share
        self.forget.fill_(forget)
        key = size, count, noise
        if self.graphs is None:
            self._step(*key)
        elif isinstance(graph := self.graphs.setdefault(key, 0), torch.cuda.CUDAGraph):
            graph.replay()
        elif graph < WARM_UP:
            self.graphs[key] = graph + 1
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step(*key)
            torch.cuda.current_stream().wait_stream(side)
        else:
            captured = torch.cuda.CUDAGraph()
            for optimiser in self.optimisers:
                optimiser.zero_grad(set_to_none=True)
            with torch.cuda.graph(captured):
                self._step(*key)
            self.graphs[key] = captured
            captured.replay()

    def _losses(self, x: Tensor, quality: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
        """The loss, and what is added to the sums."""
        halves: dict[str, Tensor] = {}
        if self.halved:
            weights = dict(self.model.named_parameters())
            halves = dict(zip(self.halved, _Halves.apply(*(weights[name] for name in self.halved)), strict=True))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = functional_call(self.model, halves, (x, quality), {"noise": noise})
        parts = loss_of(out, x, self.model.lmbda(quality), self.shares, self.balance)
        with torch.no_grad():
            return parts["loss"], seen(parts, quality)

    def _step(self, size: int, count: int, noise: bool) -> None:
        x = self.draw(count, size).to(self.device, memory_format=torch.channels_last)
        loss, more = self.losses(x, draw_qualities(count, self.device), noise)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            moved = torch._foreach_sub(self.weights, self.averaged)
            torch._foreach_mul_(moved, self.forget)
            torch._foreach_add_(self.averaged, moved)
            self.sums += more
