"""CompressAI's models as they are and on ckbd's entropy path, in the same run: `python -m bench.run compressai`.

Weights are random, stretched until latents spread as trained ones do (bench/rivals/compressai.py). Modes: "stock";
"install"; "accelerate" is install() and accelerate(model); "fused" is install() and
accelerate(model, parameters="fused", serial="wavefront"); of serial models also "sparse", with serial="sparse". They
take turns, call by call. A stage "... path" is a call
without the time spent in g_a, h_a, h_s and g_s: context, parameters, indexes, coding. Before anything is timed, the
first three must write the same bytes and read the same pictures, and the others come within 0.1 % of their size. On a
CPU the rows of compat-coder come first.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time

import torch
from torch import Tensor, nn

from bench import compat_coder
from bench.gpu.inputs import need_cuda
from bench.rivals.compressai import build, calibrated, need_compressai, nested_bytes, shifted
from ckbd.codec.networks import tensors

# Registered name -> widths: those of the papers' lower rates, or the only ones there are.
MODELS = {
    "bmshj2018-hyperprior": {"N": 128, "M": 192},
    "mbt2018-mean": {"N": 128, "M": 192},
    "cheng2020-anchor-checkerboard": {"N": 192},
    "elic2022-official": {"N": 192, "M": 320},
    "mbt2018": {"N": 192, "M": 192},
    "cheng2020-anchor": {"N": 192},
}
SERIAL = ("mbt2018", "cheng2020-anchor")
SETTINGS = {
    "stock": None,
    "install": {},
    "accelerate": {"parameters": "stock", "serial": "stock"},
    "sparse": {"serial": "sparse"},
    "fused": {"parameters": "fused", "serial": "wavefront"},
}
TRANSFORMS = ("g_a", "h_a", "h_s", "g_s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("compressai")
    group.add_argument("--compressai-models", nargs="*", default=list(MODELS), metavar="NAME", choices=MODELS)
    group.add_argument("--serial-runs", type=int, default=3, help="of models that CompressAI decodes serially")


def compat(args: argparse.Namespace) -> list[dict]:
    need_compressai()
    from bench.common import load_pictures, save

    torch.set_num_threads(args.threads)
    device = need_cuda(args.device or "cpu")
    x = tensors.to_tensor(load_pictures(args.images)[:1]).float()
    width, height = args.pictures[0] if args.pictures else (x.shape[3], x.shape[2])
    x = x[..., : min(height, x.shape[2]) // 64 * 64, : min(width, x.shape[3]) // 64 * 64]
    rows = []
    with torch.no_grad():
        if device.type == "cpu":
            rows += compat_coder.compat_coder(args)
        for name in args.compressai_models:
            torch.manual_seed(0)
            model = calibrated(build(name, **MODELS[name]), x).to(device)
            for batch in args.batches or [1]:
                pictures = shifted(x, batch).to(device)
                runs = args.serial_runs if name in SERIAL else args.runs
                if name in SERIAL and batch > 1:
                    continue  # one after the other, as CompressAI does it
                rows += model_rows(name, model, pictures, runs)
                save(args.json, rows)
    return rows


@contextlib.contextmanager
def mode_of(mode: str, model: nn.Module | None = None):
    """CompressAI in one of the modes, and afterwards as it is."""
    import ckbd.compat.compressai as cc

    settings = SETTINGS[mode]
    if settings is not None:
        cc.install()
        if settings and model is not None and _accelerates(model):
            cc.accelerate(model, **settings)
    try:
        yield
    finally:
        cc.uninstall()
        if model is not None:
            cc.restore(model)


def _accelerates(model: nn.Module) -> bool:
    from compressai.latent_codecs import CheckerboardLatentCodec, RasterScanLatentCodec
    from compressai.models import JointAutoregressiveHierarchicalPriors

    kinds = (CheckerboardLatentCodec, RasterScanLatentCodec, JointAutoregressiveHierarchicalPriors)
    return any(isinstance(m, kinds) for m in model.modules())


class Spent:
    """Seconds of the calls of a model's transforms, since reset()."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device, self.total, self._start = device, 0.0, 0.0
        hosts = [model, model.latent_codec["hyper"]] if hasattr(model, "latent_codec") else [model]
        for module in (getattr(host, name) for host in hosts for name in TRANSFORMS if hasattr(host, name)):
            module.register_forward_pre_hook(self._begin)
            module.register_forward_hook(self._end)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _begin(self, *_) -> None:
        self._start = self.now()

    def _end(self, *_) -> None:
        self.total += self.now() - self._start


def model_rows(name: str, model: nn.Module, x: Tensor, runs: int) -> list[dict]:
    """Times compress and decompress of a batch in all modes, in turn."""
    modes = [m for m in SETTINGS if not SETTINGS[m] or (_accelerates(model) and (m != "sparse" or name in SERIAL))]
    spent = Spent(model, x.device)
    written, read, samples = {}, {}, {}
    for run in range(runs + 2):  # two to warm up: accelerate() watches a shape once before it trusts it
        for mode in modes:
            with mode_of(mode, model):
                for stage in ("compress", "decompress"):
                    spent.total, start = 0.0, spent.now()
                    if stage == "compress":
                        out = model.compress(x)
                    else:
                        x_hat = model.decompress(out["strings"], out["shape"])["x_hat"]
                    took = spent.now() - start
                    if run >= 2 or (name in SERIAL and run >= 1):
                        samples.setdefault((stage, mode), []).append(took)
                        samples.setdefault((f"{stage} path", mode), []).append(took - spent.total)
            if run == 0:
                written[mode], read[mode] = out["strings"], x_hat
        if run == 0:
            _check(model, modes, written, read)
        if name in SERIAL and run == runs:
            break
    sizes = {mode: nested_bytes(strings) for mode, strings in written.items()}
    rows = [
        {
            "model": name,
            "batch": len(x),
            "stage": stage,
            "mode": mode,
            "ms": 1e3 * statistics.median(taken),
            "threads": torch.get_num_threads(),
            "bytes": sizes[mode],
            "runs": len(taken),
        }
        for (stage, mode), taken in samples.items()
    ]
    show(rows)
    return rows


def _check(model: nn.Module, modes: list[str], written: dict, read: dict) -> None:
    for mode in modes:
        size, stock = nested_bytes(written[mode]), nested_bytes(written["stock"])
        if mode in ("fused", "sparse"):
            if abs(size / stock - 1) > 1e-3:
                raise RuntimeError(f"{mode}: {size} B, stock {stock} B")
        elif written[mode] != written["stock"] or not torch.equal(read[mode], read["stock"]):
            raise RuntimeError(f"{mode}: other bytes or another picture than stock")


def show(rows: list[dict]) -> None:
    """A table: stages down, modes across, with how many times as fast as stock."""
    first = rows[0]
    modes = [m for m in SETTINGS if any(r["mode"] == m for r in rows)]
    print(f"\n{first['model']}, batch {first['batch']}, {first['threads']} threads, {first['runs']} runs, ms")
    for stage in dict.fromkeys(r["stage"] for r in rows):
        ms = {r["mode"]: r["ms"] for r in rows if r["stage"] == stage}
        cells = (f"{m} {ms[m]:.2f}" + ("" if m == "stock" else f" ({ms['stock'] / ms[m]:.2f} x)") for m in modes)
        print(f"  {stage:16}" + "  ".join(cells), flush=True)
    print("  bytes           " + ", ".join(dict.fromkeys(f"{r['mode']} {r['bytes']}" for r in rows)), flush=True)
