"""Many files: streams of several models, jobs side by side, and those that are taken up again."""

import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell_cases import files, photo

import ckbd
from ckbd import cli
from ckbd.codec import image
from ckbd.pipeline import flow
from ckbd.shell import coding, parser
from ckbd.shell import files as files_of

GOLDEN = Path(__file__).parent.parent / "golden"


def test_a_folder_of_models_that_cannot_be_read_stops_nobody(workshop, monkeypatch):
    photo("a.png")
    assert cli.main(["encode", "--model", "one", "a.png"]) == 0
    real = Path.is_file

    def is_file(self):
        if self.parent.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    Path("locked").mkdir()
    Path("locked/x.safetensors").touch()
    monkeypatch.setenv("CKBD_MODELS", os.pathsep.join(["locked", os.environ["CKBD_MODELS"]]))
    monkeypatch.setattr(Path, "is_file", is_file)
    assert (
        cli.main(["decode", "a.ckbd", "b.png"]) == 0
        and cli.main(["encode", "--model", "one", "a.png", "c.ckbd"]) == 0
    )


@pytest.mark.parametrize(
    "options, light",
    [([], True), (["--jobs", "1"], True), (["--jobs", "2"], False), (["--precision", "bfloat16"], False)]
    + [(["--device", "cuda"], False), (["--backend", "torch"], False), (["--model", "two"], True)],
)
def test_what_asks_for_torch(options, light, workshop, monkeypatch):
    photo("a.png")
    assert cli.main(["encode", "--model", "two", "a.png"]) == 0
    monkeypatch.delitem(sys.modules, "torch")
    args = parser.parse(["decode", "a.ckbd", "b.png", *options])
    todo = files_of.Plan([files_of.Job(Path("a.ckbd"), Path("b.png"))])
    assert coding._light(args, todo) == light


def test_jobs_are_so_many_at_a_time(workshop, monkeypatch):
    seen, real = [], flow.ordered

    def ordered(work, items, team, threads):
        seen.append((team.threads, threads))
        return real(work, items, team, threads)

    monkeypatch.setattr(flow, "ordered", ordered)
    photo("a.png")
    assert cli.main(["encode", "a.png", "--model", "one", "--jobs", "5", "--threads", "2"]) == 0
    assert cli.main(["encode", "a.png", "b.ckbd", "--model", "one", "--threads", "3"]) == 0
    assert cli.main(["decode", "a.ckbd", "b.png", "--jobs", "4", "--threads", "2"]) == 0
    assert seen == [(2, 5), (3, 3), (2, 4)]


