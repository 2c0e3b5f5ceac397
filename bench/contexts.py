"""What a context costs: `python -m bench.run contexts`, decode time by context and size, and how it grows.

none           mean-scale hyperprior, no context
raster-public  a serial context as public code decodes it, written here for the comparison: for each site a
               convolution over its whole window, 1x1 convolutions for the parameters, indexes and symbols as
               lists, a call of the coder (ours, which reads such lists faster than theirs)
raster         the tuned scan of ckbd.papers.scan: live taps gathered, integer tables, no lists
wavefront      the same streams along anti-diagonals
checkerboard   two phases

All but raster-public decode real streams of one picture, and their latents are compared with the encoder's before a
time is taken. Weights are random: what is decoded has no influence on the work, except for the coder's, which is
small.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import ckbd
from bench.arguments import size
from bench.common import stages_of
from ckbd import _ans
from ckbd.model import entropy
from ckbd.papers import file as variantfile
from ckbd.papers.variant import Variant, VariantConfig

SIZES = ((256, 256), (768, 512), (1024, 1024), (2048, 1024), (2048, 2048))
ORDERS = {"none": "raster", "raster": "tuned", "wavefront": "wavefront", "checkerboard": "raster"}
WIDTHS = {"width": 128, "M": 192, "Nz": 128, "hyper": 128, "h_s": 96, "psi": 384, "H1": 640, "H2": 512}


def model_of(context: str, transform: str, **changes) -> Variant:
    """Random weights of the paper's widths, N = 128 and M = 192; most indices are low, as at medium rates."""
    torch.manual_seed(0)
    model = Variant(VariantConfig(**WIDTHS | {"context": context, "transform": transform} | changes))
    with torch.no_grad():
        model.exact.output.bias[model.config.M :] = torch.randn(model.config.M).abs()
        model.log_gain.zero_()
        model.log_ungain.zero_()
    return model.eval()


def picture(width: int, height: int) -> np.ndarray:
    """uint8 (height, width, 3) of smooth noise; a seed makes it repeat."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 3, max(2, height // 32), max(2, width // 32)))).float()
    plane = F.interpolate(coarse, (height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
    return np.clip(128 + 60 * plane + rng.normal(0, 8, plane.shape), 0, 255).astype(np.uint8)


class PublicRaster:
    """A serial context of the same widths as public code runs it: context 2M, parameters 4M, 640, 512, 2M, floats."""

    def __init__(self, M: int = 192):
        torch.manual_seed(0)
        self.M = M
        mask = torch.zeros(5, 5)
        mask[:2], mask[2, :2] = 1, 1
        self.context = torch.randn(2 * M, M, 5, 5) * mask * (1 / (12 * M)) ** 0.5
        self.layers = [torch.randn(n, m, 1, 1) * m**-0.5 for n, m in ((640, 4 * M), (512, 640), (2 * M, 512))]
        self.scales = entropy.scale_of(torch.arange(entropy.SCALES, dtype=torch.float32))
        self.cdfs, self.sizes, self.offsets = [], [], []
        for scale in self.scales.tolist():
            reach = min(500, int(6 * scale) + 1)
            edges = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
            cumulative = torch.special.ndtr(edges / scale)
            pmf = (cumulative[1:] - cumulative[:-1]).tolist()
            self.cdfs.append(_ans.pmf_to_quantized_cdf([*pmf, 1e-6], 16))
            self.sizes.append(len(self.cdfs[-1]))
            self.offsets.append(-reach)

    @torch.inference_mode()
    def run(self, psi: torch.Tensor, code) -> torch.Tensor:
        """y_hat (1, M, H + 4, W + 4) of psi (1, 2M, H, W): code(indexes) gives each site's symbols, both lists."""
        H, W = psi.shape[2:]
        y_hat = torch.zeros(1, self.M, H + 4, W + 4)
        for row in range(H):
            for column in range(W):
                window = y_hat[:, :, row : row + 5, column : column + 5]
                f = torch.cat((psi[:, :, row : row + 1, column : column + 1], F.conv2d(window, self.context)), 1)
                for n, weight in enumerate(self.layers):
                    f = F.conv2d(f if n == 0 else F.leaky_relu(f), weight)
                scales, means = f.abs().chunk(2, 1)
                indexes = torch.full(scales.shape, len(self.scales) - 1, dtype=torch.int32)
                for scale in self.scales[:-1]:
                    indexes -= (scales <= scale).int()
                symbols = torch.tensor(code(indexes.flatten().tolist()), dtype=torch.float32)
                y_hat[0, :, row + 2, column + 2] = symbols + means.flatten()
        return y_hat

    def measure(self, height: int, width: int) -> float:
        """Seconds to decode sites of an image of this size; symbols are drawn, encoded and compared first."""
        rng, sent = np.random.default_rng(0), []
        psi = torch.from_numpy(rng.normal(0, 0.3, (1, 2 * self.M, height, width))).float()

        def draw(indexes):
            sent.append((rng.integers(-1, 2, self.M).tolist(), indexes))
            return sent[-1][0]

        want = self.run(psi, draw)
        encoder = _ans.BufferedRansEncoder()
        for symbols, indexes in sent:
            encoder.encode_with_indexes(symbols, indexes, self.cdfs, self.sizes, self.offsets)
        decoder = _ans.RansDecoder()
        decoder.set_stream(encoder.flush())
        start = time.perf_counter()
        got = self.run(psi, lambda indexes: decoder.decode_stream(indexes, self.cdfs, self.sizes, self.offsets))
        seconds = time.perf_counter() - start
        if not torch.equal(got, want):
            raise RuntimeError("raster-public: what was decoded is not what was encoded")
        return seconds


