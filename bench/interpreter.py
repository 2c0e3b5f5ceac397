"""What the interpreter takes of a picture in a batch: `python -m bench.run interpreter`, microseconds.

decode_iter over copies of one small stream, 64x64, with all networks replaced by nothing and the entropy coder by an
empty one: what is left is iterating, planning, headers, buffers, tensors, results. By the clock of the whole process,
since what one thread of it does in Python no other can do meanwhile. Beside it the first steps of the plain decoder,
the coder's batches by themselves, and what a launch costs the host before a kernel is asked for: as plain tensors go,
and through PyTorch's dispatcher.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

import ckbd
from bench.common import save
from ckbd import _rans, kernels
from ckbd.codec import machine, zone
from ckbd.codec.decoder import Decoder
from ckbd.kernels import ops
from ckbd.pipeline import render
from ckbd.pipeline.pixels import Form

COUNT = 4096
Batch = _rans.Batch


class NoZone:
    """Networks that give the same of everything, at once."""

    ragged, most_side, phases = True, None, 2

    def __init__(self, M: int):
        self.M = M
        self.k = self.r = torch.zeros(0)
        self.y = torch.zeros(0)

    def begin(self, z, quality):
        return [(z.shape[1], z.shape[2])] * len(z)

    def begin_rows(self, z, quality, sizes):
        return list(sizes)

    def phase(self, state, p):
        count = sum(8 * h * w for h, w in state) * self.M
        if self.k.numel() < count:
            self.k, self.r = torch.zeros(count, dtype=torch.uint8), torch.zeros(count, dtype=torch.int16)
        return self.k[:count]

    def room(self, state, p):
        return self.r[: sum(8 * h * w for h, w in state) * self.M]

    def assemble(self, state, p, r):
        pass

    def latents(self, state):
        self.y = self.y if self.y.numel() else torch.zeros(1, self.M, 4, 4)
        return [self.y] * len(state)


class NoPixels:
    """g_s that gives the same picture of everything."""

    dtype = torch.float32

    def __init__(self):
        self.each, self.device = machine.in_turn, torch.device("cpu")
        self.x = torch.zeros(1, 3, 64, 64)

    def g_s(self, y_hat, headers):
        yield (0, 0), self.x.expand(len(headers), -1, -1, -1)


class NoCoder:
    """_rans.Batch without its symbols: headers are read and checked."""

    def __init__(self, *args, **options):
        self.real = Batch(*args, **options)
        self.headers, self.errors = self.real.headers, self.real.errors

    def z(self, out, **_):
        pass

    def phase(self, k, out, **_):
        return b"", b""

    def finish(self):
        pass


def interpreter(args: argparse.Namespace) -> list[dict]:
    codec = ckbd.load(args.model, threads=1)
    d = codec.decoder
    rng = np.random.default_rng(0)
    (stream,) = codec.encode([rng.integers(0, 256, (64, 64, 3), np.uint8)], 10.0)
    empty = Decoder(
        d.model,
        NoZone(d.model.config.M),  # type: ignore[arg-type]
        d.tables,
        device=d.device,
        team=d.team,
        max_pixels=d.max_pixels,
    )
    empty.renderer = NoPixels()  # type: ignore[assignment]
    other = ckbd.Codec(codec.encoder, empty, d.team, d.device)
    streams = [stream] * (256 if args.quick else COUNT)
    rows = []
    for size in args.batches or (1, 8, 64, 256):
        for kind in ("cpu", "cuda"):

            def iterate(size=size) -> None:
                for _ in other.decode_iter(streams, batch_count=size):
                    pass

            with ExitStack() as stack:
                # The device's own work, and what is done on a GPU: pictures of one size go together.
                stack.enter_context(mock.patch.object(_rans, "Batch", NoCoder))
                stack.enter_context(mock.patch.object(torch.Tensor, "copy_", lambda self, *_: self))
                stack.enter_context(mock.patch.object(Form, "pixels", lambda self, x_hat, gray: x_hat))
                if kind == "cuda":
                    stack.enter_context(mock.patch.object(render, "apart", lambda device: False))
                us = microseconds(iterate, len(streams), args)
            rows.append({"impl": "decode_iter", "plan": kind, "batch": size, "us": us})
            print(f"batch {size:4} decode_iter, as on {kind:4} {us:8.2f} us a picture", flush=True)

    def steps() -> None:
        for s in streams:
            parsed = d.parse(s)
            d.open([parsed])

    rows.append({"impl": "parse, open", "plan": "cpu", "batch": 1, "us": microseconds(steps, len(streams), args)})
    print(f"the plain decoder's first steps, parse and open {rows[-1]['us']:8.2f} us a picture")
    rows += coder(d, stream, args) + launches(d, args)
    save(args.json, rows)
    return rows


def coder(d: Decoder, stream: bytes, args: argparse.Namespace) -> list[dict]:
    """Of _rans.Batch: opening 64 copies of a stream on one thread, and all calls of a batch that has none."""
    options = {"model": d.model.identity, "channels": d.model.config.M, "max_pixels": d.max_pixels, "threads": 1}
    headers, z, k, r = (np.zeros(shape, t) for shape, t in (((0, 8), np.int64), (0, "i2"), (0, "u1"), (0, "i1")))

    def every_call() -> None:
        batch = Batch(d.tables, [], **options)
        batch.headers(headers)
        batch.z(z)
        for _ in range(2):
            batch.phase(k, r)
        batch.finish()
        batch.errors()

    opening = microseconds(lambda: Batch(d.tables, [stream] * 64, **options), 64, args, 50)
    found = {
        f"_rans.Batch opens {len(stream)} B": opening,
        "_rans.Batch of none": microseconds(every_call, 1, args, 400),
    }
    for name, us in found.items():
        print(f"{name:28} {us:8.2f} us", flush=True)
    return [{"impl": name, "plan": "cpu", "batch": 64, "us": us} for name, us in found.items()]


def launches(d: Decoder, args: argparse.Namespace) -> list[dict]:
    """What a launch of `phase` and `assemble` costs the host, their launchers being nothing."""
    net = zone.Kernels(d.model.layers, d.device, backend="torch").network
    nothing = SimpleNamespace(phase=lambda *_: None, assemble=lambda *_: None)
    rows = []
    for pictures in (1, 64):
        for way in ("plain", "dispatcher"):
            with ExitStack() as stack:
                stack.enter_context(mock.patch.object(ops, "resolve", lambda backend, device: "triton"))
                stack.enter_context(mock.patch.object(ops, "_launch", lambda: nothing))
                stack.enter_context(mock.patch.object(ops, "_module", lambda backend, device: nothing))
                if way == "dispatcher":
                    stack.enter_context(mock.patch.object(torch.compiler, "is_compiling", lambda: True))
                for name, call in calls_of(net, kernels.Lattice(((32, 48),) * pictures)).items():
                    us = microseconds(call, 1, args, 400)
                    rows.append({"impl": f"{name}, {way}", "plan": "cuda", "batch": pictures, "us": us})
                    print(f"batch {pictures:4} {rows[-1]['impl']:20} {us:8.2f} us a launch", flush=True)
    return rows


def calls_of(net: kernels.Network, lattice: kernels.Lattice) -> dict[str, Callable[[], object]]:
    shape = (lattice.sites, net.M)
    mean, k = torch.empty(shape, dtype=torch.int16), torch.empty(shape, dtype=torch.uint8)
    psi = torch.empty((lattice.sites, net.hidden[0].shape[1]), dtype=torch.int32)
    context, full = torch.empty(shape, dtype=torch.int8), torch.empty((lattice.full_sites, net.M))
    return {
        "phase": lambda: kernels.phase(psi, context, net, lattice, out=(mean, k), backend="triton"),
        "assemble": lambda: kernels.assemble(mean, mean, lattice, 0, full, context, backend="triton"),
    }


def microseconds(call: Callable[[], object], count: int, args: argparse.Namespace, repeat: int = 1) -> float:
    """Processor time of this process a picture (`count` of them in a call), the median of some runs of some calls."""
    taken = []
    for _ in range(3 if args.quick else 9):
        start = time.process_time()
        for _ in range(repeat):
            call()
        taken.append(1e6 * (time.process_time() - start) / (count * repeat))
    return statistics.median(taken)
