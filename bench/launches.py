"""What bench/aot.py compiles: every launch that ckbd.kernels may make, for widths that it ships for and for odd ones.

The launchers run on tensors of zeros with a recorder in place of each kernel, so what is compiled is what is
launched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch

from bench import transform_launches
from bench.recorder import TYPES, Launch, recording
from ckbd.kernels import Lattice, Network, SubPixel, launch
from ckbd.kernels import pointwise as between
from ckbd.kernels.configs import CONFIGS, FORMS, Config
from ckbd.kernels.network import taps
from ckbd.kernels.numerics import IntLayer

ODD = "odd"  # what the labels of widths that no model has begin with
# Whose launches they are, the most wanted first: of the default model, of another that the kernels ship for, of odd
# widths that stand for the others, of further odd widths. A launch that several make is the first's.
SCOPES = ("default", "shipped", "sample", "odd")


@dataclass(frozen=True)
class Model:
    """Widths of a network: (C_psi, M, H1, H2, context kernel)."""

    name: str
    C: int
    M: int
    H1: int
    H2: int
    kernel: int = 5


DEFAULT = Model("ckbd default", 128, 256, 256, 256)
CHENG = Model("cheng2020 N=192", 384, 192, 640, 512)
ELIC = Model("elic group of 16", 656, 16, 128, 64)  # MASK_C: a group narrower than a block
LARGE = Model("large, group of 16", 256, 16, 256, 256), Model("large, group of 192", 256, 192, 256, 256)
INTEGER_MODELS = (DEFAULT, CHENG, *LARGE)
FLOAT_MODELS = (CHENG, ELIC)


def odd(*widths: tuple[int, ...]) -> tuple[Model, ...]:
    return tuple(Model(f"{ODD} {', '.join(map(str, one))}", *one) for one in widths)


# Widths that no model has: narrower than a block, no multiple of anything, every context kernel. tests/gpu runs
# all but the last, which is one of everything.
ODD_INTEGERS = odd(
    (32, 16, 64, 32, 5),
    (24, 40, 70, 100, 3),
    (33, 8, 64, 64, 7),
    (128, 64, 128, 64, 5),
    (48, 130, 192, 96, 3),
    (1, 1, 1, 1, 3),
)
ODD_FLOATS = odd(
    (24, 40, 70, 100, 3),
    (24, 40, 70, 100, 5),
    (33, 8, 64, 64, 7),
    (32, 48, 64, 64, 5),
    (1, 1, 1, 1, 3),
)
# With the config of each form that is taken unmeasured.
SAMPLE = {one.name for one in odd((24, 40, 70, 100, 3), (33, 8, 64, 64, 7), (1, 1, 1, 1, 3))}
# h_s layers (C, N, split, factor): of the default model, with rows as wide as SubPixel.width, and odd ones, as wide
# as C. With a factor of 1, what a channel group sees of those before it: of `large`, as wide as SubPixel.width.
HYPERS = ((65, 96, False, 2), (96, 128, True, 2))
CHANNELS = ((16, 64, False, 1), (128, 64, False, 1))
ODD_HYPERS = tuple(
    (C, N, split, factor)
    for C, N in ((65, 24), (65, 96), (8, 16), (24, 40), (1, 1))
    for split, factor in ((False, 2), (True, 2), (False, 1))
) + ((32, 64, False, 1),)


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
    """Every kernel that `tune` may choose, for the networks above, and the pointwise ones, each once."""
    found: list[Launch] = []
    lattice = Lattice(((32, 48),))
    modules = launch, between
    networks = [(m, torch.int8, integer_network(m)) for m in INTEGER_MODELS + ODD_INTEGERS]
    networks += [
        (m, d, float_network(m, d)) for d in (torch.float16, torch.float32) for m in FLOAT_MODELS + ODD_FLOATS
    ]
    for m, dtype, net in networks:
        for config in CONFIGS[dtype]:
            with recording(f"{m.name}, {TYPES[dtype]}, {config}", found, modules):
                phases(net, lattice, config)
                if config.form == "layers":
                    launch.project(torch.zeros(lattice.sites, m.C, dtype=dtype), net.psi, config)
                    if m is DEFAULT:
                        hyper(HYPERS[:1], config, wide=True)
                        hyper(HYPERS[1:], config, wide=False)
                    if m is LARGE[0]:
                        hyper(CHANNELS, config, wide=True)
    for config in (c for c in CONFIGS[torch.int8] if c.form == "layers"):
        with recording(f"{ODD} h_s, i8, {config}", found, modules):
            hyper(ODD_HYPERS, config, wide=False)
    with recording("int8", found, modules):
        pointwise(DEFAULT.M, lattice)
    with recording(f"{ODD}, int8", found, modules):
        pointwise(1, lattice)
    unique: dict[tuple, Launch] = {}
    found = [replace(one, scope=scope_of(one.label)) for one in found] + transform_launches.launches()
    for one in sorted(found, key=lambda x: SCOPES.index(x.scope)):
        unique.setdefault((one.kernel.__name__, one.signature, one.constants, one.attrs, one.options), one)
    return list(unique.values())


def scope_of(label: str) -> str:
    model = label.rsplit(", i8" if ", i8" in label else ", fp", 1)[0]
    if not label.startswith(ODD):
        return "default" if model == DEFAULT.name or label.startswith("int8") else "shipped"
    if label.startswith(f"{ODD}, int8"):
        return "sample"
    first = [str(next(c for c in some if c.form == form)) for some in CONFIGS.values() for form in FORMS]
    return "sample" if model in SAMPLE and any(one in label for one in first) else "odd"


def phases(net: Network, lattice: Lattice, config: Config) -> None:
    psi_acc = torch.zeros(lattice.sites, net.hidden[0].shape[1], dtype=net.acc_dtype)
    mean = torch.zeros(lattice.sites, net.M, dtype=net.mean_dtype)
    k = torch.zeros(lattice.sites, net.M, dtype=net.k_dtype)
    for context in (None, torch.zeros(lattice.sites, net.M, dtype=net.psi.dtype)):
        launch.phase(
            psi_acc, context, net.tensors, net.thresholds, net.M, net.kernel, net.slope, lattice, mean, k, config
        )


def hyper(layers: tuple[tuple[int, int, bool, int], ...], config: Config, wide: bool) -> None:
    """wide: rows of x are as wide as the weights, as the decoder has those of the first layer."""
    for C, N, split, factor in layers:
        rows = factor**2 * N
        layer = IntLayer(torch.zeros(rows, C, 3, 3), torch.zeros(rows), torch.zeros(rows))
        conv = SubPixel.pack(layer, factor=factor)
        x = torch.zeros(96, conv.width if wide else C, dtype=torch.int8)
        launch.convolve(x, conv.layer, N, Lattice(((8, 12),)), split, factor, config)


def pointwise(M: int, lattice: Lattice) -> None:
    r = torch.zeros(lattice.sites, M, dtype=torch.int16)
    y = torch.zeros(lattice.full_sites, M)
    launch.assemble(r, r, lattice, 0, y.to(torch.int16), torch.zeros(lattice.sites, M, dtype=torch.int8))
    launch.assemble(r, r, lattice, 0, None, torch.zeros(lattice.sites, M, dtype=torch.int8))
    launch.assemble(r, r, lattice, 1, y, None)
    launch.assemble(r, r.float(), lattice, 0, y, r.float())
    launch.quantise(y, r, lattice, 1)
    launch.merge(launch.split(y, lattice, 1), lattice, 1, y)
