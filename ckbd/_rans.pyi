"""The compiled coder: rANS over the tables of a model, as docs/format.md sections 2 to 4 say.

Arrays are contiguous and of one dimension unless said otherwise: numpy arrays, anything else with the buffer
protocol, and torch CPU tensors, pinned or not. They are read and written in place, with the GIL released, so nobody
may change them during a call. Symbols r are int8 or int16, all phases of an image alike. A wrong dtype, shape or
value raises ValueError with the argument's name, what was expected and what came.

isa: an instruction set, one of isas(); None takes the fastest. All write the same bytes, read the same symbols and
find the same fault in a damaged payload. threads: how many a batch may use; None is one for each CPU that the process
may use. They are kept for the next call. A batch too small to be worth waking them stays on the calling thread.
"""

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import Buffer

Array = Buffer | Tensor

class StreamError(ValueError):
    """A payload violates the format: args (message, field, offset), offset in bytes within the payload.

    field: "lane states", "exceptions", "escapes", "words", "tail" or "end state". A symbol that an int8 array has no
    room for is reported like one beyond int16.
    """

    field: str
    offset: int
    def __init__(self, message: str, field: str, offset: int) -> None: ...

class Tables:
    """The integer tables of a model (section 6), checked; may be used by many threads at once."""

    def __init__(self, y_freq: Array, y_max: Array, z_freq: Array, z_low: Array, z_size: Array) -> None:
        """y_freq int16 (64, n), y_max uint8 (64,), z_freq int16 (Nz, m), z_low and z_size int16 (Nz,)."""

    @property
    def channels(self) -> int:
        """Nz."""

    @property
    def min_z_bits(self) -> float:
        """Sum over the channels of log2(4096 / largest frequency): the least ideal bits of one site of z."""

# Whole images, whose table indices are all known

def encode(
    tables: Tables,
    z: Array,
    phases: Sequence[tuple[Array, Array]],
    *,
    lanes: int | None = None,
    skip_max: int | None = None,
    isa: str | None = None,
) -> tuple[bytes, int, int, int]:
    """(payload, log2 of the lanes used, skip_max, tail) of z int16 (n_z,) and each phase's k uint8 (n,) and r (n,).

    lanes: 1, 2, 4, 8, 16 or 32; fewer are used if the last phase is too short for them. None: 32, or 16 for payloads
    below 4 KiB. skip_max: 0..15. None: the one of 0..4 that makes the payload shortest, judged by a sample.
    """

