"""The command line: what is written where, what is refused, and what a bad file does to the others."""

import os
import re
import subprocess
import sys
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from jpeg_codec import JpegCodec
from PIL import Image
from shell_cases import files, photo

from ckbd import cli, loading
from ckbd.codec import machine
from ckbd.codec.image import Picture, psnr
from ckbd.kernels import products
from ckbd.shell import about
from ckbd.shell import target as targets

pytest_plugins = ["shell_codec"]


def test_one_file_there_and_back(here, loads, capsys):
    photo(here / "a.png", 19, 30)
    torch = ("--backend", "torch")
    assert cli.main(["encode", "a.png", "a.ckbd", "--quality", "80", "--model", "m", "--threads", "2", *torch]) == 0
    size = (here / "a.ckbd").stat().st_size
    expected = f"a.png -> a.ckbd  {size} bytes  {8 * size / 570:.4f} bpp  quality 80\n"
    assert capsys.readouterr() == (expected, "")
    assert cli.main(["decode", "a.ckbd", "b.bmp", "--model", "m"]) == 0
    assert capsys.readouterr() == ("a.ckbd -> b.bmp  30x19\n", "")
    with Image.open("b.bmp") as pil:
        assert pil.size == (30, 19) and pil.format == "BMP"
    assert loads == [
        ("m", {"device": "cpu", "threads": 2, "backend": "torch", "precision": "auto", "max_pixels": 1 << 27}),
        ("m", {"device": "cpu", "team": ANY, "backend": "auto", "precision": "auto", "max_pixels": 1 << 27}),
    ]


