"""What the coder says to wrong arguments, and what it holds on to."""

import array
import gc

import numpy as np
import pytest
import torch
from rans_cases import ARRAYS, DTYPES, ISAS, TABLES, decode, make_phase, make_z

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
R8 = R.astype(np.int8)


@pytest.mark.parametrize(
    "z, phases, options, message",
    [
        (Z[:3], [(K, R)], {}, "z: expected a multiple of the 4 channels, got 3 elements"),
        (Z.astype(np.int8), [(K, R)], {}, "z: expected a contiguous int16 array .*, got items of format 'b'"),
        (Z.astype(">i2"), [(K, R)], {}, "z: expected a contiguous int16"),
        (Z.reshape(1, 4), [(K, R)], {}, r"z: expected .* \(any,\), got shape \(1, 4\)"),
        (Z[0], [(K, R)], {}, r"z: expected .* \(any,\), got shape \(\)"),
        (np.zeros(8, np.int16)[::2], [(K, R)], {}, "z: .* gaps"),
        (np.zeros(9, np.uint8)[1:].view(np.int16), [(K, R)], {}, "z: expected a contiguous int16"),
        (memoryview(bytearray(9))[1:].cast("h"), [(K, R)], {}, "z: .* odd address"),
        (Z, [], {}, "phases: expected 1 to 255 of them, got 0"),
        (Z, [(K, R)] * 256, {}, "phases: expected 1 to 255 of them, got 256"),
        (Z, {0: (K, R)}, {}, r"phases: expected a sequence of \(k, r\), got dict"),
        (Z, [K], {}, r"phases\[0\]: expected \(k, r\)"),
        (Z, [(K, R), 7], {}, r"phases\[1\]: expected \(k, r\), got int"),
        (Z, [(K, R), (K, R[:7])], {}, r"phases\[1\] r: expected .* \(8,\) as before, got shape \(7,\)"),
        (Z, [(K, R8), (K, R8[:7])], {}, r"phases\[1\] r: expected .* int8 .* \(8,\) as before, got shape \(7,\)"),
        (
            Z,
            [(K, R), (K, R8)],
            {},
            r"phases\[1\] r: expected a contiguous int16 .* as before, got items of format 'b'",
        ),
        (
            Z,
            [(K, R8), (K, R)],
            {},
            r"phases\[1\] r: expected a contiguous int8 .* as before, got items of format 'h'",
        ),
        (Z, [(K + np.uint8(34), R)], {}, r"phases\[0\] k: expected table indices 0..63, got 64 at 0"),
        (
            Z,
            [(K, R), (K + np.uint8(225), R)],
            {"skip_max": 2},
            r"phases\[1\] k: expected table indices 0..63, got 255 at 0",
        ),
        (Z, [(R, R)], {}, r"phases\[0\] k: expected a contiguous uint8"),
        (Z, [(R8, R)], {}, r"phases\[0\] k: expected a contiguous uint8 .*, got items of format 'b'"),
        (
            Z,
            [(K, None)],
            {},
            r"phases\[0\] r: expected a contiguous int8 or int16 array of shape \(8,\), got NoneType",
        ),
        (Z, [(K, [0] * 8)], {}, r"phases\[0\] r: expected .*, got list"),
        *[
            (
                Z,
                [(K, R.astype(dtype))],
                {},
                rf"phases\[0\] r: expected a contiguous int8 or int16 .* format '{code}'",
            )
            for dtype, code in [("u1", "B"), ("u2", "H"), ("i4", "i"), ("f2", "e"), ("f4", "f"), ("?", "[?]")]
        ],
        (Z, [(K, R[::-1])], {}, r"phases\[0\] r: .* gaps"),
        (Z, [(K, R)], {"lanes": 0}, "lanes: expected 1, 2, 4, 8, 16, 32 or None, got 0"),
        (Z, [(K, R)], {"lanes": 3}, "lanes: .* got 3"),
        (Z, [(K, R)], {"lanes": 64}, "lanes: .* got 64"),
        (Z, [(K, R)], {"lanes": -(2**40)}, "lanes: .* got -"),
        (Z, [(K, R)], {"skip_max": -1}, "skip_max: expected 0..15, got -1"),
        (Z, [(K, R)], {"skip_max": 16}, "skip_max: expected 0..15, got 16"),
        (Z, [(K, R)], {"isa": "sse"}, f"isa: expected one that this machine has .{', '.join(ISAS)}., got 'sse'"),
        (Z, [(K, R)], {"isa": 2}, "isa: expected a str or None, got int"),
    ],
)
def test_wrong_encode_arguments(z, phases, options, message):
    with pytest.raises(ValueError, match=message):
        _rans.encode(TABLES, z, phases, **options)
    with pytest.raises(ValueError, match=message):
        _rans.encode_batch(TABLES, [(Z, [(K, R)]), (z, phases)], **options)


