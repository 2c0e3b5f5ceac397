"""Batches do what single calls do, in order, whatever the threads; an image's errors are its own."""

import functools
import itertools
import os
import sys
import threading

import numpy as np
import pytest
from children import forks, in_child
from rans_cases import (
    ARRAYS,
    DTYPES,
    ISAS,
    LANES,
    TABLES,
    batch_outcomes,
    check_margins,
    failed,
    make_phase,
    make_z,
    outcome,
    outcome_of,
    room,
    to_decode,
)

from ckbd import _rans

every_isa = pytest.mark.parametrize("isa", ISAS)
every_threads = pytest.mark.parametrize("threads", [1, 2, 5, None])
# Elements of each phase. All of them together are worth waking threads for, which some hundreds are not.
SIZES = (20000, 0, 1, 300, 8193, 0, 12000, 64, 17000, 5000, 33)
NO_Z = np.zeros(0, np.int16)


@functools.cache
def ragged(dtype=None):
    """[(z, phases)] of these sizes; of both dtypes, if none is given."""
    rng, images = np.random.default_rng(0), []
    for number, n in enumerate(SIZES):
        one = dtype or DTYPES[number % 3 % 2]
        images.append((make_z(rng, n // 40), [make_phase(rng, n, dtype=one), make_phase(rng, n + 7, dtype=one)]))
    return images


@functools.cache
def coded(dtype=None):
    """What encode() makes of ragged(), with lanes and skip_max of all kinds; the expected outcomes."""
    made = []
    for number, (z, phases) in enumerate(ragged(dtype)):
        lanes, skip_max = (None, 32, 8, 1, 16, 32)[number % 6], (None, 1, 0, 3)[number % 4]
        made.append(_rans.encode(TABLES, z, phases, lanes=lanes, skip_max=skip_max, isa="plain"))
    return made, [right(image) for image in ragged(dtype)]


def right(image):
    z, phases = image
    return outcome_of(None, z, [r for _, r in phases])


def targets(made, images):
    """What decode_batch() takes."""
    return [
        to_decode(one, len(z), [k for k, _ in phases], phases[0][1].dtype)
        for one, (z, phases) in zip(made, images, strict=True)
    ]


@every_threads
@every_isa
def test_encode(isa, threads):
    images = ragged()
    for options in ({}, {"lanes": 4, "skip_max": 2}):
        expected = [_rans.encode(TABLES, *image, **options, isa="plain") for image in images]
        assert _rans.encode_batch(TABLES, images, **options, threads=threads, isa=isa) == expected
    for some in (images[::-1], images[:1], images[:2], images[2:5], images[1:2], ()):
        expected = [_rans.encode(TABLES, *image) for image in some]
        assert _rans.encode_batch(TABLES, tuple(some), threads=threads, isa=isa) == expected


@every_threads
@every_isa
def test_decode(isa, threads):
    made, expected = coded()
    cuts = [slice(None), slice(None, None, -1), slice(10), slice(1), slice(2), slice(1, 2), slice(3, 6), slice(0)]
    for cut in cuts:
        images = targets(made[cut], ragged()[cut])
        errors = _rans.decode_batch(TABLES, images, threads=threads, isa=isa)
        assert errors == [None] * len(images)
        assert batch_outcomes(images, errors) == expected[cut]
    images = targets(made, ragged())
    assert _rans.decode_batch(TABLES, tuple(map(list, images)), threads=threads, isa=isa) == [None] * len(images)
    assert batch_outcomes(images, [None] * len(images)) == expected


def decoders(made, count=2, isa=None, tables=TABLES):
    names = ("lanes_log2", "skip_max", "tail")
    return [
        _rans.Decoder(tables, payload, **dict(zip(names, header, strict=True)), phases=count, isa=isa)
        for payload, *header in made
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@every_threads
@every_isa
def test_steps(isa, threads, dtype):
    made, expected = coded(dtype)
    for cut in (slice(None), slice(10), slice(1), slice(2), slice(0)):
        all_of, images = decoders(made[cut], isa=isa), targets(made[cut], ragged(dtype)[cut])
        none = [None] * len(images)
        assert _rans.z_batch(all_of, [z for *_, z, _ in images], threads=threads) == none
        for p in range(2):
            ks, outs = ([phases[p][side] for *_, phases in images] for side in range(2))
            assert _rans.phase_batch(all_of, ks, outs, threads=threads) == none
        for decoder in all_of:
            decoder.finish()
        assert batch_outcomes(images, none) == expected[cut]


@every_isa
def test_pairs(isa):
    """On one thread two streams are decoded at once: those of all lanes and dtypes, of one chunk and of several."""
    rng = np.random.default_rng(1)
    kinds = list(itertools.product(LANES, DTYPES, (200, 8500)))
    images, made = [], []
    for lanes, dtype, n in kinds:
        images.append((make_z(rng, 2), [make_phase(rng, n, dtype=dtype), make_phase(rng, n + lanes, dtype=dtype)]))
        made.append(_rans.encode(TABLES, *images[-1], lanes=lanes, skip_max=1, isa="plain"))
        assert 1 << made[-1][1] == lanes
    for a, b in itertools.product(range(len(kinds)), repeat=2):
        two = targets([made[a], made[b]], [images[a], images[b]])
        errors = _rans.decode_batch(TABLES, two, threads=1, isa=isa)
        assert batch_outcomes(two, errors) == [right(images[a]), right(images[b])]


@every_isa
def test_pairs_of_different_groups(isa):
    """One ends long before the other, or has nothing of what the other has, or fewer phases."""
    rng = np.random.default_rng(2)
    groups = [
        [(9000, 1, 22), (9000, 1, 22)],
        [(9000, 23, 63)],
        [(20000, 0, 1), (300, 40, 63)],
        [(0, 0, 0), (0, 0, 0)],
    ]
    groups += [[(20000, 0, 63)], [(100, 23, 63), (8192, 1, 22), (1, 0, 63)], [(16384, 22, 23), (16384, 0, 63)]]
    images = [(make_z(rng, 5), [make_phase(rng, *group, dtype=np.int8) for group in phases]) for phases in groups]
    made = [_rans.encode(TABLES, *image) for image in images]
    for a, b in itertools.product(range(len(groups)), repeat=2):
        two = targets([made[a], made[b]], [images[a], images[b]])
        errors = _rans.decode_batch(TABLES, two, threads=1, isa=isa)
        assert batch_outcomes(two, errors) == [right(images[a]), right(images[b])]


def damage(one, seed):
    """A payload with a few bytes changed somewhere, or cut."""
    payload, *header = one
    rng, changed = np.random.default_rng(seed), bytearray(payload)
    if seed % 4 == 0:
        return bytes(changed[: rng.integers(len(changed))]), *header
    for _ in range(3):
        changed[rng.integers(len(changed))] ^= rng.integers(1, 256)
    return bytes(changed), *header


@every_threads
@every_isa
def test_errors_stay_with_their_image(isa, threads):
    (made, expected), failures = coded(), 0
    for seed in range(12):
        bad = set(np.random.default_rng(seed).permutation(len(made))[: 1 + seed % 5].tolist())
        mixed = [damage(one, seed) if i in bad else one for i, one in enumerate(made)]
        images, wanted = targets(mixed, ragged()), list(expected)
        for i in bad:
            z, phases = ragged()[i]
            wanted[i] = outcome(*mixed[i], len(z), [k for k, _ in phases], dtype=phases[0][1].dtype, isa="plain")
        errors = _rans.decode_batch(TABLES, images, threads=threads, isa=isa)
        assert [i for i, error in enumerate(errors) if error] == sorted(
            i for i in bad if wanted[i][0].__class__ is str
        )
        assert batch_outcomes(images, errors) == wanted
        failures += sum(error is not None for error in errors)
    assert failures > 12


@every_threads
@every_isa
def test_errors_of_a_step_stay_with_their_decoder(isa, threads):
    made, expected = coded(np.int16)
    for seed, bad in ((1, 0), (2, 8), (4, 4), (5, 6)):
        mixed = [damage(one, seed) if i == bad else one for i, one in enumerate(made)]
        z, phases = ragged(np.int16)[bad]
        wanted = outcome(*mixed[bad], len(z), [k for k, _ in phases], isa="plain")
        assert failed(wanted)
        images, alive, found = targets(mixed, ragged(np.int16)), [], {}
        for i, one in enumerate(mixed):
            try:
                alive.append((i, decoders([one], isa=isa)[0]))
            except _rans.StreamError as error:
                found[i] = error
        for p in (-1, 0, 1):
            outs = [images[i][4] if p < 0 else images[i][5][p][1] for i, _ in alive]
            ks = [images[i][5][p][0] for i, _ in alive]
            step, given = (_rans.z_batch, (outs,)) if p < 0 else (_rans.phase_batch, (ks, outs))
            errors = step([decoder for _, decoder in alive], *given, threads=threads)
            for (i, decoder), error in zip(list(alive), errors, strict=True):
                if error:
                    found[i] = error
                    alive.remove((i, decoder))
                    with pytest.raises(RuntimeError, match="after a failed one"):
                        decoder.phase(ks[0], outs[0])
        for i, decoder in alive:
            try:
                decoder.finish()
            except _rans.StreamError as error:
                found[i] = error
        assert set(found) == {bad} and found[bad].args == wanted
        errors = [found.get(i) for i in range(len(images))]
        assert batch_outcomes(images, errors) == [*expected[:bad], wanted, *expected[bad + 1 :]]


def round_trip(threads, isa=None):
    made, expected = coded()
    images = targets(made, ragged())
    errors = _rans.decode_batch(TABLES, images, threads=threads, isa=isa)
    assert batch_outcomes(images, errors) == expected
    same = {"lanes": 32, "skip_max": 1, "isa": isa}
    assert _rans.encode_batch(TABLES, ragged(), **same, threads=threads) == [
        _rans.encode(TABLES, *image, **same) for image in ragged()
    ]


@every_isa
def test_batches_at_once(isa):
    """More callers than threads, each with its own wish; the bytes of one are never another's."""
    done = []

    def work(threads):
        for _ in range(5):
            round_trip(threads, isa)
        done.append(threads)

    wishes = [1, 2, 3, 5, 16, None]
    callers = [threading.Thread(target=work, args=(wish,), daemon=True) for wish in wishes]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert len(done) == len(wishes)


@forks
def test_batch_after_a_fork():
    """The child has the parent's memory, in which the pool is, but not its threads."""
    round_trip(3)
    in_child(lambda: round_trip(3))
    in_child(lambda: in_child(lambda: round_trip(2)))
    round_trip(3)


@forks
def test_batch_after_a_fork_amid_batches():
    """The same while other threads hold what there is to be held."""
    stop, broken = threading.Event(), []
    round_trip(3)  # imports what it needs: a lock of theirs that is held at a fork is nobody's in the child

    def work():
        try:
            while not stop.is_set():
                round_trip(3)
        except BaseException as error:
            broken.append(error)
            raise

    callers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(10):
            in_child(lambda: round_trip(3))
    finally:
        stop.set()
        for caller in callers:
            caller.join(timeout=60)
    assert not broken and not any(caller.is_alive() for caller in callers)


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_threads_are_those_asked_for():
    """The caller is one of them, no more are started than there are images, and they stay for the next batch."""

    def running():
        return len(os.listdir("/proc/self/task"))

    def work():
        round_trip(1)
        small = targets(*([of[:4] for of in (coded()[0], ragged())]))[1:]
        assert _rans.decode_batch(TABLES, small, threads=5) == [None] * 3
        assert running() == 1
        round_trip(3)
        assert running() == 3
        round_trip(2)
        assert running() == 3
        round_trip(200)
        assert running() == len(SIZES)

    def one_for_each_cpu():
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus[:1])
        round_trip(None)
        assert running() == 1
        os.sched_setaffinity(0, cpus)
        round_trip(None)
        assert running() == min(len(cpus), len(SIZES))

    in_child(work)
    in_child(one_for_each_cpu)


def test_a_bad_index_is_named():
    made, _ = coded(np.int16)
    z, ((k, r), second) = ragged(np.int16)[3]
    wrong = k.copy()
    wrong[5] = 64
    for at in (0, 1, 2):
        images = [(z, [(k, r), second])] * 3
        images[at] = z, [(k, r), (wrong, r)]
        with pytest.raises(
            ValueError, match=rf"images\[{at}\] phases\[1\] k: expected table indices 0..63, got 64 at 5"
        ):
            _rans.encode_batch(TABLES, images)
        images = targets([made[3]] * 3, ragged(np.int16)[3:4] * 3)
        images[at][-1][0] = wrong, images[at][-1][0][1]
        with pytest.raises(
            ValueError, match=rf"images\[{at}\] phases\[0\] k: expected table indices 0..63, got 64 at 5"
        ):
            _rans.decode_batch(TABLES, images)
        all_of, outs = decoders([made[3]] * 3), [np.empty_like(r) for _ in range(3)]
        _rans.z_batch(all_of, [np.empty_like(z) for _ in range(3)])
        with pytest.raises(ValueError, match=rf"ks\[{at}\]: expected table indices 0..63, got 64 at 5"):
            _rans.phase_batch(all_of, [wrong if i == at else k for i in range(3)], outs)
        all_of[at].phase(k, outs[at])  # a wrong argument before does no harm
        assert np.array_equal(outs[at], r)


def test_wrong_batches():
    one, two, other = decoders([coded(np.int16)[0][3]] * 3)
    z, ((k, r), _) = ragged(np.int16)[3]
    zs, outs = [room(len(z), np.int16) for _ in range(3)], [room(len(k), np.int16) for _ in range(3)]
    eight = np.empty(len(k), np.int8)
    for call, message in [
        (lambda: _rans.z_batch([one, one], zs[:2]), "decoders: expected each once, got one twice"),
        (lambda: _rans.z_batch([one, two], zs), "outs: expected 2 arrays, one for each decoder, got 3"),
        (lambda: _rans.z_batch([one, None], zs[:2]), "decoders: expected Decoders, got NoneType"),
        (lambda: _rans.z_batch(one, zs), "decoders: expected a sequence, got Decoder"),
        (lambda: _rans.z_batch([one], {0: zs[0]}), "outs: expected a sequence, got dict"),
        (lambda: _rans.z_batch([one, two], [zs[0], eight]), r"outs\[1\]: expected a contiguous int16 array"),
        (lambda: _rans.z_batch([one, two], [zs[0], zs[1][1:]]), r"outs\[1\]: expected a multiple of the 4 channels"),
        (lambda: _rans.z_batch([one], zs[:1], threads=0), "threads: expected 1..256, got 0"),
        (lambda: _rans.phase_batch([one, one], [k, k], outs[:2]), "decoders: expected each once, got one twice"),
        (lambda: _rans.phase_batch([one, two], [k], outs[:2]), "ks: expected 2 arrays, one for each decoder, got 1"),
        (lambda: _rans.phase_batch([one, two], [k, k], outs), "outs: expected 2 arrays, one for each decoder, got 3"),
        (lambda: _rans.phase_batch([one, two], [k, r], outs[:2]), r"ks\[1\]: expected a contiguous uint8 array"),
        (lambda: _rans.phase_batch([one, two], [k, k[1:]], outs[:2]), r"outs\[1\]: expected .* of shape \(299,\)"),
        (lambda: _rans.phase_batch([one, two], [k, k], [outs[0], eight]), r"outs\[1\]: expected a contiguous int16"),
        (lambda: _rans.phase_batch([one, two], [k, k], [eight, outs[0]]), r"outs\[1\]: expected a contiguous int8"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    # Steps out of turn, of one alone; the others stay where they are.
    with pytest.raises(RuntimeError, match="phase: expected z, 2 times phase and finish"):
        _rans.phase_batch([one, two], [k, k], outs[:2])
    one.z(zs[0])
    with pytest.raises(RuntimeError, match="z: expected z"):
        _rans.z_batch([two, one, other], zs)
    assert _rans.z_batch([two, other], zs[1:]) == [None] * 2
    other.phase(k, outs[2])
    other.phase(*ragged(np.int16)[3][1][1])
    with pytest.raises(RuntimeError, match="phase: expected z"):
        _rans.phase_batch([one, two, other], [k] * 3, outs)
    assert _rans.phase_batch([two, one], [k] * 2, outs[:2]) == [None] * 2
    assert all(np.array_equal(out, z) for out in zs) and all(np.array_equal(out, r) for out in outs)
    check_margins(zs[0], [(k, out) for out in outs])


@pytest.mark.parametrize("dtype", DTYPES)
def test_wrong_images(dtype):
    z, phases = ragged(dtype)[3]
    right = targets([coded(dtype)[0][3]], ragged(dtype)[3:4])[0]
    payload, lanes_log2, skip_max, tail, z_out, outs = right
    for image, message in [
        (None, r"images\[1\]: expected a sequence, got NoneType"),
        ((z,), r"images\[1\]: expected \(z, phases\), got 1 items"),
        ((z, phases, 1), r"images\[1\]: expected \(z, phases\), got 3 items"),
        ((z[1:], phases), r"images\[1\] z: expected a multiple of the 4 channels"),
        ((z, []), r"images\[1\] phases: expected 1 to 255 of them, got 0"),
        ((z, [(phases[0][1], phases[0][1])]), r"images\[1\] phases\[0\] k: expected a contiguous uint8"),
    ]:
        with pytest.raises(ValueError, match=message):
            _rans.encode_batch(TABLES, [(z, phases), image])
    for image, message in [
        (None, r"images\[1\]: expected a sequence, got NoneType"),
        (right[:5], r"images\[1\]: expected \(payload, lanes_log2, skip_max, tail, z, phases\), got 5 items"),
        (("text", *right[1:]), r"images\[1\] payload: expected a contiguous uint8"),
        ((payload, 6, *right[2:]), r"images\[1\] lanes_log2: expected 0..5, got 6"),
        ((payload, 2**70, *right[2:]), r"images\[1\] lanes_log2: expected"),
        ((payload, 1.0, *right[2:]), r"images\[1\] lanes_log2: expected an integer, got float"),
        ((payload, lanes_log2, -1, *right[3:]), r"images\[1\] skip_max: expected 0..15, got -1"),
        (
            (payload, lanes_log2, skip_max, 2**32, *right[4:]),
            r"images\[1\] tail: expected 0..2\^32 - 1, got 4294967296",
        ),
        ((*right[:4], z_out[1:], outs), r"images\[1\] z: expected a multiple of the 4 channels"),
        ((*right[:4], payload, outs), r"images\[1\] z: expected a contiguous int16"),
        ((*right[:5], outs[0]), r"images\[1\] phases\[0\]: expected \(k, r\)"),
        ((*right[:5], [outs[0], (outs[1][0], bytes(307))]), r"images\[1\] phases\[1\] r: expected a contiguous"),
        ((*right[:5], [(outs[0][0], memoryview(outs[0][1]).toreadonly())]), r"images\[1\] phases\[0\] r: .*writable"),
    ]:
        with pytest.raises(ValueError, match=message):
            _rans.decode_batch(TABLES, [right, image])
    for threads in (0, -1, 257):
        with pytest.raises(ValueError, match=f"threads: expected 1..256, got {threads}"):
            _rans.decode_batch(TABLES, [right], threads=threads)
        with pytest.raises(ValueError, match=f"threads: expected 1..256, got {threads}"):
            _rans.encode_batch(TABLES, [(z, phases)], threads=threads)
    with pytest.raises(ValueError, match="images: expected a sequence, got generator"):
        _rans.decode_batch(TABLES, (image for image in [right]))


@every_isa
def test_pair_of_decoders_with_different_tables(isa):
    """Steps two at a time look symbols up in the tables of their own decoder."""
    y_freq, y_max = ARRAYS[0].copy(), ARRAYS[1].copy()
    y_freq[[20, 40]], y_max[[20, 40]] = 0, 1
    y_freq[[20, 40], :3] = 2048, 512, 512
    other = _rans.Tables(y_freq, y_max, *ARRAYS[2:])
    rng = np.random.default_rng(0)
    for low in (20, 40):
        k, r = np.full(500, low, np.uint8), rng.integers(-1, 2, 500).astype(np.int16)
        pair = []
        for tables in (TABLES, other):
            made = _rans.encode(tables, NO_Z, [(k, r)])
            pair += decoders([made], 1, isa=isa, tables=tables)
        outs = [np.empty_like(r) for _ in pair]
        assert _rans.z_batch(pair, [NO_Z.copy(), NO_Z.copy()], threads=1) == [None, None]
        assert _rans.phase_batch(pair, [k, k], outs, threads=1) == [None, None]
        for decoder, out in zip(pair, outs, strict=True):
            decoder.finish()
            assert np.array_equal(out, r)


def test_pair_of_decoders_with_different_isas():
    made, _ = coded(np.int16)
    z, ((k, r), _) = ragged(np.int16)[4]
    for a, b in itertools.product(ISAS, repeat=2):
        pair = decoders([made[4]], isa=a) + decoders([made[4]], isa=b)
        outs = [np.empty_like(r) for _ in pair]
        assert _rans.z_batch(pair, [np.empty_like(z) for _ in pair], threads=1) == [None, None]
        assert _rans.phase_batch(pair, [k, k], outs, threads=1) == [None, None]
        assert all(np.array_equal(out, r) for out in outs)


@forks
def test_decoders_live_as_long_as_their_batch():
    """Even if nobody else holds them."""
    made, _ = coded(np.int16)
    z, _ = ragged(np.int16)[4]

    class Fresh:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return decoders([made[4]])[0] if i < 2 else [][0]

    def work():
        for _ in range(100):
            outs = [np.empty_like(z) for _ in range(2)]
            assert _rans.z_batch(Fresh(), outs) == [None, None]
            assert all(np.array_equal(out, z) for out in outs)

    in_child(work)
