"""BD-rates of what `ckbd eval --json` measured against published curves on the same pictures.

    python -m bench.sheets.published rd.json --curves FILE [--names NAME ...]

FILE: a JSON object {name: {"bpp": [...], "psnr": [...], and "ms_ssim" (0..1) or "ms_ssim_db"}}, means over the
pictures at each setting; other fields are ignored, and so are names that begin with an underscore. No such file is
part of this repository: whoever compares must know where the numbers come from, and that the pictures were the same.
Beware of two things: learned codecs often report the PSNR of pictures that were never rounded to 8 bits, and what
classical ones reach depends on their settings.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from ckbd.evaluation import bd, report
from ckbd.evaluation.bd import Curve

# Taken, where the file has them, if no names are given.
NAMES = (
    "bpg-444",
    "hm",
    "vtm",
    "av1",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
    "paper:minnen2018-checkerboard",
    "paper:cheng2020-checkerboard-1M",
    "paper:elic2022",
)


def as_curve(name: str, fields: Any) -> Curve:
    """A published curve as ckbd.evaluation.bd has it; a metric that is missing is None at every point.

    Raises ValueError, naming curve and field, for what is no curve.
    """
    if not isinstance(fields, dict) or "bpp" not in fields:
        raise ValueError(f"{name}: expected an object with bpp, and psnr, ms_ssim or ms_ssim_db")
    curve: Curve = {"bpp": fields["bpp"]}
    columns = {key: fields[key] for key in ("bpp", "psnr", "ms_ssim", "ms_ssim_db") if key in fields}
    for key, values in columns.items():
        if not isinstance(values, list) or len(values) != len(columns["bpp"]):
            raise ValueError(f"{name}: {key}: expected a list as long as bpp")
        for value in values:
            if type(value) not in (int, float) or not math.isfinite(value) or (key == "bpp" and value <= 0):
                raise ValueError(
                    f"{name}: {key}: expected finite numbers{', above 0' * (key == 'bpp')}, got {value!r}"
                )
    if "ms_ssim" not in columns and "ms_ssim_db" in columns:
        columns["ms_ssim"] = [1 - 10 ** (-value / 10) for value in columns["ms_ssim_db"]]
    nothing = [None] * len(columns["bpp"])
    return curve | {metric: columns.get(metric, nothing) for metric in bd.METRICS}


def chosen(curves: dict[str, Any], names: Sequence[str] | None) -> list[str]:
    """The names to compare with: those asked for, or the NAMES that there are. ValueError for one that is absent."""
    there = [name for name in curves if not name.startswith("_")]
    if names is None:
        return [name for name in NAMES if name in there]
    for name in names:
        if name not in there:
            raise ValueError(f"--names: no curve {name!r} (there are {', '.join(there) or 'none'})")
    return list(names)


def deltas(result: dict[str, Any], published: dict[str, Curve]) -> dict[str, dict[str, bd.BD | None]]:
    """{metric: {who: BD-rate of ckbd or None}}: the rivals that were measured, then the published curves."""
    found = {}
    for metric in bd.METRICS:
        measured = bd.bd_rates(result["rivals"], result["curve"], metric=metric)
        others = bd.bd_rates(published, result["curve"], metric=metric)
        found[metric] = {f"{name} (measured)": delta for name, delta in measured.items()}
        found[metric] |= {f"{name} (published)": delta for name, delta in others.items()}
    return found


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sheets.published", description=__doc__.split("\n")[0])
    parser.add_argument("result", metavar="RD.JSON", help="what `ckbd eval --json` wrote")
    parser.add_argument("--curves", required=True, metavar="FILE", help="published curves (see the module's head)")
    parser.add_argument("--names", nargs="+", metavar="NAME", help=f"curves of FILE (default: {', '.join(NAMES)})")
    args = parser.parse_args(argv)
    try:
        result, curves = _read(args.result), _read(args.curves)
        for key in ("curve", "rivals", "images", "model"):
            if key not in result:
                raise ValueError(f"{args.result}: {key} is missing: not written by ckbd eval --json")
        names = chosen(curves, args.names)
        published = {name: as_curve(f"{args.curves}: {name}", curves[name]) for name in names}
    except (OSError, ValueError) as error:
        print(f"bench.sheets.published: {error}", file=sys.stderr)
        return 1
    low, high = bd.WINDOW
    print(f"model {result['model']}, mean over {len(result['images'])} images, {low:g} .. {high:g} bpp")
    print("\n".join(report.bd_lines(deltas(result, published))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
