"""ckbd: a learned image codec that decodes in parallel, to the same latents on every machine.

codec = ckbd.load()
streams = codec.encode([PIL.Image.open("photo.jpg")], quality=50)
images = codec.decode(streams)

image = ckbd.open("photo.ckbd")  # by whichever model made it
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckbd.api import Codec
    from ckbd.codec.container import FormatError
    from ckbd.codec.image import Picture
    from ckbd.loading import load
    from ckbd.opening import decode, open

__version__ = "0.1.0"
__all__ = ["Codec", "FormatError", "Picture", "decode", "load", "open"]

# Looked up when first asked for: `ckbd --help` and ckbd.codec.container need no torch.
_HOMES = {
    "Codec": "api",
    "load": "loading",
    "open": "opening",
    "decode": "opening",
    "FormatError": "codec.container",
    "Picture": "codec.image",
}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ckbd.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ckbd' has no attribute {name!r}")
