"""decode_iter and decode_tensors: the pictures of decode, in order, whatever goes together, and nothing lost."""

import gc
import os
import pickle
import threading
import time

import numpy as np
import pytest
import torch
from conftest import textured

import ckbd
from ckbd.codec import batches, zone
from ckbd.codec.container import FormatError
from ckbd.codec.decoder import Decoder
from ckbd.pipeline import decode, sources, work

SIZES = [(64, 64), (1, 1), (200, 170), (60, 64), (64, 50), (90, 300), (130, 65), (64, 64), (2, 129), (1, 700)]


@pytest.fixture(scope="module")
def streams(tiny):
    """A stream of each size, one of them of a picture without colour."""
    pictures = [textured(h, w, i) for i, (h, w) in enumerate(SIZES)]
    pictures[3] = pictures[3][..., 0]
    return tiny.encode(pictures, [10 * (i + 1) for i in range(len(SIZES))])


@pytest.fixture(scope="module")
def want(tiny, streams):
    """uint8 (H, W, 3) of each."""
    return [torch.from_numpy(tiny.decode_pictures([s])[0].rgb) for s in streams]


@pytest.fixture(scope="module")
def flat(tiny):
    """The same codec as a GPU's runs: all sizes in one batch, through the kernels' twins."""
    d = tiny.decoder
    exact = zone.Kernels(d.model.layers, d.device, backend="torch")
    made = Decoder(d.model, exact, d.tables, device=d.device, team=d.team, max_pixels=d.max_pixels)
    return ckbd.Codec(tiny.encoder, made, d.team, d.device)


@pytest.fixture(params=["tiny", "flat"])
def codec(request):
    return request.getfixturevalue(request.param)


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("ckbd")]


def damaged(stream, seed=0):
    """The stream with a byte of its payload changed."""
    at = len(stream) // 2 + seed % 5
    return stream[:at] + bytes([stream[at] ^ 0x55]) + stream[at + 1 :]


@pytest.mark.parametrize("batch_count", [1, 3, 256])
@pytest.mark.parametrize("batch_pixels", [1, 1 << 14, None])
def test_pictures_are_those_of_decode_whatever_goes_together(codec, streams, want, batch_count, batch_pixels):
    out = list(codec.decode_iter(streams, layout="HWC", batch_count=batch_count, batch_pixels=batch_pixels))
    assert [name for name, _ in out] == list(range(len(streams)))
    for (_, x), rgb in zip(out, want, strict=True):
        assert torch.equal(x, rgb)
    order = [4, 0, 8, 8, 2]
    for x, i in zip(codec.decode_tensors([streams[i] for i in order], layout="HWC"), order, strict=True):
        assert torch.equal(x, want[i])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_layouts_and_dtypes_are_the_same_pixels(codec, streams, want, dtype, layout):
    for x, rgb in zip(codec.decode_tensors(streams, layout=layout, dtype=dtype), want, strict=True):
        chw = x if layout == "CHW" else x.permute(2, 0, 1)
        assert x.dtype == dtype and x.is_contiguous() and not x.is_inference()
        exact = rgb.permute(2, 0, 1)
        assert torch.equal(chw, exact if dtype == torch.uint8 else exact.float().div(255).to(dtype))


def test_latents_are_those_of_decode_latents_to_the_bit(codec, tiny, streams, monkeypatch):
    found = []
    real = type(codec.decoder.zone).latents

    def look(self, state):
        y_hat = real(self, state)
        found.extend(y[0].to(torch.int16).numpy().copy() for y in y_hat)
        return y_hat

    monkeypatch.setattr(type(codec.decoder.zone), "latents", look)
    list(codec.decode_iter(streams, batch_count=4))
    for y_hat in tiny.decode_latents(streams):
        assert any(y_hat.shape == other.shape and np.array_equal(y_hat, other) for other in found)


