"""Matrix products of a CPU on one thread: `python -m bench.run products`, 10^9 operations a second.

The shapes of the exact zone and of g_s, by PyTorch's own choice (MKL on x86) and by ckbd.kernels.products, which does
them in float32, bfloat16 and eight bits, in turn.
"""

from __future__ import annotations

import argparse
import statistics

import torch
import torch.nn.functional as F

from bench.common import save
from bench.gpu.device import Clock
from ckbd.codec import machine
from ckbd.kernels import products

SHAPES = (
    (512, 3072, 256),
    (512, 256, 512),
    (96, 585, 384),
    (1536, 256, 512),
    (16, 256, 256),
)  # rows, inputs, outputs


def products_case(args: argparse.Namespace) -> list[dict]:
    """Rows for --json."""
    clock, rows = Clock(torch.device("cpu")), []
    with machine.alone(), torch.inference_mode():
        for shape in SHAPES:
            n, inputs, outputs = shape
            x = torch.randint(-127, 128, (n, inputs)).float()
            weight = torch.randint(-127, 128, (outputs, inputs)).float()
            if not torch.equal(F.linear(x, weight), products.linear(x, weight)):
                raise RuntimeError(f"{shape}: products of integers differ")
            ways = {"PyTorch": (F.linear, x, weight), "ckbd": (products.linear, x, weight)}
            if products.gain(torch.bfloat16):
                ways["bfloat16"] = products.linear, x.bfloat16(), weight.bfloat16()
            if products.reach([(inputs, outputs)]):
                ways["eight bits"] = products.integers, x.abs().to(torch.uint8), weight.to(torch.int8)
            taken = clock.turns(
                {name: lambda call=call, x=x, w=w: call(x, w) for name, (call, x, w) in ways.items()},
                5 if args.quick else 30,
            )
            for name, us in taken.items():
                rate = 2e-3 * n * inputs * outputs / statistics.median(us)
                rows.append({"rows": n, "inputs": inputs, "outputs": outputs, "impl": name, "gops": rate})
                print(f"{n} x {inputs} x {outputs} {name:10} {rate:6.0f} G/s", flush=True)
    save(args.json, rows)
    return rows
