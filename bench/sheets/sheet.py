"""Pictures for a model card: `python -m bench.sheets.sheet --model default --out docs/model`.

Photographs: ckbd at each of --bpp (the largest stream that is not larger) beside the largest JPEG, WebP and AVIF
that are not larger than ckbd's stream; a PNG for each photograph, and contact.md with the figures.
Hard pictures (bench/sheets/hard.py): ckbd at each of --qualities beside the best, by PSNR, of those three at no
more bytes; failures-*.png, and failures.md with the figures.

Rates and PSNR are those of whole files and whole pictures, all coded as RGB; sheets show a square of each, magnified.
What cannot be made as small as asked is shown at its smallest, captioned in red and with a star. The sheets are PNG:
a lossy file would add its own errors to those that are compared. AVIF's encoder takes most of the minutes.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

import ckbd
from bench.sheets.draw import Cell, Row, draw
from bench.sheets.hard import HARD, Hard
from ckbd.codec import image
from ckbd.evaluation import rivals

CROP = 128
QUALITIES = tuple(q / 2 for q in range(2, 201))
RIVALS = {"JPEG": ("jpeg-420", "jpeg-444"), "WebP": ("webp",), "AVIF": ("avif",)}
NAMES = {"jpeg-420": "JPEG 4:2:0", "jpeg-444": "JPEG 4:4:4", "webp": "WebP", "avif": "AVIF"}

CONTACT = """PSNR in dB. Rivals have no more bytes than ckbd; those that cannot go so low have their rate in brackets.

| picture | quality | bpp | ckbd | JPEG | WebP | AVIF |
| --- | --- | --- | --- | --- | --- | --- |
"""
FAILURES = """PSNR in dB. Rival: the best of JPEG, WebP and AVIF at no more bytes. Shift: mean change
of R, G and B in ckbd's picture, in levels. Lossless: the rate of PNG or lossless WebP, whichever is smaller.

| picture | quality | bpp | ckbd | rival | difference | shift | lossless, bpp |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Photo:
    """A photograph inside scikit-image's package. crop: top and left of the square that is shown."""

    name: str
    title: str
    licence: str
    crop: tuple[int, int]

    def pixels(self) -> np.ndarray:
        from skimage import data

        return getattr(data, self.name)()


# Licences as scikit-image's documentation states them. None is in the training data.
PHOTOS = (
    Photo("astronaut", "Eileen Collins", "NASA, public domain", (72, 160)),
    Photo("chelsea", "Chelsea the cat", "Stefan van der Walt, CC0", (70, 120)),
    Photo("coffee", "a cup of coffee", "Rachel Michetti, CC0", (190, 290)),
    Photo("rocket", "Falcon 9 with DSCOVR, a JPEG photograph", "SpaceX, public domain", (280, 20)),
)


@dataclass(frozen=True)
class Coded:
    """A file that was decoded again. rgb: uint8 (H, W, 3). limit: the bytes that it was allowed; may be passed."""

    codec: str
    setting: float
    nbytes: int
    limit: int
    rgb: np.ndarray
    psnr: float

    @property
    def bpp(self) -> float:
        return 8 * self.nbytes / (self.rgb.shape[0] * self.rgb.shape[1])

    @property
    def over(self) -> bool:
        return self.nbytes > self.limit

    @property
    def caption(self) -> str:
        setting = f"{self.setting:.3g}" if self.setting >= 0.01 else "0"  # a search may end at 0.0002
        return f"{self.codec} q{setting}  {self.bpp:.3f} bpp{'*' if self.over else ''}  {self.psnr:.2f} dB"


def ckbd_at(codec: ckbd.Codec, rgb: np.ndarray, nbytes: int, qualities: Sequence[float] = QUALITIES) -> Coded:
    """The largest stream of at most nbytes bytes, or the smallest if none fits."""
    picture = image.from_array(rgb)
    quality, stream = rivals.largest_within(lambda q: codec.encode([picture], q)[0], qualities, nbytes)
    x_hat = codec.decode_pictures([stream])[0].rgb
    return Coded("ckbd", quality, len(stream), nbytes, x_hat, image.psnr(rgb, x_hat))


def rival_at(name: str, rgb: np.ndarray, nbytes: int) -> Coded:
    """The largest file of a rival of RIVALS of at most nbytes bytes, or the smallest if none fits."""
    kind, setting, data = rivals.at_size(RIVALS[name], rgb, nbytes)
    x_hat = rivals.decode(data)
    return Coded(NAMES[kind], setting, len(data), nbytes, x_hat, image.psnr(rgb, x_hat))


def best(found: Sequence[Coded]) -> Coded:
    """The highest PSNR of those that are not over their limit; if all are, the smallest file."""
    fitting = [one for one in found if not one.over]
    return max(fitting, key=lambda one: one.psnr) if fitting else min(found, key=lambda one: one.nbytes)


def lossless_bytes(rgb: np.ndarray) -> int:
    """The smaller of PNG and lossless WebP."""
    lengths = []
    for options in ({"format": "PNG", "optimize": True}, {"format": "WEBP", "lossless": True, "method": 6}):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, **options)
        lengths.append(len(file.getvalue()))
    return min(lengths)


