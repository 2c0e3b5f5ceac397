"""Where model files lie: in the package ckbd-models, and in the folders of the environment variable CKBD_MODELS."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

PACKAGE = "ckbd_models"  # of the distribution ckbd-models: the files that ship, and no code
ALIASES = {"default": "small"}
VARIABLE = "CKBD_MODELS"  # folders, separated as those of PATH
SUFFIX = ".safetensors"


def shipped() -> list[Path]:
    """The folder of the models that ship; none where ckbd-models is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    return [] if spec is None else [Path(one) for one in spec.submodule_search_locations or ()]


def folders() -> list[Path]:
    """The shipped models' folder, then those of CKBD_MODELS in their order."""
    return [*shipped(), *(Path(one) for one in os.environ.get(VARIABLE, "").split(os.pathsep) if one)]


def files() -> list[Path]:
    """The model files of these folders, in each the default first and the others by name."""

    def place(path: Path) -> tuple[bool, str]:
        return path.stem != ALIASES["default"], path.name

    return [path for folder in folders() for path in sorted(folder.glob(f"*{SUFFIX}"), key=place) if _is_file(path)]


def _is_file(path: Path) -> bool:
    """Whether it is there, and can be told to be."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_name(model: str | Path) -> bool:
    """Whether that is a model's name, rather than the path of a file."""
    return Path(model).name == str(model) and Path(model).suffix != SUFFIX


def find(model: str | Path) -> Path:
    """The file of a model: a path, or a name, of a shipped model first. Raises FileNotFoundError."""
    path = Path(model)
    if not is_name(model):
        found = path if _is_file(path) else None
    else:
        name = ALIASES.get(path.name, path.name)
        found = next((one for folder in folders() if _is_file(one := folder / f"{name}{SUFFIX}")), None)
    if found is None:
        known = ", ".join(dict.fromkeys(one.stem for one in files())) or "none"
        raise FileNotFoundError(f"model {str(model)!r}: no such file or model (known: {known}{missing()})")
    return found


def missing() -> str:
    """What to say besides where the models that ship are not installed."""
    return "" if shipped() else "; the package ckbd-models is not installed: pip install ckbd-models"
