"""No context, checkerboard, checkerboard in channel groups, at equal cost: `python -m bench.studies.order`.

Three entropy models of the same latents: g_a, g_s and gains are those of --init, the channels sorted by how much is
in them; h_a, h_s and g_ep are trained from nothing, --seeds times, on features that were computed once. What
differs between ARMS is the context, and widths that bring the multiply-adds of the exact zone together. Rates are of
real streams with fitted tables, against the checkerboard of the same seed. Models that are in DIR already are taken.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench.common import load_pictures, save
from bench.sheets.sizes import of_exact_zone
from bench.studies.taken import keep, taken
from bench.tables import table
from ckbd.codec.image import Picture
from ckbd.evaluation.bd import bd_rate
from ckbd.kernels import numerics
from ckbd.kernels.numerics import round_half_up
from ckbd.model.config import Config
from ckbd.model.model import Checkerboard, gain_at
from ckbd.training import data, finish, start
from ckbd.training.steps import draw_qualities

ARMS = ("none", "checkerboard", "groups")
SIDE, ALIGN = 16, 4  # latents of a crop, and of a site of z
COUNT = 8  # crops a step
RATE, WARM_UP, KEPT, NOISE = 2e-3, 100, 0.998, 0.4  # of Adam; of the moving average; share of the steps with noise
WINDOW = (0.1, 1.5)


def widths(arm: str, base: Config) -> Config:
    """An arm's config: the checkerboard has --init's, the others what comes nearest to its cost."""
    if arm == "checkerboard":
        return base
    steps = range(64, 1025, 32)
    if arm == "none":
        options = [dataclasses.replace(base, H1=h1, H2=h2) for h1 in steps for h2 in (h1, h1 + 32)]
    else:
        eighth = base.M // 8
        groups = eighth, eighth, 2 * eighth, base.M - 4 * eighth
        made = dataclasses.replace(base, groups=groups, channel=32)
        options = [dataclasses.replace(made, H1=h1, H2=h2) for h1 in steps for h2 in (h1, h1 + 32)]
    return min(options, key=lambda c: abs(cost(c, arm) - cost(base, "checkerboard")))


def cost(c: Config, arm: str) -> float:
    """Multiply-adds a pixel of the exact zone."""
    return of_exact_zone(c, arm != "none")


def begun(of: Checkerboard, arm: str, seed: int) -> Checkerboard:
    """An arm's model before its first step: transforms of another, the rest fresh."""
    torch.manual_seed(seed)
    model = Checkerboard(widths(arm, of.config))
    for part in ("g_a", "g_s"):
        getattr(model, part).load_state_dict(getattr(of, part).state_dict())
    with torch.no_grad():
        model.log_gain.copy_(of.log_gain)
        model.log_ungain.copy_(of.log_ungain)
        if arm == "none":
            model.exact.get_submodule("first").weight[:, model.config.psi :] = 0
    return model


@torch.no_grad()
def ordered(model: Checkerboard, features: list[Tensor]) -> Checkerboard:
    """The same transforms with the channels sorted, those with most in them first; features alike, in place."""
    gain = gain_at(model.log_gain, torch.tensor([50.0]))[0]
    energy = torch.stack([torch.log2(1 + (f.float() * gain).abs()).mean((1, 2)) for f in features[::8]]).mean(0)
    order = energy.argsort(descending=True)
    last, first = list(model.g_a.parameters())[-2:], model.g_s.enter
    for parameter in last:
        parameter.copy_(parameter[order].clone())
    first.weight.copy_(first.weight[:, order].clone())
    for gains in (model.log_gain, model.log_ungain):
        gains.copy_(gains[:, order].clone())
    features[:] = [f[order].contiguous() for f in features]
    return model


