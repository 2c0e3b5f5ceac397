"""What bench.run batch runs, and beside what: each way is a call that works on a whole batch.

one by one      a loop of Codec.decode_pictures, or encode, of one picture each
ours            all of them in one call; pixels end on the host
ours, iterator  Codec.decode_iter, or encode_iter; decoded tensors stay on the device
ours, latents   without g_s: parsing, the coder, the exact zone; latents stay on the device
ours, g_s       the rest of the networks alone, latents ready: no decoder of this model can be faster
in kernels      a codec whose g_s and g_a are ckbd.kernels.transforms: all in one call, and its iterator (GPU only)
ours, OpenMP    one by one on PyTorch's own threads, as a codec does that calls PyTorch and no more (CPU only)
nvJPEG          torchvision.io.decode_jpeg on the GPU: pixels stay there
JPEG, WebP, AVIF of Pillow: libjpeg-turbo, libwebp, libaom, a file a thread
CompressAI      cheng2020-anchor-checkerboard, N = 192, random weights (bench/rivals/compressai.py): decompress

Files of rivals are those of the same pictures with at least the PSNR that ours have, at the smallest such setting;
JPEG with 4:2:0 where that reaches it and with 4:4:4 otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np
import torch

import ckbd
from bench.rivals.compressai import build, calibrated, import_compressai, nested_bytes, shifted
from ckbd.codec import batches, image, machine
from ckbd.codec.image import Picture
from ckbd.codec.machine import Team
from ckbd.codec.networks import tensors
from ckbd.evaluation import rivals

COMPRESSAI_BATCH = 16  # at most: it takes a batch's pictures one after the other where it codes
OPENMP_BATCH = 4  # at most: on a busy machine each takes seconds
FILES = {"JPEG": ("jpeg-420", "jpeg-444"), "WebP": ("webp",), "AVIF": ("avif",)}


@dataclass
class Way:
    """One implementation: call works on `count` pictures, which are so many bytes. device: its own, if another."""

    call: Callable[[], object]
    count: int
    nbytes: int
    psnr: float | None = None
    device: str | None = None


def repeated(items: Sequence, count: int) -> list:
    return [items[i % len(items)] for i in range(count)]


def add(ways: dict[str, Way], left_out: dict[str, str], name: str, make: Callable[..., Way], *args) -> None:
    """Adds a rival that has worked once; if it does not, left_out says why, and our own figures are still taken."""
    try:
        way = make(*args)
        way.call()
        ways[name] = way
    except Exception as error:
        left_out[name] = repr(error)


def grouped(codec: ckbd.Codec, streams: list[bytes]) -> list[list[int]]:
    sizes = [(s.header.height, s.header.width) for s in codec.decoder.parse_all(streams)]
    return batches.groups(sizes, batches.together(codec.decoder.device))


def decoding(codec: ckbd.Codec, streams: list[bytes], psnr: float, of_tensors: float) -> dict[str, Way]:
    """Our ways of decoding a batch. of_tensors: the PSNR of what decode_tensors gives, whose g_s may be another."""
    decoder, groups = codec.decoder, grouped(codec, streams)
    total = sum(map(len, streams))

    def one_by_one() -> None:
        for s in streams:
            codec.decode_pictures([s])

    def latents() -> list[torch.Tensor]:
        return decoder.by_group(lambda group: list(decoder.latents(group).split(1)), decoder.parse_all(streams))

    ready, parsed = latents(), decoder.parse_all(streams)

    def pixels(i: int) -> None:
        for _ in decoder.renderer.g_s(ready[i], [parsed[i].header]):
            pass

    def g_s() -> None:
        if decoder.device.type == "cpu":
            with machine.alone():
                decoder.team(pixels, range(len(streams)))
            return
        for group in groups:
            y_hat = torch.cat([ready[i] for i in group])
            for _ in decoder.renderer.g_s(y_hat, [parsed[i].header for i in group]):
                pass

    calls: dict[str, tuple[Callable[[], object], float | None]] = {
        "one by one": (one_by_one, psnr),
        "ours": (lambda: codec.decode_pictures(streams), psnr),
        "ours, iterator": (lambda: codec.decode_tensors(streams), of_tensors),
        "ours, latents": (latents, None),
        "ours, g_s": (g_s, None),
    }
    return {name: Way(call, len(streams), total, quality) for name, (call, quality) in calls.items()}


def kernels(
    other: ckbd.Codec, streams: list[bytes], psnr: float, pictures: list[Picture], quality: float
) -> tuple[dict[str, Way], dict[str, Way]]:
    """Both directions of a codec in kernels. psnr: of what it decodes."""
    count, total = len(streams), sum(map(len, streams))
    written = sum(map(len, other.encode(pictures, quality)))
    decoding = {
        "in kernels": Way(lambda: other.decode_pictures(streams), count, total, psnr),
        "in kernels, iterator": Way(lambda: other.decode_tensors(streams), count, total, psnr),
    }
    encoding = {
        "in kernels": Way(lambda: other.encode(pictures, quality), count, written),
        "in kernels, iterator": Way(lambda: list(other.encode_iter(pictures, quality)), count, written),
    }
    return decoding, encoding


def openmp(codec: ckbd.Codec, streams: list[bytes], psnr: float) -> Way:
    """The same decoder on PyTorch's threads."""
    some = streams[:OPENMP_BATCH]

    def call() -> None:
        with mock.patch.object(machine, "alone", contextlib.nullcontext), plain_team(codec):
            for s in some:
                codec.decode_pictures([s])

    return Way(call, len(some), sum(map(len, some)), psnr)


