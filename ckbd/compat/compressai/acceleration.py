"""accelerate() and restore(): the context models in a model get a class with a fast way before their own."""

from __future__ import annotations

import functools
from typing import Any, SupportsIndex

from compressai.latent_codecs import CheckerboardLatentCodec
from torch import nn

from ckbd.compat.compressai import serial as serial_codecs
from ckbd.compat.compressai.checkerboard import StockCheckerboard
from ckbd.compat.compressai.fused import FusedCheckerboard
from ckbd.compat.compressai.plain import Unsupported
from ckbd.compat.compressai.wavefront import WavefrontJoint, WavefrontRaster

PARAMETERS = {"stock": StockCheckerboard, "fused": FusedCheckerboard}
SERIAL = {
    "stock": (serial_codecs.StockJoint, serial_codecs.StockRaster),
    "sparse": (serial_codecs.SparseJoint, serial_codecs.SparseRaster),
    "wavefront": (WavefrontJoint, WavefrontRaster),
}


def accelerate(model: nn.Module, parameters: str = "stock", serial: str = "stock") -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for name, value, known in (("parameters", parameters, PARAMETERS), ("serial", serial, SERIAL)):
        if value not in known:
            raise ValueError(f"{name}: expected {' or '.join(map(repr, known))}, got {value!r}")
    mixins: dict[Any, Any] = {CheckerboardLatentCodec: PARAMETERS[parameters]}  # by the class that they go before
    mixins.update((mixin.HOST, mixin) for mixin in SERIAL[serial])
    found = [
        (name, module, host, mixin)
        for name, module in model.named_modules()
        for host, mixin in mixins.items()
        if isinstance(module, host)
    ]
    if not found:
        hosts = ", ".join(host.__name__ for host in mixins)
        raise ValueError(f"model: {type(model).__name__} holds nothing to accelerate (none of {hosts})")
    for name, module, host, mixin in found:  # all of them before any is changed
        reason = _reason(module, host, mixin)
        if reason:
            raise ValueError(f"{name or 'model'} ({_base(module).__name__}): {reason}")
    for _, module, _, mixin in found:
        module.__class__ = fast_class(mixin, _base(module))
    return model


def restore(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, Accelerated):
            module.__class__ = _base(module)
    return model


class Accelerated:
    """A module whose class was put together here: copies and pickles put it together again."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        cls: Any = type(self)
        state = self.__getstate__() if hasattr(self, "__getstate__") else self.__dict__
        return _rebuild, (cls.ckbd_mixin, cls.ckbd_base), state


@functools.cache
def fast_class(mixin: type, base: type) -> type:
    """The class of a module of class base with mixin's methods before its own; its name stays."""
    body = {"ckbd_mixin": mixin, "ckbd_base": base, "__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, (Accelerated, mixin, base), body)


def _rebuild(mixin: type, base: type) -> nn.Module:
    cls: Any = fast_class(mixin, base)
    return cls.__new__(cls)


def _base(module: nn.Module) -> type:
    cls: Any = type(module)
    return cls.ckbd_base if isinstance(module, Accelerated) else cls


def _reason(module: nn.Module, host: type, mixin: Any) -> str | None:
    """Why a module cannot have a setting, or None."""
    base = _base(module)
    for name in mixin.REPLACED:
        if name in vars(module) or getattr(base, name) is not getattr(host, name):
            return f"it has a {name} of its own, which this setting would replace"
    try:
        mixin.check(module)
    except Unsupported as reason:
        return str(reason)
    return None
