"""What a decoder gains that sees more than y_hat: `python -m bench.studies.sight --data PATH --val PATH`.

No bit of a stream changes. Of the pictures of --data and --val the streams of --init (default effort) are made once;
then, at the same bytes, they are painted otherwise, and BD-rates on --val are of what PSNR moved:

- moved: y_hat at the mean of what was rounded to it, by a table of (k, |r|); for each of --weights of the encoder's
  dead zone too, since a mean that is known takes away what the dead zone costs.
- ARMS, each trained for --steps with --seeds alike: g_s alone ("plain"), and with a network beside it, which sees
  less or more ("blind": y_hat as g_s does, and the quality; "psi": the hyper features, k and the quality; "lrp":
  these, the mean and r, to move y_hat by up to half a step before g_s, as Minnen and Singh, ICIP 2020, do).
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import ckbd
from bench.common import load_pictures, save
from bench.studies.content import change, spread
from bench.tables import table
from ckbd.codec import deadzone, image
from ckbd.codec.image import Picture
from ckbd.kernels import numerics, reference
from ckbd.model.model import gain_at, hyper_map, lmbda_at
from ckbd.model.transforms import Pointwise, bias_of
from ckbd.training import train
from ckbd.training.data import Crops
from ckbd.training.finish import QUALITIES
from ckbd.training.optim import Muon

ARMS = ("plain", "blind", "psi", "lrp")
COUNT, SIDE = 4, 192  # crops a step, and pixels a side of each, which has a stream of its own: g_s sees true borders
HIDDEN = 128
RATE = 1e-4  # of g_s
DECAY = 0.995  # of the moving average
TOP = 8  # |r| of the table's last column, which all larger ones share
LEAST = 100  # elements for a mean
FEW = 300  # crops for a table of means alone


class Seen(NamedTuple):
    """Pictures of one size, and what their decoder knows: x uint8 (B, 3, H, W), y = y_hat int16 in 1/16 units, r
    int16 and k uint8 (B, M, H/16, W/16), psi uint8 (B, C_psi, H/16, W/16), quality (B,)."""

    x: Tensor
    y: Tensor
    r: Tensor
    k: Tensor
    psi: Tensor
    quality: Tensor


@torch.no_grad()
def seen(codec: ckbd.Codec, picture: Picture, quality: float) -> tuple[Seen, Tensor]:
    """What a stream of a picture shows to its decoder, and y, which it does not."""
    m, zone = codec.model, codec.encoder.zone
    features = codec.encoder.features([picture])
    ((z, phases),) = codec.encoder.quantise(features, [(picture.height, picture.width)], [quality])
    h, w = features.shape[2:]
    z_hat, whole = torch.from_numpy(z).view(1, h // 4, w // 4, -1), torch.tensor([float(int(quality))])
    k, r = ([torch.from_numpy(phase[i]).view(1, h, w // 2, -1) for phase in phases] for i in (0, 1))
    state = zone.begin(z_hat, whole)
    for p in (0, 1):
        zone.phase(state, p)
        zone.assemble(state, p, r[p])
    psi = hyper_map(z_hat.permute(0, 3, 1, 2).float(), whole, m.layers)
    rgb = np.zeros((16 * h, 16 * w, 3), np.uint8)
    rgb[: picture.height, : picture.width] = picture.rgb
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    latents = zone.y_hat(state).to(torch.int16), reference.merge(*r), reference.merge(*k)
    y = features * gain_at(m.log_gain, torch.tensor([quality]))
    return Seen(x, *latents, psi.to(torch.uint8), torch.tensor([quality])), y


class Beside(nn.Module):
    """g_s, and beside it a network that sees what its arm lets it; it adds nothing at the start."""

    def __init__(self, codec: ckbd.Codec, arm: str):
        super().__init__()
        m, c = codec.model, codec.model.config
        self.arm, self.log_ungain = arm, m.log_ungain
        self.g_s = copy.deepcopy(m.g_s).requires_grad_()
        channels = {"plain": 0, "blind": c.M, "psi": c.psi + c.M, "lrp": c.psi + 3 * c.M}[arm]
        self.more = nn.ModuleList([Pointwise(channels + 1, HIDDEN), Pointwise(HIDDEN, c.M)] if channels else [])
        if channels:
            nn.init.zeros_(self.more[1].weight)
            nn.init.zeros_(bias_of(self.more[1]))

    def forward(self, s: Seen, moved: Tensor | float = 0.0) -> Tensor:
        """x_hat; moved: what is added to y_hat before, in steps of the quantiser."""
        y, ungain = s.y / numerics.MEAN_STEP + moved, gain_at(self.log_ungain, s.quality)
        psi, k = s.psi / 16, s.k / 8.0 - 4
        if self.arm == "lrp":
            r = s.r.float()
            y = y + 0.5 * torch.tanh(self.said(s, psi, k, torch.asinh(r), torch.asinh(y - r)).float())
        first, *rest = self.g_s.stages()
        f = first(y * ungain)
        if self.arm in ("blind", "psi"):
            f = f + (self.said(s, psi, k) if self.arm == "psi" else self.said(s, y * ungain))
        for stage in rest:
            f = stage(f)
        return f

    def said(self, s: Seen, *planes: Tensor) -> Tensor:
        quality = (s.quality / 100).view(-1, 1, 1, 1).expand(-1, 1, *s.y.shape[2:])
        enter, leave = self.more
        return leave(enter(torch.cat((*planes, quality), 1), 0.1))

    def cost(self) -> tuple[float, float]:
        """Multiply-adds a pixel: of g_s, and of what is beside it."""
        g = self.g_s
        eighth = sum(p.numel() for part in (g.blocks8, g.pixels) for p in part.parameters() if p.dim() == 4)
        sixteenth = sum(p.numel() for part in (g.enter, g.blocks16, g.up) for p in part.parameters() if p.dim() == 4)
        return eighth / 64 + sixteenth / 256, sum(p.numel() for p in self.more.parameters() if p.dim() == 4) / 256


def trained(codec: ckbd.Codec, arm: str, seed: int, pool: list[Seen], args: argparse.Namespace) -> Beside:
    """The moving average of an arm's weights; pool: by rising quality."""
    steps, bf16 = args.steps, args.bf16
    torch.manual_seed(seed)
    rng, c = np.random.default_rng(seed), codec.model.config
    model = Beside(codec, arm)
    average = copy.deepcopy(model)
    balance = (c.lmbda_min * c.lmbda_max) ** 0.5
    matrices = [p for p in model.g_s.parameters() if p.dim() == 4 and p.shape[1] > 1]
    rest = [p for p in model.g_s.parameters() if p.dim() < 4 or p.shape[1] == 1]
    groups = [{"params": rest, "lr": RATE}] + ([{"params": list(model.more.parameters())}] if arm != "plain" else [])
    adam = torch.optim.Adam(groups, lr=args.rate)
    muon = Muon(matrices, lr=RATE, dtype=torch.bfloat16 if bf16 else torch.float32)
    rates = [(group, group["lr"]) for one in (adam, muon) for group in one.param_groups]
    weights, averaged = list(model.parameters()), list(average.parameters())
    for step in range(steps):
        share = train.learning_rate(1.0, step, step / steps)
        for group, peak in rates:
            group["lr"] = peak * share
        s = batch(pool, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            x_hat = model(s)
        error = (x_hat.float() - s.x / 255.0).square().flatten(1).mean(1)
        loss = (255.0**2 * error * (balance * lmbda_at(c, (s.quality - 1) / 99)) ** 0.5).mean()
        adam.zero_grad()
        muon.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        muon.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 1 - min(DECAY, (1 + step) / (10 + step)))
    return average


