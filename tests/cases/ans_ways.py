"""Every way in and out of ckbd._ans, each beside the plain twin: the same bytes or symbols, or the same argument."""

import itertools
import re

import numpy as np
import plain_ans

from ckbd import _ans


class Different(AssertionError):
    """A way's answer is not the twin's."""


def outcome(call):
    """What it gives, or the name of the argument that was refused."""
    try:
        return call()
    except plain_ans.Refused as refused:
        return str(refused)
    except ValueError as error:
        named = re.match(r"(\w+?)(s?\[\d+\])?: ", str(error))
        if not named:
            raise Different(f"a refusal that names nothing: {error}") from error
        # A batch has "streams[0]" for "stream", but "indexes[0]" for "indexes".
        return "stream" if named[1] == "stream" else named[1] + (named[2] or "").partition("[")[0]


def same(way, got, expected):
    if got != expected:
        raise Different(f"{way} gives {str(got)[:300]}, the twin {str(expected)[:300]}")


def ints(values):
    return np.array(values, np.int32)


def as_arrays(case):
    """The case as arrays have it, rows filled up to the longest, which a size may reach into."""
    return case._replace(cdfs=case.arrays()[0].tolist())


def pieces(values, step):
    return [values[i : i + step] for i in range(0, len(values), step)]


def as_rows(case):
    """(a row for each symbol (n, m), the symbols' offsets), if all rows are of one size and none is wrong."""
    if not all(0 <= k < len(case.cdfs) for k in case.indexes):
        return None
    sizes = {case.sizes[k] for k in case.indexes}
    if len(sizes) != 1 or not all(2 <= case.sizes[k] <= len(case.cdfs[k]) for k in case.indexes):
        return None
    (size,) = sizes
    return ints([case.cdfs[k][:size] for k in case.indexes]), [case.offsets[k] for k in case.indexes]


def of_two(first, second):
    """What a batch of two gives: both, or what the first that fails refuses."""
    return next((one for one in (first, second) if isinstance(one, str)), [first, second])


def one_of(case, i):
    """Symbol i of a case, alone."""
    return case._replace(symbols=[case.symbols[i]], indexes=[case.indexes[i]])


# ---- decoding


def decode_arrays(stream, case, step, means=None):
    """The twin's outcome, which all that takes arrays must have. means: one for each symbol."""
    case = as_arrays(case)
    expected = outcome(lambda: plain_ans.decode(stream, case.indexes, *case.tables))
    tables, indexes = _ans.Tables(*case.arrays()), ints(case.indexes)
    out, both, floats = (
        np.full_like(indexes, 7),
        np.zeros((2, len(indexes)), np.int32),
        np.zeros((1, len(indexes)), "f4"),
    )

    def whole():
        _ans.decode(tables, stream, indexes, out)
        return out.tolist()

    def batch():
        _ans.decode_batch(tables, [stream, bytearray(stream)], np.stack((indexes, indexes[::-1])), both, threads=1)
        return both.tolist()

    same("decode", outcome(whole), expected)
    second = outcome(lambda: plain_ans.decode(stream, case.indexes[::-1], *case.tables))
    same("decode_batch", outcome(batch), of_two(expected, second))
    for added in (None, means):

        def latents(added=added):
            given = None if added is None else added[None]
            _ans.decode_latents(tables, [stream], indexes[None], given, floats, threads=1)
            return floats[0].tolist()

        wanted = expected
        if not isinstance(expected, str):
            wanted = (ints(expected).astype("f4") + (0 if added is None else added)).tolist()
        same("decode_latents", outcome(latents), wanted)
    if rows := as_rows(case):

        def by_rows():
            _ans.decode_rows(rows[0], stream, out)
            return [plain_ans.int32(a + b) for a, b in zip(out.tolist(), rows[1], strict=True)]

        same("decode_rows", outcome(by_rows), expected)

    def in_steps(decoder, part):
        at = np.full(len(part), 7, np.int32)
        decoder.decode(tables, ints(part), at)
        return at.tolist()

    _decode_steps("Decoder", _ans.Decoder, in_steps, stream, case, step)
    return expected


