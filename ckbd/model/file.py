"""Model files: safetensors with the exact zone as integers, the coder's tables and the float transforms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ckbd.kernels import numerics
from ckbd.kernels.numerics import IntLayer
from ckbd.model import arrays, entropy, quant
from ckbd.model.arrays import Arrays
from ckbd.model.config import Config, exact_shapes
from ckbd.model.model import Checkerboard, ExactLayers, networks
from ckbd.model.transforms import Analysis, HyperAnalysis, Staged, Synthesis, channels_last


class Networks(Protocol):
    """What every loaded model has, whatever its context: the float networks, gains, tables and identity."""

    @property
    def identity(self) -> bytes: ...
    @property
    def tables(self) -> dict[str, Tensor]: ...
    @property
    def g_a(self) -> Staged: ...
    @property
    def g_s(self) -> Staged: ...
    @property
    def log_gain(self) -> Tensor: ...
    @property
    def log_ungain(self) -> Tensor: ...


@dataclass
class Loaded:
    """A model as it runs. layers are int8, int32 and uint8 on the CPU; tables the integer tensors of
    docs/format.md.
    """

    config: Config
    identity: bytes
    layers: ExactLayers
    tables: dict[str, Tensor]
    g_a: Analysis
    h_a: HyperAnalysis
    g_s: Synthesis
    log_gain: Tensor
    log_ungain: Tensor
    preview: tuple[Tensor, Tensor] | None = None  # weight and bias, if the file has one; as ckbd.model.arrays.preview


def export(model: Checkerboard) -> dict[str, Tensor]:
    """The tensors of a model file: the float networks in float16, whose 11 bits are plenty for weights.

    Raises ValueError if a layer cannot be proved exact, or a weight is beyond float16.
    """
    tensors = {}
    with torch.no_grad():
        for name, layer in model.exact.integers().items():
            for field, value in zip(("weight", "bias", "shift"), quant.prove(layer, name)[:3], strict=True):
                tensors[f"exact.{name}.{field}"] = value.cpu().contiguous()
        tensors |= entropy.gaussian_tables() | entropy.factorized_tables(model.prior, numerics.ACT_MAX)
        for part in ("g_a", "h_a", "g_s"):
            for name, value in getattr(model, part).state_dict().items():
                if not value.half().isfinite().all():
                    raise ValueError(f"{part}.{name}: expected numbers within float16, got {value.abs().max():g}")
                tensors[f"{part}.{name}"] = value.half().cpu().contiguous()
        tensors |= {"log_gain": model.log_gain.detach().cpu(), "log_ungain": model.log_ungain.detach().cpu()}
    return tensors


def save(model: Checkerboard, path: str | Path) -> bytes:
    """Export to a .safetensors file; returns the model's identity."""
    return write(export(model), path, arrays.FORMAT, model.config.to_json())


def write(tensors: dict[str, Tensor], path: str | Path, format: str, config: dict) -> bytes:
    """Write a model file of a format and a config; returns the model's identity."""
    save_file(tensors, str(path), {"format": format, "config": json.dumps(config)})
    return arrays.identity({name: tensor.numpy() for name, tensor in tensors.items()})


def load(model: str | Path = "default", device: str | torch.device = "cpu") -> Loaded:
    """Read a model file, or a shipped model by name, and prove its bounds again. device: of the float networks.

    Raises FileNotFoundError, or ValueError naming the field.
    """
    read, text = arrays.read(model, arrays.FORMAT)
    c = Config.from_json(text)
    layers = layers_of(read, exact_shapes(c))
    with torch.device("meta"):
        parts = networks(c)
    fill(parts._asdict(), read, device)
    gains = gains_of(read, (c.levels, c.M), device)
    tables = {name: torch.from_numpy(table) for name, table in arrays.tables(read, c.Nz).items()}
    preview = arrays.preview(read, c.M)
    return Loaded(
        c,
        arrays.identity(read),
        layers,
        tables,
        *parts,
        log_gain=gains[0],
        log_ungain=gains[1],
        preview=preview and (torch.from_numpy(preview[0]).to(device), torch.from_numpy(preview[1]).to(device)),
    )


def layers_of(read: Arrays, shapes: dict[str, tuple[int, ...]]) -> ExactLayers:
    """The integer layers of these weight shapes, proved anew. Raises ValueError naming the field."""
    found = arrays.layers(read, shapes)
    return ExactLayers(
        (name, IntLayer(torch.from_numpy(weight), torch.from_numpy(bias), torch.from_numpy(shift)))
        for name, (weight, bias, shift) in found.items()
    )


def gains_of(read: Arrays, shape: tuple[int, int], device: str | torch.device) -> list[Tensor]:
    """log_gain and log_ungain."""
    names = ("log_gain", "log_ungain")
    return [torch.from_numpy(arrays.expect(read, name, "float32", shape)).to(device) for name in names]


def fill(parts: dict[str, nn.Module], read: Arrays, device: str | torch.device) -> None:
    """Gives float networks their weights, float32 or float16 in the file, and moves them to device, for use only.

    parts: on the device "meta", shapes alone, so that what a config claims is compared before it is allocated.
    """
    for part, module in parts.items():
        wanted = {f"{part}.{name}": tuple(t.shape) for name, t in module.state_dict().items()}
        found = arrays.weights(read, part, wanted)
        state = {name: torch.from_numpy(array) for name, array in found.items()}
        module.load_state_dict({name.removeprefix(f"{part}."): t for name, t in state.items()}, assign=True)
        channels_last(module.to(device)).eval().requires_grad_(False)
