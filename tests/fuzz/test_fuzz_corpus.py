"""The inputs in fuzz/corpus, each once, by programs without a fuzzer in them: what broke once stays whole."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "fuzz" / "corpus"
sys.path.append(str(ROOT / "fuzz"))

import build  # noqa: E402


@pytest.fixture(scope="module")
def programs():
    """Where they are; built by the first who asks (`make unit` has done it before)."""
    assert build.build_replay() == 0
    return build.BUILD / "replay"


@pytest.mark.parametrize("target", build.targets())
def test_corpus(programs, target):
    files = sorted((CORPUS / target).iterdir())
    assert len(files) > 20
    run = subprocess.run([programs / target, CORPUS / target], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == f"{len(files)} inputs\n"


def test_an_input_that_is_not_there_is_no_success(programs, tmp_path):
    lost = tmp_path / "lost"
    run = subprocess.run([programs / build.targets()[0], lost], capture_output=True, text=True, timeout=120)
    assert run.returncode == 2 and run.stderr == f"{lost}: cannot be read\n"
