"""Every instruction set writes the bytes of the plain coder and reads them back: most is in rans_cases.check()."""

import ctypes
import faulthandler
import functools
import itertools
import mmap
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from children import in_child
from rans_cases import ARRAYS, DTYPES, ISAS, LANES, TABLES, check, decode, make_phase, make_z, plain_decode

from ckbd import _rans

every_isa = pytest.mark.parametrize("isa", ISAS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_lanes = pytest.mark.parametrize("lanes", LANES)
NO_Z = np.zeros(0, np.int16)
# Around a step of all lanes, a block of bits, and what the coders hold at a time.
SIZES = (0, 1, 31, 32, 33, 63, 64, 65, 511, 512, 513, 2047, 2048, 2049, 8191, 8192, 8193, 16384, 20001)


@functools.cache
def phase(n, low, high, dtype, seed=0):
    """make_phase(), made once; not to be written to."""
    return make_phase(np.random.default_rng((n, low, high, seed)), n, low, high, dtype)


@functools.cache
def filler(dtype):
    """A last phase that keeps all lanes busy, however short those before are."""
    return phase(150, 40, 63, dtype, 99)


def z_of(sites):
    return make_z(np.random.default_rng(sites), sites)


@every_dtype
@every_lanes
@every_isa
def test_sizes(isa, lanes, dtype):
    for number, n in enumerate(SIZES):
        skip_max = (5 * number + lanes) % 16
        phases = [phase(n, 0, 63, dtype, p) for p in range(1 + number % 3)]
        check(z_of(n // 50), phases, lanes, skip_max, isa=isa)
        coded = check(z_of(n % 50), [*phases, filler(dtype)], lanes, (skip_max + 7) % 16, isa=isa)
        assert 1 << coded[1] == lanes


@every_dtype
@every_lanes
@every_isa
def test_one_kind_of_group(isa, lanes, dtype):
    groups = [(0, 0), (1, 1), (0, 15), (16, 22), (22, 22), (22, 23), (23, 23), (23, 63), (63, 63)]
    for number, (low, high) in enumerate(groups):
        for n in (1, 32, 65, 513, 8193):
            one = phase(n, low, high, dtype)
            check(z_of(3), [one, one], lanes, (0, 1, 15)[number % 3], isa=isa)
            check(NO_Z, [one, filler(dtype)], lanes, (0, 1, 15)[(number + 1) % 3], isa=isa)


@every_dtype
@every_isa
def test_skip_max(isa, dtype):
    for skip_max in range(16):
        for lanes in (4, 32):
            phases = [phase(n, low, high, dtype) for n, low, high in ((700, 0, 20), (200, 10, 25), (300, 0, 63))]
            check(z_of(2), phases, lanes, skip_max, isa=isa)


@every_isa
def test_empty_phases(isa):
    some, none, skipped = phase(300, 0, 63, np.int16), phase(0, 0, 63, np.int16), phase(300, 0, 0, np.int16)
    for lanes in (1, 4, 32):
        for phases in ([none], [none, none], [none, some], [some, none], [some, none, some], [none, some, none]):
            for z in (z_of(0), z_of(1), z_of(40)):
                check(z, phases, lanes, 1, isa=isa)
        check(z_of(5), [skipped, some, skipped], lanes, 1, isa=isa)


@every_dtype
@every_isa
def test_with_few_and_with_all_escapes(isa, dtype):
    """Without any, so that nothing but words is rare; with nothing else; with one here and there."""
    rng = np.random.default_rng(4)
    for n in (100, 9000):
        k = rng.integers(0, 64, n).astype(np.uint8)
        none = (rng.integers(-1, 2, n) * (k > 1)).astype(dtype)
        every = np.where(rng.random(n) < 0.5, -128, 127).astype(dtype)
        rare = np.where(np.arange(n) % 1237 == 50, every, none)
        for r in (none, every, rare):
            for lanes in (2, 32):
                check(NO_Z, [(k, r), (k, r)], lanes, 1, isa=isa)


@every_isa
def test_tails(isa):
    """From narrow and from wide symbols on, and of all wide ones; close together and spread over many blocks."""
    rng, found = np.random.default_rng(6), set()
    for lanes in (2, 8, 32):
        for wide in (0, 1, 5, 20, 31, 40, 100):
            for spread in (1, 7, 300):
                coded = np.arange(spread - 1, 260 * spread, spread)
                wides = np.sort(rng.permutation(coded)[:wide])
                k = np.zeros(260 * spread, np.uint8)
                k[coded], k[wides] = 20, 45
                r = np.rint(rng.normal(size=len(k)) * 0.11 * 1.13 ** k.astype(float)).astype(np.int16)
                r[rng.integers(len(k), size=3)] = -300
                _, lanes_log2, _, tail = check(NO_Z, [(k, r)], lanes, 3, isa=isa)
                assert 1 << lanes_log2 == lanes
                found.add((lanes, tail > wide))
                if tail < wide:
                    k[wides[:-tail]] = 20
                    assert check(NO_Z, [(k, r)], lanes, 3, isa=isa)[3] == tail
    assert len(found) == 6


@pytest.mark.parametrize("skip_max", [0, 15])
@every_isa
def test_every_int16(isa, skip_max):
    """As exception, escape or symbol of the least and the widest table, and as z in every channel."""
    r = np.arange(-32768, 32768, dtype=np.int16)
    phases = [(np.full(len(r), k, np.uint8), r) for k in (0, 15, 16, 22, 63)]
    check(np.repeat(r, 4), phases, 32, skip_max, isa=isa)


@pytest.mark.parametrize("skip_max", [0, 15])
@every_isa
def test_every_int8(isa, skip_max):
    """By every table, and as 16-bit symbols no other bytes."""
    r = np.arange(-128, 128, dtype=np.int8)
    phases = [(np.full(len(r), k, np.uint8), r) for k in range(64)]
    coded = check(NO_Z, phases, 32, skip_max, isa=isa)
    assert coded == check(NO_Z, [(k, r.astype(np.int16)) for k, r in phases], 32, skip_max, isa=isa)
    _, rs = decode(*coded, 0, [k for k, _ in phases], dtype=np.int16, isa=isa)
    assert all(np.array_equal(out, r) for out in rs)


def random_rows(rng, rows, columns, total, most):
    """Rows of `columns` integers of at least 1 that add to total, of all shapes; most < columns are used."""
    out = np.zeros((len(most), columns), np.int16)
    for row, size in zip(out, most, strict=True):
        shape = rng.dirichlet(np.full(size, 10.0 ** rng.integers(-2, 2)))
        row[:size] = 1 + np.floor(shape * (total - size))
        row[rng.integers(size)] += total - row.sum()
    return out


def random_tables(rng, y_max, channels):
    """Arrays of tables: y's with these sizes, z's for so many channels, from 1 to 255 sizes each."""
    y_freq = random_rows(rng, 64, 128, 2048, np.array(y_max, int) + 2)
    y_freq[:, 0] *= 2
    z_size = rng.integers(1, 256, channels)
    z_size[rng.integers(channels)] = 255
    z_size[rng.integers(channels)] = 1
    z_low = rng.integers(-127, 129 - z_size)
    z_freq = random_rows(rng, channels, 256, 4096, z_size + 1)
    return y_freq, np.array(y_max, np.uint8), z_freq, z_low.astype(np.int16), z_size.astype(np.int16)


@functools.cache
def tables_by_sizes(name):
    rng = np.random.default_rng(len(name))
    border = [6] * 22 + [1, 126] + [1, 126] * 20
    least, most = [1] * 64, [6] * 23 + [126] * 41
    mixed = [*rng.integers(1, 7, 23), *rng.integers(1, 127, 41)]
    y_max = {
        "least": least,
        "most": most,
        "border": border,
        "least at 23": [6] * 23 + [1] + [126] * 40,
        "mixed": mixed,
    }
    arrays = random_tables(rng, y_max[name], 4)
    return arrays, _rans.Tables(*arrays)


@pytest.mark.parametrize("name", ["least", "most", "border", "least at 23", "mixed"])
@every_isa
def test_tables(isa, name):
    """All shapes of tables, all sizes from the least to the most, by symbols that are equally frequent."""
    rng, (arrays, tables) = np.random.default_rng(1), tables_by_sizes(name)
    for dtype in DTYPES:
        phases = []
        for low, high in ((0, 63), (1, 22), (22, 23), (23, 63)):
            k = rng.integers(low, high + 1, 3000).astype(np.uint8)
            reach = arrays[1][k].astype(int) + 1
            phases.append((k, rng.integers(-reach, reach + 1).clip(-128, 127).astype(dtype)))
        z = rng.integers(-130, 131, 4 * 200).astype(np.int16)
        for lanes in LANES:
            check(z, phases, lanes, 0, isa=isa, tables=tables)


@pytest.mark.parametrize("name", ["least", "border"])
def test_plain_decoder_agrees_on_tables(name):
    arrays, tables = tables_by_sizes(name)
    rng = np.random.default_rng(2)
    k = rng.integers(0, 64, 120).astype(np.uint8)
    r = rng.integers(-8, 9, 120).astype(np.int16)
    z = rng.integers(-130, 131, 40).astype(np.int16)
    for isa in ISAS:
        coded = _rans.encode(tables, z, [(k, r)], lanes=8, skip_max=2, isa=isa)
        assert plain_decode(*coded, len(z), [k.tolist()], arrays) == (z.tolist(), [r.tolist()])


@functools.cache
def tables_by_channels(channels):
    return _rans.Tables(*random_tables(np.random.default_rng(channels), ARRAYS[1], channels))


@pytest.mark.parametrize("channels", [1, 4, 31, 32, 33, 64, 100])
@every_isa
def test_channels(isa, channels):
    """z of all sizes, with escapes on both sides of every table."""
    rng, tables = np.random.default_rng(channels), tables_by_channels(channels)
    sites = range(70) if channels == 1 else (0, 1, 2, 3, 5, 8, 31, 33)
    k = np.full(150, 50, np.uint8)
    r = rng.integers(-50, 51, 150).astype(np.int16)
    for count in sites:
        z = rng.integers(-135, 136, channels * count).astype(np.int16)
        if len(z):
            z[rng.integers(0, len(z), 3)] = -32768, 32767, 200
        for lanes in LANES:
            assert 1 << check(z, [(k, r)], lanes, 0, isa=isa, tables=tables)[1] == lanes
        check(z, [(k[:0], r[:0])], isa=isa, tables=tables)


@functools.cache
def tables_of_every_frequency():
    """Channel c has frequencies c + 1 and 4094 - c, and 1 of the escape; a channel more has 4095 and 1."""
    f = np.arange(1, 4095)
    rows = np.stack([f, 4095 - f, np.ones_like(f)], axis=1).astype(np.int16)
    return _rans.Tables(
        *ARRAYS[:2],
        np.concatenate([rows, np.array([[4095, 1, 0]], np.int16)]),
        z_low=np.zeros(4095, np.int16),
        z_size=np.array([2] * 4094 + [1], np.int16),
    )


@every_isa
def test_every_frequency(isa):
    """States of all sizes by every divisor, in every lane."""
    tables, rng = tables_of_every_frequency(), np.random.default_rng(0)
    for lanes, sites in ((1, 5), (4, 10), (32, 40)):
        z = rng.integers(0, 2, (sites, 4095))
        z[:, -1] = rng.random(sites) < 0.1
        z = z.astype(np.int16).ravel()
        assert 1 << check(z, [filler(np.int16)], lanes, 0, isa=isa, tables=tables)[1] == lanes


@every_isa
def test_state_at_the_edge_of_z(isa):
    """2^16 takes a symbol of f = 1 to 2^28, where one of f = 256 just must put out a word: 2^28 = 2^20 f."""
    none = np.zeros(0, np.uint8), NO_Z
    tables = _rans.Tables(
        *ARRAYS[:2],
        np.array([[256, 3840], [1, 4095]], np.int16),
        z_low=np.zeros(2, np.int16),
        z_size=np.ones(2, np.int16),
    )
    assert check(np.zeros(2, np.int16), [none, none], skip_max=1, isa=isa, tables=tables) == (bytes(8), 0, 1, 0)


@pytest.mark.parametrize("low", [1, 23])  # narrow tables, wide tables
@every_isa
def test_state_at_the_edge_of_y(isa, low):
    """The same: f_0 = 2^a takes 2^16 to 2^(28 - a), which f_1 = 2^(8 - a) cannot take without a word."""
    y_freq, y_max = ARRAYS[0].copy(), ARRAYS[1].copy()
    for a in range(1, 9):
        for k, row in (
            (low + a, [2**a, 2047 - 2 ** (a - 1), 1]),
            (low + 10 + a, [2, 2 ** (8 - a), 2047 - 2 ** (8 - a)]),
        ):
            y_freq[k], y_max[k] = 0, 1
            y_freq[k, :3] = row
    tables = _rans.Tables(y_freq, y_max, *ARRAYS[2:])
    for a in range(1, 9):
        k = np.array([low + 10 + a, low + a], np.uint8)
        payload, *rest = check(NO_Z, [(k, np.array([1, 0], np.int16))], 1, 0, isa=isa, tables=tables)
        assert payload[-2:] == bytes(2) and len(payload) == 7 and rest == [0, 0, 0]


@every_isa
def test_many_phases(isa):
    phases = [phase(n, 0, 63, np.int8) for n in range(1, 256)]
    check(z_of(1), phases, 32, 2, isa=isa)
    check(z_of(1), phases[::-1], 8, 2, isa=isa)


def fenced(content, at_end):
    """A copy of an array that ends (or begins) where memory does, so that an access beyond ends the process."""
    libc, page = ctypes.CDLL(None), mmap.PAGESIZE
    size = -(-max(content.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (address, address + page + size):
        assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0) == 0
    offset = page + (size - content.nbytes if at_end else 0)
    copy = np.frombuffer(memory, content.dtype, len(content), offset)
    copy[:] = content
    return copy


fences = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and mprotect")


@fences
@pytest.mark.parametrize("at_end", [True, False])
@every_dtype
@every_isa
def test_reads_and_writes_nothing_beyond_its_arrays(isa, dtype, at_end):
    def round_trip(n, lanes):
        z = z_of(n // 30 + 1)
        phases = [(fenced(k, at_end), fenced(r, at_end)) for k, r in (phase(n, 0, 63, dtype, p) for p in range(2))]
        payload, *rest = _rans.encode(TABLES, fenced(z, at_end), phases, lanes=lanes, skip_max=1, isa=isa)
        payload = fenced(np.frombuffer(payload, np.uint8), at_end)

        def image(size):
            outs = [(k, fenced(np.zeros_like(r), at_end)) for k, r in phases]
            return fenced(payload[:size], at_end), *rest, fenced(np.zeros_like(z), at_end), outs

        images = [image(size) for size in (len(payload), len(payload), len(payload) // 2, len(payload) - 2)]
        for pair in ([images[0]], images[:2], images[::2], images[1::2]):
            errors = _rans.decode_batch(TABLES, pair, threads=1, isa=isa)
            assert [error is None for error in errors] == [len(one[0]) == len(payload) for one in pair]
        for *_, z_out, outs in images[:2]:
            assert np.array_equal(z_out, z)
            assert all(np.array_equal(a[1], b[1]) for a, b in zip(phases, outs, strict=True))

    def work():
        for n in (1, 31, 33, 64, 100, 513, 8192, 8200, 20000):
            for lanes in (1, 8, 32):
                round_trip(n, lanes)

    in_child(work)


@fences
@pytest.mark.parametrize("at_end, where", [(True, 10), (False, -1)])
def test_a_fence_stops(at_end, where):
    def beyond():
        faulthandler.disable()
        ctypes.memset(fenced(np.zeros(5, np.int16), at_end).ctypes.data + where, 0, 1)

    with pytest.raises(AssertionError, match="ended with -"):
        in_child(beyond)


def test_objects_keep_to_themselves():
    """Of a function in several objects the linker keeps one copy, which would then run where its instruction set is
    missing; and what an object does when it is loaded, it does on every machine."""
    folder = Path(__file__).parents[2] / "build" / f"csrc-{sysconfig.get_platform()}"
    ninja = folder / f"{sysconfig.get_config_var('SOABI')}.ninja"
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    if not ninja.exists():
        pytest.skip(f"there is no {ninja}: the extension was built elsewhere")
    lines = ninja.read_text().splitlines()
    # "build NAME.o: compile ..." and in the next line "  more = FLAGS".
    objects = [a.split()[1][:-1] for a, b in itertools.pairwise(lines) if " compile " in a and "-mavx" in b]
    if not objects:
        pytest.skip("no file has an instruction set of its own on this machine")
    assert len(ISAS) == 1 or {Path(name).name.split(".")[0] for name in objects} >= {"avx2", "avx512"}
    for name in objects:
        listed = subprocess.run(["nm", "-C", folder / name], capture_output=True, text=True, check=True).stdout
        symbols = [line[17:].split(" ", 1) for line in listed.splitlines()]
        weak = [symbol for kind, symbol in symbols if kind in "WVu"]
        assert [symbol for symbol in weak if not symbol.startswith("DW.ref.")] == []  # those hold an address, no code
        assert [symbol for _, symbol in symbols if symbol.startswith("_GLOBAL__sub_I")] == []
        folder_of, _, file = name.rpartition("/")
        own = f"ckbd::{re.split('[_.]', file)[0] if folder_of == 'rans' else folder_of}::"
        seen = [symbol for kind, symbol in symbols if kind in "TDBRG"]
        assert seen and all(symbol.startswith(own) for symbol in seen)
