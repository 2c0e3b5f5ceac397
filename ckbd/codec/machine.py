"""Where a codec runs: the device of its networks and the threads of the rest, checked."""

from __future__ import annotations

import torch


def device_of(name: str | torch.device) -> torch.device:
    """The device, after one allocation on it; ValueError, with PyTorch's reason, if there is none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {str(name)!r}: {str(error).splitlines()[0]}") from error
    return device


def use_threads(threads: int | None) -> int:
    """How many threads the entropy coder has; PyTorch's are set to as many, process-wide. None takes its setting."""
    if threads is None:
        return torch.get_num_threads()
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    torch.set_num_threads(threads)
    return threads
