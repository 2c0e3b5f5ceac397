"""Which Config a launch gets: measured once for a device and a shape, then remembered, in memory and in a file.

The file is JSON under $XDG_CACHE_HOME/ckbd (or ~/.cache/ckbd), one for each device, Triton and kernel source;
CKBD_TUNE_CACHE names another folder, and set to nothing keeps choices in memory only. What was measured on known GPUs
ships in tuned.json and needs no measuring. Otherwise a process measures for PATIENCE seconds in all, and takes the
first candidate of what is left, which the next process goes on with; in thorough(), `ckbd warm-up`, it measures all.
In integer mode a choice changes no bit; float mode offers only choices that agree on a device.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch

from ckbd.kernels.configs import Config

WARM_UP, RUNS = 3, 15
SOURCES = (
    "configs.py",
    "fused.py",
    "launch.py",
    "layer.py",
    *(f"transforms/{n}.py" for n in ("residual", "ends", "launch")),
)
SHIPPED = Path(__file__).parent / "tuned.json"  # {GPU: {choice: Config}}, which bench.gpu.day measures
PATIENCE = 10.0  # seconds of measuring in a process that wants to get on

_log = logging.getLogger("ckbd")
_measuring = threading.Lock()
_left = [PATIENCE]
# (device's name, choice) -> Config, and (device, key, candidates' id) -> candidates and Config: no strings are made.
_chosen: dict[tuple[str, str], Config] = {}
_thorough: set[tuple[str, str]] = set()  # of these, measured on a device that did nothing else meanwhile
_known: dict[tuple[torch.device, str, int], tuple[Sequence[Config], Config]] = {}


def bucket(sites: int) -> int:
    """Shapes share a choice up to the next power of two."""
    return 1 << max(sites - 1, 0).bit_length()


def among(key: str, candidates: Sequence[Config]) -> str:
    """The name of a choice: one among fewer says nothing of one among more."""
    return f"{key} of {', '.join(str(c) for c in candidates)}"


def choose(device: torch.device, key: str, candidates: Sequence[Config], run: Callable[[Config], None]) -> Config:
    """The quickest of candidates for the shape that `key` names; run(config) launches the real work with one.

    The first candidate is taken unmeasured in the interpreter, if it is the only one, when patience is at an end, and
    while a CUDA graph is being captured (call once before to have it measured).
    """
    if device.type != "cuda" or len(candidates) == 1:
        return candidates[0]
    found = _known.get((device, key, id(candidates)))
    if found is not None and found[0] is candidates:
        return found[1]
    config, final = _choose(device, among(key, candidates), candidates, run)
    if final:
        _known[device, key, id(candidates)] = candidates, config
    return config


def _choose(
    device: torch.device, key: str, candidates: Sequence[Config], run: Callable[[Config], None]
) -> tuple[Config, bool]:
    """The choice, and whether it is one for good."""
    name = _device_name(device)

    def known() -> Config | None:
        found = _shipped(name).get(key)
        if _left[0] < math.inf or (name, key) in _thorough:
            found = _chosen.get((name, key)) or _read(name).get(key) or found
        return found if found in candidates else None

    config = known()
    if config is None:
        if torch.cuda.is_current_stream_capturing():
            return candidates[0], False
        with _measuring:
            config = known()  # somebody else may have been at it
            if config is None:
                config, whole = _measure(name, candidates, run)
                if not whole:
                    return config, _left[0] <= 0
                if _left[0] == math.inf:
                    _thorough.add((name, key))
                _write(name, key, config)
    _chosen[name, key] = config
    return config, True


def _measure(name: str, candidates: Sequence[Config], run: Callable[[Config], None]) -> tuple[Config, bool]:
    """The fastest, and whether all were measured: those that patience does not last for are passed over."""
    if _left[0] <= 0:
        return candidates[0], False
    if _left[0] == PATIENCE:
        where = folder()
        kept = f", and kept in {where}" if where else ""
        _log.warning("ckbd measures its kernels on %s, once%s; `ckbd warm-up` does it ahead of time", name, kept)
    asked = 0

    def measure(config: Config) -> float:
        nonlocal asked
        if asked and _left[0] <= 0:
            return math.inf
        start = time.monotonic()
        try:
            taken = _milliseconds(lambda: run(config))
        finally:
            _left[0] -= time.monotonic() - start
        asked += 1
        return taken

    return fastest(candidates, measure), _left[0] > 0


@contextmanager
def thorough() -> Iterator[None]:
    """Everything that does not ship is measured meanwhile, however long it takes, also what was measured before: a
    process that wanted to get on may have had other work on the device.
    """
    before, _left[0] = _left[0], math.inf
    _known.clear()
    try:
        yield
    finally:
        _left[0] = before


@lru_cache(maxsize=16)
def _shipped(name: str) -> dict[str, Config]:
    """What ships for a device, whatever its Triton."""
    devices = json.loads(SHIPPED.read_text())
    return {key: Config(**value) for key, value in devices.get(gpu_of(name), {}).items()}


def gpu_of(name: str) -> str:
    """A device's name without its Triton."""
    return name.partition(", triton")[0]


def chosen(device: torch.device) -> dict[str, dict[str, dict]]:
    """All choices of a device that this process knows, as SHIPPED holds them; none of one without kernels."""
    if device.type != "cuda":
        return {}
    name = _device_name(device)
    mine = {key: asdict(config) for (one, key), config in _chosen.items() if one == name}
    return {gpu_of(name): dict(sorted(mine.items()))}


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
