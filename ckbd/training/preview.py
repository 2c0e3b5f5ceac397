"""A model's preview: pictures at 1/4 and 1/8 of their sides from the latents, without g_s.

    ckbd fit-preview MODEL --data FOLDER_OR_TAR [...] --out NEW.safetensors

The linear map of least squares from the 3 x 3 latents around each one, as g_s is given them, to the means of the
picture's 4 x 4 pixels. Only preview.* changes: the new file reads the same streams as the old one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ckbd import api
from ckbd.codec import batches
from ckbd.codec.files import output
from ckbd.kernels import numerics
from ckbd.model import arrays
from ckbd.model import file as modelfile
from ckbd.model.config import PREVIEW_SIDE
from ckbd.model.model import gain_at
from ckbd.training.fit import QUALITIES, opened, parser

LATENT = 16  # pixels of a side
SHRINK = LATENT // PREVIEW_SIDE
# Of the mean square of what the map is given: numbers that hardly change stay near 0.
RIDGE = 1e-6
FLOOR = 1e-9  # where a model's latents are all 0


class Sums:
    """What least squares need of pairs: products of inputs, and of inputs with targets, float64."""

    def __init__(self, M: int):
        count = 9 * M + 1
        self.inputs = torch.zeros(count, count, dtype=torch.float64)
        self.targets = torch.zeros(count, 3 * PREVIEW_SIDE**2, dtype=torch.float64)

    def add(self, y: Tensor, x: Tensor) -> None:
        """y (1, M, h, w): what g_s is given; x (1, 3, 16 h, 16 w) in [0, 1]: the picture."""
        around = F.unfold(y, 3, padding=1)[0]
        around = torch.cat((around, torch.ones(1, around.shape[1])))
        small = F.pixel_unshuffle(F.avg_pool2d(x, SHRINK), PREVIEW_SIDE)[0].flatten(1) - 0.5
        self.inputs += (around @ around.t()).double()
        self.targets += (around @ small.t()).double()

    def solution(self) -> tuple[Tensor, Tensor]:
        """weight (48, M, 3, 3) and bias (48,), float16, as a model file has them."""
        ridge = max(RIDGE * float(self.inputs.diagonal()[:-1].mean()), FLOOR)
        found = torch.linalg.solve(self.inputs + ridge * torch.eye(len(self.inputs)), self.targets).t().half()
        return found[:, :-1].unflatten(1, (-1, 3, 3)).contiguous(), found[:, -1].contiguous()


@torch.inference_mode()
def fit(codec: api.Codec, pictures: Iterable[np.ndarray]) -> dict[str, Tensor]:
    """preview.* of a model from pictures, uint8 (H, W, 3), each at one of QUALITIES in turn; of each as much as goes
    into whole squares of 64. Raises ValueError if none has one.
    """
    m, count = codec.model, 0
    sums = Sums(m.log_ungain.shape[1])
    for i, picture in enumerate(pictures):
        height, width = (n // batches.PATCH * batches.PATCH for n in picture.shape[:2])
        if not height or not width:
            continue
        count, whole = count + 1, np.ascontiguousarray(picture[:height, :width])
        quality = QUALITIES[i % len(QUALITIES)]
        (y_hat,) = codec.decode_latents(codec.encode([whole], quality))
        gain = gain_at(m.log_ungain.cpu(), torch.tensor([quality]))
        x = torch.from_numpy(whole).permute(2, 0, 1)[None].float() / 255
        sums.add(torch.from_numpy(y_hat)[None] * (gain / numerics.MEAN_STEP), x)
    if not count:
        raise ValueError(f"data: expected a picture of at least {batches.PATCH} x {batches.PATCH}")
    weight, bias = sums.solution()
    return {"preview.weight": weight, "preview.bias": bias}


def fit_file(codec: api.Codec, model: str, pictures: Iterable[np.ndarray], out: str) -> bytes:
    """Writes the model file with a preview fitted to pictures; returns its identity, which is what it was."""
    found = fit(codec, pictures)
    read, config = arrays.read(model, arrays.FORMAT)
    tensors = {name: torch.from_numpy(array) for name, array in read.items()}
    with output.replacing(out) as temporary:
        identity = modelfile.write(tensors | found, temporary, arrays.FORMAT, json.loads(config))
        modelfile.load(temporary)
    return identity


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `ckbd fit-preview`."""
    description = (
        "Write a model file with what makes pictures at 1/4 and 1/8 of their sides without g_s. "
        "It reads the same streams."
    )
    args = parser("ckbd fit-preview", description, pictures=2000).parse_args(argv)
    try:
        codec, pictures = opened(args)
        identity = fit_file(codec, args.model, pictures, args.out)
    except (OSError, ValueError) as error:
        print(f"ckbd fit-preview: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: model {identity.hex()}, with a preview")
    return 0
