"""Models beside one another and a rival at equal bytes: `python -m bench.sheets.beside visual base --out DIR`.

Each of scikit-image's photographs at each of --bpp: the first model's largest stream that is not larger, then of
every other model and of the rival the largest file that is not larger than that stream. A PNG a photograph, and
beside.md with PSNR and SSIMULACRA2 of the whole pictures. Squares are shown as bench.sheets.sheet shows them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL

import ckbd
from bench.sheets.draw import Cell, Row, draw
from bench.sheets.sheet import PHOTOS, RIVALS, Coded, Photo, _write, ckbd_at, cut, rival_at
from bench.tables import table
from ckbd.evaluation.ssimulacra import ssimulacra2


def scored(x: np.ndarray, one: Coded) -> float:
    """SSIMULACRA2 of a decoded picture."""
    score = ssimulacra2(x, one.rgb)
    assert score is not None, "photographs are large enough"
    return score


def beside(
    codecs: dict[str, ckbd.Codec], rival: str, photo: Photo, rates: Sequence[float], pool: ThreadPoolExecutor
) -> tuple[np.ndarray, list[list[str]]]:
    """(sheet uint8 (H, W, 3), rows of a table) of one photograph at each rate in bpp."""
    x = photo.pixels()
    rows, lines = [], []
    for rate in rates:
        limit = int(rate * x.shape[0] * x.shape[1] / 8)
        found: list[Coded] = []
        for name, codec in codecs.items():
            one = ckbd_at(codec, x, found[0].nbytes if found else limit)
            found.append(replace(one, codec=name))
        found.append(pool.submit(rival_at, rival, x, found[0].nbytes).result())
        scores = [scored(x, one) for one in found]
        cells = [Cell(cut(x, photo.crop), "original")]
        for one, score in zip(found, scores, strict=True):
            star = "*" if one.over else ""
            caption = f"{one.codec}  {one.bpp:.3f} bpp{star}  {one.psnr:.2f} dB  S2 {score:.1f}"
            cells.append(Cell(cut(one.rgb, photo.crop), caption, one.over))
        rows.append(Row(f"{rate:g} bpp", cells))
        figures = (f"{one.psnr:.2f} / {score:.1f}" for one, score in zip(found, scores, strict=True))
        lines.append([photo.name, f"{found[0].bpp:.3f}", *figures])
    heading = f"{photo.title} ({photo.licence}); S2: SSIMULACRA2"
    return draw(heading, rows), lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.sheets.beside",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names or files; the first sets the bytes")
    parser.add_argument("--rival", default="AVIF", choices=list(RIVALS))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.15, 0.3, 0.6])
    parser.add_argument("--photos", nargs="*", default=[p.name for p in PHOTOS], metavar="NAME")
    args = parser.parse_args(argv)
    photos = {p.name: p for p in PHOTOS}
    if set(args.photos) - photos.keys():
        parser.error(f"--photos: expected some of {', '.join(photos)}, got {' '.join(args.photos)}")
    try:
        codecs = {Path(model).stem: ckbd.load(model) for model in args.models}
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name in args.photos:
            rgb, more = beside(codecs, args.rival, photos[name], args.bpp, pool)
            _write(args.out / f"beside-{name}.png", rgb)
            lines += more
    origin = ", ".join(f"{name} {codec.model_hash}" for name, codec in codecs.items())
    text = f"{origin}, Pillow {PIL.__version__}, `python -m bench.sheets.beside`.\n\nPSNR in dB / SSIMULACRA2.\n\n"
    (args.out / "beside.md").write_text(text + table(["picture", "bpp", *codecs, args.rival], lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
