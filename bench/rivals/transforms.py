"""What the kernels of g_s and g_a are timed against: the same networks in layers of PyTorch, as the codec runs them
where it has no kernels. Each takes as many pictures of a batch at once as the codec does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ckbd.codec import batches
from ckbd.codec.networks import tensors
from ckbd.kernels.numerics import MEAN_STEP
from ckbd.model.file import Loaded
from ckbd.model.model import gain_at
from ckbd.model.transforms import channels_last
from ckbd.pipeline.pixels import Form

QUALITY = 50.0
FORM = Form()  # uint8 CHW


def parts_of(x: Tensor, pixels: int) -> tuple[Tensor, ...]:
    """x (B, ...) in equal parts, as few as the codec makes of pictures of so many pixels."""
    at_once = max(1, batches.most_pixels(x.device) // pixels)
    return x.chunk(-(-len(x) // at_once))


class Synthesis:
    """g_s in float16, channels last, from y_hat to pixels; the gain is at hand."""

    def __init__(self, model: Loaded, y_hat: Tensor, pictures: Sequence[Tensor]):
        """y_hat: float32 (B, M, h, w) in 1/16 units. pictures: B of uint8 (3, height, width), to be written."""
        self.stages = channels_last(copy.deepcopy(model.g_s).half()).stages()
        self.gain = gain_at(model.log_ungain, torch.tensor([QUALITY], device=y_hat.device))
        self.pictures, (self.height, self.width) = pictures, pictures[0].shape[1:]
        self.parts = parts_of(y_hat, 256 * y_hat[0, 0].numel())

    def pixels(self, y_hat: Tensor) -> Tensor:
        """uint8 (B, 3, height, width) of some of the batch."""
        x = (y_hat / MEAN_STEP * self.gain).to(torch.float16, memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
        return FORM.pixels(x, [False] * len(x))[..., : self.height, : self.width]

    @torch.inference_mode()
    def call(self) -> None:
        outs = iter(self.pictures)
        for part in self.parts:
            for one in self.pixels(part):
                FORM.place(next(outs), one, 0, 0)

    def compiled(self, mode: str) -> Callable[[], object]:
        """call() as torch.compile makes it in one of its modes, less the copies into the pictures' own tensors."""
        # Or its CUDA graphs would copy these before every replay.
        for t in (*self.parts, self.gain):
            torch._dynamo.mark_static_address(t)
        function = torch.compile(self.pixels, mode=mode, dynamic=False, fullgraph=True)

        @torch.no_grad()
        def call() -> list[Tensor]:
            return [function(part) for part in self.parts]

        return call


class Analysis:
    """g_a in float32, channels last, of pictures that are floats already, padded, in memory as the layers like it."""

    def __init__(self, model: Loaded, pictures: Sequence[Tensor]):
        """pictures: uint8 (height, width, 3), all of one size."""
        x = torch.stack(tuple(pictures)).permute(0, 3, 1, 2).float().div_(255)
        x = tensors.pad(x, batches.PATCH).contiguous(memory_format=torch.channels_last)
        self.g_a, self.parts = model.g_a, parts_of(x, x[0, 0].numel())

    @torch.inference_mode()
    def call(self) -> list[Tensor]:
        return [self.g_a(part) for part in self.parts]
