"""fuzz/files.py: damaged streams and model files are read alike by all readers, or refused as is documented."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "fuzz" / "files.py"


def test_damaged_files_are_read_alike_or_refused(tmp_path, small_env):
    # A busy machine is given its time; a process that hangs ends by itself.
    command = [sys.executable, PROGRAM, "--cases", "60", "--seconds", "20", "--to", tmp_path / "broke"]
    done = subprocess.run(command, env=small_env, capture_output=True, text=True, timeout=300)
    report = tmp_path / "broke" / "report.txt"
    assert done.returncode == 0, done.stdout + done.stderr + (report.read_text() if report.exists() else "")
    for kind in ("stream", "variant", "model", "training"):
        assert f"{kind}: 60 cases" in done.stdout