def test_residuals_that_eight_bits_do_not_hold_arrive(codec, tiny, monkeypatch):
    """Their list goes beside the bytes."""
    rng = np.random.default_rng(1)
    hard = [(rng.integers(0, 2, (96, 80, 3)) * 255).astype(np.uint8), textured(64, 64)]
    streams = tiny.encode(hard, 100, effort=0)
    symbols = tiny.encoder.symbols([ckbd.Picture(hard[0])], [100.0], 0)
    if max(int(np.abs(r).max()) for _, r in symbols[0][1]) <= 127:
        monkeypatch.setattr(tiny.encoder.model, "log_gain", tiny.encoder.model.log_gain + 2)
        streams = tiny.encode(hard, 100, effort=0)
        symbols = tiny.encoder.symbols([ckbd.Picture(hard[0])], [100.0], 0)
    assert max(int(np.abs(r).max()) for _, r in symbols[0][1]) > 127
    for x, picture in zip(codec.decode_tensors(streams, layout="HWC"), tiny.decode_pictures(streams), strict=True):
        assert np.array_equal(x.numpy(), picture.rgb)


def test_names_paths_buffers_and_pairs(codec, streams, want, tmp_path):
    path = tmp_path / "a.ckbd"
    path.write_bytes(streams[1])
    given = [
        streams[0],
        path,
        str(path),
        ("x", bytearray(streams[2])),
        ("y", path),
        memoryview(streams[3]),
        np.frombuffer(streams[4], np.uint8),
        torch.frombuffer(bytearray(streams[5]), dtype=torch.uint8),
    ]
    names = [0, path, str(path), "x", "y", 5, 6, 7]
    out = list(codec.decode_iter(iter(given), layout="HWC"))
    assert [name for name, _ in out] == names
    for (_, x), i in zip(out, [0, 1, 1, 2, 1, 3, 4, 5], strict=True):
        assert torch.equal(x, want[i])


def test_the_callers_tensors_are_written_and_given_back(codec, streams, want):
    same = [streams[0], streams[7]]
    out = torch.zeros(3, 64, 64, 3, dtype=torch.uint8)
    found = codec.decode_tensors(same, layout="HWC", out=out)
    assert [x.data_ptr() for x in found] == [out[0].data_ptr(), out[1].data_ptr()]
    assert torch.equal(out[0], want[0]) and torch.equal(out[1], want[7]) and not out[2].any()
    bad = [
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), ValueError, r"out: expected torch.uint8 \(64, 64, 3\) on cpu"),
        (torch.zeros(2, 64, 64, 3), ValueError, "got torch.float32"),
        ([np.zeros((64, 64, 3), np.uint8)] * 2, TypeError, "out: expected tensors, got ndarray"),
        (out[:1], ValueError, "there are fewer tensors than sources, none is left for 1"),
    ]
    for given, error, message in bad:
        with pytest.raises(error, match=message):
            codec.decode_tensors(same, layout="HWC", out=given)


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
    from ckbd.codec import container

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


