"""Where the pixels of a batch's pictures are: tensors of their own, and a table that the kernels read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LAYOUTS = ("CHW", "HWC")
DTYPES = (torch.uint8, torch.float16, torch.float32)
QUALITIES = 199  # rows of gains: qualities 1 to 100 in steps of 1/2


@dataclass(frozen=True)
class Pictures:
    """tensors: (3, height, width) or (height, width, 3), contiguous, all of one dtype on one device; one without
    pixels is neither read nor written. table: int64 (pictures, 5) there: address, height, width, whether it is gray,
    its row of the gains. addresses: those, on the CPU. What a kernel writes to is kept alive by whoever holds this.
    """

    tensors: list[Tensor]
    table: Tensor
    addresses: Tensor
    gray: tuple[bool, ...]
    quality: tuple[int, ...]
    layout: str

    @classmethod
    def of(
        cls,
        tensors: Sequence[Tensor],
        layout: str = "CHW",
        *,
        gray: Sequence[bool] | None = None,
        quality2: Sequence[int] | None = None,
        up: Callable[[Tensor], Tensor] | None = None,
    ) -> Pictures:
        """gray: pictures whose channels are averaged. quality2: twice their qualities, 2 to 200 (left out: 100).
        up: how the table goes to the tensors' device (None: tensor.to).
        """
        if layout not in LAYOUTS:
            raise ValueError(f"layout: expected {' or '.join(LAYOUTS)}, got {layout!r}")
        if not tensors:
            raise ValueError("pictures: expected at least one")
        first = tensors[0]
        gray = [False] * len(tensors) if gray is None else [bool(g) for g in gray]
        quality2 = [100] * len(tensors) if quality2 is None else [int(q) for q in quality2]
        for name, values in (("gray", gray), ("quality2", quality2)):
            if len(values) != len(tensors):
                raise ValueError(f"{name}: expected {len(tensors)} values, got {len(values)}")
        rows = []
        for n, (x, g, q) in enumerate(zip(tensors, gray, quality2, strict=True)):
            if x.dtype not in DTYPES or x.dtype != first.dtype or x.device != first.device:
                wanted = f"{first.dtype} on {first.device}" if first.dtype in DTYPES else ", ".join(map(str, DTYPES))
                raise ValueError(f"picture {n}: expected {wanted}, got {x.dtype} on {x.device}")
            if x.ndim != 3 or x.shape[0 if layout == "CHW" else 2] != 3 or not x.is_contiguous():
                want = "(3, H, W)" if layout == "CHW" else "(H, W, 3)"
                raise ValueError(f"picture {n}: expected contiguous {want}, got {tuple(x.shape)}, {x.stride()}")
            if not 2 <= q <= QUALITIES + 1:
                raise ValueError(f"quality2: expected 2 to {QUALITIES + 1}, got {q}")
            height, width = x.shape[1:] if layout == "CHW" else x.shape[:2]
            rows.append((x.data_ptr(), height, width, int(g), q - 2) if x.numel() else (0, 0, 0, 0, q - 2))
        table = torch.tensor(rows, dtype=torch.int64, device="cpu")
        addresses = table[:, 0].clone()
        table = table.to(first.device) if up is None else up(table)
        return cls(list(tensors), table, addresses, tuple(gray), tuple(q - 2 for q in quality2), layout)

    @property
    def hwc(self) -> bool:
        return self.layout == "HWC"

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each."""
        return [tuple(x.shape[:2] if self.hwc else x.shape[1:]) for x in self.tensors]  # type: ignore[misc]  # two
