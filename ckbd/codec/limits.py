"""How large a picture may be, asked before anything is allocated for it."""

from __future__ import annotations

MAX_PIXELS = 1 << 27
"""Of a picture, unless somebody says otherwise: as large cameras have them, and 2 to 4 GB of a decoder's memory."""

LEAST_SIDE = 64  # what a side counts as at least, since networks and coder see whole patches


def excess(width: int, height: int, max_pixels: int) -> str | None:
    """What is to be said of a picture that is too large, or None.

    A side counts as LEAST_SIDE at least: a picture of 1 x 2^27 would be one of 64 x 2^27 to all that is behind here.
    """
    if width * height > max_pixels:
        thin = ""
    elif max(width, LEAST_SIDE) * max(height, LEAST_SIDE) > max(max_pixels, LEAST_SIDE**2):
        thin = f", a side counting as {LEAST_SIDE} at least"
    else:
        return None
    return f"{width} x {height} pixels are more than the limit of {max_pixels} (max_pixels){thin}"