def batch(pool: list[Seen], rng: np.random.Generator) -> Seen:
    """COUNT pictures, one from each of as many strata of the qualities."""
    found = [pool[int((i + rng.random()) / COUNT * len(pool))] for i in range(COUNT)]
    return Seen(*(torch.cat(parts).contiguous() for parts in zip(*found, strict=True)))


def means(pairs: Iterable[tuple[Seen, Tensor]]) -> Tensor:
    """(64, TOP + 1): the mean of (y - y_hat) sign(r) of scale index k and size |r|; 0 for no r, and where few are."""
    total, count = (torch.zeros(64 * (TOP + 1), dtype=torch.float64) for _ in range(2))
    for s, y in pairs:
        place = (s.k.long() * (TOP + 1) + s.r.abs().clamp(max=TOP)).flatten()
        total.index_add_(0, place, ((y - s.y / numerics.MEAN_STEP) * s.r.sign()).flatten().double())
        count.index_add_(0, place, torch.ones(len(place), dtype=torch.float64))
    return torch.where(count >= LEAST, total / count.clamp(min=1), 0.0).float().view(64, -1)


def moved(model: Beside, found: Tensor, s: Seen) -> Tensor:
    """x_hat of y_hat moved to the means of a table."""
    return model(s, found[s.k.long(), s.r.abs().clamp(max=TOP).long()] * s.r.sign())


