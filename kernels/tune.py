"""Which Config a launch gets: measured once for a device and a shape, then remembered, in memory and in a file.

The file is JSON under $XDG_CACHE_HOME/ckbd (or ~/.cache/ckbd), one for each device, Triton and kernel source;
CKBD_TUNE_CACHE names another folder, and set to nothing keeps choices in memory only. In integer mode a choice
changes no bit; float mode offers only choices that agree on a device.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch

from ckbd.kernels.configs import Config

WARM_UP, RUNS = 3, 15
SOURCES = ("configs.py", "fused.py", "launch.py", "layer.py")

_chosen: dict[tuple[str, str], Config] = {}


def bucket(sites: int) -> int:
    """Shapes share a choice up to the next power of two."""
    return 1 << max(sites - 1, 0).bit_length()


def among(key: str, candidates: Sequence[Config]) -> str:
    """The name of a choice: one among fewer says nothing of one among more."""
    return f"{key} of {', '.join(str(c) for c in candidates)}"


def choose(device: torch.device, key: str, candidates: Sequence[Config], run: Callable[[Config], None]) -> Config:
    """The quickest of candidates for the shape that `key` names; run(config) launches the real work with one.

    The first candidate is taken unmeasured in the interpreter, if it is the only one, and while a CUDA graph is being
    captured (call once before to have it measured).
    """
    if device.type != "cuda" or len(candidates) == 1:
        return candidates[0]
    name, key = _device_name(device), among(key, candidates)
    known = _chosen.get((name, key)) or _read(name).get(key)
    if known is not None and known in candidates:
        _chosen[name, key] = known
        return known
    if torch.cuda.is_current_stream_capturing():
        return candidates[0]
    best = fastest(candidates, lambda config: _milliseconds(lambda: run(config)))
    _chosen[name, key] = best
    _write(name, key, best)
    return best


def fastest(candidates: Sequence[Config], measure: Callable[[Config], float]) -> Config:
    """The candidate with the smallest measure. One that does not fit the device (Triton says so when it is first
    launched) is passed over; if none fits, the last refusal is raised.
    """
    from triton.runtime.errors import OutOfResources

    times: dict[Config, float] = {}
    refusal: Exception | None = None
    for config in candidates:
        try:
            times[config] = measure(config)
        except OutOfResources as error:
            refusal = error
    if not times:
        raise RuntimeError(f"none of {len(candidates)} kernel configurations fits this device") from refusal
    return min(times, key=times.__getitem__)


def _milliseconds(run: Callable[[], None]) -> float:
    """Of one call on an idle device, with what the host takes to launch it: that is how a decoder calls, which waits
    for the entropy coder between two phases. In a CUDA graph launches cost less: give `phase` a config there.
    """
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


@lru_cache(maxsize=16)
def _device_name(device: torch.device) -> str:
    import triton

    p = torch.cuda.get_device_properties(device)
    return f"{p.name}, {p.major}.{p.minor}, {p.multi_processor_count} multiprocessors, triton {triton.__version__}"


def folder() -> Path | None:
    """Where choices are kept between processes; None: nowhere."""
    named = os.environ.get("CKBD_TUNE_CACHE")
    if named is not None:
        return Path(named) if named else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ckbd"


def _path(name: str) -> Path | None:
    where = folder()
    digest = hashlib.sha256(name.encode())
    for source in SOURCES:
        digest.update((Path(__file__).parent / source).read_bytes())
    return None if where is None else where / f"kernels-{digest.hexdigest()[:16]}.json"


def _read(name: str) -> dict[str, Config]:
    """The choices of a device's file. A file that cannot be understood is as good as none, but that is said."""
    path = _path(name)
    if path is None or not path.is_file():
        return {}
    try:
        return {key: Config(**value) for key, value in json.loads(path.read_text())["chosen"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(f"{path} is damaged ({error}); kernels are measured again", stacklevel=4)
        return {}


def _write(name: str, key: str, config: Config) -> None:
    """Adds a choice. The file is replaced in one step, so that no reader sees half of one; two writers at once may
    lose a choice, which is then measured again.
    """
    path = _path(name)
    if path is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # choose() has read the file before, and said what is wrong with it
        chosen = {k: asdict(c) for k, c in (_read(name) | {key: config}).items()}
    file = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump({"device": name, "chosen": chosen}, file, indent=1)
        os.replace(file.name, path)
    except OSError as error:
        if file is not None:
            Path(file.name).unlink(missing_ok=True)
        warnings.warn(f"kernel choices cannot be kept in {path.parent}: {error}", stacklevel=4)
