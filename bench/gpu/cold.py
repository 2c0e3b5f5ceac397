"""Milliseconds of a first launch, in a process of its own: `python -m bench.gpu.cold MODEL FORM`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import torch

from bench.gpu import record
from bench.gpu.device import Clock
from bench.gpu.inputs import Ours, integers, latents
from bench.launches import INTEGER_MODELS, Model
from ckbd.kernels import Lattice
from ckbd.kernels.configs import CONFIGS

PICTURE = (768, 512)


def cold(model: Model, form: str) -> dict[str, float]:
    """Milliseconds of the first launch of a form's first config, in a process of its own: with an empty cache of
    compiled kernels (cold), and once more with what that left (warm).
    """
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"TRITON_CACHE_DIR": folder, "CKBD_TUNE_CACHE": ""}
        command = [sys.executable, "-m", "bench.gpu.cold", model.name, form]
        options = {"env": env, "cwd": record.ROOT, "check": True, "stdout": subprocess.PIPE}
        took = [float(subprocess.run(command, **options).stdout) for _ in range(2)]
    return dict(zip(("cold_ms", "warm_ms"), took, strict=True))


def first_launch(name: str, form: str) -> float:
    device = torch.device("cuda")
    model = next(m for m in INTEGER_MODELS if m.name == name)
    config = next(c for c in CONFIGS[torch.int8] if c.form == form)
    ours = Ours(integers(model, device), Lattice((latents(*PICTURE),)))
    return Clock(device).first(ours.call(1, config))


if __name__ == "__main__":
    print(first_launch(*sys.argv[1:]))
