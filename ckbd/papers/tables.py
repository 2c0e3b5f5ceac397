"""The tables of a loaded variant as the coder of version 2 takes them."""

from __future__ import annotations

from dataclasses import dataclass

from ckbd import _rans
from ckbd.codec.tables import coder_tables
from ckbd.papers.file import LoadedVariant


@dataclass(frozen=True)
class Tables:
    """plain: as version 1 has them; mixtures: what integer centring adds."""

    plain: _rans.Tables
    mixtures: _rans.MixtureTables

    @classmethod
    def of(cls, model: LoadedVariant) -> Tables:
        mixtures = (model.tables[f"table.m.{name}"].numpy() for name in ("cdf", "inverse", "share", "radius"))
        return cls(coder_tables(model.tables), _rans.MixtureTables(*mixtures))
