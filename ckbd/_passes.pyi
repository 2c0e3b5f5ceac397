"""What lies between the matrix products of a CPU: ckbd.codec.zone.layers, ckbd.codec.networks.floats and ckbd.light
are built on it.

Arrays are contiguous: numpy arrays, anything else with the buffer protocol, and torch CPU tensors. They are read and
written in place, with the GIL released; what is written must not overlap what is read. A wrong dtype, shape or value
raises ValueError with the argument's name, what was expected and what came. bfloat16 goes as int16 of the same bits.

Maps are pictures of one height and width below one another, channels last; rows are counted through all of them, and
`rows` are (first, last), last not among them.

isa: one of isas(); None takes the fastest. All give the same, floats too: sums have one order and nothing is fused.
"""

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import Buffer

Array = Buffer | Tensor

def isas() -> tuple[str, ...]:
    """The instruction sets that this machine has, slowest first: scalar, avx2, avx512."""

def gather(
    x: Array,
    height: int,
    taps: Array,
    outside: Array,
    rows: Sequence[int],
    out: Array,
    *,
    at: int = 0,
    isa: str | None = None,
) -> None:
    """Neighbours of the sites in some rows of x, uint8 (rows, W, C), whose pictures have `height` rows each.

    taps: int32 (T, 3): rows down, columns to the right in even rows of a picture, and in odd ones. outside: uint8
    (C,), what there is outside of a picture. out: uint8 (sites, K); tap t goes to channels at + t C and on, others
    stay.
    """

def requantise(
    sums: Array, bias: Array, shift: Array, out: Array, *, rows: Sequence[int] | None = None, isa: str | None = None
) -> None:
    """min(max((sums + bias) >> shift, 0), 127), int32 (sites, N) to uint8; bias, shift int32 (N,), shifts 0 to 31.

    out: (sites, N); or a map twice as wide and high as the one whose `rows` sums are, (2 H, 2 W, N / 4), in which
    channel (2 a + b) N / 4 + n of a site goes to channel n at row 2 i + a, column 2 j + b; or the two halves of that
    map, (2, 2 H, W, N / 4): sites with (row + column) even, then odd. Sums and biases wrap around as int32 does.
    """

def output(sums: Array, bias: Array, shift: Array, mean: Array, k: Array, *, isa: str | None = None) -> None:
    """(sums + bias) >> shift of int32 (sites, 2 M): mean, int16 (sites, M), cut to -16383..16383, and k, uint8, of
    the second half of the channels, cut to 0..63.
    """

def assemble(
    r: Array, mean: Array, near: Array, far: Array | None = None, any: Array | None = None, *, isa: str | None = None
) -> None:
    """c, 16 r + mean companded (docs/numerics.md), in unsigned parts: int16 (sites, M) to uint8.

    Without far: near = c + 127. With it: near is c cut to -64..64, plus 64; far is what is beyond, plus 63; any[m],
    uint8 (M,), has its last bit set if there is any in channel m, and stays otherwise.
    """

def merge(r: Array, mean: Array, height: int, rows: Sequence[int], out: Array, *, isa: str | None = None) -> None:
    """Latents 16 r + mean of both halves, int16 (2, rows, W, M), in rows of their map, float32 (rows, 2 W, M)."""

def depthwise(
    x: Array, weight: Array, bias: Array, part: Sequence[int], out: Array, *, isa: str | None = None
) -> None:
    """3x3 cross-correlation of each channel of one picture x, float32 (H, W, C), with zeros around it.

    weight: (9, C), row by row; bias (C,). part: (first, last, left, right), the rows and columns that out has:
    float32, or bfloat16, rounded half to even.
    """

def add(x: Array, more: Array, out: Array, *, isa: str | None = None) -> None:
    """out = x + more, (n,): float32, but more in bfloat16."""

def paint(squares: Array, out: Array, *, gray: bool = False, isa: str | None = None) -> None:
    """Pixels, uint8 (H, W, 3), from squares of n x n in [0, 1], float32 (H / n * W / n, 3 n n): row, column, colour.

    n: 1, 2, 4 or 8. Cut to [0, 1], what is no number to 0, times 255, rounded half to even. gray: a pixel's colours
    are their mean, (a + b + c) / 3 after the cut.
    """
