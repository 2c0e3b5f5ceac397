"""GaussianConditional.compress and decompress of CompressAI, stock against install(), and the coder beneath.

`python -m bench.run compat-coder`, in an environment that has CompressAI (`make compat`). One thread. 300,000
latents by tables of CompressAI's 64 scales, means included. A channel's scale is log-uniform over a range, and within
a channel scales vary by half a unit of their logarithm. Stock and ours take turns; times are medians, and "ratio" is
that of medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from bench.rivals.compressai import need_compressai
from ckbd import _ans

SHAPE = (1, 200, 30, 50)
# Range of a channel's scale. Trained models at 0.2 to 1 bit a pixel are between the first two.
WORKLOADS = {"low rate": (0.02, 1.5), "middle": (0.05, 3.0), "high": (0.15, 12.0), "all scales": (0.11, 256.0)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stock-runs", type=int, default=9, help="compat-coder: turns of CompressAI's own coder")


def compat_coder(args: argparse.Namespace) -> list[dict]:
    """Rows {"model", "batch", "stage", "mode", "ms", "threads", "bytes", "workload", "symbols"}; install has "ratio".

    Stages encode and decode are ckbd._ans alone, of arrays that are ready; they have "ns_per_symbol" and the minimum.
    """
    need_compressai()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for name, scales in WORKLOADS.items():
        rows += _models(name, *scales, args.stock_runs) + _arrays(name, *scales, args.runs)
    torch.set_num_threads(threads)
    return rows


def _row(name: str, stage: str, mode: str, spent: list[float], symbols: int, size: int) -> dict:
    row = {"model": "GaussianConditional", "batch": 1, "stage": stage, "mode": mode, "ms": statistics.median(spent)}
    return row | {"threads": 1, "bytes": size, "workload": name, "symbols": symbols}


def _workload(low: float, high: float):
    """(entropy model, latents, indexes, means)."""
    from compressai.entropy_models import GaussianConditional
    from compressai.models.base import get_scale_table

    generator = torch.Generator().manual_seed(0)
    model = GaussianConditional(get_scale_table().tolist())
    model.update()
    spread = low * (high / low) ** torch.rand((SHAPE[1], 1, 1), generator=generator)
    scales = spread * torch.exp(0.5 * torch.randn(SHAPE, generator=generator))
    means = spread * torch.randn(SHAPE, generator=generator)
    latents = means + scales * torch.randn(SHAPE, generator=generator)
    return model, latents, model.build_indexes(scales), means


def _models(name: str, low: float, high: float, runs: int) -> list[dict]:
    import ckbd.compat.compressai as cc

    model, latents, indexes, means = _workload(low, high)
    ms: dict[tuple[str, str], list[float]] = {}
    results = {}
    for turn in range(runs + 1):
        for mode, repeats in (("stock", 1), ("install", 9)):
            (cc.install if mode == "install" else cc.uninstall)()
            for _ in range(repeats):
                start = time.perf_counter()
                strings = model.compress(latents, indexes, means)
                middle = time.perf_counter()
                values = model.decompress(strings, indexes, means=means)
                end = time.perf_counter()
                if turn > 0:
                    for stage, spent in (("compress", middle - start), ("decompress", end - middle)):
                        ms.setdefault((stage, mode), []).append(1e3 * spent)
            results[mode] = strings, values
    cc.uninstall()
    if results["stock"][0] != results["install"][0] or not torch.equal(results["stock"][1], results["install"][1]):
        raise RuntimeError(f"{name}: install() has changed strings or values")
    for mode in ("stock", "install"):
        ms["both", mode] = [a + b for a, b in zip(ms["compress", mode], ms["decompress", mode], strict=True)]
    size, rows = len(results["stock"][0][0]), []
    for (stage, mode), spent in ms.items():
        row = _row(name, stage, mode, spent, latents.numel(), size)
        if mode == "install":
            row["ratio"] = statistics.median(ms[stage, "stock"]) / row["ms"]
            print(
                f"{name:10} {8 * size / latents.numel():.2f} bits a symbol, {stage:10}: stock "
                f"{statistics.median(ms[stage, 'stock']):7.1f} ms, install {row['ms']:5.2f} ms, {row['ratio']:.1f} x"
            )
        rows.append(row)
    return rows


def _arrays(name: str, low: float, high: float, runs: int) -> list[dict]:
    from ckbd.compat.compressai import entropy

    model, latents, indexes, means = _workload(low, high)
    tables = entropy.tables_of(model)
    symbols, indexes = torch.round(latents - means).int().view(-1).numpy(), indexes.view(-1).numpy()
    out = np.empty_like(symbols)
    stream = _ans.encode(tables, symbols, indexes)
    calls = {
        "encode": lambda: _ans.encode(tables, symbols, indexes),
        "decode": lambda: _ans.decode(tables, stream, indexes, out),
    }
    rows = []
    for stage, call in calls.items():
        spent = []
        for _ in range(3 * runs):
            start = time.perf_counter()
            call()
            spent.append(1e3 * (time.perf_counter() - start))
        per_symbol = 1e6 * statistics.median(spent) / len(symbols)
        row = _row(name, stage, "arrays", spent, len(symbols), len(stream))
        rows.append(row | {"ns_per_symbol": per_symbol, "least_ns_per_symbol": 1e6 * min(spent) / len(symbols)})
        least = rows[-1]["least_ns_per_symbol"]
        print(f"{name:10} {stage} of arrays: {per_symbol:.2f} ns a symbol, at least {least:.2f}")
    if not np.array_equal(out, symbols):
        raise RuntimeError(f"{name}: what was decoded is not what was encoded")
    return rows