def test_folders_are_mirrored(here, capsys):
    for name in ("in/a.png", "in/deep/er/a.tif", "in/deep/b.webp", "in/.hidden/c.png", "single.png"):
        photo(here / name)
    (here / "in" / "note.txt").write_text("no image")
    assert cli.main(["encode", "in", "single.png", "out"]) == 0
    assert files(here / "out") == ["a.ckbd", "deep/b.ckbd", "deep/er/a.ckbd", "single.ckbd"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and re.fullmatch(r"4 files  \d+ bytes  [\d.]+ bpp  [\d.]+ s  [\d.]+ files/s", lines[-1])
    assert cli.main(["decode", "out", "back", "--model", "m"]) == 0
    assert files(here / "back") == ["a.png", "deep/b.png", "deep/er/a.png", "single.png"]


def test_a_bad_file_fails_alone(here, capsys):
    for name in ("in/a.png", "in/c.png"):
        photo(here / name)
    (here / "in" / "b.png").write_bytes(b"no picture")
    (here / "empty").mkdir()
    assert cli.main(["encode", "in", "missing.png", "empty", "out"]) == 1
    out, err = capsys.readouterr()
    assert files(here / "out") == ["a.ckbd", "c.ckbd"] and len(out.splitlines()) == 3
    assert out.splitlines()[-1].startswith("2 files  3 failed  ")
    lines = err.splitlines()
    assert len(lines) == 3 and all(line.startswith("ckbd: ") for line in lines)
    assert (
        "missing.png: no such file" in lines[0] and "empty: no files" in lines[1] and "in/b.png: no image" in lines[2]
    )


def test_a_bad_stream_fails_alone_and_in_one_line(here, capsys):
    photo(here / "in" / "a.png")
    cli.main(["encode", "in", "out"])
    (here / "out" / "b.ckbd").write_bytes(b"junk")
    (here / "out" / "c.ckbd").mkdir()
    capsys.readouterr()
    assert cli.main(["decode", "out", "back", "--model", "m"]) == 1
    assert files(here / "back") == ["a.png"]
    assert capsys.readouterr().err == "ckbd: out/b.ckbd: magic at offset 0: expected another one\n"


def test_nothing_is_overwritten_without_force(here, capsys):
    photo(here / "in" / "a.png")
    photo(here / "in" / "b.png")
    (here / "out").mkdir()
    (here / "out" / "a.ckbd").write_bytes(b"precious")
    assert cli.main(["encode", "in", "out"]) == 1
    assert "out/a.ckbd exists (--force overwrites it)" in capsys.readouterr().err
    assert (here / "out" / "a.ckbd").read_bytes() == b"precious" and (here / "out" / "b.ckbd").is_file()
    assert cli.main(["encode", "in", "out", "--force"]) == 0
    assert (here / "out" / "a.ckbd").read_bytes() != b"precious"
    decode = ["decode", "--model", "m", "out", "back"]
    assert cli.main(decode) == 0
    assert cli.main(decode) == 1
    assert cli.main([*decode, "--force"]) == 0


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["encode", "in", "out"], "in/a.jpg and in/a.png would both be written to out/a.ckbd"),
        (
            ["decode", "old.ckbd", "x.ckbd"],
            "OUT x.ckbd: expected a folder (end a new one with /) or a name in .png,",
        ),
        (["eval", "nowhere"], "DIR nowhere: no such folder"),
        (["eval", "in", "--json", "old.ckbd"], "old.ckbd exists (--force overwrites it)"),
        (["eval", "in", "--csv", "nowhere/x.csv"], "nowhere/x.csv: no such folder"),
        (["eval", "in", "--html", "old.ckbd"], "old.ckbd exists (--force overwrites it)"),
        (["eval", "in", "--html", "in", "--force"], "in is a folder"),
        (["eval", "in", "--html", "r.x", "--json", "r.x"], "--json, --csv, --plot and --html: expected a file each"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(arguments, reason, here, loads, capsys):
    for name in ("in/a.png", "in/a.jpg", "in/b.png"):
        photo(here / name)
    (here / "old.ckbd").touch()
    before = files(here)
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert reason in err and err.startswith("ckbd: ") and len(err.splitlines()) == 1 and not out
    assert files(here) == before and not loads


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["encode"],
        ["encode", "a.png", "out", "--quallity", "5"],
        ["info", "a.ckbd", "b.ckbd"],
        ["encode", "a.png", "out", "--force", "--skip-existing"],
        ["encode", "a.png", "out", "--quality", "0.9"],
        ["encode", "a.png", "out", "--quality", "nan"],
        ["encode", "a.png", "out", "--effort", "2"],
        ["encode", "a.png", "out", "--quality", "50", "--target-bpp", "1"],
        ["encode", "a.png", "out", "--target-bpp", "0"],
        ["encode", "a.png", "out", "--threads", "0"],
        ["eval", "in", "--qualities", "10,101"],
        ["eval", "in", "--metrics", "psnr,vmaf"],
        ["eval", "in", "--html", "r.html", "--html-quality", "0"],
        ["paint"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, here, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2 and "usage: ckbd" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_is_one_line(here, monkeypatch, capsys):
    def load(model, **options):
        raise FileNotFoundError(2, "No such file or directory", model)

    monkeypatch.setattr("ckbd.load", load, raising=False)
    photo(here / "a.png")
    assert cli.main(["encode", "a.png", "out", "--model", "m.safetensors"]) == 2
    assert capsys.readouterr().err == "ckbd: model m.safetensors: No such file or directory\n"
    assert files(here) == ["a.png"]


@pytest.mark.parametrize("at_most", [True, False])
def test_search_finds_every_threshold(at_most):
    halves = np.arange(2, 201) / 2
    values = np.floor(halves / 3) * 10  # a stair, so that several qualities share a measure
    for target in (*np.unique(values), *np.unique(values) + 1):
        asked = []

        def measure(quality, asked=asked):
            asked.append(quality)
            return values[int(2 * quality) - 2]

        quality, reached = targets.search(measure, target, at_most=at_most)
        assert reached == (values[0] <= target <= values[-1]) and quality in asked and len(asked) <= 10
        fitting = halves[values <= target] if at_most else halves[values >= target]
        assert quality == (max(fitting) if at_most else min(fitting, default=100))
    assert targets.search(lambda quality: quality, 0.5, at_most=at_most) == (1, False)
    assert targets.search(lambda quality: quality, 100.5, at_most=at_most) == (100, False)


@pytest.mark.parametrize("options, effort", [([], None), (["--effort", "0"], 0), (["--effort", "1"], 1)])
@pytest.mark.parametrize("rate", [[], ["--target-bpp", "4"]])
def test_effort_reaches_the_codec(options, effort, rate, here, monkeypatch):
    asked = []

    class Recorder(JpegCodec):
        def encode(self, images, quality, effort=None, progress=None):
            asked.append(effort)
            return super().encode(images, quality)

    monkeypatch.setattr("ckbd.load", lambda model, **options: Recorder(), raising=False)
    photo(here / "a.png")
    assert cli.main(["encode", "a.png", "a.ckbd", *options, *rate]) == 0
    assert set(asked) == {effort}
    assert cli.main(["eval", ".", "--no-rivals", "--qualities", "50", *options]) == 0
    assert set(asked) == {effort}


def test_target_bpp_is_the_best_that_fits(here, capsys):
    picture = Picture(np.array(Image.open(photo(here / "a.png", 64, 70))))
    assert cli.main(["encode", "a.png", "a.ckbd", "--target-bpp", "4"]) == 0
    quality = float(capsys.readouterr().out.split()[-1])
    (stream,), (larger,) = (JpegCodec().encode([picture], q) for q in (quality, quality + 0.5))
    assert (here / "a.ckbd").read_bytes() == stream
    assert 8 * len(stream) / 4480 <= 4 < 8 * len(larger) / 4480


def test_target_psnr_is_the_smallest_that_reaches_it(here, capsys):
    picture = Picture(np.array(Image.open(photo(here / "a.png", 64, 70))))
    assert cli.main(["encode", "a.png", "a.ckbd", "--target-psnr", "35"]) == 0
    quality = float(capsys.readouterr().out.split()[-1])
    jpeg = JpegCodec()
    good, worse = (jpeg.decode_pictures(jpeg.encode([picture], q))[0].rgb for q in (quality, quality - 0.5))
    assert psnr(good, picture.rgb) >= 35 > psnr(worse, picture.rgb)


@pytest.mark.parametrize(
    "target, quality",
    [(["--target-bpp", "0.01"], 1), (["--target-bpp", "999"], 100), (["--target-psnr", "2"], 1)],
)
def test_a_target_out_of_reach_takes_the_nearest_end_and_warns(target, quality, here, capsys):
    photo(here / "a.png")
    assert cli.main(["encode", "a.png", "a.ckbd", *target]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(f"quality {quality}\n")
    assert err.startswith("ckbd: a.png: warning: ") and f"out of reach; quality {quality} gives" in err


@pytest.mark.parametrize("where", ["encode", "link"])
def test_an_interrupt_is_clean(where, here, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    photo(here / "in" / "a.png")
    photo(here / "in" / "b.png")
    if where == "encode":
        monkeypatch.setattr(JpegCodec, "encode", interrupted)
    else:
        monkeypatch.setattr(os, "link", interrupted)
    assert cli.main(["encode", "in", "out"]) == 130
    assert capsys.readouterr().err == "ckbd: interrupted\n"
    assert files(here) == ["in/a.png", "in/b.png"]


def test_a_fault_of_ours_is_not_hidden(here, monkeypatch):
    def broken(self, images, quality, effort, progress):
        raise AssertionError("never")

    photo(here / "a.png")
    monkeypatch.setattr(JpegCodec, "encode", broken)
    with pytest.raises(AssertionError, match="never"):
        cli.main(["encode", "a.png", "out"])


def test_an_image_that_the_suffix_cannot_hold_fails_alone(here, monkeypatch, capsys):
    rgb = np.zeros((2, 3, 3), np.uint8)
    monkeypatch.setattr(JpegCodec, "decode_pictures", lambda self, streams, **asked: [Picture(rgb, rgb[..., 0])])
    (here / "a.ckbd").touch()
    assert cli.main(["decode", "a.ckbd", "a.jpg", "--model", "m"]) == 1
    assert "JPEG files have no transparency (png, webp," in capsys.readouterr().err and files(here) == ["a.ckbd"]
    assert cli.main(["decode", "a.ckbd", "a.png", "--model", "m"]) == 0


class Exhausted(JpegCodec):
    """For which one picture of three is too large: as PyTorch says it, of a CPU by itself."""

    def __init__(self, fail):
        self.fail = fail

    def encode(self, images, quality, effort=None, progress=None):
        if images[0].width == 100:
            self.fail()
        return super().encode(images, quality, effort)


def out_of_a_gpus_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore about it.")


def out_of_memory():
    with machine.working(torch.device("cpu")):
        torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize(
    "fail, reason",
    [(out_of_memory, "not enough memory for 11529"), (out_of_a_gpus_memory, "CUDA out of memory. Tri")],
)
def test_a_picture_too_large_for_the_memory_fails_alone(fail, reason, here, monkeypatch, capsys):
    monkeypatch.setattr("ckbd.load", lambda *_, **__: Exhausted(fail), raising=False)
    for name, width in (("a", 40), ("b", 100), ("c", 30)):
        photo(here / f"in/{name}.png", width=width)
    assert cli.main(["encode", "in", "out"]) == 1
    assert files(here / "out") == ["a.ckbd", "c.ckbd"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ckbd: in/b.png: {reason}")


def test_the_limit_of_pixels_is_the_command_lines(here, tiny_path, monkeypatch, capsys):
    monkeypatch.undo()  # a real codec
    monkeypatch.chdir(here)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own is none here
    photo(here / "a.png", 70, 80)
    model = ("--model", str(tiny_path))
    assert cli.main(["encode", "a.png", "--max-pixels", "5599", *model]) == 1
    assert "70 pixels are more than the limit of 5599 (max_pixels)" in capsys.readouterr().err
    assert cli.main(["encode", "a.png", "--max-pixels", "5600", *model]) == 0
    (here / "pictures").mkdir()
    (here / "a.png").rename(here / "pictures" / "a.png")
    assert cli.main(["eval", "pictures", "--qualities", "50", "--no-rivals", "--metrics", "psnr", *model]) == 0
    assert Image.MAX_IMAGE_PIXELS == 100
    for jobs in ("1", "2"):
        how = ("--jobs", jobs, *model)
        assert cli.main(["decode", "a.ckbd", "b.bmp", "--max-pixels", "5599", "--force", *how]) == 1
        assert "height at byte 14: 80 x 70 pixels are more than the limit of 5599" in capsys.readouterr().err
        assert cli.main(["decode", "a.ckbd", "b.bmp", "--max-pixels", "5600", "--force", *how]) == 0


@pytest.mark.parametrize("arguments", [["decode", "a.ckbd", "a.png"], ["info", "a.ckbd"]])
def test_a_file_larger_than_the_memory_is_not_read(arguments, here, tiny_path, capsys):
    (here / "a.ckbd").write_bytes(b"\x89PNG")
    os.truncate(here / "a.ckbd", 1 << 40)  # without a block on the disk
    model = ["--model", str(tiny_path)] if arguments[0] == "decode" else []
    assert cli.main(arguments + model) == 1
    assert capsys.readouterr().err.startswith("ckbd: a.ckbd: magic at byte 0: expected cb 6b 62, got 89 50 4e")


def test_train_hands_its_arguments_on(monkeypatch):
    from ckbd.training import train

    seen = []
    monkeypatch.setattr(train, "main", seen.append)
    assert cli.main(["train", "--steps", "5", "data"]) == 0 and seen == [["--steps", "5", "data"]]


def test_help_needs_no_torch():
    code = (
        "import sys, ckbd.cli\n"
        "try: ckbd.cli.main(['--help'])\n"
        "finally: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("encode", "decode", "info", "eval", "train"):
        assert command in done.stdout


def test_a_closed_pipe_is_no_traceback(here):
    (here / "a.ckbd").write_bytes(b"x")
    code = (
        "import sys; from ckbd import cli; from ckbd.codec import container\n"
        "container.describe = lambda data: [('field', 0, 1, 'x' * 100)] * 10_000\n"
        "sys.exit(cli.main(['info', 'a.ckbd']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1


def test_a_real_stream_through_the_shell(here, tiny_path):
    photo(here / "a.png", 67, 50)
    for arguments in (["encode", "a.png", "a.ckbd"], ["info", "a.ckbd"], ["decode", "a.ckbd", "b.png"]):
        model = [] if arguments[0] == "info" else ["--model", str(tiny_path)]
        done = subprocess.run([sys.executable, "-m", "ckbd.cli", *arguments, *model], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        if arguments[0] == "info":
            assert "width" in done.stdout and " 50\n" in done.stdout
    (image,) = loading.load(tiny_path, precision="float32").decode([(here / "a.ckbd").read_bytes()])
    with Image.open(here / "b.png") as pil:
        assert pil.size == (50, 67)
        # By ckbd.light, whose products are summed in another order.
        assert np.abs(np.asarray(pil).astype(int) - np.asarray(image)).max() <= 1


def test_version_says_what_runs_here(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    out = capsys.readouterr().out
    assert end.value.code == 0 and out.startswith("ckbd 0.1.0, streams of version 1 and 2\n")
    assert about.REACHES[products.reach([(3200, 256)])] in out
    assert "inputs to 128" in about.REACHES[products.NARROW] and "every" in about.REACHES[products.WIDE]
    for what in ("PyTorch", "model base: ", "model small: ", "coder ", "products in eight bits ", "GPU: "):
        assert what in out