@pytest.mark.parametrize(
    "name, value",
    [("lanes", "4"), ("lanes", 2.0), ("lanes", 2**70), ("skip_max", "1"), ("skip_max", 1.5), ("threads", "2")],
)
def test_wrong_numbers_are_named(name, value):
    """By ValueError or, as Python does for what is no integer, by TypeError."""
    with pytest.raises((ValueError, TypeError), match=name):
        _rans.encode_batch(TABLES, [(Z, [(K, R)])], **{name: value})


def test_integers_of_numpy_are_integers():
    expected = _rans.encode(TABLES, Z, [(K, R)], lanes=2, skip_max=3)
    assert _rans.encode(TABLES, Z, [(K, R)], lanes=np.int64(2), skip_max=np.uint8(3)) == expected


@pytest.mark.parametrize(
    "name, values",
    [("lanes_log2", (-1, 6)), ("skip_max", (-1, 16)), ("tail", (-1, 2**32)), ("phases", (0, 256)), ("isa", ("sse",))],
)
def test_wrong_decoder_arguments(name, values):
    right = {"lanes_log2": 0, "skip_max": 1, "tail": 0}
    none = np.zeros(0, np.uint8), np.zeros(0, np.int16)
    for value in values:
        with pytest.raises(ValueError, match=f"{name}: expected .*, got '?{value}"):
            _rans.Decoder(TABLES, bytes(6), **{**right, name: value})
        if name != "phases":
            with pytest.raises(ValueError, match=f"{name}: expected .*, got '?{value}"):
                _rans.decode(TABLES, bytes(6), none[1], [none], **{**right, name: value})
    with pytest.raises(ValueError, match="payload: expected a contiguous uint8"):
        _rans.Decoder(TABLES, "text", **right)
    with pytest.raises(ValueError, match="payload: expected a contiguous uint8"):
        _rans.decode(TABLES, "text", none[1], [none], **right)


