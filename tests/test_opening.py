"""ckbd.open and ckbd.decode: each stream by the model that it names."""

import io
import os
import pickle
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from children import forks, in_child
from conftest import textured, tiny_model

import ckbd
from ckbd.codec.container import FormatError
from ckbd.model import file as modelfile
from ckbd.readers import Readers, codecs

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def shelf(tmp_path, monkeypatch, tiny_path):
    """A folder of CKBD_MODELS with two tiny models."""
    shutil.copy(tiny_path, tmp_path / "one.safetensors")
    modelfile.save(tiny_model(1), tmp_path / "two.safetensors")
    monkeypatch.setenv("CKBD_MODELS", str(tmp_path))
    return tmp_path


@pytest.fixture
def mixed(shelf):
    """(stream, its codec) of both models in turn."""
    made = [ckbd.load(name) for name in ("one", "two")]
    return [(made[i % 2].encode([textured(20 + i, 30, i)])[0], made[i % 2]) for i in range(5)]


def test_streams_of_several_models_in_one_call(mixed):
    pictures = ckbd.decode([stream for stream, _ in mixed])
    for picture, (stream, codec) in zip(pictures, mixed, strict=True):
        assert np.array_equal(np.asarray(picture), np.asarray(codec.decode([stream])[0]))
    assert ckbd.decode([]) == []
    assert codecs() is codecs() and codecs().of(mixed[0][0]) is codecs().of(mixed[2][0]), "loaded once"
    assert codecs(threads=1) is not codecs() and codecs(threads=1).of(mixed[0][0]).team.threads == 1


def test_an_explicit_model_is_strict(mixed):
    assert len(ckbd.decode([mixed[0][0]], model="one")) == 1
    with pytest.raises(FormatError, match="model at byte 4: made by model"):
        ckbd.decode([mixed[0][0], mixed[1][0]], model="one")
    with pytest.raises(FormatError, match="model at byte 4"):
        ckbd.open(io.BytesIO(mixed[1][0]), model="one").load()
    with pytest.raises(FileNotFoundError, match="nobody"):
        ckbd.decode([mixed[0][0]], model="nobody")


def test_golden_streams_of_both_versions(monkeypatch):
    monkeypatch.setenv("CKBD_MODELS", str(GOLDEN))
    streams = sorted(GOLDEN.glob("*.ckbd"))
    assert len(streams) == 10
    for picture, path in zip(ckbd.decode([path.read_bytes() for path in streams]), streams, strict=True):
        opened = ckbd.open(path)
        assert (opened.size, opened.mode) == (picture.size, picture.mode)
        assert np.array_equal(np.asarray(opened), np.asarray(picture))


def test_an_unknown_model_says_what_is_known(mixed, shelf):
    (shelf / "two.safetensors").unlink()
    for call in (lambda: ckbd.decode([mixed[1][0]]), lambda: ckbd.open(io.BytesIO(mixed[1][0])).load()):
        with pytest.raises(FormatError) as caught:
            call()
        assert (caught.value.field, caught.value.offset) == ("model", 4)
        for word in (
            mixed[1][1].model_hash,
            "which is not here",
            f"one ({mixed[0][1].model_hash})",
            "base (",
            str(shelf),
        ):
            assert word in str(caught.value)


@pytest.mark.parametrize("stream", [b"", b"\xcbkb", b"no stream at all" * 9])
def test_what_is_no_stream(stream):
    with pytest.raises(FormatError):
        ckbd.decode([stream])
    with pytest.raises(FormatError):
        ckbd.open(io.BytesIO(stream))


class Raw:
    """A file that gives a few bytes at a time, and cannot seek."""

    def __init__(self, data):
        self.inner = io.BytesIO(data)

    def read(self, count=-1):
        return self.inner.read(count if count < 0 else min(count, 5))


def test_files_of_every_kind_are_opened_from_their_beginning(mixed, tmp_path):
    data = mixed[0][0]
    moved = io.BytesIO(data)
    moved.seek(4)
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    (tmp_path / "a.ckbd").write_bytes(data)
    short = Raw(data)
    short.seek = short.inner.seek
    for source in (moved, Raw(data), short, open(read, "rb"), open(tmp_path / "a.ckbd", "rb", buffering=0)):
        opened = ckbd.open(source)
        assert opened.size == (30, 20) and np.asarray(opened).any()


