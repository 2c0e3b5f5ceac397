"""Arguments that another thread writes to during the call: numbers may be wrong then, memory is not."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from ans_cases import gaussian_arrays
from children import forks, in_child
from rans_cases import ARRAYS, ISAS, TABLES, make_phase, make_z, room, rooms

from ckbd import _ans, _passes, _rans

SECONDS = 0.15
REFUSED = (ValueError, RuntimeError)  # StreamError is a ValueError


@contextmanager
def rewriting(*pairs):
    """Meanwhile a thread fills each array, time and again, with what no call takes, and with what it was.

    Large copies run without Python's lock, so they go on within calls that keep it: of each array it is the last part
    of one, where the copy is nearly all the time.
    """
    held = [(array, array.copy(), np.full_like(array, value)) for array, value in pairs]
    over = threading.Event()

    def write():
        while not over.is_set():
            for array, good, bad in held:
                np.copyto(array, bad)
                np.copyto(array, good)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def calls(work):
    """work() for a while, whatever it refuses."""
    end, done = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        try:
            work()
            done += 1
        except REFUSED:
            pass
    return done


def content(n, dtype):
    rng = np.random.default_rng(1)
    return make_z(rng, n // 64), [make_phase(rng, n, dtype=dtype) for _ in range(2)]


@forks
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("isa", ISAS)
def test_encoding(isa, dtype):
    z, phases = content(1 << 15, dtype)
    arrays = [(z, -32768)] + [pair for k, r in phases for pair in ((k, 255), (r, 0))]

    def work():
        with rewriting(*arrays):
            calls(lambda: _rans.encode_batch(TABLES, [(z, phases)] * 2, threads=2, isa=isa))
            calls(lambda: _rans.encode(TABLES, z, phases, lanes=4, isa=isa))
            calls(lambda: _rans.ideal_bits(TABLES, phases))

    in_child(work)


@forks
@pytest.mark.parametrize("isa", ISAS)
def test_a_last_phase_that_is_begun_again(isa):
    """Too few of it are coded for the words of 32 lanes, so it is looked at again, when all of it may be."""
    k, r = np.zeros(1 << 14, np.uint8), np.full(1 << 14, 3, np.int8)
    k[-9:] = 9
    r[:-9] = 0

    def work():
        with rewriting((k, 63)):
            calls(lambda: _rans.encode(TABLES, np.empty(0, np.int16), [(k, r)], skip_max=4, isa=isa))

    in_child(work)


@forks
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("isa", ISAS)
def test_decoding(isa, dtype):
    z, phases = content(1 << 15, dtype)
    payload, lanes_log2, skip_max, tail = _rans.encode(TABLES, z, phases)
    stream, ks = np.frombuffer(payload, np.uint8).copy(), [k for k, _ in phases]
    how = {"lanes_log2": lanes_log2, "skip_max": skip_max, "tail": tail, "isa": isa}

    def at_once():
        _rans.decode(TABLES, stream, *rooms(len(z), ks, dtype), **how)

    def in_steps():
        decoders = [_rans.Decoder(TABLES, stream, **how) for _ in range(2)]
        _rans.z_batch(decoders, [room(len(z), np.int16) for _ in decoders])
        for k in ks:
            _rans.phase_batch(decoders, [k, k], [room(len(k), dtype) for _ in decoders], threads=2)

    def work():
        for also in [(), [(stream, 255)]]:
            with rewriting(*((k, 255) for k in ks), *also):
                calls(at_once)
                calls(in_steps)

    in_child(work)


@forks
def test_coder_of_compressai():
    cdfs, sizes, offsets = gaussian_arrays()
    tables = _ans.Tables(cdfs, sizes, offsets)
    indexes = np.random.default_rng(0).integers(0, len(cdfs), 1 << 16).astype(np.int32)
    symbols, out = np.zeros_like(indexes), np.empty_like(indexes)
    stream = _ans.encode(tables, symbols, indexes)

    def work():
        with rewriting((indexes, 1 << 30), (symbols, -(1 << 20))):
            calls(lambda: _ans.encode(tables, symbols, indexes))
            calls(lambda: _ans.decode(tables, stream, indexes, out))
        with rewriting((sizes, 1 << 30), (cdfs, -7)):
            calls(lambda: _ans.Tables(cdfs, sizes, offsets))

    in_child(work)


@forks
def test_passes_read_what_they_have_checked():
    """A tap that leads out of the map."""
    x, outside = np.ones((64, 64, 32), np.uint8), np.zeros(32, np.uint8)
    taps = np.array([[0, 0, 0], [1, 1, 1], [-1, 0, 0]] * 3, np.int32)
    out = np.empty((64 * 64, 9 * 32), np.uint8)

    def work():
        with rewriting((taps, 1 << 30)):
            assert calls(lambda: _passes.gather(x, 64, taps, outside, (0, 64), out)) > 0

    in_child(work)


def large(array, size=1 << 24):
    """array, at the end of a larger one."""
    base = np.zeros(size + array.nbytes, np.uint8)
    base[size:] = array.reshape(-1).view(np.uint8)
    return base, base[size:].view(array.dtype).reshape(array.shape)


@forks
def test_calls_that_keep_the_lock():
    rng = np.random.default_rng(0)
    base, k = large(rng.integers(0, 64, (1 << 16, 3)).astype(np.uint8))
    other, track = large(rng.integers(0, 4, 1 << 16).astype(np.uint16))
    y, z = np.zeros(k.shape, np.int16), np.zeros(4 * 3, np.int16)
    mixtures = _rans.MixtureTables(
        np.linspace(1 << 23, 1 << 24, 8193).astype(np.int32), *(np.full(64, 9, t) for t in ("i4", "i4", "i2"))
    )
    payload, _ = _rans.encode_tracks(TABLES, mixtures, 4, z, track, k, y)

    def decode():
        decoder = _rans.TrackDecoder(TABLES, mixtures, payload, 4)
        decoder.z(z)
        decoder.step(track, k, y)

    def work():
        for one in (base, other):
            with rewriting((one, 255)):
                calls(decode)
                calls(lambda: _rans.encode_tracks(TABLES, mixtures, 4, z, track, k, y))
        frequencies, arrays = large(ARRAYS[0])
        with rewriting((frequencies, 255)):
            calls(lambda: _rans.Tables(arrays, *ARRAYS[1:]))

    in_child(work)
