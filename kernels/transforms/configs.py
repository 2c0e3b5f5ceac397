"""Which shapes of kernel g_a and g_s have to choose from. The first is what is taken unmeasured."""

from __future__ import annotations

from functools import lru_cache

import torch

from ckbd.kernels.configs import Config

_HALF, _SINGLE = torch.float16, torch.float32
ANY = "any"  # device, as which the interpreter passes

BLOCKS: dict[torch.dtype, tuple[Config, ...]] = {
    _HALF: (
        Config("spread", 64, 64, 64, 4, 3),
        Config("spread", 64, 128, 64, 8, 3),
        Config("spread", 128, 64, 64, 8, 3),
    ),
    _SINGLE: (Config("spread", 64, 64, 16, 8, 2),),
}
# What keeps features on the multiprocessor, by width: each with the GPUs whose registers and shared memory have room
# (bench/aot.py checks it). Of their blocks, those that are the whole width say nothing.
_ALL = ("sm_80", "sm_90", "sm_100")
HELD: dict[int, tuple[tuple[Config, tuple[str, ...]], ...]] = {
    64: (
        (Config("resident", 128, 128, 64, 8, 1), _ALL),
        (Config("resident", 64, 128, 64, 4, 1), _ALL),
    ),
    128: (
        (Config("resident", 64, 256, 128, 8, 1), ("sm_80", "sm_90")),
        (Config("held", 64, 32, 128, 4, 3), _ALL),
        (Config("held", 64, 32, 128, 4, 2), _ALL),
    ),
    256: (
        (Config("held", 64, 64, 256, 8, 2), _ALL),
        (Config("held", 64, 32, 256, 8, 2), _ALL),
    ),
}
_BETWEEN = {
    _HALF: (
        Config("layers", 64, 64, 64, 4, 4),
        Config("layers", 64, 128, 64, 4, 3),
        Config("layers", 128, 128, 64, 8, 3),
    ),
    _SINGLE: (Config("layers", 64, 64, 16, 8, 2),),
}
LAYERS: dict[str, dict[torch.dtype, tuple[Config, ...]]] = {
    "enter": {
        _HALF: (Config("layers", 64, 128, 32, 4, 3), Config("layers", 64, 64, 64, 4, 1)),
        _SINGLE: (Config("layers", 64, 64, 16, 8, 2),),
    },
    "patch": {
        _HALF: (Config("layers", 64, 64, 64, 4, 3),),
        _SINGLE: (Config("layers", 64, 64, 16, 8, 2),),
    },
    "up": _BETWEEN,
    "down": _BETWEEN,
    "out": {_HALF: _BETWEEN[_HALF][:2], _SINGLE: _BETWEEN[_SINGLE]},  # the third serialises wgmma in Triton 3.6
    "paint": {
        _HALF: (
            Config("layers", 64, 32, 64, 4, 3),
            Config("layers", 64, 64, 64, 8, 3),
            Config("layers", 128, 32, 64, 8, 3),
        ),
        _SINGLE: (Config("layers", 64, 32, 16, 8, 2),),
    },
}


@lru_cache(maxsize=256)
def candidates(kernel: str, dtype: torch.dtype, width: int, gpu: str = ANY) -> tuple[Config, ...]:
    """Of a kernel ("block" or a name of LAYERS) over features of a padded width; of "enter" N, which it writes."""
    if kernel == "block":
        held = HELD.get(width, ()) if dtype == _HALF else ()
        return tuple(config for config, gpus in held if gpu in (ANY, *gpus)) + BLOCKS[dtype]
    found = LAYERS[kernel][dtype]
    if kernel == "enter" and width % 128:
        found = tuple(c for c in found if c.block_n <= 64)  # cut to 64 the others would serialise wgmma
    return found


@lru_cache(maxsize=32)
def gpu_of(device: torch.device) -> str:
    """A device as HELD names it; "other" for those that it does not know."""
    if device.type != "cuda":
        return ANY
    major, minor = torch.cuda.get_device_capability(device)
    known = {(8, 0): "sm_80", (9, 0): "sm_90", (10, 0): "sm_100"}
    return "other" if torch.version.hip else known.get((major, minor), "other")
