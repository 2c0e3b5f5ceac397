"""JPEG with the face of ckbd.api.Codec, quick and lossy, for tests of what calls a codec."""

import io

import numpy as np
import torch
from PIL import Image

from ckbd.codec.image import Picture
from ckbd.codec.machine import Team
from ckbd.evaluation.rivals import RIVALS


class JpegCodec:
    """Estimates ten bytes less than it writes."""

    model_hash = "0123456789ab"
    team, device = Team(2), torch.device("cpu")

    def encode(self, images, quality, effort=None, progress=None):
        return [RIVALS["jpeg-444"].encode(picture.rgb, quality) for picture in images]

    def decode_pictures(self, streams, region=None, scale=1, progress=None):
        for stream in streams:
            if stream[:2] != b"\xff\xd8":
                raise ValueError("magic at offset 0: expected\n  another one")
        return [Picture(np.array(Image.open(io.BytesIO(stream)))) for stream in streams]

    def estimate(self, pictures, quality, effort=None):
        return [8.0 * len(stream) - 80 for stream in self.encode(pictures, quality, effort)]
