"""From x_hat to what a caller asks for: uint8 or [0, 1], CHW or HWC, in tensors of its own or the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ckbd.kernels.transforms.pictures import DTYPES, LAYOUTS


@dataclass(frozen=True)
class Form:
    """layout: "CHW" or "HWC". dtype: uint8, or float16 or float32 in [0, 1], which are the same pixels over 255."""

    layout: str = "CHW"
    dtype: torch.dtype = torch.uint8

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout: expected {' or '.join(LAYOUTS)}, got {self.layout!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: expected {', '.join(map(str, DTYPES))}, got {self.dtype}")

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        return (3, height, width) if self.layout == "CHW" else (height, width, 3)

    def empty(self, height: int, width: int, device: torch.device) -> Tensor:
        with torch.inference_mode(False):  # a tensor like any other: gradients may need it
            return torch.empty(self.shape(height, width), dtype=self.dtype, device=device)

    def check(self, out: Tensor, height: int, width: int, device: torch.device) -> Tensor:
        """The caller's tensor for a picture, if it can hold it; ValueError says what would."""
        want = self.shape(height, width)
        if not isinstance(out, Tensor):
            raise TypeError(f"out: expected tensors, got {type(out).__name__}")
        if tuple(out.shape) != want or out.dtype != self.dtype or out.device != device:
            raise ValueError(
                f"out: expected {self.dtype} {want} on {device}, got {out.dtype} {tuple(out.shape)} on {out.device}"
            )
        return out

    def pixels(self, x_hat: Tensor, gray: Sequence[bool]) -> Tensor:
        """x_hat, floating point (B, 3, H, W), in this dtype: clamped to [0, 1], the channels averaged where gray is
        set, and rounded to 8 bits, as ckbd.codec.networks.tensors.put does. What is uint8 is that already.
        """
        if x_hat.dtype == torch.uint8:
            return x_hat if self.dtype == torch.uint8 else x_hat.float().div_(255).to(self.dtype)
        x = x_hat.float().clamp(0, 1)
        if any(gray):
            mean = x.mean(1, keepdim=True)
            which = torch.tensor(gray, device="cpu").view(-1, 1, 1, 1).to(x.device)
            x = torch.where(which, mean, x)
        x = x.mul_(255).round_()
        return x.to(torch.uint8) if self.dtype == torch.uint8 else x.div_(255).to(self.dtype)

    def place(self, out: Tensor, pixels: Tensor, top: int, left: int) -> None:
        """Writes pixels (3, H, W) to out from (top, left) on, as far as both go."""
        target = out if self.layout == "CHW" else out.permute(2, 0, 1)
        height, width = min(pixels.shape[1], target.shape[1] - top), min(pixels.shape[2], target.shape[2] - left)
        if height > 0 and width > 0:
            target[:, top : top + height, left : left + width].copy_(pixels[:, :height, :width])

    def of(self, rgb: Tensor) -> Tensor:
        """uint8 (H, W, 3) in this form."""
        x = rgb if self.layout == "HWC" else rgb.permute(2, 0, 1).contiguous()
        return x if self.dtype == torch.uint8 else x.float().div_(255).to(self.dtype)
