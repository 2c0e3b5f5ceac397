"""Training pictures: folders and tar files of images, decoded once and kept as uint8 in memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ckbd import image


def pictures(path: str | Path) -> Iterator[np.ndarray]:
    """Every picture of a tar file or of a folder (recursively), in name order: uint8 (H, W, 3).

    Raises FileNotFoundError if there is none, ValueError naming a picture that cannot be read.
    """
    path, count = Path(path), 0
    if path.is_dir():
        for file in image.find(path):
            count += 1
            yield _read(file, file)
    else:
        try:
            with tarfile.open(path) as tar:
                members = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in image.SUFFIXES]
                for member in sorted(members, key=lambda m: m.name):
                    count += 1
                    yield _read(io.BytesIO(tar.extractfile(member).read()), f"{path}: {member.name}")
        except tarfile.TarError as error:
            raise ValueError(f"{path}: neither a folder nor a tar file: {error}") from error
    if not count:
        raise FileNotFoundError(f"{path}: no pictures ({', '.join(image.SUFFIXES)})")


def _read(source, name) -> np.ndarray:
    try:
        return image.read(source).rgb
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


class Crops:
    """Random square crops with flips and quarter turns from pictures in memory; a seed makes them repeat."""

    def __init__(self, paths: list[str], smallest: int, seed: int):
        loaded = [p for path in paths for p in pictures(path)]
        self.pictures = [p for p in loaded if min(p.shape[:2]) >= smallest]
        if not self.pictures:
            raise ValueError(f"data: none of the {len(loaded)} pictures is at least {smallest} pixels on each side")
        self.rng = np.random.default_rng(seed)

    def batch(self, count: int, size: int) -> Tensor:
        """(count, 3, size, size) float32 in [0, 1]."""
        out = np.empty((count, size, size, 3), np.uint8)
        for i in range(count):
            p = self.pictures[self.rng.integers(len(self.pictures))]
            top, left = (self.rng.integers(n - size + 1) for n in p.shape[:2])
            crop = np.rot90(p[top : top + size, left : left + size], self.rng.integers(4))
            out[i] = crop[:, ::-1] if self.rng.integers(2) else crop
        return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255
