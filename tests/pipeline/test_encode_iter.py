"""encode_iter, and tensors as images: the streams of encode, in order."""

import threading
import time

import numpy as np
import pytest
import torch
from conftest import textured
from PIL import Image

import ckbd
from ckbd.codec import image, inputs

SIZES = [(64, 64), (1, 1), (100, 70), (64, 60)]


@pytest.fixture(scope="module")
def pictures():
    return [textured(h, w, i) for i, (h, w) in enumerate(SIZES)]


def test_streams_are_those_of_encode(tiny, pictures, tmp_path):
    want = tiny.encode(pictures, 60)
    path = tmp_path / "p.png"
    Image.fromarray(pictures[2]).save(path)
    given = [pictures[0], ("one", pictures[1]), path, torch.from_numpy(pictures[3])]
    out = list(tiny.encode_iter(iter(given), 60))
    assert out == list(zip([0, "one", path, 3], want, strict=True))
    assert [s for _, s in tiny.encode_iter(pictures, [10, 20, 30, 40], 0)] == tiny.encode(
        pictures, [10, 20, 30, 40], 0
    )
    assert list(tiny.encode_iter([])) == []
    assert list(tiny.encode_iter(pictures, "60")) == list(enumerate(want)), "a number in words, as encode takes it"


@pytest.mark.parametrize("kind", [lambda array: array, torch.from_numpy])
def test_what_is_given_may_be_written_over_at_once(tiny, monkeypatch, kind):
    made = [textured(64, 64, i) for i in range(6)]
    buffer, real = np.zeros_like(made[0]), tiny.encoder.encode

    def late(images, quality, effort):
        time.sleep(0.05)  # the source is further by then
        return real(images, quality, effort)

    def source():
        for one in made:
            buffer[:] = one
            yield kind(buffer)

    want = tiny.encode(made)
    monkeypatch.setattr(tiny.encoder, "encode", late)
    assert [s for _, s in tiny.encode_iter(source())] == want