def measure(codec, stream: bytes, runs: int) -> tuple[float, float]:
    """The least in ms of some runs: what is neither h_s nor g_s nor the picture, and all from bytes to a Picture.

    The least, since whatever else the machine does only adds.
    """
    parts, wholes = [], []
    for _ in range(runs):
        spent = stages_of(codec, [stream])
        wholes.append(1e3 * spent["total"])
        # What lies between the stages belongs to walking the sites.
        parts.append(wholes[-1] - 1e3 * sum(spent[name] for name in ("h_s", "g_s", "picture", "parse")))
    return min(parts), min(wholes)


def growth(rows: list[dict], context: str) -> tuple[float, float] | None:
    """(exponent, ms at a megapixel) of context_and_coding_ms, least squares in logarithms; None below two sizes."""
    points = [(r["width"] * r["height"] / 2**20, r["context_and_coding_ms"]) for r in rows if r["context"] == context]
    if len(points) < 2:
        return None
    x, y = np.log(np.array(points)).T
    slope, level = np.polyfit(x, y, 1)
    return float(slope), float(np.exp(level))


def contexts(args: argparse.Namespace) -> list[dict]:
    """Rows for --json: context, width, height, context_and_coding_ms, decode_ms; and the ratios in words."""
    torch.set_num_threads(args.threads)
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        codecs = {}
        for context, order in ORDERS.items():
            named = "raster" if context == "wavefront" else context
            path = Path(folder, f"{named}.safetensors")
            if not path.exists():
                variantfile.save(model_of(named, args.transform), path)
            codecs[context] = ckbd.load(path, threads=args.threads)
            codecs[context].decoder.order = order
        for width, height in args.sizes:
            x = ckbd.Picture(picture(width, height))
            runs = max(1, min(args.runs, round(args.runs * 768 * 512 / (width * height))))
            streams = {name: codecs[name].encode([x])[0] for name in ("none", "raster", "checkerboard")}
            streams["wavefront"] = streams["raster"]
            for context in ORDERS:
                codec = codecs[context]
                _, mean, _, _, symbols = codec.encoder.symbols(x, 50.0)
                (latents,) = codec.decode_latents([streams[context]])
                if not np.array_equal(latents.transpose(1, 2, 0), 16 * symbols + mean[:, :, 0]):
                    raise RuntimeError(f"{context}: the latents are not the encoder's")
                part, whole = measure(codec, streams[context], runs)
                rows.append(_row(context, width, height, part, whole))
                bpp = 8 * len(streams[context]) / (width * height)
                print(f"{width} x {height} {context}: {part:.1f} ms of {whole:.1f} ms, {bpp:.2f} bpp", flush=True)
            if width * height <= args.public_pixels:
                sites = -(-height // 64) * 4, -(-width // 64) * 4
                public = PublicRaster(WIDTHS["M"])
                part = 1e3 * min(public.measure(*sites) for _ in range(min(runs, 3)))
                # Its h_s, g_s and picture are those of the checkerboard, run by the same modules.
                rest = rows[-1]["decode_ms"] - rows[-1]["context_and_coding_ms"]
                rows.append(_row("raster-public", width, height, part, part + rest))
                print(f"{width} x {height} raster-public: {part:.1f} ms of {part + rest:.1f} ms", flush=True)
            _ratios(rows, width, height)
    for context in dict.fromkeys(row["context"] for row in rows):
        law = growth(rows, context)
        if law:
            print(f"{context}: {law[1]:.0f} ms x megapixels^{law[0]:.2f}")
    return rows


def _row(context: str, width: int, height: int, part: float, whole: float) -> dict:
    row = {"context": context, "width": width, "height": height}
    return row | {"context_and_coding_ms": part, "decode_ms": whole}


def _ratios(rows: list[dict], width: int, height: int) -> None:
    at = {r["context"]: r for r in rows if (r["width"], r["height"]) == (width, height)}
    for slow in ("raster-public", "raster", "wavefront"):
        if slow in at:
            part, whole = (at[slow][n] / at["checkerboard"][n] for n in ("context_and_coding_ms", "decode_ms"))
            print(f"{width} x {height}: checkerboard {part:.1f} x as fast as {slow}, end to end {whole:.2f} x")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=size, nargs="*", default=SIZES, metavar="WxH", help="of contexts")
    parser.add_argument("--transform", choices=("ckbd", "minnen2018"), default="minnen2018", help="of contexts")
    parser.add_argument("--public-pixels", type=int, default=1 << 22, help="of contexts: no raster-public above this")
