"""The tables of a model file as the coder takes them."""

from __future__ import annotations

from torch import Tensor

from ckbd import _rans


def coder_tables(tables: dict[str, Tensor]) -> _rans.Tables:
    """The tables of docs/format.md, section 6, out of a loaded model's integers; version 2 has them as well."""
    t = {name: table.numpy() for name, table in tables.items()}
    return _rans.Tables(t["table.y.freq"], t["table.y.max"], t["table.z.freq"], t["table.z.low"], t["table.z.size"])
