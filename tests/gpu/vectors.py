"""What the integer kernels must give, as hashes: inputs from seeds, results of the torch twin on the CPU.

vectors.json holds them (make_vectors.py writes it), so that a GPU is held against the CPU that wrote the file and not
only against itself. Each function gives the hashes of one case for a device, a backend and a config.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import kernel_cases as cases
import torch
from torch import Tensor

from ckbd import kernels
from ckbd.kernels import Config, Lattice, Network, SubPixel

FILE = Path(__file__).parent / "vectors.json"
# More tiles than a GPU runs programs at a time, so that persistent ones take turns.
SIZES = cases.SIZES | {"many tiles": ((96, 400),)}
# Of networks that were never quantised; test_gpu.py says what is asked of them.
FLOAT_WIDTHS = (cases.WIDTHS[1], cases.Widths(40, 24, 70, 100), cases.Widths(48, 32, 64, 64))
DEFAULT, CHENG = cases.Widths(256, 128, 256, 256), cases.Widths(192, 384, 640, 512)


@dataclass(frozen=True)
class Phase:
    widths: cases.Widths
    sizes: str
    parity: int = 0
    extreme: bool = False

    def __str__(self) -> str:
        return f"phase {self.widths} {self.sizes} parity {self.parity}" + (" extreme" if self.extreme else "")


@dataclass(frozen=True)
class Hyper:
    C: int
    N: int
    sizes: str
    split: bool
    factor: int = 2

    def __str__(self) -> str:
        how = " halves" if self.factor == 1 else " split" if self.split else ""
        return f"convolve {self.C} {self.N} {self.sizes}{how}"


@dataclass(frozen=True)
class Pointwise:
    M: int
    sizes: str
    parity: int

    def __str__(self) -> str:
        return f"pointwise {self.M} {self.sizes} parity {self.parity}"


PHASES = (
    *(Phase(cases.WIDTHS[0], sizes, parity) for sizes in cases.SIZES for parity in (0, 1)),
    *(Phase(widths, sizes, 1) for widths in cases.WIDTHS[1:] for sizes in ("one site", "mixed")),
    Phase(cases.WIDTHS[0], "many tiles"),
    Phase(cases.WIDTHS[3], "mixed", 0, True),
    *(Phase(widths, "over a tile", 0, extreme) for widths in (DEFAULT, CHENG) for extreme in (False, True)),
)
HYPERS = tuple(
    Hyper(C, N, sizes, split)
    for C, N in ((65, 24), (8, 16), (65, 96), (96, 128))
    for sizes in ("a row", "mixed", "over a tile")
    for split in (False, True)
) + tuple(
    Hyper(C, N, sizes, False, 1)
    for C, N in ((32, 64), (24, 40))
    for sizes in ("a row", "odd", "mixed", "over a tile")
)
POINTWISE = tuple(Pointwise(M, sizes, parity) for M in (1, 130) for sizes in cases.SIZES for parity in (0, 1))
CASES = (*PHASES, *HYPERS, *POINTWISE)


def sha(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for t in tensors:
        digest.update(t.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def moved(value, device):
    """A Network, SubPixel or anything with tensors in its fields, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(moved(v, device) for v in value)
    if isinstance(value, (Network, SubPixel)):
        return type(value)(**{name: moved(v, device) for name, v in vars(value).items()})
    return value


def digests(case: Phase | Hyper | Pointwise, device="cpu", backend="torch", config: Config | None = None) -> dict:
    run = {Phase: _phase, Hyper: _hyper, Pointwise: _pointwise}[type(case)]
    return run(case, device, {"backend": backend}, config)


def _phase(case: Phase, device, plan: dict, config: Config | None) -> dict[str, str]:
    net, lattice = moved(cases.integers(case.widths)[0], device), Lattice(SIZES[case.sizes], case.parity)
    psi = cases.activations((lattice.sites, case.widths.C), 0, case.extreme).to(device)
    context = cases.activations((lattice.sites, net.M), 1, case.extreme).to(device)
    acc = kernels.project(psi, net, config=config if config and config.form == "layers" else None, **plan)
    out = {"project": sha(acc)}
    for p, c in enumerate((None, context)):
        results = [cases.guarded(lattice.sites, net.M, d) for d in (net.mean_dtype, net.k_dtype)]
        whole = [whole.to(device) for whole, _ in results]
        inner = tuple(w[3:-3, 3:-3] for w in whole)
        kernels.phase(acc, c, net, lattice, out=inner, config=config, **plan)
        assert all(cases.untouched(w.cpu()) for w in whole), f"{case}: phase {p} wrote beside its output"
        out[f"phase {p}"] = sha(*inner)
        if plan["backend"] == "triton":  # once more into arrays that begin where wide stores may
            assert sha(*kernels.phase(acc, c, net, lattice, config=config, **plan)) == out[f"phase {p}"], str(case)
    return out


def _hyper(case: Hyper, device, plan: dict, config: Config | None) -> dict[str, str]:
    lattice = Lattice(SIZES[case.sizes], 1)
    x = cases.activations((lattice.full_sites, case.C)).to(device)
    conv = moved(cases.sub_pixel(case.C, case.N, factor=case.factor), device)
    return {"": sha(kernels.convolve(x, conv, lattice, split=case.split, config=config, **plan))}


def _pointwise(case: Pointwise, device, plan: dict, config: Config | None) -> dict[str, str]:
    lattice, M = Lattice(SIZES[case.sizes], case.parity), case.M
    g = torch.Generator().manual_seed(M)
    y = (torch.randint(-(2**20), 2**20, (lattice.full_sites, M), generator=g) / 64).to(device)
    out = {}
    for p in (0, 1):
        mean = torch.randint(-16383, 16384, (lattice.sites, M), generator=g).to(device, torch.int16)
        r = kernels.quantise(y, mean, lattice, p, **plan)
        packed = kernels.split(y, lattice, p, **plan)
        back = torch.zeros_like(y)
        kernels.merge(packed, lattice, p, back, **plan)
        out[f"quantise, split, merge {p}"] = sha(r, packed, back)
        for dtype in (torch.int16, torch.float32):
            y_hat = torch.zeros(lattice.full_sites, M, dtype=dtype, device=device)
            context = torch.full((lattice.sites, M), 9, dtype=torch.int8, device=device)
            kernels.assemble(r, mean, lattice, p, y_hat, context, **plan)
            out[f"assemble {p} {dtype}"] = sha(y_hat, context)
    return out


def stored() -> dict[str, dict[str, str]]:
    return json.loads(FILE.read_text())