def encode_batch(
    tables: Tables,
    images: Sequence[tuple[Array, Sequence[tuple[Array, Array]]]],
    *,
    lanes: int | None = None,
    skip_max: int | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> list[tuple[bytes, int, int, int]]:
    """What encode() makes of each (z, phases)."""

def decode(
    tables: Tables,
    payload: Array,
    z: Array,
    phases: Sequence[tuple[Array, Array]],
    *,
    lanes_log2: int,
    skip_max: int,
    tail: int,
    isa: str | None = None,
) -> None:
    """Fills z, int16 (n_z,), and r (n,) of each phase (k uint8 (n,), r) from payload, uint8; raises StreamError.

    After an error the arrays mean nothing.
    """

def decode_batch(
    tables: Tables,
    images: Sequence[tuple[Array, int, int, int, Array, Sequence[tuple[Array, Array]]]],
    *,
    threads: int | None = None,
    isa: str | None = None,
) -> list[StreamError | None]:
    """decode() of each (payload, lanes_log2, skip_max, tail, z, phases). An error stops its own image only."""

# Step by step, where a phase's indices are known only after the phase before it

class Decoder:
    """Decodes one payload: z(), then phase() as often as there are phases, then finish(), each once.

    A call out of turn, during another or after one that failed raises RuntimeError. Nothing read from the payload is
    to be trusted before finish() has returned.
    """

    def __init__(
        self,
        tables: Tables,
        payload: Array,
        *,
        lanes_log2: int,
        skip_max: int,
        tail: int,
        phases: int = 2,
        isa: str | None = None,
    ) -> None:
        """payload uint8, held until the decoder goes; lanes_log2 0..5, skip_max 0..15, tail: from the header.

        Raises StreamError if the parts before the words are damaged.
        """

    def z(self, out: Array) -> None:
        """Fills out, int16 (n,) with n a multiple of Nz. Raises StreamError."""

    def phase(self, k: Array, out: Array) -> None:
        """Fills out, int8 or int16 (n,), with the residuals of table indices k, uint8 (n,). Raises StreamError."""

    def finish(self) -> None:
        """Raises StreamError unless all of the payload has been used and the coder ends where it must."""

def z_batch(
    decoders: Sequence[Decoder], outs: Sequence[Array], *, threads: int | None = None
) -> list[StreamError | None]:
    """z() of each decoder. An error stops its own stream only."""

def phase_batch(
    decoders: Sequence[Decoder], ks: Sequence[Array], outs: Sequence[Array], *, threads: int | None = None
) -> list[StreamError | None]:
    """phase() of each decoder, all outs of one dtype. An error stops its own stream only.

    A wrong index raises ValueError: that decoder has not moved, the others have done their step.
    """

# Whole streams of version 1, from their bytes on: nothing of Python for each

class Batch:
    """Streams parsed, checked and opened at once: then z(), phase() twice for each channel group and finish(), each
    once, over flat arrays.

    A stream that breaks a rule is noted in errors(), and its neighbours go on. What it should have decoded is 0 from
    the step on in which it failed. The arrays hold the parts of all streams that could be opened, one after the other
    in order: with Hz = ceil(height / 64) and Wz = ceil(width / 64), Hz Wz Nz symbols of z each and Hz 4 Wz 2 M
    residuals a phase, M being the width of its channel group. A call out of turn, during another or after one that
    raised anything but ValueError raises RuntimeError. Nothing read from a stream is to be trusted before finish()
    has returned without an error of it.
    """

    def __init__(
        self,
        tables: Tables,
        streams: Sequence[Array],
        *,
        model: Array,
        channels: int | Sequence[int],
        max_pixels: int,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        """streams uint8, held until the batch goes; model: the six bytes of the model's identity; channels: M, or the
        widths of 1 to 16 channel groups.

        Checks of each what container.parse, decoder.check_fits and Decoder check, in this order and with their words.
        """

    def headers(self, out: Array) -> None:
        """Fills out, int64 (n, 8), with what each stream says of itself; 0 all along if it could not be opened.

        1, width, height, twice the quality, gray (0 or 1), offset and length of the payload, number of sections.
        """

    def errors(self) -> list[tuple[int, str, int, str]]:
        """(number of the stream, field, offset, reason) of all that have failed so far, in order.

        After the number come the arguments of container.FormatError.
        """

    def z(self, out: Array, *, threads: int | None = None) -> None:
        """Fills out, int16 (n,). A symbol beyond 127 in size is an error of its stream."""

    def phase(self, k: Array, out: Array, *, threads: int | None = None) -> tuple[bytes, bytes]:
        """Fills out, int8 (n,), with the residuals of table indices k, uint8 (n,); k of failed streams is ignored.

        Returns those that int8 has no room for, which are 0 in out: their places in out, int64, ascending, and their
        values, int16. One beyond 1023 in size is an error of its stream. A wrong index raises ValueError, and nothing
        has moved.
        """

    def finish(self) -> None:
        """Notes an error of each stream that has not been used up or does not end where it must."""

# Streams of version 2 (docs/format.md, section 9): any site from any track

class MixtureTables:
    """The integer tables of centring "integer", checked."""

    def __init__(self, cdf: Array, inverse: Array, share: Array, radius: Array) -> None:
        """cdf int32 (8193,), inverse and share int32 (64,), radius int16 (64,)."""

def encode_tracks(
    tables: Tables,
    mixtures: MixtureTables,
    tracks: int,
    z: Array,
    track: Array,
    k: Array,
    y: Array,
    *,
    mean: Array | None = None,
    share: Array | None = None,
) -> tuple[bytes, float]:
    """(payload, ideal bits) of z int16 (n_z,) and y int16 (sites, M), within 1023 in size; track uint16 (sites,).

    Without mean y holds residuals of the table indices k, uint8 (sites, M). With it: symbols of mixtures of 1 to 3
    parts, mean int16 in 1/16, k and share uint8, all of (sites, parts, M).
    """

class TrackDecoder:
    """Decodes one payload: z(), then step() for all sites in any order that keeps each track's, then finish().

    A call after one that failed raises RuntimeError. Nothing is to be trusted before finish() has returned.
    """

    def __init__(self, tables: Tables, mixtures: MixtureTables, payload: Array, tracks: int) -> None:
        """payload uint8, held until the decoder goes. Raises StreamError if lengths or states are damaged."""

    def z(self, out: Array) -> None:
        """Fills out, int16 (n,) with n a multiple of Nz. Raises StreamError."""

    def step(
        self, track: Array, k: Array, out: Array, *, mean: Array | None = None, share: Array | None = None
    ) -> None:
        """Fills out, int16 (sites, M); the others as encode_tracks has them. Raises StreamError."""

    def finish(self) -> None:
        """Raises StreamError unless every track has been read and ends where it must."""

def ideal_bits(tables: Tables, phases: Sequence[tuple[Array, Array]]) -> float:
    """Sum of -log2(f / 4096) over all elements of the phases (k, r), skipped or not; an escape counts as its slot."""

def crc32c(data: Array, value: int = 0, *, isa: str | None = None) -> int:
    """CRC32C of the bytes that have CRC32C `value` followed by data, uint8."""

def isas() -> tuple[str, ...]:
    """The coders that this machine can run, slowest first: "plain", which is there to be read (csrc/rans/plain.h),
    "scalar", and of the instruction sets "avx2" and "avx512"."""

def isa() -> str:
    """The last of isas()."""
