"""What the studies write: CSV, plots, and intervals by bootstrap over pictures."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

COLOURS = {
    "none": "#999999",
    "raster": "#D55E00",
    "raster-public": "#CC79A7",
    "wavefront": "#E69F00",
    "checkerboard": "#0072B2",
}


def interval(count: int, value: Callable[[np.ndarray], float], resamples: int = 1000) -> dict[str, float]:
    """value, low and high: a statistic of pictures (given as indices), and 2.5 and 97.5 % of it over resamples."""
    rng = np.random.default_rng(0)
    drawn = [value(rng.integers(0, count, count)) for _ in range(resamples)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"value": float(value(np.arange(count))), "low": float(low), "high": float(high)}


def write_csv(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _figure(out: str, name: str, size: tuple[float, float] = (7, 4.5)):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.grid(True, color="#dddddd", linewidth=0.6)
    return axes, lambda: figure.savefig(Path(out, f"{name}.png"))


def draw_bars(out: str, name: str, labels: list[str], rows: list[dict], title: str) -> None:
    """Bars of value with low and high as whiskers."""
    axes, save = _figure(out, name, (8, 4.5))
    value, low, high = (np.array([r[key] for r in rows]) for key in ("value", "low", "high"))
    axes.bar(range(len(rows)), value, yerr=np.maximum(0, [value - low, high - value]), color="#0072B2", capsize=2)
    axes.set_xticks(range(len(rows)), labels, rotation=60, ha="right", fontsize=7)
    axes.set_ylabel(title)
    save()


def draw_curves(out: str, name: str, curves: dict[str, dict]) -> None:
    axes, save = _figure(out, name)
    for label, curve in curves.items():
        axes.plot(curve["bpp"], curve["psnr"], marker="o", color=COLOURS[label], label=label)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel("PSNR, RGB (dB)")
    axes.legend()
    save()


def draw_growth(out: str, name: str, rows: list[dict], laws: dict) -> None:
    axes, save = _figure(out, name)
    for label, law in laws.items():
        points = sorted(
            (r["width"] * r["height"] / 2**20, r["context_and_coding_ms"]) for r in rows if r["context"] == label
        )
        x, y = np.array(points).T
        text = f"{label}: {law[1]:.0f} ms, exponent {law[0]:.2f}" if law else label
        axes.plot(x, y, marker="o", color=COLOURS[label], label=text)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("megapixels")
    axes.set_ylabel("context and coding (ms)")
    axes.legend(fontsize=8)
    save()
