"""g_a and g_s in Triton: over a batch of any sizes, from int16 latents straight into each picture's pixels, and back.

Floats, which reading a bit never needs. Features are packed (sites, channels padded), images one after the other, as
in ckbd.kernels; backend is the same. What a picture gives depends on neither its neighbours nor the tile nor the form
on one device; between devices nothing is promised. Inference alone: train with ckbd.model.transforms.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ckbd.kernels import ops as _ops
from ckbd.kernels.configs import BLOCKS, Config
from ckbd.kernels.lattice import Lattice
from ckbd.kernels.transforms import ops as _registered  # noqa: F401  # defines the operators
from ckbd.kernels.transforms.configs import LAYERS
from ckbd.kernels.transforms.cost import Part, analysis_cost, eager_bytes, synthesis_cost
from ckbd.kernels.transforms.pictures import QUALITIES, Pictures
from ckbd.kernels.transforms.weights import Analysis, Block, Linear, Synthesis

__all__ = [
    "QUALITIES",
    "Analysis",
    "Block",
    "Linear",
    "Part",
    "Pictures",
    "Synthesis",
    "analyse",
    "analysis_cost",
    "block",
    "eager_bytes",
    "synthesis_cost",
    "synthesise",
]

# By kernel: "enter", "block", "up", "down", "out", "patch" or "paint"; what is left out is measured.
Configs = Mapping[str, Config]


def synthesise(
    r: Tensor,
    mean: Tensor,
    lattice: Lattice,
    g_s: Synthesis,
    pictures: Pictures,
    *,
    backend: str = "auto",
    configs: Configs | None = None,
) -> None:
    """Writes pictures, as far as each goes, from their latents y_hat = 16 r + mean in 1/16 units.

    r, mean: int16 (2, sites, M), both phases of lattice, whose sizes hold the pictures (a latent is 16 pixels a
    side). Pixels are uint8, or float16 or float32 in [0, 1], which are the same over 255.
    """
    for name, t in (("r", r), ("mean", mean)):
        if tuple(t.shape) != (2, lattice.sites, g_s.M) or t.dtype != torch.int16 or not t.is_contiguous():
            want = f"contiguous int16 (2, {lattice.sites}, {g_s.M})"
            raise ValueError(f"{name}: expected {want}, got {t.dtype} {tuple(t.shape)}")
    _fits(pictures, lattice, g_s.gains.device, (r, mean))
    how, fine = _How(backend, configs, g_s.enter.weight.dtype), lattice.scaled(2)
    args = mean, g_s.gains, pictures.table, g_s.enter.weight, g_s.enter.bias, *how.on(lattice, "enter")
    x = how.blocks(_ops.call("transform_enter", r, *args), g_s.blocks16, lattice)
    x = how.blocks(how.layer(x, g_s.up, "up", lattice), g_s.blocks8, fine)
    pixels = pictures.table, pictures.addresses, pictures.tensors, list(pictures.gray), pictures.hwc
    _ops.call("transform_paint", x, g_s.pixels.weight, g_s.pixels.bias, *pixels, *how.on(fine, "paint"))


def analyse(
    pictures: Pictures, lattice: Lattice, g_a: Analysis, *, backend: str = "auto", configs: Configs | None = None
) -> Tensor:
    """g_a of uint8 pictures, each continued to its lattice's size by its last row and column: float32 (full sites,
    M), not yet times a gain.
    """
    _fits(pictures, lattice, g_a.out.weight.device, ())
    if pictures.tensors[0].dtype != torch.uint8 or not all(x.numel() for x in pictures.tensors):
        raise ValueError("pictures: expected uint8 with at least one pixel each")
    how, fine = _How(backend, configs, g_a.out.weight.dtype), lattice.scaled(2)
    args = pictures.tensors, pictures.hwc, g_a.patch.weight, g_a.patch.bias, *how.on(fine, "patch")
    x = how.blocks(_ops.call("transform_patch", pictures.table, *args), g_a.blocks8, fine)
    x = how.blocks(how.layer(x, g_a.down, "down", lattice), g_a.blocks16, lattice)
    return how.layer(x, g_a.out, "out", lattice)


def block(
    x: Tensor, weights: Block, lattice: Lattice, *, backend: str = "auto", config: Config | None = None
) -> Tensor:
    """A residual block: x (full sites of lattice, channels padded), of the weights' dtype -> the same."""
    CP = weights.tensors[4].shape[0]
    dtype = weights.tensors[2].dtype
    if tuple(x.shape) != (lattice.full_sites, CP) or x.dtype != dtype or not x.is_contiguous():
        want = f"contiguous {dtype} ({lattice.full_sites}, {CP})"
        raise ValueError(f"x: expected {want}, got {x.dtype} {tuple(x.shape)}")
    if x.requires_grad and torch.is_grad_enabled():
        raise ValueError("x: the kernels have no gradient; train with ckbd.model.transforms")
    return _How(backend, None if config is None else {"block": config}, dtype).blocks(x, [weights], lattice)


class _How:
    """The launches that several networks have, and the arguments that every operator ends with."""

    def __init__(self, backend: str, configs: Configs | None, dtype: torch.dtype):
        self.backend = backend
        for name, config in (configs or {}).items():
            forms = BLOCKS if name == "block" else ("layers",) if name in LAYERS else ()
            if config.form not in forms:
                raise ValueError(f"configs: {name}: expected {' or '.join(forms) or 'no such kernel'}, got {config}")
        self.configs = {name: _ops.encode(c, dtype) for name, c in (configs or {}).items()}

    def blocks(self, x: Tensor, weights: list[Block], lattice: Lattice) -> Tensor:
        for one in weights:
            x = _ops.call("transform_block", x, one.tensors, *self.on(lattice, "block"))
        return x

    def layer(self, x: Tensor, layer: Linear, kind: str, lattice: Lattice) -> Tensor:
        args = layer.weight, layer.bias, layer.N, kind, *self.on(lattice, kind)
        return _ops.call("transform_layer", x, *args)

    def on(self, lattice: Lattice, kernel: str) -> tuple[Lattice, int, str, list[int]]:
        return lattice, lattice.parity, self.backend, self.configs.get(kernel, [])


def _fits(pictures: Pictures, lattice: Lattice, device: torch.device, others: tuple[Tensor, ...]) -> None:
    """Kernels write where they are told: pictures must be as many as images, and none larger than its own."""
    if len(pictures.tensors) != len(lattice.sizes):
        raise ValueError(f"pictures: expected {len(lattice.sizes)}, as many as images, got {len(pictures.tensors)}")
    for n, ((height, width), (H, W)) in enumerate(zip(pictures.sizes(), lattice.sizes, strict=True)):
        if height > 16 * H or width > 16 * W:
            raise ValueError(f"picture {n}: {height} x {width} pixels are more than {H} x {W} latents have")
    for t in (pictures.table, pictures.tensors[0], *others):
        if t.device != device:
            raise ValueError(f"expected all tensors on {device}, as the network, got one on {t.device}")
