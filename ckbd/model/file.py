"""Model files: safetensors with the exact zone as integers, the coder's tables and the float transforms."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ckbd.kernels import numerics
from ckbd.kernels.numerics import IntLayer
from ckbd.model import entropy, quant
from ckbd.model.model import Checkerboard, Config, ExactLayers
from ckbd.model.transforms import Analysis, HyperAnalysis, Staged, Synthesis, channels_last

FORMAT = "ckbd-model-1"
MODELS = Path(__file__).parent / "weights"
ALIASES = {"default": "small"}
_ROWS = ("table.y.freq", "table.z.freq")  # as long as their longest table


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


def identity(tensors: dict[str, Tensor]) -> bytes:
    """The six bytes that name a model in a stream (docs/format.md, section 6): tensors named exact.* and table.*."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if not name.startswith(("exact.", "table.")):
            continue
        t = tensors[name].cpu().contiguous()
        dtype = str(t.dtype).removeprefix("torch.")
        if dtype not in ("int8", "uint8", "int16", "int32"):
            raise ValueError(f"model file: tensor {name}: expected integers of at most 32 bits, got {dtype}")
        digest.update(name.encode() + b"\0" + dtype.encode() + b"\0" + bytes([t.dim()]))
        digest.update(struct.pack(f"<{t.dim()}I", *t.shape))
        digest.update(t.numpy().astype(t.numpy().dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:6]


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
    return write(export(model), path, FORMAT, dataclasses.asdict(model.config))


def write(tensors: dict[str, Tensor], path: str | Path, format: str, config: dict) -> bytes:
    """Write a model file of a format and a config; returns the model's identity."""
    save_file(tensors, str(path), {"format": format, "config": json.dumps(config)})
    return identity(tensors)


def find(model: str | Path) -> Path:
    """The file of a model: a path, or a shipped model's name. Raises FileNotFoundError."""
    path = Path(model)
    if path.name == str(model) and path.suffix != ".safetensors":
        path = MODELS / f"{ALIASES.get(path.name, path.name)}.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in MODELS.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f"model {str(model)!r}: no such file or shipped model (shipped: {shipped})")
    return path


def read_tensors(model: str | Path, format: str) -> tuple[dict[str, Tensor], str]:
    """(tensors, config as JSON text) of a model file; ValueError if it is none of that format."""
    try:
        with safe_open(str(find(model)), "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != format:
                raise ValueError(f"model {str(model)!r}: expected format {format!r}, got {metadata.get('format')!r}")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata.get("config", "")
    except SafetensorError as error:
        raise ValueError(f"model {str(model)!r}: not a safetensors file ({error})") from error


def format_of(model: str | Path) -> str | None:
    """What a model file says that it is; None if it says nothing, ValueError if it is no safetensors file."""
    try:
        with safe_open(str(find(model)), "pt") as file:
            return (file.metadata() or {}).get("format")
    except SafetensorError as error:
        raise ValueError(f"model {str(model)!r}: not a safetensors file ({error})") from error


def load(model: str | Path = "default", device: str | torch.device = "cpu") -> Loaded:
    """Read a model file, or a shipped model by name, and prove its bounds again. device: of the float networks.

    Raises FileNotFoundError, or ValueError naming the field.
    """
    tensors, text = read_tensors(model, FORMAT)
    c = Config.from_json(text)
    layers = read_layers(tensors, exact_shapes(c))
    with torch.device("meta"):
        parts = c.networks()
    fill(parts._asdict(), tensors, device)
    gains = [expect(tensors, name, torch.float32, (c.levels, c.M)).to(device) for name in ("log_gain", "log_ungain")]
    columns = {n: tensors[n].shape[-1] if n in tensors and tensors[n].dim() == 2 else 1 for n in _ROWS}
    tables = {
        "table.y.freq": expect(tensors, "table.y.freq", torch.int16, (64, columns["table.y.freq"])),
        "table.y.max": expect(tensors, "table.y.max", torch.uint8, (64,)),
        "table.z.freq": expect(tensors, "table.z.freq", torch.int16, (c.Nz, columns["table.z.freq"])),
        "table.z.low": expect(tensors, "table.z.low", torch.int16, (c.Nz,)),
        "table.z.size": expect(tensors, "table.z.size", torch.int16, (c.Nz,)),
    }
    return Loaded(c, identity(tensors), layers, tables, *parts, log_gain=gains[0], log_ungain=gains[1])


def exact_shapes(c: Config) -> dict[str, tuple[int, ...]]:
    """Weight shapes of the exact zone (docs/numerics.md, section 4)."""
    return {
        "h_s.0": (4 * c.h_s, c.Nz + 1, 3, 3),
        "h_s.1": (4 * c.psi, c.h_s, 3, 3),
        "first": (c.H1, c.psi + 12 * c.M),
        "hidden": (c.H2, c.H1),
        "output": (2 * c.M, c.H2),
    }


def expect(tensors: dict[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The tensor of a name; ValueError, naming it, if it is missing, empty, not finite or of another kind."""
    if name not in tensors:
        raise ValueError(f"model file: tensor {name} is missing")
    t = tensors[name]
    if t.dtype != dtype or tuple(t.shape) != shape:
        raise ValueError(f"model file: tensor {name}: expected {dtype} {shape}, got {t.dtype} {tuple(t.shape)}")
    if not t.numel():
        raise ValueError(f"model file: tensor {name} is empty")
    if t.is_floating_point() and not t.isfinite().all():
        raise ValueError(f"model file: tensor {name} holds values that are not finite")
    return t


def read_layers(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> ExactLayers:
    """The integer layers of these weight shapes, proved anew. Raises ValueError naming the field."""
    layers = ExactLayers()
    for name, shape in shapes.items():
        bias = (2, shape[0]) if name == "first" else shape[:1]
        layer = IntLayer(
            expect(tensors, f"exact.{name}.weight", torch.int8, shape),
            expect(tensors, f"exact.{name}.bias", torch.int32, bias),
            expect(tensors, f"exact.{name}.shift", torch.uint8, shape[:1]),
        )
        layers[name] = quant.prove(layer, name)
    return layers


def fill(parts: dict[str, nn.Module], tensors: dict[str, Tensor], device: str | torch.device) -> None:
    """Gives float networks their weights, float32 or float16 in the file, and moves them to device, for use only.

    parts: on the device "meta", shapes alone, so that what a config claims is compared before it is allocated.
    """
    for part, module in parts.items():
        wanted = {f"{part}.{name}": tuple(t.shape) for name, t in module.state_dict().items()}
        strangers = {name for name in tensors if name.startswith(f"{part}.")} - wanted.keys()
        if strangers:
            raise ValueError(f"model file: the config has no place for tensor {min(strangers)}")
        state = {}
        for name, shape in wanted.items():
            half = name in tensors and tensors[name].dtype == torch.float16
            state[name] = expect(tensors, name, torch.float16 if half else torch.float32, shape).float()
        module.load_state_dict({name.removeprefix(f"{part}."): t for name, t in state.items()}, assign=True)
        channels_last(module.to(device)).eval().requires_grad_(False)
