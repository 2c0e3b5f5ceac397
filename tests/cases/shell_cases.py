"""What the tests of the command share: pictures, a child process, and what lies in a folder."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import textured
from PIL import Image


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