def test_an_image_that_cannot_be_coded_takes_no_neighbour_along(tiny, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    given = [pictures[0], tmp_path / "bad.png", tmp_path / "none.png", torch.full((3, 9, 9), 2.0), pictures[1]]
    out = [x for _, x in tiny.encode_iter(given, on_error="yield")]
    assert [type(x) for x in out] == [bytes, ValueError, FileNotFoundError, ValueError, bytes]
    assert [out[0], out[4]] == tiny.encode(pictures[:2])
    with pytest.raises(ValueError, match="no image"):
        list(tiny.encode_iter(given))
    small = ckbd.Codec(tiny.encoder, tiny.decoder, tiny.encoder.team, tiny.encoder.device)
    with pytest.raises(TypeError, match="image: expected a PIL image"):
        list(small.encode_iter([5], on_error="yield"))


def test_what_cannot_be_meant_is_refused(tiny, pictures):
    with pytest.raises(ValueError, match="quality: expected 1 to 100, got 0"):
        tiny.encode_iter(pictures, 0)
    with pytest.raises(ValueError, match="effort: expected 0 or 1, got 7"):
        tiny.encode_iter(pictures, effort=7)
    with pytest.raises(ValueError, match="on_error"):
        tiny.encode_iter(pictures, on_error="no")
    with pytest.raises(ValueError, match="quality: there are fewer than images, none is left for 1"):
        list(tiny.encode_iter(pictures, [50]))
    with pytest.raises(TypeError, match="expected several"):
        list(tiny.encode_iter("picture.png"))
    for one in (pictures[0], torch.from_numpy(pictures[0]), Image.fromarray(pictures[0]), ckbd.Picture(pictures[0])):
        with pytest.raises(TypeError, match="images: expected several, got a single one"):
            tiny.encode_iter(one)
    with pytest.raises(ValueError, match="quality: expected 1 to 100, got 101"):
        list(tiny.encode_iter(pictures, [50, 101, 50, 50], on_error="yield"))
    assert list(tiny.encode_iter(np.stack([pictures[0]] * 2), np.float32(50))) == list(
        tiny.encode_iter([pictures[0]] * 2)
    )


def test_pictures_too_large_for_the_codec_are_named(tiny_path, pictures):
    codec = ckbd.load(tiny_path, max_pixels=5000)
    out = [x for _, x in codec.encode_iter(pictures, on_error="yield")]
    assert isinstance(out[2], ValueError) and "max_pixels" in str(out[2])
    assert [out[0], out[1], out[3]] == codec.encode([pictures[0], pictures[1], pictures[3]])


def test_tensors_are_pictures(tiny, pictures):
    rgb = pictures[2]
    want = tiny.encode([rgb])
    chw = torch.from_numpy(rgb).permute(2, 0, 1)
    for x in (chw, chw.contiguous(), torch.from_numpy(rgb), chw.float() / 255, chw.double() / 255):
        assert tiny.encode([x]) == want
    assert tiny.encode(torch.stack([chw, chw])) == want * 2, "a batch is a sequence of images"
    nearly = torch.tensor([-1e-4, 1 + 1e-4]).view(1, 1, 2).expand(3, 1, 2)
    assert image.psnr(inputs.from_torch(nearly).rgb, np.array([[[0] * 3, [255] * 3]], np.uint8)) == 100
    gray = torch.from_numpy(rgb[..., 0])
    assert tiny.encode([gray]) == tiny.encode([rgb[..., 0]])
    half = inputs.from_torch((chw.float() / 255).half())
    assert np.abs(half.rgb.astype(int) - rgb).max() <= 1
    assert inputs.from_torch(torch.zeros(3, 5, 3, dtype=torch.uint8)).rgb.shape == (5, 3, 3), "channels first"
    decoded = tiny.decode_tensors(want)
    assert tiny.decode_tensors(tiny.encode(decoded))[0].shape == decoded[0].shape, "there and back"
    with pytest.raises(TypeError, match="got a single one"):
        tiny.encode(chw)
    for wrong, message in (
        (torch.zeros(5, 6, 7), r"expected \(C, H, W\), \(H, W, C\) or \(H, W\), C from 1 to 4, got \(5, 6, 7\)"),
        (torch.zeros(3, 0, 6), "got"),
        (torch.zeros(3, 5, 6, dtype=torch.int16), "expected uint8, uint16, bool or floating point"),
        (torch.full((3, 5, 6), 1.5), r"expected values in \[0, 1\], got 1.5 to 1.5; 0 is to be black, 1 white"),
        (torch.full((3, 5, 6), 1.05), r"got 1.05 to 1.05; clamp\(0, 1\) makes them so"),
        (torch.zeros(3, 5, 6).to_sparse(), "torch.float32"),
        (torch.zeros(3, 5, 6, device="meta"), "meta"),
        (torch.full((3, 5, 6), float("nan")), r"expected values in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny.encode([wrong])


def test_images_are_read_on_several_threads(tmp_path):
    """Warnings about size are errors on each of them, and the process's filters are as before."""
    import warnings

    paths = []
    for i in range(12):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(textured(40, 40, i)).save(paths[-1])
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    refused = []

    def go():
        for path in paths:
            try:
                image.read(path)
            except ValueError:
                refused.append(path)

    try:
        Image.MAX_IMAGE_PIXELS = 1000
        readers = [threading.Thread(target=go) for _ in range(4)]
        for t in readers:
            t.start()
        for t in readers:
            t.join()
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    assert len(refused) == 48 and warnings.filters == before


def test_batches_of_several_are_the_same(tiny, pictures, monkeypatch):
    """As on a GPU: one that cannot be coded is found among its neighbours."""
    monkeypatch.setattr(tiny._encoding, "batch", 3)
    want = tiny.encode(pictures, 60)
    given = [pictures[0], torch.full((3, 9, 9), 2.0), *pictures[1:]]
    out = [x for _, x in tiny.encode_iter(given, 60, on_error="yield")]
    assert isinstance(out[1], ValueError) and [out[0], *out[2:]] == want
    real = tiny.encoder.encode

    def narrow(images, quality, effort):
        if any(p.rgb.shape == pictures[2].shape for p in images):
            raise ValueError("too much of it")
        return real(images, quality, effort)

    monkeypatch.setattr(tiny.encoder, "encode", narrow)
    out = [x for _, x in tiny.encode_iter(pictures, 60, on_error="yield")]
    assert isinstance(out[2], ValueError) and [out[0], out[1], out[3]] == [want[0], want[1], want[3]]
