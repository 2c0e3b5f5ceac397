"""Builds the fuzz targets of fuzz/targets/*.cpp, each with csrc/: programs in build/fuzz.

    python fuzz/build.py [--clang CLANG]      with libFuzzer, ASan and UBSan, for `make fuzz`
    python fuzz/build.py --replay             with any C++ compiler, and ASan if it has that: each runs inputs once
    python fuzz/build.py --threads [--clang CLANG]   fuzz/threads.cpp twice: with TSan, and with ASan and UBSan

Each file of csrc/ has the flags that setup.py gives it. CXXFLAGS from the environment is honoured, for instance
-fprofile-instr-generate -fcoverage-mapping, after which llvm-cov tells which lines a corpus reaches.
"""

import argparse
import fcntl
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import ninja
import setuptools

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"
WARNINGS = "-Wall -Wextra -Wno-unknown-warning-option -Wno-unknown-pragmas -Wno-bitwise-instead-of-logical"
BASIC = f"-g -std=c++17 -fno-omit-frame-pointer {WARNINGS}"
FUZZER = "-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all"
# Left out: a look at what is compared, which is next to all that the loops do, and stack frames that outlive their
# functions. Both would take half the time and find little.
LEAN = "-fno-sanitize-coverage=trace-cmp -fsanitize-address-use-after-return=never"
TSAN = "-fsanitize=thread"
ASAN = "-fsanitize=address"
UBSAN = "-fsanitize=undefined -fno-sanitize-recover=all"
EMPTY = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n'
MAIN = "int main() { return 0; }\n"
# Rooms of csrc/ whose sources are in every target, and in threads.cpp.
ROOMS = ("common", "rans", "payload", "streams", "tracks", "ans")
THREADS = (*ROOMS, "passes")


def targets():
    """Their names: one a file of fuzz/targets."""
    return sorted(path.stem for path in (ROOT / "fuzz" / "targets").glob("*.cpp"))


def sources(compiler, rooms):
    """{file of these rooms of csrc/: its own flags}, from setup.py, which is run with a setup() that does nothing."""
    setuptools.setup = lambda **_: None
    build = runpy.run_path(str(ROOT / "setup.py"))
    own = build["file_flags"](build["macros"](compiler))
    return {name: own.get(name, "") for name in build["files"](*(f"{room}/*.cpp" for room in rooms))}


def works(clang, flags, source):
    """Whether a compiler makes a program of a source with these flags."""
    BUILD.mkdir(parents=True, exist_ok=True)
    file = BUILD / "probe.cpp"
    file.write_text(source)
    try:
        command = [clang, *flags.split(), file, "-o", BUILD / "probe"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def find_clang(asked, flags, source):
    names = [asked] if asked else ["clang++", *(f"clang++-{version}" for version in range(40, 10, -1))]
    for name in names:
        if shutil.which(name) and works(name, flags, source):
            return name
    what = f"{asked} is none" if asked else "found none"
    hint = "install clang and its compiler-rt (Debian: clang-16, libclang-rt-16-dev) or name one with CLANG=..."
    sys.exit(f"this needs a clang++ that has libFuzzer and its sanitizers, {what}: {hint}")


def escape(path):
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def build_ninja(compiler, flags, programs, rooms):
    """The text of build.ninja. programs: {name: sources below fuzz/}, each linked with csrc/."""
    paths = f"-I'{ROOT / 'csrc'}' -I'{ROOT / 'fuzz' / 'targets'}'"
    flags = f"{flags} -ffp-contract=off {paths} {os.environ.get('CXXFLAGS', '')}"  # as setup.py has it
    lines = [
        f"cxx = {compiler}",
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
    library = {f"csrc/{name}": isa for name, isa in sources(compiler, rooms).items()}
    own = {f"fuzz/{name}": "" for files in programs.values() for name in files}
    for path, isa in {**own, **library}.items():
        lines += [f"build {path}.o: compile {escape(ROOT / path)}", f"  isa = {isa}"]
    for name, files in programs.items():
        objects = [f"fuzz/{file}.o" for file in files] + [f"{path}.o" for path in library]
        lines.append(f"build {name}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def build(folder, compiler, flags, programs, rooms=ROOMS):
    """Programs in a folder of build/fuzz, by one process at a time; the exit status of ninja."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "build.ninja").write_text(build_ninja(compiler, flags, programs, rooms))
        return subprocess.run([Path(ninja.BIN_DIR) / "ninja", "--quiet", "-C", folder]).returncode


def build_fuzzers(clang=None):
    compiler = find_clang(clang, f"{FUZZER} {LEAN}", EMPTY)
    programs = {name: [f"targets/{name}.cpp"] for name in targets()}
    return build(BUILD, compiler, f"-O2 {BASIC} {FUZZER} {LEAN}", programs)


def build_replay():
    """Without a fuzzer, and without optimisation: for a few inputs it is the compiler that takes the time."""
    programs = {name: [f"targets/{name}.cpp", "replay.cpp"] for name in targets()}
    compiler = os.environ.get("CXX", "c++")
    asan = ASAN if works(compiler, ASAN, MAIN) else ""
    return build(BUILD / "replay", compiler, f"-O0 {BASIC} {asan}", programs)


def build_threads(clang=None):
    """build/fuzz/threads/threads and, with ASan and UBSan, build/fuzz/threads/asan/threads."""
    compiler = find_clang(clang, TSAN, MAIN)
    programs = {"threads": ["threads.cpp"]}
    with_tsan = build(BUILD / "threads", compiler, f"-O1 {BASIC} {TSAN}", programs, THREADS)
    return with_tsan or build(BUILD / "threads" / "asan", compiler, f"-O1 {BASIC} {ASAN} {UBSAN}", programs, THREADS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clang", help="a clang++ with libFuzzer; by default the newest on the path")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--replay", action="store_true", help="programs that run given inputs, by any compiler")
    kind.add_argument("--threads", action="store_true", help="fuzz/threads.cpp, with TSan and with ASan")
    args = parser.parse_args()
    if args.replay:
        sys.exit(build_replay())
    sys.exit(build_threads(args.clang) if args.threads else build_fuzzers(args.clang))


if __name__ == "__main__":
    main()
