"""CompressAI's classes keep the tables of their last call; whatever has changed since, answers are right."""

import gc
import random
import sys
import weakref

import numpy as np
import plain_ans
import pytest
from ans_cases import Case, make_case

from ckbd import _ans


class Coders:
    """Encoders and decoders that are used again and again, each answer compared with the twin's."""

    def __init__(self):
        self.encoder, self.buffered, self.decoder = _ans.RansEncoder(), _ans.BufferedRansEncoder(), _ans.RansDecoder()
        self.stepping = _ans.RansDecoder()

    def check(self, symbols, indexes, *tables, plain=None):
        """plain: the tables as the twin takes them."""
        plain = plain or tables
        stream = plain_ans.encode(symbols, indexes, *plain)
        assert self.encoder.encode_with_indexes(symbols, indexes, *tables) == stream
        self.buffered.encode_with_indexes(symbols, indexes, *tables)
        assert self.buffered.flush() == stream
        expected = plain_ans.decode(stream, indexes, *plain)
        assert self.decoder.decode_with_indexes(stream, indexes, *tables) == expected
        self.stepping.set_stream(stream)
        half = len(indexes) // 2
        parts = [self.stepping.decode_stream(part, *tables) for part in (indexes[:half], indexes[half:])]
        assert parts[0] + parts[1] == expected

    def refuse(self, error, symbols, indexes, *tables):
        for call in (
            lambda: self.encoder.encode_with_indexes(symbols, indexes, *tables),
            lambda: self.buffered.encode_with_indexes(symbols, indexes, *tables),
            lambda: self.decoder.decode_with_indexes(bytes(400), indexes, *tables),
            lambda: self.stepping.decode_stream(indexes, *tables),
        ):
            with pytest.raises(error):
                call()


def filled_up(case: Case, n: int = 400) -> Case:
    """Rows with zeros behind them, as CompressAI's are, whose entries are other objects than small integers."""
    return case._replace(cdfs=[row + [0] * (n - len(row)) for row in case.cdfs])


@pytest.fixture(params=[12, 3000], ids=["few symbols", "many symbols"])
def case(request):
    return filled_up(make_case(random.Random(3), request.param, odd=0))


@pytest.fixture
def coders(case):
    coders = Coders()
    for _ in range(3):
        coders.check(*case)
    return coders


def test_entries_changed_in_place(case, coders):
    for k in range(len(case.cdfs)):
        row = case.cdfs[k]
        for at in (case.sizes[k] - 1, 1):
            if row[at] > row[at - 1] + 1:
                row[at] -= 1
                coders.check(*case)
    case.offsets[0] += 1
    case.offsets[-1] -= 70000
    fits = case._replace(symbols=[case.offsets[k] for k in case.indexes])
    coders.check(*fits)
    case.sizes[0] = 2
    coders.check(*fits)


def test_what_is_behind_a_row_is_looked_at(case, coders):
    """It is not used, but must be an integer."""
    for at in (-1, -2, case.sizes[0]):
        kept = case.cdfs[0][at]
        for wrong in (1.5, None, "1", 1 << 31, 1 << 80):
            case.cdfs[0][at] = wrong
            coders.refuse(TypeError, *case)
        case.cdfs[0][at] = 3
        coders.check(*case)
        case.cdfs[0][at] = kept
        coders.check(*case)


def test_rows_replaced_and_moved(case, coders):
    rng = random.Random(5)
    for _ in range(20):
        other = filled_up(make_case(rng, 1, odd=0))
        k = rng.randrange(len(case.cdfs))
        for lists, new in zip(case.tables, other.tables, strict=True):
            lists[k] = new[0]
        if rng.random() < 0.5:
            for lists in case.tables:
                lists.reverse()
        changed = case._replace(symbols=[plain_ans.int32(case.offsets[k] - 1) for k in case.indexes])
        coders.check(*changed)
        # The same objects in another order are other tables; in other lists they are the same.
        coders.check(changed.symbols, changed.indexes, *(list(lists) for lists in case.tables))


def test_rows_longer_shorter_fewer(case, coders):
    short = [row[:size] for row, size in zip(case.cdfs, case.sizes, strict=True)]
    coders.check(case.symbols, case.indexes, short, case.sizes, case.offsets)
    for change in (lambda row: row.append(0), lambda row: row.pop(), lambda row: row.extend([7] * 9)):
        for row in short:
            change(row)
        coders.check(case.symbols, case.indexes, short, case.sizes, case.offsets)
    for lists in (short, case.sizes, case.offsets):
        more = [*lists, lists[0]]
        tables = [more if lists is t else t for t in (short, case.sizes, case.offsets)]
        coders.check(case.symbols, case.indexes, *tables)
    last = max(case.indexes)
    for lists in case.tables:
        kept = lists[last:]
        del lists[last:]
        coders.refuse(ValueError, case.symbols, case.indexes, *case.tables)
        lists.extend(kept)
    coders.check(*case)
    short[0].clear()
    coders.refuse(ValueError, [1], [0], short, case.sizes, case.offsets)