def cut(rgb: np.ndarray, crop: tuple[int, int], look: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    """The square of rgb at crop (top, left), as it is looked at."""
    return look(rgb[crop[0] : crop[0] + CROP, crop[1] : crop[1] + CROP])


def stretch(hard: Hard, original: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What Hard.gain and Hard.about do to a crop; original is the picture that about's mean is taken of."""
    about = cut(original, hard.crop).mean(axis=(0, 1)) if hard.about is None else hard.about
    return lambda rgb: np.clip(np.round(about + hard.gain * (rgb - about)), 0, 255).astype(np.uint8)


def contact(codec: ckbd.Codec, photo: Photo, rates: Sequence[float], pool: ThreadPoolExecutor):
    """(sheet uint8 (H, W, 3), lines of a table) of one photograph at each rate in bpp."""
    x = photo.pixels()
    pixels = x.shape[0] * x.shape[1]
    ours = [ckbd_at(codec, x, int(rate * pixels / 8)) for rate in rates]
    tasks = [[pool.submit(rival_at, name, x, one.nbytes) for name in RIVALS] for one in ours]
    rows, lines = [], []
    for rate, one, pending in zip(rates, ours, tasks, strict=True):
        coded = [one, *(task.result() for task in pending)]
        cells = [Cell(cut(x, photo.crop), "original")]
        cells += [Cell(cut(c.rgb, photo.crop), c.caption, c.over) for c in coded]
        rows.append(Row(f"{rate:g} bpp", cells))
        figures = (f"{c.psnr:.2f}" + (f" ({c.bpp:.3f} bpp)" if c.over else "") for c in coded)
        lines.append(f"| {photo.name} | {one.setting:g} | {one.bpp:.3f} | {' | '.join(figures)} |")
    heading = (
        f"{photo.title} ({photo.licence}), {x.shape[1]} x {x.shape[0]}; squares of {CROP} pixels, twice as large"
    )
    return draw(heading, rows), lines


def failures(codec: ckbd.Codec, group: dict[str, Hard], qualities: Sequence[float], pool: ThreadPoolExecutor):
    """(rows of a sheet, lines of a table) of the hard pictures of a group at each quality."""
    made = {name: hard.make() for name, hard in group.items()}
    ours = {name: [ckbd_at(codec, x, x.size, [quality]) for quality in qualities] for name, x in made.items()}
    tasks = {
        name: [[pool.submit(rival_at, rival, x, one.nbytes) for rival in RIVALS] for one in ours[name]]
        for name, x in made.items()
    }
    rows, lines = [], []
    for name, hard in group.items():
        x = made[name]
        look = stretch(hard, x)
        cells = [Cell(cut(x, hard.crop, look), "original")]
        lossless = 8 * lossless_bytes(x) / (x.shape[0] * x.shape[1])
        for one, pending in zip(ours[name], tasks[name], strict=True):
            other = best([task.result() for task in pending])
            cells += [Cell(cut(c.rgb, hard.crop, look), c.caption, c.over) for c in (one, other)]
            shift = (one.rgb.astype(np.float64) - x).mean(axis=(0, 1))
            bpp = f" at {other.bpp:.3f} bpp" if other.over else ""
            theirs = f"{other.psnr:.2f} ({other.codec}{bpp}) | {one.psnr - other.psnr:+.2f}"
            shifts = " ".join(f"{s:+.1f}" for s in shift)
            figures = f"{one.setting:g} | {one.bpp:.3f} | {one.psnr:.2f} | {theirs} | {shifts} | {lossless:.3f}"
            lines.append(f"| {name} | {figures} |")
        rows.append(Row(hard.title, cells))
    return rows, lines


def _write(path: Path, rgb: np.ndarray) -> None:
    image.write(path, image.from_array(rgb), optimize=True)
    print(f"{path}: {rgb.shape[1]} x {rgb.shape[0]}, {path.stat().st_size / 1e6:.2f} MB", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.sheets.sheet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, default=Path("docs/model"))
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.15, 0.3, 0.6], help="of the photographs")
    parser.add_argument("--qualities", type=float, nargs="+", default=[15, 50], help="of the hard pictures")
    parser.add_argument("--photos", nargs="*", default=[p.name for p in PHOTOS], metavar="NAME")
    parser.add_argument("--groups", nargs="*", default=list(HARD), metavar="NAME", help="of hard pictures")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="rivals that run at once")
    args = parser.parse_args(argv)
    photos = {p.name: p for p in PHOTOS}
    for option, names, known in (("--photos", args.photos, photos), ("--groups", args.groups, HARD)):
        if set(names) - known.keys():
            parser.error(f"{option}: expected some of {', '.join(known)}, got {' '.join(names)}")
    absent = [reason for names in RIVALS.values() for name in names if (reason := rivals.why_absent(name))]
    if absent:
        print(f"error: {absent[0]}", file=sys.stderr)
        return 1
    codec = ckbd.load(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    origin = f"Model {codec.model_hash}, Pillow {PIL.__version__}, `python -m bench.sheets.sheet`.\n"
    with ThreadPoolExecutor(args.threads) as pool:
        lines = []
        for name in args.photos:
            sheet, more = contact(codec, photos[name], args.bpp, pool)
            _write(args.out / f"{name}.png", sheet)
            lines += more
        if lines:
            _report(args.out / "contact.md", origin + CONTACT + "\n".join(lines) + "\n")
        lines = []
        for name in args.groups:
            rows, more = failures(codec, HARD[name], args.qualities, pool)
            heading = f"ckbd at quality {' and '.join(f'{q:g}' for q in args.qualities)}, each beside the best of"
            _write(args.out / f"failures-{name}.png", draw(f"{heading} {', '.join(RIVALS)} at no more bytes", rows))
            lines += more
        if lines:
            _report(args.out / "failures.md", origin + FAILURES + "\n".join(lines) + "\n")
    return 0


def _report(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
