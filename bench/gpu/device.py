"""Time on a device, and what the device could do at best: events on CUDA, the clock elsewhere.

Ceilings are measured in the same run as what is held against them, never read from a data sheet.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

SAMPLE = 0.005  # seconds that a sample takes at the least
FLUSH = 256 << 20  # bytes that are written to empty the L2 cache: several times the largest one
COPY = 1 << 30  # bytes of the copy that measures bandwidth
SIDE = 8192  # of the square products that measure the rates of arithmetic


@dataclass(frozen=True)
class Ceilings:
    """bandwidth: bytes a second, read and written, of a copy. int8, float16, float32: operations a second of a square
    product, two for each multiply-add (float32 without TF32).
    """

    bandwidth: float
    int8: float
    float16: float
    float32: float

    def rate(self, dtype: torch.dtype) -> float:
        return asdict(self)[str(dtype).removeprefix("torch.")]


def device_name(device: torch.device) -> str:
    """The GPU's own name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def roofline_share(nbytes: float, ops: float, us: float, bandwidth: float, rate: float) -> float:
    """The least time that the work could take on the device, over the time it took."""
    return max(nbytes / bandwidth, ops / rate) / (us * 1e-6)


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """10th percentile, median, 90th percentile; of few values their ends."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return tenths[0], statistics.median(values), tenths[-1]


class Clock:
    """Microseconds a call on one device. flush: empty the L2 cache before every call, which is then timed alone."""

    def __init__(self, device: torch.device, flush: bool = False):
        self.device = device
        self.cuda = device.type == "cuda"
        self.trash = torch.empty(FLUSH, dtype=torch.int8, device=device) if flush and self.cuda else None

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def first(self, call: Callable[[], object]) -> float:
        """Milliseconds of one call and all that it brings about, by the host's clock."""
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return 1e3 * (time.perf_counter() - start)

    def count(self, call: Callable[[], object]) -> int:
        """How many calls fill a sample; one, if each is to find an empty cache."""
        if self.trash is not None:
            return 1
        quickest = min(self.first(call) for _ in range(3)) / 1e3
        return min(1000, max(1, round(SAMPLE / quickest)))

    def sample(self, call: Callable[[], object], count: int) -> float:
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(count):
                call()
            return 1e6 * (time.perf_counter() - start) / count
        if self.trash is not None:
            self.trash.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return 1e3 * start.elapsed_time(end) / count

    def turns(self, calls: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
        """Samples of each call, in an order that rotates, so that a device that slows down slows all of them. Calls
        that the device has no memory for are left out.
        """
        names = list(calls)
        counts: dict[str, int] = {}
        samples: dict[str, list[float]] = {name: [] for name in names}
        for run in range(runs):
            for turn in range(len(names)):
                name = names[(run + turn) % len(names)]
                if name not in samples:
                    continue
                try:
                    if name not in counts:
                        counts[name] = self.count(calls[name])
                    samples[name].append(self.sample(calls[name], counts[name]))
                except torch.OutOfMemoryError:
                    del samples[name]
                    torch.cuda.empty_cache()
        return samples

    def median(self, call: Callable[[], object], runs: int = 10) -> float:
        call()
        return statistics.median(self.turns({"": call}, runs)[""])


def graph(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The same work as a replay of a CUDA graph: what the device takes, without the host between launches."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream(device).wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        call()
    return captured.replay


def ceilings(clock: Clock, copy: int = COPY, side: int = SIDE) -> Ceilings:
    """Measured on the clock's device; copy in bytes, side of the square matrices."""
    plain = Clock(clock.device)
    ops = 2 * side**3

    def bandwidth() -> float:
        source = torch.zeros(copy, dtype=torch.int8, device=clock.device)
        target = torch.empty_like(source)
        return 2 * copy / (plain.median(lambda: target.copy_(source)) * 1e-6)

    def rate(dtype: torch.dtype, product: Callable[[Tensor, Tensor], Tensor]) -> float:
        a, b = (torch.randint(-3, 4, (side, side), device=clock.device).to(dtype) for _ in range(2))
        return ops / (plain.median(lambda: product(a, b.t())) * 1e-6)

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        rates = rate(torch.int8, torch._int_mm), rate(torch.float16, torch.mm), rate(torch.float32, torch.mm)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return Ceilings(bandwidth(), *rates)
