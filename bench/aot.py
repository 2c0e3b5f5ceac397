"""Every shipped kernel compiled ahead of time, without a GPU: `python -m bench.aot`, `--scope all` for a release.

The launches that bench/launches.py lists are compiled for each target and read back: registers, stack and shared
memory from ptxas, instructions from the disassembly. The gates:

- it compiles;
- nothing spilled: no local loads or stores, at most STACK bytes of stack (never the register count alone: kernels
  that spill heavily report few);
- registers and shared memory within what the target offers, a thread's and all threads';
- tensor-core instructions where the dtype has them (float32 is IEEE and has none);
- no wgmma that ptxas had to serialise.
"""

from __future__ import annotations

import argparse
import datetime
import io
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.errors import CompilationError

from bench.gpu.record import commit
from bench.launches import ODD, shipped
from bench.recorder import Launch

STACK = 8  # bytes: a frame that nothing is spilled to
WARPS = 4  # of a program whose launch does not say


@dataclass(frozen=True)
class Target:
    name: str
    gpu: GPUTarget
    shared: int  # bytes that a program may have
    registers: int = 255
    tensor: dict[torch.dtype, str] = field(default_factory=dict)  # what a product must be done with, a pattern
    everyday: tuple[str, ...] = ("default",)  # scopes of bench.launches that every run compiles
    odd: bool = False  # whether odd widths are ever compiled
    registers_all: int = 1 << 16  # of a multiprocessor, for all threads of a program

    def __hash__(self) -> int:
        return hash(self.name)


TARGETS = (
    Target(
        "sm_80",
        GPUTarget("cuda", 80, 32),
        163 << 10,
        255,
        {torch.int8: r"\bIMMA", torch.float16: r"\bHMMA"},
        ("default", "shipped"),
        True,
    ),
    Target(
        "sm_90",
        GPUTarget("cuda", 90, 32),
        227 << 10,
        255,
        {torch.int8: r"\bIGMMA", torch.float16: r"\bHGMMA"},
        ("default", "shipped", "sample"),
        True,
    ),
    Target(
        "sm_100",
        GPUTarget("cuda", 100, 32),
        227 << 10,
        255,
        {torch.int8: r"\b(?:UTCIMMA|IMMA)", torch.float16: r"\b(?:UTCHMMA|HMMA)"},
    ),
    Target(
        "gfx942",
        GPUTarget("hip", "gfx942", 64),
        64 << 10,
        512,
        {torch.int8: r"v_mfma_i32_\w*i8", torch.float16: r"v_mfma_f32_\w*f16"},
        registers_all=1 << 17,
    ),
)


@dataclass(frozen=True)
class Report:
    """What a compiled launch turned out to be. None: the target's tools do not say."""

    label: str
    target: str
    registers: int
    spills: int  # local loads and stores, or scratch bytes on AMD
    stack: int
    shared: int
    tensor: int  # tensor-core instructions
    failures: tuple[str, ...]


def compile_launch(one: Launch, target: Target) -> tuple[object, str]:
    """The compiled kernel, and what ptxas said."""
    attrs = {a: [["tt.divisibility", 16]] for a in one.attrs}
    source = ASTSource(one.kernel, dict(one.signature), dict(one.constants), attrs)
    options = dict(one.options)
    if target.gpu.backend != "cuda":
        options.pop("maxnreg", None)
    with redirect_stdout(io.StringIO()) as said:
        knobs.nvidia.dump_ptxas_log = True
        knobs.compilation.always_compile = True  # what is in the cache was compiled without a word
        compiled = triton.compile(source, target=target.gpu, options=options)
    return compiled, said.getvalue()


