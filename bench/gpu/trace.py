"""Where the time of decoding a batch goes: `python -m bench.gpu.trace --out DIR`.

One decode of a batch under torch.profiler, folded: DIR/rows.json holds the time of each kind of kernel, copy and
stage, DIR/timeline.png what the host and the device did when. The whole trace, tens of megabytes, is kept with
--keep alone. With --device cpu the operators of PyTorch stand for the device's kernels.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

import ckbd
from bench.arguments import count, size
from bench.batch import QUALITY, repeated
from bench.common import cut, load_pictures, save
from bench.gpu.device import Clock, device_name
from bench.gpu.inputs import need_cuda

STAGE = "stage: "
WARM_UP = 2
COLOURS = {
    "parse": "#999999",
    "coder": "#D55E00",
    "h_s": "#56B4E9",
    "phases": "#0072B2",
    "g_s": "#009E73",
    "picture": "#CC79A7",
}


@dataclass(frozen=True)
class Span:
    """Something that ran from start to end, in microseconds. lane: "stage", "kernel" or "copy"."""

    lane: str
    name: str
    start: float
    end: float

    @property
    def us(self) -> float:
        return self.end - self.start


def lane_of(name: str) -> str:
    if name.startswith(STAGE):
        return "stage"
    return "copy" if name.startswith(("Memcpy", "Memset", "aten::copy_", "aten::_to_copy")) else "kernel"


def spans_of(events, cuda: bool) -> list[Span]:
    """Of torch.profiler's events: the stages as the host saw them, and what ran on the device (without one: what
    was called of PyTorch, and not what that called).
    """
    on_device = torch.autograd.DeviceType.CUDA
    out = []
    for e in events:
        lane = lane_of(e.name)
        host = e.device_type != on_device
        called = e.name.startswith("aten::") and not (e.cpu_parent and e.cpu_parent.name.startswith("aten::"))
        if host if lane == "stage" else not host if cuda else called:
            out.append(Span(lane, e.name.removeprefix(STAGE), e.time_range.start, e.time_range.end))
    return sorted(out, key=lambda s: s.start)


def covered(spans: list[Span]) -> float:
    """Microseconds in which at least one of them ran; spans by their start."""
    total, reach = 0.0, float("-inf")
    for s in spans:
        total += max(0.0, s.end - max(s.start, reach))
        reach = max(reach, s.end)
    return total


def fold(spans: list[Span]) -> list[dict]:
    """Rows {"lane", "name", "calls", "us", "share"} by time, longest first; share is of the whole decode's time. The
    row "busy" of a lane says for how much of it anything of that lane ran.
    """
    whole = max(s.end for s in spans) - min(s.start for s in spans)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for s in spans:
        found[s.lane, s.name].append(s.us)
    rows = [{"lane": lane, "name": name, "calls": len(us), "us": sum(us)} for (lane, name), us in found.items()]
    for lane in ("kernel", "copy"):
        these = [s for s in spans if s.lane == lane]
        rows.append({"lane": lane, "name": "busy", "calls": len(these), "us": covered(these)})
    return [r | {"share": r["us"] / whole} for r in sorted(rows, key=lambda r: -r["us"])]


def draw(spans: list[Span], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    first = min(s.start for s in spans)
    stages = [s for s in spans if s.lane == "stage"]

    def colour(s: Span) -> str:
        inside = next((t.name for t in stages if t.start <= s.start < t.end), "")
        return COLOURS.get(s.name if s.lane == "stage" else inside, "#000000")

    figure, axes = pyplot.subplots(figsize=(11, 2.6))
    lanes = ("copy", "kernel", "stage")
    for y, lane in enumerate(lanes):
        these = [s for s in spans if s.lane == lane]
        bars = [((s.start - first) / 1e3, s.us / 1e3) for s in these]
        axes.broken_barh(bars, (y - 0.4, 0.8), facecolors=[colour(s) for s in these])
    axes.set(yticks=range(len(lanes)), yticklabels=["copies", "kernels", "host, stages"], xlabel="ms", title=title)
    names = [name for name in COLOURS if any(s.name == name for s in stages)]
    axes.legend(
        handles=[Patch(color=COLOURS[n], label=n) for n in names], ncol=len(names), fontsize=8, loc="upper left"
    )
    axes.set_ylim(-0.6, len(lanes) + 0.1)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.trace", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the program itself")
    parser.add_argument("--model", default="default")
    parser.add_argument("--images", nargs="*", default=[], help="files or folders (default: one of scikit-image)")
    parser.add_argument("--picture", type=size, metavar="WxH", help="how much of each is taken")
    parser.add_argument("--batch", type=count, default=64)
    parser.add_argument("--keep", action="store_true", help="the whole trace too, as DIR/trace.json")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    device = need_cuda(args.device)
    clock, codec = Clock(device), ckbd.load(args.model, device=device)
    given = [cut(p, args.picture) for p in load_pictures(args.images)]
    streams = repeated(codec.encode(given, QUALITY), args.batch)

    @contextmanager
    def stage(name: str):
        with record_function(STAGE + name):
            yield

    codec.decoder.stage = stage
    for _ in range(WARM_UP):
        codec.decode_pictures(streams)
    clock.wait()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * clock.cuda
    with profile(activities=activities) as profiler:
        codec.decode_pictures(streams)
        clock.wait()
    args.out.mkdir(parents=True, exist_ok=True)
    spans = spans_of(profiler.events(), clock.cuda)
    rows = fold(spans)
    title = f"decode of {args.batch} pictures, {device_name(device)}"
    draw(spans, title, args.out / "timeline.png")
    save(str(args.out / "rows.json"), rows)
    if args.keep:
        profiler.export_chrome_trace(str(args.out / "trace.json"))
    print(title)
    for r in rows[:25]:
        print(f"{r['lane']:7} {r['us'] / 1e3:10.3f} ms {100 * r['share']:6.1f} % {r['calls']:6} x  {r['name'][:90]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