@torch.no_grad()
def curve(paint: Callable[[Seen], Tensor], shown: list[list[Seen]], rgb: list[np.ndarray], bpp: list[float]) -> dict:
    """bpp, and the mean PSNR of pictures painted at each quality; shown: a row a quality."""
    rows = []
    for row in shown:
        painted = [(paint(s)[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy() for s in row]
        pairs = zip(rgb, painted, strict=True)
        rows.append(float(np.mean([image.psnr(x, p[: x.shape[0], : x.shape[1]]) for x, p in pairs])))
    return {"bpp": bpp, "psnr": rows}


class Streams(NamedTuple):
    """Of one weight of the dead zone: the pictures of --val at QUALITIES and their bpp, those of the data, each at a
    quality, by rising quality, and the table of means() of these."""

    shown: list[list[Seen]]
    bpp: list[float]
    pool: list[Seen]
    means: Tensor


def streams(codec: ckbd.Codec, weight: float, val: list[Picture], data: list[Picture]) -> Streams:
    before = deadzone.WEIGHT
    deadzone.WEIGHT = weight
    try:
        shown = [[seen(codec, p, q)[0] for p in val] for q in QUALITIES]
        made = [[8 * len(one) / (p.width * p.height) for one in codec.encode_at(p, QUALITIES)] for p in val]
        order, pool = np.random.default_rng(0).permutation(len(data)), []

        def pairs() -> Iterator[tuple[Seen, Tensor]]:
            for n, i in enumerate(order):
                pair = seen(codec, data[i], round(2 + 198 * (n + 0.5) / len(data)) / 2)
                pool.append(pair[0])
                yield pair

        found = means(pairs())
    finally:
        deadzone.WEIGHT = before
    return Streams(shown, [float(b) for b in np.mean(made, axis=0)], pool, found)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.sight",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--init", default="small", metavar="MODEL")
    parser.add_argument("--data", nargs="+", required=True, help="folders or tar files to train with")
    parser.add_argument("--crops", type=int, default=1600, help="of the data, each at one quality")
    parser.add_argument("--val", nargs="+", default=[], help="photographs (default: one of scikit-image)")
    parser.add_argument("--every", type=int, default=1, help="take one photograph in so many")
    parser.add_argument("--arms", nargs="*", default=list(ARMS[1:]), choices=ARMS)
    parser.add_argument("--weights", nargs="+", type=float, default=[], help="of the dead zone, beside the default")
    parser.add_argument("--arms-at", nargs="+", type=float, default=[deadzone.WEIGHT], help="weights for the arms")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument(
        "--rate", type=float, default=1e-3, help="of learning what is beside g_s (default %(default)s)"
    )
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    try:
        codec = ckbd.load(args.init, threads=1)
        val = load_pictures(args.val)[:: args.every]
        x = torch.round(255 * Crops(args.data, SIDE, 0).batch(args.crops, SIDE)).to(torch.uint8)
        data = [image.from_array(one.numpy()) for one in x.permute(0, 2, 3, 1).contiguous()]
    except (OSError, ValueError) as error:
        print(f"bench.studies.sight: {error}", file=sys.stderr)
        return 1
    rgb, shipped = [p.rgb for p in val], Beside(codec, "plain")
    anchor: dict = {}

    def add(arm: str, seed: int, weight: float, found: dict, plain: dict | None = None) -> None:
        of = {"shipped": change(anchor or found, found), "plain": change(plain, found) if plain else None}
        rows.append({"arm": arm, "seed": seed, "weight": weight, "change": of} | found)
        print(arm, seed, weight, of, flush=True)
        save(args.json, rows)

    for weight in dict.fromkeys([deadzone.WEIGHT, *args.weights]):
        made = streams(codec, weight, val, data if weight in args.arms_at else data[:: -(-len(data) // FEW)])
        plain = curve(shipped, made.shown, rgb, made.bpp)
        anchor = anchor or plain
        add("shipped", 0, weight, plain)
        add("moved", 0, weight, curve(partial(moved, shipped, made.means), made.shown, rgb, made.bpp), plain)
        for seed in range(args.seeds if weight in args.arms_at else 0):
            for arm in dict.fromkeys(["plain", *args.arms]):
                model = trained(codec, arm, seed, made.pool, args)
                found = curve(model, made.shown, rgb, made.bpp)
                plain = found if arm == "plain" else plain
                add(arm, seed, weight, found, plain)
    lines = []
    for weight, arm in dict.fromkeys((r["weight"], r["arm"]) for r in rows):
        own = [r["change"] for r in rows if (r["weight"], r["arm"]) == (weight, arm)]
        cost = Beside(codec, arm).cost()[1] if arm in ARMS else 0.0
        cells = [spread([one[name] for one in own]) for name in ("shipped", "plain")]
        lines.append([arm, f"{weight:g}", *cells, f"{cost:.0f}"])
    print(table(["", "dead zone", "against shipped, %", "against plain, %", "multiply-adds a pixel"], lines))
    print(f"g_s: {shipped.cost()[0]:.0f} multiply-adds a pixel")
    return 0


if __name__ == "__main__":
    sys.exit(main())
