"""What things cost: `python -m bench.run CASE`.

decode      milliseconds from bytes to RGB array, split by stage, for one picture at several qualities
batch       pictures a second in batches, both ways, beside JPEG, WebP, AVIF and CompressAI (bench/batch.py)
busy        one picture on a machine that others keep busy, by default and on one thread (bench/busy.py)
interpreter microseconds that Python takes a picture in a batch, networks replaced by nothing (bench/interpreter.py)
products    matrix products of a CPU on one thread, PyTorch's own and ours (bench/products.py)
synthesis   g_s and g_a in kernels: quality beside layers in float32, and bytes through memory (bench/synthesis.py)
exact-cost  rate of the integer exact zone against its float twin with the same weights
overhead    bytes of a stream beside the ideal code length of its symbols, and what carries none
effort      BD-rate and encode time of each effort of the encoder (bench/effort.py)
coder       the entropy coder alone: speed and size, beside other libraries in the same run (bench/coder.py)
views       regions and smaller pictures: time beside the whole, PSNR beside decimation (bench/views.py)
large       seconds and memory of the command on a hundred megapixels (bench/large.py)
contexts    decode time of no context, raster scans, wavefront and checkerboard by size (bench/contexts.py)
compat-coder  CompressAI's GaussianConditional on its own coder and on ckbd's (bench/compat_coder.py)
kernels     a phase, g_s and g_a on a GPU in microseconds, beside PyTorch and public code (bench/gpu/kernels.py)
compressai  CompressAI's models as they are and on ckbd's entropy path (bench/compat.py)
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import defaultdict

import numpy as np
import torch

import ckbd
from bench import (
    batch,
    busy,
    coder,
    compat,
    compat_coder,
    contexts,
    cpu,
    effort,
    interpreter,
    large,
    precision,
    products,
    synthesis,
    views,
)
from bench import exact as exact_zone
from bench.common import load_pictures, machine, save, stages_of
from bench.gpu import kernels
from ckbd import _rans
from ckbd.codec import container, image
from ckbd.codec.networks import tensors
from ckbd.model import entropy
from ckbd.model.config import Config
from ckbd.model.model import Checkerboard


def decode(args: argparse.Namespace) -> list[dict]:
    """Median and quartiles of each stage over args.runs decodes of one picture; rows for --json."""
    codec = ckbd.load(args.model, threads=args.threads)
    picture = load_pictures(args.images)[0]
    rows: list[dict] = []
    for count in args.busy or (0,):
        with busy.busy(count):
            beside = f", beside {count} busy processes" if count else ""
            print(f"{picture.width} x {picture.height}{beside}, ms: median (quartiles) of {args.runs}")
            rows += [row | {"busy_processes": count} for row in decodes(codec, picture, args.qualities, args.runs)]
    return rows


def decodes(codec: ckbd.Codec, picture: image.Picture, qualities: list[float], runs: int) -> list[dict]:
    rows = []
    for quality in qualities:
        (stream,) = codec.encode([picture], quality)
        samples: dict[str, list[float]] = defaultdict(list)
        for run in range(runs + 3):
            spent = stages_of(codec, [stream])
            if run >= 3:
                for name, value in spent.items():
                    samples[name].append(1e3 * value)
        bpp = 8 * len(stream) / (picture.width * picture.height)
        row = {"quality": quality, "bpp": bpp, "bytes": len(stream)}
        cells = []
        for name, values in samples.items():
            low, middle, high = statistics.quantiles(values, n=4)
            row[name] = middle
            cells.append(f"{name} {middle:.2f} ({low:.2f}..{high:.2f})")
        rows.append(row)
        print(f"quality {quality:g}, {bpp:.3f} bpp, {len(stream)} B: " + ", ".join(cells))
    return rows


def exact_cost(args: argparse.Namespace) -> list[dict]:
    """Estimated bits of the trained weights with the exact zone's rounding on and off, on the same pictures."""
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    model = Checkerboard(Config(**state["config"]))
    model.load_state_dict(state["average"])
    pictures = load_pictures(args.images)
    rows = []
    for quality in args.qualities:
        bits = {}
        for exact in (True, False):
            model.exact.set_exact(exact)
            total, squared = 0.0, 0.0
            with torch.inference_mode():
                for p in pictures:
                    x = tensors.to_tensor([p])
                    out = model(tensors.pad(x), torch.tensor([float(quality)]), noise=False)
                    total += float(out["bits_y"] + out["bits_z"]) / x[0, 0].numel()
                    x_hat = out["x_hat"][..., : p.height, : p.width].clamp(0, 1)
                    squared += -10 * np.log10(float((x_hat - x).square().mean()))
            bits[exact] = (total / len(pictures), squared / len(pictures))
        cost = 100 * (bits[True][0] / bits[False][0] - 1)
        rows.append(
            {
                "quality": quality,
                "bpp_exact": bits[True][0],
                "bpp_float": bits[False][0],
                "psnr_exact": bits[True][1],
                "psnr_float": bits[False][1],
                "cost_percent": cost,
            }
        )
        print(
            f"quality {quality:g}: exact {bits[True][0]:.5f} bpp {bits[True][1]:.3f} dB, "
            f"float {bits[False][0]:.5f} bpp {bits[False][1]:.3f} dB, cost {cost:+.3f} %",
            flush=True,
        )
    return rows


