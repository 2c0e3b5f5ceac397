"""The tables of a loaded variant as the coder of version 2 takes them."""

from __future__ import annotations

from dataclasses import dataclass

from ckbd import _rans
from ckbd.papers.file import LoadedVariant


@dataclass(frozen=True)
class Tables:
    """plain: as version 1 has them; mixtures: what integer centring adds."""

    plain: _rans.Tables
    mixtures: _rans.MixtureTables

    @classmethod
    def of(cls, model: LoadedVariant) -> Tables:
        t = {name: value.numpy() for name, value in model.tables.items()}
        plain = (t[f"table.{name}"] for name in ("y.freq", "y.max", "z.freq", "z.low", "z.size"))
        mixtures = (t[f"table.m.{name}"] for name in ("cdf", "inverse", "share", "radius"))
        return cls(_rans.Tables(*plain), _rans.MixtureTables(*mixtures))
