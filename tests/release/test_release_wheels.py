"""What goes into a release, and what its checks see."""

import importlib.metadata
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import ckbd
from ckbd.model import library, places
from release import pythons, wheels

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parents[2]
TAG, ARCH = "cpython-312", "aarch64"


def elf(machine: int) -> bytes:
    return b"\x7fELF" + bytes(14) + struct.pack("<H", machine) + bytes(44)


def contents() -> dict[str, bytes]:
    """Of a wheel for ARM64 and Python 3.12 that is right."""
    info = "ckbd-0.1.0.dist-info/METADATA"
    names = ("py.typed", "_rans.pyi", "kernels/tuned.json", "kernels/layer.py", "evaluation/html/page.html")
    extensions = {f"ckbd/{name}.{TAG}-{ARCH}-linux-gnu.so": elf(183) for name in wheels.EXTENSIONS}
    return {info: b""} | {f"ckbd/{name}": b"" for name in names} | extensions


def written(folder: Path, files: dict[str, bytes], platform: str = "manylinux_2_24_aarch64") -> Path:
    path = folder / f"ckbd-0.1.0-cp312-cp312-{platform}.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def test_a_wheel_that_is_right(tmp_path):
    wheels.check(written(tmp_path, contents()), TAG, ARCH)


@pytest.mark.parametrize("platform", ["linux_aarch64", "manylinux_2_31_aarch64", "manylinux_2_24_x86_64"])
def test_wheels_for_other_systems(tmp_path, platform):
    with pytest.raises(AssertionError, match=platform):
        wheels.check(written(tmp_path, contents(), platform), TAG, ARCH)


RANS = f"ckbd/_rans.{TAG}-{ARCH}-linux-gnu.so"


@pytest.mark.parametrize(
    "more",
    [
        {RANS: elf(62)},
        {f"ckbd/_rans.cpython-311-{ARCH}-linux-gnu.so": elf(183)},
        {"ckbd/model/weights/small.safetensors": b""},
        {"tests/test_layers.py": b""},
        {"ckbd/rans.h": b""},
        {RANS: None},
        {"ckbd/kernels/tuned.json": None},
        {"ckbd/evaluation/html/page.html": None},
    ],
    ids=lambda more: ",".join(f"{name} {'missing' if data is None else 'wrong'}" for name, data in more.items()),
)
def test_wheels_with_other_things_inside(tmp_path, more):
    files = {name: data for name, data in (contents() | more).items() if data is not None}
    with pytest.raises(AssertionError):
        wheels.check(written(tmp_path, files), TAG, ARCH)


def test_interpreters_are_those_that_run(tmp_path, monkeypatch):
    here = "{}.{}".format(*sys.version_info)
    versions = tmp_path / "root" / "versions" / f"{here}.9" / "bin"
    for folder, text in (
        (tmp_path / "path", "#!/bin/sh\nexit 127\n"),
        (versions, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'),
    ):
        folder.mkdir(parents=True)
        (folder / f"python{here}").write_text(text)
        (folder / f"python{here}").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "root"))
    assert pythons.find(here) == versions / f"python{here}", "that of PATH does not run"
    with pytest.raises(LookupError, match=r"no python2\.0 with headers"):
        pythons.find("2.0")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs tomllib")
def test_one_list_of_pythons():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    said = [
        found[1] for line in project["project"]["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", line))
    ]
    built = [f"3.{one[3:-2]}" for one in project["tool"]["cibuildwheel"]["build"].split()]
    assert tuple(said) == tuple(built) == wheels.PYTHONS
    assert project["project"]["requires-python"] == f">={wheels.PYTHONS[0]}"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs tomllib")
def test_the_models_are_a_distribution_that_ckbd_requires():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    models = tomllib.loads((ROOT / "models" / "pyproject.toml").read_text())
    (required,) = (one for one in project["dependencies"] if one.startswith("ckbd-models"))
    least = required.partition(">=")[2]
    version = models["project"]["version"]
    assert (
        models["project"]["name"] == "ckbd-models"
        and version.startswith(f"{least}.")
        and required == f"ckbd-models>={least}"
    )
    assert models["tool"]["setuptools"]["packages"] == [places.PACKAGE]
    assert {path.stem for path in places.shipped()[0].glob("*.safetensors")} == {"base", "small", "visual"}
    assert importlib.metadata.version("ckbd-models") == version


def test_builds_require_what_the_release_pins():
    pinned = {
        line.partition("==")[0] for line in (ROOT / "release" / "requirements-build.txt").read_text().splitlines()
    }
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'"([a-z0-9]+)[^"]*"', text[text.index("requires = [") : text.index("build-backend")])
    assert set(wanted) == {name for name in pinned if not name.startswith("#")}


def test_without_the_models_it_is_said(monkeypatch):
    monkeypatch.setattr(places, "PACKAGE", "ckbd_models_that_are_nowhere")
    monkeypatch.delenv("CKBD_MODELS", raising=False)
    assert places.folders() == []
    with pytest.raises(
        FileNotFoundError, match=r"'default': no such file or model \(known: none; .* pip install ckbd-models\)"
    ):
        ckbd.load()
    assert library.known().startswith(
        "known are none; the package ckbd-models is not installed: pip install ckbd-models;"
    )


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
def test_the_source_distribution_has_what_a_build_needs(tmp_path):
    tree = wheels.copy_of_tracked(tmp_path / "tree")
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path / "dist"]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (path,) = (tmp_path / "dist").iterdir()
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"ckbd", "csrc", "kernels", "ckbd.egg-info"}
    for folder in ("ckbd", "csrc", "kernels"):
        assert {one.relative_to(tree).as_posix() for one in (tree / folder).rglob("*") if one.is_file()} <= names
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md"} <= names
