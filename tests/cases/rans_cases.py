"""Tables made by integer arithmetic, symbols, and a decoder in plain Python, for the tests of the coder."""

import numpy as np

from ckbd import _rans

ISAS = _rans.isas()
LANES = (1, 2, 4, 8, 16, 32)
DTYPES = (np.int8, np.int16)
POISON, MARGIN = 90, 67


def spread(total, count, step):
    """count integers of at least 1 that fall by step / 16 from each to the next and add to total."""
    weights = [1 << 24]
    for _ in range(count - 1):
        weights.append(weights[-1] * step // 16)
    rest = total - count
    parts = [1 + rest * w // sum(weights) for w in weights]
    parts[0] += total - sum(parts)
    return parts


def make_arrays():
    """(y_freq, y_max, z_freq, z_low, z_size), with the largest f: 4092 in y table 0, 4095 in z table 0."""
    y_freq, y_max = np.zeros((64, 128), np.int16), np.zeros(64, np.uint8)
    for k in range(64):
        y_max[k] = max(1, min(6, k // 2)) if k <= 22 else min(126, 3 * (k - 20))
        row = spread(2048, int(y_max[k]) + 2, min(15, 1 + k // 3))
        y_freq[k, : len(row)] = [2 * row[0]] + row[1:]
    z_low, z_size = np.array([0, -127, -2, -3], np.int16), np.array([1, 255, 4, 9], np.int16)
    z_freq = np.zeros((4, 256), np.int16)
    for c, size in enumerate(z_size):
        z_freq[c, : size + 1] = spread(4096, int(size) + 1, (1, 15, 8, 12)[c])
    return y_freq, y_max, z_freq, z_low, z_size


ARRAYS = make_arrays()
TABLES = _rans.Tables(*ARRAYS)


def make_phase(rng, n, low=0, high=63, dtype=np.int16):
    """k in low..high and residuals that fit it, with some far outside."""
    limits = np.iinfo(dtype)
    k = rng.integers(low, high + 1, n).astype(np.uint8)
    r = np.rint(rng.normal(size=n) * 0.11 * 1.13 ** k.astype(float)).clip(limits.min, limits.max).astype(int)
    for far in (limits.min, limits.max, *rng.integers(limits.min, limits.max + 1, n // 100)) if n else ():
        r[rng.integers(n)] = far
    return k, r.astype(dtype)


def make_z(rng, sites):
    z = np.rint(rng.normal(size=4 * sites) * 3)
    if sites:
        z[rng.integers(0, len(z), 3)] = -32768, 32767, 200
    return z.astype(np.int16)


def room(n, dtype):
    """n elements to decode into, amid others that must stay as they are, at an address as odd as it may be."""
    return np.full(n + 2 * MARGIN, POISON, dtype)[MARGIN : MARGIN + n]


def rooms(n_z, ks, dtype):
    """What decode() fills: z, and (k, r) of each phase."""
    return room(n_z, np.int16), [(k, room(len(k), dtype)) for k in ks]


def check_margins(z, phases):
    for out in (z, *(r for _, r in phases)):
        assert np.all(out.base[:MARGIN] == POISON) and np.all(out.base[MARGIN + len(out) :] == POISON)


def decode(payload, lanes_log2, skip_max, tail, n_z, ks, *, dtype=np.int16, isa=None, steps=False, tables=TABLES):
    """(z, list of r) in one call, or step by step."""
    header = {"lanes_log2": lanes_log2, "skip_max": skip_max, "tail": tail, "isa": isa}
    z, phases = rooms(n_z, ks, dtype)
    try:
        if steps:
            decoder = _rans.Decoder(tables, payload, phases=len(ks), **header)
            decoder.z(z)
            for k, r in phases:
                decoder.phase(k, r)
            decoder.finish()
        else:
            _rans.decode(tables, payload, z, phases, **header)
    finally:
        check_margins(z, phases)
    return z, [r for _, r in phases]


def outcome_of(error, z, rs):
    """What a decoder has made of a stream, to be compared: the StreamError's args, or the symbols."""
    return error.args if error else (z.tobytes(), *(r.tobytes() for r in rs))


def failed(found):
    """Whether an outcome is an error."""
    return isinstance(found[0], str)


def outcome(*args, **kwargs):
    """outcome_of() a call of decode()."""
    try:
        return outcome_of(None, *decode(*args, **kwargs))
    except _rans.StreamError as error:
        return outcome_of(error, None, None)


def to_decode(coded, n_z, ks, dtype=np.int16):
    """An image for decode_batch()."""
    return *coded, *rooms(n_z, ks, dtype)


def batch_outcomes(images, errors):
    """outcome_of() each image that decode_batch() was given."""
    found = []
    for (*_, z, phases), error in zip(images, errors, strict=True):
        check_margins(z, phases)
        assert error is None or type(error) is _rans.StreamError
        found.append(outcome_of(error, z, [r for _, r in phases]))
    return found


def plain_decode(payload, lanes_log2, skip_max, tail, n_z, ks, arrays=ARRAYS):
    """decode(), written from docs/format.md in plain Python; asserts what a stream must be."""
    y_freq, y_max, z_freq, z_low, z_size = (a.tolist() for a in arrays)
    lanes, number, at = 1 << lanes_log2, int.from_bytes(payload, "little"), 0

    def bits(width):
        nonlocal at
        at += width
        assert at <= 8 * len(payload)
        return number >> (at - width) & ((1 << width) - 1)

    def ones():
        count = 0
        while bits(1):
            count += 1
        return count

    def varint():
        value, shift = 0, 0
        while True:
            byte = bits(8)
            value, shift = value + ((byte & 127) << shift), shift + 7
            if byte < 128:
                assert value < 2**32 and (byte or shift == 7)
                return value

    x = []
    for _ in range(lanes):
        e = bits(4)
        x.append(2 ** (16 + e) + bits(16 + e))
    assert bits(-at % 8) == 0
    lists = []
    for _ in ks:
        lists.append([])
        if count := varint():
            b = bits(8)
            assert b <= 24
            for _ in range(count):
                gap = 2**b * ones() + bits(b)
                sign = -1 if bits(1) else 1
                m = ones()
                assert m <= 15
                lists[-1].append((gap, sign * (2**m + bits(m))))
            assert bits(-at % 8) == 0
    escapes = [varint() for _ in range(varint())]
    words = [bits(16) for _ in range((8 * len(payload) - at) // 16)]
    assert at == 8 * len(payload)

    def step(lane, starts, freqs, copies):
        """(m, slots past its start) of the next symbol; interval m has copies[m] times freqs[m] slots."""
        s = x[lane] % 4096
        m = max(i for i, start in enumerate(starts) if start <= s)
        d = s - starts[m]
        x[lane] = freqs[m] * (x[lane] >> 12) + d // copies[m]
        if x[lane] < 2**16:
            x[lane] = 2**16 * x[lane] + words.pop(0)
        return m, d

    def starts_of(freqs, copies):
        starts = [sum(f * c for f, c in zip(freqs[:i], copies, strict=False)) for i in range(len(freqs))]
        assert starts[-1] + freqs[-1] * copies[-1] == 4096
        return starts

    z = []
    for i in range(n_z):
        c = i % len(z_size)
        freqs, copies = z_freq[c][: z_size[c] + 1], [1] * (z_size[c] + 1)
        m, _ = step(i % lanes, starts_of(freqs, copies), freqs, copies)
        if m == z_size[c]:
            u = escapes.pop(0)
            z.append(z_low[c] - 1 - (u - 1) // 2 if u % 2 else z_low[c] + z_size[c] + u // 2)
        else:
            z.append(z_low[c] + m)

    rs = []
    for p, (k, exceptions) in enumerate(zip(ks, lists, strict=True)):
        r, skipped = [0] * len(k), iter([j for j in range(len(k)) if k[j] <= skip_max])
        for gap, value in exceptions:
            for _ in range(gap):
                next(skipped)
            r[next(skipped)] = value
        narrow = [j for j in range(len(k)) if skip_max < k[j] <= 22]
        wide = [j for j in range(len(k)) if k[j] > 22]
        order = [(j, i % lanes) for group in (narrow, wide) for i, j in enumerate(group)]
        for number, (j, lane) in enumerate(order):
            in_tail = p + 1 == len(ks) and number >= len(order) - tail
            if in_tail and number == len(order) - tail:
                assert not words and all(state < 2**17 for state in x[1:])
                words = [state - 2**16 for state in x[1:]]
            largest = y_max[k[j]]
            freqs, copies = y_freq[k[j]][: largest + 2], [1] + [2] * (largest + 1)
            m, d = step(0 if in_tail else lane, starts_of(freqs, copies), freqs, copies)
            size = m + escapes.pop(0) if m == largest + 1 else m
            r[j] = -size if m and d % 2 else size
        rs.append(r)
    assert not words and not escapes and x[0] == 2**16
    return z, rs


def check(z, phases, lanes=None, skip_max=None, *, isa=None, tables=TABLES):
    """Round trip, in one call and in steps, whose bytes are those of the plain coder; returns what encode() does."""
    coded = _rans.encode(tables, z, phases, lanes=lanes, skip_max=skip_max, isa=isa)
    if isa != "plain":
        assert coded == _rans.encode(tables, z, phases, lanes=lanes, skip_max=skip_max, isa="plain")
    for steps in (False, True):
        options = {"dtype": phases[0][1].dtype, "isa": isa, "steps": steps, "tables": tables}
        z_out, rs = decode(*coded, len(z), [k for k, _ in phases], **options)
        assert np.array_equal(z_out, z)
        for (_, r), out in zip(phases, rs, strict=True):
            assert np.array_equal(out, r)
    return coded
