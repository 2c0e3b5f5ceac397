"""Model files of ckbd.papers.variant: as ckbd.model.file has them, with the context and the kind of model as tensors.

What a stream's bits mean depends on mask, order, centring and mixtures, so these are integers of the identity
(docs/format.md, section 9): exact.context.mask, exact.context.order and exact.kind.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ckbd.kernels import numerics
from ckbd.model import arrays, entropy, quant
from ckbd.model.arrays import Arrays
from ckbd.model.file import fill, gains_of, layers_of, write
from ckbd.model.model import ExactLayers
from ckbd.model.transforms import Analysis, Synthesis
from ckbd.papers.context import Context, from_spec
from ckbd.papers.minnen import MinnenAnalysis, MinnenSynthesis
from ckbd.papers.variant import CHOICES, Variant, VariantConfig, transforms

FORMAT = "ckbd-variant-1"
KIND = ("prior", "centring", "mixtures")  # the bytes of exact.kind: places in ckbd.papers.variant.CHOICES


@dataclass
class LoadedVariant:
    """A model as it runs. layers: int8, int32, uint8 on the CPU, empty with a factorised prior; tables: integers."""

    config: VariantConfig
    identity: bytes
    layers: ExactLayers
    tables: dict[str, Tensor]
    g_a: Analysis | MinnenAnalysis
    h_a: nn.Module
    g_s: Synthesis | MinnenSynthesis
    log_gain: Tensor
    log_ungain: Tensor


def mixture_tables() -> dict[str, Tensor]:
    """The tables of integer centring (docs/format.md, section 9): table.m.cdf, inverse, share int32, radius int16.

    cdf[u] is 2^24 Phi(u / 1024) for u = 0..8192; inverse[k] turns a distance in 1/16 into such u, times 2^16;
    share[s] is 2^8 2^(s / 8); radius[k] is how far a symbol may be from its mean before it is an escape, five sigmas
    and one.
    """
    cdf = [round((1 << 24) * 0.5 * math.erfc(-u / 1024 / math.sqrt(2.0))) for u in range(8193)]
    sigma = [entropy.SCALE_MIN * math.exp(entropy.LOG_STEP * k) for k in range(entropy.SCALES)]
    return {
        "table.m.cdf": torch.tensor(cdf, dtype=torch.int32),
        "table.m.inverse": torch.tensor([round(65536 * 64 / s) for s in sigma], dtype=torch.int32),
        "table.m.share": torch.tensor([round(256 * 2 ** (s / 8)) for s in range(64)], dtype=torch.int32),
        "table.m.radius": torch.tensor([min(1023, math.ceil(5 * s) + 1) for s in sigma], dtype=torch.int16),
    }


def context_tensors(c: VariantConfig) -> dict[str, Tensor]:
    """exact.context.mask, exact.context.order (one 255 for a raster scan) and exact.kind, uint8."""
    order = ((255,),) if c.context.order is None else c.context.order
    kind = [CHOICES[name].index(getattr(c, name)) for name in KIND]
    return {
        "exact.context.mask": torch.tensor(c.context.mask, dtype=torch.uint8, device="cpu"),
        "exact.context.order": torch.tensor(order, dtype=torch.uint8, device="cpu"),
        "exact.kind": torch.tensor(kind, dtype=torch.uint8, device="cpu"),
    }


def export(model: Variant) -> dict[str, Tensor]:
    """The tensors of a model file. Raises ValueError if a layer cannot be proved exact.

    A supernet is exported with an empty mask, which is what it says in its config; ckbd.papers.cut
    gives it another.
    """
    c, tensors = model.config, context_tensors(model.config)
    with torch.no_grad():
        if c.prior != "factorised":
            for name, layer in model.exact.integers().items():
                if name == "first" and c.supernet:
                    layer = layer._replace(weight=layer.weight[:, : c.psi])
                for one, value in zip(("weight", "bias", "shift"), quant.prove(layer, name)[:3], strict=True):
                    tensors[f"exact.{name}.{one}"] = value.cpu().contiguous()
        tensors |= entropy.gaussian_tables() | entropy.factorized_tables(model.prior, numerics.ACT_MAX)
        tensors |= mixture_tables()
        for part in ("g_a", "h_a", "g_s"):
            state = getattr(model, part).state_dict()
            tensors |= {f"{part}.{name}": value.cpu().contiguous() for name, value in state.items()}
        tensors |= {"log_gain": model.log_gain.detach().cpu(), "log_ungain": model.log_ungain.detach().cpu()}
    return tensors


def save(model: Variant, path: str | Path) -> bytes:
    """Export to a .safetensors file; returns the model's identity."""
    return write(export(model), path, FORMAT, model.config.to_json() | {"supernet": False})


def exact_shapes(c: VariantConfig) -> dict[str, tuple[int, ...]]:
    """Weight shapes of the exact zone; none with a factorised prior."""
    if c.prior == "factorised":
        return {}
    return {
        "h_s.0": (4 * c.h_s, c.Nz + 1, 3, 3),
        "h_s.1": (4 * c.psi, c.h_s, 3, 3),
        "first": (c.H1, c.psi + len(c.context.taps) * c.M),
        "hidden": (c.H2, c.H1),
        "output": (c.outputs, c.H2),
    }


def load(path: str | Path, device: str | torch.device = "cpu") -> LoadedVariant:
    """Read a model file and prove its bounds again. Raises ValueError naming the field, or FileNotFoundError."""
    read, text = arrays.read(path, FORMAT)
    try:
        c = VariantConfig(**json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"config: {str(error):.400}") from error
    for name, wanted in context_tensors(c).items():
        if not np.array_equal(arrays.expect(read, name, "uint8", tuple(wanted.shape)), wanted.numpy()):
            raise ValueError(f"model file: {name} is not what the config says")
    layers = layers_of(read, exact_shapes(c))
    with torch.device("meta"):
        g_a, h_a, g_s = transforms(c)
    fill({"g_a": g_a, "h_a": h_a, "g_s": g_s}, read, device)
    gains = gains_of(read, (c.levels, c.M), device)
    tables = _tables(read, c.M if c.prior == "factorised" else c.Nz)
    return LoadedVariant(c, arrays.identity(read), layers, tables, g_a, h_a, g_s, gains[0], gains[1])


def _tables(read: Arrays, channels: int) -> dict[str, Tensor]:
    mixtures = {
        "table.m.cdf": ("int32", (8193,)),
        "table.m.inverse": ("int32", (64,)),
        "table.m.share": ("int32", (64,)),
        "table.m.radius": ("int16", (64,)),
    }
    found = arrays.tables(read, channels)
    found |= {name: arrays.expect(read, name, dtype, shape) for name, (dtype, shape) in mixtures.items()}
    return {name: torch.from_numpy(table) for name, table in found.items()}


def context_of(tensors: Arrays) -> Context:
    """The context that a model file's tensors describe."""
    order = tensors["exact.context.order"].tolist()
    mask = tensors["exact.context.mask"].tolist()
    return from_spec({"mask": mask, "order": None if order == [[255]] else order})
