"""The whole codec with its exact zone in Triton: same streams, same latents as with torch."""

import numpy as np
import pytest
import torch
from conftest import tiny_model

import ckbd
from ckbd.model import file as modelfile


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    modelfile.save(tiny_model(), path)
    return {backend: ckbd.load(path, backend=backend) for backend in ("torch", "triton")}


def pictures():
    rng = np.random.default_rng(0)
    sizes = ((64, 64), (64, 64), (1, 1), (70, 130))
    return [rng.integers(0, 256, (*s, 3)).astype(np.uint8) for s in sizes]


@pytest.mark.parametrize("quality, effort", [(1, 1), (60, 0), (60, 1)])
def test_streams_and_latents_are_the_same(codecs, quality, effort):
    streams = {name: codec.encode(pictures(), quality, effort) for name, codec in codecs.items()}
    assert streams["torch"] == streams["triton"]
    latents = {name: codec.decode_latents(streams["torch"]) for name, codec in codecs.items()}
    assert all(np.array_equal(a, b) for a, b in zip(*latents.values(), strict=True))
    images = {name: codec.decode(streams["torch"]) for name, codec in codecs.items()}
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(*images.values(), strict=True))


def test_a_carrier_is_refused(tmp_path):
    modelfile.save(tiny_model(), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="carrier: the Triton kernels compute in integers"):
        ckbd.load(tmp_path / "m.safetensors", backend="triton", carrier=torch.float32)
