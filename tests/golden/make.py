"""Write the golden model and streams. Run it only with a new format version: python tests/golden/make.py

python tests/golden/make.py NAME writes one stream more, of the model that is there.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from conftest import textured, tiny_model  # noqa: E402

import ckbd  # noqa: E402
from ckbd.codec.image import Picture  # noqa: E402
from ckbd.model import file as modelfile  # noqa: E402

# One tag, a maker; and a packet.
EXIF = bytes.fromhex("4d4d002a00000008 0001 010f000200000005 0000001a 00000000") + b"ckbd\0"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def make_model() -> None:
    model = tiny_model(11)
    with torch.no_grad():  # z far wider than its tables, so that escapes occur
        model.h_a.out.weight *= 40
        model.prior.matrices[0] += 2
    modelfile.save(model, HERE / "model.safetensors")


def main(names: list[str]) -> None:
    if not names:
        make_model()
    codec = ckbd.load(HERE / "model.safetensors", threads=1)
    rich = Image.fromarray(textured(60, 90, 3))
    rich.putalpha(Image.fromarray(np.add.outer(np.arange(60), np.arange(90)).astype(np.uint8)))
    # Enough of a profile to be carried: the colour space stands at byte 16. A real one holds the time of its making.
    rich.info["icc_profile"] = bytes(16) + b"RGB " + bytes(range(108))
    cases = {
        "one_pixel": (textured(1, 1), 50),
        "odd_size": (textured(65, 130, 1), 40),
        "lowest": (textured(128, 192, 2), 1),
        "highest": (textured(288, 352, 2), 100),
        "gray": (textured(33, 20, 4)[..., 0].copy(), 75.5),
        "alpha_icc": (rich, 60),
        "metadata": (Picture(textured(20, 70, 5), exif=EXIF, xmp=XMP), 30),
    }
    known = json.loads((HERE / "golden.json").read_text())["streams"] if names else {}
    streams = known.copy()
    for name in names or cases:
        assert name not in known, f"{name} is there: a golden stream does not change"
        source, quality = cases[name]
        (data,) = codec.encode([source], quality)
        (picture,) = codec.decode_pictures([data])
        (HERE / f"{name}.ckbd").write_bytes(data)
        streams[name] = {
            "stream": hashlib.sha256(data).hexdigest(),
            "y_hat": hashlib.sha256(codec.decode_latents([data])[0].astype("<i2").tobytes()).hexdigest(),
            "picture": [
                picture.height,
                picture.width,
                picture.gray,
                picture.alpha is not None,
                picture.icc is not None,
            ],
        }
        streams[name] |= {key: value.hex() for key in ("exif", "xmp") if (value := getattr(picture, key))}
        print(name, len(data), "bytes")
    (HERE / "golden.json").write_text(json.dumps({"model": codec.model_hash, "streams": streams}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
