"""Batch says what the Python chain says of every stream, word for word, and reads what Decoder reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from open_cases import (
    MODEL,
    MOST,
    NAMES,
    OTHER,
    STREAMS,
    M,
    batch,
    check_decoding,
    check_opening,
    flip,
    flips,
    head,
    opened,
    own,
    ready,
    sections,
    true_indices,
    varints,
    whole,
    with_crc,
)
from rans_cases import ISAS, make_phase, make_z

from ckbd.codec import container
from ckbd.codec.container import Header, Stream, pack, varint
from ckbd.kernels import numerics

every_threads = pytest.mark.parametrize("threads", [1, 2, 5])


def test_golden_streams():
    others = {name: "version" if name.startswith("variant") else "model" for name in STREAMS if name not in NAMES}
    assert check_opening(list(STREAMS.values())) == [others.get(name) for name in STREAMS]
    for limit in (0, 1, 64 * 64, MOST):
        check_opening(list(STREAMS.values()), limit)


@pytest.mark.parametrize("name", STREAMS)
def test_every_truncation_and_every_bit_flip(name):
    data, rng = STREAMS[name], np.random.default_rng(0)
    edge, n = 200, len(data)
    some = range(n) if n < 1500 else sorted({*range(edge), *range(n - edge, n), *rng.integers(0, n, 200).tolist()})
    assert None not in check_opening([data[:cut] for cut in some])
    assert None not in check_opening(flips(data, [8 * byte + bit for byte in some for bit in range(8)]))


@pytest.mark.parametrize("name", ["one_pixel", "gray"])
def test_every_bit_flip_under_a_right_checksum(name):
    """What a writer of bad streams can do: each rule behind the checksums is reached, and each fault of the coder."""
    data, s = STREAMS[name], container.parse(STREAMS[name])
    head, body = data[: s.payload_offset - 4], data[s.payload_offset :]
    found = set(check_opening([with_crc(one) + body for one in flips(head, range(8 * len(head)))]))
    assert found >= {"magic", "version", "model", "flags", "quality", "coder", "payload", None}
    head, ks = with_crc(head), true_indices(name)
    damaged = [head + with_crc(one) for one in flips(s.payload, range(8 * len(s.payload)))]
    found = check_decoding(damaged, [ks] * len(damaged))
    assert {"exceptions", "escapes", "words", "tail", "end state"} <= set(found)
    cut = [pack(replace(s, payload=s.payload[:n])) for n in range(len(s.payload))]
    assert {"payload", "lane states", "exceptions", "escapes"} <= set(check_opening(cut))


TWICE = [(1, b"x"), (1, b"x")]
NOT_SHORTEST = with_crc(b"\xc8\x81\0x")


@pytest.mark.parametrize(
    "field, streams",
    [
        ("magic", [b"", b"\xcb", b"\xcbk", b"\x89PNG\r\n\x1a\n" * 9, whole(magic=b"\0\0\0"), whole(magic=b"\xcbkB")]),
        ("version", [b"\xcbkb", *(whole(version=v) for v in (0, 2, 3, 255))]),
        ("model", [b"\xcbkb\x01abcde", whole(model=b"modelx"), whole(model=b"\0\1\2\xff\xfe\xfd")]),
        ("flags", [b"\xcbkb\x01abcdef", *(whole(flags=f) for f in (4, 8, 0x80, 0xFC))]),
        ("flags", [whole(flags=f, more=b"\0") for f in (6, 255)]),
        ("quality", [b"\xcbkb\x01abcdef\0", *(whole(quality=q) for q in (0, 1, 201, 255))]),
        ("coder", [b"\xcbkb\x01abcdef\0d", *(whole(coder=c) for c in (6, 7, 0x0E, 0x80, 0x8D, 0xFF))]),
        ("width", [whole(sizes=(0, 64, 0, 4)), whole(sizes=(0, 0, 0, 4)), *varints(0)]),
        ("height", [whole(sizes=(64, 0, 0, 4)), whole(sizes=(65535, 65535, 0, 4)), *varints(1)]),
        ("height", [whole(sizes=(1 << 27, 2, 0, 4)), whole(sizes=((1 << 32) - 1, (1 << 32) - 1, 0, 4))]),
        ("tail", [whole(sizes=(64, 64, 3, 4)), whole(coder=0x0D), *varints(2)]),
        ("payload_length", list(varints(3))),
        ("section_count", [whole(flags=2, more=varint(n)) for n in (0, 257, (1 << 32) - 1)]),
        ("section_count", [whole(flags=2, more=b"\x81\0"), head(flags=2)[:17]]),
        ("header_crc", [head()[:-1] + b"\xff", head()[:-4], head()[:-1], whole(flags=3)]),
        ("payload", [whole(sizes=(64, 64, 0, n)) for n in (9, 1 << 31, (1 << 32) - 1)]),
        (
            "payload",
            [whole(b"", sizes=(64, 64, 0, 0)), whole(sizes=(9999, 9999, 0, 4)), whole(sizes=(300, 300, 0, 4))],
        ),
        ("payload_crc", [whole()[:-1], whole()[:-4], whole()[:-1] + b"\xff", whole(sizes=(64, 64, 0, 2))]),
        ("section type", [sections((kind, b"")) for kind in (0, 3, 127)]),
        ("section type", [sections(*TWICE), sections((200, b""), (1, b"ab"), (200, b"")), sections(count=1)]),
        ("icc length", [sections((1, b"ab"))[:-7], sections(count=1) + b"\1\x80\0", sections(count=1) + b"\1\xff"]),
        ("icc", [sections((1, b"abc"))[:-5], sections((1, b"a" * 200))[:-5]]),
        ("alpha", [sections((1, b"abc"), (2, b"defg"))[:-5]]),
        ("icc crc", [sections((1, b"abc"))[:-1], sections((1, b"abc"))[:-4], sections((1, b"abc"))[:-1] + b"\0"]),
        ("section 200 crc", [sections((200, b"abc"))[:-1]]),
        ("section 200 length", [sections(count=1) + NOT_SHORTEST]),
        ("end", [whole() + b"\0", sections((1, b"abc")) + b"12345", whole(flags=1) + bytes(1000)]),
        ("lane states", [whole(bytes(20), coder=5, sizes=(64, 64, 1, 20))]),
        ("exceptions", [whole(bytes(3), sizes=(64, 64, 0, 3)), whole(b"\0\0\0\1\x19", sizes=(64, 64, 0, 5))]),
        ("escapes", [whole(bytes(3) + b"\0\0\7", sizes=(64, 64, 0, 6))]),
        ("words", [whole(bytes(3) + bytes(4), sizes=(64, 64, 0, 7))]),
    ],
)
def test_broken_rules(field, streams):
    assert check_opening(streams) == [field] * len(streams)
    check_opening(streams, MOST)


def test_sections():
    """Of all kinds, as many as there may be."""
    kinds = [1, 2, *range(128, 256)]
    data = STREAMS["gray"]
    s = container.parse(data)
    packed = pack(replace(s, sections={kind: bytes([kind]) * kind for kind in kinds}))
    assert check_opening([packed, packed + b"\0", packed[:-1], STREAMS["alpha_icc"]]) == [
        None,
        "end",
        "section 255 crc",
        None,
    ]
    assert opened(batch([packed]), 1)[0, 7] == len(kinds)


def test_random_payloads():
    rng = np.random.default_rng(0)
    streams = []
    for n in range(600):
        payload = rng.integers(0, 256, rng.integers(20, 200)).astype(np.uint8)
        payload[rng.random(len(payload)) < n % 7 / 6] = 0
        lanes = n % 3
        streams.append(pack(Stream(Header(MODEL, 100, 60, 64, lanes_log2=lanes, tail=lanes), payload.tobytes())))
    k = rng.integers(0, 64, 8 * M).astype(np.uint8)
    assert len(set(check_decoding(streams, [[k, k]] * len(streams)))) >= 4


@every_threads
@pytest.mark.parametrize("isa", ISAS)
def test_mixed_batch(isa, threads):
    """Golden streams with damaged ones between, of all sizes."""
    streams, ks = [], []
    for name in NAMES * 20:
        data, s = STREAMS[name], container.parse(STREAMS[name])
        bad = [
            data[:-1],
            pack(replace(s, payload=flip(s.payload, 8 * len(s.payload) - 1))),
            pack(replace(s, payload=flip(s.payload, 3 + 41 * (len(streams) % 20)))),
            STREAMS["variant_raster"],
        ]
        for one in (data, bad[len(streams) // 2 % len(bad)]):
            streams.append(one)
            ks.append(true_indices(name))
    found = check_decoding(streams, ks, isa=isa, threads=threads)
    assert found[::2] == [None] * len(found[::2])
    assert {"words", "version", "payload_crc", "tail", "escapes", "exceptions"} <= set(found[1::2])


@every_threads
def test_large_streams(threads):
    """Enough of z and of each phase to be worth waking threads for."""
    rng, streams, ks = np.random.default_rng(3), [], []
    for n in (2500, 1, 3, 4000, 5200, 64, 4800, 3001):
        z = np.clip(make_z(rng, n), -127, 127)
        phases = [make_phase(rng, 24 * n) for _ in range(2)]
        phases = [(k, np.clip(r, -1023, 1023)) for k, r in phases]
        streams += [own(phases, z, 64 * n, 64), own(phases, z, 1, 64 * n - 63)[:-1]]
        ks += [[k for k, _ in phases]] * 2
    assert check_decoding(streams, ks, threads=threads, **OTHER) == [None, "payload_crc"] * 8


@pytest.mark.parametrize("k", [0, 1, 5, 22, 23, 63])
@pytest.mark.parametrize("threads", [1, 2])
def test_wide_residuals(k, threads):
    n, z = 48, np.zeros(8, np.int16)
    k = np.full(n, k, np.uint8)
    far = np.zeros((2, n), np.int16)
    far[0, :9], far[1, [1, -1]] = (300, -1000, 127, -128, 128, -129, 1023, -1023, -127), (1023, 255)
    streams, limits = [], [0, 1023, 1024, -1023, -1024, -32768, 32767]
    for p, last in ((p, last) for p in range(2) for last in limits):
        r = far.copy()
        r[p, 20] = last
        streams.append(own([(k, r[0]), (k, r[1])], z, 128, 64))
    expected = [None if abs(last) <= 1023 else "payload" for last in limits] * 2
    assert check_decoding(streams, [[k, k]] * len(streams), threads=threads, **OTHER) == expected


def test_limits_are_those_of_numerics():
    rs = [(np.zeros(24, np.uint8), np.full(24, r, np.int16)) for r in (0, numerics.R_MAX, numerics.R_MAX + 1)]
    zs = [np.full(4, z, np.int16) for z in (numerics.ACT_MAX, -numerics.ACT_MAX, numerics.ACT_MAX + 1, -128)]
    streams = [own([rs[0], rs[0]], z, 5, 5) for z in zs] + [own([rs[0], r], zs[0], 5, 5) for r in rs]
    assert check_decoding(streams, [[k for k, _ in rs[:2]]] * 7, **OTHER) == [
        None,
        None,
        *["payload"] * 2,
        None,
        None,
        "payload",
    ]
    made = batch(streams, **OTHER)
    made.z(np.zeros(28, np.int16))
    assert made.errors()[0][3] == f"a z symbol is beyond {numerics.ACT_MAX} in size"


def test_calls_out_of_turn():
    data = STREAMS["one_pixel"]
    made, z, k, out = ready([data, data[:-1]])
    ks, message = true_indices("one_pixel"), "expected z, 2 times phase and finish, once each in this order"
    steps = [("z", lambda: made.z(z)), ("phase", lambda: made.phase(k, out)), ("finish", lambda: made.finish())]
    for turn in (0, 1, 1, 2, 3):
        for number, (name, call) in enumerate(steps):
            if number != turn:
                with pytest.raises(RuntimeError, match=f"{name}: {message}"):
                    call()
        if turn == 1:
            k[:] = ks.pop(0)
        if turn < 3:
            steps[turn][1]()
        assert [i for i, *_ in made.errors()] == [1]
        assert opened(made, 2)[:, 0].tolist() == [1, 0]


def test_wrong_arguments():
    data = STREAMS["gray"]
    for call, error, message in [
        (lambda: batch(data), ValueError, r"streams\[0\]: expected a contiguous uint8 array .*, got int"),
        (lambda: batch([data, None]), ValueError, r"streams\[1\]: expected .* got NoneType"),
        (lambda: batch(["text"]), ValueError, r"streams\[0\]: expected .* got str"),
        (lambda: batch([np.zeros(9, np.int8)]), ValueError, r"streams\[0\]: .*got items of format 'b'"),
        (lambda: batch(iter([data])), ValueError, "streams: expected a sequence"),
        (lambda: batch([data], model=b"12345"), ValueError, r"model: expected .* of shape \(6,\), got shape \(5,\)"),
        (lambda: batch([data], model="123456"), ValueError, "model: expected"),
        (lambda: batch([data], channels=0), ValueError, r"channels: expected 1\.\.65535, got 0"),
        (lambda: batch([data], max_pixels=-1), ValueError, r"max_pixels: expected 0\.\.2\^64 - 1, got -1"),
        (lambda: batch([data], max_pixels=1 << 64), ValueError, r"max_pixels: expected 0\.\.2\^64 - 1"),
        (lambda: batch([data], max_pixels=1.0), ValueError, "max_pixels: expected an integer, got float"),
        (lambda: batch([data], threads=0), ValueError, r"threads: expected 1\.\.256, got 0"),
        (lambda: batch([data], isa="sse9"), ValueError, "isa: expected one that this machine has"),
        (lambda: batch([data], tables=None), TypeError, "tables: expected Tables, got NoneType"),
    ]:
        with pytest.raises(error, match=message):
            call()
    made, z, k, out = ready([data, data[:-1], data])
    n, true = len(k) // 2, true_indices("gray")
    for wrong in (
        np.zeros((3, 7), np.int64),
        np.zeros((2, 8), np.int64),
        np.zeros((3, 8), np.int32),
        np.zeros(24, np.int64),
    ):
        with pytest.raises(ValueError, match=r"out: expected a contiguous int64 array of shape \(3, 8\)"):
            made.headers(wrong)
    for wrong in (z[1:], np.zeros(len(z) + 1, np.int16), k, z.reshape(2, -1), np.zeros(2 * len(z), np.int16)[::2]):
        with pytest.raises(ValueError, match=r"out: expected a contiguous int16 array of shape \(12,\)"):
            made.z(wrong)
    with pytest.raises(ValueError, match="threads: expected"):
        made.z(z, threads=257)
    made.z(z)
    for wrong_k, wrong_out, message in [
        (k[1:], out, r"k: expected a contiguous uint8 array of shape \(256,\)"),
        (out, out, "k: expected a contiguous uint8"),
        (k, out[1:], r"out: expected a contiguous int8 array of shape \(256,\)"),
        (k, np.zeros(len(k), np.int16), "out: expected a contiguous int8"),
        (k, k.view(np.int8), "out: expected memory apart from that of k"),
        (k, memoryview(out).toreadonly(), "out: expected a writable array"),
    ]:
        with pytest.raises(ValueError, match=message):
            made.phase(wrong_k, wrong_out)
    # Nothing has moved, nor does it for a wrong index.
    for at, wrong in ((n + 7, 64), (3, 255), (len(k) - 1, 200)):
        k[:] = np.tile(true[0], 2)
        k[at] = wrong
        with pytest.raises(ValueError, match=rf"k: expected table indices 0\.\.63, got {wrong} at {at}"):
            made.phase(k, out)
    for one in true:
        made.phase(np.tile(one, 2), out)
    made.finish()
    assert [i for i, *_ in made.errors()] == [1] and np.array_equal(out[:n], out[n:]) and out.any()


def test_indices_of_failed_streams_mean_nothing():
    s = container.parse(STREAMS["gray"])
    made, z, k, out = None, None, None, None
    for bit in range(300, 8 * len(s.payload)):  # the first that shows in phase 0
        made, z, k, out = ready([STREAMS["gray"], pack(replace(s, payload=flip(s.payload, bit))), STREAMS["gray"]])
        if len(made.errors()) == 0:
            made.z(z)
            made.phase(np.tile(true_indices("gray")[0], 3), out)
            if len(made.errors()) == 1:
                break
    n = len(k) // 3
    k[:] = np.tile(true_indices("gray")[1], 3)
    k[n : 2 * n], out[:] = 255, 1
    before = made.errors()
    assert made.phase(k, out) == (b"", b"")
    made.finish()
    assert made.errors() == before and before[0][0] == 1
    assert not out[n : 2 * n].any() and np.array_equal(out[:n], out[2 * n :])


def test_no_streams():
    for streams in ([], (), [b""], [b"", STREAMS["gray"][:-1]]):
        made, z, k, out = ready(streams)
        assert [len(a) for a in (z, k, out)] == [0] * 3
        made.z(z)
        assert made.phase(k, out) == made.phase(k, out) == (b"", b"")
        made.finish()
        assert len(made.errors()) == len(streams)


def test_streams_are_held():
    """In any object with a buffer, for as long as the batch lives."""
    data = bytearray(STREAMS["gray"])
    made, z, k, out = ready(
        [data, memoryview(data), np.frombuffer(data, np.uint8), torch.frombuffer(data, dtype=torch.uint8)]
    )
    with pytest.raises(BufferError):
        data.append(0)
    made.z(z)
    for one in true_indices("gray"):
        made.phase(np.tile(one, 4), out)
    made.finish()
    assert made.errors() == [] and out.any() and all(np.array_equal(part, out[:128]) for part in out.reshape(4, -1))