def test_what_cannot_be_meant_is_refused_before_anything_is_read(codec, streams):
    def never():
        raise AssertionError("nothing was asked for")
        yield

    for options, message in (
        ({"layout": "WHC"}, "layout: expected CHW or HWC, got 'WHC'"),
        ({"dtype": torch.int8}, "dtype: expected torch.uint8, torch.float16, torch.float32, got torch.int8"),
        ({"on_error": "skip"}, "on_error: expected 'raise' or 'yield', got 'skip'"),
        ({"batch_pixels": 0}, "batch_pixels: expected a whole number of at least 1, got 0"),
        ({"batch_count": -1}, "batch_count: expected a whole number of at least 1, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            codec.decode_iter(never(), **options)
    with pytest.raises(TypeError, match="expected several, got a single one"):
        list(codec.decode_iter(streams[0]))
    for wrong in (5, None, np.zeros((2, 2), np.uint8), torch.zeros(3)):
        with pytest.raises(TypeError, match="stream: expected bytes"):
            list(codec.decode_iter([wrong], on_error="yield"))
    assert list(codec.decode_iter([])) == [] and codec.decode_tensors([]) == []


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


def test_several_iterators_share_a_codec(codec, streams, want):
    wrong = []

    def go(seed):
        order = np.random.default_rng(seed).integers(len(streams), size=30).tolist()
        for (_, x), i in zip(codec.decode_iter([streams[i] for i in order], layout="HWC"), order, strict=True):
            if not torch.equal(x, want[i]):
                wrong.append((seed, i))

    others = [threading.Thread(target=go, args=(seed,)) for seed in range(4)]
    for t in others:
        t.start()
    go(9)
    for t in others:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_before_first_use_may_decode(tiny_path, streams, want):
    codec = ckbd.load(tiny_path, threads=2)
    pid = os.fork()
    if pid == 0:
        out = codec.decode_tensors(streams, layout="HWC")
        os._exit(0 if all(torch.equal(x, y) for x, y in zip(out, want, strict=True)) else 1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    if ended[0] == 0:
        os.kill(pid, 9)
    assert ended == (pid, 0)


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


def test_models_of_the_papers_go_through_it_too(tmp_path):
    from conftest import TINY

    from ckbd.papers import file as variantfile
    from ckbd.papers.variant import Variant, VariantConfig

    torch.manual_seed(0)
    small = {k: getattr(TINY, k) for k in ("width", "M", "Nz", "hyper", "h_s", "psi", "H1", "H2")}
    variantfile.save(Variant(VariantConfig(**small, context="raster")), tmp_path / "v.safetensors")
    codec = ckbd.load(tmp_path / "v.safetensors")
    given = codec.encode([textured(70, 90), textured(64, 64)[..., 0]])
    for x, picture in zip(codec.decode_tensors(given), codec.decode_pictures(given), strict=True):
        assert np.array_equal(x.permute(1, 2, 0).numpy(), picture.rgb)
    out = torch.zeros(1, 3, 70, 90)
    codec.decode_tensors(given[:1], dtype=torch.float32, out=out)
    assert torch.equal(out[0] * 255, codec.decode_tensors(given[:1])[0].float())
    found = [x for _, x in codec.decode_iter([given[0][:30], given[1]], on_error="yield")]
    assert isinstance(found[0], FormatError) and found[1].shape == (3, 64, 64)


def test_peeking_says_what_the_header_says(streams):
    from ckbd.codec import container

    for s, size in zip(streams, SIZES, strict=True):
        assert container.peek(s) == size
        for n in range(len(s)):
            assert container.peek(s[:n]) in (None, size)
    assert container.peek(b"\xff" * 40) is None


def test_large_pictures_go_in_strips_and_windows_hold_one(codec, tiny, monkeypatch):
    monkeypatch.setitem(batches.MAX_BATCH_PIXELS, "cpu", 1 << 13)
    monkeypatch.setitem(decode.PIXELS, "cpu", 1 << 12)
    (data,) = tiny.encode([textured(330, 260)])
    (picture,) = tiny.decode_pictures([data])
    for x in codec.decode_tensors([data, data], layout="HWC"):
        assert np.array_equal(x.numpy(), picture.rgb)


def test_half_precision_is_near(codec, streams, want):
    """What a GPU does by default: the latents are the same, pixels nearly."""
    for (_, x), rgb in zip(codec.decode_iter(streams, layout="HWC", half=True), want, strict=True):
        assert (x.int() - rgb.int()).abs().max() <= 4 and (x.int() - rgb.int()).float().abs().mean() < 0.5


def test_a_side_that_kernels_cannot_take_is_an_error_of_its_own(tiny, flat, streams, want):
    (long,) = tiny.encode([np.zeros(((1 << 19) + 65, 1, 3), np.uint8)])
    out = [x for _, x in flat.decode_iter([streams[0], long, streams[1]], layout="HWC", on_error="yield")]
    assert torch.equal(out[0], want[0]) and torch.equal(out[2], want[1])
    assert (out[1].field, out[1].offset) == ("height", 14) and "524353 pixels are more than the 524288" in str(out[1])
    with pytest.raises(FormatError, match="height at byte 14"):
        flat.decode([long])
    (x,) = tiny.decode_tensors([long])
    assert x.shape == (3, (1 << 19) + 65, 1)


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


def test_a_callers_autocast_reaches_no_pixel(tiny_path, streams, want):
    codec = ckbd.load(tiny_path, threads=3)
    picture = textured(300, 300)
    stream = codec.encode([picture])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert codec.encode([picture]) == stream and [s for _, s in codec.encode_iter([picture])] == stream
        for x, p, rgb in zip(
            codec.decode_tensors(streams, layout="HWC"), codec.decode_pictures(streams), want, strict=True
        ):
            assert torch.equal(x, rgb) and np.array_equal(p.rgb, rgb.numpy())


def test_garbage_collected_on_a_thread_of_ours_does_not_wait_for_itself(tiny_path, streams):
    """An iterator in a cycle, found by a collector that runs where its own threads wait for the work."""
    codec = ckbd.load(tiny_path, threads=2)

    class Holder:
        pass

    holder = Holder()
    holder.me, holder.iterator = holder, codec.decode_iter(streams * 20, batch_count=1)
    next(holder.iterator)
    done = threading.Event()

    def collect(_):
        gc.collect()
        done.set()

    gc.disable()
    try:
        del holder
        with decode.flow.machine.executor(1) as crew:
            crew.submit(collect, 0)
            assert done.wait(20)
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_in_the_middle_of_an_iteration(tiny_path, streams, want):
    """The child decodes with the same codec; the parent's iterator does not go on there, and says so."""
    codec = ckbd.load(tiny_path, threads=2)
    iterator = codec.decode_iter(streams * 20, batch_count=1)
    next(iterator)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            out = codec.decode_tensors(streams, layout="HWC")
            if all(torch.equal(x, y) for x, y in zip(out, want, strict=True)):
                next(iterator)
        except RuntimeError as error:
            status = 0 if "only in the process that began it" in str(error) else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    if ended[0] == 0:
        os.kill(pid, 9)
    assert ended == (pid, 0)
    assert len(list(iterator)) == 20 * len(streams) - 1, "the parent's goes on"


def test_what_is_given_may_be_written_over_at_once(codec, streams, want):
    """Compressed bytes are copied when they are taken."""
    length = max(map(len, streams))
    buffer = bytearray(length)

    def source():
        for s in streams:
            buffer[: len(s)] = s
            yield memoryview(buffer)[: len(s)]

    for (_, x), rgb in zip(codec.decode_iter(source(), layout="HWC"), want, strict=True):
        assert torch.equal(x, rgb)


def test_mappings_and_lists_of_two_name_their_streams(codec, streams, want):
    for given in ({"a": streams[0], "b": streams[1]}, [["a", streams[0]], ["b", streams[1]]]):
        out = list(codec.decode_iter(given, layout="HWC"))
        assert [name for name, _ in out] == ["a", "b"] and torch.equal(out[1][1], want[1])


@pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="notes came with Python 3.11")
def test_an_error_that_is_raised_says_of_which(codec, streams, tmp_path):
    for bad in (streams[1][:-1], 5):
        with pytest.raises((FormatError, TypeError)) as raised:
            list(codec.decode_iter([("good", streams[0]), ("bad", bad)]))
        assert raised.value.__notes__ == ["ckbd: this is of 'bad'"]


def test_a_codec_is_pickled_as_what_loads_it_again(tiny_path, streams, want):
    codec = pickle.loads(pickle.dumps(ckbd.load(tiny_path, threads=2, max_pixels=1 << 20)))
    assert codec.team.threads == 2 and codec.decoder.max_pixels == 1 << 20
    assert torch.equal(codec.decode_tensors(streams[:1], layout="HWC")[0], want[0])
    with pytest.raises(TypeError, match="load one in each process"):
        pickle.dumps(ckbd.Codec(codec.encoder, codec.decoder, codec.team, codec.device))
