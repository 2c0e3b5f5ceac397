"""Batches of whole pictures, from bytes to pixels: `python -m bench.run batch`, pictures a second.

ours            Codec.decode_pictures, as it is; pixels end on the host
ours, latents   without g_s: parsing, the coder, the exact zone; latents stay on the device
ours, g_s       the rest of the networks alone, latents ready: no decoder of this model can be faster
nvJPEG          torchvision.io.decode_jpeg on the GPU: pixels stay there
JPEG, Pillow    libjpeg-turbo on as many threads as there are
CompressAI      cheng2020-anchor-checkerboard, N = 192, random weights (bench/rivals/compressai.py): decompress

JPEGs are those of the same pictures with at least the PSNR that ours have, at the smallest such quality, 4:2:0 where
that reaches it and 4:4:4 otherwise. A batch repeats the pictures given until it is full. Implementations take turns;
times are from a call to the device's standstill. Before that, ours must give on the device the latents that it gives
on the CPU. "stages" are milliseconds of a run of its own, in which the device comes to rest after each. "left_out"
stands instead of figures, where a rival has none, and says why.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

import ckbd
from bench.common import cut, load_pictures, save, stages_of
from bench.gpu.device import Clock, device_name
from bench.gpu.inputs import need_cuda
from bench.rivals.compressai import build, calibrated, import_compressai, nested_bytes, shifted
from ckbd.codec import batches, image
from ckbd.codec.image import Picture
from ckbd.evaluation import rivals

BATCHES = (1, 8, 64, 256)
QUALITY = 50.0
QUICK_RUNS = 3
SECONDS = 2.0  # after which no further run of an implementation is begun
COMPRESSAI_BATCH = 16  # at most: it takes a batch's pictures one after the other where it codes


@dataclass
class Way:
    """One implementation: call decodes `count` pictures, which came as so many bytes. device: its own, if another."""

    call: Callable[[], object]
    count: int
    nbytes: int
    psnr: float | None = None
    device: str | None = None


def batch(args: argparse.Namespace) -> list[dict]:
    """Rows for --json, written as they come; bytes are those of the whole batch."""
    device = need_cuda(args.device or "cpu")
    clock, named = Clock(device), device_name(device)
    given = [cut(p, args.pictures and args.pictures[0]) for p in load_pictures(args.images)]
    codec = ckbd.load(args.model, device=device, threads=args.threads)
    streams = codec.encode(given, QUALITY)
    check_latents(codec, streams, args)
    ours = [image.psnr(p.rgb, q.rgb) for p, q in zip(given, codec.decode_pictures(streams), strict=True)]
    jpegs = [jpeg_of_psnr(p.rgb, least) for p, least in zip(given, ours, strict=True)]
    theirs = [image.psnr(p.rgb, rivals.decode(j)) for p, j in zip(given, jpegs, strict=True)]
    sizes = {(p.width, p.height) for p in given}
    where = {"set": "{}x{}".format(*next(iter(sizes))) if len(sizes) == 1 else "mixed", "direction": "decode"}
    print(f"{named}; {len(given)} pictures ({where['set']}), quality {QUALITY:g}, {statistics.mean(ours):.2f} dB")
    rows: list[dict] = []
    lacking: dict[str, str] = {}  # rival -> why there is none here
    compressai = public_model(given, device, lacking) if args.rivals else None
    for size in args.batches or BATCHES:
        batch_of = repeated(streams, size)
        ways, left_out = ours_at(codec, batch_of, statistics.mean(repeated(ours, size))), dict(lacking)
        if args.rivals:
            psnr = statistics.mean(repeated(theirs, size))
            add(ways, left_out, "JPEG, Pillow", pillow, repeated(jpegs, size), args.threads, psnr)
            if clock.cuda:
                add(ways, left_out, "nvJPEG", nvjpeg, repeated(jpegs, size), device, psnr)
            if compressai and size <= COMPRESSAI_BATCH:
                add(ways, left_out, "CompressAI", public, *compressai, size, device)
        seconds = in_turn(ways, left_out, clock, QUICK_RUNS if args.quick else args.runs)
        split = {name: 1e3 * s for name, s in stages_of(codec, batch_of, clock.wait).items() if name != "total"}
        pixels = sum(p.width * p.height for p in repeated(given, size))
        for name, taken in seconds.items():
            row = where | {"batch": size, "impl": name, "device": named} | row_of(ways[name], taken, pixels)
            rows.append(row | ({"stages": split} if name == "ours" else {}))
            print(
                f"batch {size:4} {name:14} {row['pictures_s']:9.1f} pictures/s {row['ms']:9.2f} ms "
                f"{row['bytes'] / size:9.0f} B a picture",
                flush=True,
            )
        for name, why in left_out.items():
            rows.append(where | {"batch": size, "impl": name, "device": named, "left_out": why})
            print(f"batch {size:4} {name:14} left out: {why}")
        print(f"batch {size:4} stages, ms: " + ", ".join(f"{n} {ms:.2f}" for n, ms in split.items()), flush=True)
        save(args.json, rows)
    return rows


def row_of(way: Way, taken: list[float], pixels: int) -> dict:
    """taken: seconds of each run. pixels: of the whole batch."""
    middle = statistics.median(taken)
    speed = {"pictures_s": way.count / middle, "gpixel_s": pixels / middle / 1e9}
    row = speed | {"bytes": way.nbytes, "psnr": way.psnr, "ms": 1e3 * middle, "runs": len(taken), "busy_processes": 0}
    return row | ({"device": way.device} if way.device else {})


def repeated(items: Sequence, count: int) -> list:
    return [items[i % len(items)] for i in range(count)]


def check_latents(codec: ckbd.Codec, streams: list[bytes], args: argparse.Namespace) -> None:
    """RuntimeError unless the device's latents are the CPU's, singly and as a batch."""
    plain = ckbd.load(args.model, threads=args.threads)
    want = plain.decode_latents(streams)
    if not all(np.array_equal(a, b) for a, b in zip(want, codec.decode_latents(streams), strict=True)):
        raise RuntimeError("the device's latents are not the CPU's, so nothing is timed")
    decoder = codec.decoder
    for group in grouped(codec, streams):
        together = decoder.latents([decoder.parse(streams[i]) for i in group]).to(torch.int16).cpu().numpy()
        if not all(np.array_equal(want[i], y_hat) for i, y_hat in zip(group, together, strict=True)):
            raise RuntimeError("the latents of a batch are not those of its streams, so nothing is timed")


def grouped(codec: ckbd.Codec, streams: list[bytes]) -> list[list[int]]:
    sizes = [(s.header.height, s.header.width) for s in codec.decoder.parse_all(streams)]
    return batches.groups(sizes, batches.most_pixels(codec.decoder.device))


def jpeg_of_psnr(rgb: np.ndarray, least: float) -> bytes:
    """A JPEG of rgb of at least that many dB, of the lowest quality that has them."""
    for name in ("jpeg-420", "jpeg-444"):
        low, high = 0, 101  # qualities up to low miss it, those from high on have it
        found: dict[int, bytes] = {}
        while high - low > 1:
            middle = (low + high) // 2
            found[middle] = rivals.RIVALS[name].encode(rgb, middle)
            if image.psnr(rgb, rivals.decode(found[middle])) >= least:
                high = middle
            else:
                low = middle
        if high <= 100:
            return found[high]
    raise RuntimeError(f"no JPEG of this picture has {least:.2f} dB")


def ours_at(codec: ckbd.Codec, streams: list[bytes], psnr: float) -> dict[str, Way]:
    decoder, groups = codec.decoder, grouped(codec, streams)
    total = sum(map(len, streams))

    def latents() -> list[torch.Tensor]:
        parsed = decoder.parse_all(streams)
        return [decoder.latents([parsed[i] for i in group]) for group in groups]

    ready, parsed = latents(), decoder.parse_all(streams)
    headers = [[parsed[i].header for i in group] for group in groups]

    def g_s() -> None:
        for y_hat, these in zip(ready, headers, strict=True):
            for _ in decoder.renderer.g_s(y_hat, these):
                pass

    calls = {"ours": lambda: codec.decode_pictures(streams), "ours, latents": latents, "ours, g_s": g_s}
    return {name: Way(call, len(streams), total, psnr if name == "ours" else None) for name, call in calls.items()}


def add(ways: dict[str, Way], left_out: dict[str, str], name: str, make: Callable[..., Way], *args) -> None:
    """Adds a rival that has worked once; if it does not, left_out says why, and our own figures are still taken."""
    try:
        way = make(*args)
        way.call()
        ways[name] = way
    except Exception as error:
        left_out[name] = repr(error)


def pillow(jpegs: list[bytes], threads: int, psnr: float) -> Way:
    pool = ThreadPoolExecutor(threads)
    return Way(lambda: list(pool.map(rivals.decode, jpegs)), len(jpegs), sum(map(len, jpegs)), psnr, "cpu")


def nvjpeg(jpegs: list[bytes], device: torch.device, psnr: float) -> Way:
    from torchvision.io import ImageReadMode, decode_jpeg

    data = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in jpegs]

    def call() -> list[torch.Tensor]:
        return decode_jpeg(data, mode=ImageReadMode.RGB, device=device)

    return Way(call, len(jpegs), sum(map(len, jpegs)), psnr)


def public_model(given: list[Picture], device: torch.device, lacking: dict[str, str]):
    """(model, x) of CompressAI; where it is not installed None, and that in lacking."""
    try:
        import_compressai()
    except ImportError as error:
        lacking["CompressAI"] = f"not installed: {error}"
        return None
    x = image.to_tensor(given[:1])
    x = x[..., : x.shape[2] // 64 * 64, : x.shape[3] // 64 * 64]
    torch.manual_seed(0)
    return calibrated(build("cheng2020-anchor-checkerboard", N=192), x).to(device), x


def public(model, x: torch.Tensor, size: int, device: torch.device) -> Way:
    with torch.no_grad():
        out = model.compress(shifted(x, size).to(device))

    @torch.no_grad()
    def call() -> object:
        return model.decompress(out["strings"], out["shape"])

    return Way(call, size, nested_bytes(out["strings"]))


def in_turn(ways: dict[str, Way], left_out: dict[str, str], clock: Clock, runs: int) -> dict[str, list[float]]:
    """Seconds of each way's runs after one to warm up; whoever has had SECONDS of them is not asked again. What the
    device has no memory for goes to left_out.
    """
    samples: dict[str, list[float]] = {}
    for name in ways:
        try:
            clock.first(ways[name].call)
            samples[name] = []
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            left_out[name] = "out of memory"
    names = list(samples)
    for run in range(runs):
        for turn in range(len(names)):
            taken = samples[names[(run + turn) % len(names)]]
            if sum(taken) < SECONDS:
                taken.append(clock.first(ways[names[(run + turn) % len(names)]].call) / 1e3)
    return samples
