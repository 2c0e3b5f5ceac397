"""Tables fitted after training: what a model's symbols are on pictures, rather than what its densities say.

    ckbd fit-tables MODEL --data FOLDER_OR_TAR [...] --out NEW.safetensors

Residuals are no Gaussians and z is not its density. The tables made here have the least code length on pictures of
the training data, within docs/format.md. Only table.* changes, and with it the model's identity: old streams need
the old file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ckbd import api
from ckbd.codec import machine
from ckbd.codec.encoder import Encoder
from ckbd.codec.files import output
from ckbd.codec.image import Picture
from ckbd.kernels import numerics
from ckbd.model import arrays, entropy
from ckbd.model import file as modelfile
from ckbd.training import data

SIDE = 512  # of larger pictures a window of this size is taken
QUALITIES = tuple(round(2 * (1 + 99 * i / 19)) / 2 for i in range(20))
EACH = 4  # qualities at which a picture is encoded
HELD_OUT = 4  # one picture in this many chooses the pseudo-counts
LEAST = HELD_OUT * len(QUALITIES) // EACH  # pictures, so that every quality has one that is held out
PSEUDO_COUNTS = tuple(8.0**i for i in range(6))
TABLES = ("table.y.freq", "table.y.max", "table.z.freq", "table.z.low", "table.z.size")


@dataclass
class Counts:
    """How often each symbol came, int64, by quality: y (Q, 64, 1024), |r| of a scale index; z (Q, Nz, 255), from -127
    up.
    """

    y: Tensor
    z: Tensor

    @classmethod
    def none(cls, Nz: int) -> Counts:
        return cls(
            torch.zeros(len(QUALITIES), entropy.SCALES, numerics.R_MAX + 1, dtype=torch.int64),
            torch.zeros(len(QUALITIES), Nz, 2 * numerics.ACT_MAX + 1, dtype=torch.int64),
        )

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.y + other.y, self.z + other.z)

    def weighted(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(y (64, 1024), z (Nz, 255)), float64: sums over the qualities by their weights (Q,)."""
        y, z = (torch.einsum("q,qrs->rs", weights, t.double()) for t in (self.y, self.z))
        return y, z


