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


def test_all_sizes_in_one_batch(codecs, monkeypatch):
    """decode_iter, whose batches of a GPU are ragged."""
    streams = codecs["torch"].encode(pictures(), 60)
    broken = streams[1][:-5] + bytes([streams[1][-5] ^ 1]) + streams[1][-4:]
    want = [p.rgb for p in codecs["torch"].decode_pictures(streams)]
    assert codecs["triton"].decoder.zone.ragged
    batches = []
    real = type(codecs["triton"].decoder.zone).begin_rows
    monkeypatch.setattr(
        type(codecs["triton"].decoder.zone), "begin_rows", lambda self, *a: batches.append(a[2]) or real(self, *a)
    )
    given = [streams[0], broken, streams[2], streams[3], streams[1]]
    out = [x for _, x in codecs["triton"].decode_iter(given, layout="HWC", on_error="yield")]
    assert batches == [[(1, 1), (1, 1), (2, 3), (1, 1)]] and isinstance(out[1], ckbd.FormatError)
    for x, rgb in zip([out[0], out[4], out[2], out[3]], want, strict=True):
        assert np.array_equal(x.numpy(), rgb)
