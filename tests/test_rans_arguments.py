"""What the coder says to wrong arguments, and what it holds on to."""

import gc

import numpy as np
import pytest
from rans_cases import ARRAYS, TABLES, make_phase, make_z

from ckbd import _rans


def column(index, value, add=False):
    """A change of one column (of one element, if there is one dimension): set to value, or raised by it."""

    def change(a):
        a = a.copy()
        a[..., index] = a[..., index] + value if add else value
        return a

    return change


@pytest.mark.parametrize(
    "index, change, message",
    [
        (0, lambda a: a[:63], r"y_freq: expected .* \(64, any\), got shape \(63, 128\)"),
        (0, lambda a: a[:, :1].copy(), "y_freq: expected 3 columns"),
        (0, lambda a: a.astype(np.int32), "y_freq: expected a contiguous int16"),
        (0, lambda a: np.asfortranarray(a), "y_freq: .* gaps"),
        (0, column(0, 1, add=True), "entry 0: expected an even number"),
        (0, column(1, 0), r"y_freq\[0\] entry 1: expected 1..4095, got 0"),
        (0, column(0, -2), r"y_freq\[0\] entry 0: expected 1..4095, got -2"),
        (0, column(0, -2, add=True), r"y_freq\[0\]: .* add to 4096, got 4094"),
        (0, column(0, 2, add=True), r"y_freq\[0\]: .* add to 4096, got more"),
        (0, column(127, 1), r"y_freq\[0\] entry 127 \(after the escape\): expected 0..0"),
        (1, lambda a: a[:63], "y_max: expected"),
        (1, column(22, 7), r"y_max\[22\]: expected 1..6, got 7"),
        (1, column(63, 127), r"y_max\[63\]: expected 1..126, got 127"),
        (2, lambda a: a[:0], "z_freq: expected"),
        (2, lambda a: a.ravel(), "z_freq: expected"),
        (2, lambda a: np.zeros_like(a), r"z_freq\[0\] entry 0: expected 1..4095, got 0"),
        (3, lambda a: a[:3], r"z_low: expected .* \(4,\), got shape \(3,\)"),
        (3, column(1, -128), r"z_low\[1\]: expected -127..127, got -128"),
        (3, column(1, -126), r"z_low\[1\] \+ z_size - 1: expected -127..127, got 128"),
        (1, column(0, 0), r"y_max\[0\]: expected 1..6, got 0"),
        (4, lambda a: a * np.int16(0), r"z_size\[0\]: expected 1..255, got 0"),
        (4, lambda a: a + np.int16(1), r"z_freq\[0\] entry 2: expected 1..4095, got 0"),
        (4, column(1, 256), r"z_size\[1\]: expected 1..255, got 256"),
        (4, lambda a: a.tolist(), "z_size: expected .*, got list"),
    ],
)
def test_wrong_tables(index, change, message):
    arrays = list(ARRAYS)
    arrays[index] = change(arrays[index])
    with pytest.raises(ValueError, match=message):
        _rans.Tables(*arrays)


K, R, Z = np.full(8, 30, np.uint8), np.zeros(8, np.int16), np.zeros(4, np.int16)


@pytest.mark.parametrize(
    "z, phases, options, message",
    [
        (Z[:3], [(K, R)], {}, "z: expected a multiple of the 4 channels, got 3 elements"),
        (Z.astype(np.int8), [(K, R)], {}, "z: expected a contiguous int16 array .*, got items of format 'b'"),
        (Z.astype(">i2"), [(K, R)], {}, "z: expected a contiguous int16"),
        (Z.reshape(1, 4), [(K, R)], {}, r"z: expected .* \(any,\), got shape \(1, 4\)"),
        (np.zeros(8, np.int16)[::2], [(K, R)], {}, "z: .* gaps"),
        (np.zeros(9, np.uint8)[1:].view(np.int16), [(K, R)], {}, "z: expected a contiguous int16"),
        (memoryview(bytearray(9))[1:].cast("h"), [(K, R)], {}, "z: .* odd address"),
        (Z, [], {}, "phases: expected 1 to 255 of them, got 0"),
        (Z, [K], {}, r"phases\[0\]: expected \(k, r\)"),
        (Z, [(K, R), (K, R[:7])], {}, r"phases\[1\] r: expected .* \(8,\), got shape \(7,\)"),
        (Z, [(K + np.uint8(34), R)], {}, r"phases\[0\] k: expected table indices 0..63, got 64 at 0"),
        (Z, [(R, R)], {}, r"phases\[0\] k: expected a contiguous uint8"),
        (Z, [(K, None)], {}, r"phases\[0\] r: expected .*, got NoneType"),
        (Z, [(K, R)], {"lanes": 0}, "lanes: expected 1, 2, 4, 8, 16 or 32, got 0"),
        (Z, [(K, R)], {"lanes": 3}, "lanes: .* got 3"),
        (Z, [(K, R)], {"lanes": 64}, "lanes: .* got 64"),
        (Z, [(K, R)], {"lanes": -(2**40)}, "lanes: .* got -"),
        (Z, [(K, R)], {"skip_max": -1}, "skip_max: expected 0..15, got -1"),
        (Z, [(K, R)], {"skip_max": 16}, "skip_max: expected 0..15, got 16"),
    ],
)
def test_wrong_encode_arguments(z, phases, options, message):
    with pytest.raises(ValueError, match=message):
        _rans.encode(TABLES, z, phases, **options)


