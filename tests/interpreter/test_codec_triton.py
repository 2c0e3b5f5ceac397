"""The whole codec in Triton: of the same features the same streams and latents as with torch, nearly its pixels."""

import pickle

import numpy as np
import pytest
import torch
from conftest import GROUPED, TINY, tiny_model

import ckbd
from ckbd.model import file as modelfile


@pytest.fixture(scope="module", params=[TINY, GROUPED], ids=["plain", "groups"])
def codecs(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    modelfile.save(tiny_model(config=request.param), path)
    return {backend: ckbd.load(path, backend=backend) for backend in ("torch", "triton")}


def pictures():
    rng = np.random.default_rng(0)
    sizes = ((64, 64), (64, 64), (1, 1), (70, 130))
    return [rng.integers(0, 256, (*s, 3)).astype(np.uint8) for s in sizes]


@pytest.mark.parametrize("quality, effort", [(1, 1), (60, 0), (60, 1)])
def test_streams_and_latents_are_the_same(codecs, quality, effort, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(codecs["triton"].encoder, "reader", None)  # g_a is in floats
        streams = {name: codec.encode(pictures(), quality, effort) for name, codec in codecs.items()}
    assert streams["torch"] == streams["triton"]
    latents = {name: codec.decode_latents(streams["torch"]) for name, codec in codecs.items()}
    assert all(np.array_equal(a, b) for a, b in zip(*latents.values(), strict=True))
    images = {name: codec.decode_pictures(streams["torch"]) for name, codec in codecs.items()}
    for a, b in zip(*images.values(), strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb).max() <= 2


def test_who_asks_for_triton_has_all_of_it(codecs):
    """Also in the process to which a codec is pickled; layers would pass every tolerance below."""
    for codec in (codecs["triton"], pickle.loads(pickle.dumps(codecs["triton"]))):
        d, e = codec.decoder, codec.encoder
        zones = getattr(d.zone, "zones", [d.zone])
        assert {d.painter.backend, e.reader.backend, *(zone.backend for zone in zones)} == {"triton"}
        assert {d.painter.network.enter.weight.dtype, e.reader.network.out.weight.dtype} == {torch.float16}
    assert codecs["torch"].decoder.painter is None and codecs["torch"].encoder.reader is None


def test_streams_of_its_own_features(codecs):
    streams = codecs["triton"].encode(pictures(), 60)
    latents = [codec.decode_latents(streams) for codec in codecs.values()]
    assert all(np.array_equal(a, b) for a, b in zip(*latents, strict=True))
    assert abs(sum(map(len, streams)) / sum(map(len, codecs["torch"].encode(pictures(), 60))) - 1) < 0.01


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
        assert np.abs(x.numpy().astype(int) - rgb).max() <= 2
