"""A network over strips of a picture, one after the other, in memory that does not grow with the picture.

Each stage keeps the last rows that it was given, as many as its kernel reaches, and hands on what is complete: no
output is computed twice, and no stage ever sees the picture whole. Zero padding stands where it stands without
strips, at the picture's border alone: what a kernel makes of an inner edge is left out. The result is that of the
whole network up to the rounding of floats, since products of other sizes may be summed in another order: within 1e-5
for values of about 1. Not for the exact zone, whose own stripes change nothing at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ckbd.codec.image import Picture
from ckbd.codec.machine import Each, in_turn
from ckbd.codec.networks import tensors
from ckbd.codec.networks.extents import extent
from ckbd.codec.networks.windows import Extent, Window, needed
from ckbd.codec.progress import Tell, silent

ROOM = 4  # rows before a strip, for those of the one before that a kernel reaches
BAND = 1 << 16  # pixels, at the least, of what one thread does at a time
SITE = 16  # pixels of a side that a latent makes
LAST = torch.channels_last


def plan(height: int, width: int, pixels: int, step: int) -> tuple[int, list[tuple[int, int]]]:
    """(dim, [(start, end), ...]): along which dimension a picture (.., height, width) is cut, and into which strips.

    Strips have about `pixels` pixels and a multiple of step rows, or columns if rows would be too long; one strip if
    that is enough. height and width are multiples of step.
    """
    dim = 2 if width * step <= pixels or width <= height else 3
    length, across = (height, width) if dim == 2 else (width, height)
    size = max(pixels // (across * step), 1) * step
    return dim, [(start, min(start + size, length)) for start in range(0, length, size)]


def through(
    stages: Sequence[nn.Module],
    strips: Iterable[Tensor],
    dim: int,
    bands: int = 1,
    each: Each = in_turn,
    windows: Sequence[Window] = (),
) -> Iterator[Tensor]:
    """The strips of stages[-1](...stages[0](x)), x being the strips (B, C, H, W) side by side along dim, 2 or 3.

    Those that come have other sizes than those that go in (they lag behind by what the kernels reach). The length of
    x must be a multiple of what all the stages together bring down. bands: into how many parts a strip is cut that
    each() works on side by side; their number says what is computed, `each` only where. windows: of x, of what each
    chain gives and of the result, as part() has them; the strips are then those of the first.
    """
    flow: Iterator[Roomy] = (Roomy(x, 0, dim) for x in strips)
    for i, chain in enumerate(_chains(stages)):
        flow = _through(chain, flow, dim, bands, each)
        if windows:
            flow = _cut(flow, windows[i + 1].within(windows[i].grown(chain.extent)), dim)
    return (strip.rows for strip in flow)


def part(stages: Sequence[nn.Module], size: tuple[int, int], window: Window) -> list[Window]:
    """windows for through(), for a window of the result; size: of x, (rows, columns)."""
    return needed([chain.extent for chain in _chains(stages)], size, window)


def _cut(strips: Iterable[Roomy], window: Window, dim: int) -> Iterator[Roomy]:
    """What of the strips is in a window of all of them."""
    rows, columns = (window.top, window.bottom), (window.left, window.right)
    (first, last), (low, high) = (rows, columns) if dim == 2 else (columns, rows)
    place = 0
    for strip in strips:
        length = strip.rows.shape[dim]
        start, end = max(first - place, 0), min(last - place, length)
        place += length
        if start < end:
            whole = strip.whole.narrow(dim, start, strip.room + end - start)
            yield Roomy(whole.narrow(5 - dim, low, high - low), strip.room, dim)


def bands_of(height: int, width: int, pixels: int) -> int:
    """How many bands a strip is cut into of pictures of this size, strips having about `pixels` pixels: a power of
    two, and a band has BAND pixels or more.
    """
    return 1 << max(min(height * width, pixels) // BAND, 1).bit_length() - 1


def cuts(length: int, count: int) -> list[tuple[int, int]]:
    """(start, end) of `count` parts of a length, as equal as may be; fewer if it is shorter than that."""
    count = max(1, min(count, length))
    ends = [length * i // count for i in range(count + 1)]
    return list(zip(ends, ends[1:], strict=False))


def features(
    stages: Sequence[nn.Module],
    pictures: Sequence[Picture],
    multiple: int,
    pixels: int,
    device: torch.device,
    each: Each = in_turn,
    tell: Tell = silent,
) -> Tensor:
    """g_a, given by its stages, of pictures that have one size once padded to multiples: (B, M, h, w).

    pixels: how many are in a strip. each: as in through(); on a CPU pictures come singly, so that none depends on
    its neighbours.
    """
    height, width = (-(-n // multiple) * multiple for n in pictures[0].rgb.shape[:2])
    dim, parts = plan(height, width, pixels, multiple)

    def strip(start: int, end: int) -> Tensor:
        cut = [Picture(p.rgb[start:end] if dim == 2 else p.rgb[:, start:end]) for p in pictures]
        x = torch.cat([tensors.pad(tensors.to_tensor([p]), multiple) for p in cut])
        return x.to(device, memory_format=torch.channels_last)

    bands = bands_of(height, width, pixels) if device.type == "cpu" else 1
    whole, done = None, 0
    for y in through(stages, (strip(*part) for part in parts), dim, bands, each):
        if whole is None:  # all of it now, rather than strips and then a copy of them
            shape = list(y.shape)
            shape[dim] = (height, width)[dim - 2] // SITE
            alone = shape[dim] == y.shape[dim]
            whole = y if alone else torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=LAST)
        if whole is not y:
            whole.narrow(dim, done, y.shape[dim]).copy_(y)
        done += y.shape[dim]
        tell(done / whole.shape[dim])
    assert whole is not None
    return whole


def images(
    stages: Sequence[nn.Module],
    latents: Callable[[slice, slice], Tensor],
    size: tuple[int, int],
    pixels: int,
    device: torch.device,
    each: Each = in_turn,
    window: Window | None = None,
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """g_s, given by its stages: ((top, left), x_hat (B, 3, H, W) that belongs there) of every strip.

    latents: gives (B, M, rows, columns) of slices of rows and columns; size: all of them, (h, w). pixels: of a strip,
    of those that g_s has, though the stages may end in fewer. window: of x_hat, from whose corner places are then
    counted; None: all of it. The others as in features().
    """
    windows = part(stages, size, window) if window is not None else ()
    top, left, bottom, right = windows[0] if windows else (0, 0, *size)
    dim, parts = plan(bottom - top, right - left, pixels // SITE**2, 1)

    def strip(start: int, end: int) -> Tensor:
        if dim == 2:
            return latents(slice(top + start, top + end), slice(left, right))
        return latents(slice(top, bottom), slice(left + start, left + end))

    bands = bands_of(SITE * (bottom - top), SITE * (right - left), pixels) if device.type == "cpu" else 1
    place = 0
    for x_hat in through(stages, (strip(*one) for one in parts), dim, bands, each, windows):
        yield ((place, 0) if dim == 2 else (0, place)), x_hat
        place += x_hat.shape[dim]


class _Chain(NamedTuple):
    """A stage that may reach beyond its site, and those after it that do not. extent: of all of them."""

    first: nn.Module
    others: list[nn.Module]
    extent: Extent
    after: Extent  # of the others


def _chains(stages: Sequence[nn.Module]) -> list[_Chain]:
    found: list[_Chain] = []
    for stage in stages:
        own = extent(stage)
        if own.reach or not found:
            found.append(_Chain(stage, [], own, Extent(0, 1, 1)))
            continue
        first, others, whole, after = found[-1]
        whole = Extent(whole.reach, whole.down * own.down, whole.up * own.up)
        found[-1] = _Chain(first, [*others, stage], whole, Extent(0, after.down * own.down, after.up * own.up))
    return found


class Roomy(NamedTuple):
    """A strip, and `room` rows before it in the same memory, in which nothing is."""

    whole: Tensor
    room: int
    dim: int

    @property
    def rows(self) -> Tensor:
        return self.whole.narrow(self.dim, self.room, self.whole.shape[self.dim] - self.room)

    def after(self, held: Tensor) -> Tensor:
        """The rows that were held of the strip before, then this one, which stays where it is if there is room."""
        n = held.shape[self.dim]
        if n > self.room:
            return torch.cat((held, self.rows), self.dim)
        both = self.whole.narrow(self.dim, self.room - n, self.whole.shape[self.dim] - self.room + n)
        both.narrow(self.dim, 0, n).copy_(held)
        return both

    @classmethod
    def like(cls, part: Tensor, dim: int, length: int) -> Roomy:
        """Memory for a strip of so many rows as this part of it has."""
        shape = list(part.shape)
        shape[dim] = ROOM + length
        format = (
            torch.channels_last if part.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        return cls(torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=format), ROOM, dim)


def _through(chain: _Chain, strips: Iterable[Roomy], dim: int, bands: int, each: Each) -> Iterator[Roomy]:
    reach, down, up = chain.extent
    held, start, done = None, 0, 0  # held begins at row start; what rows before done give is handed on
    for strip, last in _marked(strips):
        held = strip.rows if held is None else strip.after(held)
        size = held.shape[dim] // down * down
        ready = start + size if last else max((start + size - reach) // down * down, done)
        if ready > done:
            yield _banded(
                chain, held.narrow(dim, 0, size), dim, (done - start) // down, (ready - start) // down, bands, each
            )
            first = max((ready - reach) // down * down, 0)
            held, start, done = held.narrow(dim, first - start, held.shape[dim] - first + start), first, ready


def _banded(chain: _Chain, x: Tensor, dim: int, start: int, end: int, bands: int, each: Each) -> Roomy:
    """What the rows start to end of x give, both in units of chain.extent.down, in as many bands."""
    reach, down, up = chain.extent
    count = min(bands, end - start)
    into = None if chain.others else getattr(chain.first, "into", None)
    if count <= 1 and into is None:
        return Roomy(_part(chain, x, dim, start * up, (end - start) * up), 0, dim)

    def window(rows: tuple[int, int]) -> tuple[Tensor, int, int, int]:
        """What the rows need, and where in it they are: x, dim, start, length of a stage's part()."""
        first, last = start + rows[0], start + rows[1]
        low = max(first * down - reach, 0) // down
        high = min(last * down + reach, x.shape[dim])
        return x.narrow(dim, low * down, high - low * down), dim, (first - low) * up, (last - first) * up

    made: list[Roomy] = []
    lock = threading.Lock()

    def place(rows: tuple[int, int], part: Tensor) -> Tensor:
        """Where in the strip some rows belong; the first part says what the strip is like."""
        with lock:
            if not made:
                made.append(Roomy.like(part, dim, (end - start) * up))
        return made[0].rows.narrow(dim, rows[0] * up, (rows[1] - rows[0]) * up)

    def band(rows: tuple[int, int]) -> None:
        if into is not None:
            into(*window(rows), place(rows, x))
        else:
            part = _part(chain, *window(rows))
            place(rows, part).copy_(part)

    each(band, cuts(end - start, count))
    return made[0]


def _part(chain: _Chain, x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Rows of the chain of x; a stage with a method part(x, dim, start, length) knows how to leave out the others,
    and one with into(..., out), whose output is shaped as its input, puts them where they belong.
    """
    _, down, up = chain.after
    start, length = start * down // up, length * down // up
    part = getattr(chain.first, "part", None)
    x = chain.first(x).narrow(dim, start, length) if part is None else part(x, dim, start, length)
    for stage in chain.others:
        x = stage(x)
    return x


def _marked(strips: Iterable[Roomy]) -> Iterator[tuple[Roomy, bool]]:
    """Each strip, and whether it is the last."""
    strips = iter(strips)
    ahead = next(strips, None)
    while ahead is not None:
        strip, ahead = ahead, next(strips, None)
        yield strip, ahead is None