def test_wrong_decode_arguments():
    payload, lanes_log2, skip_max, tail = _rans.encode(TABLES, Z, [(K, R)])
    header = {"lanes_log2": lanes_log2, "skip_max": skip_max, "tail": tail}
    decoder = _rans.Decoder(TABLES, payload, **header, phases=1)
    z, r, both = np.empty(4, np.int16), np.empty(8, np.int16), np.zeros(32, np.uint8)
    frozen = r.copy()
    frozen.setflags(write=False)
    with pytest.raises(RuntimeError, match="phase: expected z"):
        decoder.phase(K, r)
    for out, message in [
        (np.empty(5, np.int16), "expected a multiple of the 4 channels"),
        (np.empty(4, np.int8), "expected a contiguous int16"),
        (frozen, "expected a writable array, got a read-only one"),
        (bytes(8), "expected a contiguous int16"),
        (z[::2], ".* gaps"),
    ]:
        with pytest.raises(ValueError, match=f"out: {message}"):
            decoder.z(out)
        with pytest.raises(ValueError, match=f"z: {message}"):
            _rans.decode(TABLES, payload, out, [(K, r)], **header)
    decoder.z(z)
    for k, out, name, message in [
        (K, r[:7], "r", r"expected .* \(8,\), got shape \(7,\)"),
        (K, r[::-1], "r", ".* gaps"),
        (K, frozen, "r", "expected a writable array, got a read-only one"),
        (K, bytes(8), "r", "expected a contiguous int8 or int16"),
        (K, memoryview(bytes(8)).cast("b"), "r", "expected a writable array"),
        (K, np.empty(8, np.float32), "r", "expected a contiguous int8 or int16"),
        (K, np.empty(8, np.uint16), "r", "expected a contiguous int8 or int16 .* format 'H'"),
        (K, np.empty(8, np.int32), "r", "expected a contiguous int8 or int16 .* format 'i'"),
        (K, both[:16], "r", "expected a contiguous int8 or int16"),
        (K.astype(np.int16), r, "k", "expected a contiguous uint8"),
        (K + np.uint8(40), r, "k", "expected table indices 0..63, got 70 at 0"),
        (both[8:16], both[:16].view(np.int16), "r", "expected memory apart from that of k"),
        (both[8:16], both[15:23].view(np.int8), "r", "expected memory apart from that of k"),
        (both[8:16], both[1:9].view(np.int8), "r", "expected memory apart from that of k"),
        (both[8:16], both[8:16].view(np.int8), "r", "expected memory apart from that of k"),
    ]:
        with pytest.raises(ValueError, match=f"{name.replace('r', 'out')}: {message}"):
            decoder.phase(k, out)
        place = r"phases.* k" if "indices" in message else rf"phases\[0\] {name}"
        with pytest.raises(ValueError, match=f"{place}: {message}"):
            _rans.decode(TABLES, payload, z, [(k, out)], **header)
    with pytest.raises(RuntimeError, match="finish: expected z"):
        decoder.finish()
    with pytest.raises(RuntimeError, match="z: expected z"):
        decoder.z(z)
    decoder.phase(both[8:16] + np.uint8(30), both[16:].view(np.int16))  # a wrong argument before does no harm
    decoder.finish()
    with pytest.raises(RuntimeError):
        decoder.finish()


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_next_to_k_is_apart_from_it(dtype, side):
    """The symbols may end where k begins, or begin where it ends."""
    k, r = make_phase(np.random.default_rng(0), 300, dtype=dtype)
    payload, lanes_log2, skip_max, tail = _rans.encode(TABLES, np.zeros(0, np.int16), [(k, r)])
    memory, size = np.zeros(300 + 2 * r.nbytes, np.uint8), r.nbytes
    inner, out = memory[size : size + 300], memory[:size] if side < 0 else memory[size + 300 :]
    inner[:] = k
    z, out = np.zeros(0, np.int16), out.view(dtype)
    _rans.decode(TABLES, payload, z, [(inner, out)], lanes_log2=lanes_log2, skip_max=skip_max, tail=tail)
    assert np.array_equal(out, r) and np.array_equal(inner, k)


def test_decoder_keeps_what_it_needs():
    rng = np.random.default_rng(2)
    z, phases = make_z(rng, 4), [make_phase(rng, 300)]
    tables = _rans.Tables(*ARRAYS)
    payload, lanes_log2, skip_max, tail = _rans.encode(tables, z, phases)
    held = bytearray(payload)
    decoder = _rans.Decoder(tables, held, lanes_log2=lanes_log2, skip_max=skip_max, tail=tail, phases=1)
    with pytest.raises(BufferError):
        held.clear()
    del tables, payload, held
    gc.collect()
    out_z, out_r = np.empty_like(z), np.empty_like(phases[0][1])
    decoder.z(out_z)
    decoder.phase(memoryview(phases[0][0]), memoryview(out_r))
    decoder.finish()
    assert np.array_equal(out_z, z) and np.array_equal(out_r, phases[0][1])


def test_nothing_is_held_after_a_call():
    """Buffers that may be resized can be again, whether the call went well or not."""
    z, k, r = bytearray(8), bytearray(8), bytearray(8)
    views = memoryview(z).cast("h"), [(k, memoryview(r).cast("b"))]
    coded = _rans.encode(TABLES, *views)
    payload = bytearray(coded[0])
    header = {"lanes_log2": coded[1], "skip_max": coded[2], "tail": coded[3]}
    _rans.decode(TABLES, payload, *views, **header)
    with pytest.raises(_rans.StreamError):
        _rans.decode(TABLES, payload, *views, **{**header, "tail": 1})
    with pytest.raises(ValueError):
        _rans.decode(TABLES, payload, *views, **{**header, "lanes_log2": 9})
    assert _rans.decode_batch(TABLES, [(payload, *coded[1:], *views)]) == [None]
    del views
    for held in (z, k, r, payload):
        held.clear()


def test_no_tables():
    with pytest.raises(TypeError):
        _rans.Decoder(None, b"", lanes_log2=0, skip_max=0, tail=0)
    with pytest.raises(TypeError):
        _rans.encode(None, Z, [(K, R)])


