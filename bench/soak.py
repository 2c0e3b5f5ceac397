"""decode_iter for long, with damage and with sizes of every kind: `python -m bench.soak`.

Three parts, each with an exit status of 1 if it fails: many small streams in a row, whose memory must stay flat after
the first 500 and every picture right; runs of a hundred streams with one damaged at a random place; one list of sizes
from 1x1 to 4000x3000, which must give what each stream gives alone.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

import numpy as np
import torch

import ckbd
from bench.arguments import count
from bench.common import load_pictures, machine, save
from ckbd import FormatError

SETTLED = 500  # streams, after which memory is what it will be
SLACK = 0.10
MIXED = ((1, 1), (64, 64), (4000, 3000), (1, 3000), (3000, 1), (63, 65), (768, 512), (640, 480), (17, 900), (2, 2))


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def cuts(source: np.ndarray, sizes: list[tuple[int, int]], seed: int) -> list[np.ndarray]:
    """Pictures (height, width, 3) of these sizes out of a larger one, mirrored where it ends."""
    rng = np.random.default_rng(seed)
    out = []
    for height, width in sizes:
        top, left = int(rng.integers(source.shape[0])), int(rng.integers(source.shape[1]))
        rows, columns = np.arange(top, top + height), np.arange(left, left + width)
        mirrored = [
            np.abs((i + n) % (2 * n) - n) % n for i, n in ((rows, source.shape[0]), (columns, source.shape[1]))
        ]
        out.append(np.ascontiguousarray(source[mirrored[0]][:, mirrored[1]]))
    return out


def long_run(codec: ckbd.Codec, source: np.ndarray, total: int) -> dict:
    """Many streams of 64x64 to 256x256."""
    rng = np.random.default_rng(0)
    sizes = [tuple(int(n) for n in rng.integers(64, 257, 2)) for _ in range(100)]
    streams = codec.encode(cuts(source, sizes, 1), [float(q) for q in rng.integers(1, 101, len(sizes))])
    want = [torch.from_numpy(codec.decode_pictures([s])[0].rgb.copy()) for s in streams]
    order = rng.integers(len(streams), size=total)
    memory, wrong, start = [], 0, time.perf_counter()
    for n, x in codec.decode_iter((streams[i] for i in order), layout="HWC"):
        wrong += not torch.equal(x.cpu(), want[order[n]])
        if n % 100 == 99:
            gc.collect()
            memory.append(resident())
    settled = memory[min(SETTLED // 100, len(memory)) - 1]
    row = {
        "part": "long run",
        "streams": total,
        "wrong": wrong,
        "seconds": time.perf_counter() - start,
        "mib_settled": settled / 2**20,
        "mib_most": max(memory) / 2**20,
        "growth": max(memory[SETTLED // 100 :], default=settled) / settled - 1,
    }
    return row | {"passed": not wrong and row["growth"] <= SLACK}


def damage(codec: ckbd.Codec, source: np.ndarray, runs: int) -> dict:
    """Runs of 100 streams, one of them damaged."""
    rng = np.random.default_rng(1)
    sizes = [tuple(int(n) for n in rng.integers(16, 130, 2)) for _ in range(30)]
    streams = codec.encode(cuts(source, sizes, 2), 40.0)
    want = [torch.from_numpy(codec.decode_pictures([s])[0].rgb.copy()) for s in streams]
    wrong, fields = 0, {}
    for _ in range(runs):
        order = rng.integers(len(streams), size=100)
        given, at = [streams[i] for i in order], int(rng.integers(100))
        given[at] = harmed(given[at], rng)
        try:
            codec.decode([given[at]])
            raise AssertionError("damage that no checksum sees")
        except FormatError as error:
            expected = error.field, error.offset, error.reason
        for n, x in codec.decode_iter(given, layout="HWC", on_error="yield"):
            if n == at:
                fields[expected[0]] = fields.get(expected[0], 0) + 1
                wrong += not isinstance(x, FormatError) or (x.field, x.offset, x.reason) != expected
            else:
                wrong += not isinstance(x, torch.Tensor) or not torch.equal(x.cpu(), want[order[n]])
    return {"part": "damage", "runs": runs, "wrong": wrong, "fields": fields, "passed": not wrong}


def harmed(stream: bytes, rng: np.random.Generator) -> bytes:
    """A stream cut short, or with a bit, a byte or a stretch that is another."""
    kind, at = int(rng.integers(4)), int(rng.integers(len(stream)))
    if kind == 0:
        return stream[:at]
    changed = bytearray(stream)
    if kind == 1:
        changed[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        changed[at] ^= int(rng.integers(1, 256))
    else:
        end = min(at + 8, len(stream))
        changed[at:end] = bytes(b ^ 0xA5 for b in changed[at:end])
    return bytes(changed)


def mixed(codec: ckbd.Codec, source: np.ndarray) -> dict:
    """One list of sizes of every kind."""
    streams = codec.encode(cuts(source, [(h, w) for w, h in MIXED], 3))
    want = [torch.from_numpy(codec.decode_pictures([s])[0].rgb) for s in streams]
    wrong = sum(
        not torch.equal(x.cpu(), rgb)
        for order in (range(len(streams)), range(len(streams) - 1, -1, -1))
        for x, rgb in zip(
            codec.decode_tensors([streams[i] for i in order], layout="HWC"), [want[i] for i in order], strict=True
        )
    )
    return {"part": "mixed sizes", "sizes": [f"{w}x{h}" for w, h in MIXED], "wrong": wrong, "passed": not wrong}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", nargs="*", default=[], help="the first one is cut up (default: of scikit-image)")
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--streams", type=count, default=10_000)
    parser.add_argument("--runs", type=count, default=200)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    print(machine())
    codec = ckbd.load(args.model, device=args.device, threads=args.threads)
    source = load_pictures(args.images)[0].rgb
    rows = []
    for part in (
        lambda: long_run(codec, source, args.streams),
        lambda: damage(codec, source, args.runs),
        lambda: mixed(codec, source),
    ):
        rows.append(part())
        print(
            ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), flush=True
        )
        save(args.json, rows)
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
