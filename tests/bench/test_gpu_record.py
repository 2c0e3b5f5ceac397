"""What GPUs have shown: states of entries, what is owed, what a day's programs wrote as a reader sees it."""

import dataclasses
import json
import subprocess
import sys

import pytest

from bench import tables
from bench.gpu import record, report
from bench.gpu.day import read
from bench.gpu.day.steps import STEPS
from ckbd.kernels.configs import Config

GPU = "NVIDIA H100 80GB HBM3"


# The record


def test_states(tmp_path):
    path = tmp_path / "gpu.json"
    assert record.read(path) == {}
    path.write_text("")
    assert record.read(path) == {}
    patterns = ("kernels/*.py",)
    made = {
        "tests": record.entry(patterns, GPU, "abc", passed=True),
        "sanitizer": record.entry(patterns, GPU, "abc", passed=False),
        "bar": record.entry(patterns, GPU, "abc", value=1.5, met=False),
        "half": record.entry(patterns, GPU, "abc", passed=True, partial=True),
    }
    record.add(made, path)
    entries, now = record.read(path), record.digest(patterns)
    assert entries == made and set(entries["tests"]) == {"commit", "sources", "device", "date", "passed"}
    states = {name: record.state(entries.get(name), now) for name in (*made, "another")}
    want = {"tests": "fresh", "sanitizer": "failed", "bar": "failed", "half": "partial", "another": "missing"}
    assert states == want
    assert record.state(entries["tests"], "of other sources") == "stale"
    record.add({"another": made["tests"]}, path)
    assert len(record.read(path)) == 5 and [p.name for p in tmp_path.iterdir()] == ["gpu.json"]


def test_any_change_of_a_source_makes_results_stale(tmp_path):
    (tmp_path / "kernels").mkdir()
    digests = set()
    for text in ("a = 1\n", "a = 2\n"):
        (tmp_path / "kernels/a.py").write_text(text)
        digests.add(record.digest(("kernels/*.py",), tmp_path))
    (tmp_path / "kernels/b.py").write_text("")
    digests.add(record.digest(("kernels/*.py",), tmp_path))
    (tmp_path / "kernels/b.py").rename(tmp_path / "kernels/c.py")
    digests.add(record.digest(("kernels/*.py",), tmp_path))
    assert len(digests) == 4
    (tmp_path / "other.py").write_text("")
    assert record.digest(("kernels/*.py",), tmp_path) in digests


def test_timings_are_of_a_kind_of_gpu():
    assert record.per_device("decode", GPU) == "decode on H100"
    assert record.per_device("decode", "NVIDIA L4") == "decode on NVIDIA L4"


def test_the_committed_record_was_made_by_gpus():
    assert record.FILE.is_file(), "a report of nothing would be fine with anything"
    for name, entry in record.read().items():
        assert {"commit", "sources", "device", "date"} <= set(entry) and entry["device"] != "cpu", name


def test_a_commit_is_dirty_but_for_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "FILE", tmp_path / "bench" / "gpu.json")
    assert record.commit() == "unknown"
    (tmp_path / "bench").mkdir()
    for name in ("a.py", "bench/gpu.json"):
        (tmp_path / name).write_text("{}")
    about = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for args in (["init", "-q"], ["add", "."], [*about, "commit", "-qm", "all"]):
        subprocess.run(["git", *args], cwd=tmp_path, check=True)
    clean = record.commit()
    assert len(clean) >= 7 and "dirty" not in clean
    (tmp_path / "bench" / "gpu.json").write_text("{1}")
    (tmp_path / "untracked").touch()
    assert record.commit() == clean
    (tmp_path / "a.py").write_text("1")
    assert record.commit() == f"{clean}-dirty"


# The report


def test_the_report_is_in_a_day_s_order():
    names = [name for name, _ in report.wanted()]
    of_each = [f"{name} on {device}" for name in ("decode", "warm-up", "transforms") for device in ("H100", "H200")]
    assert names[:7] == ["gpu-test", *of_each]
    assert names[7:10] == list(read.bar_names(read.PAINTER)) and len(names[7:10]) == 3
    assert names[10:15] == ["kernels on H100", "kernels on H200", *read.bar_names(read.PHASE)]
    order = [STEPS.index(step) for _, step in report.wanted()]
    assert order == sorted(order)
    patterns = dict(report.wanted())
    entries = {
        n: record.entry(patterns[n].sources, GPU, "abc", passed=True) for n in ("gpu-test", "sanitizer memcheck")
    }
    entries["bar: g_s 3 x eager, batch 64"] = {"value": 3.25, "sources": "old", "device": GPU}
    entries["what once was"] = {"device": GPU}
    lines = report.report(entries).splitlines()
    assert [line.split(None, 1)[1].startswith(name) for line, name in zip(lines, names, strict=False)] == [True] * 25
    assert lines[0].startswith("fresh ") and lines[1].startswith("missing ") and lines[7].startswith("stale ")
    assert "3.25; " in lines[7] and lines[-1].startswith("unknown  what once was")


