"""What a stream's payload holds, symbol by symbol, without torch: z, then the residuals of every phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ckbd import _rans
from ckbd.codec import checks
from ckbd.codec.container import Stream

Z_MAX, R_MAX = 127, 1023  # docs/numerics.md, section 1


def coders(streams: Sequence[Stream], tables: _rans.Tables, phases: int) -> list[_rans.Decoder]:
    """Coders at the first symbols of payloads. Raises FormatError."""
    found = []
    for s in streams:
        h = s.header
        try:
            coder = _rans.Decoder(
                tables, s.payload, lanes_log2=h.lanes_log2, skip_max=h.skip_max, tail=h.tail, phases=phases
            )
        except _rans.StreamError as error:
            raise checks.damage(s, error) from error
        found.append(coder)
    return found


def z(streams: Sequence[Stream], coders: Sequence[_rans.Decoder], out: np.ndarray, threads: int) -> None:
    """Fills out, int16 (B, ...), with the symbols of z. Raises FormatError."""
    checks.settle(streams, _rans.z_batch(coders, [one.reshape(-1) for one in out], threads=threads))
    checks.check_range(streams, out, "z symbol", Z_MAX)


def residuals(
    streams: Sequence[Stream], coders: Sequence[_rans.Decoder], k: np.ndarray, out: np.ndarray, threads: int
) -> None:
    """Fills out, int16 (B, ...), with the symbols of the next phase, by their tables k, uint8. Raises FormatError."""
    ks, rs = ([one.reshape(-1) for one in array] for array in (k, out))
    checks.settle(streams, _rans.phase_batch(coders, ks, rs, threads=threads))
    checks.check_range(streams, out, "residual", R_MAX)


def finish(streams: Sequence[Stream], coders: Sequence[_rans.Decoder]) -> None:
    """After the last phase: nothing is left of any payload. Raises FormatError."""
    for s, coder in zip(streams, coders, strict=True):
        try:
            coder.finish()
        except _rans.StreamError as error:
            raise checks.damage(s, error) from error
