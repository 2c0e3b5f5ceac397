"""A wheel where a user would have it: in a new environment, outside the checkout, with what pip gives it.

    python -m release.fresh [--python VERSION] [--dist dist] [--pip-args "torch==2.13.0 ..."]

Installs ckbd and ckbd-models of a folder of wheels and runs release/smoke.py there; then without the models, which
must be said. What pip gives it is PyTorch's default build, of gigabytes on Linux, unless --pip-args says otherwise.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from release import pythons

ROOT = Path(__file__).resolve().parents[1]


def wheel_for(version: str, dist: Path) -> Path:
    """The wheel of a folder for a Python and this processor. Raises FileNotFoundError."""
    cp = "cp" + version.replace(".", "")
    found = list(dist.glob(f"ckbd-*-{cp}-{cp}-*_{platform.machine()}.whl"))
    if len(found) != 1:
        raise FileNotFoundError(f"{dist}: {len(found)} wheels for Python {version} on {platform.machine()}")
    return found[0]


def check(version: str, dist: Path, pip_args: Sequence[str]) -> None:
    """Raises if a step fails."""
    folder = Path(tempfile.mkdtemp(prefix="ckbd-fresh-"))
    # Nothing of the caller's may help.
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CKBD", "VIRTUAL_ENV"))
    }

    def run(*command: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
        print("$", shlex.join(str(part) for part in command), flush=True)
        return subprocess.run(command, cwd=folder, env=env, text=True, **{"check": True} | more)  # type: ignore

    try:
        python = folder / "env" / "bin" / "python"
        run(pythons.find(version), "-m", "venv", folder / "env")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # By their paths: an index may have others of these names.
        run(*pip, wheel_for(version, dist), *dist.glob("ckbd_models-*.whl"), *pip_args)
        run(python, ROOT / "release" / "smoke.py", ROOT / "tests" / "golden")
        run(folder / "env" / "bin" / "ckbd", "--version")
        run(python, "-m", "pip", "uninstall", "-q", "-y", "ckbd-models")
        left = run(python, "-c", "import ckbd; ckbd.load()", check=False, capture_output=True)
        assert left.returncode != 0 and "pip install ckbd-models" in left.stderr, left.stderr
        print(left.stderr.splitlines()[-1])
    finally:
        shutil.rmtree(folder)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m release.fresh", description=__doc__.split("\n")[0])
    parser.add_argument("--python", default="{}.{}".format(*sys.version_info), metavar="VERSION")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--pip-args", default="", help="more for pip install: requirements, an index")
    args = parser.parse_args(argv)
    try:
        pythons.find(args.python)
        wheel_for(args.python, args.dist.absolute())
    except (LookupError, FileNotFoundError) as error:
        parser.error(str(error))
    check(args.python, args.dist.absolute(), shlex.split(args.pip_args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
