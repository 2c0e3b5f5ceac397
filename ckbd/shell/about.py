"""What `ckbd --version` says: versions, models, and what decodes on this machine."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import numpy as np
import torch

import ckbd
from ckbd import _passes, _rans
from ckbd.codec import container, machine
from ckbd.kernels import products
from ckbd.model import library, places

REACHES = {
    products.WIDE: "every product of eight bits is exact",
    products.NARROW: "products of eight bits are exact for inputs to 128: outliers take a second one",
    0: "no exact products of eight bits: the exact zone runs in float32",
}


def lines() -> Iterator[str]:
    yield f"ckbd {ckbd.__version__}, streams of version {container.VERSION} and {container.TRACKS}"
    yield f"Python {platform.python_version()}, PyTorch {torch.__version__}, NumPy {np.__version__}"
    for path in places.files():
        identity = library.identity_of(path)
        where = "" if path.parent in places.shipped() else f" ({path})"
        yield f"model {path.stem}: {'no model file' if identity is None else identity.hex()}{where}"
    with machine.alone():
        reach = products.reach([(3200, 256)])
        eight, half = products.gain(torch.uint8), products.gain(torch.bfloat16)
    yield f"CPU: coder {_rans.isas()[-1]}, passes {_passes.isas()[-1]}, {torch.get_num_threads()} threads"
    yield f"CPU: {REACHES[reach]}"
    yield f"CPU: products in eight bits {eight:.1f} times as fast as in float32, in bfloat16 {half:.1f} times"
    count = torch.cuda.device_count()
    yield "GPU: none" if not count else "GPU: " + ", ".join(torch.cuda.get_device_name(i) for i in range(count))
