"""Whether an installed ckbd works: run by a Python that has it, away from the checkout, and what it depends on.

    PYTHON smoke.py [GOLDEN]

Encodes and decodes a picture with every model that ships, in Python and by the command; GOLDEN is tests/golden, whose
streams must give the latents that are written there.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

import ckbd
from ckbd import _ans, _passes, _rans

MODELS = ("small", "base", "visual")


def picture(height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3): waves and an edge."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9) + np.cos(y / 7), np.sin((x + y) / 11), np.cos((x - y) / 13)], -1)
    return (127.5 + 50 * waves + 20 * (x > y)[..., None]).clip(0, 255).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def library() -> None:
    rgb = picture(150, 211)
    for name in MODELS:
        codec = ckbd.load(name)
        (stream,) = codec.encode([rgb], quality=60)
        (decoded,) = codec.decode([stream])
        value = psnr(rgb, np.array(decoded))
        print(f"{name}: {len(stream)} bytes, {value:.2f} dB")
        assert decoded.size == (211, 150) and value > 30
        assert ckbd.decode([stream])[0].size == (211, 150), "by the model that the stream names"


def command() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(picture(64, 96)).save(folder / "a.png")
        for words in (["--version"], ["encode", "a.png"], ["info", "a.ckbd"], ["decode", "a.ckbd", "b.png"]):
            subprocess.run([sys.executable, "-m", "ckbd", *words], cwd=folder, check=True)
        with Image.open(folder / "b.png") as decoded:
            assert decoded.size == (96, 64)


def golden(folder: Path) -> int:
    """How many streams gave what they must."""
    files = {"golden.json": "model", "variants.json": None, "groups.json": "groups"}
    count = 0
    for file, model in files.items():
        told = json.loads((folder / file).read_text())
        cases = told.get("streams", {"groups": told} if "y_hat" in told else told)
        for name, want in cases.items():
            name = name if model else f"variant_{name}"
            data = (folder / f"{name}.ckbd").read_bytes()
            (y_hat,) = ckbd.load(folder / f"{model or name}.safetensors").decode_latents([data])
            sha = hashlib.sha256(np.ascontiguousarray(y_hat).astype("<i2").tobytes()).hexdigest()
            assert sha == want["y_hat"], f"{name}: other latents than {want['y_hat']}"
            count += 1
    return count


def about() -> None:
    print(f"Python {platform.python_version()} on {platform.machine()}, {ckbd.__file__}")
    print(f"coder {_rans.isas()}, quantiser {_ans.isas()}, passes {_passes.isas()}")
    print("triton:", "there" if find_spec("triton") else "not there")


def main(argv: list[str]) -> None:
    assert "site-packages" in Path(ckbd.__file__).parts, f"ckbd is not installed: {ckbd.__file__}"
    about()
    library()
    command()
    if argv:
        print(f"{golden(Path(argv[0]))} golden streams: the latents that they must give")


if __name__ == "__main__":
    main(sys.argv[1:])
