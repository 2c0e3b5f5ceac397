"""What a shell's user expects: `-` for what comes by a pipe, a missing OUT, odd names, words for what is wrong."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from shell_cases import files, photo, shell

from ckbd import cli
from ckbd.codec import container, image


def test_pipes_there_and_back(workshop):
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
    assert files(workshop) == ["a.png", "b.ckbd", "x.bmp"]


def test_what_comes_by_a_pipe_may_be_nothing(workshop):
    for command in ("encode", "decode", "info"):
        done = shell([command, "-"], b"")
        assert done.returncode == 1 and not done.stdout and done.stderr.startswith(b"ckbd: -: "), command
        assert len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_ends_quietly(workshop):
    photo("a.png")
    assert cli.main(["encode", "--model", "one", "a.png"]) == 0
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "ckbd", "decode", "a.ckbd", "-"], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["encode", "a.png"], ["info", "b.ckbd"], ["decode", "b.ckbd", "-"]])
def test_an_output_that_is_full_is_one_line(arguments, workshop):
    photo("a.png")
    assert cli.main(["encode", "--model", "one", "a.png", "b.ckbd"]) == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "ckbd", *arguments], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and re.fullmatch(rb"ckbd: [^\n]*: No space left on device\n(- -> .*\n)?", done.stderr)


def test_names_that_are_no_text(workshop):
    for name in (b"caf\xe9.png", "ü.png".encode()):
        photo(os.fsdecode(name))
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, "-m", "ckbd", "encode", "--model", "one", b"caf\xe9.png", "ü.png", "out/"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, done.stderr
    assert len(os.listdir("out")) == 2
    done = subprocess.run(
        [sys.executable, "-m", "ckbd", "info", b"out/caf\xe9.ckbd"], capture_output=True, env=environment
    )
    assert done.returncode == 0


def test_a_stream_from_a_named_pipe(workshop):
    photo("a.png")
    assert cli.main(["encode", "--model", "one", "a.png"]) == 0
    os.mkfifo("in.ckbd")
    process = subprocess.Popen([sys.executable, "-m", "ckbd", "decode", "in.ckbd", "b.png"])
    Path("in.ckbd").write_bytes(Path("a.ckbd").read_bytes())
    assert process.wait(60) == 0 and image.read("b.png").width == 40


def test_paths_that_begin_with_a_dash(workshop):
    photo("./-a.png")
    assert cli.main(["encode", "--model", "one", "--", "-a.png", "out/"]) == 0
    assert cli.main(["decode", "--threads", "1", "out", "--", "back"]) == 0
    assert files("out") == ["-a.ckbd"] and files("back") == ["-a.png"]
    for arguments in (["encode", "--"], ["encode", "--model", "one"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2


def test_a_terminal_gets_no_bytes(workshop, monkeypatch, capsys):
    photo("a.png")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(["encode", "--model", "one", "a.png", "-"]) == 2
    assert "standard output is a terminal" in capsys.readouterr().err


def test_out_may_be_missing(workshop, capsys):
    for name in ("a.png", "deep/b.jpg", "c.webp"):
        photo(name)
    assert cli.main(["encode", "a.png", "deep/b.jpg", "--model", "one"]) == 0
    assert cli.main(["encode", "--model", "one", "c.webp"]) == 0
    assert files(workshop) == ["a.ckbd", "a.png", "c.ckbd", "c.webp", "deep/b.ckbd", "deep/b.jpg"]
    assert cli.main(["decode", "deep/b.ckbd"]) == 0 and Path("deep/b.png").is_file()
    assert cli.main(["decode", "a.ckbd", "c.ckbd"]) == 1
    assert "a.png exists (--force overwrites it)" in capsys.readouterr().err and Path("c.png").is_file()
    assert cli.main(["decode", "a.ckbd", "--format", "jpeg"]) == 0 and Path("a.jpeg").is_file()
    assert cli.main(["encode", "deep"]) == 2 and "OUT, where its files go, is missing" in capsys.readouterr().err
    assert cli.main(["encode", "a.ckbd"]) == 2 and "is also an input" in capsys.readouterr().err


def test_options_between_paths(workshop):
    photo("a.png")
    assert cli.main(["encode", "a.png", "--model", "one", "b.ckbd"]) == 0
    assert cli.main(["decode", "b.ckbd", "--threads", "1", "-", "--force"]) == 0
    assert files(workshop) == ["a.png", "b.ckbd"]


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
def test_wrong_values_are_named_for_people(arguments, reason, workshop, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["encode", "a.png", *arguments])
    assert stopped.value.code == 2 and reason in capsys.readouterr().err
