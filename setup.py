"""Packages of ckbd, and its C++ through ninja: in parallel, only what changed, each file with its own flags.

Everything else is in pyproject.toml. CXX, CXXFLAGS and LDFLAGS from the environment are honoured, and macOS's
ARCHFLAGS. The files are compiled for what the compiler says it compiles for: release/wheels.py names one that
crosses.
"""

import os
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
# No multiplication is fused with an addition, whatever the processor has: floats are then the same on all.
FLAGS = "-O3 -DNDEBUG -std=c++17 -fPIC -fvisibility=hidden -Wall -Wextra -ffp-contract=off"
# Of files for an instruction set; they must reach no other file: the others run anywhere.
AVX2 = "-mavx2 -mbmi -mpopcnt"
AVX512 = "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi2 -mbmi -mbmi2 -mpopcnt"
ROOMS = {
    "ckbd._rans": ["common/*.cpp", "rans/*.cpp", "payload/*.cpp", "streams/*.cpp", "tracks/*.cpp", "bind/rans*.cpp"],
    "ckbd._ans": ["common/*.cpp", "ans/*.cpp", "bind/ans*.cpp"],
    "ckbd._passes": ["common/cpu.cpp", "common/thread_end.cpp", "passes/*.cpp", "bind/passes.cpp"],
}


def files(*patterns: str) -> list[str]:
    """The files below csrc/ that the patterns name."""
    folder = ROOT / "csrc"
    return sorted(path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern))


def macros(compiler: str) -> set[str]:
    """What a compiler defines by itself for the machine, the system and itself."""
    more = shlex.split(os.environ.get("CXXFLAGS", ""))
    command = [*shlex.split(compiler), *more, "-dM", "-E", "-x", "c++", os.devnull]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        sys.exit(f"{command[0]}: no such compiler. ckbd's C++ needs one for C++17: GCC or Clang, or what CXX names")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shlex.join(command)}: {error.stderr.strip()}\nCXX has to take the arguments of GCC and Clang")
    found = {line.split()[1] for line in said.splitlines() if line.startswith("#define ")}
    if not found:
        sys.exit(f"{shlex.join(command)}: names no macro. CXX has to take the arguments of GCC and Clang")
    return found


def file_flags(defined: set[str]) -> dict[str, str]:
    """{file below csrc/: flags of its own}, for a compiler with these macros; files that are not there have none."""
    avx2 = avx512 = wide = ""
    if "__x86_64__" in defined:
        avx2, avx512, wide = AVX2, AVX512, "-mprefer-vector-width=512"
        if "__clang__" not in defined:  # GCC 12 takes its own header's undefined vectors for uninitialised ones
            avx512 += " -Wno-uninitialized -Wno-maybe-uninitialized"
    modules = [(name.removeprefix("ckbd."), files(*room)) for name, room in ROOMS.items()]
    bind = {file: f"-DCKBD_MODULE={name}" for name, room in modules for file in room if file.startswith("bind/")}
    return bind | {
        "common/pool.cpp": "-pthread",
        "common/thread_end.cpp": "-fno-exceptions",
        "rans/avx2.cpp": avx2,
        "rans/avx2_encode.cpp": avx2,
        "rans/avx512.cpp": avx512,
        "rans/avx512_encode.cpp": avx512,
        "ans/quantize_avx2.cpp": avx2,
        "passes/avx2.cpp": avx2,
        "passes/avx512.cpp": f"{avx512} {wide}",
    }


def escape(path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def build_ninja(outputs: dict[str, str], python: str) -> str:
    """The text for ninja that makes each extension's file, outputs[extension], from csrc/.

    Objects of csrc/bind lie in a folder called python. The others know of none, and serve all.
    """
    compiler = shlex.join([*shlex.split(os.environ.get("CXX", "c++")), *shlex.split(os.environ.get("ARCHFLAGS", ""))])
    defined = macros(compiler)
    own = file_flags(defined)
    # An extension's names of Python are found when it is loaded: ELF's linkers leave them by themselves.
    shared = "-bundle -undefined dynamic_lookup" if "__APPLE__" in defined else "-shared -pthread"
    includes = (sysconfig.get_paths()["include"], pybind11.get_include())
    paths, csrc = shlex.join(f"-isystem{path}" for path in includes), shlex.quote(f"-I{ROOT / 'csrc'}")
    flags = f"{FLAGS} {csrc} {os.environ.get('CXXFLAGS', '')}"
    lines = [
        f"cxx = {compiler.replace('$', '$$')}",
        f"flags = {flags.replace('$', '$$')}",
        f"ldflags = {os.environ.get('LDFLAGS', '').replace('$', '$$')}",
        "rule compile",
        "  command = $cxx -MD -MF $out.d $flags $more -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = $cxx {shared} $flags $in -o $out $ldflags",
    ]
    objects = {}
    for source in dict.fromkeys(source for room in ROOMS.values() for source in files(*room)):
        bind = source.startswith("bind/")
        objects[source] = f"{python}/{source}.o" if bind else f"{source}.o"
        more = f"{own.get(source, '')} {paths.replace('$', '$$')}" if bind else own.get(source, "")
        lines += [f"build {objects[source]}: compile {escape(ROOT / 'csrc' / source)}", f"  more = {more}"]
    for name, output in outputs.items():
        lines.append(f"build {escape(output)}: link {' '.join(objects[source] for source in files(*ROOMS[name]))}")
    return "\n".join(lines) + "\n"


class NinjaBuild(build_ext):
    """Builds in build/csrc-PLATFORM whatever the command, so that editable installs are incremental too."""

    def build_extensions(self) -> None:
        targets = {ext.name: Path(self.get_ext_fullpath(ext.name)) for ext in self.extensions}
        folder, python = ROOT / "build" / f"csrc-{sysconfig.get_platform()}", sysconfig.get_config_var("SOABI")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{python}.ninja"
        file.write_text(build_ninja({name: target.name for name, target in targets.items()}, python))
        subprocess.run([Path(ninja.BIN_DIR) / "ninja", "-C", folder, "-f", file.name], check=True)
        for target in targets.values():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / target.name, target)


setup(
    packages=sorted({*find_packages(include=["ckbd", "ckbd.*"]), "ckbd.kernels", "ckbd.kernels.transforms"}),
    package_dir={"ckbd.kernels": "kernels", "ckbd.kernels.transforms": "kernels/transforms"},
    package_data={
        "ckbd": ["py.typed", "_ans.pyi", "_passes.pyi", "_rans.pyi"],
        "ckbd.evaluation": ["html/*"],
        "ckbd.kernels": ["tuned.json"],
    },
    ext_modules=[Extension(name, [f"csrc/{file}" for file in files(*room)]) for name, room in ROOMS.items()],
    cmdclass={"build_ext": NinjaBuild},
)
