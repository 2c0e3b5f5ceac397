"""Training pictures: folders and tar files of images, decoded once and kept as uint8 in memory."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ckbd.codec import image
from ckbd.training import drawn

Fetcher = Callable[[], tuple[image.Source, str]]

ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))  # of channels; the first leaves them
SATURATION = 3.0  # the most by which a crop's distance from its own gray grows
DRAWN = 1024  # pictures drawn for crops that are cut on a device


@dataclass(frozen=True)
class Mix:
    """Shares of a batch's crops, 0 to 1. drawn: drawn, no photographs. colour: with their channels in another order,
    half of them with stronger colours besides.
    """

    drawn: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        for name in ("drawn", "colour"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {getattr(self, name)}")


def recolour(x: Tensor, order: Tensor, saturation: Tensor) -> Tensor:
    """x (B, 3, H, W) in 255ths of 1, with the channels that order (B, 3) int64 names and with its colours saturation
    (B,) times as far from gray; again in 255ths.
    """
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    gray = x.mean(1, keepdim=True)
    x = gray + saturation.view(-1, 1, 1, 1) * (x - gray)
    return torch.round(255 * x).clamp(0, 255) / 255


def pictures(path: str | Path) -> Iterator[np.ndarray]:
    """Every picture of a tar file or of a folder (recursively), in name order: uint8 (H, W, 3).

    Raises FileNotFoundError if there is none, ValueError naming a picture that cannot be read.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor())
        # Files are opened and tar members read one by one; decoding is what takes long.
        yield from pool.map(_read, *zip(*(fetch() for fetch in _fetchers(path, stack)), strict=True))


def sample(paths: Sequence[str | Path], count: int, side: int, seed: int) -> Iterator[np.ndarray]:
    """count pictures of tar files and folders, or all if there are fewer: uint8 (H, W, 3), side x side at most.

    A seed chooses them, their order and, of those larger than side, the window. No more than these are read.
    Raises as pictures() does.
    """
    rng = np.random.default_rng(seed)
    with ExitStack() as stack:
        fetchers = [fetch for path in paths for fetch in _fetchers(path, stack)]
        for i in rng.permutation(len(fetchers))[:count]:
            picture = _read(*fetchers[i]())
            top, left = (rng.integers(max(n - side, 0) + 1) for n in picture.shape[:2])
            yield picture[top : top + side, left : left + side]


def _fetchers(path: str | Path, stack: ExitStack) -> list[Fetcher]:
    """A function for each picture, in name order, that gives _read's arguments while stack is open."""
    path = Path(path)
    fetchers: list[Fetcher]
    if path.is_dir():
        fetchers = [partial(_pair, file, str(file)) for file in image.find(path)]
    else:
        with _naming(path):
            tar = stack.enter_context(tarfile.open(path))
            members = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in image.SUFFIXES]
        fetchers = [partial(_extract, path, tar, member) for member in sorted(members, key=lambda m: m.name)]
    if not fetchers:
        raise FileNotFoundError(f"{path}: no pictures ({', '.join(image.SUFFIXES)})")
    return fetchers


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not a decompressor's
            raise
        why = next(iter(str(error).splitlines()), "").rstrip(":") or type(error).__name__
        raise ValueError(f"{path}: neither a folder nor a tar file: {why}") from error


def _pair(source: image.Source, name: str) -> tuple[image.Source, str]:
    return source, name


