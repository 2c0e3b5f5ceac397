"""The core of the tests against an installed wheel of ckbd, among other versions of Python and of what it needs.

    python -m release.matrix                        every cell, one after the other
    python -m release.matrix oldest --keep          one; its environment stays in build/matrix and is used again
    python -m release.matrix --write docs/versions.md
    python -m release.matrix oldest --pytest-args "--lf -x"
    python -m release.matrix --pip-args "--extra-index-url https://download.pytorch.org/whl/cpu"

Each cell wants a Python of its own version: python3.X on PATH, or pyenv's. Without its nvidia packages an environment
takes a gigabyte, with them, as PyTorch comes from the package index, several; it is deleted after its tests.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from release import pythons, wheels
from release.wheels import ROOT, run

WORK = ROOT / "build" / "matrix"
# Beside what a wheel asks for: what the tests import, and one of their rivals.
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "scikit-image", "pytorch-msssim", "bjontegaard", "matplotlib")
# All but what is about this checkout: the benchmarks, the fuzzers, the house's rules, GPUs.
ROOMS = """ans bind codec evaluation kernels light model papers passes pipeline properties rans shell training
    test_loading.py test_opening.py test_pillow.py test_readme.py::test_python_blocks_run"""
# Not where the tests run, so that nothing but what is installed can be imported.
PACKAGES = ("ckbd", "kernels", "models")


@dataclass(frozen=True)
class Cell:
    """An environment: Python's version, and what is installed, as pip takes it."""

    name: str
    python: str
    pins: tuple[str, ...]
    triton: bool = True  # False: removed, as PyTorch's CPU build comes without


def oldest() -> tuple[str, ...]:
    """Exactly the lower bounds of pyproject.toml, but for our own models."""
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.M | re.S)
    assert wanted, "pyproject.toml: no dependencies"
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)"', wanted[1])
    assert len(bounds) == wanted[1].count(",\n"), "pyproject.toml: a dependency without a lower bound"
    return tuple(f"{name}=={bound}" for name, bound in bounds if name != "ckbd-models")


NEWEST = ("torch", "numpy", "pillow", "safetensors", "tqdm")
CELLS = (
    Cell("oldest", "3.10", oldest()),
    Cell("mixed", "3.12", ("torch==2.6.*", "numpy>=2"), triton=False),
    Cell("newest", "3.13", NEWEST),
    Cell("next", "3.14", NEWEST),
)

PROBE = """
import importlib.metadata as metadata, importlib.util, json, pathlib, platform, sys, ckbd, ckbd_models
for module in (ckbd, ckbd_models):
    assert pathlib.Path(module.__file__).is_relative_to(sys.prefix), module.__file__
found = {name: metadata.version(name) for name in ("torch", "numpy", "pillow", "safetensors", "tqdm")}
found["triton"] = metadata.version("triton") if importlib.util.find_spec("triton") else "none"
print(json.dumps({"python": platform.python_version(), **found}))
"""


@dataclass(frozen=True)
class Row:
    """What came of a cell, and when; counts: pytest's words for them."""

    cell: str
    versions: dict[str, str]
    counts: dict[str, int]
    day: str

    def markdown(self) -> str:
        found = [self.versions[name] for name in ("python", "torch", "triton", "numpy", "pillow")]
        passed = ", ".join([str(self.counts.get("passed", 0)), *self.bad])
        return f"| {' | '.join([self.cell, *found, passed, str(self.counts.get('skipped', 0)), self.day])} |"

    @property
    def bad(self) -> list[str]:
        return [f"**{n} {word}**" for word, n in self.counts.items() if word in ("failed", "error", "errors")]


def environment(cell: Cell, tree: Path, pip_args: list[str]) -> Path:
    """An environment with wheels of these sources and all that the cell wants; one that was kept gets the wheels."""
    base = pythons.find(cell.python)
    made = wheels.build(tree, cell.python, platform.machine(), WORK / "raw"), *(WORK / "dist").glob("*_models*.whl")
    folder, wanted = WORK / cell.name, json.dumps([str(base), cell.pins, cell.triton, pip_args])
    python, ready = folder / "bin" / "python", folder / "ready.json"
    install = (python, "-m", "pip", "install", "-q", "--no-cache-dir")
    if ready.is_file() and ready.read_text() == wanted:
        run(*install, "--no-deps", "--force-reinstall", *made)
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    run(base, "-m", "venv", folder)
    run(*install, "--upgrade", "pip")
    # In one call with the wheel, whose own bounds are then met too.
    run(*install, *pip_args, *made, *cell.pins, *TOOLS)
    if not cell.triton:
        run(python, "-m", "pip", "uninstall", "-q", "-y", "triton")
    ready.write_text(wanted)
    return folder


