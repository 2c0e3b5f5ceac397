"""The paper's claims, measured: `python -m bench.studies.run STUDY --images FOLDER --runs FOLDER --out FOLDER`.

positions   rate that one known neighbour saves, by its distance (a supernet, cut to masks of one position)
masks       rate that named masks save (the same supernet): raster, checkerboard, stripes, corners, 3x3, 5x5, 7x7
rd          rate and distortion of no context, raster and checkerboard, trained alike; BD-rates and what is kept
growth      how decode time grows with the picture: reads what `python -m bench.run contexts --json` wrote
estimates   bytes of real streams beside the estimated code length, of any model files

Each writes STUDY.csv and STUDY.png to --out and says what it found. Rates are those of real streams; the latents of
one picture of each model are decoded and compared. Models are taken from --runs, RUN/NAME/, or trained there with
--data (by `ckbd.training.recipe`, all with one seed). Intervals are 95 %, by bootstrap over pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import ckbd
from bench.studies.report import draw_bars, draw_curves, draw_growth, interval, write_csv
from ckbd.codec import image
from ckbd.codec.image import Picture
from ckbd.evaluation import evaluate
from ckbd.evaluation.bd import bd_rate
from ckbd.papers import file as variantfile
from ckbd.papers.context import NAMED, Context, square
from ckbd.papers.cut import cut
from ckbd.papers.variant import Variant
from ckbd.training import data, recipe

MODEL = {"width": 96, "M": 96, "Nz": 32, "hyper": 64, "h_s": 48, "psi": 64, "H1": 128, "H2": 128}
MODEL |= {"analysis8": 1, "analysis16": 1, "synthesis8": 1, "synthesis16": 1, "levels": 4}
MODEL |= {"lmbda_min": 0.0015, "lmbda_max": 0.03, "centring": "integer"}
RUNS = {name: {"context": name} for name in ("none", "raster", "checkerboard")}
RUNS["supernet"] = {"context": "none", "supernet": True, "supernet_side": 7}
QUALITIES = (1, 25, 50, 75, 100)
MASKS = [name for name in NAMED if not name.endswith("-odd")]
WINDOW = (0.02, 4.0)  # bpp: all of the curves


def trained(name: str, args: argparse.Namespace) -> Path:
    """The folder of a run of RUNS; ValueError if it is not there and no data to train it is given."""
    folder = Path(args.runs, name)
    if not (folder / "model.safetensors").is_file():
        if not args.data:
            raise ValueError(f"{folder}: no model.safetensors; --data trains it")
        fields = {"model": MODEL | RUNS[name], "data": args.data, "seed": args.seed, "threads": args.threads}
        first = {"out": str(folder / "first"), "steps": args.steps, "crops": args.crops[0]}
        recipe.run(recipe.Recipe(**fields | first))
        # Rates of noise and small crops teach outliers that rounding and whole pictures punish (docs/training.md).
        second = {"out": str(folder), "steps": -(-args.steps * 3 // 10), "crops": args.crops[1], "rate": "rounded"}
        second |= {"lr": 5e-4, "init": str(folder / "first" / "checkpoint.pt")}
        recipe.run(recipe.Recipe(**fields | second))
    return folder


def pictures(args: argparse.Namespace) -> list[Picture]:
    found = [Picture(p) for p in data.pictures(args.images)]
    return found[: args.limit] if args.limit else found


def coded(codec: ckbd.Codec, picture: Picture, quality: float, check: bool) -> bytes:
    """A real stream; check: RuntimeError unless it decodes to the latents that were encoded."""
    (stream,) = codec.encode([picture], quality)
    if check:
        z, mean, _, _, symbols = codec.encoder.symbols(picture, quality)
        want = 16 * (symbols if symbols.size else z.reshape(*codec.decode_latents([stream])[0].shape[1:], -1))
        if codec.model.config.centred and symbols.size:
            want = want + mean[:, :, 0]
        if not np.array_equal(codec.decode_latents([stream])[0].transpose(1, 2, 0), want):
            raise RuntimeError(f"model {codec.model_hash}: what was decoded is not what was encoded")
    return stream


def sizes(
    model: Variant, contexts: dict[str, Context], found: list[Picture], quality: float
) -> dict[str, np.ndarray]:
    """Bytes of every picture by each context that a supernet is cut to."""
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, context in contexts.items():
            path = Path(folder, "cut.safetensors")
            variantfile.save(cut(model, context), path)
            codec = ckbd.load(path)
            out[name] = np.array([len(coded(codec, p, quality, n == 0)) for n, p in enumerate(found)], float)
            print(f"{name}: {out[name].mean():.0f} bytes", file=sys.stderr, flush=True)
    return out


def saving(none: np.ndarray, some: np.ndarray) -> dict[str, float]:
    """(R0 - RM) / R0 in percent over all pictures, with its interval."""
    return interval(len(none), lambda i: 100 * (1 - some[i].sum() / none[i].sum()))


def supernet_of(args: argparse.Namespace) -> Variant:
    return recipe.averaged_model(trained("supernet", args) / "checkpoint.pt")


def positions(args: argparse.Namespace) -> list[dict]:
    """One row a causal position: (dh, dw), distance and saving; a raster scan codes every one of them."""
    model, found = supernet_of(args), pictures(args)
    side = model.config.supernet_side
    taps = [tap for tap in model.config.seen.taps if tap < (0, 0)]
    alone = {f"{dh},{dw}": Context(square(side, lambda a, b, t=(dh, dw): (a, b) == t), None) for dh, dw in taps}
    measured = sizes(model, {"none": NAMED["none"]} | alone, found, args.quality)
    rows = []
    for name in alone:
        dh, dw = map(int, name.split(","))
        rows.append({"dh": dh, "dw": dw, "distance": float(np.hypot(dh, dw))})
        rows[-1] |= saving(measured["none"], measured[name])
    rows.sort(key=lambda row: row["distance"])
    rho = rank_correlation([r["distance"] for r in rows], [r["value"] for r in rows])
    near, far = (np.mean([r["value"] for r in rows if (r["distance"] < 1.5) == close]) for close in (True, False))
    names = list(alone)
    bands = {}
    for low, high in ((0, 1.2), (1.2, 1.8), (1.8, 2.5), (2.5, 9)):
        members = [n for n in names if low <= np.hypot(*map(int, n.split(","))) < high]
        total = sum(measured[n] for n in members) / len(members)
        bands[f"{low}-{high}"] = saving(measured["none"], total)
    for band, found_here in bands.items():
        print(f"distance {band}: a known neighbour saves {text(found_here)} on average")
    print(f"Rank correlation of saving with distance {rho:.2f}; next to the site {near:.2f} %, farther {far:.2f} %.")
    draw_bars(args.out, "positions", [f"({r['dh']}, {r['dw']})" for r in rows], rows, "rate saved (%), nearest first")
    return rows


def masks(args: argparse.Namespace) -> list[dict]:
    """One row a named mask: sites that see something, and saving."""
    model, found = supernet_of(args), pictures(args)
    there = set(model.config.seen.taps)
    contexts = {name: NAMED[name] for name in MASKS if set(NAMED[name].taps) <= there}
    measured = sizes(model, contexts, found, args.quality)
    rows = []
    for name, context in contexts.items():
        if name != "none":
            share = 1.0 if context.order is None else float((context.phase_map(8, 8) > 0).float().mean())
            rows.append({"mask": name, "taps": len(context.taps), "sites_with_context": share})
            rows[-1] |= saving(measured["none"], measured[name])
            print(f"{name}: {text(rows[-1])}")
    kept = interval(
        len(found),
        lambda i: (
            100
            * np.subtract(*(measured[n][i].sum() for n in ("none", "checkerboard")))
            / np.subtract(*(measured[n][i].sum() for n in ("none", "raster")))
        ),
    )
    print(f"The checkerboard saves {text(kept)} of what the raster scan saves (5x5 both).")
    draw_bars(args.out, "masks", [r["mask"] for r in rows], rows, "rate saved against no context (%)")
    return rows


def rd(args: argparse.Namespace) -> list[dict]:
    """One row a context, quality and picture; BD-rates against no context, and the share of raster's gain kept."""
    found, rows = pictures(args), []
    for name in ("none", "raster", "checkerboard"):
        codec = ckbd.load(trained(name, args) / "model.safetensors")
        for quality in QUALITIES:
            for n, picture in enumerate(found):
                stream = coded(codec, picture, quality, n == 0)
                (decoded,) = codec.decode_pictures([stream])
                row = {"context": name, "quality": quality, "image": n, "bytes": len(stream)}
                row["bpp"] = 8 * len(stream) / (picture.width * picture.height)
                rows.append(row | {"psnr": image.psnr(picture.rgb, decoded.rgb)})
        print(f"{name}: done", file=sys.stderr, flush=True)
    shape = 3, len(QUALITIES), len(found)
    bpp, psnr = (np.array([r[key] for r in rows]).reshape(shape) for key in ("bpp", "psnr"))

    def curve(context: int, chosen) -> dict:
        means = (a[context][:, chosen].mean(1).tolist() for a in (bpp, psnr))
        return dict(zip(("bpp", "psnr"), means, strict=True))

    def delta(context: int) -> Callable[[np.ndarray], float]:
        return lambda i: bd_rate(curve(0, i), curve(context, i), WINDOW).percent

    gains = [interval(len(found), delta(context), args.resamples) for context in (1, 2)]
    share = interval(len(found), lambda i: 100 * delta(2)(i) / delta(1)(i), args.resamples)
    for name, gain in zip(("raster", "checkerboard"), gains, strict=True):
        print(f"{name}: BD-rate {text(gain)} against no context")
    print(f"The checkerboard keeps {text(share)} of the raster scan's gain.")
    curves = {name: curve(n, np.arange(len(found))) for n, name in enumerate(("none", "raster", "checkerboard"))}
    for name, c in curves.items():
        print(f"{name}: " + ", ".join(f"{b:.3f} bpp {p:.2f} dB" for b, p in zip(c["bpp"], c["psnr"], strict=True)))
    draw_curves(args.out, "rd", curves)
    return rows


