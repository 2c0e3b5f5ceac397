"""The quality at which a picture meets a target: bits a pixel at the most, or decibels at the least."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckbd.api import Codec
    from ckbd.codec.image import Picture


def search(measure: Callable[[float], float], target: float, *, at_most: bool) -> tuple[float, bool]:
    """The quality, of 1 to 100 in the stream's steps of 1/2, at which a rising measure meets target.

    at_most: the highest quality whose measure is not above target; otherwise the lowest not below it. The
    second value says whether target lies between the measures at 1 and 100; if not, the quality is the
    nearer end.
    """

    def below(value: float) -> bool:
        return value <= target if at_most else value < target

    low, high = 2, 200
    at_low, at_high = measure(low / 2), measure(high / 2)
    reached = at_low <= target <= at_high
    if not below(at_low):
        return low / 2, reached
    if below(at_high):
        return high / 2, reached
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if below(measure(middle / 2)) else (low, middle)
    return (low if at_most else high) / 2, reached


def encode(
    codec: Codec, picture: Picture, effort: int | None, *, bpp: float | None, psnr: float | None
) -> tuple[bytes, float, str]:
    """The stream, its quality, and a warning (empty if the target, one of the two, is within reach)."""
    from ckbd.codec import image

    pixels = picture.height * picture.width
    streams: dict[float, bytes] = {}
    values: dict[float, float] = {}

    def measure(quality: float) -> float:
        (streams[quality],) = codec.encode([picture], quality=quality, effort=effort)
        if bpp is not None:
            values[quality] = 8 * len(streams[quality]) / pixels
        else:
            (decoded,) = codec.decode_pictures([streams[quality]])
            values[quality] = image.psnr(picture.rgb, decoded.rgb)
        return values[quality]

    wanted, unit = (bpp, "bpp") if bpp is not None else (psnr, "dB")
    assert wanted is not None
    quality, reached = search(measure, wanted, at_most=unit == "bpp")
    warning = f"{wanted:g} {unit} is out of reach; quality {quality:g} gives {values[quality]:.4g}"
    return streams[quality], quality, "" if reached else warning
