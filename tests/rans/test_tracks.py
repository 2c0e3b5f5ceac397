"""The coder of version 2: read by a plain decoder written from docs/format.md, and every damage refused."""

import numpy as np
import pytest
import torch
from plain_tracks import Tracks

from ckbd import _rans
from ckbd.model import entropy
from ckbd.papers.file import mixture_tables

CHANNELS, SITES = 3, 37


@pytest.fixture(scope="module")
def tables():
    torch.manual_seed(0)
    y, z = entropy.gaussian_tables(), entropy.factorized_tables(entropy.FactorizedPrior(CHANNELS), 127)
    return {name.removeprefix("table."): t for name, t in (y | z | mixture_tables()).items()}


@pytest.fixture(scope="module")
def coder(tables):
    t = {name: value.numpy() for name, value in tables.items()}
    single = _rans.Tables(*(t[n] for n in ("y.freq", "y.max", "z.freq", "z.low", "z.size")))
    return single, _rans.MixtureTables(*(t[f"m.{n}"] for n in ("cdf", "inverse", "share", "radius")))


def case(parts: int, tracks: int, seed: int = 0) -> dict:
    """z with escapes, symbols near and far from their means, up to the last that may be coded."""
    rng = np.random.default_rng(seed)
    shape = (SITES, parts, CHANNELS) if parts else (SITES, CHANNELS)
    k = rng.integers(0, 64, shape).astype(np.uint8)
    mean = rng.integers(-16383, 16384, shape).astype(np.int16) if parts else None
    if parts:
        mean[: SITES // 2] //= 256
    centre = (mean[:, 0].astype(int) + 8) >> 4 if parts else np.zeros((SITES, CHANNELS), int)
    spread = 0.11 * (256 / 0.11) ** ((k[:, 0] if parts else k) / 63)
    y = np.clip(np.round(centre + rng.normal(0, 1.0, centre.shape) * spread), -1023, 1023).astype(np.int16)
    y[::5] = rng.integers(-1023, 1024, y[::5].shape)
    y[0], y[1] = 1023, -1023
    z = rng.integers(-40, 41, 5 * CHANNELS).astype(np.int16)
    z[:2] = 1023, -1023
    share = rng.integers(0, 64, shape).astype(np.uint8) if parts else None
    track = rng.integers(0, tracks, SITES).astype(np.uint16)
    return {"z": z, "track": track, "k": k, "y": y, "mean": mean, "share": share, "tracks": tracks}


def encode(coder, c) -> tuple[bytes, float]:
    return _rans.encode_tracks(
        *coder, c["tracks"], c["z"], c["track"], c["k"], c["y"], mean=c["mean"], share=c["share"]
    )


def decode(coder, payload, c) -> tuple[np.ndarray, np.ndarray]:
    decoder = _rans.TrackDecoder(*coder, payload, c["tracks"])
    z, y = np.empty_like(c["z"]), np.empty_like(c["y"])
    decoder.z(z)
    decoder.step(c["track"], c["k"], y, mean=c["mean"], share=c["share"])
    decoder.finish()
    return z, y


@pytest.mark.parametrize("tracks", [1, 2, 9])
@pytest.mark.parametrize("parts", [0, 1, 2, 3])
def test_streams_come_back_and_a_plain_decoder_reads_them(coder, tables, parts, tracks):
    c = case(parts, tracks, parts)
    payload, bits = encode(coder, c)
    z, y = decode(coder, payload, c)
    assert np.array_equal(z, c["z"]) and np.array_equal(y, c["y"])
    plain = Tracks(payload, tracks, {name: t.tolist() for name, t in tables.items()})
    assert [plain.z(i % CHANNELS) for i in range(c["z"].size)] == c["z"].tolist()
    for i in range(SITES):
        for ch in range(CHANNELS):
            if parts:
                got = plain.mixture(c["track"][i], *(c[n][i, :, ch].tolist() for n in ("mean", "k", "share")))
            else:
                got = plain.residual(c["track"][i], int(c["k"][i, ch]))
            assert got == c["y"][i, ch]
    plain.finish()
    assert bits == pytest.approx(plain.bits)
    # A track costs at most its four bytes and a length; nothing else is lost.
    assert bits / 8 - 1 <= len(payload) <= bits / 8 + 6 * tracks


def test_steps_in_another_order_read_the_same(coder):
    c = case(3, 4)
    payload, _ = encode(coder, c)
    decoder, z = _rans.TrackDecoder(*coder, payload, 4), np.empty_like(c["z"])
    decoder.z(z)
    y = np.empty_like(c["y"])
    for track in (2, 0, 3, 1):
        for i in np.flatnonzero(c["track"] == track):
            one = np.empty((1, CHANNELS), np.int16)
            options = {name: c[name][i : i + 1].copy() for name in ("mean", "share")}
            decoder.step(c["track"][i : i + 1].copy(), c["k"][i : i + 1].copy(), one, **options)
            y[i] = one
    decoder.finish()
    assert np.array_equal(y, c["y"])


@pytest.mark.parametrize("parts", [0, 3])
def test_every_truncation_and_bit_flip_is_refused_or_ends_in_bounds(coder, parts):
    c = case(parts, 2)
    payload, _ = encode(coder, c)
    for end in range(len(payload)):
        with pytest.raises(_rans.StreamError):
            decode(coder, payload[:end], c)
    refused = 0
    for at in range(len(payload)):
        for bit in range(8):
            bad = bytearray(payload)
            bad[at] ^= 1 << bit
            try:
                z, y = decode(coder, bytes(bad), c)
                assert max(np.abs(z).max(), np.abs(y).max()) <= 1023
            except _rans.StreamError as error:
                assert error.field in ("tracks", "symbols", "end state") and 0 <= error.offset <= len(payload)
                refused += 1
    assert refused > 4 * len(payload)  # not all: the bits of an escape value stand alone, the checksum guards them


def test_a_decoder_that_failed_stays_closed(coder):
    c = case(0, 1)
    decoder = _rans.TrackDecoder(*coder, encode(coder, c)[0], 1)
    with pytest.raises(_rans.StreamError, match="left over"):
        decoder.finish()
    with pytest.raises(RuntimeError, match="after one that failed"):
        decoder.z(np.empty(3, np.int16))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": np.full((SITES, CHANNELS), 64, np.uint8)}, "k: expected 0..63, got 64"),
        ({"y": np.full((SITES, CHANNELS), 1024, np.int16)}, "y: expected at most 1023 in size"),
        ({"z": np.full(3, -1024, np.int16)}, "z: expected at most 1023 in size"),
        ({"z": np.zeros(4, np.int16)}, "z: expected a multiple of the 3 channels"),
        ({"track": np.full(SITES, 2, np.uint16)}, "track: expected less than 2, got 2"),
        ({"track": np.zeros(SITES, np.int32)}, "track: expected a contiguous uint16 array"),
        ({"tracks": 0}, "tracks: expected 1..65535"),
        ({"y": np.zeros((SITES, 2), np.int16)}, "y: expected a contiguous int16 array of shape"),
    ],
)
def test_wrong_arguments_are_named(coder, change, message):
    with pytest.raises(ValueError, match=message):
        encode(coder, case(0, 2) | change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mean": np.full((SITES, 3, CHANNELS), 16384, np.int16)}, "mean: expected -16383..16383"),
        ({"share": np.full((SITES, 3, CHANNELS), 64, np.uint8)}, "share: expected 0..63"),
        ({"k": np.zeros((SITES, 4, CHANNELS), np.uint8)}, "k parts: expected 1..3"),
    ],
)
def test_wrong_mixtures_are_named(coder, change, message):
    with pytest.raises(ValueError, match=message):
        encode(coder, case(3, 2) | change)


@pytest.mark.parametrize(
    "name, at, value", [("cdf", 0, 5), ("cdf", 9, 0), ("cdf", 8192, 1 << 25), ("inverse", 3, 0), ("share", 1, -1)]
)
def test_wrong_mixture_tables_are_refused(tables, name, at, value):
    t = {n: tables[f"m.{n}"].numpy().copy() for n in ("cdf", "inverse", "share", "radius")}
    t[name][at] = value
    with pytest.raises(ValueError, match=rf"{name}\[{at}"):
        _rans.MixtureTables(**t)
