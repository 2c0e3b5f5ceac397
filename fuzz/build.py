"""Builds build/fuzz/decode, of fuzz/decode.cpp and csrc/, with clang's libFuzzer, ASan and UBSan for `make fuzz`.

    python fuzz/build.py [CLANG]

Each file of csrc/ has the flags that setup.py gives it. CXXFLAGS from the environment is honoured, for instance
-fprofile-instr-generate -fcoverage-mapping, after which llvm-cov tells which lines a corpus reaches.
"""

import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import ninja
import setuptools

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "fuzz"
SANITIZERS = "-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all"
# Left out: a look at what is compared, which is next to all that the loops do, and stack frames that outlive their
# functions. Both would take half the time and find little.
LEAN = "-fno-sanitize-coverage=trace-cmp -fsanitize-address-use-after-return=never"
WARNINGS = "-Wall -Wextra -Wno-unknown-warning-option"
FLAGS = f"-O2 -g -std=c++17 -fno-omit-frame-pointer {WARNINGS} {SANITIZERS} {LEAN}"
EMPTY = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n'


def has_libfuzzer(clang):
    source, program = FOLDER / "probe.cpp", FOLDER / "probe"
    source.write_text(EMPTY)
    command = [clang, *SANITIZERS.split(), *LEAN.split(), source, "-o", program]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def find_clang(asked):
    names = [asked] if asked else ["clang++", *(f"clang++-{version}" for version in range(40, 10, -1))]
    for name in names:
        if shutil.which(name) and has_libfuzzer(name):
            return name
    what = f"{asked} is none" if asked else "found none"
    hint = "install clang and its compiler-rt (Debian: clang-16, libclang-rt-16-dev) or name one with CLANG=..."
    sys.exit(f"make fuzz needs a clang++ that has libFuzzer, {what}: {hint}")


def sources():
    """{file of csrc/: its own flags}, from setup.py, which is run for that with a setup() that does nothing."""
    setuptools.setup = lambda **_: None
    found = runpy.run_path(str(ROOT / "setup.py"))["SOURCES"]["ckbd._rans"]
    return {name: flags for name, flags in found.items() if not name.startswith("bind")}


def build_ninja(clang):
    flags = f"{FLAGS} -I{shlex.quote(str(ROOT / 'csrc'))} {os.environ.get('CXXFLAGS', '')}"
    lines = [
        f"cxx = {clang}",
        f"flags = {flags.replace('$', '$$')}",
        "rule compile",
        "  command = $cxx -MD -MF $out.d $flags $isa -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = $in",
        "rule link",
        "  command = $cxx -pthread $flags $in -o $out",
        "  description = $out",
    ]
    inputs = {"fuzz/decode.cpp": ""} | {f"csrc/{name}": flags for name, flags in sources().items()}
    for path, isa in inputs.items():
        escaped = str(ROOT / path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
        lines += [f"build {path}.o: compile {escaped}", f"  isa = {isa}"]
    lines.append(f"build decode: link {' '.join(f'{path}.o' for path in inputs)}")
    return "\n".join(lines) + "\n"


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    clang = find_clang(sys.argv[1] if len(sys.argv) > 1 else "")
    (FOLDER / "build.ninja").write_text(build_ninja(clang))
    sys.exit(subprocess.run([Path(ninja.BIN_DIR) / "ninja", "-C", FOLDER]).returncode)


if __name__ == "__main__":
    main()