def test_outputs_of_a_batch_are_apart_from_all_else():
    """Images are decoded side by side: symbols written over another image's indices would be taken for such."""
    rng = np.random.default_rng(5)
    k, r = make_phase(rng, 300, 0, 63, np.int8)
    none = np.zeros(0, np.int16)
    coded = _rans.encode(TABLES, none, [(k, r)])

    def batch(*phases):
        return _rans.decode_batch(TABLES, [(*coded, none, [phase]) for phase in phases], threads=1)

    def steps(*phases):
        made = [
            _rans.Decoder(TABLES, coded[0], lanes_log2=coded[1], skip_max=coded[2], tail=coded[3], phases=1)
            for _ in phases
        ]
        _rans.z_batch(made, [none] * len(phases))
        return _rans.phase_batch(made, [k for k, _ in phases], [r for _, r in phases])

    other, out = k.copy(), np.empty_like(r)
    for call in (batch, steps):
        for phases in (
            [(k, other.view(np.int8)), (other, out)],  # one's output is the other's k
            [(k, out), (k, out)],
            [(k, out), (other, out[:])],
        ):
            with pytest.raises(ValueError, match="apart from one another and from all inputs"):
                call(*phases)
        assert call((k, out), (k, np.empty_like(r))) == [None, None]  # inputs may be shared
        assert np.array_equal(out, r) and np.array_equal(other, k)
    payload = bytearray(coded[0])
    with pytest.raises(ValueError, match="z and phases: expected outputs apart"):
        _rans.decode(
            TABLES,
            payload,
            none,
            [(k[: len(payload)], np.frombuffer(payload, np.int8))],
            lanes_log2=coded[1],
            skip_max=coded[2],
            tail=coded[3],
        )


def test_other_buffers():
    rng = np.random.default_rng(3)
    z, (k, r) = make_z(rng, 3), make_phase(rng, 100)
    coded = _rans.encode(TABLES, z, [(k, r)])
    given = array.array("h", z.tobytes()), ((bytes(k), array.array("h", r.tobytes())),)
    assert _rans.encode(TABLES, *given) == coded
    outs = array.array("h", bytes(24)), [[k.tobytes(), array.array("h", bytes(200))]]
    header = {"lanes_log2": coded[1], "skip_max": coded[2], "tail": coded[3]}
    _rans.decode(TABLES, np.frombuffer(coded[0], np.uint8), *outs, **header)
    assert outs[0].tobytes() == z.tobytes() and outs[1][0][1].tobytes() == r.tobytes()


def test_arrays_of_no_elements():
    none = [np.zeros(0, np.uint8), np.zeros(0, np.int8)]
    strided = [np.zeros(4, np.uint8)[4::2], np.zeros(4, np.int8)[:0:-1][3:]]
    tensors = [torch.zeros(0, dtype=torch.uint8), torch.zeros(0, dtype=torch.int8)]
    for phase in (none, strided, tensors):
        for z in (np.zeros(0, np.int16), torch.zeros(0, dtype=torch.int16), np.zeros(6, np.int16)[6::3]):
            coded = _rans.encode(TABLES, z, [phase])
            assert coded[0] == bytes(5) and coded[1::2] == (0, 0)
            header = {"lanes_log2": 0, "skip_max": coded[2], "tail": 0}
            _rans.decode(TABLES, *coded[:1], z, [phase], **header)
    with pytest.raises(_rans.StreamError, match="lane states at byte 0"):
        _rans.decode(TABLES, np.zeros(0, np.uint8), z, [none], **header)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_tensors(dtype):
    """They are read and filled where they are: views of one keep sharing its memory."""
    rng = np.random.default_rng(5)
    z = make_z(rng, 9)
    phases = [make_phase(rng, n, dtype=np.int8 if dtype == torch.int8 else np.int16) for n in (500, 400)]
    coded = _rans.encode(TABLES, z, phases)
    given = torch.from_numpy(z), [tuple(map(torch.from_numpy, phase)) for phase in phases]
    assert _rans.encode(TABLES, *given) == coded
    assert _rans.encode_batch(TABLES, [given, given]) == [coded, coded]

    outs = [torch.full((3, n), 77, dtype=kind) for n, kind in ((len(z), torch.int16), (500, dtype), (400, dtype))]
    places = [out.data_ptr() for out in outs]

    def check_outs():
        for out, right, place in zip(outs, (given[0], given[1][0][1], given[1][1][1]), places, strict=True):
            assert torch.equal(out[1], right) and torch.all(out[::2] == 77) and out.data_ptr() == place
            out.fill_(77)

    payload = torch.frombuffer(bytearray(coded[0]), dtype=torch.uint8)
    header = {"lanes_log2": coded[1], "skip_max": coded[2], "tail": coded[3]}
    ks = [k for k, _ in given[1]]
    phase_outs = list(zip(ks, (out[1] for out in outs[1:]), strict=True))
    _rans.decode(TABLES, payload, outs[0][1], phase_outs, **header)
    check_outs()
    assert _rans.decode_batch(TABLES, [(payload, *coded[1:], outs[0][1], phase_outs)]) == [None]
    check_outs()
    decoder = _rans.Decoder(TABLES, payload, **header)
    assert _rans.z_batch([decoder], [outs[0][1]]) == [None]
    decoder.phase(*phase_outs[0])
    assert _rans.phase_batch([decoder], ks[1:], [outs[2][1]]) == [None]
    decoder.finish()
    check_outs()
    tables = _rans.Tables(*(torch.from_numpy(a) for a in ARRAYS))
    assert _rans.encode(tables, *given) == coded