@torch.inference_mode()
def features_of(model: Checkerboard, paths: list[str]) -> list[Tensor]:
    """g_a of every picture of the training data, float16 (M, h, w), cut to whole sites of z."""
    found = []
    for path in paths:
        for picture in data.pictures(path):
            height, width = (n // 64 * 64 for n in picture.shape[:2])
            x = torch.from_numpy(picture[:height, :width]).permute(2, 0, 1)[None].float() / 255
            found.append(model.g_a(x)[0].half())
    return [f.clone() for f in found if min(f.shape[1:]) >= SIDE]


def drawn(features: list[Tensor], generator: torch.Generator) -> Tensor:
    """Windows of some features, (COUNT, M, SIDE, SIDE)."""

    def pick(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    out = []
    for _ in range(COUNT):
        f = features[pick(len(features))]
        top, left = (ALIGN * pick((n - SIDE) // ALIGN + 1) for n in f.shape[1:])
        out.append(f[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(out).float()


def rates(model: Checkerboard, features: Tensor, quality: Tensor, noise: bool) -> Tensor:
    """Bits a pixel of each crop, as Checkerboard.forward counts them."""
    y = features * gain_at(model.log_gain, quality).detach()
    z = model.h_a(y).clamp(-numerics.ACT_MAX, numerics.ACT_MAX)
    z_hat = round_half_up(z)
    _, bits_y = model.two_phases(y, z_hat, quality, noise)
    bits_z = model.prior.bits(z + torch.rand_like(z) - 0.5 if noise else z_hat).flatten(1).sum(1)
    return (bits_y + bits_z) / (256 * y.shape[2] * y.shape[3])


def trained(model: Checkerboard, features: list[Tensor], arm: str, seed: int, steps: int) -> Checkerboard:
    """The model's moving average after so many steps."""
    weights = [p for part in (model.h_a, model.exact, model.prior) for p in part.parameters()]
    average = copy.deepcopy(model)
    averaged = [p for part in (average.h_a, average.exact, average.prior) for p in part.parameters()]
    optimiser = torch.optim.Adam(weights, lr=RATE, fused=True)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    balance = math.sqrt(model.config.lmbda_min * model.config.lmbda_max)
    began, seen = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        share = min(step / WARM_UP, 0.505 + 0.495 * math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = RATE * share
        quality = draw_qualities(COUNT)
        bpp = rates(model, drawn(features, generator), quality, step <= NOISE * steps)
        loss = (bpp * (balance / model.lmbda(quality)) ** 0.5).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if arm == "none":
            gradient = model.exact.get_submodule("first").weight.grad
            assert gradient is not None
            gradient[:, model.config.psi :] = 0
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 1 - min(KEPT, step / (step + 10)))
        seen += loss.item()
        if step % 100 == 0:
            print(f"{arm} {seed}: step {step}, {time.monotonic() - began:.0f} s, loss {seen / 100:.4f}", flush=True)
            seen = 0.0
    return average


def model_of(
    arm: str, seed: int, args: argparse.Namespace, of: Callable[[], tuple[Checkerboard, list[Tensor]]]
) -> Path:
    """The model file of an arm; ValueError if it is not there and cannot be trained, or was trained otherwise."""
    path, told = args.runs / f"{arm}-{seed}.safetensors", [args.init, args.steps]
    if taken(path, told, args.data):
        return path
    begin, features = of()
    model = trained(begun(begin, arm, seed), features, arm, seed, args.steps)
    finish.export(model, path, args.runs / "raw.safetensors", args.data, args.fit_tables, seed, "cpu")
    return keep(path, told)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.order",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="of ARM-SEED.safetensors")
    parser.add_argument("--init", default="small", metavar="MODEL", help="whose transforms (default %(default)s)")
    parser.add_argument("--data", nargs="+", help="folders or tar files to train with")
    parser.add_argument("--val", nargs="+", default=[], help="photographs (default: one of scikit-image)")
    parser.add_argument("--every", type=int, default=1, help="take one photograph in so many")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--fit-tables", type=int, default=200, metavar="N", help="pictures")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    args.runs.mkdir(parents=True, exist_ok=True)
    kept: list[tuple[Checkerboard, list[Tensor]]] = []

    def of() -> tuple[Checkerboard, list[Tensor]]:
        if not kept:
            model = start.model_of(args.init).eval().requires_grad_(False)
            features = features_of(model, args.data)
            kept.append((ordered(model, features), features))
        return kept[0]

    rows = []
    try:
        photographs: list[Picture] = load_pictures(args.val)[:: args.every]
        base = start.model_of(args.init).config
        for seed in range(args.seeds):
            curves = {arm: finish.curve(model_of(arm, seed, args, of), photographs) for arm in args.arms}
            for arm, curve in curves.items():
                found = bd_rate(curves.get("checkerboard", curve), curve, WINDOW)
                rows.append({"arm": arm, "seed": seed, "bd_rate": found.percent if found else None} | curve)
                print(arm, seed, rows[-1]["bd_rate"], flush=True)
                save(args.json, rows)
    except (OSError, ValueError) as error:
        print(f"bench.studies.order: {error}", file=sys.stderr)
        return 1
    lines = []
    for arm in args.arms:
        own = [r["bd_rate"] for r in rows if r["arm"] == arm and r["bd_rate"] is not None]
        c = widths(arm, base)
        spread = statistics.stdev(own) if len(own) > 1 else 0.0
        lines.append([arm, f"{cost(c, arm):.0f}", f"{c.H1}, {c.H2}", f"{statistics.mean(own):+.2f} +- {spread:.2f}"])
    print(table(["", "multiply-adds a pixel", "H1, H2", "BD-rate, %"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
