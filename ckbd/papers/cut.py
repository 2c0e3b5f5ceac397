"""A supernet cut to one of its masks."""

from __future__ import annotations

import dataclasses

import torch

from ckbd.papers.context import Context
from ckbd.papers.variant import Variant


@torch.no_grad()
def cut(model: Variant, chosen: Context) -> Variant:
    """A supernet with one mask for good: an ordinary model of the context `chosen`, whose taps it must have.

    Raises ValueError unless model is a supernet and has weights for every tap.
    """
    c = model.config
    if not c.supernet:
        raise ValueError("cut: expected a supernet, got a model that has one mask already")
    missing = [tap for tap in chosen.taps if tap not in c.seen.taps]
    if missing:
        raise ValueError(f"cut: the supernet has no weights for the neighbour at {missing[0]}")
    config = dataclasses.replace(c, context=chosen, supernet=False)
    out = Variant(config)
    state = dict(model.state_dict())
    weight = state["exact.first.weight"]
    kept = [weight[:, : c.psi]]
    kept += [weight[:, c.psi :].unflatten(1, (c.taps, c.M))[:, c.seen.taps.index(tap)] for tap in chosen.taps]
    state["exact.first.weight"] = torch.cat(kept, 1)
    out.load_state_dict(state)
    return out.train(model.training)