def on_meta(a):
    return torch.empty(a.shape, dtype=a.dtype, device="meta")


def with_gradient(a):
    return a.float().requires_grad_()


@pytest.mark.parametrize(
    "change, reason",
    [
        (on_meta, "meta"),
        (with_gradient, "requires grad"),
        (lambda a: a.to_sparse(), "Sparse"),
        (lambda a: a.to(torch.bfloat16), "BFloat16"),
        (lambda a: a.float(), "format 'f'"),
        (lambda a: a.to(torch.int32), "format 'i'"),
        (lambda a: a.repeat_interleave(2)[::2], "gaps"),
        (lambda a: a[None], "shape"),
    ],
)
def test_wrong_tensors(change, reason):
    z, k, r, payload = (
        torch.from_numpy(Z),
        torch.from_numpy(K),
        torch.from_numpy(R),
        torch.zeros(9, dtype=torch.uint8),
    )
    header = {"lanes_log2": 0, "skip_max": 0, "tail": 0}
    for name, given in [
        ("z", (payload, change(z), [(k, r)])),
        (r"phases\[1\] k", (payload, z, [(k, r), (change(k), r)])),
        (r"phases\[1\] r", (payload, z, [(k, r), (k, change(r))])),
        ("payload", (change(payload), z, [(k, r)])),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: expected .*{reason}"):
            _rans.decode(TABLES, *given, **header)
        with pytest.raises(ValueError, match=rf"^images\[0\] {name}: expected .*{reason}"):
            _rans.decode_batch(TABLES, [(given[0], *header.values(), *given[1:])])
        if name != "payload":
            with pytest.raises(ValueError, match=f"^{name}: expected .*{reason}"):
                _rans.encode(TABLES, *given[1:])


def test_any_gradient_is_refused():
    """Even one of an integer's kind of leaf: a parameter."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    with pytest.raises(ValueError, match="z: expected a contiguous int16 .* requires grad"):
        _rans.encode(TABLES, parameter, [(K, R)])


def test_isas_by_name():
    rng = np.random.default_rng(7)
    z, phases = make_z(rng, 4), [make_phase(rng, 300)]
    coded = _rans.encode(TABLES, z, phases)
    for isa in (None, *ISAS):
        assert _rans.encode(TABLES, z, phases, isa=isa) == coded
        assert np.array_equal(decode(*coded, len(z), [phases[0][0]], isa=isa)[1][0], phases[0][1])
    for isa in ("", "nonsense", "AVX2"):
        for call in (
            lambda isa=isa: _rans.encode(TABLES, z, phases, isa=isa),
            lambda isa=isa: _rans.encode_batch(TABLES, [], isa=isa),
            lambda isa=isa: _rans.decode_batch(TABLES, [], isa=isa),
            lambda isa=isa: decode(*coded, len(z), [phases[0][0]], isa=isa),
            lambda isa=isa: decode(*coded, len(z), [phases[0][0]], isa=isa, steps=True),
        ):
            with pytest.raises(ValueError, match=f"isa: expected .*{', '.join(ISAS)}.*, got '{isa}'"):
                call()
