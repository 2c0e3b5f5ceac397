"""CompressAI's own tests, first as they are, then with install() active in every process: all must end the same.

    python tests/compat/own_tests.py [FOLDER]

FOLDER is the source distribution unpacked; without it pip fetches the one of the installed version. Tests that want
trained weights fail where there is no network, with and without install(). Prints the tests that end otherwise.
"""

from __future__ import annotations

import collections
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Python runs it at its start, also in the processes that tests start.
SITE = """

from bench.rivals.compressai import import_compressai
import_compressai()
if {install}:
    import ckbd.compat.compressai as cc
    cc.install()
    assert cc.installed()
"""


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = Path(arguments[0]) if arguments else fetch(folder)
        stock = outcomes(source, folder, False)
        ours = outcomes(source, folder, True)
    different = sorted(name for name in stock.keys() | ours.keys() if stock.get(name) != ours.get(name))
    for name in different:
        print(f"{name}: {stock.get(name, 'not run')} as it is, {ours.get(name, 'not run')} with install()")
    ends = ", ".join(f"{n} {kind}" for kind, n in sorted(collections.Counter(stock.values()).items()))
    print(f"{len(stock)} tests ({ends}); {len(different)} end otherwise with install()")
    return bool(different) or not stock


def fetch(folder: Path) -> Path:
    version = importlib.metadata.version("compressai")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-binary", ":all:", "-d", str(folder), f"compressai=={version}"], check=True)
    with tarfile.open(next(folder.glob("compressai-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"compressai-{version}"


def outcomes(source: Path, folder: Path, install: bool) -> dict[str, str]:
    """How each test ends: passed, skipped, or failed with the type of the error."""
    place = folder / ("with" if install else "without")
    place.mkdir()
    # Without the package itself, which would be imported instead of the installed one.
    shutil.copytree(source / "tests", place / "tests")
    shutil.copytree(source / "examples", place / "examples")
    (place / "sitecustomize.py").write_text(SITE.format(install=install))
    report = place / "report.xml"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(place), str(ROOT))), "HOME": str(place)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(place),
    ]
    subprocess.run([*command, f"--junitxml={report}", "tests"], cwd=place, env=environment)
    return {f"{case.get('classname')}.{case.get('name')}": ending(case) for case in ET.parse(report).iter("testcase")}


def ending(case: ET.Element) -> str:
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return kind if kind == "skipped" else f"{kind} ({found.get('message', '').split(':')[0]})"
    return "passed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
