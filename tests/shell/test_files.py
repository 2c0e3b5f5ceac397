"""Which output belongs to which input, and what is refused before any work."""

import os
import time
from pathlib import Path

import pytest

from ckbd.codec import image
from ckbd.shell import files, jobs


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/a.jpg", "in/deep/er/a.b.JPG", "in/deep/b.png", "in/note.txt", "odd/x.ckbd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "named.ckbd").mkdir()


def plan(*arguments):
    """As `ckbd encode` plans; paths as text."""
    found = files.plan(
        arguments, files.Kind(lambda folder, onerror: image.find(folder, onerror=onerror), None, ".ckbd", (".ckbd",))
    )
    return {job.name: str(job.target) for job in found.jobs}, {str(path): why for path, why in found.missing}


@pytest.mark.parametrize(
    "arguments, jobs",
    [
        (["in/a.png", "x.ckbd"], {"in/a.png": "x.ckbd"}),
        (["in/a.png", "new/x.CKBD"], {"in/a.png": "new/x.CKBD"}),
        (["in/a.png", "new"], {"in/a.png": "new/a.ckbd"}),
        (["in/a.png", "v1.2/"], {"in/a.png": "v1.2/a.ckbd"}),
        (["in/a.png", "named.ckbd"], {"in/a.png": "named.ckbd/a.ckbd"}),
        (
            ["in/note.txt", "new"],
            {"in/note.txt": "new/note.ckbd"},
        ),
        (["in/deep", "new"], {"in/deep/b.png": "new/b.ckbd", "in/deep/er/a.b.JPG": "new/er/a.b.ckbd"}),
        (["in/deep/er", "in/a.png", "new"], {"in/deep/er/a.b.JPG": "new/a.b.ckbd", "in/a.png": "new/a.ckbd"}),
        (["in/a.png", "in"], {"in/a.png": "in/a.ckbd"}),
        (["in/deep", "in"], {"in/deep/b.png": "in/b.ckbd", "in/deep/er/a.b.JPG": "in/er/a.b.ckbd"}),
        (["in/a.png"], {"in/a.png": "in/a.ckbd"}),
        (["in/a.png", "in/deep/b.png"], {"in/a.png": "in/a.ckbd", "in/deep/b.png": "in/deep/b.ckbd"}),
        (["in/note.txt", "in/a.png"], {"in/note.txt": "in/note.ckbd", "in/a.png": "in/a.ckbd"}),
        (["-"], {"-": "None"}),
        (["-", "-"], {"-": "None"}),
        (["-", "x.ckbd"], {"-": "x.ckbd"}),
        (["in/a.png", "-"], {"in/a.png": "None"}),
    ],
)
def test_where_outputs_go(arguments, jobs, here):
    assert plan(*arguments) == (jobs, {})


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["in", "out"], "in/a.jpg and in/a.png would both be written to out/a.ckbd"),
        (["in/a.png", "in/a.jpg", "out"], "in/a.png and in/a.jpg would both be written to out/a.ckbd"),
        (["in/a.png", "in/a.png", "out"], "would both be written to out/a.ckbd"),
        (["in/deep", "in/deep/b.png", "out"], "would both be written to out/b.ckbd"),
        (["in/a.png", "in/a.jpg"], "in/a.png and in/a.jpg would both be written to in/a.ckbd"),
        (["in"], "in is a folder: OUT, where its files go, is missing"),
        (["in", "in/a.png"], "in is a folder"),
        (["-", "-", "-"], "- can be read but once"),
        (["", "out"], "expected a path, got an empty one"),
        (["in/a.png", ""], "expected a path as OUT, got an empty one"),
        (["in/a.png", "in/deep/../a.jpg"], "in/a.png and in/deep/../a.jpg would both be written to"),
        (["-", "named.ckbd"], "OUT named.ckbd: expected a file's name"),
        (["in/a.png", "in/deep/b.png", "-"], "OUT -: expected a folder for more than one file"),
        (["in", "-"], "OUT -: expected a folder for more than one file"),
        (["in/deep", "in/deep"], "OUT in/deep is also an input"),
        (["in/deep", "./in/../in/deep/"], "is also an input"),
        (["odd/x.ckbd", "odd/x.ckbd"], "OUT odd/x.ckbd is also an input"),
        (["odd/x.ckbd", "odd"], "odd/x.ckbd would be written for odd/x.ckbd, but is also an input"),
        (["in/a.png", "in/deep/b.png", "x.ckbd"], "OUT x.ckbd: expected a folder for more than one file"),
        (["in/deep", "x.ckbd"], "OUT x.ckbd: expected a folder for more than one file"),
        (["in/a.png", "x.jpg"], r"OUT x.jpg: expected a folder \(end a new one with /\) or a name in .ckbd"),
    ],
)
def test_what_is_refused(arguments, reason, here):
    with pytest.raises(files.UsageError, match=reason):
        plan(*arguments)


