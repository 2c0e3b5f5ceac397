"""For who tunes: where the time of two phases goes. `python -m bench.gpu.profile --out DIR`.

Writes to DIR
  trace.json    torch.profiler's trace of both phases, for chrome://tracing or Perfetto
  kernels.csv   one row for each kernel: microseconds, bytes, operations, share of the roofline; rows.json the same
  roofline.png  the same, drawn under the ceilings measured in this run
  ncu.csv, ncu.md   where Nsight Compute (ncu) is on PATH: its metrics as they came, and as a table

Kernels are the three layers of a phase, or the fused program. Bytes of a layer count each input, weight and output
once, as ckbd.kernels.phase_cost does for the whole.
"""

from __future__ import annotations

import argparse
import csv
import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.arguments import count, size
from bench.common import save
from bench.gpu import record
from bench.gpu.device import Ceilings, Clock, ceilings, device_name, roofline_share
from bench.gpu.inputs import Ours, integers, latents, need_cuda
from bench.launches import INTEGER_MODELS
from bench.tables import table
from ckbd import kernels
from ckbd.kernels import Config, Lattice, Network
from ckbd.kernels.configs import CONFIGS, FORMS
from ckbd.kernels.network import taps

STEPS = 5  # of the trace, after as many to warm up
KERNELS = ("layer_kernel", "fused_kernel")
# Metric of ncu -> what the table calls it.
METRICS = {
    "gpu__time_duration.sum": "time",
    "dram__bytes.sum": "memory traffic",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory, % of peak",
    "lts__t_sector_hit_rate.pct": "L2 hits, %",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "multiprocessors, % of peak",
    "sm__inst_executed_pipe_tensor.sum": "tensor instructions",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps active, %",
    "launch__registers_per_thread": "registers",
    "launch__occupancy_limit_shared_mem": "programs that shared memory allows",
    "smsp__inst_executed_op_local_ld.sum": "local loads",
    "smsp__inst_executed_op_local_st.sum": "local stores",
}


@dataclass(frozen=True)
class Kernel:
    """What one launch has to do, and how long it took (us; None: not seen)."""

    name: str
    bytes: int
    ops: int
    us: float | None = None
    share: float | None = None


def work(net: Network, lattice: Lattice, p: int, config: Config) -> list[Kernel]:
    """The launches of a phase in order. Their operations add up to phase_cost's; bytes too, but for what layers hand
    to each other."""
    cost = kernels.phase_cost(net, lattice, p, config)
    if config.form == "fused":
        return [Kernel(f"phase {p} fused", cost.bytes, 2 * cost.macs)]
    size, rows = net.psi.element_size(), lattice.sites
    H1P, H2P, MP = net.hidden[0].shape[1], net.output[0].shape[1], net.output[0].shape[0] // 2
    context = p * len(taps(net.kernel))
    sites = cost.macs // (context * net.M * net.H1 + net.H1 * net.H2 + 2 * net.M * net.H2)
    ends = net.mean_dtype.itemsize + net.k_dtype.itemsize
    CP = net.first[0].shape[1] // len(taps(net.kernel))
    first = size * H1P * context * CP + rows * (4 * H1P + p * net.M * size + H1P * size)
    hidden = size * (H2P * H1P + rows * (H1P + H2P))
    output = size * (2 * MP * H2P + rows * H2P) + rows * net.M * ends
    return [
        Kernel(f"phase {p} first", first, 2 * sites * context * net.M * net.H1),
        Kernel(f"phase {p} hidden", hidden, 2 * sites * net.H1 * net.H2),
        Kernel(f"phase {p} output", output, 4 * sites * net.M * net.H2),
    ]


