"""The widths of a model, without torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


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

    def __post_init__(self) -> None:
        """Refuse, by ValueError, what a hostile or mistyped model file or config may hold."""
        blocks = {"analysis8": 0, "analysis16": 0, "synthesis8": 0, "synthesis16": 0}
        least = {"width": 64, "M": 8, "levels": 2, "analysis_width": 64 if self.analysis_width else 0} | blocks
        for field in dataclasses.fields(Config):
            value = getattr(self, field.name)
            if field.name.startswith("lmbda"):
                fits, wanted = isinstance(value, (int, float)) and 0 < value < 1e6, "a number above 0"
            else:
                low, high = least.get(field.name, 1), 64 if field.name in blocks else 2048
                fits, wanted = type(value) is int and low <= value <= high, f"an integer from {low} to {high}"
            if not fits:
                raise ValueError(f"{field.name}: expected {wanted}, got {value!r}")

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The config of a JSON object with some or all of the fields; ValueError for anything else."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"config: {error}") from error


def exact_shapes(c: Config) -> dict[str, tuple[int, ...]]:
    """Weight shapes of the exact zone (docs/numerics.md, section 4)."""
    return {
        "h_s.0": (4 * c.h_s, c.Nz + 1, 3, 3),
        "h_s.1": (4 * c.psi, c.h_s, 3, 3),
        "first": (c.H1, c.psi + 12 * c.M),
        "hidden": (c.H2, c.H1),
        "output": (2 * c.M, c.H2),
    }
