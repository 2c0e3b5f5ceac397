"""What training starts from: a checkpoint, or any model file, shipped ones included.

A model file has int8 weights, float16 weights and tables. Integers become the real weights that round to them, the
tables of z the densities nearest to them; those of y are Gaussians again until tables are fitted (training.fit).
"""

from __future__ import annotations

import dataclasses
import errno
import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ckbd.kernels import numerics
from ckbd.model import file, library
from ckbd.model.config import Config
from ckbd.model.entropy import FactorizedPrior
from ckbd.model.model import Checkerboard, carried_gains
from ckbd.training.fit import table_mass

FIT_STEPS, RATE = 600, 0.1  # of the densities of z


def read_checkpoint(path: str | Path, device: str, config: Config | None = None) -> dict:
    """What ckbd train stored; ValueError if it is damaged, or not of this config."""
    state = read_state(path, device, "ckbd train", ("average", "config"))
    if config is not None and state["config"] != config.to_json():
        raise ValueError(f"{path}: made with another config: {state['config']}")
    return state


def read_state(path: str | Path, device: str, program: str, fields: tuple[str, ...]) -> dict:
    """A dictionary that torch.save wrote, with these fields; OSError, or ValueError in one line for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of a byte that says how the rest was written
            state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
        for name in fields:
            state[name]
    except OSError as error:
        if error.errno != errno.EINVAL:  # PyTorch looks before the beginning of a file that was cut
            raise
        raise ValueError(f"{path}: not a checkpoint of {program}: it ends too soon") from error
    except pickle.UnpicklingError as error:  # PyTorch's own words advise to run what may be anybody's code
        raise ValueError(
            f"{path}: not a checkpoint of {program}: no tensors and numbers that torch.save wrote"
        ) from error
    except Exception as error:  # of any kind, for other bytes
        raise ValueError(f"{path}: not a checkpoint of {program}: {_why(error)}") from error
    return state


def _why(error: Exception) -> str:
    """The first line of what PyTorch says, and of what kind it is."""
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'it says no more'}"
    )


def model_of(path: str | Path) -> Checkerboard:
    """What can be trained of a model file, a shipped model's name, or the averaged weights of a checkpoint.pt.

    Raises OSError or ValueError naming what is wrong.
    """
    if str(path).endswith(".pt"):
        state = read_checkpoint(path, "cpu")
        try:
            config = Config(**state["config"])
            with torch.device("meta"):  # before there is memory for what the config says
                Checkerboard(config).load_state_dict(state["average"], assign=True)
            model = Checkerboard(config)
            model.load_state_dict(state["average"])
        except (TypeError, RuntimeError, AttributeError) as error:
            raise ValueError(f"{path}: config and weights of no such model: {_why(error)}") from error
        return model
    return of_loaded(file.load(library.find(path)))


@torch.no_grad()
def of_loaded(loaded: file.Loaded) -> Checkerboard:
    """The model of a model file, as one that can be trained."""
    model = Checkerboard(loaded.config)
    for part in ("g_a", "h_a", "g_s"):
        getattr(model, part).load_state_dict(getattr(loaded, part).state_dict())
    model.exact.set_integers(loaded.layers)
    model.log_gain.copy_(loaded.log_gain)
    model.log_ungain.copy_(loaded.log_ungain)
    fit_densities(model.prior, table_mass(loaded.tables))
    return model


def start(model: Checkerboard, of: Checkerboard, name: str) -> None:
    """Gives model the weights of another, named for the ValueError if more than the range of lmbda is different."""
    config, to = of.config, model.config
    if dataclasses.replace(config, lmbda_min=to.lmbda_min, lmbda_max=to.lmbda_max) != to:
        raise ValueError(f"{name}: made with another config: {config.to_json()}")
    weights = of.state_dict()
    weights["log_gain"] = carried_gains(weights["log_gain"], config, to)
    weights["log_ungain"] = -carried_gains(-weights["log_ungain"], config, to)
    model.load_state_dict(weights)


@torch.enable_grad()
def fit_densities(prior: FactorizedPrior, mass: Tensor, steps: int = FIT_STEPS) -> Tensor:
    """Brings a prior to a mass of z = -127 ... 127 for every channel, (Nz, 255), as near as its form allows.

    Returns what is lost, in bits a symbol that follows mass, (Nz,) float64.
    """
    z = torch.arange(-numerics.ACT_MAX, numerics.ACT_MAX + 1, dtype=torch.float64).expand(len(mass), -1)
    weights = list(prior.double().parameters())
    optimiser = torch.optim.Adam(weights, lr=RATE)
    entropy = -torch.special.xlogy(mass, mass).sum(1) / torch.log(torch.tensor(2.0))
    for step in range(steps + 1):
        bits = (mass * -torch.log2(prior.mass(z).clamp(min=1e-9))).sum(1)
        if step == steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        optimiser.zero_grad()
        bits.sum().backward()
        optimiser.step()
    prior.float()
    return (bits - entropy).detach()