@pytest.mark.parametrize(
    "name, values",
    [("lanes_log2", (-1, 6)), ("skip_max", (-1, 16)), ("tail", (-1, 2**32)), ("phases", (0, 256))],
)
def test_wrong_decoder_arguments(name, values):
    right = {"lanes_log2": 0, "skip_max": 1, "tail": 0}
    for value in values:
        with pytest.raises(ValueError, match=f"{name}: expected .*, got {value}"):
            _rans.Decoder(TABLES, bytes(6), **{**right, name: value})
    with pytest.raises(ValueError, match="payload: expected a contiguous uint8"):
        _rans.Decoder(TABLES, "text", **right)


def test_wrong_decode_arguments():
    payload, lanes_log2, tail = _rans.encode(TABLES, Z, [(K, R)])
    decoder = _rans.Decoder(TABLES, payload, lanes_log2=lanes_log2, skip_max=1, tail=tail, phases=1)
    z, r, both = np.empty(4, np.int16), np.empty(8, np.int16), np.zeros(32, np.uint8)
    frozen = r.copy()
    frozen.setflags(write=False)
    with pytest.raises(RuntimeError, match="phase: expected z"):
        decoder.phase(K, r)
    with pytest.raises(ValueError, match="out: expected a multiple of the 4 channels"):
        decoder.z(np.empty(5, np.int16))
    decoder.z(z)
    for k, out, message in [
        (K, r[:7], r"out: expected .* \(8,\), got shape \(7,\)"),
        (K, r[::-1], "out: .* gaps"),
        (K, frozen, "out: expected a writable"),
        (K, np.empty(8, np.float32), "out: expected a contiguous int16"),
        (K, both[:16], "out: expected a contiguous int16"),
        (K.astype(np.int16), r, "k: expected a contiguous uint8"),
        (K + np.uint8(40), r, "k: expected table indices 0..63, got 70 at 0"),
        (both[8:16], both[:16].view(np.int16), "out: expected memory apart from that of k"),
    ]:
        with pytest.raises(ValueError, match=message):
            decoder.phase(k, out)
    with pytest.raises(RuntimeError, match="finish: expected z"):
        decoder.finish()
    with pytest.raises(RuntimeError, match="z: expected z"):
        decoder.z(z)
    decoder.phase(both[8:16] + np.uint8(30), both[16:].view(np.int16))  # a wrong argument before does no harm
    decoder.finish()
    with pytest.raises(RuntimeError):
        decoder.finish()


def test_decoder_keeps_what_it_needs():
    rng = np.random.default_rng(2)
    z, phases = make_z(rng, 4), [make_phase(rng, 300)]
    tables = _rans.Tables(*ARRAYS)
    payload, lanes_log2, tail = _rans.encode(tables, z, phases)
    held = bytearray(payload)
    decoder = _rans.Decoder(tables, held, lanes_log2=lanes_log2, skip_max=1, tail=tail, phases=1)
    with pytest.raises(BufferError):
        held.clear()
    del tables, payload, held
    gc.collect()
    out_z, out_r = np.empty_like(z), np.empty_like(phases[0][1])
    decoder.z(out_z)
    decoder.phase(memoryview(phases[0][0]), memoryview(out_r))
    decoder.finish()
    assert np.array_equal(out_z, z) and np.array_equal(out_r, phases[0][1])
