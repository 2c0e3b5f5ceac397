"""Batches in flight on a GPU: the CPU's latents whatever goes together, and whose stream comes first."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import textured, tiny_model

import ckbd
from ckbd.kernels import tune
from ckbd.model import file as modelfile

sys.path[:0] = [str(Path(__file__).parent)]

from choices import own_choices  # noqa: E402, F401

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(of the CPU, of the GPU): the same model."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    modelfile.save(tiny_model(), path)
    return [ckbd.load(path, device=device) for device in ("cpu", "cuda")]


SIZES = ((64, 64), (1, 1), (200, 170), (60, 64), (64, 50), (90, 300), (64, 64), (1, 700))


@pytest.fixture(scope="module")
def mixed(both):
    """Streams of all sizes, some without colour, and their pixels by the CPU."""
    pictures = [textured(h, w, i) for i, (h, w) in enumerate(SIZES)]
    pictures[3] = pictures[3][..., 0]
    streams = both[0].encode(pictures, [10 * (i + 1) for i in range(len(SIZES))])
    return streams, [torch.from_numpy(p.rgb) for p in both[0].decode_pictures(streams)]


@pytest.mark.parametrize("batch_count", [1, 3, 256])
def test_an_iterator_gives_the_cpu_s_latents_and_nearly_its_pixels(both, mixed, batch_count, monkeypatch):
    streams, want = mixed
    zone, found = type(both[1].decoder.zone), []
    real = zone.latents

    def look(self, state):
        y_hat = real(self, state)
        found.extend(y[0].to(torch.int16).cpu().numpy() for y in y_hat)
        return y_hat

    monkeypatch.setattr(zone, "latents", look)
    out = list(both[1].decode_iter(streams * 4, layout="HWC", batch_count=batch_count))
    assert [name for name, _ in out] == list(range(4 * len(streams))) and len(found) == len(out)
    latents = both[0].decode_latents(streams)
    for n, (_, x) in enumerate(out):
        assert x.device.type == "cuda" and x.shape == want[n % len(want)].shape
        assert (x.cpu().int() - want[n % len(want)].int()).abs().max() <= 4
    # Batches end in any order, so a latent is looked for among all.
    for y_hat in latents:
        assert sum(y_hat.shape == other.shape and np.array_equal(y_hat, other) for other in found) >= 4
    (alone,) = both[1].decode_tensors(streams[2:3], layout="HWC")
    assert (alone.int() - out[2][1].int()).abs().max() <= 1


@pytest.mark.parametrize("options", [{"region": (5, 3, 48, 60)}, {"scale": 1 / 2}, {"scale": 1 / 8}], ids=str)
def test_regions_and_smaller_pictures_are_nearly_the_cpu_s(both, options):
    streams = both[0].encode([textured(64, 64), textured(64, 64, 1)[..., 0], textured(200, 170)], 70)
    cpu, gpu = (codec.decode_pictures(streams, **options) for codec in both)
    for a, b in zip(gpu, cpu, strict=True):
        assert a.rgb.shape == b.rgb.shape and np.abs(a.rgb.astype(int) - b.rgb).max() <= 4


def test_results_may_be_used_at_once_on_the_stream_of_the_caller(both, mixed):
    """Made on a stream of the iterator's own, kept while others are made, and right when they are read."""
    streams, _ = mixed
    first = {n: x.clone() for n, x in both[1].decode_iter(streams)}
    side = torch.cuda.Stream()
    for _ in range(20):
        with torch.cuda.stream(side):
            for n, x in both[1].decode_iter(streams * 2, batch_count=3):
                y = x.float() + 1
                del x
                assert torch.equal(y - 1, first[n % len(streams)].float())


def test_one_bad_stream_of_a_batch(both, mixed):
    streams, want = mixed
    bad = streams[2][:-6] + bytes([streams[2][-6] ^ 1]) + streams[2][-5:]
    out = [x for _, x in both[1].decode_iter([*streams[:2], bad, *streams[3:]], layout="HWC", on_error="yield")]
    assert isinstance(out[2], ckbd.FormatError)
    for n in (0, 1, *range(3, len(streams))):
        assert (out[n].cpu().int() - want[n].int()).abs().max() <= 4


def test_the_callers_tensors_and_floats(both, mixed):
    streams, _ = mixed
    out = torch.zeros((1, 3, 64, 64), device="cuda", dtype=torch.float16)
    (x,) = both[1].decode_tensors(streams[:1], dtype=torch.float16, out=out)
    assert x.data_ptr() == out.data_ptr() and out.max() > 0
    with pytest.raises(ValueError, match="on cuda"):
        both[1].decode_tensors(streams[:1], out=torch.zeros((1, 3, 64, 64), dtype=torch.uint8))


def test_the_callers_tensors_are_written_after_what_the_caller_has_queued(both, mixed):
    streams, _ = mixed
    (want,) = both[1].decode_tensors(streams[2:3])
    busy, out = torch.zeros(1 << 28, device="cuda"), torch.empty((1, *want.shape), dtype=torch.uint8, device="cuda")
    for _ in range(5):
        for _ in range(40):
            busy += 1
        out.zero_()
        (x,) = both[1].decode_tensors(streams[2:3], out=out)
        assert torch.equal(x, want)


def test_tensors_of_the_callers_stream_become_streams(both):
    side, x = torch.cuda.Stream(), torch.from_numpy(textured(70, 130)).permute(2, 0, 1).cuda()
    (want,) = both[1].encode([x])
    with torch.cuda.stream(side):
        busy = torch.zeros(1 << 28, device="cuda")
        for _ in range(40):
            busy += 1
        made = (x.float() / 255).clone()
        assert [s for _, s in both[1].encode_iter([made])] == [want]


def test_a_side_that_kernels_cannot_take_is_an_error_of_its_own(both, mixed):
    (long,) = both[0].encode([np.zeros((1, (1 << 19) + 65, 3), np.uint8)])
    out = [x for _, x in both[1].decode_iter([mixed[0][0], long, mixed[0][0]], on_error="yield")]
    assert isinstance(out[1], ckbd.FormatError) and out[1].field == "width" and torch.equal(out[0], out[2])


def test_floats_in_full_are_nearer(both, mixed):
    streams, want = mixed
    for (_, x), rgb in zip(both[1].decode_iter(streams, layout="HWC", half=False), want, strict=True):
        assert (x.cpu().int() - rgb.int()).abs().max() <= 1


def test_tensors_of_the_gpu_become_streams(both):
    x = torch.from_numpy(textured(70, 130)).permute(2, 0, 1).cuda()
    ((_, stream),) = both[1].encode_iter([x], 60)
    (latents,) = both[0].decode_latents([stream])
    assert latents.shape[1:] == (8, 12)
    assert np.array_equal(latents, both[1].decode_latents([stream])[0])


def test_warming_up_measures_what_a_decode_asks_for(both, mixed, monkeypatch):
    assert all(" s" in line for line in both[1].warm_up())
    monkeypatch.setattr(tune, "_milliseconds", lambda run: pytest.fail("measured again"))
    list(both[1].decode_iter(mixed[0]))
    assert tune.chosen(torch.device("cuda", torch.cuda.current_device()))