def estimates(args: argparse.Namespace) -> list[dict]:
    """One row a model, quality and picture; the largest share of the bound 0.5 % + 48 bytes that any stream takes."""
    found, rows = pictures(args), []
    for path in args.models:
        codec = ckbd.load(path)
        for quality in (QUALITIES[0], QUALITIES[-1]):
            for n, picture in enumerate(found):
                stream = coded(codec, picture, quality, n == 0 and hasattr(codec, "symbols"))
                estimate = codec.estimate([picture], quality)[0] / 8
                row = {"model": str(path), "quality": quality, "image": n, "bytes": len(stream), "estimate": estimate}
                bound = evaluate.EXCESS_SHARE * estimate + evaluate.EXCESS_BYTES
                rows.append(row | {"share_of_bound": abs(len(stream) - estimate) / bound})
        mine = [r for r in rows if r["model"] == str(path)]
        worst = max(mine, key=lambda r: r["share_of_bound"])
        verdict = "within" if worst["share_of_bound"] <= 1 else "BEYOND"
        print(
            f"{path}: {verdict} the bound, at most {worst['share_of_bound']:.2f} of it "
            f"({worst['bytes']} bytes, estimated {worst['estimate']:.0f})",
            flush=True,
        )
    return rows


def growth(args: argparse.Namespace) -> list[dict]:
    """The rows of a file, and the law of each context."""
    from bench.contexts import growth as law_of

    rows = json.loads(Path(args.json).read_text())
    laws = {name: law_of(rows, name) for name in dict.fromkeys(r["context"] for r in rows)}
    for name, law in laws.items():
        if law:
            print(f"{name}: {law[1]:.0f} ms x megapixels^{law[0]:.2f}")
    draw_growth(args.out, "growth", rows, laws)
    return rows


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's, of values without many ties."""
    ranks = (np.argsort(np.argsort(v)) for v in (a, b))
    return float(np.corrcoef(*ranks)[0, 1])


