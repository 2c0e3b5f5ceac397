"""fuzz/pictures.py: files that are damaged, or of other kinds, are refused in one line each, and start no program."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent.parent / "fuzz" / "pictures.py"


def test_damaged_pictures_are_encoded_or_refused(tmp_path, tiny_path, small_env):
    # Among these are all of whole.HARMFUL; a busy machine is given its time.
    which = ["150", "--first", "550", "--others", "0.2", "--seconds", "60", "--folder", "150"]
    command = [sys.executable, PROGRAM, *which, "--model", tiny_path, "--to", tmp_path / "broke"]
    done = subprocess.run(command, env=small_env, capture_output=True, text=True, timeout=120)
    report = tmp_path / "broke" / "report.txt"
    assert done.returncode == 0, done.stdout + done.stderr + (report.read_text() if report.exists() else "")
    assert done.stdout.startswith("150 files")
