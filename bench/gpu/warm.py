"""What a first decode waits for: `python -m bench.gpu.warm --out DIR`, seconds in processes of their own.

first decode   with nothing compiled and nothing measured, in caches that are empty
next process   with what that one left
warm-up        `ckbd warm-up`, with what those left: all that remains to be measured
warm process   a decode after it

DIR/tuned.json holds the choices that were measured; `bench.gpu.report --take` puts them into kernels/tuned.json,
where they ship.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import save
from bench.gpu import record

DECODE = """
import json, sys, time
start = time.perf_counter()
import numpy as np, torch
import ckbd
model, device, backend = sys.argv[1:]
imported = time.perf_counter()
codec = ckbd.load(model, device=device, backend=backend)
stream = ckbd.load(model).encode([np.random.default_rng(0).integers(0, 256, (512, 768, 3), np.uint8)])[0]
ready = time.perf_counter()
(x,) = codec.decode_tensors([stream])
x.cpu()
print(json.dumps({"import": imported - start, "decode": time.perf_counter() - ready}))
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.warm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto", help="of the codec: triton has g_s in kernels")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        caches = {"TRITON_CACHE_DIR": f"{folder}/triton", "CKBD_TUNE_CACHE": f"{folder}/tune"}
        run = {"env": os.environ | caches, "cwd": record.ROOT, "check": True, "stdout": subprocess.PIPE, "text": True}
        for name in ("first decode", "next process", "warm-up", "warm process"):
            start = time.perf_counter()
            if name == "warm-up":
                command = ["-m", "ckbd.cli", "warm-up", "--model", args.model, "--device", args.device]
                command += ["--backend", args.backend, "--choices", str(args.out / "tuned.json")]
                subprocess.run([sys.executable, *command], **run)
                spent = {}
            else:
                command = ["-c", DECODE, args.model, args.device, args.backend]
                spent = json.loads(subprocess.run([sys.executable, *command], **run).stdout)
            rows.append({"what": name, "seconds": spent.get("decode", time.perf_counter() - start)})
            rows[-1] |= {"process": time.perf_counter() - start}
            print(f"{name:14} {rows[-1]['seconds']:8.2f} s, the process {rows[-1]['process']:8.2f} s", flush=True)
            save(str(args.out / "rows.json"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
