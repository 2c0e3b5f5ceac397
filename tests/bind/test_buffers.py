"""Buffers as other systems describe them, by hand, and those that lie where or overlap what they must not."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from children import forks, in_child
from hostile_cases import CALLS, MIXTURES, TABLES, callables, tracks

from ckbd import _rans

POOL = Path(__file__).parents[2] / "csrc" / "common" / "pool.cpp"


class Buffer(ctypes.Structure):
    """Py_buffer."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)),
        ("internal", ctypes.c_void_p),
    ]


def described(array, letters):
    """The same memory, whose items have this format; array and letters must be kept."""
    sizes = ctypes.c_ssize_t * array.ndim
    shape, strides = sizes(*array.shape), sizes(*array.strides)
    writable = array.flags.writeable
    view = Buffer(
        array.ctypes.data, None, array.nbytes, array.itemsize, not writable, array.ndim, letters, shape, strides
    )
    make = ctypes.pythonapi.PyMemoryView_FromBuffer
    make.restype, make.argtypes = ctypes.py_object, [ctypes.POINTER(Buffer)]
    return make(ctypes.byref(view))


def arrays(name):
    positional, named = CALLS[name]()
    return {slot: value for slot, value in named.items() if isinstance(value, np.ndarray)}


def call(name, **other):
    positional, named = CALLS[name]()
    callables()[name](*positional, **named | other)


@forks
@pytest.mark.parametrize("name", [one for one in sorted(CALLS) if arrays(one)])
def test_letters_of_types(name):
    """A size and a sign make a type, as numpy on Windows, where a long has 32 bits, calls int32 an l."""

    def work():
        for slot, array in arrays(name).items():
            same = {"f": [b"f"], "i": [b"b", b"h", b"i", b"l", b"q"], "u": [b"B", b"H", b"I", b"L", b"Q"]}
            for kind, letters in same.items():
                for one in letters:
                    if kind == array.dtype.kind:
                        call(name, **{slot: described(array, one)})
                    elif one in (b"b", b"B", b"f") or array.itemsize > 1:
                        with pytest.raises(ValueError, match=f"{slot}.*: expected .*, got items of format"):
                            call(name, **{slot: described(array, one)})
            for one in (b"", b"x", b"?", b"2b", b">i", b"ii", b"P", b"n", b"T{i:x:}"):
                with pytest.raises(ValueError, match=f"{slot}.*: expected "):
                    call(name, **{slot: described(array, one)})

    in_child(work)


@forks
@pytest.mark.parametrize("name", [one for one in sorted(CALLS) if arrays(one)])
def test_odd_addresses(name):
    def work():
        for slot, array in arrays(name).items():
            if array.itemsize == 1 or array.size == 0:
                continue
            memory = np.zeros(array.nbytes + 16, np.uint8)
            for at in range(1, array.itemsize):
                start = -memory.ctypes.data % 8 + at
                odd = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
                with pytest.raises(ValueError, match=f"{slot}.*: expected .*, got one at an odd address"):
                    call(name, **{slot: described(odd, array.dtype.char.encode())})

    in_child(work)


def test_wrong_tracks():
    good = {"track": np.zeros(2, np.uint16), "k": np.zeros((2, 3), np.uint8), "out": np.zeros((2, 3), np.int16)}
    for track, got in [
        (np.zeros(2, np.int16), "format 'h'"),
        (np.zeros(2, np.uint32), "format 'I'"),
        (np.zeros((1, 2), np.uint16), "shape"),
        (np.zeros(4, np.uint16)[::2], "gaps"),
        (memoryview(bytearray(5))[1:].cast("H"), "odd address"),
        ([0, 0], "list"),
    ]:
        with pytest.raises(ValueError, match=f"^track: expected a contiguous uint16 array of shape .*, got .*{got}"):
            tracks(1).step(**good | {"track": track})
    with pytest.raises(ValueError, match="^track: expected less than 1, got 1"):
        tracks(1).step(**good | {"track": np.array([0, 1], np.uint16)})
    with pytest.raises(ValueError, match="^share: expected none without mean"):
        tracks(1).step(**good, share=np.zeros((2, 3), np.uint8))


@forks
def test_what_tracks_write_is_apart_from_what_was_checked():
    """An index that changes after it was looked at would be one beyond the tables."""

    def work():
        n = 4000
        memory = np.zeros(4 * n + 64, np.uint8)
        track, mean, share = np.zeros(n, np.uint16), np.zeros((n, 1, 1), np.int16), np.zeros((n, 1, 1), np.uint8)
        written = memory[: 2 * n].view(np.int16).reshape(n, 1)
        over = memory[2 * n - 1 : 3 * n - 1]
        z = np.zeros(4, np.int16)
        payload = _rans.encode_tracks(
            TABLES, MIXTURES, 1, z, track, np.zeros((n, 1), np.uint8), np.full((n, 1), -1, np.int16)
        )[0]
        payload = np.frombuffer(payload, np.uint8).copy()

        def step(payload=payload, **other):
            made = _rans.TrackDecoder(TABLES, MIXTURES, payload, 1)
            made.z(z.copy())
            made.step(**{"track": track, "k": np.zeros((n, 1), np.uint8), "out": written} | other)

        step()
        assert np.array_equal(written, np.full((n, 1), -1, np.int16))
        for other in (
            {"k": memory[1 : n + 1].reshape(n, 1)},
            {"k": over.reshape(n, 1)},
            {"track": memory[: 2 * n].view(np.uint16)},
            {"k": memory[:n].reshape(n, 1, 1), "mean": mean, "share": share},
            {"k": share, "mean": memory[: 2 * n].view(np.int16).reshape(n, 1, 1), "share": share},
            {"k": share, "mean": mean, "share": memory[n : 2 * n].reshape(n, 1, 1)},
        ):
            memory[:] = 0
            with pytest.raises(ValueError, match="^out: expected outputs apart"):
                step(**other)
        memory[:] = 0
        memory[: len(payload)] = payload
        with pytest.raises(ValueError, match="^out: expected outputs apart"):
            step(memory[: len(payload)])

    in_child(work)


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "c++")), reason="needs a compiler")
@pytest.mark.parametrize("system", ["-D__APPLE__", "-D__unix__=1"])
def test_a_pool_knows_of_forks(system):
    """On macOS too, which does not say that it is a unix."""
    command = [os.environ.get("CXX", "c++"), "-std=c++17", f"-I{POOL.parents[1]}", "-U__unix__", system, "-E", POOL]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "at_fork = pthread_atfork(" in text
