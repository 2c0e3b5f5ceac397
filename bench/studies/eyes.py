"""What a percent of PSNR buys for eyes: `python -m bench.studies.eyes --runs DIR --data PATH --val PATH`.

Models that go on from --init alike, but for the shares of MS-SSIM and of SSIMULACRA2 in the loss (those that are in
DIR already are taken), and --init as it is: BD-rates of real streams, tables fitted, by PSNR, MS-SSIM and
SSIMULACRA2, against squared error alone and against AVIF, over 0.15 to 1 bpp of either. They are said twice: of the
curves of means, as usual, where bits that went from one picture to another count too, and the mean of each picture's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

import ckbd
from bench.common import load_pictures, save
from bench.studies.taken import keep, taken
from bench.tables import table
from ckbd.codec.image import Picture
from ckbd.evaluation import rivals
from ckbd.evaluation.bd import METRICS, Curve, bd_rate
from ckbd.evaluation.metrics import measure
from ckbd.training import train
from ckbd.training.finish import QUALITIES

TRAINING = "--crops 192x4 --bf16 --fit-tables 200 --rounded-from 0 --lr 6e-4 --muon-lr 6e-4 --ema 0.995"
PLAIN, RIVAL = "0", "avif"


def trained(shares: str, args: argparse.Namespace) -> Path:
    """The model file of "MS-SSIM" or "MS-SSIM,SSIMULACRA2" in the loss; ValueError if it is not there and cannot be
    trained, or was trained otherwise.
    """
    path = args.runs / f"share-{shares}.safetensors"
    ms_ssim, _, ssimulacra2 = shares.partition(",")
    told = ["--init", args.init, "--steps", str(args.steps), "--seed", str(args.seed), "--threads", "1"]
    told += ["--ms-ssim-share", ms_ssim, *(["--ssimulacra2-share", ssimulacra2] if ssimulacra2 else [])]
    told += TRAINING.split()
    if taken(path, told, args.data):
        return path
    if train.main(["--data", *args.data, "--out", str(path.with_suffix("")), "--export", str(path), *told]):
        raise ValueError(f"{path}: was not trained")
    return keep(path, told)


def measured(pairs: Callable[[Picture], Iterable[tuple[bytes, np.ndarray]]], photographs: list[Picture]) -> Curve:
    """Means over photographs, and under "each" a curve of every one. pairs: the streams of one and what they decode
    to, as many for each.
    """
    rows = []
    for p in photographs:
        seen = [(len(s), p.rgb, x) for s, x in pairs(p)]
        rows.append([(8 * n / (p.width * p.height), *measure(x, y).values()) for n, x, y in seen])
    each = [dict(zip(("bpp", *METRICS), one.T.tolist(), strict=True)) for one in np.array(rows, np.float64)]
    return {name: np.mean([one[name] for one in each], axis=0).tolist() for name in each[0]} | {"each": each}


def of_model(path: str | Path, photographs: list[Picture]) -> Curve:
    codec = ckbd.load(path, threads=1)

    def pairs(p: Picture) -> Iterable[tuple[bytes, np.ndarray]]:
        streams = codec.encode_at(p, QUALITIES)
        return zip(streams, (d.rgb for d in codec.decode_pictures(streams)), strict=True)

    return measured(pairs, photographs)


def of_rival(photographs: list[Picture]) -> Curve:
    rival = rivals.RIVALS[RIVAL]

    def pairs(p: Picture) -> Iterable[tuple[bytes, np.ndarray]]:
        streams = [rival.encode(p.rgb, setting) for setting in rival.settings]
        return [(s, rivals.decode(s)) for s in streams]

    return measured(pairs, photographs)


def change(before: Curve, after: Curve, metric: str) -> float | None:
    """BD-rate, %; None if no quality is on both curves."""
    found = bd_rate(before, after, metric=metric)
    return found.percent if found else None


def changes(before: Curve, after: Curve) -> dict[str, list[float | None]]:
    """By each metric: change() of the means, and the mean of every picture's own."""
    found = {}
    for metric in METRICS:
        own = [change(a, b, metric) for a, b in zip(before["each"], after["each"], strict=True)]
        some = [value for value in own if value is not None]
        found[metric] = [change(before, after, metric), float(np.mean(some)) if some else None]
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.eyes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="of share-SHARE.safetensors")
    parser.add_argument("--init", default="small", metavar="MODEL")
    parser.add_argument("--data", nargs="+", help="folders or tar files to train with")
    parser.add_argument("--val", nargs="+", default=[], help="photographs (default: one of scikit-image)")
    parser.add_argument("--every", type=int, default=1, help="take one photograph in so many")
    parser.add_argument("--shares", nargs="+", default=["0.25", "0.5", "0.75", "1", "0,0.5"], metavar="W[,V]")
    parser.add_argument("--more", nargs="*", default=[], metavar="MODEL", help="measure these too")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    args.runs.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    try:
        photographs = load_pictures(args.val)[:: args.every]
        rival, plain = of_rival(photographs), None
        rows.append({"name": RIVAL, "change": {}} | rival)
        for shares in dict.fromkeys([PLAIN, *args.shares]):
            found = of_model(trained(shares, args), photographs)
            plain = plain or found
            _add(rows, args.json, shares, found, {PLAIN: plain, RIVAL: rival})
        for name in (args.init, *args.more):
            _add(rows, args.json, str(name), of_model(name, photographs), {PLAIN: plain, RIVAL: rival})
    except (OSError, ValueError, ImportError) as error:
        print(f"bench.studies.eyes: {error}", file=sys.stderr)
        return 1
    heads = ["", *(f"{m} against {one}, %" for one in (PLAIN, RIVAL) for m in METRICS)]
    cells = [[r["name"], *(_cell(r["change"][one][m]) for one in (PLAIN, RIVAL) for m in METRICS)] for r in rows[1:]]
    print(table(heads, cells))
    return 0


def _add(rows: list[dict], path: str | None, name: str, found: Curve, anchors: dict[str, Curve]) -> None:
    rows.append({"name": name, "change": {one: changes(anchor, found) for one, anchor in anchors.items()}} | found)
    print(name, rows[-1]["change"], flush=True)
    save(path, rows)


def _cell(values: list[float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:+.1f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