def test_a_link_to_an_input_is_that_input(here):
    Path("x.ckbd").symlink_to("odd/x.ckbd")
    with pytest.raises(files.UsageError, match="is also an input"):
        plan("odd/x.ckbd", "x.ckbd")


def test_paths_that_the_system_refuses_fail_alone(here, monkeypatch):
    long = "x" * 300 + ".png"
    jobs, missing = plan(long, "in/a.png", "out")
    assert jobs == {"in/a.png": "out/a.ckbd"} and missing == {long: "File name too long"}
    real, known = Path.stat, Path.exists

    def exists(self, **options):  # which asks stat no more since Python 3.14
        return bool(self.stat()) if self.name == "b.png" else known(self, **options)

    def stat(self, **options):
        if self.name == "b.png":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(Path, "exists", exists)
    jobs, missing = plan("in/deep/b.png", "in/a.png", "out")
    assert jobs == {"in/a.png": "out/a.ckbd"} and missing == {"in/deep/b.png": "Permission denied"}
    there = files.Plan([files.Job(Path("in/a.png"), Path("in/deep/b.png")), files.Job(None, Path("in/a.jpg"))])
    there.skip_existing()
    assert there.skipped == 1 and there.jobs[0].target == Path("in/deep/b.png"), "it says why when it is written"


def test_a_folder_that_cannot_be_read_is_named(here, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("er"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    jobs, missing = plan("in/deep", "out")
    assert jobs == {"in/deep/b.png": "out/b.ckbd"} and missing == {"in/deep/er": "Permission denied"}
    assert plan("in/deep/er", "out") == ({}, {"in/deep/er": "Permission denied"})


def test_what_is_not_there_is_listed(here):
    Path("empty").mkdir()
    jobs, missing = plan("nowhere.png", "empty", "in/a.png", "out")
    assert jobs == {"in/a.png": "out/a.ckbd"}
    assert "no such file" in missing["nowhere.png"] and "no files" in missing["empty"]


@pytest.mark.parametrize(
    "error, text",
    [
        (FileNotFoundError(2, "No such file or directory", "a.png"), "No such file or directory"),
        (FileNotFoundError(2, "No such file or directory", "b.png"), "No such file or directory: b.png"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("two\n  lines"), "two lines"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_a_reason_is_one_line(error, text):
    assert files.reason_of(error, "a.png") == text


def test_jobs_side_by_side_are_reported_in_order(tmp_path, capsys):
    from ckbd.codec.machine import Team
    from ckbd.pipeline import flow

    plan = files.Plan([files.Job(tmp_path / f"in{i}", tmp_path / f"out{i}") for i in range(12)])
    begun = []

    def work(job):
        begun.append(job)
        time.sleep(0.01 if job.name.endswith("0") else 0.001)
        if job.source.name == "in5":
            raise ValueError("no good")
        return jobs.Done(f"line {job.source.name}", 3, 8)

    team = Team(3)

    def ordered(work, items):
        return flow.ordered(work, items, team, 3)

    status = jobs.run(plan, work, force=False, ordered=ordered)
    out = capsys.readouterr()
    assert status == 1 and out.err == f"ckbd: {plan.jobs[5].name}: no good\n"
    want = [f"{job.name} -> {job.target}  line {job.source.name}" for job in plan.jobs if job.source.name != "in5"]
    assert out.out.splitlines()[:-1] == want
    assert out.out.splitlines()[-1].startswith("11 files  1 failed  33 bytes  3.0000 bpp  ")
    begun.clear()

    def interrupted(job):
        if job.source.name == "in0":
            raise KeyboardInterrupt
        return work(job)

    with pytest.raises(KeyboardInterrupt):
        jobs.run(plan, interrupted, force=False, ordered=ordered)
    assert len(begun) <= 6 and team._idle == 2, "none was begun after it"
