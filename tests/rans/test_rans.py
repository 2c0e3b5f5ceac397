"""The coder's bytes against docs/format.md: golden ones, a plain decoder; what the encoder chooses; CRC32C."""

import platform
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from rans_cases import ARRAYS, DTYPES, ISAS, TABLES, check, make_phase, make_z, plain_decode

from ckbd import _rans
from ckbd.model import entropy

NONE = np.zeros(0, np.uint8), np.zeros(0, np.int16)
GOLDEN_K = np.array([(7 * i * i + 5 * i) % 64 for i in range(90)], np.uint8)
GOLDEN_R = np.array([(i**3 + 3 * i) % 7 - 3 if i % 11 else 8 * (i % 13) - 40 for i in range(90)], np.int16)
GOLDEN_Z = np.array([0, -5, 1, 2, 0, 9, -2, -4, 3, 140, 1, 5], np.int16)
GOLDEN = {  # (lanes, skip_max): (payload, log2 of the lanes, tail)
    (1, 0): (
        "66de2c0101007e080200060a010418002c010a010013c5ee1eb6b59f4c6ffaaffe7fa2d033c5c192226271b3dd53fb30"
        "5f481343a69d85d9b33effffe9b7aeff99cab30e479cfced862ca5ed9f857e607034d0606b52",
        0,
        0,
    ),
    (4, 1): (
        "2b123ba9d37bd795bdab7bcd9e620501007e080200060a010418002c010a01001388afff5ffacf473f263fb6fbd3b3d4"
        "a0594a2333a4302fb3b08afc23d34ff38fffdffb8f4526ed8fb5aeedbe0db33bbe640d1fd6fe2f",
        2,
        10,
    ),
    (8, 9): (
        "dc1e1480a7f7d6f9451f4cfccef6e06e77354feb886fb1ddcec43635ff3fb60104007e885a3e080700b6a116b6050501"
        "04180a13ffcf416ff7c28db248a35332a9d3da4a624a4013c74ea2788d9f0b2fe20d",
        3,
        20,
    ),
    (32, 15): (
        "c7247f7bbdffff449abc83b3d8d6c541641305427cdf3e1be21998fcc20906007e08865a3e080c00b66da8f58185a5b6"
        "050401041813f9b242e37eedf16795c33b1389681eab6c5a8173c305f5d2d2cd",
        3,
        20,
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("lanes, skip_max", GOLDEN)
def test_golden_bytes(lanes, skip_max, isa, dtype):
    r = GOLDEN_R.astype(dtype)
    phases = [(GOLDEN_K[:40], r[:40]), (GOLDEN_K[40:], r[40:])]
    payload, lanes_log2, skip_max_out, tail = check(GOLDEN_Z, phases, lanes, skip_max, isa=isa)
    assert (payload.hex(), lanes_log2, tail) == GOLDEN[lanes, skip_max] and skip_max_out == skip_max


@pytest.mark.parametrize("lanes, skip_max, n", [(1, 0, 31), (2, 1, 50), (8, 3, 77), (32, 0, 150), (32, 15, 60)])
def test_plain_decoder_agrees(lanes, skip_max, n):
    rng = np.random.default_rng(n)
    z, phases = make_z(rng, 7), [make_phase(rng, n), make_phase(rng, n + 1)]
    coded = _rans.encode(TABLES, z, phases, lanes=lanes, skip_max=skip_max)
    z_out, rs = plain_decode(*coded, len(z), [k.tolist() for k, _ in phases])
    assert z_out == z.tolist() and rs == [r.tolist() for _, r in phases]


@pytest.mark.parametrize("distance", [1, 2, 3, 100, 70000])
def test_exceptions_apart(distance):
    """Whole phases of skipped elements, and ones with others between."""
    r = np.zeros(9 * distance, np.int16)
    r[distance - 1 :: distance] = [1, -1, 2, -3, 1023, -1023, 32767, -32768, 4]
    k = np.resize(np.array([0, 40, 15, 1, 30], np.uint8), len(r))
    check(np.zeros(0, np.int16), [(k % 16, r), (k, np.where(k < 16, r, 0).astype(np.int16))], 32, 15)


def test_lanes_fall_to_what_the_last_phase_fills():
    rng = np.random.default_rng(0)
    z, busy = make_z(rng, 50), make_phase(rng, 500, 20, 63)
    found = []
    for n in (0, 1, 2, 5, 10, 25, 100):
        _, lanes_log2, _, tail = check(z, [busy, make_phase(rng, n, 40, 40)], 32, 1)
        assert (1 << lanes_log2) - 1 <= tail <= n
        found.append(lanes_log2)
    assert found[0] == 0 and found[-1] == 5 and found == sorted(found)
    assert check(z, [busy, NONE], 32, 1)[1:] == (0, 1, 0)
    assert check(z, [NONE, busy], 4, 1)[1] == 2


def test_nothing_costs_six_bytes():
    none = np.zeros(1000, np.uint8), np.zeros(1000, np.int16)
    assert check(np.zeros(0, np.int16), [none, none], 32, 1) == (bytes(6), 0, 1, 0)


@pytest.mark.parametrize("lanes", [1, 32])
def test_size_is_near_the_ideal(lanes):
    rng = np.random.default_rng(5)
    phases = []
    for _ in range(2):
        k = rng.integers(1, 64, 20000).astype(np.uint8)
        widths = ARRAYS[0].astype(int) * np.where(np.arange(128) > 0, 2, 1)
        ends = np.cumsum(widths, axis=1)[k]
        m = (ends <= rng.integers(0, 4096, len(k))[:, None]).sum(axis=1)
        m = np.where(m > ARRAYS[1][k], 0, m)  # an escape's value would cost bits that ideal_bits leaves out
        phases.append((k, (m * rng.choice([-1, 1], len(k))).astype(np.int16)))
    payload, _, _, _ = check(np.zeros(0, np.int16), phases, lanes, 0)
    ideal = 0.0
    for k, r in phases:
        ideal += np.sum(12 - np.log2(ARRAYS[0].astype(float)[k, np.abs(r.astype(int))]))
    for dtype in DTYPES:
        assert _rans.ideal_bits(TABLES, [(k, r.astype(dtype)) for k, r in phases]) == pytest.approx(ideal, rel=1e-12)
    assert 0 < 8 * len(payload) - ideal < 0.0005 * ideal + 8 * (6 + 1.5 * lanes)


GAUSSIAN = entropy.gaussian_tables()
GAUSSIAN_TABLES = _rans.Tables(GAUSSIAN["table.y.freq"], GAUSSIAN["table.y.max"], *ARRAYS[2:])


def gaussian_phases(rng, n, zero, slope, off):
    """Two phases: this share has k = 0, others fall off by e with every `slope` of k. r is a rounded Gaussian of the
    scale of k + off, so that the tables are right if off = 0, and too narrow above."""
    phases = []
    for _ in range(2):
        k = np.where(rng.random(n) < zero, 0, np.minimum(rng.exponential(slope, n), 63)).astype(np.uint8)
        r = np.rint(rng.normal(size=n) * 0.11 * (256 / 0.11) ** ((k + float(off)) / 63)).astype(np.int16)
        phases.append((k, r))
    return phases


@pytest.mark.parametrize("off", [0, 4, 8])
@pytest.mark.parametrize("n", [1000, 30000, 150000])
@pytest.mark.parametrize("zero, slope", [(0.86, 6), (0.65, 6), (0.42, 14), (0, 40)])
def test_chosen_skip_max_is_near_the_best(zero, slope, n, off):
    phases = gaussian_phases(np.random.default_rng(n), n, zero, slope, off)

    def encode(skip_max):
        return _rans.encode(GAUSSIAN_TABLES, np.zeros(0, np.int16), phases, lanes=32, skip_max=skip_max)

    payload, lanes_log2, chosen, tail = encode(None)
    assert 0 <= chosen <= 4 and encode(chosen) == (payload, lanes_log2, chosen, tail)
    best = min(len(encode(skip_max)[0]) for skip_max in range(5))
    assert len(payload) <= 1.002 * best + 8


@pytest.mark.parametrize("last", range(5))
def test_skip_max_is_chosen(last):
    """Tables by which 0 and 1 are about as frequent, where all r up to k = last are 0, and no others."""
    flat = ARRAYS[0].copy()
    flat[:6], flat[:6, :3] = 0, (1366, 1364, 1)
    tables = _rans.Tables(flat, np.array([1] * 6 + ARRAYS[1][6:].tolist(), np.uint8), *ARRAYS[2:])
    k = np.resize(np.arange(6, dtype=np.uint8), 6000)
    phases = [(k, np.where(k <= last, 0, np.resize(np.array([0, 1, -1, 1, -1], np.int16), 6000)).astype(np.int16))]
    assert check(np.zeros(0, np.int16), phases, tables=tables)[2] == last


@pytest.mark.parametrize("isa", ISAS)
def test_chosen_lanes(isa):
    """16 below 4096 bytes of payload, 32 from there on, fewer if the last phase is too short for that."""
    k, r = make_phase(np.random.default_rng(3), 20000, 30, 40)

    def coded(n, lanes):
        return check(np.zeros(0, np.int16), [(k[:n], r[:n])], lanes, 1, isa=isa)

    def border(lanes):
        """The first n whose payload with so many lanes has 4096 bytes."""
        first, last = 0, len(k)
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (first, middle) if len(coded(middle, lanes)[0]) >= 4096 else (middle, last)
        return last

    below, above = border(32), border(16)
    assert 0 < below < above < len(k)
    for n in (0, 1, 20, 500, below // 2, below - 1):
        assert coded(n, None) == coded(n, 16)
    for n in range(below, above):  # where either would do
        assert coded(n, None) in (coded(n, 16), coded(n, 32))
    for n in (above, above + 500, len(k)):
        assert coded(n, None) == coded(n, 32)
    assert [coded(n, None)[1] for n in (0, below - 1, above)] == [0, 4, 5]


def test_min_z_bits():
    assert TABLES.channels == 4
    assert TABLES.min_z_bits == pytest.approx(np.sum(12 - np.log2(ARRAYS[2].max(axis=1).astype(float))))
    cheapest = (ARRAYS[3] + ARRAYS[2].argmax(axis=1)).astype(np.int16)
    for sites in (1, 10, 1000):
        payload, _, _, _ = check(np.tile(cheapest, sites), [NONE], 1, 0)
        assert 8 * len(payload) >= 7 / 8 * sites * TABLES.min_z_bits


def test_threads_share_tables():
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(20):
                check(make_z(rng, 20), [make_phase(rng, 3000), make_phase(rng, 3000)], 32, 1)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(
    "data, crc",
    [
        (b"", 0),
        (b"a", 0xC1D04330),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_vectors(data, crc):
    assert _rans.crc32c(data) == crc
    for cut in range(len(data) + 1):
        assert _rans.crc32c(memoryview(data)[cut:], _rans.crc32c(data[:cut])) == crc


def test_crc32c_of_every_length():
    """Bit by bit, from odd places."""
    data = np.random.default_rng(0).integers(0, 256, 300).astype(np.uint8)
    crc = 0xFFFFFFFF
    for size in range(260):
        for begin in (0, 1, 7):
            assert _rans.crc32c(data[begin : begin + size], _rans.crc32c(data[:begin])) == _rans.crc32c(
                data[: begin + size]
            )
        assert _rans.crc32c(data[:size]) == crc ^ 0xFFFFFFFF
        crc ^= int(data[size])
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)


def test_crc32c_finds_every_flip():
    data = np.arange(60, dtype=np.uint8)
    crcs = {_rans.crc32c(data)}
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        crcs.add(_rans.crc32c(data))
        data[bit // 8] ^= 1 << bit % 8
    assert len(crcs) == 8 * len(data) + 1


def test_isas():
    assert ISAS[:2] == ("plain", "scalar") and len(set(ISAS)) == len(ISAS)
    assert list(ISAS) == [name for name in ("plain", "scalar", "avx2", "avx512") if name in ISAS]
    assert _rans.isa() == ISAS[-1]


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="reads /proc/cpuinfo of x86")
def test_isas_are_those_of_the_machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    has_avx2 = flags >= {"avx2", "bmi1", "sse4_2", "popcnt"}
    has_avx512 = has_avx2 and flags >= {"bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vbmi2"}
    assert ("avx2" in ISAS, "avx512" in ISAS) == (has_avx2, has_avx512)
