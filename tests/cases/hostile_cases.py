"""Everything that the three modules have to call, each with arguments that will do, and with those that may not."""

import inspect
import itertools
import math
import random

import numpy as np
from ans_cases import make_case
from rans_cases import ARRAYS, TABLES

from ckbd import _ans, _passes, _rans
from ckbd.papers.file import mixture_tables

MODULES = {"_rans": _rans, "_ans": _ans, "_passes": _passes}
CLASSES = {
    f"{module}.{name}": one
    for module, members in MODULES.items()
    for name, one in vars(members).items()
    if inspect.isclass(one) and not issubclass(one, Exception)
}
Z, K, R = np.zeros(4, np.int16), np.full(8, 30, np.uint8), np.zeros(8, np.int16)
PAYLOAD, LANES, SKIP, TAIL = _rans.encode(TABLES, Z, [(K, R)])
HEADER = {"lanes_log2": LANES, "skip_max": SKIP, "tail": TAIL}
CASE = make_case(random.Random(3), odd=0)
COMPAT, COMPAT_TABLES = _ans.RansEncoder().encode_with_indexes(*CASE), CASE[1:]
ROWS = np.array([[0, 30000, 60000, 65000, 65536]], np.int32)
SIZES, OFFSETS = np.array([5], np.int32), np.array([0], np.int32)
SYMBOLS = np.zeros((1, 6), np.int32)
MADE = mixture_tables()
MIXTURE = [MADE[f"table.m.{name}"].numpy() for name in ("cdf", "inverse", "share", "radius")]
MIXTURES = _rans.MixtureTables(*MIXTURE)
TRACK = {"track": np.zeros(2, np.uint16), "k": np.zeros((2, 3), np.uint8)}
TRACKS = _rans.encode_tracks(TABLES, MIXTURES, 1, Z, **TRACK, y=np.zeros((2, 3), np.int16))[0]
ANS = _ans.Tables(ROWS, SIZES, OFFSETS)
STREAM = _ans.encode(ANS, SYMBOLS[0], SYMBOLS[0])
BATCH = {"model": bytes(6), "channels": 3, "max_pixels": 1 << 20}


def out(*shape):
    return np.zeros(shape, np.int32)


def decoder(steps=0):
    made = _rans.Decoder(TABLES, PAYLOAD, phases=1, **HEADER)
    for step in (lambda: made.z(Z.copy()), lambda: made.phase(K, R.copy()))[:steps]:
        step()
    return made


def batch(steps=0):
    made = _rans.Batch(TABLES, [b"damaged"], **BATCH)
    none = np.zeros(0, np.uint8)
    for step in [lambda: made.z(Z[:0].copy())] + [lambda: made.phase(none, none.view(np.int8))] * 2:
        if steps:
            step()
            steps -= 1
    return made


def tracks(steps=0):
    made = _rans.TrackDecoder(TABLES, MIXTURES, TRACKS, 1)
    for step in (lambda: made.z(Z.copy()), lambda: made.step(**TRACK, out=np.zeros((2, 3), np.int16)))[:steps]:
        step()
    return made


def buffered():
    made = _ans.BufferedRansEncoder()
    made.encode_with_indexes(*CASE)
    return made


def stepping():
    made = _ans.RansDecoder()
    made.set_stream(COMPAT)
    return made


