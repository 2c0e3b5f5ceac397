"""`ckbd train CONFIG`: a model of `ckbd.papers.variant` trained by a JSON recipe, resumable to the last bit.

The folder `out` receives log.csv (a row a step, losses in full), checkpoint.pt and, at the end, model.safetensors. On
one device and thread count the log depends on nothing but the recipe: not on how often, where or how it was
interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import json
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckbd.model.transforms import channels_last
from ckbd.papers import file as variantfile
from ckbd.papers.variant import Variant, VariantConfig
from ckbd.training import start
from ckbd.training.data import Crops
from ckbd.training.distortion import Shares
from ckbd.training.options import crop_stages
from ckbd.training.steps import draw_qualities, loss_of
from ckbd.training.train import cut_log, learning_rate

COLUMNS = ("step", "lr", "loss", "bpp", "bpp_z", "psnr")


# How a field's annotation reads -> what its value may be.
KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "list": (list,),
    "dict": (dict,),
}


@dataclass(frozen=True)
class Recipe:
    """What a run does. init: a checkpoint whose averaged weights it starts from ("": from nothing). data: folders or
    tar files; crops: SIZExCOUNT of each equal part of the run; steps: its length.

    rate: the bits are of "noise" or "rounded" values; latent: g_s and context see "ste" or "noise"
    (ckbd.papers.variant).
    The loss is R + lmbda D of metric "mse" or "ms-ssim"; R holds the bits of z too. There is no auxiliary loss: the
    coder's tables are made of the trained densities at export, so nothing else has to learn where their tails are.
    """

    model: dict = field(default_factory=dict)
    data: list = field(default_factory=list)
    out: str = "run"
    init: str = ""
    steps: int = 3000
    crops: str = "128x8"
    lr: float = 1e-3
    clip: float = 1.0
    ema: float = 0.999
    metric: str = "mse"
    rate: str = "noise"
    latent: str = "ste"
    bf16: bool = False
    seed: int = 0
    threads: int = 0
    device: str = "cpu"
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        wanted = {"metric": ("mse", "ms-ssim"), "rate": ("noise", "rounded"), "latent": ("ste", "noise")}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, KINDS[str(one.type)]) or (isinstance(value, bool) and one.type != "bool"):
                raise ValueError(f"{one.name}: expected {one.type}, got {value!r}")
            if value not in wanted.get(one.name, (value,)):
                raise ValueError(f"{one.name}: expected one of {', '.join(wanted[one.name])}, got {value!r}")
        for name in ("steps", "checkpoint_every", "lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: expected 0 to 1, got {self.ema}")
        if not self.data or not all(isinstance(path, str) for path in self.data):
            raise ValueError(f"data: expected folders or tar files, got {self.data!r}")
        stages = crop_stages(self.crops)
        if self.metric == "ms-ssim" and min(size for size, _ in stages) < 192:
            raise ValueError(f"crops: MS-SSIM needs at least 192 pixels, got {self.crops}")

    @property
    def config(self) -> VariantConfig:
        _check_fields("model", self.model, VariantConfig)
        return VariantConfig(**self.model)

    @classmethod
    def read(cls, path: str | Path, **changes: Any) -> Recipe:
        """The recipe of a JSON file with some of the fields changed; ValueError naming what is wrong."""
        try:
            given = json.loads(Path(path).read_text())
        except (ValueError, RecursionError) as error:  # no JSON, or no text, or more brackets than can be followed
            raise ValueError(f"{path}: {error}") from error
        _check_fields(str(path), given, cls)
        return cls(**(given | changes))


def _check_fields(name: str, given: object, of: type) -> None:
    """ValueError for what is no object of JSON, or has a field that a dataclass has not."""
    if not isinstance(given, dict):
        raise ValueError(f"{name}: expected an object, got {type(given).__name__}")
    known = [one.name for one in dataclasses.fields(of)]
    for key in given:
        if key not in known:
            raise ValueError(f"{name}: {key}: no such field; there are {', '.join(known)}")


def draw_mask(taps: int, seed: int, step: int) -> Tensor:
    """(taps,) 0 or 1 of a supernet's step: half of the draws any density, then single neighbours, all and none.

    Depends on seed and step alone, so a resumed run draws the same.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % (1 << 32))  # it takes 32 bits
    kind = torch.rand((), generator=generator).item()
    if kind < 0.5:
        density = torch.rand((), generator=generator)
        return (torch.rand(taps, generator=generator) < density).float()
    if kind < 0.8:
        return torch.eye(taps)[torch.randint(taps, (), generator=generator)]
    return torch.ones(taps) if kind < 0.9 else torch.zeros(taps)


