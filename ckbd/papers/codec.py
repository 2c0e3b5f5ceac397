"""Codecs of the models of the papers: ckbd.Codec with a VariantEncoder and a VariantDecoder."""

from __future__ import annotations

from pathlib import Path

import torch

from ckbd.api import Codec
from ckbd.codec import limits, machine
from ckbd.papers import file
from ckbd.papers.decoder import VariantDecoder
from ckbd.papers.encoder import VariantEncoder
from ckbd.papers.tables import Tables
from ckbd.papers.zone import Zone


def load(
    model: str | Path,
    *,
    device: str | torch.device = "cpu",
    team: machine.Team,
    max_pixels: int = limits.MAX_PIXELS,
) -> Codec[VariantEncoder, VariantDecoder]:
    """ckbd.load of a variant's file, for a team of threads. The exact zone runs on the CPU, whatever the device."""
    place = machine.device_of(device)
    loaded = file.load(model, place)
    exact = None if loaded.config.prior == "factorised" else Zone(loaded.layers, loaded.config, team)
    tables = Tables.of(loaded)
    if place.type == "cuda":
        torch.cuda.synchronize(place)  # whatever stream it is used on, the model is there
    return Codec(
        VariantEncoder(loaded, exact, tables, device=place, team=team, max_pixels=max_pixels),
        VariantDecoder(loaded, exact, tables, device=place, team=team, max_pixels=max_pixels),
        team,
        place,
    )