def test_the_choices_of_a_day_ship(tmp_path):
    into, path = tmp_path / "tuned.json", tmp_path / "day.json"
    one = {"form": "fused", "block_p": 64, "block_n": 64, "block_k": 64, "warps": 4, "stages": 3}
    into.write_text(json.dumps({"GPU": {"a": one}, "other": {"z": one}}))
    path.write_text(json.dumps({"GPU": {"b": one | {"warps": 8}, "a": one | {"stages": 2}}}))
    assert report.take_choices(path, into) == 2
    devices = json.loads(into.read_text())
    assert (
        devices["other"] == {"z": one} and list(devices["GPU"]) == ["a", "b"] and devices["GPU"]["a"]["stages"] == 2
    )
    assert {f.name for f in dataclasses.fields(Config)} == report.FIELDS
    for text in ("", "[]", "{}x", '{"GPU": 1}', '{"GPU": {"a": {"form": "fused"}}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"day.json: no choices of kernels"):
            report.take_choices(path, into)
    assert json.loads(into.read_text()) == devices


def test_the_report_needs_no_torch():
    code = "import sys; from bench.gpu import report; report.main([]); raise SystemExit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=record.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= len(report.wanted())


def test_what_a_day_brought_home_is_noted(tmp_path, capsys, monkeypatch):
    into, path = tmp_path / "gpu.json", tmp_path / "day.json"
    monkeypatch.setattr(report.record, "FILE", into)
    record.add({"old": {"device": GPU}, "new": {"device": GPU, "value": 1}}, into)
    path.write_text(json.dumps({"device": GPU, "rehearsal": False, "entries": {"new": {"device": GPU, "value": 2}}}))
    assert report.take(path, into) == ["new"]
    assert record.read(into) == {"old": {"device": GPU}, "new": {"device": GPU, "value": 2}}


@pytest.mark.parametrize(
    "text, reason",
    [
        ('{"device": "cpu", "rehearsal": true, "entries": {}}', "a rehearsal"),
        ('{"device": "cpu", "rehearsal": false, "entries": {}}', "a rehearsal"),
        ('{"device": "x"}', "not a day's day.json"),
        ("[]", "not a day's day.json"),
        ("{", "not a day's day.json"),
        (None, "No such file"),
    ],
)
def test_what_is_no_day_is_refused(text, reason, tmp_path, capsys):
    path, before = tmp_path / "day.json", record.FILE.read_bytes()
    if text is not None:
        path.write_text(text)
    assert report.main(["--take", str(path)]) == 1
    assert reason in capsys.readouterr().err and record.FILE.read_bytes() == before


# What programs wrote


def made_up(ours, compiled, share, batch, shape="768x512"):
    common = {"model": "m", "shape": shape, "batch": batch, "phase": 1, "call_us": 1}
    return [
        common | {"impl": "ours int8 auto", "us": ours, "roofline_share": share, "config": "layers"},
        common | {"impl": "torch.compile fp16", "us": compiled, "roofline_share": 0.1},
    ]


def test_bars_are_the_worst_case(tmp_path):
    one, many, share = read.bar_names(read.PHASE)
    rows = made_up(10, 50, 0.2, 1) + made_up(10, 25, 0.2, 1, "1920x1080") + made_up(100, 210, 0.6, 64)
    assert read.bars(rows) == {one: (2.5, 3.0), many: (2.1, 2.0), share: (0.6, 0.5)}
    assert read.bars(made_up(10, 50, 0.2, 8)) == {} and read.bars([]) == {}
    rows.append(rows[1] | {"batch": 8, "left_out": "RuntimeError('no')"})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    result = read.kernels(tmp_path)
    assert result.bars == {
        one: {"value": 2.5, "met": False},
        many: {"value": 2.1, "met": True},
        share: {"value": 0.6, "met": True},
    }
    assert "| m | 1920x1080 | 1 | 1 | torch.compile fp16 | 25.0 |" in result.markdown
    assert f"- {one}: 2.5, missed" in result.markdown and len(result.rows) == 7
    assert result.markdown.endswith("Left out:\n- torch.compile fp16, batch 8: RuntimeError('no')")


def test_tests_are_counted(tmp_path):
    with pytest.raises(read.NoResult):
        read.tests(tmp_path)
    path = tmp_path / "outcomes.txt"
    path.write_text("passed\ta::b[x y]\t\nfailed\ta::c[1 | 2]\tit was not\nskipped\ta::d\t\npassed\ta::e\t\npas")
    result = read.tests(tmp_path)
    assert set(result.rows) == {"passed", "failed", "skipped", "why"}, "half a line is none"
    assert result.found == {"passed": False} and result.rows["why"] == {"a::c[1 | 2]": "it was not"}
    assert result.markdown == "2 passed, 1 failed, 1 skipped.\n- failed: `a::c[1 | 2]`: it was not"
    path.write_text("passed\ta\t\nskipped\tb\t\n")
    assert read.tests(tmp_path).found == {"passed": True}
    path.write_text("skipped\tb\t\n")
    assert read.tests(tmp_path).found == {"passed": False}, "nothing was tested"


def test_pictures_a_second_as_a_table(tmp_path):
    common = {"set": "768x512", "direction": "decode", "busy_processes": 0}
    rows = [
        common | {"batch": b, "impl": impl, "pictures_s": 10.0 * b, "bytes": 1000 * b, "psnr": psnr}
        for b in (1, 8)
        for impl, psnr in (("ours, iterator", 30.5), ("nvJPEG", 30.75), ("CompressAI", None))
        if (impl, b) != ("CompressAI", 8)
    ]
    rows.append(rows[0] | {"direction": "encode"})
    rows.append(rows[0] | {"busy_processes": 2})
    rows += [common | {"batch": b, "impl": "nvJPEG 2", "left_out": "no torchvision"} for b in (1, 8)]
    rows[0]["stages"], rows[3]["stages"] = {"coder": 1.5, "g_s": 2.0}, {"coder": 3.0}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    result = read.decode(tmp_path)
    assert result.found == {"pictures_s": {"1": 10.0, "8": 80.0}}
    for line in (
        "| decode, pictures/s | batch 1 | batch 8 |",
        "| ours, iterator | 10.0 | 80.0 |",
        "| encode, pictures/s | batch 1 |",
        "| decode, 2 busy, pictures/s | batch 1 |",
        "| CompressAI | 10.0 | - |",
        "| nvJPEG | 8 | 1000 | 30.75 |",
        "| CompressAI | 1 | 1000 | - |",
        "| coder | 1.50 | 3.00 |",
        "| g_s | 2.00 | 0.00 |",
        "- nvJPEG 2, batch 1, 8: no torchvision",
    ):
        assert line in result.markdown.splitlines()


def test_a_missing_extension_is_no_result(monkeypatch, tmp_path):
    assert read.build(tmp_path).rows == []
    monkeypatch.setattr(read, "ROOT", tmp_path)
    with pytest.raises(read.NoResult, match="no ckbd/_ans"):
        read.build(tmp_path)


def test_a_model_comes_home_validated_or_not(tmp_path):
    with pytest.raises(read.NoResult, match="no validation.json"):
        read.train(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "unfitted.safetensors").write_bytes(b"a model")
    found = read.train(tmp_path)
    assert found.markdown == "The model was not validated." and found.files[0].name == "unfitted.safetensors"
    (tmp_path / "model.safetensors").write_bytes(b"a better one")
    row = {"quality": 5, "bpp": 0.1, "psnr": 28.5, "before_bpp": 0.2, "before_psnr": 28.25}
    (tmp_path / "run" / "validation.json").write_text(json.dumps({"bd_rate": -12.5, "rows": [row]}))
    found = read.train(tmp_path)
    assert "| 5 | 0.1000 | 28.500 | 0.2000 | 28.250 |" in found.markdown and found.rows == [row]
    assert "BD-rate against before: -12.50 %." in found.markdown and found.found == {"bd_rate": -12.5}
    assert found.files == (tmp_path / "model.safetensors",)


def test_bars_in_names_do_not_break_a_table():
    assert tables.table(["a"], [["x | y"]]).splitlines()[-1] == "| x \\| y |"
