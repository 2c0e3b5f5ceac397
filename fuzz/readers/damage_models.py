"""Mutations of model files: the header's JSON, what it says of tensors, the config in it, and the tensors' bytes."""

import json

import numpy as np
from readers.damage_streams import any_of, damaged_file
from readers.model_file import File

WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4}
WIDTHS |= {"U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "F8_E8M0": 1, "F4": 0.5, "F6_E2M3": 0.75, "C64": 8}
NO_TYPES = ("", "i8", "F128", None, 7, [], {}, "I8\0")
DTYPES = {"I8": "i1", "U8": "u1", "I16": "<i2", "I32": "<i4", "F16": "<f2", "F32": "<f4"}
NUMBERS = (-1, 0, 1, 2, 7, 8, 63, 64, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64)
NUMBERS += (10**30, -(2**63), 1.0, 1e400, -0.0, True, None, "8", [], {})
NAMES = ("exact.more", "exact.3.first.weight", "exact.0.first.weight", "exact.first.more", "table.more", "g_a.more")
NAMES += (
    "g_s.up.more",
    "more",
    "",
    "exact.",
    "é",
    "exact.€\U0001f600",
    "exact.\0",
    "x" * 3000,
    "g_a.\n",
    "exact.h_s.2.weight",
)
CONFIG = (
    "width M Nz hyper h_s psi H1 H2 analysis8 synthesis16 levels lmbda_min groups channel analysis_width transform"
)
CONFIG = (*f"{CONFIG} prior context centring mixtures supernet supernet_side more __class__".split(), "")
LONG = 10**5000  # more digits than Python reads
VALUES = (*NUMBERS, 2047, 2048, 2049, float("nan"), float("inf"), LONG, "\ud800")
VALUES += ("factorised", "scale", "integer", "none", "raster", "minnen2018", [8, 8], [8, 8, 24], [16] * 16, [8] * 17)
VALUES += ([[1]], {"mask": [[0]], "order": None}, {"mask": [[1, 0, 0]] * 3, "order": [[0, 1]]})
VALUES += ({"mask": 3, "order": "x"}, {"mask": [[0] * 15] * 15, "order": [[1]]})


def tensor(rng, f):
    return any_of(rng, f.tensors())


def said(rng, f, **changes):
    """Other things said of a tensor, whose bytes stay."""
    i = tensor(rng, f)
    f.header[i] = f.header[i][0], f.header[i][1] | changes
    return i


def dtypes(rng, f):
    kind = any_of(rng, list(WIDTHS)) if rng.random() < 0.8 else any_of(rng, NO_TYPES)
    i = said(rng, f, dtype=kind)
    shape = f.header[i][1]["shape"]
    if isinstance(kind, str) and kind in WIDTHS and rng.random() < 0.7:  # with as many bytes as it takes
        f.lay_out({i: bytes(int(np.prod(shape, dtype=np.int64) * WIDTHS[kind]))})


def shapes(rng, f):
    i = tensor(rng, f)
    shape = list(f.header[i][1]["shape"])
    bodies = {}
    match int(rng.integers(7)):
        case 0:
            rng.shuffle(shape)
        case 1:
            at = int(rng.integers(len(shape) + 1))
            shape[at:at] = [1] * int(rng.choice([1, 2, 30, 61, 64, 252, 256]))
        case 2:
            shape[int(rng.integers(len(shape)))] = any_of(rng, NUMBERS)
        case 3:
            shape = [0, *[any_of(rng, (1, 2**31, 2**32, 2**40, 2**62)) for _ in range(int(rng.integers(3)))]]
            bodies[i] = b""
        case 4:
            shape = any_of(rng, (None, 3, "3", [[3]], {}, [], [-1, -1]))
        case 5:
            at = int(rng.integers(len(shape)))
            shape[at] += int(rng.choice([-1, 1]))
            kind = f.header[i][1]["dtype"]
            bodies[i] = bytes(int(np.prod(shape, dtype=np.int64) * WIDTHS[kind])) if kind in WIDTHS else b""
        case _:
            shape = [int(np.prod(shape, dtype=np.int64))]
    f.header[i] = f.header[i][0], f.header[i][1] | {"shape": shape}
    if bodies:
        f.lay_out(bodies)


def offsets(rng, f):
    i = tensor(rng, f)
    begin, end = f.header[i][1]["data_offsets"]
    other = f.header[tensor(rng, f)][1].get("data_offsets", [0, 0])
    ways = (
        [end, begin],
        other,
        [begin, end + 1],
        [begin - 1, end - 1],
        [begin, begin],
        [begin],
        None,
        [begin, end, end],
    )
    ways += (
        [any_of(rng, NUMBERS), end],
        [begin, any_of(rng, NUMBERS)],
        [2**64 - 1 - end, 2**64 - 1],
        [0, len(f.data)],
    )
    f.header[i] = f.header[i][0], f.header[i][1] | {"data_offsets": any_of(rng, ways)}


def missing(rng, f):
    """A tensor less, or a thing that is said of one."""
    i = tensor(rng, f)
    if rng.random() < 0.7:
        bodies = [f.bytes_of(j) for j in f.tensors() if j != i]
        del f.header[i]
        f.lay_out(dict(zip(f.tensors(), bodies, strict=True)))
    else:
        f.header[i] = (
            f.header[i][0],
            {k: v for k, v in f.header[i][1].items() if k != any_of(rng, list(f.header[i][1]))},
        )


def more(rng, f):
    """A tensor more, of any name, dtype and shape; or an own one under another's name."""
    i = tensor(rng, f)
    if rng.random() < 0.3:
        f.header[i] = (f.header[tensor(rng, f)][0] if rng.random() < 0.5 else any_of(rng, NAMES)), f.header[i][1]
        return
    kind = any_of(rng, ("I8", "U8", "I16", "I32", "F16", "F32", "I64", "BOOL", "BF16", "F64"))
    shape = any_of(rng, ([], [1], [0], [2, 3], [1] * 70, [0, 2**32], [0, 2**62, 4], [1] * 256))
    f.header.append((any_of(rng, NAMES), {"dtype": kind, "shape": shape, "data_offsets": [0, 0]}))
    f.lay_out({len(f.header) - 1: bytes(int(np.prod([min(n, 9) for n in shape], dtype=np.int64)) * WIDTHS[kind])})


def values(rng, f):
    """Numbers of a tensor at the ends of their range, or just another."""
    wanted = [i for i in f.tensors() if f.header[i][0].startswith(("exact.", "table."))]
    i = any_of(rng, wanted) if rng.random() < 0.8 else tensor(rng, f)
    kind = f.header[i][1].get("dtype")
    if kind not in DTYPES:
        return
    array = np.frombuffer(f.bytes_of(i), DTYPES[kind]).copy()
    if not array.size:
        return
    if array.dtype.kind == "f":
        most = float(np.finfo(array.dtype).max)
        ends = [np.nan, np.inf, -np.inf, most, -most, 0, 1e-7, 1, -100]
    else:
        about = np.iinfo(array.dtype)
        ends = [about.min, about.min + 1, about.max, 0, 1, 24, about.max // 2, 2**23, 2**24]
        ends = [n for n in ends if about.min <= n <= about.max]
    value = any_of(rng, ends)
    match int(rng.integers(4)):
        case 0:
            array[:] = value
        case 1:
            rng.shuffle(array)
        case 2 if array.dtype.kind != "f":  # a step up and one down keep the sum of a table
            up, down = rng.integers(0, array.size, 2)
            array[up : up + 1] += 1  # which may wrap around
            array[down : down + 1] -= 1
        case _:
            array[rng.integers(0, array.size, int(rng.integers(1, 9)))] = value
    f.lay_out({i: array.tobytes()})


def metadata(rng, f):
    """What is said of the whole file."""
    there = f.metadata() or {}
    key = any_of(rng, ("format", "config", "more"))
    ways = (None, {}, [], "x", there | {key: any_of(rng, (None, 7, {}, "", "[", "{}", "x" * 5000, "ckbd-model-2"))})
    ways += (
        {k: v for k, v in there.items() if k != key},
        there | {"format": any_of(rng, ("ckbd-model-1", "ckbd-variant-1"))},
    )
    f.set_metadata(any_of(rng, ways))


def config(rng, f):
    """The config's fields; or text that is none."""
    there = f.metadata() or {}
    text = there.get("config", "{}")
    match int(rng.integers(6)):
        case 0:
            text = any_of(
                rng, ("", "[]", "7", "null", "NaN", "[" * 100_000, '{"M":' * 5000, '{"M":1,"M":8}', "{}", "\0")
            )
        case 1:
            text = damaged_file(rng, text.encode()).decode("utf-8", "replace")
        case 2:
            text = text[:-1] + ', "width": ' + any_of(rng, ("1" * 5000, "1e999", "-1", "64", "NaN", '"64"')) + "}"
        case _:
            fields = json.loads(text)
            for _ in range(int(rng.integers(1, 3))):
                name = any_of(rng, list(fields) if rng.random() < 0.7 else CONFIG)
                if rng.random() < 0.15:
                    fields.pop(name, None)
                else:
                    fields[name] = any_of(rng, VALUES)
            text = dumps(fields)
    f.set_metadata(there | {"config": text})


def dumps(fields):
    """JSON, of integers too that Python would not write."""
    return "{" + ", ".join(f"{json.dumps(k)}: {_text(v)}" for k, v in fields.items()) + "}"


def _text(value):
    return "1" + "0" * 5000 if value is LONG else json.dumps(value)


def text(rng, f):
    """The header's text: bytes of it, what is before and behind, depth, and what is no UTF-8."""
    own = f.json()
    match int(rng.integers(8)):
        case 0:
            own = damaged_file(rng, own)
        case 1:
            at = int(rng.integers(len(own)))
            own = (
                own[:at] + any_of(rng, (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\xf4\x90\x80\x80")) + own[at:]
            )
        case 2:
            own = any_of(rng, (b"\xef\xbb\xbf", b" ", b"\n", b"[", b"{", b"\0")) + own
        case 3:
            own = own + any_of(rng, (b"}", b",", b"x", b"\0", b" " * 1000, own))
        case 4:
            own = own[:-1] + b',"deep":' + b"[" * int(rng.choice([10, 200, 100_000])) + b"}"
        case 5:
            own = any_of(rng, (b"", b"{}", b"[]", b"null", b"7", b'{"__metadata__":{}}', b'{"__metadata__":7}'))
        case 6:
            own = own.replace(b'"shape"', b'"shape":[1],"shape"', 1)
        case _:
            own = own[:-1] + b',"__metadata__":{"format":"ckbd-model-1"}}'
    return f.join(own)


def prefix(rng, f):
    """The length of the header."""
    right = len(f.json()) + -len(f.json()) % 8
    near = (0, 1, right - 1, right + 1, right - 8, right + 8, right + len(f.data), right + len(f.data) + 1)
    return f.join(size=any_of(rng, (*near, 10**8, 10**8 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)))


def cut(rng, f):
    data = f.join()
    return data[: int(rng.choice([int(rng.integers(len(data))), int(rng.integers(20)), len(data) - 1]))]


def raw(rng, f):
    return damaged_file(rng, f.join())


def behind(rng, f):
    return f.join() + rng.bytes(int(rng.integers(1, 9)))


INSIDE = (
    dtypes,
    shapes,
    shapes,
    offsets,
    missing,
    more,
    more,
    values,
    values,
    values,
    values,
    metadata,
    config,
    config,
)
OUTSIDE = (text, prefix, cut, raw, behind)


def mutated(rng, base):
    """(bytes, names of what was done)."""
    f, done = File(base), []
    for _ in range(1 + int(rng.random() < 0.15)):
        way = any_of(rng, INSIDE if rng.random() < 0.85 else OUTSIDE)
        try:
            data = way(rng, f)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
            if not done:
                raise
            break  # of a file that says nonsense already
        done.append(way.__name__)
        if data is not None:
            return data, done
    return f.join(), done
