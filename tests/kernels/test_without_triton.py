"""Triton is an optional package: without it everything runs on a CPU, and what asks for it says so in a line."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import textured
from PIL import Image

# A process in which there is no Triton, whether it is installed or not; its first argument is a program.
CHILD = """
import sys
sys.modules["triton"] = None
exec(sys.argv.pop(1))
assert not [name for name in sys.modules if name.startswith("triton.")]
"""
CLI = "from ckbd import cli; status = cli.main(sys.argv[1:]); assert status in (0, None), status"
LIBRARY = """
import ckbd, numpy as np
codec = ckbd.load(sys.argv[1])
(stream,) = codec.encode([np.load(sys.argv[2])], quality=70)
np.save(sys.argv[3], codec.decode_pictures([stream])[0].rgb)
open(sys.argv[4], "wb").write(stream)
"""
ASKS = """
import torch, ckbd
from ckbd.kernels import ops

for arguments in ({"backend": "triton"}, {"backend": "triton", "device": "cuda"}, {"device": "cuda"}):
    try:
        ckbd.load(sys.argv[1], **arguments)
    except ValueError as error:
        print(error)
try:
    ops.resolve("auto", torch.device("cuda"))
except ValueError as error:
    print(error)
"""


@pytest.fixture
def child(tmp_path, small_env):
    def run(program, *arguments):
        command = [sys.executable, "-c", CHILD, program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=small_env, cwd=tmp_path, timeout=300)
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_library_encodes_and_decodes_the_same(child, tiny, tiny_path, tmp_path):
    pixels = textured(90, 130)
    np.save(tmp_path / "in.npy", pixels)
    status, _, said = child(LIBRARY, tiny_path, "in.npy", "out.npy", "a.ckbd")
    assert status == 0, said
    stream = (tmp_path / "a.ckbd").read_bytes()
    assert [stream] == tiny.encode([pixels], quality=70)
    assert np.array_equal(np.load(tmp_path / "out.npy"), tiny.decode_pictures([stream])[0].rgb)


def test_the_command_does_all_that_it_does_on_a_cpu(child, tiny_path, tmp_path):
    Image.fromarray(textured(70, 90)).save(tmp_path / "a.png")
    model = ("--model", tiny_path)
    for arguments in (
        ["--version"],
        ["encode", "a.png", "a.ckbd", *model],
        ["info", "a.ckbd"],
        ["decode", "a.ckbd", "light.png", *model],
        ["decode", "a.ckbd", "torch.png", *model, "--backend", "torch"],
        ["warm-up", *model],
    ):
        status, _, said = child(CLI, *arguments)
        assert status == 0, (arguments, said)
    with Image.open(tmp_path / "light.png") as light, Image.open(tmp_path / "torch.png") as full:
        assert light.size == full.size == (90, 70)


def test_who_asks_for_triton_or_a_gpu_reads_what_is_missing(child, tiny_path):
    """A GPU that is there is not asked: its error is the last of these, and Triton's."""
    status, printed, said = child(ASKS, tiny_path)
    assert status == 0, said
    missing = "backend 'triton': the package triton is not installed (pip install 'ckbd[triton]'); backend 'torch'"
    lines = printed.splitlines()
    assert len(lines) == 4 and lines[0].startswith(missing) and lines[3].startswith(missing)
    if not torch.cuda.is_available():
        assert all(line.startswith("device 'cuda': ") for line in lines[1:3])


def test_the_command_says_it_in_a_line(child, tiny, tiny_path, tmp_path):
    (tmp_path / "a.ckbd").write_bytes(tiny.encode([textured(64, 70)])[0])
    run = "from ckbd import cli; sys.exit(cli.main(sys.argv[1:]))"
    status, _, said = child(run, "decode", "a.ckbd", "a.png", "--model", tiny_path, "--backend", "triton")
    assert status == 2 and len(said.splitlines()) == 1 and "the package triton is not installed" in said
    assert not (tmp_path / "a.png").exists()
