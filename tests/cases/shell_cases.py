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


def on_terminal(command):
    """What a command prints to a terminal of a hundred columns, which its output and its errors are."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TQDM_")}
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"OMP_NUM_THREADS": "1"}
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            some = os.read(ours, 1 << 16)
        except OSError:  # nobody has it open any more
            break
        if not some:
            break
        shown += some
    os.close(ours)
    assert child.wait(60) == 0, shown
    return shown.decode(errors="replace")


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())
