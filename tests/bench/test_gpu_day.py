"""A day with a GPU, of steps that are no more than a line of Python: whatever they do, the day goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import installed
from bench.gpu import record
from bench.gpu.day import process, read, run
from bench.gpu.day.steps import Options, Step

GPU = "NVIDIA H200"
ROWS = "import json, pathlib, sys, time; out = pathlib.Path(sys.argv[1], 'rows.json'); "
UNABLE = f"print('no such thing here'); raise SystemExit({record.UNAVAILABLE})"
GOOD = ROWS + "out.write_text(json.dumps([1]))"


def rows(folder):
    return read.Result(read.rows_of(folder / "rows.json"), "a table", {"value": 7})


def step(name, code, estimate=1.0, limit=20.0, sources=("one",), **more):
    def command(job):
        return [sys.executable, "-c", code, str(job.folder)]

    return Step(name, f"The {name}", estimate, limit, command, more.pop("read", rows), sources, **more)


@pytest.fixture
def versions(monkeypatch):
    """What the sources are: a number for each pattern."""
    found = {"one": 1}
    monkeypatch.setattr(record, "digest", lambda patterns: "-".join(str(found[p]) for p in patterns))
    return found


@pytest.fixture
def day(tmp_path, versions):
    def make(minutes=5.0, named=GPU, only=(), **options):
        about = {"commit": "abc", "date": "2026-01-02", "python": "3.12"}
        return run.Day(
            tmp_path / "out", named, minutes, Options(**options), about, tmp_path / "gpu.json", tuple(only)
        )

    return make


def on_disk(tmp_path):
    return json.loads((tmp_path / "out" / "day.json").read_text())


def statuses(tmp_path):
    return {one["name"]: one["status"] for one in on_disk(tmp_path)["steps"]}


def test_a_day_goes_on_whatever_a_step_does(day, tmp_path, capsys):
    seen = tmp_path / "seen"
    look = f"import shutil; shutil.copy({str(tmp_path / 'out' / 'day.json')!r}, {str(seen)!r}); {GOOD}"
    made = [
        step("good", GOOD),
        step("hanging", "import time; time.sleep(60)", limit=0.5),
        step("crashing", "import os; os.abort()"),
        step("failing", "raise SystemExit('it was not to be')"),
        step("silent", ""),
        step("lying", ROWS + "out.write_text('[1, ')"),
        step("odd", ROWS + "out.write_text('{}')"),
        step("unreadable", GOOD, read=lambda folder: 1 // 0),
        step("over its box", GOOD + "; time.sleep(60)", limit=1.0),
        step("unable", UNABLE, optional=True),
        step("at a loss", UNABLE),
        step("last", look),
    ]
    assert run.run(day(), made) == 1
    assert statuses(tmp_path) == {
        "good": "done",
        "hanging": "over",
        "crashing": "failed",
        "failing": "failed",
        "silent": "no result",
        "lying": "no result",
        "odd": "no result",
        "unreadable": "no result",
        "over its box": "over",
        "unable": "skipped",
        "at a loss": "failed",
        "last": "done",
    }
    found = {one["name"]: one for one in on_disk(tmp_path)["steps"]}
    assert found["crashing"]["why"].startswith(f"exit status {-signal.SIGABRT}: ")
    assert found["failing"]["why"] == "exit status 1: it was not to be"
    assert found["silent"]["why"] == "no rows.json" and "no JSON" in found["lying"]["why"]
    assert found["unable"]["why"] == "no such thing here" and "such thing" in found["at a loss"]["why"]
    assert "division" in found["unreadable"]["why"]
    # Earlier results were on disk while a later step ran, those of a step that was stopped too.
    before = {one["name"]: one for one in json.loads(seen.read_text())["steps"]}
    assert before["good"]["rows"] == [1] and before["over its box"]["rows"] == [1]
    entries = record.read(tmp_path / "gpu.json")
    assert set(entries) == {"good", "over its box", "last"}
    assert entries["good"] == {
        "commit": "abc",
        "sources": "1",
        "device": GPU,
        "date": entries["good"]["date"],
        "seconds": entries["good"]["seconds"],
        "value": 7,
    }
    assert entries["over its box"]["partial"] is True
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == (
        "done: good, last; kept: nothing; skipped: unable; failed: hanging, crashing, failing, silent, lying, odd, "
        "unreadable, over its box, at a loss; left: nothing"
    )
    assert any("hanging: over" in line and "stopped after" in line for line in said)
    text = (tmp_path / "out" / "day.md").read_text()
    assert "### The good\n\n    python -c" in text and "### The over its box (over: not all of it)" in text
    assert "### The silent" not in text


def test_a_second_day_runs_what_is_missing_or_stale(day, tmp_path, versions, capsys):
    versions |= {"two": 1}
    made = [step("first", GOOD), step("second", "raise SystemExit(1)", sources=("two",)), step("slow", GOOD, 1e4)]
    assert run.run(day(), made) == 1 and statuses(tmp_path)["slow"] == "no time"
    made[1] = step("second", GOOD, sources=("two",))
    made[2] = step("slow", GOOD)
    assert run.run(day(), made) == 0
    assert "done: second, slow; kept: first;" in capsys.readouterr().out
    assert statuses(tmp_path) == {"first": "done", "second": "done", "slow": "done"}, "day.json has both days"
    versions["two"] = 2
    assert run.run(day(), made) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("done: second; kept: first, slow;")
    run.run(day(only=["first"]), made)
    assert "done: first; kept: nothing" in capsys.readouterr().out


def test_another_folder_need_not_know_what_the_record_knows(day, tmp_path, capsys):
    run.run(day(), [step("first", GOOD)])
    another = day()
    another.out = tmp_path / "another"
    assert run.run(another, [step("first", GOOD)]) == 0
    (one,) = json.loads((another.out / "day.json").read_text())["steps"]
    assert one["status"] == "kept" and one["why"].startswith("fresh: of ") and "abc" in one["why"]


def test_what_was_partly_done_or_is_of_another_gpu_is_done_again(day, tmp_path):
    made = [step("timed", GOOD + "; time.sleep(60)", limit=0.7, timed=True)]
    run.run(day(), made)
    assert record.read(tmp_path / "gpu.json")["timed on H200"]["partial"]
    made = [step("timed", GOOD, timed=True)]
    assert run.run(day(), made) == 0
    assert "partial" not in record.read(tmp_path / "gpu.json")["timed on H200"]
    other = day(named="NVIDIA H100 80GB HBM3")
    with pytest.raises(ValueError, match="give another folder"):
        run.run(other, made)
    other.out = tmp_path / "other"
    run.run(other, made)
    assert set(record.read(tmp_path / "gpu.json")) == {"timed on H100", "timed on H200"}


def test_a_step_begins_only_if_there_is_time_for_it(day, tmp_path):
    made = [step("long", GOOD, 50), step("short", GOOD, 1), step("whole", GOOD, 1, greedy=True)]
    run.run(day(minutes=0.5), made)
    assert statuses(tmp_path) == {"long": "no time", "short": "done", "whole": "done"}
    found = {one["name"]: one for one in on_disk(tmp_path)["steps"]}
    assert found["short"]["limit"] == 20 and 20 < found["whole"]["limit"] < 26
    run.run(day(minutes=0.5, only=["short"]), made)
    (alone,) = [one for one in on_disk(tmp_path)["steps"] if one["name"] == "short"]
    assert 20 < alone["limit"] < 26, "alone it may take all there is"
    # What it took the last time is the better estimate.
    record.add({"long": {"seconds": 2, "date": "", "commit": ""}}, tmp_path / "gpu.json")
    assert run.run(day(minutes=0.5), made[:1]) == 0


def test_a_made_up_clock_goes_by_estimates(day, tmp_path):
    made = [step("a", GOOD, 40, limit=1000), step("b", GOOD, 40), step("c", GOOD, 10)]
    start = time.monotonic()
    run.run(day(minutes=1, named="cpu"), made)
    assert time.monotonic() - start < 30
    assert statuses(tmp_path) == {"a": "done", "b": "no time", "c": "done"}
    assert on_disk(tmp_path)["rehearsal"] is True


def test_what_a_step_started_is_gone_with_it(day, tmp_path):
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']);"
        f"open({str(pid)!r}, 'w').write(str(p.pid)); "
    )
    for end in ("time.sleep(99)", "pass"):
        run.run(day(), [step("parent", code + end, limit=2.0, sources=())])
        left = Path("/proc", pid.read_text())
        for _ in range(100):
            if not left.exists() or "Z" in (left / "stat").read_text().split()[2]:
                break
            time.sleep(0.05)
        else:
            pytest.fail("a grandchild is left")


def test_an_interruption_keeps_what_there_is(day, tmp_path, monkeypatch, capsys):
    def interrupted(command, log, limit, env):
        if "later" in command[2]:
            Path(command[3], "rows.json").write_text("[3]")
            raise KeyboardInterrupt
        return whole(command, log, limit, env)

    whole = process.run
    monkeypatch.setattr(process, "run", interrupted)
    made = [step("first", GOOD), step("second", "later"), step("third", GOOD)]
    assert run.run(day(), made) == 130
    assert statuses(tmp_path) == {"first": "done", "second": "stopped"}
    assert on_disk(tmp_path)["steps"][1]["rows"] == [3]
    assert record.read(tmp_path / "gpu.json")["second"]["partial"] is True
    assert capsys.readouterr().out.splitlines()[-1].endswith("left: second, third")


def test_a_step_that_cannot_be_run_says_why(day, tmp_path):
    made = [step("training", GOOD, why_not=lambda options, device: f"{options.train} is no checkpoint")]
    assert run.run(day(train="small"), made) == 0
    assert on_disk(tmp_path)["steps"][0]["why"] == "small is no checkpoint"
    with pytest.raises(ValueError, match="no step nonsense; there are training"):
        run.run(day(only=["nonsense"]), made)


def test_a_failure_is_a_result_too_if_the_tests_ran(day, tmp_path):
    def tests(passed):
        return lambda folder: read.Result({}, "", {"passed": passed})

    bars = {"bar: x": {"value": 1, "met": True}}
    made = [
        step("failed", "raise SystemExit(1)", read=tests(False)),
        step("found", "raise SystemExit(9)", read=tests(True)),
        step("passed", "", read=tests(True)),
        step("bars", "", read=lambda folder: read.Result([], "", bars=bars)),
        step("half", "raise SystemExit(1)", read=lambda folder: read.Result([], "", bars={"bar: y": {}})),
    ]
    run.run(day(), made)
    entries = record.read(tmp_path / "gpu.json")
    assert [entries[name]["passed"] for name in ("failed", "found", "passed")] == [False, False, True]
    assert entries["bar: x"]["met"] and "bar: y" not in entries and entries["half"]["partial"]
    assert run.run(day(), made[:1]) == 0, "the same sources would fail again: kept"


def test_logs_are_kept_short(day, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "LOG_BYTES", 1000)
    made = [
        step("talker", "print('first'); print('x' * 5000); print('last'); raise SystemExit(3)"),
        step("next", GOOD),
    ]
    run.run(day(), made)
    said = (tmp_path / "out" / "day.log").read_text()
    assert len(said) < 2000 and "first" in said and "[...]" in said and "last\n\n== next" in said
    assert on_disk(tmp_path)["steps"][0]["log"].endswith("last\n")


def test_files_come_home_in_pieces_of_a_size_and_not_too_many(day, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "MAX_BYTES", 1000)
    whole = os.urandom(2500)
    code = "import pathlib, sys; d = pathlib.Path(sys.argv[1]); (d / 'small').write_bytes(b'1'); "
    code += f"(d / 'large').write_bytes(bytes.fromhex({whole.hex()!r})); [(d / f'f{{i}}').touch() for i in range(3)]"

    def files(folder):
        return read.Result([], "", files=tuple(folder / n for n in ("small", "large", "f0", "f1", "f2")))

    run.run(day(), [step("bringer", code, read=files)])
    out = tmp_path / "out"
    names = ["small", "large.part0", "large.part1", "large.part2", "f0"]
    assert on_disk(tmp_path)["steps"][0]["files"] == names
    assert b"".join((out / n).read_bytes() for n in names[1:4]) == whole
    assert {p.name for p in out.iterdir()} == {"day.json", "day.md", "day.log", *names}
    assert len(list(out.iterdir())) == run.MAX_FILES and "f1: not brought home" in capsys.readouterr().out


def test_choices_of_kernels_come_home(day, tmp_path):
    code = "import json, os; d = os.environ['CKBD_TUNE_CACHE']; os.makedirs(d); "
    code += "open(d + '/kernels-1.json', 'w').write(json.dumps({'chosen': {}}))"
    run.run(day(), [step("tuner", code, read=lambda folder: read.Result([], ""))])
    assert on_disk(tmp_path)["steps"][0]["choices"] == [{"chosen": {}}]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs Python 3.11, or ckbd installed")
def test_a_step_s_process_finds_ckbd_without_an_installation(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somebody's/own")
    env = process.environment(tmp_path)
    assert env["PYTHONPATH"].split(os.pathsep)[1:] == [str(record.ROOT), "/somebody's/own"]
    code = "import ckbd, ckbd.kernels.configs, ckbd._rans, bench; "
    code += "print(ckbd.__file__, ckbd.kernels.__file__, bench.__file__)"
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=record.ROOT, capture_output=True, text=True)
    tree = tmp_path / "installed" / "ckbd"
    want = [tree / "__init__.py", tree / "kernels" / "__init__.py", record.ROOT / "bench" / "__init__.py"]
    assert done.stdout.split() == [str(path) for path in want], done.stderr
    assert (installed.link(tmp_path) / "ckbd" / "kernels").resolve() == record.ROOT / "kernels"
