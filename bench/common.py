"""What several benchmarks need: a name for the machine, pictures, times of stages, rows in a file."""

from __future__ import annotations

import json
import os
import platform
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from bench.gpu import record
from ckbd.codec import image
from ckbd.training import data


def machine() -> str:
    """One line: processor, threads, versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = next(
            (line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line), name
        )
    return (
        f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads"
    )


def load_pictures(paths: list[str]) -> list[image.Picture]:
    """Pictures of files, folders and tar files; without any scikit-image's astronaut, mirrored to 768 x 512."""
    if not paths:
        from skimage.data import astronaut

        a = astronaut()
        return [image.from_array(np.concatenate((a, a[:, ::-1][:, :256]), axis=1))]
    out = []
    for path in paths:
        if os.path.isdir(path) or tarfile.is_tarfile(path):
            out += [image.from_array(p) for p in data.pictures(path)]
            continue
        try:
            out.append(image.strip(image.read(path)))  # what is measured is pixels
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
    return out


def cut(picture: image.Picture, size: tuple[int, int] | None) -> image.Picture:
    """The upper left of a picture, of (width, height) at most; all of it for None. Alpha and ICC are left out."""
    width, height = size or (picture.width, picture.height)
    return image.from_array(np.ascontiguousarray(picture.rgb[:height, :width]))


def stages_of(
    codec, streams: Sequence[bytes], wait: Callable[[], None] = lambda: None, **options
) -> dict[str, float]:
    """Seconds of each stage of one decode, and as "total" of all from bytes to Pictures. wait: brings the device to
    rest, after each stage. options: of decode_pictures.
    """
    spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        wait()
        spent[name] += time.perf_counter() - start

    codec.decoder.stage = stage
    try:
        wait()
        start = time.perf_counter()
        codec.decode_pictures(streams, **options)
        spent["total"] = time.perf_counter() - start
    finally:
        del codec.decoder.stage
    return spent


def save(path: str | None, rows: list[dict]) -> None:
    """Writes what --json asks for, as far as there is anything: whoever is stopped has left the rows before."""
    if path and rows:
        record.replace(Path(path), json.dumps(rows, indent=1) + "\n")
