"""Every shipped kernel compiled ahead of time, without a GPU: `python -m bench.aot --write bench/KERNELS.md`.

The launchers run on tensors without data, and a recorder in place of each kernel keeps what it would have been
launched with; those launches are compiled for each target and read back: registers, stack and shared memory from
ptxas, instructions from the disassembly. The gates:

- nothing spilled: no local loads or stores, at most STACK bytes of stack (never the register count alone: kernels
  that spill heavily report few);
- registers and shared memory within what the target offers;
- tensor-core instructions where the dtype has them (float32 is IEEE and has none);
- no wgmma that ptxas had to serialise.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import triton
from ckbd.kernels import Lattice, Network, SubPixel, launch
from ckbd.kernels.configs import CONFIGS, Config
from ckbd.kernels.network import taps
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ckbd.numerics import IntLayer

STACK = 8  # bytes: a frame that nothing is spilled to
TYPES = {
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.float16: "fp16",
    torch.float32: "fp32",
}


@dataclass(frozen=True)
class Target:
    name: str
    gpu: GPUTarget
    shared: int  # bytes that a program may have
    registers: int = 255
    tensor: dict[torch.dtype, str] = field(default_factory=dict)  # what a product must be done with, a pattern

    def __hash__(self) -> int:
        return hash(self.name)


TARGETS = (
    Target("sm_80", GPUTarget("cuda", 80, 32), 163 << 10, 255, {torch.int8: r"\bIMMA", torch.float16: r"\bHMMA"}),
    Target("sm_90", GPUTarget("cuda", 90, 32), 227 << 10, 255, {torch.int8: r"\bIGMMA", torch.float16: r"\bHGMMA"}),
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
    ),
)


@dataclass(frozen=True)
class Model:
    """Widths for which kernels ship: (C_psi, M, H1, H2, context kernel)."""

    name: str
    C: int
    M: int
    H1: int
    H2: int
    kernel: int = 5


DEFAULT = Model("ckbd default", 128, 256, 256, 256)
CHENG = Model("cheng2020 N=192", 384, 192, 640, 512)
ELIC = Model("elic group of 16", 656, 16, 128, 64)  # MASK_C: a group narrower than a block
INTEGER_MODELS = (DEFAULT, CHENG)
FLOAT_MODELS = (CHENG, ELIC)


@dataclass(frozen=True)
class Launch:
    """A kernel with everything that decides its machine code."""

    kernel: object
    label: str  # model, dtype, layer, config
    dtype: torch.dtype
    product: bool  # whether it has a matrix product
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[tuple[int, ...], object], ...]
    attrs: tuple[tuple[int, ...], ...]
    options: tuple[tuple[str, int], ...]  # of the compiler, as for CUDA


class Recorder:
    """Takes the place of a kernel, and keeps its launches instead of running them."""

    def __init__(self, kernel, found: list[Launch], label: str) -> None:
        self.kernel, self.found, self.label = kernel, found, label

    def __getitem__(self, grid):
        return self._record

    def _record(self, *args, **named) -> None:
        names = self.kernel.arg_names
        constants = {n: v for n, v in named.items() if n in names}
        options = {n: v for n, v in named.items() if n not in names}
        signature, constant, attrs, dtype = {}, {}, [], None
        for i, (name, value) in enumerate([*zip(names, args, strict=False), *constants.items()]):
            assert names[i] == name, f"{self.kernel.__name__}: argument {i} is {names[i]}, got {name}"
            if isinstance(value, torch.Tensor):
                signature[name] = "*" + TYPES[value.dtype]
                if value.storage_offset() * value.element_size() % 16 == 0:
                    attrs.append((i,))
                if name in ("w_ptr", "w1_ptr"):
                    dtype = value.dtype
            elif i < len(args) and isinstance(value, float):
                signature[name] = "fp32"
            elif i < len(args) and (value != 1 or self.kernel.params[i].do_not_specialize):
                signature[name] = "i32"
                if value % 16 == 0 and not self.kernel.params[i].do_not_specialize:
                    attrs.append((i,))
            else:  # Triton makes a constant of an argument that is 1
                signature[name] = "constexpr"
                constant[(i,)] = value
        if dtype is None:
            dtype = args[0].dtype
        values = dict(constants)
        step = values.get("EPILOGUE", self.kernel.__name__.removesuffix("_kernel"))
        if values.get("GATHER") == "context" or values.get("HAS_CONTEXT"):
            step += f", context {values['KERNEL']}x{values['KERNEL']}" if values.get("CP") else ""
        product = "CP" in values and (values["CP"] > 0 or self.kernel.__name__ == "fused_kernel")
        self.found.append(
            Launch(
                self.kernel,
                f"{self.label}: {step}",
                dtype,
                product,
                tuple(signature.items()),
                tuple(constant.items()),
                tuple(attrs),
                tuple(options.items()),
            )
        )


@contextmanager
def recording(label: str, found: list[Launch]) -> Iterator[None]:
    """Launches made inside are kept in `found`."""
    names = [n for n in vars(launch) if n.endswith("_kernel")]
    before = {n: getattr(launch, n) for n in names}
    try:
        for n, kernel in before.items():
            setattr(launch, n, Recorder(kernel, found, label))
        yield
    finally:
        for n, kernel in before.items():
            setattr(launch, n, kernel)


def integer_network(m: Model) -> Network:
    def layer(*shape: int, phases: tuple[int, ...] = ()) -> IntLayer:
        return IntLayer(torch.zeros(shape), torch.zeros(*phases, shape[0]), torch.zeros(shape[0]))

    first = layer(m.H1, m.C + len(taps(m.kernel)) * m.M, phases=(2,))
    return Network.integers(first, layer(m.H2, m.H1), layer(2 * m.M, m.H2), kernel=m.kernel)


def float_network(m: Model, dtype: torch.dtype) -> Network:
    z = torch.zeros
    return Network.floats(
        z(m.H1, m.C),
        z(m.H1, m.M, m.kernel, m.kernel),
        z(2, m.H1),
        (z(m.H2, m.H1), z(m.H2)),
        (z(2 * m.M, m.H2), z(2 * m.M)),
        slope=0.01,
        thresholds=z(63),
        dtype=dtype,
    )


@cache
def shipped() -> list[Launch]:
    """Every kernel that `tune` may choose, for the models above, and the pointwise ones, each once."""
    found: list[Launch] = []
    lattice = Lattice(((32, 48),))
    networks = [(m, torch.int8, integer_network(m)) for m in INTEGER_MODELS]
    networks += [(m, d, float_network(m, d)) for d in (torch.float16, torch.float32) for m in FLOAT_MODELS]
    for m, dtype, net in networks:
        for config in CONFIGS[dtype]:
            with recording(f"{m.name}, {TYPES[dtype]}, {config}", found):
                phases(net, lattice, config)
                if config.form == "layers":
                    launch.project(torch.zeros(lattice.sites, m.C, dtype=dtype), net.psi, config)
                    if m is DEFAULT:
                        hyper(config)
    with recording("int8", found):
        pointwise(DEFAULT.M, lattice)
    unique: dict[tuple, Launch] = {}
    for one in found:
        unique.setdefault((one.kernel.__name__, one.signature, one.constants, one.attrs, one.options), one)
    return list(unique.values())


def phases(net: Network, lattice: Lattice, config: Config) -> None:
    psi_acc = torch.zeros(lattice.sites, net.hidden[0].shape[1], dtype=net.acc_dtype)
    mean = torch.zeros(lattice.sites, net.M, dtype=net.mean_dtype)
    k = torch.zeros(lattice.sites, net.M, dtype=net.k_dtype)
    for context in (None, torch.zeros(lattice.sites, net.M, dtype=net.psi.dtype)):
        launch.phase(
            psi_acc, context, net.tensors, net.thresholds, net.M, net.kernel, net.slope, lattice, mean, k, config
        )


def hyper(config: Config) -> None:
    for C, N, split in ((65, 96, False), (96, 128, True)):
        conv = SubPixel.pack(IntLayer(torch.zeros(4 * N, C, 3, 3), torch.zeros(4 * N), torch.zeros(4 * N)))
        x = torch.zeros(96, (C + 31) // 32 * 32, dtype=torch.int8)[:, :C]
        launch.convolve(x, conv.layer, N, Lattice(((8, 12),)), split, config)


def pointwise(M: int, lattice: Lattice) -> None:
    r = torch.zeros(lattice.sites, M, dtype=torch.int16)
    y = torch.zeros(lattice.full_sites, M)
    launch.assemble(r, r, lattice, 0, y.to(torch.int16), torch.zeros(lattice.sites, M, dtype=torch.int8))
    launch.assemble(r, r, lattice, 1, y, None)
    launch.assemble(r, r.float(), lattice, 0, y, r.float())
    launch.quantise(y, r, lattice, 1)
    launch.merge(launch.split(y, lattice, 1), lattice, 1, y)


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
    compiled, said = compile_launch(one, target)
    shared = compiled.metadata.shared
    read = _read_nvidia if target.gpu.backend == "cuda" else _read_amd
    registers, spills, stack, tensor, failures = read(compiled, said, target.tensor.get(one.dtype))
    if spills:
        failures.append(f"{spills} spills")
    if stack > STACK:
        failures.append(f"{stack} bytes of stack")
    if registers > target.registers:
        failures.append(f"{registers} registers")
    if shared > target.shared:
        failures.append(f"{shared} bytes of shared memory")
    if one.product and one.dtype in target.tensor and not tensor:
        failures.append("no tensor-core instruction")
    return Report(one.label, target.name, registers, spills, stack, shared, tensor, tuple(failures))


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends/nvidia/bin" / name)


def _read_nvidia(compiled, said: str, pattern: str | None) -> tuple[int, int, int, int, list[str]]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        sass = _run(_tool("nvdisasm"), "-c", file.name)
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    stack = int(re.search(r"(\d+) bytes stack frame", said)[1])
    spills = len(re.findall(r"\b(?:LDL|STL)\b", sass))
    serialised = ["wgmma serialised"] if "wgmma" in said and "serialized" in said else []
    return registers, spills, stack, len(re.findall(pattern, sass)) if pattern else 0, serialised


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _read_amd(compiled, said: str, pattern: str | None) -> tuple[int, int, int, int, list[str]]:
    text = compiled.asm["amdgcn"]

    def number(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", text)[1])

    spills = number("vgpr_spill_count") + number("sgpr_spill_count")
    stack = number("private_segment_fixed_size")
    return number("vgpr_count"), spills, stack, len(re.findall(pattern, text)) if pattern else 0, []


def _inspect(job: tuple[int, int]) -> Report:
    return inspect(shipped()[job[0]], TARGETS[job[1]])


def reports(targets: list[str], workers: int) -> list[Report]:
    launches = shipped()
    wanted = [t for t, target in enumerate(TARGETS) if target.name in targets]
    jobs = [(i, t) for i in range(len(launches)) for t in wanted]
    # Not by fork: the parent's threads are not in the child, which then waits for them.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_inspect, jobs, chunksize=4))


def table(rows: list[Report]) -> str:
    lines = ["| kernel | target | registers | spills | shared KB | tensor-core instructions |", "|" + " --- |" * 6]
    for r in rows:
        bad = f" **{'; '.join(r.failures)}**" if r.failures else ""
        lines.append(
            f"| {r.label} | {r.target} | {r.registers} | {r.spills}{bad} | {r.shared / 1024:.0f} | {r.tensor} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.aot", description=__doc__.split("\n\n")[0])
    parser.add_argument("--targets", nargs="*", default=[t.name for t in TARGETS], choices=[t.name for t in TARGETS])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--write", metavar="FILE", help="the table, as Markdown")
    args = parser.parse_args()
    rows = reports(args.targets, args.workers)
    text = table(rows)
    bad = [r for r in rows if r.failures]
    print(text)
    print(f"{len(rows)} kernels, {len(bad)} fail a gate; triton {triton.__version__}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
