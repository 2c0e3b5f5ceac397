"""ARM64 without a machine of it: compiled across, and tested in QEMU's user mode.

    python -m release.arm64 [--compiler g++|zig ...] [--tests PATH ...]

The wheel is made twice, by Debian's cross compiler and by the Zig that release/wheels.py takes. Each then runs in
Debian's own Python for ARM64, with PyTorch's wheel for it: golden streams through the whole decoder, and the coder's
suite, whose bytes and latents are x86-64's. Needs Debian, its packages g++-aarch64-linux-gnu and qemu-user-static,
and the network. Nothing is installed on this system: all is in build/arm64. Tests that start a Python of their own do
not run here, since the system would not know how to start it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from release import pythons, wheels
from release.wheels import ROOT, run

WORK = ROOT / "build" / "arm64"
TREE = WORK / "root"
QEMU, CROSS = "qemu-aarch64-static", "aarch64-linux-gnu-g++"
PACKAGES = ("libstdc++6", "libgomp1")  # what wheels expect of a system, beside Python
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
TESTS = (
    "tests/rans",
    "tests/ans",
    "tests/passes",
    "tests/bind",
    "tests/codec/test_container.py",
    "tests/codec/test_plain_decoder.py",
    "tests/codec/test_groups.py::test_the_golden_stream_is_read_as_ever",
    "tests/codec/test_codec.py::test_golden_streams_decode_to_their_latents",
    "tests/model/test_numerics.py",
    "tests/model/test_plain_numerics.py",
)
# Pythons of their own; and a count of the process's threads, of which QEMU has one.
APART = ("tests/bind/test_exit.py", "tests/rans/test_rans_batch.py::test_threads_are_those_asked_for")
# release/smoke.py, but for the command, which is a Python of its own too.
SMOKE = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
import smoke
smoke.about()
smoke.library()
print(smoke.golden(Path(sys.argv[2])), "golden streams: the latents that they must give")
"""


def system(python: str) -> Path:
    """Debian's Python for ARM64 and what it needs, unpacked in a folder. Returns the interpreter's path."""
    found, stamp, wanted = TREE / "usr" / "bin" / python, TREE / ".ready", " ".join([python, *PACKAGES])
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(TREE, ignore_errors=True)
        apt, archives = WORK / "apt", WORK / "apt" / "cache" / "archives"
        for folder in (apt / "state" / "lists" / "partial", archives / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        (apt / "status").touch()
        options = ["APT::Architecture=arm64", "APT::Architectures=arm64", f"Dir::State={apt / 'state'}"]
        options += [f"Dir::State::status={apt / 'status'}", f"Dir::Cache={apt / 'cache'}", "APT::Sandbox::User="]
        get = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
        run(*get, "update")
        run(*get, "-y", "--no-install-recommends", "--download-only", "install", python, *PACKAGES)
        TREE.mkdir(exist_ok=True)
        for package in sorted(archives.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, TREE], check=True)
        stamp.write_text(wanted)
    return found


def site(version: str) -> Path:
    """A folder with the wheels for ARM64 that tests need."""
    folder, listed = WORK / f"site-{version}", ROOT / "release" / "requirements-arm64.txt"
    stamp = folder / ".ready"
    if not stamp.exists() or stamp.read_text() != listed.read_text():
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:"]
        run(*pip, "--target", folder, *platforms, "--python-version", version, "-r", listed)
        stamp.write_text(listed.read_text())
    return folder


def installed(tree: Path, version: str, compiler: str) -> Path:
    """A folder with the unpacked wheel that a compiler made, and the models' one."""
    folder = WORK / compiler
    shutil.rmtree(folder, ignore_errors=True)
    made = wheels.build(tree, version, "aarch64", WORK / "raw", CROSS if compiler == "g++" else None)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        folder,
    ]
    shutil.unpack_archive(made, folder, "zip")
    run(*pip, "--upgrade", *sorted((WORK / "dist").glob("ckbd_models-*.whl")))
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m release.arm64", description=__doc__.split("\n")[0])
    parser.add_argument("--compiler", nargs="+", choices=("g++", "zig"), default=["g++", "zig"])
    parser.add_argument("--tests", nargs="+", default=list(TESTS))
    parser.add_argument("--python", default="3.11", metavar="VERSION", help="of this Debian (default: 3.11)")
    args = parser.parse_args(argv)
    lacking = [name for name in (QEMU, CROSS, "apt-get", "dpkg-deb") if shutil.which(name) is None]
    if lacking:
        parser.error(
            f"not on PATH: {', '.join(lacking)}; this needs Debian's g++-aarch64-linux-gnu and qemu-user-static"
        )
    try:
        pythons.find(args.python)
    except LookupError as error:
        parser.error(str(error))
    WORK.mkdir(parents=True, exist_ok=True)
    python, packages = system(f"python{args.python}"), site(args.python)
    shutil.rmtree(WORK / "dist", ignore_errors=True)
    tree = wheels.unpacked(wheels.sources(WORK / "dist"))
    status = 0
    for compiler in args.compiler:
        folder = installed(tree, args.python, compiler)
        env = {"PATH": os.environ["PATH"], "HOME": str(WORK), "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
        env |= {"PYTHONPATH": f"{folder}{os.pathsep}{packages}", "PYTHONDONTWRITEBYTECODE": "1"}
        emulated = [QEMU, "-L", TREE, python]
        run(*emulated, "-c", SMOKE, ROOT / "release", ROOT / "tests" / "golden", env=env, cwd=WORK)
        command = [
            *emulated,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(f"--deselect={name}" for name in APART),
            *args.tests,
        ]
        print(f"== {compiler}:", " ".join(args.tests), flush=True)
        status |= subprocess.run(command, env=env, cwd=ROOT).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
