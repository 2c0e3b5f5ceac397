"""What of a picture the command is asked for, and how far it says that it is."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from shell_cases import on_terminal, photo

from ckbd import cli


def test_regions_and_smaller_pictures(workshop, capsys, tiny):
    """By the decoder without PyTorch and by the other one."""
    photo("a.png", 90, 130)
    assert cli.main(["encode", "a.png", "--model", "one"]) == 0
    stream = (workshop / "a.ckbd").read_bytes()
    (whole,) = tiny.decode_pictures([stream])
    for options in ([], ["--backend", "integers"]):
        asked = ["decode", "a.ckbd", "b.png", "--force", "--quiet", *options]
        assert cli.main([*asked, "--region", "3,5,100,90"]) == 0
        assert np.abs(np.array(Image.open("b.png")).astype(int) - whole.rgb[5:90, 3:100]).max() <= 1
        for scale in ("1/8", "0.125", "1/2"):
            assert cli.main([*asked, "--scale", scale, "--region", "0,0,130,90"]) == 0
            with Image.open("b.png") as pil:
                assert pil.size == ((65, 45) if scale == "1/2" else (17, 12))
        assert cli.main([*asked, "--region", "0,0,131,90"]) == 1
        assert "a.ckbd: region: expected 0 <= left < right <= 130 and 0 <= top" in capsys.readouterr().err
    for wrong in (
        ["--region", "1,2,3"],
        ["--region", "a"],
        ["--scale", "1/3"],
        ["--scale", "1/0"],
        ["--scale", "nan"],
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(["decode", "a.ckbd", "b.png", *wrong])
        assert caught.value.code == 2 and f"argument {wrong[0]}: expected" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no terminals to be had here")
def test_a_picture_that_takes_time_shows_its_rows(workshop, monkeypatch, tiny):
    """On a terminal, after a while, and nowhere else."""
    photo("a.png", 2500, 500)
    lines = "import sys", "from ckbd import cli", "from ckbd.shell import jobs", "jobs.SOON = jobs.OFTEN = 0"
    code = "\n".join((*lines, "sys.exit(cli.main(sys.argv[1:]))"))
    script = [sys.executable, "-c", code]
    for argv in (["encode", "a.png", "--model", "one"], ["decode", "a.ckbd", "b.png", "--backend", "torch"]):
        shown = on_terminal([*script, *argv])
        assert re.search(r" [1-9]\d*/2500 \[", shown) and "row/s" in shown
        assert shown.split("\r")[-2].startswith(f"{argv[1]} -> "), "the bar has gone then"
    assert "row/s" not in on_terminal([*script, *argv, "--force", "--quiet"])
    done = subprocess.run([*script, *argv, "--force"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
