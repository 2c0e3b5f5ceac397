"""The coder of version 2: any tables, mixtures and tracks come back, in any order of steps, by the plain one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_tracks import Tracks
from strategies import cycled, damaged, edged, edits, examples, tables, z_symbols

from ckbd import _rans
from ckbd.papers.file import mixture_tables

NAMES = "y.freq y.max z.freq z.low z.size".split()
MADE = {name.removeprefix("table."): t.numpy() for name, t in mixture_tables().items()}
MIXTURE = [MADE[f"m.{name}"] for name in ("cdf", "inverse", "share", "radius")]


@st.composite
def mixtures(draw):
    """The tables of mixtures as models have them, or others within docs/format.md."""
    if draw(st.booleans()):
        return MIXTURE
    rising = sorted(draw(st.lists(edged(1 << 23, 1 << 24), min_size=1, max_size=6)))
    cdf = np.repeat(np.array([1 << 23, *rising], np.int32), -(-8192 // len(rising)))[: 8193 - 1]
    cdf = np.append(np.resize(cdf, 8192), rising[-1]).astype(np.int32)
    cdf = np.maximum.accumulate(cdf)
    inverse, share, radius = (
        cycled(draw(st.lists(edged(1, most), min_size=1, max_size=5)), 64, dtype)
        for most, dtype in ((1 << 30, np.int32), (1 << 16, np.int32), (1023, np.int16))
    )
    return [cdf, inverse, share, radius]


@st.composite
def cases(draw, most=12):
    """Everything that encode_tracks takes, and the arrays of its tables."""
    arrays, mixture = draw(tables()), draw(mixtures())
    nz, parts, M = len(arrays[3]), draw(st.integers(0, 3)), draw(st.integers(1, 3))
    sites, tracks = draw(st.integers(0, most)), draw(edged(1, 40) | st.just(65535))
    shape = (sites, parts, M) if parts else (sites, M)
    size = sites * max(parts, 1) * M

    def some(values, dtype, n=size, shape=shape):
        return cycled(draw(st.lists(values, min_size=1, max_size=7)), n, dtype).reshape(shape)

    case = {"z": draw(z_symbols(nz, -1023, 1023, 6)), "track": some(edged(0, tracks - 1), np.uint16, sites, (sites,))}
    case |= {"k": some(edged(0, 63, 22), np.uint8), "mean": None, "share": None}
    if parts:
        case["mean"] = some(st.integers(-99, 99) | edged(-16383, 16383), np.int16)
        case["share"] = some(edged(0, 63), np.uint8)
    y = some(st.integers(-6, 6) | edged(-1023, 1023), np.int16, sites * M, (sites, M))
    return arrays, mixture, tracks, case | {"y": y}


def decode(coder, payload, tracks, case, order=None):
    """(z, y), site after site in this order; None: all at once."""
    decoder = _rans.TrackDecoder(*coder, payload, tracks)
    z, y = np.empty_like(case["z"]), np.empty_like(case["y"])
    decoder.z(z)
    for sites in [slice(None)] if order is None else [slice(i, i + 1) for i in order]:
        mean, share = (None if case[name] is None else case[name][sites] for name in ("mean", "share"))
        decoder.step(case["track"][sites], case["k"][sites], y[sites], mean=mean, share=share)
    decoder.finish()
    return z, y


def outcome(*args, **kwargs):
    try:
        z, y = decode(*args, **kwargs)
    except _rans.StreamError as error:
        return error.args
    return z.tobytes(), y.tobytes()


@examples(60)
@given(cases(), st.randoms(use_true_random=False))
def test_symbols_come_back_in_any_order_that_keeps_the_tracks(drawn, random):
    arrays, mixture, tracks, case = drawn
    coder = _rans.Tables(*arrays), _rans.MixtureTables(*mixture)
    payload, bits = _rans.encode_tracks(*coder, tracks, **case)
    assert bits / 8 - 1 <= len(payload) <= bits / 8 + 6 * tracks
    want = case["z"].tobytes(), case["y"].tobytes()
    assert outcome(coder, payload, tracks, case) == want
    queues = [np.flatnonzero(case["track"] == track).tolist() for track in sorted(set(case["track"].tolist()))]
    order = []
    while queues := [queue for queue in queues if queue]:
        order.append(random.choice(queues).pop(0))
    assert outcome(coder, payload, tracks, case, order) == want


def plainly(payload, tracks, case, arrays, mixture):
    """(z, y, ideal bits) by the plain decoder."""
    named = dict(zip(NAMES, arrays, strict=True)) | dict(zip(MADE, mixture, strict=True))
    plain = Tracks(payload, tracks, {name: a.tolist() for name, a in named.items()})
    z = [plain.z(i % len(arrays[3])) for i in range(len(case["z"]))]
    y = []
    for i, track in enumerate(case["track"].tolist()):
        for c in range(case["y"].shape[1]):
            if case["mean"] is None:
                y.append(plain.residual(track, int(case["k"][i, c])))
            else:
                y.append(plain.mixture(track, *(case[name][i, :, c].tolist() for name in ("mean", "k", "share"))))
    plain.finish()
    return z, y, plain.bits


@examples(35)
@given(cases(most=5).filter(lambda c: c[2] < 65535))
def test_a_plain_decoder_reads_them(drawn):
    arrays, mixture, tracks, case = drawn
    payload, bits = _rans.encode_tracks(_rans.Tables(*arrays), _rans.MixtureTables(*mixture), tracks, **case)
    z, y, plain_bits = plainly(payload, tracks, case, arrays, mixture)
    assert (z, y) == (case["z"].tolist(), case["y"].ravel().tolist())
    assert bits == pytest.approx(plain_bits)


@examples(70)
@given(cases(most=5).filter(lambda c: c[2] < 65535), edits)
def test_damage_is_refused_or_reads_as_a_plain_decoder_does(drawn, changes):
    arrays, mixture, tracks, case = drawn
    coder = _rans.Tables(*arrays), _rans.MixtureTables(*mixture)
    payload = damaged(_rans.encode_tracks(*coder, tracks, **case)[0], changes)
    found = outcome(coder, payload, tracks, case)
    try:
        z, y, _ = plainly(payload, tracks, case, arrays, mixture)
        fits = all(abs(v) <= 1023 for v in z + y)
    except (AssertionError, IndexError):
        fits = False
    if isinstance(found[0], str):
        assert not fits
        assert found[1] in ("tracks", "symbols", "end state") and 0 <= found[2] <= len(payload)
    else:
        assert fits and found == (np.array(z, np.int16).tobytes(), np.array(y, np.int16).tobytes())
    order = range(len(case["track"]))
    alone = outcome(coder, payload, tracks, case, order)
    assert alone == found or (isinstance(alone[0], str) and isinstance(found[0], str))