def tests(cell: Cell, folder: Path, pytest_args: list[str]) -> Row:
    """Runs them by the environment's own pytest, where there is no other ckbd."""
    tree = wheels.copy_of_tracked(WORK / f"{cell.name}-tests")
    for name in PACKAGES:
        shutil.rmtree(tree / name)
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CKBD_MODELS", "TRITON_INTERPRET")}
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree), "PATH": path}
    found = json.loads(run(folder / "bin/python", "-c", PROBE, cwd=tree, env=env, stdout=subprocess.PIPE).stdout)
    print(f"{cell.name}: " + ", ".join(f"{name} {version}" for name, version in found.items()), flush=True)
    rooms = [f"tests/{room}" for room in ROOMS.split()]
    cache = f"cache_dir={WORK / f'{cell.name}-cache'}"  # for --lf
    options = ["-q", "-n", "logical", "--maxprocesses", "8", "-o", cache]
    command = [str(folder / "bin/pytest"), *options, *rooms, *pytest_args]
    print("+", shlex.join(command), file=sys.stderr, flush=True)
    line = ""
    with subprocess.Popen(command, cwd=tree, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
    counts = counted(line, process.returncode)
    return Row(cell.name, found, counts, datetime.date.today().isoformat())


def counted(line: str, status: int) -> dict[str, int]:
    """What pytest's last line says; an error where it says none and pytest did not end well."""
    counts = {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", line)}
    if not counts.get("passed") or (status != 0 and not {"failed", "error", "errors"} & set(counts)):
        counts["errors"] = counts.get("errors", 0) + 1
    return counts


def page() -> str:
    """A table of what came last of each cell that ran here."""
    rows = [Row(**json.loads(file.read_text())) for cell in CELLS if (file := result(cell)).is_file()]
    lines = [
        "# The versions that are tested",
        "",
        "    make matrix",
        "",
        f"{platform.system()} on {platform.machine()}: the core of the tests against installed wheels of ckbd and",
        "ckbd-models, without the tests of benchmarks, fuzzers and GPUs. `oldest` has just the lower bounds of",
        "pyproject.toml. PyTorch 2.6 has no products of eight bits on a CPU: the exact zone runs in float32 there,",
        "to the same bits; `ckbd train --compile` is refused.",
        "",
        "| cell | Python | PyTorch | Triton | NumPy | Pillow | passed | skipped | on |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row.markdown() for row in rows),
    ]
    return "\n".join(lines) + "\n"


def result(cell: Cell) -> Path:
    return WORK / f"{cell.name}.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m release.matrix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cells", nargs="*", choices=[[], *(cell.name for cell in CELLS)], metavar="CELL")
    parser.add_argument("--keep", action="store_true", help="leave the environments, for another time")
    parser.add_argument("--pip-args", type=shlex.split, default=[], help="more arguments of every pip install")
    parser.add_argument(
        "--pytest-args", type=shlex.split, default=[], help="more arguments of pytest; nothing is noted"
    )
    parser.add_argument("--write", type=Path, help="a page for the table, of these and of earlier results")
    args = parser.parse_args()
    chosen = [cell for cell in CELLS if not args.cells or cell.name in args.cells]
    lacking = []
    for cell in chosen:
        try:
            pythons.find(cell.python)
        except LookupError as error:
            lacking.append(f"{cell.name}: {error}")
    if lacking:
        parser.error("; ".join(lacking))
    shutil.rmtree(WORK / "dist", ignore_errors=True)
    tree, bad = wheels.unpacked(wheels.sources(WORK / "dist")), False
    for cell in chosen:
        row = tests(cell, environment(cell, tree, args.pip_args), args.pytest_args)
        bad |= bool(row.bad)
        if not args.pytest_args:
            result(cell).write_text(json.dumps(vars(row)))
        if not args.keep:
            shutil.rmtree(WORK / cell.name)
    print(page())
    if args.write:
        args.write.write_text(page())
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
