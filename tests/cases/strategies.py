"""What hypothesis draws for tests/properties: numbers near their limits, headers, sections, tables, symbols, damage.

Draws are the same in every run, and few. CKBD_PROPERTIES=N draws N for each property, others each time.
"""

import os
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, configuration, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from rans_cases import spread

HUNT = int(os.environ.get("CKBD_PROPERTIES", "0"))

# What hypothesis writes down about characters and sources goes where what is built goes.
configuration.set_hypothesis_home_dir(Path(__file__).parents[2] / "build" / "hypothesis")
if not HUNT:
    # Else numbers come from the sources of whatever modules are loaded, which another process has not loaded.
    assert callable(providers._get_local_constants)
    providers._get_local_constants = providers.Constants


def examples(count):
    """Settings of a property that has so many examples in `make test`."""
    return settings(
        max_examples=HUNT or count,
        derandomize=not HUNT,
        deadline=None,
        database=None,
        print_blob=bool(HUNT),
        suppress_health_check=list(HealthCheck),
    )


def edged(low, high, *edges):
    """Integers from low to high, often one of these, its neighbours or an end."""
    near = sorted({e + d for e in (low, high, *edges) for d in (-1, 0, 1) if low <= e + d <= high})
    return st.sampled_from(near) | st.integers(low, high)


# Containers, as docs/format.md has them

MODELS = st.binary(min_size=6, max_size=6)
PIXELS = 1 << 27
SECTION_TYPES = (1, 2, *range(128, 256))


@st.composite
def headers(draw, version=1):
    """The fields of a header by their names in container.Header, within docs/format.md."""
    width = draw(edged(1, PIXELS // 64, 63, 127, 128, 16384, 65535))
    most = min(PIXELS // max(width, 64), PIXELS // 64)
    height = draw(edged(1, most, *(e for e in (63, 64, 127, 16383, 65535, 64 * 16384, PIXELS // 64) if e <= most)))
    made = {"model": draw(MODELS), "quality2": draw(edged(2, 200)), "width": width, "height": height}
    made["gray"] = draw(st.booleans())
    if version == 2:
        return made | {"lanes_log2": 0, "skip_max": 0, "tracks": draw(edged(1, min(-(-height // 64) * 4, 65535)))}
    made |= {"lanes_log2": draw(st.integers(0, 5)), "skip_max": draw(st.integers(0, 15))}
    return made | {"tail": draw(edged(1, (1 << 32) - 1, 127, 16383)) if made["lanes_log2"] else 0}


bodies = st.binary(max_size=12) | st.sampled_from((0, 127, 128, 300)).map(
    lambda n: b"body" * (n // 4) + b"." * (n % 4)
)


@st.composite
def sections(draw, least=0, most=5):
    """{type: body} of sections in some order, known ones and those of which nobody knows."""
    kinds = st.sampled_from((1, 2, 128, 129)) | st.sampled_from(SECTION_TYPES)
    chosen = draw(st.lists(kinds, min_size=least, max_size=most, unique=True))
    return {kind: draw(bodies) for kind in chosen}


# Symbols of the coder


@st.composite
def y_tables(draw):
    """(y_freq, y_max): a few shapes, each with a largest size of its own."""
    freq, most = np.zeros((64, 128), np.int16), np.zeros(64, np.uint8)
    shapes = draw(st.lists(st.tuples(st.integers(0, 15), st.integers(1, 126)), min_size=1, max_size=4))
    for k in range(64):
        step, size = shapes[k % len(shapes)]
        most[k] = min(size, 6) if k <= 22 else size
        row = spread(2048, int(most[k]) + 2, step)
        freq[k, : len(row)] = [2 * row[0]] + row[1:]
    return freq, most


@st.composite
def z_tables(draw):
    """(z_freq, z_low, z_size) of one to five channels."""
    rows = draw(st.lists(st.tuples(edged(1, 255), st.integers(0, 15), st.data()), min_size=1, max_size=5))
    freq, low, size = np.zeros((len(rows), 256), np.int16), [], []
    for c, (n, step, data) in enumerate(rows):
        row = spread(4096, n + 1, step)
        turn = data.draw(st.integers(0, n))
        freq[c, : n + 1] = row[turn:] + row[:turn]
        low.append(data.draw(edged(-127, 128 - n)))
        size.append(n)
    return freq, np.array(low, np.int16), np.array(size, np.int16)


@st.composite
def tables(draw):
    """The arrays that _rans.Tables takes."""
    return *draw(y_tables()), *draw(z_tables())


def cycled(values, n, dtype):
    return np.resize(np.array(values, dtype), n)


@st.composite
def phases(draw, dtype, runs=6):
    """(k, r) of a phase: runs of up to 200 elements, in each of which a few k and a few r come again and again."""
    limits = np.iinfo(dtype)
    ks = st.lists(edged(0, 63, 15, 22), min_size=1, max_size=5)
    ends = (limits.min, limits.min + 1, limits.max, -1024, 1023) if dtype is np.int16 else (-128, -127, 127)
    sizes = st.integers(-2, 2) | st.sampled_from(ends) | st.integers(-40, 40) | edged(limits.min, limits.max)
    rs = st.lists(sizes, min_size=1, max_size=7)
    parts = draw(st.lists(st.tuples(edged(1, 200, 32, 64, 128), ks, rs), max_size=runs))
    k = [cycled(k, n, np.uint8) for n, k, _ in parts]
    r = [cycled(r, n, dtype) for n, _, r in parts]
    return np.concatenate([np.zeros(0, np.uint8), *k]), np.concatenate([np.zeros(0, dtype), *r])


def z_symbols(channels, low=-32768, high=32767, most=30):
    """z of so many channels: few values again and again."""
    values = st.lists(st.integers(-3, 3) | edged(low, high, -128, 127), min_size=1, max_size=9)
    return st.builds(lambda n, v: cycled(v, n * channels, np.int16), st.integers(0, most), values)


# Damage

KINDS = "flip flip flip set cut drop put more same".split()
places = st.floats(0, 1) | st.integers(-9, 9)  # a share of the way, or so many bytes from an end
edits = st.lists(st.tuples(st.sampled_from(KINDS), places, st.integers(0, 255)), min_size=1, max_size=4)


def damaged(data, changes):
    """The bytes with these of `edits` done to them."""
    data = bytearray(data)
    for kind, place, value in changes:
        at = int(place * len(data)) if isinstance(place, float) else place % (len(data) + 1)
        if kind == "more":
            at = len(data)
        if kind in ("put", "more") or not data:
            data[at:at] = bytes([value]) * (1 + value % 3)
            continue
        at = min(at, len(data) - 1)
        if kind == "flip":
            data[at] ^= 1 << value % 8
        elif kind == "set":
            data[at] = value
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + 1 + value % 4]
        else:
            data[at] = data[value % len(data)]
    return bytes(data)