def inspect(one: Launch, target: Target) -> Report:
    """Compile for the target and hold the result against the gates."""
    try:
        compiled, said = compile_launch(one, target)
    except CompilationError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[-1]
        return Report(one.label, target.name, 0, 0, 0, 0, 0, (f"does not compile: {reason}",))
    shared = compiled.metadata.shared
    read = _read_nvidia if target.gpu.backend == "cuda" else _read_amd
    pattern = target.tensor.get(one.dtype) if one.product else None
    registers, spills, stack, tensor, failures = read(compiled, said, pattern)
    if spills:
        failures.append(f"{spills} spills")
    if stack > STACK:
        failures.append(f"{stack} bytes of stack")
    if registers > target.registers:
        failures.append(f"{registers} registers")
    threads = dict(one.options).get("num_warps", WARPS) * target.gpu.warp_size
    if -(-registers // 8) * 8 * threads > target.registers_all:
        failures.append(f"{registers} registers of {threads} threads")
    if shared > target.shared:
        failures.append(f"{shared} bytes of shared memory")
    if pattern and not tensor:
        failures.append("no tensor-core instruction")
    return Report(one.label, target.name, registers, spills, stack, shared, tensor, tuple(failures))


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends/nvidia/bin" / name)


def _read_nvidia(compiled, said: str, pattern: str | None) -> tuple[int, int, int, int, list[str]]:
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    stack = int(re.search(r"(\d+) bytes stack frame", said)[1])
    if pattern is None and stack == 0:  # no frame, so nothing that a spill could go to: no need to look
        return registers, 0, 0, 0, serialised(said)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        sass = _run(_tool("nvdisasm"), "-c", "-ndf", file.name)  # without branch targets, which take a third of it
    spills = len(re.findall(r"\b(?:LDL|STL)\b", sass))
    return registers, spills, stack, len(re.findall(pattern, sass)) if pattern else 0, serialised(said)


def serialised(said: str) -> list[str]:
    """What ptxas says when it puts a wait after every wgmma."""
    return ["wgmma serialised"] if re.search(r"wgmma.*serialized", said) else []


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _read_amd(compiled, said: str, pattern: str | None) -> tuple[int, int, int, int, list[str]]:
    text = compiled.asm["amdgcn"]

    def number(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", text)[1])

    # Not scalar registers: those move to lanes of vector registers, and touch no memory.
    spills = number("vgpr_spill_count") + len(re.findall(r"\bscratch_(?:load|store)", text))
    stack = number("private_segment_fixed_size")
    return number("vgpr_count"), spills, stack, len(re.findall(pattern, text)) if pattern else 0, []


def _inspect(job: tuple[int, int]) -> Report:
    return inspect(shipped()[job[0]], TARGETS[job[1]])


def wanted(one: Launch, target: Target, scope: str) -> bool:
    """Whether a launch is compiled for a target: "everyday", "default" (those alone) or "all"."""
    if one.targets and target.name not in one.targets:
        return False
    if scope == "all":
        return target.odd or one.scope not in ("sample", "odd")
    return one.scope in (target.everyday if scope == "everyday" else ("default",))


def reports(targets: list[str], workers: int, scope: str = "all") -> list[Report]:
    launches, places = shipped(), [t for t, target in enumerate(TARGETS) if target.name in targets]
    jobs = [(i, t) for i, one in enumerate(launches) for t in places if wanted(one, TARGETS[t], scope)]
    # Not by fork: the parent's threads are not in the child, which then waits for them.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_inspect, jobs, chunksize=4))


def table(rows: list[Report]) -> str:
    """A row for each kernel, a cell for each target."""
    targets = list(dict.fromkeys(r.target for r in rows))
    lines = [f"| kernel | {' | '.join(targets)} |", "|" + " --- |" * (len(targets) + 1)]
    by_label: dict[str, dict[str, list[Report]]] = {}
    for r in rows:
        by_label.setdefault(r.label, {}).setdefault(r.target, []).append(r)
    for label, found in by_label.items():
        cells = ["; ".join(cell(r) for r in found.get(t, [])) for t in targets]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(r: Report) -> str:
    text = f"{r.registers} / {r.spills} / {r.shared / 1024:.0f} / {r.tensor}"
    return f"{text} **{'; '.join(r.failures)}**" if r.failures else text


def write(path: Path, rows: list[Report]) -> None:
    """Puts the table under a heading for this Triton, in place of one that was there."""
    heading = f"## Triton {triton.__version__}"
    ran = f"All launches for all targets: {datetime.date.today().isoformat()}, at commit {commit()}."
    sections = (
        {s.split("\n", 1)[0]: s for s in re.split(r"(?m)^(?=## )", path.read_text())[1:]} if path.exists() else {}
    )
    odd = [r for r in rows if r.label.startswith(ODD)]
    bad = [r for r in odd if r.failures]
    text = f"Kernels of odd widths: {len(odd)}, of which {len(bad)} fail a gate."
    sections[heading] = f"{heading}\n\n{table([r for r in rows if r not in odd or r in bad])}\n\n{text}\n\n{ran}\n"
    ordered = sorted(sections.items(), key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])], reverse=True)
    path.write_text(INTRODUCTION + "\n" + "\n".join(text.rstrip() + "\n" for _, text in ordered))


INTRODUCTION = """# The kernels, compiled ahead of time

    make aot-all

No GPU was needed, and nothing here is a time. Every launch that the code may choose, compiled for each target:
registers of a thread / spilled loads and stores / shared memory in KB / tensor-core instructions in the code. A
kernel is named by the model's widths, its dtype, the config (form, sites x output channels x input channels of a
tile, warps, stages) and the layer. Two in a cell are the anchors' first layer, which has no product, and
another hidden layer. The gates are in bench/aot.py; what fails one is in bold. Networks of odd widths, narrower than
a tile or no multiple of anything, pass the same gates for sm_80 and sm_90 and are only counted. Every run of CI
(`make aot`) compiles a part of all this anew, of each kind of kernel; the whole is compiled for a release.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.aot", description=__doc__.split("\n\n")[0])
    parser.add_argument("--targets", nargs="*", default=[t.name for t in TARGETS], choices=[t.name for t in TARGETS])
    parser.add_argument("--scope", choices=("everyday", "default", "all"), default="everyday", help="which launches")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--write", metavar="FILE", type=Path, help="put the table into this Markdown file")
    args = parser.parse_args()
    if args.write and (args.scope != "all" or len(args.targets) < len(TARGETS)):
        parser.error("--write needs --scope all and every target")
    rows = reports(args.targets, args.workers, args.scope)
    bad = [r for r in rows if r.failures]
    for r in bad:
        print(f"{r.target}, {r.label}: {'; '.join(r.failures)}")
    print(f"{len(rows)} kernels, {len(bad)} fail a gate; triton {triton.__version__}")
    if args.write:
        write(args.write, rows)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
