"""g_a and g_s by ckbd.kernels.transforms: batches of any sizes, from int16 latents into pictures and from pictures.

On a GPU these are Triton kernels; with backend "torch", their twins, on any device. Renderer and strips.features are
the same networks in layers of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from ckbd.codec import batches
from ckbd.codec.container import Stream
from ckbd.codec.image import Picture
from ckbd.codec.sections import finished
from ckbd.codec.zone import KernelState
from ckbd.kernels import Lattice, transforms
from ckbd.kernels.lattice import MAX_SIDE
from ckbd.kernels.ops import resolve
from ckbd.kernels.transforms import QUALITIES, Pictures
from ckbd.model.file import Loaded
from ckbd.model.model import gain_at

# Whether tests/gpu/test_gpu_transforms.py has passed on a GPU: until then these kernels are for who asks for them.
PASSED = False
MOST_SIDE = MAX_SIDE // 2  # latents of a side: g_a and g_s have twice as many sites. Layers take what is longer.


def wanted(backend: str, device: torch.device) -> bool:
    """Whether a codec with this backend has g_a and g_s from here."""
    return backend == "triton" or (PASSED and resolve(backend, device) == "triton")


def fits(lattice: Lattice) -> bool:
    return max(map(max, lattice.sizes)) <= MOST_SIDE


class Painter:
    """g_s of a model on a device, in float16 unless said otherwise."""

    def __init__(self, model: Loaded, device: torch.device, backend: str, dtype: torch.dtype = torch.float16):
        self.device, self.backend, self.dtype = device, backend, dtype
        qualities = torch.linspace(1, 100, QUALITIES, dtype=torch.float32, device=device)
        gains = gain_at(model.log_ungain, qualities)[..., 0, 0]
        self.network = transforms.Synthesis.pack(model.g_s.state_dict(), gains, dtype, device)

    @torch.inference_mode()
    def paint(self, state: KernelState, pictures: Pictures) -> None:
        """The pixels of a batch whose residuals are all there; those without pixels are left out."""
        transforms.synthesise(state.r, state.mean, state.lattice, self.network, pictures, backend=self.backend)

    def pictures(
        self, streams: Sequence[Stream], state: KernelState, stage: Callable[[str], AbstractContextManager[None]]
    ) -> list[Picture]:
        """The pictures of streams, in the order of the batch. Raises FormatError for a damaged section."""
        headers = [s.header for s in streams]
        with stage("g_s"):
            sizes = [(h.height, h.width) for h in headers]
            flat = torch.empty(sum(3 * h * w for h, w in sizes), dtype=torch.uint8, device=self.device)
            gray, quality2 = [h.gray for h in headers], [h.quality2 for h in headers]
            self.paint(state, Pictures.of(_pictures(flat, sizes), "HWC", gray=gray, quality2=quality2))
        with stage("picture"):
            found = [x.numpy() for x in _pictures(flat.cpu(), sizes)]
            # Copied, so that who keeps one picture does not keep them all.
            return [finished(s, x.copy() if len(found) > 1 else x) for s, x in zip(streams, found, strict=True)]


class Reader:
    """g_a of a model on a device."""

    def __init__(self, model: Loaded, device: torch.device, backend: str, dtype: torch.dtype = torch.float16):
        self.device, self.backend = device, backend
        self.network = transforms.Analysis.pack(model.g_a.state_dict(), dtype, device)

    @torch.inference_mode()
    def features(self, pictures: Sequence[Picture]) -> Tensor:
        """As Encoder.features: float32 (B, M, h, w) of pictures of one padded size."""
        flat = torch.from_numpy(np.concatenate([p.rgb.reshape(-1) for p in pictures])).to(self.device)
        pixels = _pictures(flat, [(p.height, p.width) for p in pictures])
        lattice = lattice_of(pictures)
        rows = transforms.analyse(Pictures.of(pixels, "HWC"), lattice, self.network, backend=self.backend)
        return rows.view(len(pixels), *lattice.sizes[0], -1).permute(0, 3, 1, 2)


def lattice_of(pictures: Sequence[Picture]) -> Lattice:
    """The latents of pictures of one padded size."""
    down, across = batches.patches(pictures[0].height, pictures[0].width)
    return Lattice(((4 * down, 4 * across),) * len(pictures))


def _pictures(flat: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Pixels back to back as pictures (height, width, 3), so that one copy between host and device does for all."""
    parts = flat.split([3 * h * w for h, w in sizes])
    return [part.view(h, w, 3) for part, (h, w) in zip(parts, sizes, strict=True)]