def run(recipe: Recipe, quiet: bool = False) -> Path:
    """Train, or go on from out/checkpoint.pt, and export out/model.safetensors; returns its path.

    Raises ValueError for a checkpoint that is damaged or of another recipe, and for data that does not fit.
    """
    config = recipe.config
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    stages = crop_stages(recipe.crops)
    data = Crops(recipe.data, max(size for size, _ in stages), recipe.seed)
    model = channels_last(Variant(config).to(recipe.device))
    if recipe.init:
        first = averaged_model(recipe.init)
        if first.config != config:
            raise ValueError(f"init: {recipe.init} is of another model")
        model.load_state_dict(first.state_dict())
    average = Variant(config).to(recipe.device)
    torch.manual_seed(recipe.seed)  # models of unequal size go on with the same noise and qualities
    average.load_state_dict(model.state_dict())
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    step, checkpoint, log = 0, out / "checkpoint.pt", out / "log.csv"
    same = {
        key: value
        for key, value in dataclasses.asdict(recipe).items()
        if key not in ("out", "init", "threads", "device")
    }
    same["model"] = config.to_json()
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, recipe.device)
        if state["recipe"] != same:
            raise ValueError(f"{checkpoint}: made by another recipe")
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
        _set_random_state(state, data, recipe.device)
    cut_log(log, step)

    def store() -> None:
        state: dict[str, Any] = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        state |= {"step": step, "recipe": same, "rng": torch.get_rng_state()}
        state |= {"data_rng": data.rng.bit_generator.state}
        if torch.device(recipe.device).type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(recipe.device)
        torch.save(state, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)

    balance = math.sqrt(config.lmbda_min * config.lmbda_max)
    weights: list[Tensor] = list(model.parameters())
    averaged: list[Tensor] = list(average.parameters())
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(log, "a", newline="", buffering=1))
        rows = csv.writer(file)
        if not file.tell():
            rows.writerow(COLUMNS)
        while step < recipe.steps:
            progress = step / recipe.steps
            size, count = stages[int(progress * len(stages))]
            x = data.batch(count, size).to(recipe.device, memory_format=torch.channels_last)
            quality = draw_qualities(count).to(recipe.device)
            only = draw_mask(config.taps, recipe.seed, step).to(recipe.device) if config.supernet else None
            with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.bf16):
                result = model(x, quality, recipe.rate, recipe.latent, only)
            parts = loss_of(result, x, model.lmbda(quality), Shares(float(recipe.metric == "ms-ssim")), balance)
            optimiser.zero_grad(set_to_none=True)
            parts["loss"].backward()
            torch.nn.utils.clip_grad_norm_(weights, recipe.clip)
            lr = learning_rate(recipe.lr, step, progress)
            for group in optimiser.param_groups:
                group["lr"] = lr
            optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(averaged, weights, 1 - min(recipe.ema, (1 + step) / (10 + step)))
            step += 1
            psnr = -10 * torch.log10(parts["mse"].detach().clamp(min=1e-10)).mean()
            bpp_z = result["bits_z"].detach().mean() / size**2
            values = (parts["loss"].detach(), parts["bpp"].detach().mean(), bpp_z, psnr)
            rows.writerow([step, repr(lr), *(repr(float(v)) for v in values)])
            if step % recipe.checkpoint_every == 0 or step == recipe.steps:
                file.flush()
                store()
                if not quiet:
                    print(f"{out}: step {step}, loss {float(values[0]):.4f}", flush=True)
    path = out / "model.safetensors"
    variantfile.save(average, path)
    return path


def load_checkpoint(path: str | Path, device: str = "cpu") -> dict:
    """What run() stored; ValueError if it is damaged or something else."""
    return start.read_state(path, device, "ckbd train CONFIG", ("recipe", "step", "data_rng"))


def averaged_model(path: str | Path) -> Variant:
    """The averaged weights of a checkpoint, for `ckbd.papers.cut` and the studies."""
    state = load_checkpoint(path)
    model = Variant(VariantConfig(**state["recipe"]["model"]))
    model.load_state_dict(state["average"])
    return model.eval()


def _set_random_state(state: dict, data: Crops, device: str) -> None:
    torch.set_rng_state(state["rng"].cpu())
    data.rng.bit_generator.state = state["data_rng"]
    if "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"].cpu(), device)


def main(argv: list[str]) -> int:
    """The command line of `ckbd train CONFIG`."""
    parser = argparse.ArgumentParser(prog="ckbd train", description="Train a model by a JSON recipe.")
    parser.add_argument("config", metavar="CONFIG", help="JSON with fields of ckbd.training.recipe.Recipe")
    parser.add_argument("--data", nargs="+", help="folders or tar files of pictures, instead of the recipe's")
    parser.add_argument("--out", help="folder for checkpoint, log and model, instead of the recipe's")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device")
    args = vars(parser.parse_args(argv))
    config = args.pop("config")
    try:
        recipe = Recipe.read(config, **{name: value for name, value in args.items() if value is not None})
        path = run(recipe)
        print(f"{path}: {os.path.getsize(path)} bytes")
    except (OSError, ValueError) as error:
        print(f"ckbd train: {error}", file=sys.stderr)
        return 1
    return 0