@contextlib.contextmanager
def plain_team(codec: ckbd.Codec):
    """The codec without threads of its own."""
    decoder = codec.decoder
    with contextlib.ExitStack() as stack:
        for thing, name, other in (
            (decoder, "team", Team(1)),
            (decoder.renderer, "each", machine.in_turn),
            (decoder.zone, "each", machine.in_turn),
        ):
            stack.enter_context(mock.patch.object(thing, name, other))
        yield


def encoding(codec: ckbd.Codec, pictures: list[Picture], quality: float) -> dict[str, Way]:
    """Our ways of encoding a batch."""
    total = sum(map(len, codec.encode(pictures, quality)))

    def one_by_one() -> None:
        for p in pictures:
            codec.encode([p], quality)

    calls = {
        "one by one": one_by_one,
        "ours": lambda: codec.encode(pictures, quality),
        "ours, iterator": lambda: list(codec.encode_iter(pictures, quality)),
    }
    return {name: Way(call, len(pictures), total) for name, call in calls.items()}


@dataclass
class File:
    """A rival's file of a picture: the name in RIVALS, the setting, the bytes, their dB."""

    rival: str
    setting: float
    data: bytes
    psnr: float


def file_of_psnr(names: Sequence[str], rgb: np.ndarray, least: float) -> File:
    """The file of at least that many dB, of the lowest setting that has them, of the first rival that has one."""
    for name in names:
        settings = rivals.RIVALS[name].every
        low, high = -1, len(settings)  # settings up to low miss it, those from high on have it
        found: dict[int, File] = {}
        while high - low > 1:
            middle = (low + high) // 2
            data = rivals.RIVALS[name].encode(rgb, settings[middle])
            found[middle] = File(name, settings[middle], data, image.psnr(rgb, rivals.decode(data)))
            if found[middle].psnr >= least:
                high = middle
            else:
                low = middle
        if high < len(settings):
            return found[high]
    raise RuntimeError(f"no {names[0].partition('-')[0].upper()} of this picture has {least:.2f} dB")


def pillow_decoding(files: list[File], threads: int) -> Way:
    pool = ThreadPoolExecutor(threads)
    psnr = float(np.mean([f.psnr for f in files]))
    data = [f.data for f in files]
    return Way(lambda: list(pool.map(rivals.decode, data)), len(data), sum(map(len, data)), psnr, "cpu")


def pillow_encoding(files: list[File], pictures: list[Picture], threads: int) -> Way:
    pool = ThreadPoolExecutor(threads)
    work = [partial(rivals.RIVALS[f.rival].encode, p.rgb, f.setting) for f, p in zip(files, pictures, strict=True)]
    psnr, total = float(np.mean([f.psnr for f in files])), sum(len(f.data) for f in files)
    return Way(lambda: list(pool.map(lambda call: call(), work)), len(work), total, psnr, "cpu")


def nvjpeg(files: list[File], device: torch.device) -> Way:
    from torchvision.io import ImageReadMode, decode_jpeg

    data = [torch.frombuffer(bytearray(f.data), dtype=torch.uint8) for f in files]

    def call() -> list[torch.Tensor]:
        return decode_jpeg(data, mode=ImageReadMode.RGB, device=device)

    return Way(call, len(data), sum(len(f.data) for f in files), float(np.mean([f.psnr for f in files])))


def public_model(given: list[Picture], device: torch.device, lacking: dict[str, str]):
    """(model, x) of CompressAI; where it is not installed None, and that in lacking."""
    try:
        import_compressai()
    except ImportError as error:
        lacking["CompressAI"] = f"not installed: {error}"
        return None
    x = tensors.to_tensor(given[:1])
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
