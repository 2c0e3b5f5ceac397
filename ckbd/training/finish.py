"""What training ends with: a model file whose tables are fitted, and what it is worth on pictures it has not seen."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckbd import api
from ckbd.codec import image, machine
from ckbd.codec.files import output
from ckbd.codec.image import Picture
from ckbd.model import file
from ckbd.model.model import Checkerboard
from ckbd.training import data, fit, preview

QUALITIES = (5.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0)
WINDOW = (0.1, 1.5)  # bpp of the BD-rate
Curve = dict[str, list]  # "bpp" and "psnr" at QUALITIES


def load(path: str | Path, device: str) -> api.Codec:
    """The codec of a model file, on as many threads as PyTorch is set to."""
    return api.load(path, device=device, team=machine.Team(machine.threads_of(None)))


def export(
    model: Checkerboard, path: str | Path, raw: Path, paths: Sequence[str], pictures: int, seed: int, device: str
) -> bytes:
    """Writes a model file, which appears whole, and returns its identity.

    Its tables and its preview are fitted to so many pictures of the data; raw receives what it was before. 0: not
    fitted. Where no picture is large enough for a preview, stderr says so and there is none. Raises ValueError as
    file.export and fit.fit_file do.
    """
    if not pictures:
        with output.replacing(path) as temporary:
            return file.save(model, temporary)
    file.save(model, raw)
    encoder = load(raw, device).encoder
    identity = fit.fit_file(encoder, str(raw), data.sample(paths, pictures, fit.SIDE, seed), str(path))[1]
    try:
        preview.fit_file(load(path, device), str(path), data.sample(paths, pictures, fit.SIDE, seed), str(path))
    except ValueError as error:
        print(f"{path}: no preview: {error}", file=sys.stderr)
    return identity


def curve(path: str | Path, pictures: Sequence[Picture], device: str = "cpu") -> Curve:
    """Mean bpp and PSNR of real streams of pictures at QUALITIES."""
    codec = load(path, device)
    bpp: list[list[float]] = [[] for _ in QUALITIES]
    psnr: list[list[float]] = [[] for _ in QUALITIES]
    for p in pictures:
        streams = codec.encode_at(p, QUALITIES)
        for i, (stream, decoded) in enumerate(zip(streams, codec.decode_pictures(streams), strict=True)):
            bpp[i].append(8 * len(stream) / (p.width * p.height))
            psnr[i].append(image.psnr(p.rgb, decoded.rgb))
    return {
        "bpp": [statistics.mean(values) for values in bpp],
        "psnr": [statistics.mean(values) for values in psnr],
    }


def report(before: Curve | None, after: Curve, path: Path) -> str:
    """Writes both curves, a row a quality, and their BD-rate as JSON; returns the same as lines for people."""
    percent, words = _bd_rate(before, after) if before else (None, "")
    curves = {"": after} | ({"before_": before} if before else {})
    rows: list[dict[str, Any]] = [
        {"quality": quality} | {prefix + name: c[name][i] for prefix, c in curves.items() for name in ("bpp", "psnr")}
        for i, quality in enumerate(QUALITIES)
    ]
    with output.replacing(path) as temporary:
        temporary.write_text(json.dumps({"bd_rate": percent, "rows": rows}, indent=1) + "\n")
    lines = [
        f"quality {r['quality']:3g}: {r['bpp']:.4f} bpp {r['psnr']:.3f} dB"
        + (f", before {r['before_bpp']:.4f} bpp {r['before_psnr']:.3f} dB" if before else "")
        for r in rows
    ]
    return "\n".join([*lines, words] if before else lines)


def _bd_rate(before: Curve, after: Curve) -> tuple[float | None, str]:
    """(percent or None, what is said of it)"""
    try:
        from ckbd.evaluation.bd import bd_rate
    except ImportError as error:  # the figures are there, and this can be made of them anywhere
        return None, f"no BD-rate: {error} (pip install 'ckbd[train]')"
    found = bd_rate(before, after, WINDOW)
    if found is None:
        return None, f"no BD-rate: no PSNR that both reach between {WINDOW[0]:g} and {WINDOW[1]:g} bpp"
    low, high = found.anchor_bpp  # of WINDOW what both curves reach
    return found.percent, f"BD-rate against before: {found.percent:+.2f} % over {low:.2f} to {high:.2f} bpp"
