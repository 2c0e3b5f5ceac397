"""Python code that a call itself runs, and threads beside it, come in where nothing is half done."""

import random
import threading

import numpy as np
import pytest
from children import forks, in_child
from hostile_cases import CALLS, callables
from open_cases import OTHER, batch, own
from rans_cases import TABLES, check_margins, make_phase, make_z, room

from ckbd import _rans


class Inside:
    """An array or a number that calls before() when it is asked for."""

    data_ptr = None

    def __init__(self, value, before):
        self.value, self.before = value, before

    def numpy(self):
        self.before()
        return self.value

    def __index__(self):
        self.before()
        return self.value


@forks
@pytest.mark.parametrize("of", ["k", "out", "threads"])
def test_a_phase_of_a_batch_comes_before_another(of):
    """The arrays are as large as the phase that was next, and the one that is next is larger."""

    def work():
        rng = np.random.default_rng(3)
        phases = [make_phase(rng, n, low=5) for n in (24, 24, 4000, 4000)]
        phases = [(k, r.clip(-1023, 1023)) for k, r in phases]
        made = batch([own(phases, np.zeros(4, np.int16), 64, 64)], **OTHER | {"channels": [3, 500]})
        made.z(np.zeros(4, np.int16))
        (first, second), (k, r) = phases[:2], phases[2]
        outs = [room(24, np.int8) for _ in range(3)]

        def before():
            made.phase(first[0], outs[0])
            made.phase(second[0], outs[1])

        given = {"k": phases[0][0], "out": outs[2], "threads": 1}
        given[of] = Inside(given[of], before)
        with pytest.raises(ValueError, match="^k: expected 4000 elements, got 24"):
            made.phase(**given)
        for out in outs:
            check_margins(out, [])
        found = room(4000, np.int8)
        made.phase(k, found)
        assert np.array_equal(found, np.where(np.abs(r + 0.5) > 128, 0, r))
        made.phase(phases[3][0], found)
        made.finish()
        assert made.errors() == []

    in_child(work)


@forks
@pytest.mark.parametrize("name", sorted(CALLS))
def test_calls_within_themselves(name):
    """Each argument calls the same, of the same object, before it is what it should be."""

    def work():
        positional, named = CALLS[name]()
        for slot, value in named.items():
            if not isinstance(value, np.ndarray | bytes | int):
                continue
            for times in (1, 2, 3):
                positional, given = CALLS[name]()

                def before(positional=positional, given=given, times=times):
                    for _ in range(times):
                        try:
                            callables()[name](*positional, **given)
                        except (ValueError, RuntimeError):
                            pass

                try:
                    callables()[name](*positional, **given | {slot: Inside(value, before)})
                except (TypeError, ValueError, RuntimeError):
                    pass

    in_child(work)


@forks
def test_a_payload_that_changes_between_steps():
    """It is read again in each step, and what is found then is no longer what was looked at before."""

    def work():
        numbers, rng = random.Random(5), np.random.default_rng(5)
        z, phases = make_z(rng, 9), [make_phase(rng, 500), make_phase(rng, 300)]
        for lanes in (1, 4, 32):
            coded, *header = _rans.encode(TABLES, z, phases, lanes=lanes, skip_max=2)
            named = dict(zip(("lanes_log2", "skip_max", "tail"), header, strict=True))
            for _ in range(300):
                payload = bytearray(coded)
                made = _rans.Decoder(TABLES, payload, **named)
                try:
                    for step in range(4):
                        if numbers.randrange(2):
                            low = numbers.randrange(len(payload))
                            high = min(len(payload), low + numbers.choice((1, 4, 400)))
                            fill = numbers.choice((0, 0x80, 0xFF, None))
                            payload[low:high] = (
                                rng.bytes(high - low) if fill is None else bytes([fill]) * (high - low)
                            )
                        out = room(len(z) if step == 0 else len(phases[min(step, 2) - 1][0]), np.int16)
                        if step == 0:
                            made.z(out)
                        elif step < 3:
                            made.phase(phases[step - 1][0], out)
                        else:
                            made.finish()
                        check_margins(out, [])
                except _rans.StreamError:
                    check_margins(out, [])

    in_child(work)


def test_a_batch_is_looked_at_while_it_works():
    """errors() and headers() of one thread, while another decodes: what was so before, or after."""
    rng = np.random.default_rng(3)
    phases = [make_phase(rng, 24 * 4000, low=5) for _ in range(2)]
    phases = [(k, r.clip(-1023, 1023)) for k, r in phases]
    streams = [own(phases, np.zeros(4 * 4000, np.int16), 64 * 4000, 64), b"damaged"]
    made, over, seen = batch(streams, **OTHER), threading.Event(), []

    def look():
        while not over.is_set():
            headers = np.zeros((2, 8), np.int64)
            made.headers(headers)
            seen.append((made.errors()[0][0], len(made.errors()), headers[:, 0].tolist()))

    looking = threading.Thread(target=look)
    looking.start()
    made.z(np.zeros(4 * 4000, np.int16))
    for k, _ in phases:
        made.phase(k, np.zeros(len(k), np.int8))
    made.finish()
    over.set()
    looking.join()
    assert set(map(str, seen)) == {str((1, 1, [1, 0]))}