def test_streams_of_several_models_in_one_command(workshop, monkeypatch, capsys):
    for i, model in enumerate(("one", "two", "one")):
        assert cli.main(["encode", photo(f"in/{i}.png", seed=i), f"mixed/{i}.ckbd", "--model", model]) == 0
    monkeypatch.setenv("CKBD_MODELS", os.pathsep.join([os.environ["CKBD_MODELS"], str(GOLDEN)]))
    for name in ("gray", "variant_raster"):
        shutil.copy(GOLDEN / f"{name}.ckbd", "mixed")
    capsys.readouterr()
    assert cli.main(["decode", "mixed", "out"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert files("out") == ["0.png", "1.png", "2.png", "gray.png", "variant_raster.png"]
    for name in files("out"):
        (want,) = ckbd.decode([Path("mixed", name).with_suffix(".ckbd").read_bytes()])
        with Image.open(Path("out", name)) as pil:
            assert np.array_equal(np.asarray(pil), np.asarray(want))
    assert cli.main(["decode", "mixed", "strict", "--model", "one"]) == 1
    assert files("strict") == ["0.png", "2.png"] and "made by model" in capsys.readouterr().err


def test_a_few_streams_of_several_models_need_no_torch(workshop):
    for model in ("one", "two"):
        assert cli.main(["encode", photo("a.png"), f"mixed/{model}.ckbd", "--model", model]) == 0
    code = (
        "import sys; from ckbd import cli; status = cli.main(['decode', 'mixed', 'out']); "
        "sys.exit(9 if 'torch' in sys.modules else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files("out") == ["one.png", "two.png"]


def test_a_model_that_nobody_has_fails_its_streams_alone(workshop, capsys):
    photo("a.png")
    assert cli.main(["encode", "a.png", "s/a.ckbd", "--model", "one"]) == 0
    assert cli.main(["encode", "a.png", "s/b.ckbd", "--model", "two"]) == 0
    Path(os.environ["CKBD_MODELS"], "two.safetensors").unlink()
    capsys.readouterr()
    assert cli.main(["decode", "s", "out"]) == 1
    err = capsys.readouterr().err
    assert files("out") == ["a.png"] and err.startswith("ckbd: s/b.ckbd: model at byte 4: made by model")
    assert "which is not here (known are " in err and "one (" in err and len(err.splitlines()) == 1


def test_format_of_a_folder(workshop, capsys):
    photo("in/a.png")
    assert cli.main(["encode", "in", "s", "--model", "one"]) == 0
    for format in ("jpg", "webp", "tiff"):
        assert cli.main(["decode", "s", "out", "--format", format]) == 0
    assert files("out") == ["a.jpg", "a.tiff", "a.webp"]
    assert cli.main(["decode", "s/a.ckbd", "x.png", "--format", "jpg"]) == 2
    assert "OUT x.png: expected a folder (end a new one with /) or a name in .jpg" in capsys.readouterr().err
    Path("x.png").touch()
    assert cli.main(["decode", "s/a.ckbd", "x.png", "--format", "jpg"]) == 2, "it is an output even so"
    assert cli.main(["decode", "s/a.ckbd", "x.txt"]) == 2 and not Path("s/a.jpg").exists()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["decode", "s", "out", "--format", "xyz"])
    assert "expected one of png, jpg," in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["1", "3", "50"])
def test_jobs_change_no_file(jobs, workshop):
    for i in range(7):
        photo(f"in/{i}.png", seed=i)
    assert cli.main(["encode", "in", "want", "--model", "one"]) == 0
    assert cli.main(["encode", "in", "s", "--model", "one", "--jobs", jobs]) == 0
    assert cli.main(["decode", "s", "out", "--jobs", jobs]) == 0
    assert [Path("s", name).read_bytes() for name in files("s")] == [
        Path("want", n).read_bytes() for n in files("want")
    ]
    assert len(files("out")) == 7


def test_metadata_goes_along_unless_it_is_stripped(workshop, capsys):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    photo("a.jpg", 30, 40, exif=exif, xmp=b"<packet/>")
    assert cli.main(["encode", "a.jpg", "--model", "one"]) == 0
    assert cli.main(["decode", "a.ckbd", "out/"]) == 0 and cli.main(["decode", "a.ckbd", "b.bmp"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "a.ckbd -> b.bmp  30x40  without EXIF and XMP"
    with Image.open("out/a.png") as pil:
        assert pil.getexif()[0x010F] == "Maker" and pil.getexif()[0x0112] == 1 and pil.info["xmp"] == b"<packet/>"
        assert pil.size == (30, 40)
    assert cli.main(["info", "a.ckbd"]) == 0
    assert re.search(r"  exif +\d+ bytes\n.*  xmp +\d+ bytes\n", capsys.readouterr().out, re.S)
    size = Path("a.ckbd").stat().st_size
    assert cli.main(["decode", "a.ckbd", "c.png", "--strip"]) == 0
    assert cli.main(["encode", "a.jpg", "--model", "one", "--strip", "--force"]) == 0
    assert Path("a.ckbd").stat().st_size < size - 40
    assert cli.main(["decode", "a.ckbd", "d.png"]) == 0
    for name in ("c.png", "d.png"):
        with Image.open(name) as pil:
            assert not pil.getexif() and "xmp" not in pil.info and pil.size == (30, 40)


def test_names_that_differ_in_their_suffix_alone(workshop, capsys):
    for name in ("in/a.png", "in/a.jpg"):
        photo(name)
    assert cli.main(["encode", "in", "s", "--model", "one"]) == 2
    assert "would both be written to s/a.ckbd (--keep-suffix tells them apart)" in capsys.readouterr().err
    assert cli.main(["encode", "in", "s", "--model", "one", "--keep-suffix"]) == 0
    assert cli.main(["encode", "in/a.png", "--model", "one", "--keep-suffix"]) == 0
    assert files("s") == ["a.jpg.ckbd", "a.png.ckbd"] and Path("in/a.png.ckbd").is_file()
    assert cli.main(["decode", "s", "out"]) == 0 and files("out") == ["a.jpg.png", "a.png.png"]


def test_quiet(workshop, capsys):
    for name in ("in/a.png", "in/b.png"):
        photo(name)
    Path("in/c.png").write_bytes(b"no picture")
    assert cli.main(["encode", "in", "s", "--model", "one", "-q"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("ckbd: in/c.png: ") and len(err.splitlines()) == 1
    assert cli.main(["decode", "s", "out", "--quiet"]) == 0 and capsys.readouterr() == ("", "")


def test_what_is_there_is_said_without_loading_anything(workshop, monkeypatch, capsys):
    photo("a.png")
    Path("a.ckbd").touch()
    monkeypatch.setattr(coding, "load", None)
    assert cli.main(["encode", "a.png"]) == 1 and "a.ckbd exists (--force" in capsys.readouterr().err
    assert cli.main(["encode", "a.png", "--skip-existing"]) == 0


def test_two_at_a_time_that_skip_what_the_other_has_done(workshop, monkeypatch, capsys):
    for i in range(4):
        photo(f"in/{i}.png", seed=i)
    real = image.read

    def read(source, max_pixels):
        Path("s/3.ckbd").parent.mkdir(exist_ok=True)
        Path("s/3.ckbd").write_bytes(b"by another process")
        return real(source, max_pixels)

    monkeypatch.setattr(image, "read", read)
    assert cli.main(["encode", "in", "s", "--model", "one", "--skip-existing", "--jobs", "1"]) == 0
    assert "3 files  1 skipped" in capsys.readouterr().out and Path("s/3.ckbd").read_bytes() == b"by another process"


def test_skip_existing(workshop, capsys):
    for name in "abc":
        photo(f"in/{name}.png")
    Path("s").mkdir()
    Path("s/b.ckbd").write_bytes(b"here already")
    encode = ["encode", "in", "s", "--model", "one", "--skip-existing"]
    assert cli.main(encode) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["in/a.png", "in/c.png", "2"]
    assert lines[-1].startswith("2 files  1 skipped  ")
    assert Path("s/b.ckbd").read_bytes() == b"here already"
    Path("in/d.png").write_bytes(b"no picture")
    assert cli.main(encode) == 1
    out, err = capsys.readouterr()
    assert out == "0 files  3 skipped  1 failed\n" and err.startswith("ckbd: in/d.png: ")
    Path("in/d.png").unlink()
    assert cli.main(encode) == 0 and capsys.readouterr() == ("0 files  3 skipped\n", "")
    assert cli.main(["encode", "in/a.png", "s/a.ckbd", "--skip-existing"]) == 0


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_job_that_is_killed_is_taken_up_again(command, workshop):
    """kill -9 at random moments: every file is whole, none is lost, and nothing else is left behind."""
    draw = random.Random(command)
    for i in range(60):
        photo(f"in/{i % 7}/{i}.png", 64, 64, i)
    assert cli.main(["encode", "in", "streams", "--model", "one", "--quality", "90"]) == 0
    source, suffix = ("in", ".ckbd") if command == "encode" else ("streams", ".png")
    more = ["--model", "one", "--quality", "90"] if command == "encode" else ["--jobs", "2"]
    arguments = [sys.executable, "-m", "ckbd", command, source, "out", "--skip-existing", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    stopped = rounds = 0
    while stopped < 3:
        rounds += 1
        assert rounds < 20
        before = len(files("out")) if Path("out").is_dir() else 0
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        process.stdout.readline()  # it is under way
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        killed = process.wait() == -signal.SIGKILL
        stopped += killed
        assert before <= len(files("out"))
        assert not [name for name in files("out") if Path(name).suffix != suffix or Path(name).name.startswith(".")]
        if not killed:  # it was quicker: something to do for the next one
            for name in files("out")[::2]:
                Path("out", name).unlink()
    done = subprocess.run(arguments, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert files("out") == sorted(f"{i % 7}/{i}{suffix}" for i in range(60))
    for name in files("out"):
        data = Path("out", name).read_bytes()
        if command == "encode":
            assert data == Path("streams", name).read_bytes()
        else:
            Image.open(io.BytesIO(data)).load()
