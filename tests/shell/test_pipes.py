"""What a shell's user expects: `-`, a missing OUT, mixed models, jobs that are taken up again."""

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
from conftest import textured, tiny_model
from PIL import Image

import ckbd
from ckbd import cli
from ckbd.codec import container, image
from ckbd.model import file as modelfile

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_path):
    """A working folder; `default`, `one` and `two` are tiny models."""
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(tiny_path, models / "one.safetensors")
    modelfile.save(tiny_model(1), models / "two.safetensors")
    monkeypatch.setenv("CKBD_MODELS", str(models))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def photo(path, height=30, width=40, seed=0, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(textured(height, width, seed)).save(path, **options)
    return path


def shell(arguments, stdin=b"", module="ckbd"):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], input=stdin, capture_output=True, env=environment, timeout=120
    )


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def test_pipes_there_and_back(here):
    photo("a.png")
    made = shell(["encode", "--model", "one", "-"], Path("a.png").read_bytes())
    assert made.returncode == 0 and container.parse(made.stdout).header.width == 40
    assert re.fullmatch(rb"- -> -  \d+ bytes  [\d.]+ bpp  quality 50\n", made.stderr)
    assert cli.main(["encode", "--model", "one", "a.png", "b.ckbd"]) == 0
    assert Path("b.ckbd").read_bytes() == made.stdout
    back = shell(["decode", "-", "-"], made.stdout)
    assert back.returncode == 0 and back.stderr == b"- -> -  40x30\n"
    with Image.open(io.BytesIO(back.stdout)) as pil:
        assert (pil.format, pil.size) == ("PNG", (40, 30))
    for format, name in (("jpg", "JPEG"), (".TIFF", "TIFF"), ("webp", "WEBP")):
        with Image.open(io.BytesIO(shell(["decode", "b.ckbd", "-", "--format", format]).stdout)) as pil:
            assert (pil.format, pil.size) == (name, (40, 30))
    assert shell(["decode", "-", "x.bmp"], made.stdout, "ckbd.cli").returncode == 0
    assert image.read("x.bmp").width == 40
    shown = shell(["info", "-"], made.stdout)
    assert shown.stdout.startswith(b"-: %d bytes\n" % len(made.stdout)) and b" (one)\n" in shown.stdout
    assert files(here) == ["a.png", "b.ckbd", "x.bmp"]


def test_what_comes_by_a_pipe_may_be_nothing(here):
    for command in ("encode", "decode", "info"):
        done = shell([command, "-"], b"")
        assert done.returncode == 1 and not done.stdout and done.stderr.startswith(b"ckbd: -: "), command
        assert len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_ends_quietly(here):
    photo("a.png")
    assert cli.main(["encode", "--model", "one", "a.png"]) == 0
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "ckbd", "decode", "a.ckbd", "-"], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert done.returncode == 1 and b"Traceback" not in done.stderr


def test_a_terminal_gets_no_bytes(here, monkeypatch, capsys):
    photo("a.png")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(["encode", "--model", "one", "a.png", "-"]) == 2
    assert "standard output is a terminal" in capsys.readouterr().err


def test_out_may_be_missing(here, capsys):
    for name in ("a.png", "deep/b.jpg", "c.webp"):
        photo(name)
    assert cli.main(["encode", "a.png", "deep/b.jpg", "--model", "one"]) == 0
    assert cli.main(["encode", "--model", "one", "c.webp"]) == 0
    assert files(here) == ["a.ckbd", "a.png", "c.ckbd", "c.webp", "deep/b.ckbd", "deep/b.jpg"]
    assert cli.main(["decode", "deep/b.ckbd"]) == 0 and Path("deep/b.png").is_file()
    assert cli.main(["decode", "a.ckbd", "c.ckbd"]) == 1
    assert "a.png exists (--force overwrites it)" in capsys.readouterr().err and Path("c.png").is_file()
    assert cli.main(["decode", "a.ckbd", "--format", "jpeg"]) == 0 and Path("a.jpeg").is_file()
    assert cli.main(["encode", "deep"]) == 2 and "OUT, where its files go, is missing" in capsys.readouterr().err
    assert cli.main(["encode", "a.ckbd"]) == 2 and "is also an input" in capsys.readouterr().err


def test_options_between_paths(here):
    photo("a.png")
    assert cli.main(["encode", "a.png", "--model", "one", "b.ckbd"]) == 0
    assert cli.main(["decode", "b.ckbd", "--threads", "1", "-", "--force"]) == 0
    assert files(here) == ["a.png", "b.ckbd"]


def test_streams_of_several_models_in_one_command(here, monkeypatch, capsys):
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


def test_a_few_streams_of_several_models_need_no_torch(here):
    for model in ("one", "two"):
        assert cli.main(["encode", photo("a.png"), f"mixed/{model}.ckbd", "--model", model]) == 0
    code = (
        "import sys; from ckbd import cli; status = cli.main(['decode', 'mixed', 'out']); "
        "sys.exit(9 if 'torch' in sys.modules else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files("out") == ["one.png", "two.png"]


def test_a_model_that_nobody_has_fails_its_streams_alone(here, capsys):
    photo("a.png")
    assert cli.main(["encode", "a.png", "s/a.ckbd", "--model", "one"]) == 0
    assert cli.main(["encode", "a.png", "s/b.ckbd", "--model", "two"]) == 0
    Path(os.environ["CKBD_MODELS"], "two.safetensors").unlink()
    capsys.readouterr()
    assert cli.main(["decode", "s", "out"]) == 1
    err = capsys.readouterr().err
    assert files("out") == ["a.png"] and err.startswith("ckbd: s/b.ckbd: model at byte 4: made by model")
    assert "which is not here (known are " in err and "one (" in err and len(err.splitlines()) == 1


def test_format_of_a_folder(here, capsys):
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


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--quality", "abc"], "argument --quality: expected a number from 1 to 100, got 'abc'"),
        (["--quality", "101"], "argument --quality: expected a number from 1 to 100, got 101"),
        (["--jobs", "two"], "argument --jobs: expected a whole number above 0, got 'two'"),
        (["--threads", "0"], "argument --threads: expected a whole number above 0, got 0"),
        (["--target-bpp", "x"], "argument --target-bpp: expected a number above 0, got 'x'"),
        (["--target-psnr", "-1"], "argument --target-psnr: expected a number above 0, got -1"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_values_are_named_for_people(arguments, reason, here, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["encode", "a.png", *arguments])
    assert stopped.value.code == 2 and reason in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["1", "3", "50"])
def test_jobs_change_no_file(jobs, here):
    for i in range(7):
        photo(f"in/{i}.png", seed=i)
    assert cli.main(["encode", "in", "want", "--model", "one"]) == 0
    assert cli.main(["encode", "in", "s", "--model", "one", "--jobs", jobs]) == 0
    assert cli.main(["decode", "s", "out", "--jobs", jobs]) == 0
    assert [Path("s", name).read_bytes() for name in files("s")] == [
        Path("want", n).read_bytes() for n in files("want")
    ]
    assert len(files("out")) == 7


def test_metadata_goes_along_unless_it_is_stripped(here, capsys):
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


def test_skip_existing(here, capsys):
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
def test_a_job_that_is_killed_is_taken_up_again(command, here):
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
