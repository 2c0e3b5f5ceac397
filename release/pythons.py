"""The interpreters of this machine, by version.

Debian's own are passed over: their headers include others by the processor's name, which is no help to a compiler for
another processor, nor to Zig's, which does not look in /usr/include.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def find(version: str) -> Path:
    """A Python of that version ("3.12") that runs and makes environments: of PATH, or of
    pyenv's. LookupError."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    name = f"python{version}"
    for path in [
        *(Path(folder) / name for folder in os.get_exec_path()),
        *sorted(pyenv.glob(f"{version}.*/bin/{name}")),
    ]:
        if path.is_file() and _version(path) == version:
            return path
    raise LookupError(f"no {name} with headers of its own on PATH, and none of pyenv's")


def _version(python: Path) -> str | None:
    """What it is; None if it does not run, as pyenv's stand-ins for what is not chosen, or has no venv or headers."""
    code = """
import ensurepip, pathlib, sys, sysconfig, venv
text = (pathlib.Path(sysconfig.get_paths()["include"]) / "pyconfig.h").read_text()
if "SIZEOF_LONG" in text:
    print("%d.%d" % sys.version_info[:2])
"""
    result = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else None