def count(encoder: Encoder, pictures: Iterable[np.ndarray]) -> tuple[Counts, Counts]:
    """The symbols of pictures, uint8 (H, W, 3) each, encoded at EACH of QUALITIES in turn: (to fit, held out)."""
    fitted, held_out = (Counts.none(encoder.model.config.Nz) for _ in range(2))
    stride = len(QUALITIES) // EACH
    for i, picture in enumerate(pictures):
        counts = held_out if i % HELD_OUT == HELD_OUT - 1 else fitted
        features = encoder.features([Picture(picture)])
        for q in range(i // HELD_OUT % stride, len(QUALITIES), stride):
            ((z, phases),) = encoder.quantise(features, [picture.shape[:2]], [QUALITIES[q]])
            channel = np.arange(z.size) % counts.z.shape[1]
            _tally(counts.z[q], channel, z.astype(np.int64) + numerics.ACT_MAX)
            for k, r in phases:
                _tally(counts.y[q], k.astype(np.int64), np.abs(r.astype(np.int64)))
    return fitted, held_out


def _tally(table: Tensor, rows: np.ndarray, columns: np.ndarray) -> None:
    """Adds one to table (rows, columns) at each pair."""
    table += torch.from_numpy(np.bincount(rows * table.shape[1] + columns, minlength=table.numel())).view(table.shape)


def code_lengths(tables: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Bits of every symbol of Counts, as entropy.table_bits counts them: y (64, 1024), z (Nz, 255), float64."""
    r, k = torch.arange(numerics.R_MAX + 1), torch.arange(entropy.SCALES)[:, None]
    largest = tables["table.y.max"].long()[:, None]
    beyond = (r - largest - 1).expand(entropy.SCALES, -1)
    y = _bits(tables["table.y.freq"], k, torch.minimum(r, largest + 1), beyond)
    low, size = (tables[f"table.z.{name}"].long()[:, None] for name in ("low", "size"))
    t = torch.arange(-numerics.ACT_MAX, numerics.ACT_MAX + 1) - low
    beyond = torch.where(t < 0, -2 * t - 1, 2 * (t - size))
    inside = (t >= 0) & (t < size)
    z = _bits(
        tables["table.z.freq"],
        torch.arange(len(low))[:, None],
        torch.where(inside, t, size),
        torch.where(inside, -1, beyond),
    )
    return y, z


def _bits(freq: Tensor, row: Tensor, column: Tensor, beyond: Tensor) -> Tensor:
    slot = entropy.PRECISION - torch.log2(freq[row, column].double())
    return slot + 8.0 * ((beyond >= 0).double() + (beyond >= 1 << 7) + (beyond >= 1 << 14))


def gaussian_mass() -> Tensor:
    """Of |r| = 0 ... 1023 for every scale index, float64 (64, 1024); the last holds all that is beyond it as well."""
    sigma = entropy.scale_of(torch.arange(entropy.SCALES, dtype=torch.float64))[:, None]
    edges = torch.arange(numerics.R_MAX + 1, dtype=torch.float64) - 0.5
    above = torch.erfc(edges / (sigma * math.sqrt(2.0)))  # both tails
    above[:, 0] = 1.0
    return above - torch.cat((above[:, 1:], torch.zeros(entropy.SCALES, 1)), dim=1)


def table_mass(tables: dict[str, Tensor]) -> Tensor:
    """Of z = -127 ... 127 for every channel by the z tables, (Nz, 255); an escape's mass is spread evenly beyond."""
    rows = torch.zeros(tables["table.z.low"].numel(), 2 * numerics.ACT_MAX + 1, dtype=torch.float64)
    for row, freq, low, size in zip(
        rows, *(tables[f"table.z.{name}"] for name in ("freq", "low", "size")), strict=True
    ):
        first, size = int(low) + numerics.ACT_MAX, int(size)
        row += float(freq[size]) / max(row.numel() - size, 1)
        row[first : first + size] = freq[:size].double()
    return rows / rows.sum(1, keepdim=True)


def best_y(mass: Tensor) -> dict[str, Tensor]:
    """The y tables of least code length for mass, any non-negative (64, 1024) with something in every row."""
    rows = []
    for k, p in enumerate(_normal(mass)):
        last = np.arange(1, entropy.largest_size(k) + 1)
        above = np.append(np.cumsum(p[::-1])[::-1], 0.0)  # above[m]: of |r| >= m
        bits = _range_bits(p, np.zeros_like(last), last, above[last + 1], above[last + 129], entropy.TOTAL // 2)
        top = int(last[bits.argmin()])
        rows.append([*p[: top + 1].tolist(), float(above[top + 1])])
    return entropy.y_tables(rows)


def best_z(mass: Tensor) -> dict[str, Tensor]:
    """The z tables of least code length for mass, any non-negative (Nz, 255) with something in every row."""
    rows, lows = [], []
    for p in _normal(mass):
        firsts, lasts = np.triu_indices(len(p))
        below = np.append(0.0, np.cumsum(p))  # below[i]: of the symbols before number i
        above = np.append(np.cumsum(p[::-1])[::-1], 0.0)
        far = below[np.maximum(firsts - 64, 0)] + above[np.minimum(lasts + 65, len(p))]
        best = _range_bits(p, firsts, lasts, below[firsts] + above[lasts + 1], far, entropy.TOTAL).argmin()
        first, last = int(firsts[best]), int(lasts[best])
        rows.append([*p[first : last + 1].tolist(), float(below[first] + above[last + 1])])
        lows.append(first - numerics.ACT_MAX)
    return entropy.z_tables(rows, lows)


def _normal(mass: Tensor) -> np.ndarray:
    return (mass / mass.sum(1, keepdim=True)).numpy()


def _range_bits(
    p: np.ndarray, first: np.ndarray, last: np.ndarray, beyond: np.ndarray, far: np.ndarray, slots: int
) -> np.ndarray:
    """Bits a symbol if the symbols first ... last of p have slots and the others, of mass beyond, are escapes.

    far: the mass of escapes whose values take two bytes. A symbol takes its share of the slots, or one if it is worth
    less, and then all are scaled to fit: close to what round_frequencies does, and it costs no loop.
    """
    own, escape = np.maximum(p, 1 / slots), np.maximum(beyond, 1 / slots)
    share, log = (np.append(0.0, np.cumsum(v)) for v in (own, p * np.log2(own)))
    total = share[last + 1] - share[first] + escape
    return np.log2(total) - (log[last + 1] - log[first]) + beyond * (8 - np.log2(escape)) + 8 * far


@dataclass
class Fit:
    """New tables, the pseudo-counts for y and z, and bits of the pictures held out, by quality: before, and after by
    tables that were fitted without them.
    """

    tables: dict[str, Tensor]
    pseudo_counts: tuple[float, float]
    before: Tensor
    after: Tensor


def fit(tables: dict[str, Tensor], fitted: Counts, held_out: Counts) -> Fit:
    """Tables that keep the mean over QUALITIES of (bits after / bits before) as low as can be.

    Every quality counts alike, relative to its own bits by the old tables. A symbol's mass is its weighted count, and
    that of a prior times a pseudo-count: the Gaussian for y, the old table for z. The pseudo-counts are those of
    least code length on held_out; then both sets of counts are fitted.
    """

    def bits(by: dict[str, Tensor], counts: Counts) -> Tensor:
        y, z = ((c * b).sum((1, 2)) for c, b in zip((counts.y, counts.z), code_lengths(by), strict=True))
        return y + z

    everything = fitted + held_out
    total = bits(tables, everything)
    weights = torch.where(total > 0, total.mean() / total, 0.0)
    seen, unseen, all_seen = (counts.weighted(weights) for counts in (fitted, held_out, everything))

    def fit_part(part: int, prior: Tensor, make: Callable[[Tensor], dict[str, Tensor]]) -> tuple[float, dict, dict]:
        """(pseudo-count, tables of fitted, tables of both) of y (part 0) or z (part 1)."""

        def loss(pseudo: float) -> float:
            lengths = code_lengths(tables | make(seen[part] + pseudo * prior))
            return float((unseen[part] * lengths[part]).sum())

        pseudo = min(PSEUDO_COUNTS, key=loss)
        return pseudo, make(seen[part] + pseudo * prior), make(all_seen[part] + pseudo * prior)

    y, z = fit_part(0, gaussian_mass(), best_y), fit_part(1, table_mass(tables), best_z)
    return Fit(y[2] | z[2], (y[0], z[0]), bits(tables, held_out), bits(y[1] | z[1], held_out))


def fit_file(encoder: Encoder, model: str, pictures: Iterable[np.ndarray], out: str) -> tuple[Fit, bytes]:
    """Writes the model file with tables fitted to pictures; returns what fit() did and the new identity.

    Raises ValueError if there are fewer than LEAST pictures.
    """
    first = list(islice(pictures := iter(pictures), LEAST))
    if len(first) < LEAST:
        raise ValueError(f"data: expected at least {LEAST} pictures, got {len(first)}")
    result = fit(encoder.model.tables, *count(encoder, chain(first, pictures)))
    read, config = arrays.read(model, arrays.FORMAT)
    tensors = {name: torch.from_numpy(array) for name, array in read.items()}
    with output.replacing(out) as temporary:
        identity = modelfile.write(tensors | result.tables, temporary, arrays.FORMAT, json.loads(config))
        modelfile.load(temporary)
    return result, identity


def check_name(option: str, path: str) -> None:
    """ValueError unless a model file may be written there."""
    if Path(path).suffix != ".safetensors" or not Path(path).absolute().parent.is_dir() or Path(path).is_dir():
        raise ValueError(f"{option}: expected a name in .safetensors in a folder that exists, got {path}")


def parser(prog: str, description: str, pictures: int) -> argparse.ArgumentParser:
    """Of a command that writes a model file anew, fitted to pictures, so many unless told."""
    made = argparse.ArgumentParser(prog=prog, description=description)
    made.add_argument("model", metavar="MODEL", help="a shipped model's name or a .safetensors file")
    made.add_argument("--data", nargs="+", required=True, help="folders or tar files of training pictures")
    made.add_argument("--out", required=True, metavar="FILE", help="the new model file (.safetensors)")
    made.add_argument(
        "--pictures", type=int, default=pictures, metavar="N", help="how many are taken (default %(default)s)"
    )
    made.add_argument("--seed", type=int, default=0, help="chooses the pictures (default 0)")
    made.add_argument("--device", default="cpu")
    made.add_argument("--threads", type=int)
    made.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    return made


def opened(args: argparse.Namespace) -> tuple[api.Codec, Iterator[np.ndarray]]:
    """The model's codec and the pictures that parser()'s arguments name. Raises OSError or ValueError."""
    if Path(args.out).exists() and not args.force:
        raise ValueError(f"{args.out} exists (--force overwrites it)")
    check_name("out", args.out)
    if args.pictures < 1:
        raise ValueError(f"pictures: expected at least 1, got {args.pictures}")
    if arrays.format_of(args.model) != arrays.FORMAT:
        raise ValueError(f"model {args.model!r}: only models of version 1 can be fitted, this is one of a recipe")
    team = machine.Team(machine.threads_of(args.threads))
    codec = api.load(args.model, device=args.device, team=team)
    return codec, data.sample(args.data, args.pictures, SIDE, args.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `ckbd fit-tables`."""
    description = (
        "Write a model file whose tables are fitted to what the model makes of pictures. "
        "The new file reads its own streams only; keep the old one for old streams."
    )
    args = parser("ckbd fit-tables", description, pictures=500).parse_args(argv)
    try:
        codec, pictures = opened(args)
        result, identity = fit_file(codec.encoder, args.model, pictures, args.out)
    except (OSError, ValueError) as error:
        print(f"ckbd fit-tables: {error}", file=sys.stderr)
        return 1
    print("quality  bits of the pictures held out, by tables of the others")
    for quality, before, after in zip(QUALITIES, result.before.tolist(), result.after.tolist(), strict=True):
        print(f"{quality:7g}  {before:12.0f} -> {after:12.0f}  {100 * (after / before - 1):+.2f} %")
    print("pseudo-counts: y {:g}, z {:g}".format(*result.pseudo_counts))
    print(f"{args.out}: model {identity.hex()}")
    return 0
