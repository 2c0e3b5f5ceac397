"""install() and uninstall(): every name through which CompressAI reaches its coder, and back.

Three things hold the coder: names bound to its classes in modules (some at import, so that replacing compressai.ans
alone misses them), `_EntropyCoder` objects inside models, and the methods of the entropy models that turn tensors
into lists for it. The first two are found by looking: sys.modules, and the objects alive. What is imported or built
afterwards finds the new classes by itself.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Sequence
from typing import Any

import compressai.ans
import compressai.models  # the modules that bind the coder's names at import
import compressai.models.vbr
from compressai import _CXX
from compressai.entropy_models import entropy_models as stock

from ckbd.compat.compressai import ans, entropy, methods


# Objects of their own, so that uninstall() leaves alone who has ckbd's coder by his own choice: names are told apart
# by what they are bound to.
class RansEncoder(ans.RansEncoder):
    __doc__ = ans.RansEncoder.__doc__


class BufferedRansEncoder(ans.BufferedRansEncoder):
    __doc__ = ans.BufferedRansEncoder.__doc__


class RansDecoder(ans.RansDecoder):
    __doc__ = ans.RansDecoder.__doc__


def pmf_to_quantized_cdf(pmf: Sequence[float], precision: int, /) -> list[int]:
    return ans.pmf_to_quantized_cdf(pmf, precision)


# CompressAI's object and ours.
NAMES = {
    "RansEncoder": (compressai.ans.RansEncoder, RansEncoder),
    "BufferedRansEncoder": (compressai.ans.BufferedRansEncoder, BufferedRansEncoder),
    "RansDecoder": (compressai.ans.RansDecoder, RansDecoder),
    "pmf_to_quantized_cdf": (_CXX.pmf_to_quantized_cdf, pmf_to_quantized_cdf),
}

_lock = threading.Lock()
_installed = False


def install() -> None:
    _switch(True)


def uninstall() -> None:
    _switch(False)


def _switch(on: bool) -> None:
    global _installed
    with _lock:
        if _installed == on:
            return
        for (owner, name), method in (methods.REPLACEMENT if on else entropy.ORIGINAL).items():
            setattr(owner, name, method)
        _rebind({id(pair[not on]): pair[on] for pair in NAMES.values()})
        _installed = on


def installed() -> bool:
    return _installed


def _rebind(new_of: dict[int, Any]) -> None:
    for name, module in list(sys.modules.items()):
        if name == __name__ or not isinstance(getattr(module, "__dict__", None), dict):
            continue
        for attribute, value in list(vars(module).items()):
            new = new_of.get(id(value))
            if new is not None:
                setattr(module, attribute, new)
    for coder in gc.get_objects():
        # type() and not isinstance(), which would ask proxies of any library for their class.
        if issubclass(type(coder), stock._EntropyCoder):
            for attribute in ("_encoder", "_decoder"):
                new = new_of.get(id(type(vars(coder).get(attribute))))
                if new is not None:
                    setattr(coder, attribute, new())
