"""A model file as arrays, checked, without torch: what every reader of it begins with."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ckbd.model import places, proof
from ckbd.model.config import PREVIEW_SIDE

FORMAT = "ckbd-model-1"
IDENTITY = ("exact.", "table.")  # what a stream's bits depend on

Arrays = dict[str, np.ndarray]


def read(model: str | Path, format: str) -> tuple[Arrays, str]:
    """(arrays, config as JSON text) of a model file; ValueError if it is none of that format."""
    with _opened(model) as file:
        metadata = file.metadata() or {}
        said = metadata.get("format")
        if said != format:
            raise ValueError(f"model {str(model)!r}: expected format {format!r}, got {said!r:.80}")
        return {name: _array(file, name) for name in file.keys()}, metadata.get("config", "")


@contextmanager
def _opened(model: str | Path) -> Iterator[Any]:
    """A model file, or a model by name; ValueError if it is no safetensors file."""
    try:
        with safe_open(str(places.find(model)), "np") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"model {str(model)!r}: not a safetensors file ({error})") from error


def _array(file: Any, name: str) -> np.ndarray:
    if not (name.isascii() and name.isprintable()):  # what the identity and messages are made of
        raise ValueError(f"model file: tensor {name!a:.80}: expected a name in printable ASCII")
    try:
        return file.get_tensor(name)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"model file: tensor {name}: its dtype is none of NumPy's ({error})") from error
    except ValueError as error:  # more dimensions than there may be, or none of its elements and too many
        raise ValueError(f"model file: tensor {name}: its shape is none of NumPy's ({error})") from error


def format_of(model: str | Path) -> str | None:
    """What a model file says that it is; None if it says nothing, ValueError if it is no safetensors file."""
    with _opened(model) as file:
        return (file.metadata() or {}).get("format")


def identity_of(model: str | Path) -> bytes:
    """The identity of a model file of any format, of which no more is read. Raises OSError or ValueError."""
    with _opened(model) as file:
        names = [name for name in file.keys() if name.startswith(IDENTITY)]
        if not names:
            raise ValueError(f"model {str(model)!r}: nothing in it that a stream depends on")
        return identity({name: _array(file, name) for name in names})


def identity(arrays: Arrays) -> bytes:
    """The six bytes that name a model in a stream (docs/format.md, section 6): those named exact.* and table.*."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if not name.startswith(IDENTITY):
            continue
        array = np.ascontiguousarray(arrays[name])
        if array.dtype.name not in ("int8", "uint8", "int16", "int32"):
            raise ValueError(f"model file: tensor {name}: expected integers of at most 32 bits, got {array.dtype}")
        if max(arrays[name].shape, default=0) >= 1 << 32:  # with nothing in it
            raise ValueError(f"model file: tensor {name}: expected sides below 2^32, got {arrays[name].shape}")
        digest.update(name.encode() + b"\0" + array.dtype.name.encode() + b"\0" + bytes([arrays[name].ndim]))
        digest.update(struct.pack(f"<{arrays[name].ndim}I", *arrays[name].shape))
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:6]


def expect(arrays: Arrays, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a name; ValueError, naming it, if it is missing, empty, not finite or of another kind."""
    if name not in arrays:
        raise ValueError(f"model file: tensor {name} is missing")
    array = arrays[name]
    if array.dtype.name != dtype or array.shape != shape:
        raise ValueError(f"model file: tensor {name}: expected {dtype} {shape}, got {array.dtype} {array.shape}")
    if not array.size:
        raise ValueError(f"model file: tensor {name} is empty")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"model file: tensor {name} holds values that are not finite")
    return array


def layers(
    arrays: Arrays, shapes: dict[str, tuple[int, ...]]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(weight int8, bias int32, shift uint8) of the layers of these weight shapes, proved. Raises ValueError."""
    for name in arrays:
        own = re.fullmatch(r"exact\.(\d+\..*|first|hidden|output)\.\w+", name)
        if own and own[1] not in shapes:
            raise ValueError(f"model file: the config has no place for tensor {name}")
    found = {}
    for name, shape in shapes.items():
        bias = (2, shape[0]) if name.endswith("first") else shape[:1]
        layer = (
            expect(arrays, f"exact.{name}.weight", "int8", shape),
            expect(arrays, f"exact.{name}.bias", "int32", bias),
            expect(arrays, f"exact.{name}.shift", "uint8", shape[:1]),
        )
        proof.prove(*layer, name)
        found[name] = layer
    return found


def tables(arrays: Arrays, channels: int) -> Arrays:
    """The coder's tables, those of z for so many channels. Raises ValueError naming the field."""

    def columns(name: str) -> int:
        """As many as their longest table has."""
        return arrays[name].shape[-1] if name in arrays and arrays[name].ndim == 2 else 1

    return {
        "table.y.freq": expect(arrays, "table.y.freq", "int16", (64, columns("table.y.freq"))),
        "table.y.max": expect(arrays, "table.y.max", "uint8", (64,)),
        "table.z.freq": expect(arrays, "table.z.freq", "int16", (channels, columns("table.z.freq"))),
        "table.z.low": expect(arrays, "table.z.low", "int16", (channels,)),
        "table.z.size": expect(arrays, "table.z.size", "int16", (channels,)),
    }


def preview(arrays: Arrays, M: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(weight (48, M, 3, 3), bias (48,)), float32, of a file with a preview (docs/pictures.md); None: it has none.

    Raises ValueError naming the field.
    """
    count = 3 * PREVIEW_SIDE**2
    shapes = {"preview.weight": (count, M, 3, 3), "preview.bias": (count,)}
    if not any(name.startswith("preview.") for name in arrays):
        return None
    found = weights(arrays, "preview", shapes)
    return found["weight"], found["bias"]


def weights(arrays: Arrays, part: str, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """float32 of a float network's weights, float16 or float32 in the file, by their names below `part`.

    shapes: by the names in the file, all that there may be. Raises ValueError naming the field.
    """
    strangers = {name for name in arrays if name.startswith(f"{part}.")} - shapes.keys()
    if strangers:
        raise ValueError(f"model file: the config has no place for tensor {min(strangers)}")
    found = {}
    for name, shape in shapes.items():
        half = name in arrays and arrays[name].dtype == np.float16
        array = expect(arrays, name, "float16" if half else "float32", shape)
        found[name.removeprefix(f"{part}.")] = array.astype(np.float32)
    return found
