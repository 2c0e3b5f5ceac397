"""What ckbd.evaluation.evaluate.run returned, for people: a table, CSV, JSON and a plot."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ckbd.codec.files.output import replacing
from ckbd.evaluation.bd import BD, Curve, scaled
from ckbd.evaluation.evaluate import COLUMNS, EXCESS_BYTES, EXCESS_SHARE

# Okabe and Ito's colours, which stay apart under the common colour blindnesses.
STYLES = {
    "ckbd": ("#000000", "o"),
    "jpeg-420": ("#E69F00", "v"),
    "jpeg-444": ("#D55E00", "^"),
    "jpeg2000": ("#CC79A7", "s"),
    "webp": ("#009E73", "D"),
    "avif": ("#0072B2", "P"),
}

LABELS = {"psnr": "PSNR", "ms_ssim": "MS-SSIM", "ssimulacra2": "SSIMULACRA2"}
DIGITS = {"psnr": 2, "ms_ssim": 4, "ssimulacra2": 2}
AXES = {
    "psnr": "PSNR, RGB (dB)",
    "ms_ssim": "MS-SSIM, RGB (dB: -10 log10(1 - MS-SSIM))",
    "ssimulacra2": "SSIMULACRA2 (100: equal)",
}


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _psnr_at(curve: Curve, bpp: float) -> float | None:
    """The curve's PSNR at a rate, linear in log bpp between its points; None beyond its ends."""
    points = sorted(zip(curve["bpp"], curve["psnr"], strict=True))
    if not points or not points[0][0] <= bpp <= points[-1][0]:
        return None
    rates, psnrs = zip(*points, strict=True)
    return float(np.interp(math.log(bpp), np.log(rates), psnrs))


def _deltas(result: dict[str, Any], metric: str) -> dict[str, BD | None]:
    suffix = "" if metric == "psnr" else f"_{metric}"
    pairs = ((name, percent, result["bd_bpp" + suffix][name]) for name, percent in result["bd_rate" + suffix].items())
    return {name: None if percent is None else BD(percent, bpp) for name, percent, bpp in pairs}


def bd_lines(deltas: dict[str, dict[str, BD | None]]) -> list[str]:
    """A heading and a line a rival from {metric: {rival: its BD-rate, or None}}; "-" where nothing is in common."""
    lines = [["BD-rate, negative: ckbd needs fewer bytes", *(f"by {LABELS[metric]}" for metric in deltas)]]
    for name in next(iter(deltas.values())):
        found = (by_rival[name] for by_rival in deltas.values())
        cells = (
            f"{d.percent:+.2f} % [{d.anchor_bpp[0]:.2f} .. {d.anchor_bpp[1]:.2f} bpp]" if d else "-" for d in found
        )
        lines.append([f"  {name}", *cells])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return [*text, "(in brackets the rival's rates that it was taken over)"]


def table(result: dict[str, Any]) -> str:
    """The codec's curve, every rival's PSNR at the same bpp, the BD-rates, and what else must be known."""
    curve, rivals = result["curve"], result["rivals"]
    heads = [LABELS[metric] + " dB" * (metric == "psnr") for metric in result["metrics"]]
    lines = [["quality", "bpp", *heads, *rivals]]
    for i, (quality, bpp) in enumerate(zip(curve["quality"], curve["bpp"], strict=True)):
        own = [_text(curve[metric][i], DIGITS[metric]) for metric in result["metrics"]]
        others = [_text(_psnr_at(rival, bpp), 2) for rival in rivals.values()]
        lines.append([f"{quality:g}", f"{bpp:.4f}", *own, *others])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    count = len(result["images"])
    text.insert(0, f"model {result['model']}, mean over {count} image{'s' * (count != 1)}")
    if rivals:
        text[0] += "; under a rival's name its PSNR in dB at the same bpp"
        text += ["", *bd_lines({metric: _deltas(result, metric) for metric in result["metrics"]})]
    text += [f"  {name:10} not measured: {reason}" for name, reason in result["absent"].items()]
    worst = result["estimate"]
    verdict = "within" if worst["within_bound"] else "BEYOND"
    text += [
        "",
        f"Farthest from its estimated size: {worst['image']} at quality {worst['setting']:g}, "
        f"{worst['bytes']} bytes, {worst['excess_bytes']:+.1f} against the estimate "
        f"({verdict} {EXCESS_SHARE:.1%} + {EXCESS_BYTES} bytes)",
    ]
    return "\n".join(text)


def write_json(path: str | os.PathLike[str], result: dict[str, Any]) -> None:
    """The result without its rows, which are the CSV's."""
    kept = {key: value for key, value in result.items() if key != "rows"}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(path: str | os.PathLike[str], rows: Sequence[dict[str, Any]]) -> None:
    """One line an image and setting under ckbd.evaluation.evaluate.COLUMNS; a value that is missing is left empty."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raises ValueError if a plot cannot have this suffix; to be asked before long work rather than after."""
    if Path(path).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{path}: expected a name in .png, .svg or .pdf for a plot")


def plot(path: str | os.PathLike[str], result: dict[str, Any]) -> None:
    """A panel each for PSNR and, where they exist, MS-SSIM in dB and SSIMULACRA2, over bpp, logarithmic.

    PNG, SVG or PDF by the suffix.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullFormatter

    check_plot(path)
    curves = {"ckbd": result["curve"], **{n: c for n, c in result["rivals"].items() if n in STYLES}}
    panels = [m for m in AXES if any(value is not None for curve in curves.values() for value in curve[m])]
    figure = Figure(figsize=(6.5 * len(panels), 5), dpi=150, layout="constrained")
    for axes, metric in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        for name, curve in curves.items():
            colour, marker = STYLES[name]
            points = sorted((b, v) for b, v in zip(curve["bpp"], scaled(curve, metric), strict=True) if v is not None)
            style = {"linewidth": 2.4, "zorder": 3} if name == "ckbd" else {"linewidth": 1.2, "zorder": 2}
            x, y = zip(*points, strict=True) if points else ((), ())
            axes.plot(x, y, color=colour, marker=marker, markersize=4, label=name, **style)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("rate (bits per pixel, logarithmic)")
        axes.set_ylabel(AXES[metric])
        axes.grid(True, which="both", color="#dddddd", linewidth=0.6)
        axes.legend(loc="lower right")
    count = len(result["images"])
    figure.suptitle(f"Mean over {count} image{'s' * (count != 1)}, one point a setting (model {result['model']})")
    with replacing(path) as temporary:
        figure.savefig(temporary)