def text(found: dict[str, float]) -> str:
    return f"{found['value']:.2f} % [{found['low']:.2f}, {found['high']:.2f}]"


STUDIES = {"positions": positions, "masks": masks, "rd": rd, "growth": growth, "estimates": estimates}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", required=True, help="folder for the CSV and the plot")
    parser.add_argument("--images", help="folder of held-out pictures")
    parser.add_argument("--runs", help="folder of trained runs: none, raster, checkerboard, supernet")
    parser.add_argument("--data", nargs="*", default=[], help="pictures to train runs that are missing")
    parser.add_argument("--steps", type=int, default=4000, help="of the first part; the second has 3/10 of it")
    parser.add_argument("--crops", nargs=2, default=["128x8", "256x2"], help="of the two parts of a training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quality", type=float, default=50.0, help="of positions and masks")
    parser.add_argument("--limit", type=int, default=0, help="take only so many pictures")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--models", nargs="*", default=[], help="of estimates: model files")
    parser.add_argument("--json", help="of growth: what bench.run contexts wrote")
    args = parser.parse_args(argv)
    needs = {"growth": ("json",), "estimates": ("images", "models")}.get(args.study, ("images", "runs"))
    for name in needs:
        if not getattr(args, name):
            parser.error(f"{args.study} needs --{name}")
    torch.set_num_threads(args.threads)
    try:
        Path(args.out).mkdir(parents=True, exist_ok=True)
        write_csv(Path(args.out, f"{args.study}.csv"), STUDIES[args.study](args))
    except (OSError, ValueError) as error:
        print(f"bench.studies.run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