@pytest.mark.parametrize(
    "form",
    [tuple, lambda v: np.array(v), lambda v: np.array(v, np.int32), lambda v: [np.int64(x) for x in v]],
    ids=["tuples", "int64", "int32", "numpy integers"],
)
def test_other_types_in_between(case, coders, form):
    rows, sizes, offsets = [form(row) for row in case.cdfs], form(case.sizes), form(case.offsets)
    for tables in (
        (rows, sizes, offsets),
        (tuple(rows), case.sizes, case.offsets),
        ([rows[0], *case.cdfs[1:]], case.sizes, offsets),
        case.tables,
        (case.cdfs, sizes, case.offsets),
    ):
        coders.check(case.symbols, case.indexes, *tables, plain=case.tables)
    mutable = np.array(case.cdfs[case.indexes[0]], np.int32)
    k = case.indexes[0]
    tables = [*case.cdfs[:k], mutable, *case.cdfs[k + 1 :]]
    coders.check(case.symbols, case.indexes, tables, case.sizes, case.offsets, plain=case.tables)
    mutable[: case.sizes[k]] = np.arange(case.sizes[k])
    plain = [mutable.tolist() if row is mutable else row for row in tables], case.sizes, case.offsets
    coders.check(case.symbols, case.indexes, tables, case.sizes, case.offsets, plain=plain)


def test_bools_and_subclasses_are_values(case, coders):
    class Fickle(int):
        """An integer that says another value each time."""

        def __index__(self):
            return next(values)

    coders.check(
        [1] * 9, [0] * 9, [[False, True, 65000, 65536]], [4], [False], plain=([[0, 1, 65000, 65536]], [4], [0])
    )
    for value in (60000, 50000):
        values = iter([value] * 2)
        row = [0, Fickle(7), 65000, 65536]
        seen = _ans.RansEncoder().encode_with_indexes([1, 0, 1], [0] * 3, [row], [4], [0])
        expected = int(row[1])
        assert seen == plain_ans.encode([1, 0, 1], [0] * 3, [[0, expected, 65000, 65536]], [4], [0])


def test_a_list_that_changes_while_it_is_read():
    """Whatever an item does to the list that it is in, nothing is read that is not there."""

    class Nasty:
        def __index__(self):
            row.clear()
            gc.collect()
            decoder.decode_with_indexes(bytes(99), [0], [[0, 5, 9]], [3], [0])
            return 1

    decoder = _ans.RansDecoder()
    for row in ([0, Nasty(), 10, 11], [Nasty()], [0, 1, 2, Nasty()]):
        try:
            decoder.decode_with_indexes(bytes(99), [0], [row], [4], [0])
        except (IndexError, ValueError, TypeError):
            pass
        assert decoder.decode_with_indexes(bytes(99), [0], [[0, 5, 9]], [3], [2]) == [2]


def test_objects_are_given_back():
    """Entries are held as long as they are the last, and by nobody when the coder goes."""
    entries = [10**6 + k for k in range(5)]
    before = [sys.getrefcount(entry) for entry in entries]
    decoder = _ans.RansDecoder()
    for _ in range(5):
        decoder.decode_with_indexes(bytes(99), [], [entries + [entries[-1]] * 50], [5], [0])
    held = [sys.getrefcount(entry) for entry in entries]
    assert all(a > b for a, b in zip(held, before, strict=True))
    decoder.decode_with_indexes(bytes(99), [], [[0]], [1], [0])
    assert [sys.getrefcount(entry) for entry in entries] == before
    decoder.decode_with_indexes(bytes(99), [], [entries], entries, entries)
    del decoder
    assert [sys.getrefcount(entry) for entry in entries] == before

    class Row(list):
        pass

    row = Row([0, 5, 65536])
    alive = weakref.ref(row)
    encoder = _ans.BufferedRansEncoder()
    encoder.encode_with_indexes([0], [0], [row], [3], [0])
    del row
    assert alive() is None
    assert encoder.flush() == plain_ans.encode([0], [0], [[0, 5, 65536]], [3], [0])
