"""The compiled coder: rANS over the tables of a model, as docs/format.md sections 2 to 4 say.

Arrays are contiguous and of one dimension unless said otherwise; numpy arrays and all other buffers of the dtype do.
They are read and written in place, with the GIL released, so nobody may change them during a call. A wrong dtype,
shape or value raises ValueError with the argument's name, what was expected and what came.
"""

from collections.abc import Sequence

from typing_extensions import Buffer

class StreamError(ValueError):
    """A payload violates the format: args (message, field, offset), offset in bytes within the payload.

    field: "lane states", "exceptions", "escapes", "words", "tail" or "end state".
    """

    field: str
    offset: int
    def __init__(self, message: str, field: str, offset: int) -> None: ...

class Tables:
    """The integer tables of a model (section 6), checked; may be used by many threads at once."""

    def __init__(self, y_freq: Buffer, y_max: Buffer, z_freq: Buffer, z_low: Buffer, z_size: Buffer) -> None:
        """y_freq int16 (64, n), y_max uint8 (64,), z_freq int16 (Nz, m), z_low and z_size int16 (Nz,)."""

    @property
    def channels(self) -> int:
        """Nz."""

    @property
    def min_z_bits(self) -> float:
        """Sum over the channels of log2(4096 / largest frequency): the least ideal bits of one site of z."""

class Decoder:
    """Decodes one payload: z(), then phase() as often as there are phases, then finish(), each once.

    A call out of turn, during another or after one that failed raises RuntimeError. Nothing read from the payload is
    to be trusted before finish() has returned.
    """

    def __init__(
        self, tables: Tables, payload: Buffer, *, lanes_log2: int, skip_max: int, tail: int, phases: int = 2
    ) -> None:
        """payload uint8, held until the decoder goes; lanes_log2 0..5, skip_max 0..15, tail: from the header.

        Raises StreamError if the parts before the words are damaged.
        """

    def z(self, out: Buffer) -> None:
        """Fills out, int16 (n,) with n a multiple of Nz. Raises StreamError."""

    def phase(self, k: Buffer, out: Buffer) -> None:
        """Fills out, int16 (n,), with the residuals of table indices k, uint8 (n,). Raises StreamError."""

    def finish(self) -> None:
        """Raises StreamError unless all of the payload has been used and the coder ends where it must."""

def encode(
    tables: Tables, z: Buffer, phases: Sequence[tuple[Buffer, Buffer]], *, lanes: int = 32, skip_max: int = 1
) -> tuple[bytes, int, int]:
    """(payload, log2 of the lanes used, tail) of z int16 (n_z,) and, for each phase, (k uint8 (n,), r int16 (n,)).

    lanes: 1, 2, 4, 8, 16 or 32; fewer are used if the last phase is too short for them. skip_max: 0..15.
    """

def ideal_bits(tables: Tables, phases: Sequence[tuple[Buffer, Buffer]]) -> float:
    """Sum of -log2(f / 4096) over all elements of the phases (k, r), skipped or not; an escape counts as its slot."""

def crc32c(data: Buffer, value: int = 0) -> int:
    """CRC32C of the bytes that have CRC32C `value` followed by data, uint8."""

def isa() -> str:
    """The instruction set that the coder uses: "scalar"."""