z8, i32, f32 = (lambda *s, t=t: np.zeros(s, t) for t in (np.uint8, np.int32, np.float32))
i16 = lambda *s: np.zeros(s, np.int16)  # noqa: E731
LATENTS = {"means": f32(1, 6), "indexes": SYMBOLS, "threads": 1}
# A call for each: (arguments, those by name), methods with their self. By name where there are names.
CALLS = {
    "_rans.Tables": lambda: ((), dict(zip(("y_freq", "y_max", "z_freq", "z_low", "z_size"), ARRAYS, strict=True))),
    "_rans.Tables.channels": lambda: ((TABLES,), {}),
    "_rans.Tables.min_z_bits": lambda: ((TABLES,), {}),
    "_rans.encode": lambda: (
        (),
        {"tables": TABLES, "z": Z, "phases": [(K, R)], "lanes": 1, "skip_max": 0, "isa": None},
    ),
    "_rans.encode_batch": lambda: (
        (),
        {"tables": TABLES, "images": [(Z, [(K, R)])], "lanes": 1, "skip_max": 0, "threads": 1, "isa": None},
    ),
    "_rans.ideal_bits": lambda: ((), {"tables": TABLES, "phases": [(K, R)]}),
    "_rans.decode": lambda: (
        (),
        {"tables": TABLES, "payload": PAYLOAD, "z": i16(4), "phases": [(K, i16(8))], **HEADER, "isa": None},
    ),
    "_rans.decode_batch": lambda: (
        (),
        {
            "tables": TABLES,
            "images": [(PAYLOAD, LANES, SKIP, TAIL, i16(4), [(K, i16(8))])],
            "threads": 1,
            "isa": None,
        },
    ),
    "_rans.Decoder": lambda: ((), {"tables": TABLES, "payload": PAYLOAD, **HEADER, "phases": 1, "isa": None}),
    "_rans.Decoder.z": lambda: ((decoder(),), {"out": i16(4)}),
    "_rans.Decoder.phase": lambda: ((decoder(1),), {"k": K, "out": i16(8)}),
    "_rans.Decoder.finish": lambda: ((decoder(2),), {}),
    "_rans.z_batch": lambda: ((), {"decoders": [decoder()], "outs": [i16(4)], "threads": 1}),
    "_rans.phase_batch": lambda: ((), {"decoders": [decoder(1)], "ks": [K], "outs": [i16(8)], "threads": 1}),
    "_rans.Batch": lambda: ((), {"tables": TABLES, "streams": [b"damaged"], **BATCH, "threads": 1, "isa": None}),
    "_rans.Batch.headers": lambda: ((batch(),), {"out": np.zeros((1, 8), np.int64)}),
    "_rans.Batch.errors": lambda: ((batch(),), {}),
    "_rans.Batch.z": lambda: ((batch(),), {"out": i16(0), "threads": 1}),
    "_rans.Batch.phase": lambda: ((batch(1),), {"k": z8(0), "out": np.zeros(0, np.int8), "threads": 1}),
    "_rans.Batch.finish": lambda: ((batch(3),), {}),
    "_rans.MixtureTables": lambda: ((), dict(zip(("cdf", "inverse", "share", "radius"), MIXTURE, strict=True))),
    "_rans.encode_tracks": lambda: (
        (),
        {"tables": TABLES, "mixtures": MIXTURES, "tracks": 1, "z": Z, **TRACK, "y": i16(2, 3)},
    ),
    "_rans.TrackDecoder": lambda: ((), {"tables": TABLES, "mixtures": MIXTURES, "payload": TRACKS, "tracks": 1}),
    "_rans.TrackDecoder.z": lambda: ((tracks(),), {"out": i16(4)}),
    "_rans.TrackDecoder.step": lambda: ((tracks(1),), {**TRACK, "out": i16(2, 3), "mean": None, "share": None}),
    "_rans.TrackDecoder.finish": lambda: ((tracks(2),), {}),
    "_rans.crc32c": lambda: ((), {"data": b"data", "value": 1, "isa": None}),
    "_rans.isa": lambda: ((), {}),
    "_rans.isas": lambda: ((), {}),
    "_ans.Tables": lambda: ((), {"cdfs": ROWS, "sizes": SIZES, "offsets": OFFSETS}),
    "_ans.Tables.matches": lambda: ((ANS,), {"cdfs": ROWS, "sizes": SIZES, "offsets": OFFSETS}),
    "_ans.encode": lambda: ((), {"tables": ANS, "symbols": SYMBOLS[0], "indexes": SYMBOLS[0]}),
    "_ans.decode": lambda: ((), {"tables": ANS, "stream": STREAM, "indexes": SYMBOLS[0], "out": out(6)}),
    "_ans.encode_batch": lambda: ((), {"tables": ANS, "symbols": SYMBOLS, "indexes": SYMBOLS, "threads": 1}),
    "_ans.decode_batch": lambda: (
        (),
        {"tables": ANS, "streams": [STREAM], "indexes": SYMBOLS, "out": out(1, 6), "threads": 1},
    ),
    "_ans.encode_latents": lambda: ((), {"tables": ANS, "x": f32(1, 6), **LATENTS}),
    "_ans.decode_latents": lambda: ((), {"tables": ANS, "streams": [STREAM], **LATENTS, "out": f32(1, 6)}),
    "_ans.encode_rows": lambda: ((), {"cdfs": ROWS, "symbols": out(1)}),
    "_ans.decode_rows": lambda: ((), {"cdfs": ROWS, "stream": STREAM, "out": out(1)}),
    "_ans.Encoder": lambda: ((), {}),
    "_ans.Encoder.push": lambda: (
        (_ans.Encoder(),),
        {"tables": ANS, "symbols": SYMBOLS[0], "indexes": SYMBOLS[0]},
    ),
    "_ans.Encoder.flush": lambda: ((_ans.Encoder(),), {}),
    "_ans.Decoder": lambda: ((), {"stream": STREAM}),
    "_ans.Decoder.decode": lambda: (
        (_ans.Decoder(STREAM),),
        {"tables": ANS, "indexes": SYMBOLS[0], "out": out(6)},
    ),
    "_ans.scale_indexes": lambda: (
        (),
        {"scales": f32(3), "table": f32(4), "bound": 0.1, "out": out(3), "isa": None},
    ),
    "_ans.symbols_of": lambda: ((), {"x": f32(3), "means": f32(3), "out": out(3), "isa": None}),
    "_ans.isas": lambda: ((), {}),
    "_ans.BufferedRansEncoder": lambda: ((), {}),
    "_ans.BufferedRansEncoder.encode_with_indexes": lambda: ((_ans.BufferedRansEncoder(), *CASE), {}),
    "_ans.BufferedRansEncoder.flush": lambda: ((buffered(),), {}),
    "_ans.RansEncoder": lambda: ((), {}),
    "_ans.RansEncoder.encode_with_indexes": lambda: ((_ans.RansEncoder(), *CASE), {}),
    "_ans.RansDecoder": lambda: ((), {}),
    "_ans.RansDecoder.set_stream": lambda: ((_ans.RansDecoder(), COMPAT), {}),
    "_ans.RansDecoder.decode_stream": lambda: ((stepping(), *COMPAT_TABLES), {}),
    "_ans.RansDecoder.decode_with_indexes": lambda: ((_ans.RansDecoder(), COMPAT, *COMPAT_TABLES), {}),
    "_ans.pmf_to_quantized_cdf": lambda: (([0.5, 0.5], 16), {}),
    "_passes.gather": lambda: (
        (),
        {
            "x": z8(6, 2, 3),
            "height": 3,
            "taps": i32(2, 3),
            "outside": z8(3),
            "rows": (1, 5),
            "out": z8(8, 6),
            "at": 0,
            "isa": None,
        },
    ),
    "_passes.requantise": lambda: (
        (),
        {"sums": i32(6, 8), "bias": i32(8), "shift": i32(8), "out": z8(8, 6, 2), "rows": (1, 3), "isa": None},
    ),
    "_passes.output": lambda: (
        (),
        {"sums": i32(6, 8), "bias": i32(8), "shift": i32(8), "mean": i16(6, 4), "k": z8(6, 4), "isa": None},
    ),
    "_passes.assemble": lambda: (
        (),
        {"r": i16(5, 3), "mean": i16(5, 3), "near": z8(5, 3), "far": z8(5, 3), "any": z8(3), "isa": None},
    ),
    "_passes.merge": lambda: (
        (),
        {
            "r": i16(2, 6, 2, 3),
            "mean": i16(2, 6, 2, 3),
            "height": 3,
            "rows": (1, 5),
            "out": f32(6, 4, 3),
            "isa": None,
        },
    ),
    "_passes.depthwise": lambda: (
        (),
        {
            "x": f32(4, 5, 3),
            "weight": f32(9, 3),
            "bias": f32(3),
            "part": (1, 4, 0, 5),
            "out": f32(3, 5, 3),
            "isa": None,
        },
    ),
    "_passes.add": lambda: ((), {"x": f32(7), "more": i16(7), "out": f32(7), "isa": None}),
    "_passes.paint": lambda: ((), {"squares": f32(2, 192), "out": z8(8, 16, 3), "gray": False, "isa": None}),
    "_passes.isas": lambda: ((), {}),
}
OPTIONAL = {"threads", "isa", "lanes", "means", "share", "gray"}  # that None may be, wherever they are
OPTIONAL |= {f"_rans.{one}" for one in ("encode skip_max", "encode_batch skip_max", "TrackDecoder.step mean")}


