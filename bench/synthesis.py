"""What g_s and g_a in kernels do to a picture, and what they move: `python -m bench.run synthesis`.

Without a GPU the kernels' twins stand for them, which store and round the same features. For each model, over all
pictures:

- g_s: the same streams, g_s in layers of float32 and in kernels. PSNR of both against the picture; samples that
  differ and by how much; the largest feature (float16 ends at 65504);
- g_a: streams written with g_a in layers of float32 and in kernels of float16, both decoded by layers of float32;
- megabytes through memory for one picture of 768 x 512, each launch by itself, beside layers in float16
  (ckbd.kernels.transforms.eager_bytes says what is counted).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

import ckbd
from bench.common import load_pictures, save
from bench.gpu.inputs import backend_of, latents, need_cuda
from ckbd.codec import image, zone
from ckbd.codec.decoder import Decoder
from ckbd.codec.encoder import Encoder
from ckbd.codec.networks.painting import Painter, Reader
from ckbd.kernels import Lattice, transforms
from ckbd.kernels.transforms import twin

MODELS = ("small", "base")
PICTURE = (768, 512)
HALF, SINGLE = torch.float16, torch.float32


def in_kernels(codec: ckbd.Codec, dtype: torch.dtype) -> ckbd.Codec:
    """The same codec with g_a and g_s in kernels."""
    d, e = codec.decoder, codec.encoder
    backend = backend_of(d.device)
    exact = zone.Kernels(d.model.layers, d.device, backend=backend)
    options = {"device": d.device, "team": d.team, "max_pixels": d.max_pixels, "products": d.renderer.products}
    reader, painter = (kind(d.model, d.device, backend, dtype) for kind in (Reader, Painter))
    return ckbd.Codec(
        Encoder(d.model, exact, e.tables, reader=reader, **options),
        Decoder(d.model, exact, d.tables, painter=painter, **options),
        d.team,
        d.device,
    )


@contextmanager
def watched() -> Iterator[list[float]]:
    """The sizes of features that twins store meanwhile."""
    found, real = [0.0], twin.rounded

    def look(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        found.append(float(x.abs().max()))
        return real(x, dtype)

    twin.rounded = look
    try:
        yield found
    finally:
        twin.rounded = real


def painted(codec: ckbd.Codec, pictures: list[image.Picture], quality: float) -> dict:
    """Of g_s."""
    kernels = {"fp16": in_kernels(codec, HALF), "fp32": in_kernels(codec, SINGLE)}
    psnr: dict[str, list[float]] = {name: [] for name in ("layers", *kernels)}
    differ: dict[str, list[float]] = {name: [] for name in kernels}
    worst, peak = dict.fromkeys(kernels, 0), 0.0
    for picture in pictures:
        streams = codec.encode([picture], quality)
        (want,) = codec.decode_pictures(streams)
        psnr["layers"].append(image.psnr(picture.rgb, want.rgb))
        for name, other in kernels.items():
            with watched() as sizes:
                (got,) = other.decode_pictures(streams)
            difference = np.abs(got.rgb.astype(int) - want.rgb)
            psnr[name].append(image.psnr(picture.rgb, got.rgb))
            differ[name].append(float((difference > 0).mean()))
            worst[name] = max(worst[name], int(difference.max()))
            peak = max(peak, *sizes)
    row = {"quality": quality, "peak": peak or None}
    row |= {f"psnr_{name}": statistics.mean(values) for name, values in psnr.items()}
    for name in kernels:
        changes = [b - a for a, b in zip(psnr["layers"], psnr[name], strict=True)]
        row |= {
            f"most_{name}": max(changes, key=abs),  # of one picture, dB
            f"differ_{name}": statistics.mean(differ[name]),
            f"worst_{name}": worst[name],
        }
    return row


def read(codec: ckbd.Codec, pictures: list[image.Picture], quality: float) -> dict:
    """Of g_a."""
    row = {}
    for name, encoder in (("layers", codec), ("kernels", in_kernels(codec, HALF))):
        streams = [encoder.encode([p], quality)[0] for p in pictures]
        shown = [codec.decode_pictures([s])[0] for s in streams]
        row[f"bytes_g_a_{name}"] = sum(map(len, streams))
        row[f"psnr_g_a_{name}"] = statistics.mean(
            image.psnr(p.rgb, s.rgb) for p, s in zip(pictures, shown, strict=True)
        )
    return row


def moved(codec: ckbd.Codec) -> dict:
    """Of one picture: megabytes of each launch of g_s, of them all, of g_a, and of layers."""
    width, height = PICTURE
    lattice, pixels = Lattice((latents(width, height),)), width * height
    networks = in_kernels(codec, HALF)
    g_s, g_a = networks.decoder.painter.network, networks.encoder.reader.network
    parts = transforms.synthesis_cost(g_s, lattice, pixels)
    return {
        "launches": [[p.kernel, p.bytes / 1e6, 2e-9 * p.macs] for p in parts],
        "g_s_mb": sum(p.bytes for p in parts) / 1e6,
        "g_a_mb": sum(p.bytes for p in transforms.analysis_cost(g_a, lattice, pixels)) / 1e6,
        "layers_mb": transforms.eager_bytes(g_s, lattice, pixels) / 1e6,
        "gop": 2e-9 * sum(p.macs for p in parts),
    }


def synthesis(args: argparse.Namespace) -> list[dict]:
    device = need_cuda(args.device or "cpu")
    pictures, rows = load_pictures(args.images), []
    for model in MODELS if args.model == "default" else (args.model,):
        codec = ckbd.load(model, device=device, threads=args.threads)
        bytes_ = moved(codec)
        rows.append({"model": model, **bytes_})
        print(
            f"{model}, one picture of {PICTURE[0]} x {PICTURE[1]}: g_s {bytes_['g_s_mb']:.1f} MB, "
            f"{bytes_['gop']:.2f} Gop; in layers of float16 {bytes_['layers_mb']:.1f} MB; "
            f"g_a {bytes_['g_a_mb']:.1f} MB"
        )
        print("  " + ", ".join(f"{name} {mb:.2f}" for name, mb, _ in bytes_["launches"]))
        for quality in args.qualities:
            row = {"model": model, "pictures": len(pictures)} | painted(codec, pictures, quality)
            row |= read(codec, pictures, quality)
            rows.append(row)
            change = [f"{n} {row[f'psnr_{n}'] - row['psnr_layers']:+.5f} dB" for n in ("fp16", "fp32")]
            more = 100 * (row["bytes_g_a_kernels"] / row["bytes_g_a_layers"] - 1)
            print(
                f"{model}, quality {quality:g}: g_s {row['psnr_layers']:.3f} dB, {', '.join(change)} (of one picture "
                f"{row['most_fp16']:+.5f}, {row['most_fp32']:+.5f}), samples that differ "
                f"{100 * row['differ_fp16']:.2f} %, by {row['worst_fp16']} at the most, largest feature "
                f"{row['peak'] or float('nan'):.1f}; g_a fp16 {more:+.3f} % bytes, "
                f"{row['psnr_g_a_kernels'] - row['psnr_g_a_layers']:+.5f} dB",
                flush=True,
            )
            save(args.json, rows)
    return rows
