"""Write the golden models and streams of version 2: python tests/golden/make_variants.py, for a new version only."""

import hashlib
import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "papers")]

from conftest import textured  # noqa: E402
from test_variant import KINDS, variant  # noqa: E402

import ckbd  # noqa: E402
from ckbd.papers import file as variantfile  # noqa: E402

CASES = {"raster": ("raster", (200, 90), 85), "mixture": ("checkerboard-mixture", (70, 130), 60)}


def main() -> None:
    wanted = {}
    for name, (kind, size, quality) in CASES.items():
        model = variant(**KINDS[kind])
        with torch.no_grad():  # z far wider than its tables, so that escapes occur
            model.prior.matrices[0] += 2
        path = HERE / f"variant_{name}.safetensors"
        variantfile.save(model, path)
        codec = ckbd.load(path, threads=1)
        (data,) = codec.encode([textured(*size, seed=5)], quality)
        (HERE / f"variant_{name}.ckbd").write_bytes(data)
        (y_hat,) = codec.decode_latents([data])
        wanted[name] = {
            "stream": hashlib.sha256(data).hexdigest(),
            "y_hat": hashlib.sha256(y_hat.astype("<i2").tobytes()).hexdigest(),
            "tracks": ckbd.codec.container.parse(data, version=ckbd.codec.container.TRACKS).header.tracks,
        }
        print(name, len(data), "bytes")
    (HERE / "variants.json").write_text(json.dumps(wanted, indent=1) + "\n")


if __name__ == "__main__":
    main()
