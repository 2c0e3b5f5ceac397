"""What models of several sizes cost and give.

    python -m bench.sheets.sizes small=a.json base=b.json --plot sizes.png

Each argument is a model and the JSON that `ckbd eval --json` wrote of it, all on the same pictures; the first must
hold the rivals. A row a model: weights, multiply-adds a pixel to encode and to decode (padding apart), milliseconds
from stream to pixels of one picture on the CPU, and the BD-rate against each rival.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

import torch
from torch import nn

import ckbd
from bench.common import load_pictures, machine, stages_of
from ckbd.evaluation.bd import bd_rate
from ckbd.model.config import Config, by_group, exact_shapes
from ckbd.model.file import Loaded

SIDE = 512  # a multiple of 64: of the picture whose multiply-adds are counted


def of_network(network: nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds of the convolutions that a network runs on x."""
    total = 0

    def count(layer: nn.Module, _, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.inference_mode():
        network(x)
    for hook in hooks:
        hook.remove()
    return total


def of_exact_zone(c: Config, context: bool = True) -> float:
    """Multiply-adds a pixel of h_s and all phases: only live taps, only where a phase has sites.

    context: whether there is one inside the channels, or inside each group of them.
    """
    first, second = (math.prod(exact_shapes(c)[name]) for name in ("h_s.0", "h_s.1"))
    at16 = 0.0
    for own in by_group(exact_shapes(c)):
        taps = 12 * (own["output"][0] // 2)
        seen = own["first"][1] - taps + (taps / 2 if context else 0)
        at16 += own["first"][0] * seen + math.prod(own["hidden"]) + math.prod(own["output"])
        at16 += math.prod(own["channel"]) if "channel" in own else 0
    return first / 64**2 + second / 32**2 + at16 / 16**2


def multiply_adds(model: Loaded) -> dict[str, float]:
    """Multiply-adds a pixel of g_a, h_a, the exact zone and g_s."""
    M = model.config.M
    latent = torch.zeros(1, M, SIDE // 16, SIDE // 16)
    inputs = {"g_a": torch.zeros(1, 3, SIDE, SIDE), "h_a": latent, "g_s": latent}
    out = {name: of_network(getattr(model, name), x) / SIDE**2 for name, x in inputs.items()}
    return out | {"exact": of_exact_zone(model.config)}


def row_of(name: str, result: dict, rivals: dict, picture, quality: float, runs: int) -> dict:
    codec = ckbd.load(name)
    if codec.model_hash != result["model"]:
        raise ValueError(f"{name}: its figures are of model {result['model']}, the file is {codec.model_hash}")
    cost = multiply_adds(codec.model)
    (stream,) = codec.encode([picture], quality)
    times = [stages_of(codec, [stream])["total"] * 1e3 for _ in range(runs + 2)][2:]
    parts = (codec.model.g_a, codec.model.h_a, codec.model.g_s)
    weights = sum(p.numel() for part in parts for p in part.parameters())
    weights += sum(layer.weight.numel() + layer.bias.numel() for layer in codec.model.layers.values())
    deltas = {rival: bd_rate(curve, result["curve"]) for rival, curve in rivals.items()}
    return {
        "model": Path(name).stem,
        "identity": result["model"],
        "weights": weights,
        "encode": cost["g_a"] + cost["h_a"] + cost["exact"],
        "decode": cost["exact"] + cost["g_s"],
        **cost,
        "ms": statistics.median(times),
        "bd_rate": {rival: delta.percent if delta else None for rival, delta in deltas.items()},
    }


def plot(path: str, rows: list[dict], rival: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    labels = {"ms": "ms to decode a picture", "decode": "multiply-adds a pixel to decode"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for row in rows:
            axis.plot(row[key], row["bd_rate"][rival], "o", color="#0072B2")
            axis.annotate(row["model"], (row[key], row["bd_rate"][rival]), textcoords="offset points", xytext=(7, 4))
        axis.set(xlabel=label, xscale="log")
        axis.margins(0.25)
        axis.minorticks_off()
        axis.set_xticks([row[key] for row in rows], [f"{row[key]:.0f}" for row in rows])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"BD-rate against {rival}, %")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def table(rows: list[dict]) -> str:
    rivals = list(rows[0]["bd_rate"])
    lines = [["model", "identity", "weights", "encode", "decode", "g_a", "exact", "g_s", "ms", *rivals]]
    for row in rows:
        deltas = ["-" if row["bd_rate"][r] is None else f"{row['bd_rate'][r]:+.1f}" for r in rivals]
        counts = [f"{row[key]:.0f}" for key in ("encode", "decode", "g_a", "exact", "g_s")]
        lines.append([row["model"], row["identity"], f"{row['weights']}", *counts, f"{row['ms']:.0f}", *deltas])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.sheets.sizes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL=JSON")
    parser.add_argument("--images", nargs="*", default=[], help="the first one is decoded (default: scikit-image's)")
    parser.add_argument("--quality", type=float, default=50)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rival", default="webp", help="of the plot's axis (default %(default)s)")
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args(argv)
    try:
        pairs = [one.partition("=")[::2] for one in args.models]
        results = [(name, json.loads(Path(path).read_text())) for name, path in pairs]
        rivals = results[0][1]["rivals"]
        if args.rival not in rivals:
            raise ValueError(f"{pairs[0][1]}: no rival {args.rival}, there are {', '.join(rivals) or 'none'}")
        picture = load_pictures(args.images)[0]
        rows = [row_of(name, result, rivals, picture, args.quality, args.runs) for name, result in results]
    except (OSError, ValueError, KeyError) as error:
        reason = repr(error) if isinstance(error, KeyError) else error
        print(f"bench.sheets.sizes: {reason}", file=sys.stderr)
        return 1
    print(machine())
    print(f"{picture.width} x {picture.height} at quality {args.quality:g}; BD-rates in %, over 0.15 to 1.0 bpp")
    print(table(rows))
    if args.plot:
        plot(args.plot, rows, args.rival)
    return 0


if __name__ == "__main__":
    sys.exit(main())
