"""Batches of whole pictures, both ways: `python -m bench.run batch`, pictures a second (bench/ways.py says of what).

A batch repeats the pictures given until it is full. Implementations take turns; times are from a call to the device's
standstill. Before that, ours must give on the device the latents that it gives on the CPU. On a CPU all is done once
on a quiet machine and once beside as many busy processes as there are processors (--busy). "stages" are milliseconds
of a run of its own, in which the device comes to rest after each. "left_out" stands instead of figures, where a rival
has none, and says why.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence

import numpy as np
import torch

import ckbd
from bench import ways
from bench.busy import busy
from bench.common import cut, load_pictures, save, stages_of
from bench.gpu.device import Clock, device_name
from bench.gpu.inputs import need_cuda
from bench.synthesis import in_kernels
from bench.ways import Way, repeated
from ckbd.codec import image

BATCHES = (1, 8, 64, 256)
QUALITY = 50.0
QUICK_RUNS = 3
SECONDS = 2.0  # after which no further run of an implementation is begun


def batch(args: argparse.Namespace) -> list[dict]:
    """Rows for --json, written as they come; bytes are those of the whole batch."""
    device = need_cuda(args.device or "cpu")
    clock, named = Clock(device), device_name(device)
    given = [cut(p, args.pictures and args.pictures[0]) for p in load_pictures(args.images)]
    codec = ckbd.load(args.model, device=device, threads=args.threads)
    streams = codec.encode(given, QUALITY)
    check_latents(codec, streams, args)
    ours = qualities(codec, given, streams)
    tensors = codec.decode_tensors(streams, layout="HWC")
    of_tensors = [image.psnr(p.rgb, x.cpu().numpy()) for p, x in zip(given, tensors, strict=True)]
    other = in_kernels(codec, torch.float16) if clock.cuda else None  # twins would take a CPU long
    of_other = qualities(other, given, streams) if other is not None else []
    lacking: dict[str, str] = {}  # rival -> why there is none here
    # Finding a quality costs WebP and AVIF minutes of a processor, which a GPU would wait for.
    names = ("JPEG",) if clock.cuda else tuple(ways.FILES)
    files = rival_files(names, [p.rgb for p in given], ours, lacking) if args.rivals else {}
    compressai = ways.public_model(given, device, lacking) if args.rivals else None
    sizes = {(p.width, p.height) for p in given}
    where = {"set": "{}x{}".format(*next(iter(sizes))) if len(sizes) == 1 else "mixed", "device": named}
    print(f"{named}; {len(given)} pictures ({where['set']}), quality {QUALITY:g}, {statistics.mean(ours):.2f} dB")
    rows: list[dict] = []
    for size in args.batches or BATCHES:
        pictures, batch_of = repeated(given, size), repeated(streams, size)
        psnr, others_psnr = (statistics.mean(repeated(values, size)) for values in (ours, of_tensors))
        decoding, left_out = ways.decoding(codec, batch_of, psnr, others_psnr), dict(lacking)
        encoding = ways.encoding(codec, pictures, QUALITY)
        if other is not None:
            more = ways.kernels(other, batch_of, statistics.mean(repeated(of_other, size)), pictures, QUALITY)
            decoding, encoding = decoding | more[0], encoding | more[1]
        if not clock.cuda:
            decoding["ours, OpenMP"] = ways.openmp(codec, batch_of, psnr)
        for name, made in files.items():
            these = repeated(made, size)
            ways.add(decoding, left_out, name, ways.pillow_decoding, these, args.threads)
            ways.add(encoding, left_out, name, ways.pillow_encoding, these, pictures, args.threads)
            if clock.cuda and name == "JPEG":
                ways.add(decoding, left_out, "nvJPEG", ways.nvjpeg, these, device)
        if compressai and size <= ways.COMPRESSAI_BATCH:
            ways.add(decoding, left_out, "CompressAI", ways.public, *compressai, size, device)
        split = {name: 1e3 * s for name, s in stages_of(codec, batch_of, clock.wait).items() if name != "total"}
        pixels = sum(p.width * p.height for p in pictures)
        for others in args.busy if args.busy is not None else ((0,) if clock.cuda else (0, os.cpu_count() or 1)):
            for direction, these in (("decode", decoding), ("encode", encoding)):
                at = where | {"direction": direction, "batch": size, "busy_processes": others}
                missing: dict[str, str] = left_out if direction == "decode" else {}
                with busy(others):
                    seconds = in_turn(these, missing, clock, QUICK_RUNS if args.quick else args.runs)
                for name, taken in seconds.items():
                    row = at | {"impl": name} | row_of(these[name], taken, pixels)
                    stages = {"stages": split} if name == "ours" and direction == "decode" and not others else {}
                    rows.append(row | stages)
                    print(line(rows[-1]), flush=True)
                for name, why in missing.items():
                    rows.append(at | {"impl": name, "left_out": why})
                    print(f"batch {size:4} {name:14} left out: {why}")
            save(args.json, rows)
        print(f"batch {size:4} stages, ms: " + ", ".join(f"{n} {ms:.2f}" for n, ms in split.items()), flush=True)
    return rows


def qualities(codec: ckbd.Codec, given: list[image.Picture], streams: list[bytes]) -> list[float]:
    """PSNR of what a codec decodes."""
    return [image.psnr(p.rgb, q.rgb) for p, q in zip(given, codec.decode_pictures(streams), strict=True)]


def row_of(way: Way, taken: list[float], pixels: int) -> dict:
    """taken: seconds of each run. pixels: of the whole batch, of which a way may take a part."""
    middle = statistics.median(taken)
    speed = {"pictures_s": way.count / middle, "gpixel_s": pixels / middle / 1e9}
    row = speed | {"bytes": way.nbytes, "psnr": way.psnr, "ms": 1e3 * middle, "runs": len(taken)}
    return row | ({"device": way.device} if way.device else {})


def line(row: dict) -> str:
    busy_too = f", {row['busy_processes']} busy" if row["busy_processes"] else ""
    return (
        f"batch {row['batch']:4} {row['direction']}{busy_too} {row['impl']:14} {row['pictures_s']:9.1f} pictures/s "
        f"{row['ms']:9.2f} ms {row['bytes'] / row['batch']:9.0f} B a picture"
    )


def rival_files(
    names: Sequence[str], rgb: list[np.ndarray], least: list[float], lacking: dict[str, str]
) -> dict[str, list[ways.File]]:
    """{rival: its file of each picture}; a rival without them is in lacking."""
    found: dict[str, list[ways.File]] = {}
    for name in names:
        try:
            found[name] = [ways.file_of_psnr(ways.FILES[name], one, db) for one, db in zip(rgb, least, strict=True)]
        except Exception as error:
            lacking[name] = repr(error)
    return found


def check_latents(codec: ckbd.Codec, streams: list[bytes], args: argparse.Namespace) -> None:
    """RuntimeError unless the device's latents are the CPU's, singly and as a batch."""
    plain = ckbd.load(args.model, threads=args.threads)
    want = plain.decode_latents(streams)
    if not all(np.array_equal(a, b) for a, b in zip(want, codec.decode_latents(streams), strict=True)):
        raise RuntimeError("the device's latents are not the CPU's, so nothing is timed")
    decoder = codec.decoder
    for group in ways.grouped(codec, streams):
        together = decoder.latents([decoder.parse(streams[i]) for i in group]).to(torch.int16).cpu().numpy()
        if not all(np.array_equal(want[i], y_hat) for i, y_hat in zip(group, together, strict=True)):
            raise RuntimeError("the latents of a batch are not those of its streams, so nothing is timed")


def in_turn(these: dict[str, Way], left_out: dict[str, str], clock: Clock, runs: int) -> dict[str, list[float]]:
    """Seconds of each way's runs after one to warm up; whoever has had SECONDS of them is not asked again. What the
    device has no memory for goes to left_out.
    """
    samples: dict[str, list[float]] = {}
    for name in these:
        try:
            clock.first(these[name].call)
            samples[name] = []
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            left_out[name] = "out of memory"
    names = list(samples)
    for run in range(runs):
        for turn in range(len(names)):
            taken = samples[names[(run + turn) % len(names)]]
            if sum(taken) < SECONDS:
                taken.append(clock.first(these[names[(run + turn) % len(names)]].call) / 1e3)
    return samples
