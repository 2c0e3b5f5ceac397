"""Where a batch in flight keeps what is its own: a stream of the device, and host memory that the device can read.

On a CPU all of it is nothing: what is to be copied is there already.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from ckbd.forks import after_fork


class Lane:
    """One batch at a time. Memory grows to what the largest needed and is used again by the next."""

    def __init__(self, device: torch.device):
        self.device = device
        self.cuda = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.cuda else None
        self._held: dict[tuple[str, torch.dtype], Tensor] = {}

    def working(self) -> AbstractContextManager[Any]:
        """What is launched meanwhile goes to the lane's stream."""
        return torch.cuda.stream(self.stream) if self.cuda else nullcontext()

    def after(self, event: Any) -> None:
        """What is launched from now on comes after an event of another stream; None: after nothing."""
        if event is not None and self.stream is not None:
            self.stream.wait_event(event)

    def host(self, name: str, count: int, dtype: torch.dtype) -> Tensor:
        """`count` elements of host memory, on a GPU pinned. Whatever was in the memory of this name is lost."""
        if not self.cuda:
            return torch.empty(count, dtype=dtype, device="cpu")
        held = self._held.get((name, dtype))
        if held is None or held.numel() < count:
            # By powers of two, so that batches that differ a little do not pin anew each time.
            room = 1 << max(count - 1, 1).bit_length()
            held = torch.empty(room, dtype=dtype, device="cpu", pin_memory=True)
            self._held[name, dtype] = held
        return held[:count]

    def up(self, tensor: Tensor) -> Tensor:
        """A tensor of host() on the device: the copy is queued, the memory may change when the device has done it."""
        return tensor.to(self.device, non_blocking=True) if self.cuda else tensor

    def down(self, name: str, tensor: Tensor) -> Tensor:
        """A flat copy in host memory, when it is there; threads that wait here let others have the interpreter."""
        flat = tensor.reshape(-1)
        if not self.cuda:
            return flat
        out = self.host(name, flat.numel(), flat.dtype)
        out.copy_(flat, non_blocking=True)
        self.wait()
        return out

    def wait(self) -> None:
        """All that the lane has queued is done."""
        if self.stream is not None:
            event = torch.cuda.Event(blocking=True)
            event.record(self.stream)
            event.synchronize()


class Lanes:
    """Lanes for as many batches as are in flight at once."""

    def __init__(self, device: torch.device, count: int):
        self._device, self._count = device, count
        self.forget()
        after_fork(self)

    def forget(self) -> None:
        """All are free, and yet to be made: in the child of a fork, whose parent's threads held some."""
        self._free: SimpleQueue[Lane | None] = SimpleQueue()
        for _ in range(self._count):
            self._free.put(None)

    def take(self) -> Lane:
        return self._free.get() or Lane(self._device)

    def give(self, lane: Lane) -> None:
        self._free.put(lane)