def timed(expected: list[Kernel], us: list[float], tops: Ceilings, dtype: torch.dtype) -> list[Kernel]:
    """Launches with the median of their times. us: of all launches seen, in order, whole rounds of `expected`."""
    if not us or len(us) % len(expected):
        raise ValueError(f"{len(us)} launches were seen, which is no multiple of the {len(expected)} of a round")
    out = []
    for i, kernel in enumerate(expected):
        middle = sorted(us[i :: len(expected)])[len(us) // len(expected) // 2]
        share = roofline_share(kernel.bytes, kernel.ops, middle, tops.bandwidth, tops.rate(dtype))
        out.append(Kernel(kernel.name, kernel.bytes, kernel.ops, middle, share))
    return out


def trace(call: Callable[[], object], path: Path, cuda: bool) -> list[float]:
    """Writes the profiler's trace; microseconds of the phase kernels on the device, in order (none on a CPU)."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    for _ in range(STEPS):
        call()
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(STEPS):
            call()
        if cuda:
            torch.cuda.synchronize()
    profiler.export_chrome_trace(str(path))
    on_device = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    seen = sorted((e for e in on_device if e.name.startswith(KERNELS)), key=lambda e: e.time_range.start)
    return [e.time_range.elapsed_us() for e in seen]


def plot(found: list[Kernel], tops: Ceilings, dtype: torch.dtype, title: str, path: Path) -> None:
    """Operations a second over operations a byte, under the two ceilings."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rate, points = tops.rate(dtype), [k for k in found if k.us and k.ops]
    corner = rate / tops.bandwidth
    ends = [
        min([corner / 8, *(k.ops / k.bytes / 2 for k in points)]),
        max([8 * corner, *(2 * k.ops / k.bytes for k in points)]),
    ]
    figure, axes = pyplot.subplots(figsize=(7, 5))
    axes.loglog([ends[0], corner, ends[1]], [ends[0] * tops.bandwidth, rate, rate], color="black", label="ceilings")
    for k in points:
        axes.loglog(
            k.ops / k.bytes, k.ops / (k.us * 1e-6), "o", label=f"{k.name}: {k.us:.1f} us, {100 * k.share:.0f} %"
        )
    axes.set(xlabel="operations a byte", ylabel="operations a second", title=title)
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def ncu_command(ncu: str, command: list[str]) -> list[str]:
    names = "regex:^(" + "|".join(KERNELS) + ")$"
    options = ["--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", "--kernel-name", names]
    return [ncu, *options, "--metrics", ",".join(METRICS), *command]


def parse_ncu(text: str) -> list[dict[str, str]]:
    """A row for each launch: kernel, and metrics by METRICS' names with their units. text: what ncu --csv --page raw
    printed; lines of the program and of ncu itself may stand before the table, whose second line holds the units.
    """
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID",')), None)
    if start is None:
        said = [line for line in lines if line.startswith("==")] or lines[-1:]
        raise ValueError("ncu printed no table: " + " ".join(said))
    table = list(csv.reader(io.StringIO("\n".join(lines[start:]))))
    head, units, body = table[0], table[1], [row for row in table[2:] if len(row) == len(table[0])]
    where = {name: head.index(metric) for metric, name in METRICS.items() if metric in head}
    rows = []
    for row in body:
        cells = {name: f"{row[i]} {units[i]}".rstrip(" %") for name, i in where.items()}
        rows.append({"kernel": row[head.index("Kernel Name")]} | cells)
    return rows


def markdown(rows: list[dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return table(names, [[row.get(n, "-") for n in names] for row in rows]) + "\n"


def nsight(out: Path, args: argparse.Namespace) -> bool:
    """Runs one round under ncu and writes its metrics, or says why not; whether it did."""
    program = [sys.executable, "-m", "bench.gpu.profile", "--once", "--out", str(out), "--model", args.model]
    program += ["--form", args.form, "--batch", str(args.batch), "--picture", "{}x{}".format(*args.picture)]
    command = ncu_command("ncu", program)
    ncu = shutil.which("ncu")
    if ncu is None:
        print(f"ncu is not on PATH, so its metrics are left out. The command:\n  {shlex.join(command)}")
        return False
    print(f"$ {shlex.join(command)}", flush=True)
    done = subprocess.run([ncu, *command[1:]], cwd=record.ROOT, capture_output=True, text=True)
    (out / "ncu.csv").write_text(done.stdout)
    try:
        rows = parse_ncu(done.stdout)
    except ValueError as error:
        print(f"{error} (exit status {done.returncode}) {done.stderr.strip()}")
        return False
    (out / "ncu.md").write_text(markdown(rows))
    print(markdown(rows), end="")
    return True


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the program itself")
    parser.add_argument("--model", default=INTEGER_MODELS[-1].name, choices=[m.name for m in INTEGER_MODELS])
    parser.add_argument("--form", default="layers", choices=FORMS)
    parser.add_argument("--batch", type=count, default=64)
    parser.add_argument("--picture", type=size, default="768x512", metavar="WxH")
    parser.add_argument("--once", action="store_true", help="launch one round and end: what ncu runs")
    return parser


def main() -> int:
    args = parser().parse_args()
    device = need_cuda(args.device)
    clock, named = Clock(device), device_name(device)
    model = next(m for m in INTEGER_MODELS if m.name == args.model)
    lattice = Lattice((latents(*args.picture),) * args.batch)
    config = next(c for c in CONFIGS[torch.int8] if c.form == args.form)
    ours = Ours(integers(model, device), lattice)
    calls = [ours.call(p, config) for p in (0, 1)]

    def both() -> None:
        for call in calls:
            call()

    if args.once:
        both()
        clock.wait()
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    expected = [k for p in (0, 1) for k in work(ours.net, lattice, p, config)]
    us = trace(both, args.out / "trace.json", clock.cuda)
    tops = ceilings(clock) if clock.cuda else ceilings(clock, 1 << 20, 64)
    found = timed(expected, us, tops, torch.int8) if us else expected
    title = "{}, {} x {}x{}, {}; {}".format(model.name, args.batch, *args.picture, config, named)
    plot(found, tops, torch.int8, title, args.out / "roofline.png")
    with open(args.out / "kernels.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(found[0])))
        writer.writeheader()
        writer.writerows(asdict(k) for k in found)
    print(title)
    for k in found:
        took = f"{k.us:9.1f} us {100 * k.share:5.1f} % of the roofline" if k.us else "not timed"
        print(f"  {k.name:16} {k.bytes / 1e6:9.2f} MB {k.ops / 1e9:9.2f} Gop  {took}")
    print(f"{args.out}: trace.json, kernels.csv, roofline.png")
    save(str(args.out / "rows.json"), [asdict(k) for k in found])
    if clock.cuda:
        nsight(args.out, args)
    else:
        print("no GPU: nothing was timed, and ncu was not run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
