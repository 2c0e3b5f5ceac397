"""What bench/coder.py codes: synthetic latents of known Gaussians, and real ones of a model on photographs.

sparse, dense   made up like a small codec's latents of a 768 x 512 picture: 192 channels of 32 x 48 elements. A table
                index is a profile over channels, plus a smooth field over the picture, plus noise of its own, cut off
                at the bound (index 0) and bent towards TOP. Where the cut is gives the share of elements at the
                bound, how steep the rest is gives the rate. Seeds are fixed.
kodak           what Codec.encode hands to the coder, hyper latents included, for every fourth picture of a folder
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ckbd.api import Codec
from ckbd.codec import image
from ckbd.kernels import reference
from ckbd.model import entropy

RATES = (0.12, 0.40, 1.00)  # bits a pixel
BOUND_SHARES = {"sparse": (0.86, 0.70, 0.42), "dense": (0.65, 0.45, 0.25)}  # of the elements, at each rate
KODAK_QUALITIES = (4, 31, 66)  # of the default model: RATES, as means over the 24 pictures of the Kodak set
NAMES = [f"{group}-{rate:.2f}" for group in (*BOUND_SHARES, "kodak") for rate in RATES]

WIDTH, HEIGHT = 768, 512
GRID, CHANNELS = (HEIGHT // 16, WIDTH // 16), 192
SYNTHETIC_PICTURES = 32
TOP = 44  # scale 24.7: symbols beyond an int8 would be over five standard deviations away
WEIGHTS = (0.5, 0.35, 0.15)  # shares in the variance of log scales: of the channel, of the place, of the element


@dataclass(frozen=True)
class Picture:
    """One picture's symbols, z int16 (n_z,) and phases of (k uint8 (n,), r int8 or int16 (n,)), and ideal sizes.

    y_bytes is the sum of -log2 of what the scales' exact Gaussians give to r, z_bytes the code length of z by the
    model's integer tables, which define its density.
    """

    pixels: int
    z: np.ndarray
    phases: tuple[tuple[np.ndarray, np.ndarray], ...]
    y_bytes: float
    z_bytes: float

    @property
    def k(self) -> np.ndarray:
        """Table indices of all phases, one after the other, uint8 (n,)."""
        return np.concatenate([k for k, _ in self.phases])

    @property
    def r(self) -> np.ndarray:
        """Symbols of all phases, one after the other, int8 or int16 (n,)."""
        return np.concatenate([r for _, r in self.phases])

    @property
    def bound_share(self) -> float:
        """Share of the elements of y that sit at the bound."""
        return float(np.mean(self.k == 0))


@dataclass(frozen=True)
class Workload:
    """pictures: all of them, for calls that take many. singles: those that are coded one a call."""

    name: str
    pictures: list[Picture]
    singles: list[Picture]

    @property
    def bpp(self) -> float:
        """Ideal bits a pixel of the singles, z included."""
        return 8 * sum(p.y_bytes + p.z_bytes for p in self.singles) / sum(p.pixels for p in self.singles)


def gaussian_bytes(phases: tuple[tuple[np.ndarray, np.ndarray], ...]) -> float:
    """Sum of -log2 p of the symbols under the exact Gaussians of their indices, skipped or not, in bytes."""
    pairs = ((torch.from_numpy(r).double(), torch.from_numpy(k).double()) for k, r in phases)
    return sum(entropy.gaussian_bits(r, k).sum().item() for r, k in pairs) / 8


def class_entropies() -> np.ndarray:
    """Entropy of the rounded Gaussian of each scale, bits (64,)."""
    reach = math.ceil(8 * entropy.SCALE_MAX)
    k = torch.arange(entropy.SCALES, dtype=torch.float64)[:, None]
    bits = entropy.gaussian_bits(torch.arange(-reach, reach + 1, dtype=torch.float64), k)
    return (bits * torch.exp2(-bits)).sum(dim=1).numpy()


def _log_scales(rng: np.random.Generator, profile: np.ndarray) -> np.ndarray:
    """Log scales of one picture before they are cut, (*GRID, CHANNELS), of mean 0 and variance about 1."""
    rows, columns = np.fft.fftfreq(GRID[0])[:, None], np.fft.rfftfreq(GRID[1])[None, :]
    radius = np.hypot(rows, columns)
    radius[0, 0] = np.inf  # no mean
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=GRID)) / radius, s=GRID)
    parts = (profile, (field / field.std())[..., None], rng.normal(size=(*GRID, CHANNELS)))
    return sum(math.sqrt(weight) * part for weight, part in zip(WEIGHTS, parts, strict=True))


def _indices(x: np.ndarray, floor: float, slope: float) -> np.ndarray:
    """Table indices: 0 up to x = floor, from there slope indices a unit of x, bent so as to end at TOP; uint8."""
    return np.ceil(-TOP * np.expm1(-slope / TOP * np.maximum(x - floor, 0))).astype(np.uint8)


def synthetic(name: str, rate: float, bound_share: float, seed: int) -> Workload:
    """A workload whose first picture has this share at the bound and, in expectation, this rate (bits a pixel)."""
    rng = np.random.default_rng(seed)
    profile = rng.normal(size=CHANNELS)
    x = _log_scales(rng, profile)
    floor = np.quantile(x, bound_share)
    entropies, low, high = class_entropies(), 0.0, 1000.0
    for _ in range(50):
        slope = (low + high) / 2
        if entropies[_indices(x, floor, slope)].sum() < rate * WIDTH * HEIGHT:
            low = slope
        else:
            high = slope
    scales = entropy.scale_of(torch.arange(entropy.SCALES, dtype=torch.float64)).numpy()
    pictures = []
    for number in range(SYNTHETIC_PICTURES):
        k = _indices(x if number == 0 else _log_scales(rng, profile), floor, slope)
        r = np.rint(rng.normal(size=k.shape) * scales[k])
        narrow = np.int8 if np.abs(r).max() <= 127 else np.int16
        phases = tuple(zip(_split(k), _split(r.astype(narrow)), strict=True))
        pictures.append(Picture(WIDTH * HEIGHT, np.zeros(0, np.int16), phases, gaussian_bytes(phases), 0.0))
    return Workload(name, pictures, pictures[:1])


def _split(values: np.ndarray) -> list[np.ndarray]:
    """(h, w, C) to the flat halves of the two phases."""
    halves = reference.split(torch.from_numpy(values).permute(2, 0, 1)[None])
    return [half.flatten().numpy() for half in halves]


def kodak(name: str, codec: Codec, quality: float, folder: Path) -> Workload:
    """The symbols of every fourth picture of a folder at a quality."""
    pictures = []
    for path in image.find(folder)[3::4]:
        picture = image.read(path)
        ((z, phases),) = codec.encoder.symbols([picture], [quality])
        z_bytes = entropy.table_bits(codec.model.tables, torch.from_numpy(z), []) / 8
        pictures.append(Picture(picture.width * picture.height, z, phases, gaussian_bytes(phases), z_bytes))
    return Workload(name, pictures, pictures)


def make(names: list[str], codec: Codec, folder: str | None) -> Iterator[Workload]:
    """The named workloads, each made when it is asked for; kodak's only with a folder."""
    for seed, (group, shares) in enumerate(BOUND_SHARES.items()):
        for number, (rate, share) in enumerate(zip(RATES, shares, strict=True)):
            name = f"{group}-{rate:.2f}"
            if name in names:
                yield synthetic(name, rate, share, 10 * seed + number)
    for rate, quality in zip(RATES, KODAK_QUALITIES, strict=True):
        name = f"kodak-{rate:.2f}"
        if name in names and folder is None:
            print(f"{name}: skipped, needs --kodak DIR")
        elif name in names:
            yield kodak(name, codec, quality, Path(folder))
