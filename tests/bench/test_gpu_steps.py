"""The steps of a day with a GPU, and its command line."""

import json
import sys

import pytest

from bench import run as bench_run
from bench.gpu import pace, profile, record, trace, training, warm
from bench.gpu import test as gpu_test
from bench.gpu.day import __main__ as program
from bench.gpu.day import read, run, steps
from bench.gpu.day.steps import STEPS, Job, Options, Step


def step(name, **more):
    """One that does nothing, well."""
    return Step(name, name, 1, 20, lambda job: [sys.executable, "-c", ""], lambda folder: read.Result([], ""), **more)


# The steps


def parsers():
    modules = {"bench.gpu.test": gpu_test, "bench.gpu.profile": profile, "bench.gpu.trace": trace}
    modules["bench.gpu.pace"] = pace
    return modules | {"bench.gpu.warm": warm, "bench.gpu.training": training, "bench.run": bench_run}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("one", STEPS, ids=lambda s: s.name)
def test_every_command_is_one_that_its_program_takes(one, device, tmp_path):
    options = Options(("a.png",), "run/checkpoint.pt", ("a.tar", "b.tar"), ("val",), "--clip 2")
    command = one.command(Job(device, tmp_path, 100, options))
    assert command[0] == sys.executable
    if one.name == "build":
        assert command[1:] == ["setup.py", "-q", "build_ext", "--inplace"]
        return
    assert command[1] == "-m"
    args = parsers()[command[2]].parser().parse_args(command[3:])
    assert str(tmp_path) in " ".join(command), "it writes into its own folder"
    if one.name == "train" and device == "cuda":
        assert args.minutes == pytest.approx((100 - steps.VALIDATION) / 60, abs=1e-3)
        assert args.train_args == "--clip 2" and args.data == ["a.tar", "b.tar"]
    elif one.name != "train":
        assert args.device == device


def test_names_and_entries_are_told_apart():
    names = [one.name for one in STEPS]
    assert len(set(names)) == len(names) and names[0] == "build" and names[-1] == "train"
    entries = [name for one in STEPS for name in one.entries(record.DEVICES)]
    assert len(set(entries)) == len(entries) == 19 and "decode on H100" in entries and "gpu-test" in entries
    for one in STEPS:
        assert one.estimate < one.limit and all(list(record.ROOT.glob(pattern)) for pattern in one.sources), one.name
    whole = 24 * 60 - run.RESERVE
    assert sum(one.estimate for one in STEPS) < whole, "a day of 24 minutes does all of it, if guesses hold"
    first = names.index("transforms") + 1
    assert sum(one.estimate for one in STEPS[:first]) < 10 * 60, "ten minutes do what no figure of a GPU is known of"


@pytest.mark.parametrize(
    "options, reason",
    [
        ({}, "not asked for"),
        ({"train": "small"}, "--data"),
        ({"train": "checkpoint.pt", "data": ("a",)}, "--val"),
        ({"train": "small", "data": ("a",), "val": ("b",)}, None),
        ({"train": "checkpoint.pt", "data": ("a",), "val": ("b",)}, None),
    ],
)
def test_training_says_what_it_lacks(options, reason):
    found = steps.no_training(Options(**options), "cuda")
    assert found is None if reason is None else reason in found
    assert steps.no_training(Options(**options), "cpu") is None


def test_training_is_as_it_says_and_as_it_is_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(training, "need_cuda", lambda device: device)
    monkeypatch.setattr(training.train, "main", lambda argv: told.extend(argv) or 3)
    argv = ["--out", str(tmp_path), "--init", "base", "--data", "a", "--val", "b", "--minutes", "2"]
    assert training.main([*argv, "--train-args", "--clip 2"]) == 3
    words = " ".join(told)
    assert "--data a --val b --init base --minutes 2.0" in words and words.endswith(f"{training.ARGS} --clip 2")
    told.clear()  # a size that does not ship begins from nothing
    assert training.main([*argv, "--init", "large", "--train-args", "--clip 2"]) == 3
    words = " ".join(told)
    assert "--val b --config large --minutes 2.0" in words and words.endswith(
        f"{training.ARGS} {training.FRESH} --clip 2"
    )
    assert (
        program.SIZES == tuple(training.SIZES)
        and not training.fresh("base")
        and not training.fresh("model.safetensors")
    )


# The command line


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(program, "about", lambda: {"python": "3.12"})


def test_without_a_gpu_nothing_is_begun(no_gpu, tmp_path, capsys):
    assert program.main(["--out", str(tmp_path / "out")]) == record.UNAVAILABLE
    assert "no CUDA device here" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--images", "--data", "--val"])
def test_what_is_not_there_is_seen_before_the_minutes_run(no_gpu, tmp_path, capsys, option):
    (tmp_path / "empty").mkdir()
    for name, said in (("nothing.png", "no such file or folder"), ("empty", "an empty folder")):
        with pytest.raises(SystemExit) as stopped:
            program.main(["--rehearse", "--out", str(tmp_path / "r"), option, str(tmp_path / name)])
        assert stopped.value.code == 2 and f"{name}: {said}" in capsys.readouterr().err
    for name in ("checkpoint.pt", "model.safetensors", "smal"):
        with pytest.raises(SystemExit):
            program.main(["--rehearse", "--train", str(tmp_path / name) if "." in name else name])
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_day_is_named(no_gpu, tmp_path, capsys, text):
    (tmp_path / "day.json").write_text(text)
    assert program.main(["--rehearse", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path / 'day.json'} is" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["--minutes", "0"], ["--minutes", "nan"], ["--minutes", "x"], ["--oui"]])
def test_wrong_arguments(no_gpu, args):
    with pytest.raises(SystemExit) as stopped:
        program.main(args)
    assert stopped.value.code == 2


def test_what_is_no_step(no_gpu, tmp_path, capsys):
    assert program.main(["--rehearse", "--only", "nonsense", "--out", str(tmp_path / "r")]) == 2
    assert "no step nonsense" in capsys.readouterr().err


def test_a_rehearsal_notes_nothing_and_begins_anew(no_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "STEPS", (step("one", sources=("kernels/*.py",)),))
    before = record.FILE.read_bytes()
    out = tmp_path / "r"
    for _ in range(2):
        assert program.main(["--rehearse", "--out", str(out)]) == 0
        found = json.loads((out / "day.json").read_text())
        assert found["device"] == "cpu" and [s["status"] for s in found["steps"]] == ["done"]
    assert record.FILE.read_bytes() == before
    monkeypatch.setattr(program, "STEPS", (step("one", why_not=lambda o, d: "no", sources=("kernels/*.py",)),))
    assert program.main(["--rehearse", "--out", str(out)]) == 0
    assert program.main(["--rehearse", "--out", str(out), "--strict"]) == 1


def test_a_folder_that_holds_something_else_is_left_alone(no_gpu, tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    assert program.main(["--rehearse", "--out", str(tmp_path)]) == 2
    assert "thesis.tex" in capsys.readouterr().err and (tmp_path / "thesis.tex").exists()


def test_a_python_without_pytorch_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(program, "ABOUT", "raise ImportError('no torch')")
    assert program.main(["--out", str(tmp_path)]) == 2
    assert "PyTorch cannot be imported here: ImportError: no torch" in capsys.readouterr().err