def test_wrong_arguments(mixed):
    for single in (mixed[0][0], bytearray(mixed[0][0]), memoryview(mixed[0][0])):
        with pytest.raises(TypeError, match="got the bytes of one"):
            ckbd.decode(single)
    for path in ("a.ckbd", Path("a.ckbd")):
        with pytest.raises(TypeError, match="expected bytes, got .*ckbd.open takes paths"):
            ckbd.decode([path])
    with pytest.raises(TypeError, match="expected a path or a file, got bytes .ckbd.decode takes"):
        ckbd.open(mixed[0][0])
    with pytest.raises(TypeError, match="nonsense"):
        ckbd.decode([mixed[0][0]], nonsense=1)
    with pytest.raises(FormatError, match="max_pixels"):
        ckbd.decode([mixed[0][0]], max_pixels=10)
    with pytest.raises(FileNotFoundError):
        ckbd.open("nowhere.ckbd")
    with pytest.raises(ValueError, match="team, threads"):
        ckbd.load("one", team=mixed[0][1].team, threads=2)


def test_a_damaged_header_names_no_model(mixed):
    stream = bytearray(mixed[0][0])
    stream[5] ^= 1
    with pytest.raises(FormatError, match="header_crc"):
        ckbd.decode([bytes(stream)])


def test_a_model_is_loaded_once_whatever_the_threads(mixed):
    loads, gate = [], threading.Barrier(4)

    def load(model):
        loads.append(model)
        time.sleep(0.05)  # long enough for the others to come
        return object()

    readers = Readers(load)
    found = []

    def ask():
        gate.wait(10)
        found.append(readers.of(mixed[0][0]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(loads) == 1 and len(found) == 4 and len(set(map(id, found))) == 1
    assert readers.of(mixed[1][0]) is not found[0] and len(loads) == 2


def test_a_file_that_is_another_model_by_now_is_loaded_again(mixed, shelf):
    assert len(ckbd.decode([mixed[0][0]])) == 1
    shutil.copy(shelf / "two.safetensors", shelf / "one.safetensors")
    (shelf / "two.safetensors").unlink()
    assert len(ckbd.decode([mixed[1][0]])) == 1
    with pytest.raises(FormatError, match="which is not here"):
        ckbd.decode([mixed[0][0]])


@forks
def test_a_fork_while_a_model_is_being_loaded(mixed):
    loading, go_on = threading.Event(), threading.Event()

    def load(model):
        loading.set()
        go_on.wait(60)
        return model

    readers = Readers(load)
    thread = threading.Thread(target=readers.of, args=(mixed[0][0],))
    thread.start()
    loading.wait(60)

    def work():
        go_on.set()
        assert readers.of(mixed[0][0]).name == "one.safetensors"

    try:
        in_child(work)
    finally:
        go_on.set()
        thread.join(60)


def test_codecs_share_a_team(shelf):
    one = ckbd.load("one", threads=2)
    two = ckbd.load("two", team=one.team)
    assert two.team is one.team and pickle.loads(pickle.dumps(two)).team.threads == 2


def test_what_is_asked_for_of_a_stream(tiny, tmp_path, monkeypatch, tiny_path):
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(tiny_path, models / "tiny.safetensors")
    monkeypatch.setenv("CKBD_MODELS", str(models))
    streams = tiny.encode([textured(70, 90), textured(64, 64)])
    for options in ({"region": (3, 5, 60, 50)}, {"scale": 1 / 4}, {"region": (3, 5, 60, 50), "scale": 1 / 2}):
        got, want = ckbd.decode(streams, **options), tiny.decode(streams, **options)
        assert [one.size for one in got] == [one.size for one in want]
        assert [one.tobytes() for one in got] == [one.tobytes() for one in want]
    said = []
    ckbd.decode(streams, progress=said.append)
    assert said == sorted(said) and said[-1] == pytest.approx(1) and len(said) > 2
    with pytest.raises(ValueError, match="region: expected"):
        ckbd.decode(streams, region=(0, 0, 90, 70))
