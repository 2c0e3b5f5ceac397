"""ckbd.load(): the codec that a model file asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ckbd import api
from ckbd.api import Codec
from ckbd.codec import limits, machine
from ckbd.model import arrays, library, places

VARIANT = "ckbd-variant-1"  # ckbd.papers.file.FORMAT, whose import most have no use for


def load(
    model: str | Path = "default",
    *,
    device: str | torch.device = "cpu",
    threads: int | None = None,
    team: machine.Team | None = None,
    max_pixels: int = limits.MAX_PIXELS,
    carrier: torch.dtype | None = None,
    backend: str = "auto",
    precision: str = "auto",
) -> Codec:
    """Load a model, ready to encode and decode: a file, or by its name or its identity one of those that are here.

    device: where the networks run. threads: how many CPU threads the codec may use, for the entropy coder and, on a
    CPU, for the networks; None: as many as PyTorch is set to, a setting that is never changed. team: another codec's
    threads, to share them (its `team`). max_pixels: larger pictures are refused, by FormatError before anything is
    allocated (on a CPU the default model takes about 20 bytes a pixel). backend: what computes the exact zone. "auto"
    is Triton on a GPU, and on a CPU "integers", products of eight bits, where the processor has them exact and they
    pay; "torch" is floats that carry integers, on any device. It changes no latent of any stream. "triton" runs g_a
    and g_s in kernels too, in float16: pixels, and the symbols that an encoder chooses, are then those of other
    roundings (docs/kernels.md). carrier: float32 or float64, what integers travel in with backend "torch" (None:
    float32, on CUDA float64), where the device's arithmetic is probed; it changes no result. precision: what g_a and
    g_s multiply in on a CPU, "float32", "bfloat16", or "auto", which is bfloat16 where it is measured to be quicker:
    pixels differ by less than 0.01 dB. ValueError if the device cannot, or is not exact.

    Model files of `ckbd train CONFIG` give a codec of ckbd.papers. Its exact zone runs on the CPU in float32
    whatever the device: other backends and carriers are refused.
    """
    arguments: dict[str, Any] = {"device": device, "max_pixels": max_pixels}
    arguments |= {"carrier": carrier, "backend": backend, "precision": precision}
    if team is not None and threads is not None:
        raise ValueError("team, threads: expected one of them; a team has threads of its own")
    # Networks are then like any others, through which gradients may go, whatever they are loaded in.
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        codec = _load(library.find(model), team or machine.Team(machine.threads_of(threads)), arguments)
    # A file is a file wherever the other process begins; what has a name may lie elsewhere there.
    again: dict[str, Any] = {"model": str(model) if places.is_name(model) else Path(model).absolute()}
    again |= {"identity": codec.model.identity, "threads": threads if team is None else team.threads}
    codec.origin = _again, again | arguments
    return codec


def _again(identity: bytes, model: str | Path, **arguments: Any) -> Codec:
    """A codec that was pickled. Raises ValueError if its model file is another by now."""
    codec = load(model, **arguments)
    if codec.model.identity != identity:
        was, now = identity.hex(), codec.model_hash
        raise ValueError(f"model {str(model)!r}: was {was} when the codec was pickled, is {now} now")
    return codec


def _load(model: str | Path, team: machine.Team, arguments: dict[str, Any]) -> Codec:
    carrier, backend, precision = (arguments[name] for name in ("carrier", "backend", "precision"))
    if carrier not in (None, torch.float32, torch.float64):
        raise ValueError(f"carrier: expected torch.float32 or torch.float64, got {carrier}")
    if arrays.format_of(model) != VARIANT:
        return api.load(model, team=team, **arguments)
    from ckbd.papers import codec as papers

    if precision not in ("auto", "float32"):
        raise ValueError(f"model {str(model)!r}: a variant runs with precision float32 only")
    if backend not in ("auto", "torch") or carrier not in (None, torch.float32):
        raise ValueError(f"model {str(model)!r}: a variant runs with backend 'torch' and carrier float32 only")
    return papers.load(model, team=team, **{name: arguments[name] for name in ("device", "max_pixels")})
