"""The driver of the tests that need a GPU: what it starts, how it shares them, how it ends."""

import os

import pytest
import torch

from bench.gpu import record
from bench.gpu import test as gpu_test


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def commands(monkeypatch):
    found = []

    def run(command, processes=1, **env):
        found.append((command, processes, env))
        return "racecheck" not in command

    monkeypatch.setattr(gpu_test, "run", run)
    return found


@pytest.mark.parametrize("sanitizer", [None, "tools/compute-sanitizer"])
def test_all_of_it(gpu, monkeypatch, capsys, commands, sanitizer):
    monkeypatch.setattr(gpu_test.shutil, "which", lambda name: sanitizer)
    assert gpu_test.main([]) == (0 if sanitizer is None else 1)
    said = capsys.readouterr().out
    assert "tests: passed" in said and commands[0][0][-1] == "tests/gpu"
    if sanitizer is None:
        assert said.count("not on PATH") == 2 and len(commands) == 1
    else:
        assert "memcheck: passed" in said and "racecheck: FAILED" in said
        command, _, env = commands[1]
        assert command[0] == sanitizer and command[-2:] == ["-k", "test_small"]
        assert command[command.index("--error-exitcode") + 1] == "9" and env["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"


def test_a_part_of_it(gpu, monkeypatch, commands, tmp_path):
    monkeypatch.setattr(gpu_test.shutil, "which", lambda name: None)
    assert gpu_test.main(["--only", "tests", "--outcomes", str(tmp_path / "o")]) == 0
    assert len(commands) == 1 and commands[0][2] == {gpu_test.OUTCOMES: str(tmp_path / "o")}
    assert gpu_test.main(["--only", "memcheck"]) == record.UNAVAILABLE and len(commands) == 1


def test_without_a_gpu(monkeypatch, capsys, commands):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_test.main([]) == record.UNAVAILABLE and commands == []
    assert capsys.readouterr().err.count("\n") == 1
    assert gpu_test.main(["--device", "cpu", "--only", "memcheck"]) == 0
    assert gpu_test.TESTS["cpu"] in commands[0][0] and commands[0][0][0] == gpu_test.sys.executable


def test_processes_share_the_tests(monkeypatch):
    shares = []
    for shard in ("0/3", "1/3", "2/3"):
        items = list(range(10))
        monkeypatch.setenv(gpu_test.SHARD, shard)
        gpu_test.pytest_collection_modifyitems(items)
        shares.append(items)
    assert sorted(sum(shares, [])) == list(range(10)) and len(shares[0]) == 4


@pytest.mark.parametrize("status, good", [(0, True), (1, False), (gpu_test.NO_TESTS, True)])
def test_one_failing_process_fails_all(status, good, capfd):
    shard = f"os.environ['{gpu_test.SHARD}']"
    code = f"import os; print({shard}); raise SystemExit({status} * ({shard}[0] == '1'))"
    assert gpu_test.run([gpu_test.sys.executable, "-c", code], 2) is good
    assert "0/2\n1/2\n" in capfd.readouterr().out
    assert gpu_test.run([gpu_test.sys.executable, "-c", "raise SystemExit(5)"]) is False


def test_much_output_stops_nobody(capfd):
    code = f"import os; print(os.environ['{gpu_test.SHARD}'] * 100_000)"
    assert gpu_test.run([gpu_test.sys.executable, "-c", code], 3) is True
    assert len(capfd.readouterr().out) > 900_000


def test_outcomes_are_written_as_tests_end(tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text(
        "import pytest, os\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.mark.skip\ndef test_not(): pass\n"
        "@pytest.fixture\ndef broken(): raise OSError('of\\ntwo lines')\n"
        "def test_setup(broken): pass\n"
        "def test_dies(): os.abort()\n"
        "def test_never(): pass\n"
    )
    command = [*gpu_test.PYTEST, "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path / "test_it.py")]
    assert gpu_test.run(command, **{gpu_test.OUTCOMES: str(tmp_path / "o")}) is False
    lines = [line.split("\t") for line in (tmp_path / "o").read_text().splitlines()]
    assert [(outcome, name.removeprefix("test_it.py::")) for outcome, name, _ in lines] == [
        ("passed", "test_good"),
        ("failed", "test_bad"),
        ("skipped", "test_not"),
        ("failed", "test_setup"),
    ]
    assert [why for *_, why in lines] == ["", "assert False", "", "OSError: of two lines"]