def overhead(args: argparse.Namespace) -> list[dict]:
    """Bytes of real streams against the code length by the tables (Codec.estimate) and by the Gaussians of training.

    The bound is 0.5 % + 48 bytes. Fixed cost: header, lengths and checksums, plus what the payload spends beyond the
    code lengths of the tables, the escape values and the exceptions, which is the coder's state.
    """
    codec = ckbd.load(args.model, threads=args.threads)
    rows = []
    for quality in args.qualities:
        for n, picture in enumerate(load_pictures(args.images)):
            (stream,) = codec.encode([picture], quality)
            s = container.parse(stream)
            ((z, phases),) = codec.encoder.symbols([picture], [quality])
            z, phases = torch.from_numpy(z), [(torch.from_numpy(k), torch.from_numpy(r)) for k, r in phases]
            skipped = [(k[k <= s.header.skip_max], r[k <= s.header.skip_max]) for k, r in phases]
            coded = [(k[k > s.header.skip_max], r[k > s.header.skip_max]) for k, r in phases]
            # One lane at rest takes 3 bytes and an empty list of escapes 1; the rest is exceptions.
            alone = [(k.numpy(), r.numpy()) for k, r in skipped]
            nothing = np.zeros(0, np.int16)
            exceptions = (
                len(_rans.encode(codec.encoder.tables, nothing, alone, lanes=1, skip_max=s.header.skip_max)[0]) - 4
            )
            code = entropy.table_bits(codec.model.tables, z, coded) / 8
            gaussian = sum(entropy.gaussian_bits(r.double(), k.double()).sum().item() for k, r in phases) / 8
            row = {
                "quality": quality,
                "image": n,
                "bytes": len(stream),
                "bpp": 8 * len(stream) / (picture.width * picture.height),
                "estimate_bytes": codec.estimate([picture], quality)[0] / 8,
                "gaussian_bytes": gaussian + entropy.table_bits(codec.model.tables, z, []) / 8,
                "frame_bytes": len(stream) - len(s.payload),
                "state_bytes": len(s.payload) - exceptions - code,
            }
            rows.append(row)
        these = [r for r in rows if r["quality"] == quality]

        def excess(name, these=these):
            over = [r["bytes"] - r[name] for r in these]
            share = max(abs(e) / (0.005 * r[name] + 48) for e, r in zip(over, these, strict=True))
            low, middle, high = min(over), statistics.median(over), max(over)
            return f"{low:+.0f} .. {middle:+.0f} .. {high:+.0f} B ({share:.2f} of the bound)"

        frame, state = (statistics.median(r[name] for r in these) for name in ("frame_bytes", "state_bytes"))
        print(
            f"quality {quality:g}: {statistics.mean(r['bpp'] for r in these):.3f} bpp, "
            f"{statistics.mean(r['bytes'] for r in these):.0f} B; over the tables {excess('estimate_bytes')}, "
            f"over the Gaussians {excess('gaussian_bytes')}; fixed cost: frame {frame:.0f} + state {state:.1f} B, "
            f"at most {max(r['frame_bytes'] + r['state_bytes'] for r in these):.1f}",
            flush=True,
        )
    return rows


CASES = {
    "decode": decode,
    "batch": batch.batch,
    "busy": busy.busy_case,
    "interpreter": interpreter.interpreter,
    "products": products.products_case,
    "exact": exact_zone.exact,
    "precision": precision.precision,
    "cpu": cpu.cpu,
    "synthesis": synthesis.synthesis,
    "exact-cost": exact_cost,
    "overhead": overhead,
    "effort": effort.effort,
    "views": views.views,
    "large": large.large,
    "coder": coder.coder,
    "contexts": contexts.contexts,
    "compat-coder": compat_coder.compat_coder,
    "kernels": kernels.kernels_case,
    "compressai": compat.compat,
}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--images", nargs="*", default=[], help="files or folders (default: one of scikit-image)")
    parser.add_argument("--model", default="default")
    parser.add_argument("--checkpoint", help="of ckbd train, for exact-cost")
    parser.add_argument("--qualities", type=float, nargs="*", default=[1, 25, 50, 75, 100])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json", metavar="FILE")
    effort.add_arguments(parser)
    coder.add_arguments(parser)
    large.add_arguments(parser)
    contexts.add_arguments(parser)
    compat_coder.add_arguments(parser)
    kernels.add_arguments(parser)
    busy.add_arguments(parser)
    compat.add_arguments(parser)
    return parser


def main() -> None:
    args = parser().parse_args()
    if args.case == "exact-cost" and not args.checkpoint:
        parser().error("exact-cost needs --checkpoint: a model file holds only the integers")
    print(machine())
    rows = CASES[args.case](args)
    save(args.json, rows)


if __name__ == "__main__":
    main()
