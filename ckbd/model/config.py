"""The widths of a model, without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
MAX_GROUPS = 16  # docs/format.md, section 6
PREVIEW_SIDE = 4  # pixels of a side that a model file's preview gives of a latent


@dataclass(frozen=True)
class Config:
    """Widths of the model; all are positive, H1, H2 and psi multiples of 32 (int8 dots), M of 8."""

    width: int = 128  # features at 1/8 resolution
    analysis_width: int = 0  # those of g_a, if the encoder is to be another (0: width)
    M: int = 256  # latent channels
    Nz: int = 64  # hyper-latent channels
    hyper: int = 128  # features of h_a
    h_s: int = 96  # features of h_s between its two sub-pixel convolutions
    psi: int = 128  # hyper features at 1/16
    H1: int = 256  # hidden widths of g_ep
    H2: int = 256
    analysis8: int = 2  # residual blocks of g_a and g_s at 1/8 and 1/16 resolution
    analysis16: int = 2
    synthesis8: int = 3
    synthesis16: int = 2
    levels: int = 8  # gain vectors between quality 1 and 100
    lmbda_min: float = 0.0008  # rate-distortion weight at quality 1 ...
    lmbda_max: float = 0.16  # ... and at quality 100 (MSE on the 0..255 scale)
    groups: tuple[int, ...] = ()  # widths of channel groups, one after the other (docs/numerics.md, section 6)
    channel: int = 64  # features that a group has of those before it

    def __post_init__(self) -> None:
        """Refuse, by ValueError, what a hostile or mistyped model file or config may hold."""
        blocks = {"analysis8": 0, "analysis16": 0, "synthesis8": 0, "synthesis16": 0}
        least = {"width": 64, "M": 8, "levels": 2, "analysis_width": 64 if self.analysis_width else 0} | blocks
        for field in dataclasses.fields(Config):
            value = getattr(self, field.name)
            if field.name == "groups":
                self._take_groups(value)
                continue
            if field.name.startswith("lmbda"):
                fits, wanted = isinstance(value, (int, float)) and 0 < value < 1e6, "a number above 0"
            else:
                low, high = least.get(field.name, 1), 64 if field.name in blocks else 2048
                fits, wanted = type(value) is int and low <= value <= high, f"an integer from {low} to {high}"
            if not fits:
                raise ValueError(f"{field.name}: expected {wanted}, got {value!r}")

    def _take_groups(self, value: object) -> None:
        """Groups as a tuple, of whatever sequence JSON has made of them; ValueError unless they make up M."""
        widths: list[Any] = list(value) if isinstance(value, (tuple, list)) else [value]
        if any(type(n) is not int or n < 8 for n in widths) or (widths and sum(widths) != self.M):
            raise ValueError(f"groups: expected widths of 8 and more that add to M = {self.M}, got {value!r}")
        if len(widths) not in (0, *range(2, MAX_GROUPS + 1)):
            raise ValueError(f"groups: expected none or 2 to {MAX_GROUPS} of them, got {len(widths)}")
        object.__setattr__(self, "groups", tuple(widths))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them; without groups as they were before there were any."""
        left_out = () if self.groups else ("groups", "channel")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The config of a JSON object with some or all of the fields; ValueError for anything else."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"config: {str(error):.400}") from error


# Of the models that ship, and of one that is for those who have a GPU.
SIZES = {
    "small": Config(analysis_width=192, analysis8=4, analysis16=3, lmbda_min=0.0004, lmbda_max=0.24),
    "base": Config(
        width=256,
        analysis_width=256,
        M=320,
        Nz=96,
        hyper=192,
        h_s=128,
        psi=192,
        H1=512,
        H2=384,
        analysis8=5,
        analysis16=4,
        synthesis8=5,
        synthesis16=4,
        lmbda_min=0.0004,
        lmbda_max=0.24,
    ),
    "large": Config(
        width=384,
        analysis_width=384,
        M=320,
        Nz=96,
        hyper=192,
        h_s=128,
        psi=192,
        H1=256,
        H2=256,
        analysis8=8,
        analysis16=12,
        synthesis8=8,
        synthesis16=12,
        lmbda_min=0.0004,
        lmbda_max=0.24,
        groups=(16, 16, 32, 64, 192),
    ),
}


def exact_shapes(c: Config) -> dict[str, tuple[int, ...]]:
    """Weight shapes of the exact zone (docs/numerics.md, section 4)."""
    found: dict[str, tuple[int, ...]] = {
        "h_s.0": (4 * c.h_s, c.Nz + 1, 3, 3),
        "h_s.1": (4 * c.psi, c.h_s, 3, 3),
    }
    before = 0
    for prefix, M in zip(group_prefixes(c), c.groups or (c.M,), strict=True):
        if before:
            found[f"{prefix}channel"] = (c.channel, before, 3, 3)
        seen = c.psi + (c.channel if before else 0)
        found[f"{prefix}first"] = (c.H1, seen + 12 * M)
        found[f"{prefix}hidden"] = (c.H2, c.H1)
        found[f"{prefix}output"] = (2 * M, c.H2)
        before += M
    return found


def by_group(layers: Mapping[str, T]) -> list[dict[str, T]]:
    """What there is of each layer, for each channel group under the names that a model without groups has: h_s, which
    they share, and those of its own.
    """
    if "first" in layers:
        return [dict(layers)]
    shared = {name: layer for name, layer in layers.items() if not name[0].isdigit()}
    found: dict[int, dict[str, T]] = {}
    for name, layer in layers.items():
        if name not in shared:
            number, _, rest = name.partition(".")
            found.setdefault(int(number), dict(shared))[rest] = layer
    return [found[number] for number in sorted(found)]


def group_prefixes(c: Config) -> list[str]:
    """What the names of each channel group's layers begin with; of a model without groups nothing."""
    return [f"{g}." for g in range(len(c.groups))] or [""]