def _extract(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[image.Source, str]:
    with _naming(path):
        file = tar.extractfile(member)
        assert file is not None  # a member that is a file has one
        return io.BytesIO(file.read()), f"{path}: {member.name}"


def _read(source: image.Source, name: str) -> np.ndarray:
    try:
        return image.read(source).rgb
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


class Crops:
    """Random square crops with flips and quarter turns from pictures in memory; a seed makes them repeat.

    Drawn ones are drawn for their batch.
    """

    def __init__(self, paths: list[str], smallest: int, seed: int, mix: Mix | None = None):
        loaded = [p for path in paths for p in pictures(path)]
        self.found = len(loaded)
        self.pictures = [p for p in loaded if min(p.shape[:2]) >= smallest]
        if not self.pictures:
            raise ValueError(f"data: none of the {len(loaded)} pictures is at least {smallest} pixels on each side")
        self.rng = np.random.default_rng(seed)
        self.mix = mix or Mix()

    def batch(self, count: int, size: int) -> Tensor:
        """(count, 3, size, size) float32 in [0, 1]."""
        out = np.empty((count, size, size, 3), np.uint8)
        for i in range(count):
            if self.mix.drawn and self.rng.random() < self.mix.drawn:
                p = drawn.picture(self.rng, size)
            else:
                p = self.pictures[self.rng.integers(len(self.pictures))]
            top, left = (self.rng.integers(n - size + 1) for n in p.shape[:2])
            crop = np.rot90(p[top : top + size, left : left + size], int(self.rng.integers(4)))
            out[i] = crop[:, ::-1] if self.rng.integers(2) else crop
        x = torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255
        for i in range(count if self.mix.colour else 0):
            if self.rng.random() < self.mix.colour:
                saturation = 1 + (SATURATION - 1) * self.rng.random() * self.rng.integers(2)
                order = torch.tensor([ORDERS[self.rng.integers(1, len(ORDERS))]])
                x[i : i + 1] = recolour(x[i : i + 1], order, torch.tensor([saturation], dtype=x.dtype))
        return x


class DeviceCrops:
    """The crops of Crops, drawn and cut on the device where they are used: a step with them can be a CUDA graph.

    pictures: uint8 (H, W, 3) of any sizes, held on the device; the draws are of torch's generator there. Drawn ones
    come from a store of DRAWN of the seed, side x side.
    """

    def __init__(
        self,
        pictures: list[np.ndarray],
        device: str | torch.device,
        mix: Mix | None = None,
        seed: int = 0,
        side: int = 320,
    ):
        self.mix, self.photographs = mix or Mix(), len(pictures)
        if self.mix.drawn:
            pictures = [*pictures, *drawn.pictures(DRAWN, side, seed)]
        flat = np.concatenate([p.reshape(-1) for p in pictures])
        self.pixels = torch.from_numpy(flat).to(device)
        sizes = torch.tensor([p.shape[:2] for p in pictures])
        starts = torch.tensor([p.size for p in pictures]).cumsum(0) - sizes.prod(1) * 3
        self.sizes, self.starts = sizes.to(device), starts.to(device)
        self.orders = torch.tensor(ORDERS, device=device)

    def batch(self, count: int, size: int) -> Tensor:
        """(count, 3, size, size) float32 in [0, 1], channels last in memory."""
        device = self.pixels.device
        which = torch.randint(self.photographs, (count,), device=device)
        if self.mix.drawn:
            other = torch.randint(self.photographs, len(self.starts), (count,), device=device)
            which = torch.where(torch.rand(count, device=device) < self.mix.drawn, other, which)
        height, width = self.sizes[which].unbind(1)
        # Doubles below 1 times at most 2^31: the product's floor is uniform and below the limit.
        top, left = (
            (torch.rand(count, device=device, dtype=torch.float64) * (n - size + 1)).long() for n in (height, width)
        )
        flip = torch.randint(2, (3, count, 1, 1), device=device).bool()
        along = torch.arange(size, device=device)
        row, column = along.view(1, -1, 1), along.view(1, 1, -1)
        row = torch.where(flip[0], size - 1 - row, row)
        column = torch.where(flip[1], size - 1 - column, column)
        row, column = torch.where(flip[2], column, row), torch.where(flip[2], row, column)
        first = (self.starts[which].view(-1, 1, 1) + 3 * ((top.view(-1, 1, 1) + row) * width.view(-1, 1, 1))) + 3 * (
            left.view(-1, 1, 1) + column
        )
        index = first.unsqueeze(-1) + torch.arange(3, device=device)
        x = (self.pixels[index].float() / 255).permute(0, 3, 1, 2)
        if not self.mix.colour:
            return x
        chosen = torch.rand(count, device=device) < self.mix.colour
        order = torch.where(chosen, torch.randint(1, len(ORDERS), (count,), device=device), 0)
        strength = torch.rand(count, device=device) * torch.randint(2, (count,), device=device)
        return recolour(x, self.orders[order], torch.where(chosen, 1 + (SATURATION - 1) * strength, 1.0))