def _decode_steps(way, make, decode, stream, case, step):
    """In steps, beside the twin. Who refuses a step stands where it stood, and goes on with what comes then."""
    made, twin = outcome(lambda: make(stream)), outcome(lambda: plain_ans.Decoder(stream))
    if isinstance(made, str) or isinstance(twin, str):
        return same(way, made, twin)
    for part in pieces(case.indexes, step):
        for asked in (part, part[: len(part) // 2]):
            expected = outcome(lambda asked=asked: twin.decode(asked, *case.tables))
            same(f"{way} in steps", outcome(lambda asked=asked: decode(made, asked)), expected)
            if not isinstance(expected, str):
                break


def decode_lists(stream, case, step, decoder):
    """The twin's outcome, which all that takes lists must have; decoder: a RansDecoder that may have seen others."""
    expected = outcome(lambda: plain_ans.decode(stream, case.indexes, *case.tables))
    new = _ans.RansDecoder()
    for way, one in (("RansDecoder", new), ("a RansDecoder again", new), ("a RansDecoder that was used", decoder)):
        same(way, outcome(lambda one=one: one.decode_with_indexes(stream, case.indexes, *case.tables)), expected)

    def set_stream(stream):
        decoder.set_stream(stream)
        return decoder

    _decode_steps("RansDecoder", set_stream, lambda d, part: d.decode_stream(part, *case.tables), stream, case, step)
    return expected


# ---- encoding


def encode_arrays(case, step, means=None):
    """The twin's outcome, which all that takes arrays must have."""
    case = as_arrays(case)
    expected = outcome(lambda: plain_ans.encode(case.symbols, case.indexes, *case.tables))
    tables, symbols, indexes = _ans.Tables(*case.arrays()), ints(case.symbols), ints(case.indexes)

    def batch():
        two = (np.stack((one, one[::-1])) for one in (symbols, indexes))
        return _ans.encode_batch(tables, *two, threads=1)

    same("encode", outcome(lambda: _ans.encode(tables, symbols, indexes)), expected)
    second = outcome(lambda: plain_ans.encode(case.symbols[::-1], case.indexes[::-1], *case.tables))
    same("encode_batch", outcome(batch), of_two(expected, second))
    for added in (None, means):
        x = symbols.astype("f4") + (0 if added is None else added)
        back = np.empty_like(symbols)
        _ans.symbols_of(x, added, back)
        if np.array_equal(back, symbols):  # floats that have room for them
            given = None if added is None else added[None]
            latents = outcome(lambda x=x, given=given: _ans.encode_latents(tables, x[None], given, indexes[None])[0])
            same("encode_latents", latents, expected)
    if rows := as_rows(case):
        moved = ints([plain_ans.int32(a - b) for a, b in zip(case.symbols, rows[1], strict=True)])
        ones = [outcome(lambda i=i: plain_ans.encode(*one_of(case, i))) for i in range(len(moved))]
        wanted = next((one for one in ones if isinstance(one, str)), expected)
        same("encode_rows", outcome(lambda: _ans.encode_rows(rows[0], moved)), wanted)

    # By one object or the other, as a model's steps have tables of their own.
    two = itertools.cycle((tables, tables, _ans.Tables(*case.arrays())))

    def push(encoder, part):
        encoder.push(next(two), ints(part[0]), ints(part[1]))

    _encode_steps("Encoder", _ans.Encoder(), push, case, step)
    return expected


def _encode_steps(way, encoder, push, case, step):
    """In steps, beside the twin. A step that is refused adds nothing."""
    accepted = [], []
    for part in zip(pieces(case.symbols, step), pieces(case.indexes, step), strict=True):
        expected = outcome(lambda part=part: plain_ans.encode(*part, *case.tables))
        done = outcome(lambda part=part: push(encoder, part))
        same(f"{way} in steps", done, expected if isinstance(expected, str) else None)
        if done is None:
            accepted[0].extend(part[0])
            accepted[1].extend(part[1])
    same(f"{way}'s flush()", encoder.flush(), plain_ans.encode(*accepted, *case.tables))
    same(f"{way}'s second flush()", encoder.flush(), plain_ans.encode([], [], *case.tables))


def encode_lists(case, step, encoder, buffered):
    """The twin's outcome, which all that takes lists must have; encoders that may have seen others."""
    expected = outcome(lambda: plain_ans.encode(case.symbols, case.indexes, *case.tables))
    new = _ans.RansEncoder()
    for way, one in (("RansEncoder", new), ("a RansEncoder again", new), ("a RansEncoder that was used", encoder)):
        same(way, outcome(lambda one=one: one.encode_with_indexes(*case)), expected)

    def push(encoder, part):
        encoder.encode_with_indexes(*part, *case.tables)

    _encode_steps("BufferedRansEncoder", buffered, push, case, step)
    return expected
