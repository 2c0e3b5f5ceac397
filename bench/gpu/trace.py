"""Where the time of decoding a batch goes: `python -m bench.gpu.trace --out DIR`.

Some batches in a row through Codec.decode_iter under torch.profiler, folded: DIR/rows.json holds the time of each
kind of kernel, copy and stage, DIR/timeline.png what the host's threads and the device did when. The whole trace,
tens of megabytes, is kept with --keep alone. With --device cpu PyTorch's operators stand for the device's kernels.
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
from bench.batch import QUALITY
from bench.common import cut, load_pictures, save
from bench.gpu.device import Clock, device_name
from bench.gpu.inputs import need_cuda
from bench.ways import repeated

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
    """Something that ran from start to end, in microseconds. lane: "stage", "kernel", "copy"; thread: the host's."""

    lane: str
    name: str
    start: float
    end: float
    thread: int = 0

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
        called = e.name.startswith(("aten::", "mkldnn::")) and not (
            e.cpu_parent and e.cpu_parent.name.startswith("aten::")
        )
        if host if lane == "stage" else not host if cuda else called:
            name = e.name.removeprefix(STAGE)
            out.append(Span(lane, name, e.time_range.start, e.time_range.end, e.thread if host else 0))
    return sorted(out, key=lambda s: s.start)


def covered(spans: list[Span]) -> float:
    """Microseconds in which at least one of them ran; spans by their start."""
    total, reach = 0.0, float("-inf")
    for s in spans:
        total += max(0.0, s.end - max(s.start, reach))
        reach = max(reach, s.end)
    return total


def hidden(under: list[Span], over: list[Span]) -> float:
    """The share of the time of `under` in which something of `over` ran as well; both by start. Of nothing: 1."""
    total = covered(under)
    apart = covered(under) + covered(over) - covered(sorted(under + over, key=lambda s: s.start))
    return apart / total if total else 1.0


def fold(spans: list[Span]) -> list[dict]:
    """Rows {"lane", "name", "calls", "us", "share"} by time, longest first; share is of the whole decode's time. The
    row "busy" of a lane says for how much of it anything of that lane ran; "hidden" of the coder and of copies, for
    how much of their own time kernels ran.
    """
    whole = max(s.end for s in spans) - min(s.start for s in spans)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for s in spans:
        found[s.lane, s.name].append(s.us)
    rows = [{"lane": lane, "name": name, "calls": len(us), "us": sum(us)} for (lane, name), us in found.items()]
    for lane in ("kernel", "copy"):
        these = [s for s in spans if s.lane == lane]
        rows.append({"lane": lane, "name": "busy", "calls": len(these), "us": covered(these)})
    rows = [r | {"share": r["us"] / whole} for r in sorted(rows, key=lambda r: -r["us"])]
    kernels = [s for s in spans if s.lane == "kernel"]
    for lane, these in (
        ("stage", [s for s in spans if (s.lane, s.name) == ("stage", "coder")]),
        ("copy", [s for s in spans if s.lane == "copy"]),
    ):
        share, us = hidden(these, kernels), covered(these)
        rows.append({"lane": lane, "name": "hidden", "calls": len(these), "us": share * us, "share": share})
    return rows


def draw(spans: list[Span], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    first = min(s.start for s in spans)
    stages = [s for s in spans if s.lane == "stage"]

    def colour(s: Span) -> str:
        inside = next((t.name for t in stages if t.start <= s.start < t.end and s.thread in (0, t.thread)), "")
        return COLOURS.get(s.name if s.lane == "stage" else inside, "#000000")

    threads = sorted({s.thread for s in stages})
    lanes = [("copy", None), ("kernel", None), *(("stage", thread) for thread in threads)]
    figure, axes = pyplot.subplots(figsize=(11, 1.7 + 0.35 * len(lanes)))
    for y, (lane, thread) in enumerate(lanes):
        these = [s for s in spans if s.lane == lane and thread in (None, s.thread)]
        bars = [((s.start - first) / 1e3, s.us / 1e3) for s in these]
        axes.broken_barh(bars, (y - 0.4, 0.8), facecolors=[colour(s) for s in these])
    labels = ["copies", "kernels", *(f"host {n + 1}" for n in range(len(threads)))]
    axes.set(yticks=range(len(lanes)), yticklabels=labels, xlabel="ms", title=title)
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
    parser.add_argument("--backend", default="auto", help="of the codec: triton has g_s in kernels")
    parser.add_argument("--images", nargs="*", default=[], help="files or folders (default: one of scikit-image)")
    parser.add_argument("--picture", type=size, metavar="WxH", help="how much of each is taken")
    parser.add_argument("--batch", type=count, default=64)
    parser.add_argument("--repeat", type=count, default=6, help="batches that follow one another")
    parser.add_argument("--keep", action="store_true", help="the whole trace too, as DIR/trace.json")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    device = need_cuda(args.device)
    clock, codec = Clock(device), ckbd.load(args.model, device=device, backend=args.backend)
    given = [cut(p, args.picture) for p in load_pictures(args.images)]
    streams = repeated(codec.encode(given, QUALITY), args.batch)

    @contextmanager
    def stage(name: str):
        with record_function(STAGE + name):
            yield

    codec.decoder.stage = stage

    def decode() -> None:
        for _ in codec.decode_iter(streams * args.repeat, batch_count=args.batch):
            pass

    for _ in range(WARM_UP):
        decode()
    clock.wait()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * clock.cuda
    every_thread = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with profile(activities=activities, experimental_config=every_thread) as profiler:
        decode()
        clock.wait()
    args.out.mkdir(parents=True, exist_ok=True)
    spans = spans_of(profiler.events(), clock.cuda)
    rows = fold(spans)
    title = f"decode_iter, {args.repeat} x {args.batch} pictures, {device_name(device)}, {args.backend}"
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
