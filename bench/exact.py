"""h_s and both phases of the exact zone on a CPU: `python -m bench.run exact`, milliseconds a picture.

Carriers, which is ckbd.kernels.reference in float32, and Integers, in turn, of one and of all threads, and both again
in processes where oneDNN may use less of the processor (ONEDNN_MAX_CPU_ISA). Symbols are those of a picture; with
Cheng2020's widths, of random weights, made up. Every latent is compared. The peak is the best of oneDNN's own
products of 1024 x 1024 x 1024 on one thread; "share" is what all multiply-adds at the threads' peaks would take.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import ckbd
from bench.common import load_pictures, save
from bench.gpu.device import Clock
from ckbd.codec import machine
from ckbd.codec.zone import Carriers, Integers, Unserved, Zone
from ckbd.kernels import products
from ckbd.model.config import Config
from ckbd.model.model import ExactLayers, ExactZone

ISAS = (None, "AVX512_CORE", "AVX2", "SSE41")
MODELS = ("small", "base", "Cheng2020")
CHENG = Config(M=192, Nz=192, h_s=192, psi=384, H1=640, H2=512)  # entropy_parameters of cheng2020-anchor-checkerboard
CPU = torch.device("cpu")


def exact(args: argparse.Namespace) -> list[dict]:
    """Rows for --json: one for each kind of processor, model, number of threads and way."""
    rows: list[dict] = []
    for isa in ISAS:
        asked = {"images": args.images, "threads": args.threads, "runs": 5 if args.quick else args.runs}
        environment = os.environ | ({} if isa is None else {"ONEDNN_MAX_CPU_ISA": isa})
        command = [sys.executable, "-m", "bench.exact", json.dumps(asked)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        these = [{"isa": isa or "all", **row} for row in json.loads(done.stdout)]
        rows += these
        report(these)
        save(args.json, rows)
    return rows


def report(rows: list[dict]) -> None:
    first = rows[0]
    print(f"{first['isa']}: peak {first['peak_int8']:.0f} G/s in eight bits, {first['peak_float32']:.0f} in float32")
    for row in rows:
        print(
            f"  {row['model']:9} {row['threads']} threads, {row['impl']:14} {row['ms']:7.2f} ms, "
            f"{row['ratio']:4.1f} x carriers, share of the peak {row['share']:.2f}",
            flush=True,
        )


def measure(images: Sequence[str], threads: int, runs: int) -> list[dict]:
    """What a process finds of its kind of processor."""
    (picture, *_), rows = load_pictures(list(images)), []
    peaks = {"peak_int8": peak(torch.uint8), "peak_float32": peak(torch.float32)}
    for model in MODELS:
        if model == "Cheng2020":
            layers, symbols, quality = *made_up(CHENG), 50
        else:
            codec, quality = ckbd.load(model, threads=threads), 50
            layers = codec.model.layers
            ((z, ((_, r0), (_, r1))),) = codec.encoder.symbols([picture], [quality])
            down, across = -(-picture.height // 64), -(-picture.width // 64)
            symbols = torch.from_numpy(z).view(1, down, across, -1), *map(torch.from_numpy, (r0, r1))
        macs = multiply_adds(layers, symbols[0].shape[1] * symbols[0].shape[2])
        for count in sorted({1, threads}):
            team = machine.Team(count)
            each = team.on(CPU)
            ways: dict[str, Zone] = {"carriers": Carriers(layers, CPU, torch.float32, each)}
            try:
                made = Integers(layers, each)
                ways[f"integers, {made.reach}"] = made
            except Unserved as error:
                print(f"{model}: {error}", file=sys.stderr)
            found = compare(ways, symbols, quality, runs)
            for impl, ms in found.items():
                top = peaks["peak_float32" if impl == "carriers" else "peak_int8"] * count
                rows.append(
                    {"model": model, "threads": count, "impl": impl, "ms": ms, "ratio": found["carriers"] / ms}
                    | {"share": macs / top / 1e6 / ms, "macs": macs}
                    | peaks
                )
    return rows


def compare(ways: dict[str, Zone], symbols: tuple[Tensor, ...], quality: int, runs: int) -> dict[str, float]:
    """Median milliseconds of each way, in turn. Raises RuntimeError if their latents differ."""
    z, *residuals = symbols

    def run(zone: Zone) -> Tensor:
        state = zone.begin(z, torch.tensor([quality]))
        for p, r in enumerate(residuals):
            zone.assemble(state, p, r.view(zone.phase(state, p).shape))
        return zone.y_hat(state)

    with machine.working(CPU), torch.inference_mode():
        want = run(ways["carriers"])
        for name, zone in ways.items():
            if not torch.equal(run(zone), want):
                raise RuntimeError(f"{name}: other latents than the carriers'")
        taken = Clock(CPU).turns({name: lambda zone=zone: run(zone) for name, zone in ways.items()}, runs)
    return {name: statistics.median(us) / 1e3 for name, us in taken.items()}


def made_up(c: Config) -> tuple[ExactLayers, tuple[Tensor, Tensor, Tensor]]:
    """Layers of random weights, and the symbols of a picture of 512 x 768."""
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers = ExactZone(c).integers()
    z = torch.randint(-20, 21, (1, 8, 12, c.Nz), generator=g, dtype=torch.int16)
    r = torch.randint(-3, 4, (2, 32 * 24 * c.M), generator=g, dtype=torch.int16)
    return ExactLayers((n, one._replace(weight=one.weight.detach())) for n, one in layers.items()), (z, r[0], r[1])


def multiply_adds(layers: ExactLayers, sites: int) -> int:
    """Of all products for so many sites of z; anchors have no context."""
    of = {name: layer.weight.numel() for name, layer in layers.items()}
    psi = layers["h_s.1"].weight.shape[0] // 4 * len(layers["first"].weight)
    both = of["hidden"] + of["output"]
    return sites * (of["h_s.0"] + 4 * of["h_s.1"] + 8 * (psi + both) + 8 * (of["first"] + both))


def peak(dtype: torch.dtype) -> float:
    """10^9 multiply-adds a second of one thread."""
    n = 1024
    x, weight = (torch.ones(n, n, dtype=t) for t in (dtype, torch.int8 if dtype == torch.uint8 else dtype))
    call = products.integers if dtype == torch.uint8 else products.linear
    with machine.alone(), torch.inference_mode():
        return n**3 / 1e3 / min(Clock(CPU).turns({"": lambda: call(x, weight)}, 9)[""])


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
