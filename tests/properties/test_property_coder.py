"""The coder of version 1: any tables, symbols, lanes and skip_max come back, by every instruction set and a twin."""

import numpy as np
from hypothesis import given, note
from hypothesis import strategies as st
from rans_cases import DTYPES, ISAS, LANES, batch_outcomes, outcome, plain_decode, to_decode
from strategies import damaged, edits, examples, phases, tables, z_symbols

from ckbd import _rans


@st.composite
def images(draw, runs=6, most=30):
    """(arrays of tables, z, [(k, r) of each phase], lanes, skip_max), r of one dtype."""
    arrays = draw(tables())
    z = draw(z_symbols(len(arrays[3]), most=most))
    parts = phases(draw(st.sampled_from(DTYPES)), runs)
    found = draw(st.lists(parts, min_size=1, max_size=4))
    lanes = draw(st.none() | st.sampled_from(LANES))
    return arrays, z, found, lanes, draw(st.none() | st.integers(0, 15))


def encoded(coder, z, parts, lanes, skip_max):
    """What encode() makes of an image, which is the same by every instruction set and in a batch."""
    options = {"lanes": lanes, "skip_max": skip_max}
    (coded,) = {_rans.encode(coder, z, parts, isa=isa, **options) for isa in ISAS}
    assert _rans.encode_batch(coder, [(z, parts)] * 3, threads=2, **options) == [coded] * 3
    payload, lanes_log2, chosen, tail = coded
    assert 1 << lanes_log2 <= (lanes or 32) and (tail > 0) == (lanes_log2 > 0)
    assert chosen == skip_max or (skip_max is None and 0 <= chosen <= 4)
    return coded


def every_outcome(coder, coded, n_z, ks, dtype):
    """What decoding makes of a payload, which is the same by every instruction set, in steps and in a batch."""
    ways = [{"isa": isa, "steps": steps} for isa in ISAS for steps in (False, True)]
    found = [outcome(*coded, n_z, ks, dtype=dtype, tables=coder, **way) for way in ways]
    for isa in ISAS:
        batch = [to_decode(coded, n_z, ks, dtype) for _ in range(3)]
        found += batch_outcomes(batch, _rans.decode_batch(coder, batch, threads=2, isa=isa))
    assert found == found[:1] * len(found)
    return found[0]


@examples(70)
@given(images())
def test_symbols_come_back_by_every_way(image):
    arrays, z, parts, lanes, skip_max = image
    coder, dtype = _rans.Tables(*arrays), parts[0][1].dtype
    coded = encoded(coder, z, parts, lanes, skip_max)
    found = every_outcome(coder, coded, len(z), [k for k, _ in parts], dtype)
    assert found == (z.tobytes(), *(r.tobytes() for _, r in parts))


@examples(25)
@given(images(runs=2, most=6))
def test_a_plain_decoder_reads_them(image):
    arrays, z, parts, lanes, skip_max = image
    coded = _rans.encode(_rans.Tables(*arrays), z, parts, lanes=lanes, skip_max=skip_max)
    plain_z, rs = plain_decode(*coded, len(z), [k.tolist() for k, _ in parts], arrays)
    assert (plain_z, rs) == (z.tolist(), [r.tolist() for _, r in parts])


def plainly(coded, n_z, ks, arrays):
    """The symbols that the plain decoder makes of a payload, None where it finds none."""
    try:
        z, rs = plain_decode(*coded, n_z, ks, arrays)
    except (AssertionError, IndexError, StopIteration):
        return None
    return (z, rs)


@examples(60)
@given(images(runs=2, most=5), edits, st.integers(-1, 1), st.integers(-3, 3), st.booleans())
def test_damage_has_one_outcome(image, changes, lanes_by, tail_by, header):
    """By every way; and the plain decoder refuses what they refuse, or reads the same symbols."""
    arrays, z, parts, lanes, skip_max = image
    coder, dtype, ks = _rans.Tables(*arrays), parts[0][1].dtype, [k for k, _ in parts]
    payload, lanes_log2, chosen, tail = _rans.encode(coder, z, parts, lanes=lanes, skip_max=skip_max)
    if header:
        lanes_log2, tail = min(max(lanes_log2 + lanes_by, 0), 5), max(tail + tail_by, 0)
        chosen = min(max(chosen + tail_by, 0), 15)
    else:
        payload = damaged(payload, changes)
    if (tail > 0) != (lanes_log2 > 0):
        tail = int(lanes_log2 > 0)
    coded = payload, lanes_log2, chosen, tail
    note(f"coded {coded}")
    found = every_outcome(coder, coded, len(z), ks, dtype)
    read = plainly(coded, len(z), [k.tolist() for k in ks], arrays)
    if isinstance(found[0], str):
        limits = np.iinfo(dtype)
        beyond = read and not all(
            low <= v <= high
            for (low, high), values in [((-32768, 32767), read[0]), *(((limits.min, limits.max), r) for r in read[1])]
            for v in values
        )
        assert read is None or beyond
        assert found[1] in ("lane states", "exceptions", "escapes", "words", "tail", "end state")
        assert 0 <= found[2] <= len(payload)
    else:
        assert read is not None
        assert found == (np.array(read[0], np.int16).tobytes(), *(np.array(r, dtype).tobytes() for r in read[1]))


@examples(35)
@given(images(runs=3), st.integers(0, 15))
def test_ideal_bits_are_those_of_the_tables(image, skip_max):
    """-log2 of what each symbol's frequency is of 4096, of an escape its slot's."""
    arrays, _, parts, _, _ = image
    y_freq, y_max = (a.astype(int) for a in arrays[:2])
    bits = 0.0
    for k, r in parts:
        place = np.minimum(np.abs(r.astype(int)), y_max[k] + 1)
        bits -= np.log2(y_freq[k, place] / 4096).sum()
    assert np.isclose(_rans.ideal_bits(_rans.Tables(*arrays), parts), bits, rtol=1e-6, atol=1e-3)
