"""Launches of kernels, kept instead of run: what decides their machine code, for bench/aot.py to compile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch

TYPES = {
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float16: "fp16",
    torch.float32: "fp32",
}


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
    scope: str = "default"  # of SCOPES
    targets: tuple[str, ...] = ()  # of bench.aot.TARGETS that it is for; none: all


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
def recording(label: str, found: list[Launch], modules: Sequence[ModuleType]) -> Iterator[None]:
    """Launches made inside, by launchers of these modules, are kept in `found`."""
    before = [(m, n, kernel) for m in modules for n, kernel in vars(m).items() if n.endswith("_kernel")]
    try:
        for module, n, kernel in before:
            setattr(module, n, Recorder(kernel, found, label))
        yield
    finally:
        for module, n, kernel in before:
            setattr(module, n, kernel)
