"""Packages of ckbd, and its C++ through ninja: in parallel, only what changed, each file with its own flags.

Everything else is in pyproject.toml. CXX, CXXFLAGS and LDFLAGS from the environment are honoured.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import ninja
import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
FLAGS = "-O3 -DNDEBUG -std=c++17 -fPIC -fvisibility=hidden -Wall -Wextra"
# Further flags of each file. Those for an instruction set must reach no other file: the others run anywhere.
X86 = platform.machine().lower() in ("x86_64", "amd64")
AVX2 = "-mavx2 -mbmi -mpopcnt" if X86 else ""
# GCC 12 takes its own header's undefined vectors for uninitialised ones.
AVX512 = (
    "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi2 -mbmi -mbmi2 -mpopcnt "
    "-Wno-uninitialized -Wno-maybe-uninitialized"
    if X86
    else ""
)
ORDERED = "-ffp-contract=off"  # floats that are the same whatever the vectors
# By the path below csrc/; files that are not here have none.
FILE_FLAGS = {
    "common/pool.cpp": "-pthread",
    "rans/avx2.cpp": AVX2,
    "rans/avx2_encode.cpp": AVX2,
    "rans/avx512.cpp": AVX512,
    "rans/avx512_encode.cpp": AVX512,
    "ans/quantize_avx2.cpp": AVX2,
    "passes/scalar.cpp": ORDERED,
    "passes/avx2.cpp": f"{AVX2} {ORDERED}",
    "passes/avx512.cpp": f"{AVX512} {ORDERED}" + (" -mprefer-vector-width=512" if X86 else ""),
}


def sources(*patterns: str) -> dict[str, str]:
    """{file below csrc/: its own flags} of the files that the patterns name."""
    files = sorted(p.relative_to(ROOT / "csrc").as_posix() for one in patterns for p in (ROOT / "csrc").glob(one))
    return {file: FILE_FLAGS.get(file, "") for file in files}


SOURCES = {
    "ckbd._rans": sources(
        *(f"{room}/*.cpp" for room in ("common", "rans", "payload", "streams", "tracks")), "bind/rans*.cpp"
    ),
    "ckbd._ans": sources("common/*.cpp", "ans/*.cpp", "bind/ans*.cpp"),
    "ckbd._passes": sources("common/cpu.cpp", "passes/*.cpp", "bind/passes.cpp"),
}


def escape(path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def build_ninja(outputs: dict[str, str]) -> str:
    """The text of build.ninja, which makes each extension's file, outputs[extension], from csrc/."""
    includes = (sysconfig.get_paths()["include"], pybind11.get_include())
    paths = shlex.join([f"-I{ROOT / 'csrc'}", *(f"-isystem{path}" for path in includes)])
    flags = f"{FLAGS} {paths} {os.environ.get('CXXFLAGS', '')}"
    lines = [
        f"cxx = {os.environ.get('CXX', 'c++')}",
        f"flags = {flags.replace('$', '$$')}",
        f"ldflags = {os.environ.get('LDFLAGS', '').replace('$', '$$')}",
        "rule compile",
        "  command = $cxx -MD -MF $out.d $flags $isa -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        "  command = $cxx -shared -pthread $flags $in -o $out $ldflags",
    ]
    for source, isa in {source: isa for files in SOURCES.values() for source, isa in files.items()}.items():
        lines += [f"build {source}.o: compile {escape(ROOT / 'csrc' / source)}", f"  isa = {isa}"]
    for name, output in outputs.items():
        lines.append(f"build {escape(output)}: link {' '.join(f'{source}.o' for source in SOURCES[name])}")
    return "\n".join(lines) + "\n"


class NinjaBuild(build_ext):
    """Builds in build/csrc-PYTHON whatever the command, so that editable installs are incremental too."""

    def build_extensions(self) -> None:
        targets = {ext.name: Path(self.get_ext_fullpath(ext.name)) for ext in self.extensions}
        folder = ROOT / "build" / f"csrc-{sys.implementation.cache_tag}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(build_ninja({name: target.name for name, target in targets.items()}))
        subprocess.run([Path(ninja.BIN_DIR) / "ninja", "-C", folder], check=True)
        for target in targets.values():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / target.name, target)


setup(
    packages=sorted({*find_packages(include=["ckbd", "ckbd.*"]), "ckbd.kernels", "ckbd.kernels.transforms"}),
    package_dir={"ckbd.kernels": "kernels", "ckbd.kernels.transforms": "kernels/transforms"},
    package_data={
        "ckbd": ["model/weights/*.safetensors", "py.typed", "_ans.pyi", "_passes.pyi", "_rans.pyi"],
        "ckbd.kernels": ["tuned.json"],
    },
    ext_modules=[Extension(name, [f"csrc/{source}" for source in files]) for name, files in SOURCES.items()],
    cmdclass={"build_ext": NinjaBuild},
)