def callables():
    """{name: what may be called}, methods and properties as functions of self."""
    found = {f"{m}.{name}": one for m, members in MODULES.items() for name, one in vars(members).items()}
    found = {name: one for name, one in found.items() if callable(one) and "__" not in name} | CLASSES
    del found["_rans.StreamError"]
    for name, one in CLASSES.items():
        members = {f"{name}.{member}": value for member, value in vars(one).items() if not member.startswith("_")}
        found |= {member: getattr(value, "fget", value) for member, value in members.items()}
        found |= {member: value for member, value in found.items() if member in members and not callable(value)}
    return found


class Number:
    """What is one, says it, and then is none."""

    def __index__(self):
        raise KeyError("no number")

    __float__ = __len__ = __bool__ = __str__ = __getitem__ = __index__


class Sequence:
    """These items, and what lengths() says of them, again and again."""

    def __init__(self, items, lengths):
        self.items, self.lengths = items, lengths

    def __getitem__(self, i):
        return self.items[i % len(self.items)]

    def __len__(self):
        return next(self.lengths)


def shaky(value):
    """Sequences that have the items of this one, or of those within it, and cannot be relied on."""
    n = len(value)
    for lengths in ((n, n + 1, n + 400, 1 << 16), (n, n - 1, 0), (n + 300, n), (-1,), (n,)):
        yield Sequence(value, itertools.cycle(lengths))
    for i, item in enumerate(value):
        if isinstance(item, list | tuple) and item:
            yield from ([*value[:i], one, *value[i + 1 :]] for one in shaky(item))


class Liar:
    """Of any class, if it is asked."""

    def __init__(self, of):
        self.of = of

    @property
    def __class__(self):
        return self.of


def unmade():
    """An object of each class that has no value."""
    return [one.__new__(one) for one in CLASSES.values()]


def odd():
    """What is hardly ever an argument."""
    yield from (object(), (), [], {}, "text", b"", bytes(3), 0, -1, 2**31, 2**63, 2**70, -(2**70), 1.5, math.nan)
    yield from ([None], [[None]], [(None, None)], [object()], Number(), [Number()], [[Number()]] * 2, int, Ellipsis)
    yield from (np.zeros(0, np.int16), np.zeros((0, 0), np.float32), np.array(None), np.float32(1), np.zeros(3, "?"))
    yield from (np.zeros((1,) * 9, np.uint8), memoryview(b""), memoryview(bytes(8)).cast("d"), *CLASSES.values())
    yield from (Liar(one) for one in CLASSES.values())
    yield from ([Liar(one)] for one in CLASSES.values())
