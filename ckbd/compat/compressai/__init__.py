"""CompressAI models on ckbd's entropy path: the same bytes, many times faster. `docs/compressai.md` says how much.

    import ckbd.compat.compressai as cc
    cc.install()                  # every CompressAI model in the process
    model = cc.accelerate(model)  # and its context models do no work that they can leave out

`cc.ans` has CompressAI's coder classes and works without CompressAI; everything else needs compressai 1.2.6 to 1.2.8
(`pip install ckbd[compressai]`).
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["accelerate", "install", "installed", "restore", "uninstall"]


def install() -> None:
    """Puts ckbd's coder in the place of CompressAI's in this process, for models built before and after.

    `compressai.ans.*` and every module's name for it, `pmf_to_quantized_cdf`, the coders of models alive, and the
    compress, decompress and build_indexes methods of the entropy models (EntropyBottleneck, GaussianConditional,
    their mixture and variable-rate forms) give way to ones with the same signatures, results, error messages and
    bytes. Twice is once. What CompressAI's coder answers with a crash, an endless loop or a read beyond its buffer
    (damaged streams, bad indexes, tables that are none) raises ValueError. Raises ImportError without CompressAI.
    """
    _part("patch").install()


def uninstall() -> None:
    """Gives everything that install() replaced back to CompressAI; does nothing if it was not called."""
    _part("patch").uninstall()


def installed() -> bool:
    """Whether install() is in force."""
    return _part("patch").installed()


def accelerate(model: nn.Module, parameters: str = "stock", serial: str = "stock") -> nn.Module:
    """Makes the context models in a CompressAI model leave out what they need not compute. Returns model, changed.

    Checkerboard codecs (`CheckerboardLatentCodec`, wherever in the model): with parameters="stock" the bytes,
    reconstructions and errors stay CompressAI's own, to the bit. With "fused" they run on ckbd's float phase kernels
    (half the lattice, live taps, context convolution and first layer as one): their streams are a little different
    and decode with the same setting on the same kind of device; latents of odd width work, too.

    Serial models (`JointAutoregressiveHierarchicalPriors` and what derives from it, `RasterScanLatentCodec`): with
    serial="stock" the bytes stay CompressAI's own; with "sparse" each position takes its live taps alone, in another
    order of summation; with "wavefront" all positions of an anti-diagonal are computed at once, and the stream has
    them in that order. Streams of the latter two decode with the same setting on the same kind of device with as
    many threads.

    state_dict() keeps its keys and values, and copies, pickles, `.to(device)` and changed weights do what one
    expects. Calling it again changes the setting. Raises TypeError for what is not an nn.Module, ValueError for an
    unknown setting, for a model without any of these codecs, and for a codec that cannot have what was asked,
    naming it and the reason.
    """
    return _part("acceleration").accelerate(model, parameters, serial)


def restore(model: nn.Module) -> nn.Module:
    """Undoes accelerate(). Returns model, changed."""
    return _part("acceleration").restore(model)


def _part(name: str) -> ModuleType:
    try:
        importlib.import_module("compressai")
    except ImportError as error:
        raise ImportError(
            "ckbd.compat.compressai works on compressai 1.2.6 to 1.2.8 (pip install ckbd[compressai]), "
            f"importing which failed: {error}"
        ) from error
    return importlib.import_module(f"ckbd.compat.compressai.{name}")
