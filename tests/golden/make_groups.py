"""Write the golden model and stream of channel groups: python tests/golden/make_groups.py, for a new format only."""

import hashlib
import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from conftest import GROUPED, textured, tiny_model  # noqa: E402

import ckbd  # noqa: E402
from ckbd.model import file as modelfile  # noqa: E402


def main() -> None:
    model = tiny_model(11, GROUPED)
    with torch.no_grad():  # z far wider than its tables, so that escapes occur
        model.h_a.out.weight *= 40
        model.prior.matrices[0] += 2
    modelfile.save(model, HERE / "groups.safetensors")
    codec = ckbd.load(HERE / "groups.safetensors", threads=1)
    (data,) = codec.encode([textured(130, 200, 6)], 70)
    (y_hat,) = codec.decode_latents([data])
    (HERE / "groups.ckbd").write_bytes(data)
    wanted = {"model": codec.model_hash, "stream": hashlib.sha256(data).hexdigest()}
    wanted["y_hat"] = hashlib.sha256(y_hat.astype("<i2").tobytes()).hexdigest()
    (HERE / "groups.json").write_text(json.dumps(wanted, indent=1) + "\n")
    print(len(data), "bytes")


if __name__ == "__main__":
    main()
