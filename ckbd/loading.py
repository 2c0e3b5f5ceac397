"""ckbd.load(): the codec that a model file asks for."""

from __future__ import annotations

from pathlib import Path

import torch

from ckbd import codec, container, modelfile, variantfile
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
    """Load a model file, or a shipped model by name, ready to encode and decode: ckbd.codec.load has the arguments.

    Model files of `ckbd train CONFIG` give a ckbd.variantcodec.VariantCodec. Its exact zone runs on the CPU in
    float32 whatever the device, so backend must be "auto" or "torch" and carrier None or float32, or ValueError is
    raised.
    """
    if modelfile.format_of(model) != variantfile.FORMAT:
        return codec.load(
            model, device=device, threads=threads, max_pixels=max_pixels, carrier=carrier, backend=backend
        )
    if backend not in ("auto", "torch") or carrier not in (None, torch.float32):
        raise ValueError(f"model {str(model)!r}: a variant runs with backend 'torch' and carrier float32 only")
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        torch.set_num_threads(threads)
    place = codec.open_device(device)
    loaded = variantfile.load(modelfile.find(model), place)
    return VariantCodec(loaded, place, threads or torch.get_num_threads(), max_pixels)
