"""decode_iter where something fails or ends: bad streams, sources, threads, processes; and how far ahead it goes."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from children import forks, in_child
from conftest import textured

import ckbd
from ckbd.codec import container
from ckbd.codec.container import FormatError
from ckbd.codec.machine import Team
from ckbd.pipeline import decode, flow, sources, work


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("ckbd")]


def damaged(stream, seed=0):
    """The stream with a byte of its payload changed."""
    at = len(stream) // 2 + seed % 5
    return stream[:at] + bytes([stream[at] ^ 0x55]) + stream[at + 1 :]


def test_a_bad_stream_takes_no_neighbour_along(codec, streams, want, tmp_path):
    """1 in 100 at random places: the others right, the one named with the error that decode gives of it."""
    rng = np.random.default_rng(0)
    for run in range(20):
        order = rng.integers(len(streams), size=100).tolist()
        bad, given = int(rng.integers(100)), [streams[i] for i in order]
        kind = run % 4
        if kind == 0:
            given[bad] = damaged(given[bad], run)
        elif kind == 1:
            given[bad] = given[bad][: int(rng.integers(len(given[bad])))]
        elif kind == 2:
            flipped = bytearray(given[bad])
            flipped[int(rng.integers(len(flipped)))] ^= 1 << int(rng.integers(8))
            given[bad] = bytes(flipped)
        else:
            given[bad] = b""
        with pytest.raises(FormatError) as error:
            codec.decode([given[bad]])
        out = list(codec.decode_iter(given, layout="HWC", on_error="yield", batch_count=int(rng.integers(1, 60))))
        for n, (name, x) in enumerate(out):
            assert name == n
            if n == bad:
                assert isinstance(x, FormatError)
                assert (x.field, x.offset, x.reason) == (error.value.field, error.value.offset, error.value.reason)
            else:
                assert torch.equal(x, want[order[n]])
    given = [streams[0], damaged(streams[1]), streams[2]]
    with pytest.raises(FormatError):
        codec.decode_tensors(given)
    iterator = codec.decode_iter(given)
    assert next(iterator)[0] == 0
    with pytest.raises(FormatError):
        next(iterator)
    (missing,) = [x for _, x in codec.decode_iter([tmp_path / "none.ckbd"], on_error="yield")]
    assert isinstance(missing, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        list(codec.decode_iter([tmp_path / "none.ckbd"]))


def test_payloads_that_break_late_name_the_field(codec, tiny, streams):
    """Bytes whose checksums are right: the coder finds the fault, in the middle of a batch."""

    parsed = container.parse(streams[2])
    found = 0
    for at in range(5, len(parsed.payload), 7):
        payload = parsed.payload[:at] + bytes([parsed.payload[at] ^ 0x80]) + parsed.payload[at + 1 :]
        data = container.pack(container.Stream(parsed.header, payload))
        try:
            (rgb,) = tiny.decode_pictures([data])
            expected = None
        except FormatError as error:
            expected = (error.field, error.offset, error.reason)
            found += 1
        out = [x for _, x in codec.decode_iter([streams[2], data, streams[2]], layout="HWC", on_error="yield")]
        assert torch.equal(out[0], out[2])
        if expected is None:
            assert np.array_equal(out[1].numpy(), rgb.rgb)
        else:
            assert (out[1].field, out[1].offset, out[1].reason) == expected
    assert found > 3


def test_a_side_that_kernels_cannot_take_is_an_error_of_its_own(tiny, flat, streams, want):
    (long,) = tiny.encode([np.zeros(((1 << 19) + 65, 1, 3), np.uint8)])
    out = [x for _, x in flat.decode_iter([streams[0], long, streams[1]], layout="HWC", on_error="yield")]
    assert torch.equal(out[0], want[0]) and torch.equal(out[2], want[1])
    assert (out[1].field, out[1].offset) == ("height", 14) and "524353 pixels are more than the 524288" in str(out[1])
    with pytest.raises(FormatError, match="height at byte 14"):
        flat.decode([long])
    (x,) = tiny.decode_tensors([long])
    assert x.shape == (3, (1 << 19) + 65, 1)


def test_what_a_source_gave_before_its_error_is_given_on(codec, streams, want):
    def source():
        yield streams[0]
        yield streams[1]
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for _, x in codec.decode_iter(source(), layout="HWC"):
            found.append(x)
    assert len(found) == 2 and all(torch.equal(x, rgb) for x, rgb in zip(found, want, strict=False))
    found = []
    with pytest.raises(TypeError, match="stream: expected bytes"):
        for _, x in codec.decode_iter([streams[0], 5]):
            found.append(x)
    assert len(found) == 1


@pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="notes came with Python 3.11")
def test_an_error_that_is_raised_says_of_which(codec, streams, tmp_path):
    for bad in (streams[1][:-1], 5):
        with pytest.raises((FormatError, TypeError)) as raised:
            list(codec.decode_iter([("good", streams[0]), ("bad", bad)]))
        assert raised.value.__notes__ == ["ckbd: this is of 'bad'"]


def test_an_error_of_ours_is_raised_at_its_place(codec, streams, monkeypatch):
    calls = 0
    real = work.Work.batch

    def fail(self, lane, items):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError("none left")
        return real(self, lane, items)

    monkeypatch.setattr(work.Work, "batch", fail)
    monkeypatch.setattr(codec._decoding, "parallel", 1)
    iterator = codec.decode_iter([streams[0]] * 6, batch_count=1, on_error="yield")
    assert next(iterator)[0] == 0
    with pytest.raises(MemoryError, match="none left"):
        next(iterator)


def test_the_source_is_taken_no_further_than_windows_go(codec, streams):
    taken = 0

    def source():
        nonlocal taken
        while True:
            taken += 1
            yield streams[0]

    iterator = codec.decode_iter(source(), batch_count=5)
    depth = 2 if codec.decoder.device.type == "cpu" else decode.IN_FLIGHT + 1
    for n in range(40):
        next(iterator)
        # A window more is asked for while one is being taken; its end is known by the item after it.
        assert taken <= n + 1 + 5 * depth + 1
    iterator.close()


def test_windows_count_what_a_picture_takes_however_thin(codec, tiny, monkeypatch):
    (thin,) = tiny.encode([textured(1, 64 * 40)])
    monkeypatch.setitem(decode.PIXELS, "cpu", 64 * 64 * 100)
    sizes = []
    real = work.Work.batch
    monkeypatch.setattr(
        work.Work, "batch", lambda self, lane, items: sizes.append(len(items)) or real(self, lane, items)
    )
    list(codec.decode_iter([thin] * 10))
    assert max(sizes) <= 2 and sum(sizes) == 10


def test_files_are_read_ahead_but_not_all(tmp_path):
    paths = [tmp_path / str(i) for i in range(200)]
    read = []

    def load(path):
        read.append(path)
        return path

    items = sources.read(iter(paths), load)
    for n in range(50):
        assert next(items).value == paths[n]
        assert len(read) <= n + 2 + sources.READ_AHEAD
    items.close()


def test_an_iterator_that_ends_early_leaves_nothing_at_work(codec, streams):
    before = len(threads())

    def source():
        yield from streams
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(codec.decode_iter(source(), batch_count=2))

    class Stop(Exception):
        pass

    with pytest.raises(Stop):
        for _ in codec.decode_iter(streams * 5, batch_count=2):
            raise Stop
    iterator = codec.decode_iter(streams * 5, batch_count=2)
    next(iterator)
    del iterator
    gc.collect()
    iterator = codec.decode_iter(streams)  # never begun
    iterator.close()
    deadline = time.monotonic() + 10
    while len(threads()) > before + codec.decoder.team.threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(threads()) <= before + codec.decoder.team.threads, "only the pool's own threads live on"
    assert codec.decoder.team._idle == codec.decoder.team.threads - 1


def test_garbage_collected_on_a_thread_of_ours_does_not_wait_for_itself():
    """An iterator in a cycle, found by a collector on a thread that helps with a batch of that very iterator."""
    team, crew = Team(3), threading.local()
    dropped, helping, collected = threading.Event(), threading.Event(), threading.Event()

    def part(_):
        if getattr(crew, "here", False):
            assert helping.wait(20), "somebody helps"
            return
        helping.set()
        assert dropped.wait(20)
        gc.collect()
        collected.set()

    def work(items):
        crew.here = True
        if items != [0]:
            team(part, range(2))
        return items

    class Holder:
        pass

    holder = Holder()
    windows = (flow.Window([n], [[0]]) for n in range(2))
    holder.me, holder.iterator = holder, flow.run(windows, work, team, 1, 2)
    gc.disable()
    try:
        assert next(holder.iterator) == (0, 0)
        assert helping.wait(20)
        del holder
        dropped.set()
        assert collected.wait(20)
    finally:
        gc.enable()


def test_several_iterators_share_a_codec(codec, streams, want):
    def go(seed):
        order = np.random.default_rng(seed).integers(len(streams), size=30).tolist()
        out = [x for _, x in codec.decode_iter([streams[i] for i in order], layout="HWC")]
        return all(torch.equal(x, want[i]) for x, i in zip(out, order, strict=True))

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(go, range(5))) == [True] * 5


@forks
def test_a_fork_before_first_use_may_decode(tiny_path, streams, want):
    codec = ckbd.load(tiny_path, threads=2)

    def work():
        for x, rgb in zip(codec.decode_tensors(streams, layout="HWC"), want, strict=True):
            assert np.array_equal(x, rgb)  # PyTorch's own threads, where it has had some, a child waits for in vain

    in_child(work)


@forks
def test_a_fork_in_the_middle_of_an_iteration(tiny_path, streams, want):
    """The child decodes with the same codec; the parent's iterator does not go on there, and says so."""
    codec = ckbd.load(tiny_path, threads=2)
    iterator = codec.decode_iter(streams * 20, batch_count=1)
    next(iterator)

    def work():
        for x, rgb in zip(codec.decode_tensors(streams, layout="HWC"), want, strict=True):
            assert np.array_equal(x, rgb)  # PyTorch's own threads, where it has had some, a child waits for in vain
        with pytest.raises(RuntimeError, match="only in the process that began it"):
            next(iterator)

    in_child(work)
    assert len(list(iterator)) == 20 * len(streams) - 1, "the parent's goes on"
