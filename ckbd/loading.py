"""ckbd.load(): the codec that a model file asks for."""

from __future__ import annotations

from pathlib import Path

import torch

from ckbd import container, modelfile, variantfile, zone
from ckbd.codec import Codec
from ckbd.variantcodec import VariantCodec


def load(
    model: str | Path = "default",
    *,
    device: str | torch.device = "cpu",
    threads: int | None = None,
    max_pixels: int = container.MAX_PIXELS,
    carrier: torch.dtype | None = None,
    backend: str = "auto",
) -> Codec:
    """Load a model file, or a shipped model by name, ready to encode and decode.

    device: where the networks run. threads: for PyTorch (process-wide) and the entropy coder; None leaves PyTorch's
    setting. max_pixels: larger pictures are refused, by FormatError before anything is allocated (on a CPU the
    default model takes about 25 bytes a pixel). backend: what computes the exact zone, "torch" or "triton"; "auto"
    is Triton on a GPU. carrier: float32 or float64, what its integers travel in with backend "torch" (None: float32,
    on CUDA float64), where the device's arithmetic is probed. Neither changes a result. ValueError if the device
    cannot, or is not exact.

    Model files of `ckbd train CONFIG` give a ckbd.variantcodec.VariantCodec. Its exact zone runs on the CPU in
    float32 whatever the device: other backends and carriers are refused.
    """
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        torch.set_num_threads(threads)
    if carrier not in (None, torch.float32, torch.float64):
        raise ValueError(f"carrier: expected torch.float32 or torch.float64, got {carrier}")
    place = _device(device)
    count = threads or torch.get_num_threads()
    if modelfile.format_of(model) == variantfile.FORMAT:
        if backend not in ("auto", "torch") or carrier not in (None, torch.float32):
            raise ValueError(f"model {str(model)!r}: a variant runs with backend 'torch' and carrier float32 only")
        return VariantCodec(variantfile.load(modelfile.find(model), place), place, count, max_pixels)
    loaded = modelfile.load(model, place)
    return Codec(loaded, zone.make(loaded.layers, place, backend, carrier), place, count, max_pixels)


def _device(name: str | torch.device) -> torch.device:
    """The device, after one allocation on it; ValueError, with PyTorch's reason, if there is none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {str(name)!r}: {str(error).splitlines()[0]}") from error
    return device
