"""The decoder without torch: the latents and the errors of the other one, its pixels within one, and no torch."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from conftest import textured
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from view_cases import with_preview

import ckbd
from ckbd.codec import container, payload
from ckbd.codec.container import FormatError, Stream
from ckbd.codec.view import view
from ckbd.kernels import numerics
from ckbd.light import choice, decoder, zone
from ckbd.light.decoder import Decoder
from ckbd.model import proof
from ckbd.model.model import gain_at

SIZES = [(1, 1), (64, 64), (67, 50), (60, 300), (130, 65), (2, 700)]


@pytest.fixture(scope="module")
def light(tiny_path):
    return Decoder(tiny_path)


@pytest.fixture(scope="module")
def streams(tiny):
    """A stream of each size and of three qualities; some without colour, one with alpha and a profile."""
    pictures = [ckbd.Picture(textured(h, w, i)) for i, (h, w) in enumerate(SIZES)]
    pictures[2] = ckbd.Picture(np.repeat(pictures[2].rgb[..., :1], 3, axis=2), gray=True)
    alpha = np.random.default_rng(0).integers(0, 256, SIZES[3]).astype(np.uint8)
    pictures[3] = ckbd.Picture(pictures[3].rgb, alpha, icc=b"\0" * 16 + b"RGB " + b"\0" * 108)
    return [s for q in (1, 50.5, 100) for s in tiny.encode(pictures, q)]


def test_latents_are_the_same_to_the_bit_and_pixels_within_one(tiny_path, light, streams):
    codec = ckbd.load(tiny_path, precision="float32")
    for stream, want, latents in zip(
        streams, codec.decode_pictures(streams), codec.decode_latents(streams), strict=True
    ):
        assert np.array_equal(light.latents(stream), latents) and latents.dtype == light.latents(stream).dtype
        got = light.decode(stream)
        assert got.rgb.shape == want.rgb.shape and got.gray == want.gray and got.icc == want.icc
        assert np.abs(got.rgb.astype(int) - want.rgb).max() <= 1 and (got.rgb != want.rgb).mean() < 5e-3
        assert (got.alpha is None) == (want.alpha is None)
        assert got.alpha is None or np.array_equal(got.alpha, want.alpha)
        assert not got.gray or (got.rgb == got.rgb[..., :1]).all()


@pytest.mark.parametrize("kind", ["tiny", "preview"])
def test_views_are_those_of_the_other_decoder(kind, tiny_path, tmp_path, streams):
    """Regions and smaller pictures, with a preview in the model file and without."""
    path = tiny_path if kind == "tiny" else with_preview(tiny_path, tmp_path / "preview.safetensors")
    light, codec = Decoder(path), ckbd.load(path, precision="float32")
    asked = [{"scale": s} for s in (1 / 2, 1 / 4, 1 / 8)]
    asked += [{"region": (0, 0, 1, 1)}, {"region": (0, 0, 1, 1), "scale": 1 / 8}]
    for stream in streams[:6]:
        height, width = container.peek(stream)
        region = width // 3, height // 2, width, max(height // 2 + 1, height - 1)
        for options in [*asked, {"region": region}, {"region": region, "scale": 1 / 2}]:
            got, want = light.decode(stream, view(**options)), codec.decode_pictures([stream], **options)[0]
            assert got.rgb.shape == want.rgb.shape and got.gray == want.gray
            assert np.abs(got.rgb.astype(int) - want.rgb).max() <= 1 and (got.rgb != want.rgb).mean() < 2e-2
            assert (got.alpha is None) == (want.alpha is None)
            assert got.alpha is None or np.array_equal(got.alpha, want.alpha)
    with pytest.raises(ValueError, match="region: expected 0 <= left"):
        light.decode(streams[0], view((0, 0, 2, 1)))


def test_numbers_beyond_all_use_are_no_warning(tiny_path, tmp_path, streams):
    """Of a preview, whose means overflow when it is loaded."""
    path = with_preview(tiny_path, tmp_path / "preview.safetensors")
    with safe_open(str(path), "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    huge = torch.full(tensors["preview.weight"].shape, 3e38)
    save_file(tensors | {"preview.weight": huge}, path, metadata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Decoder(path).decode(streams[1], view(scale=1 / 8)).rgb.shape == (8, 8, 3)


def test_stripes_change_nothing(light, streams, monkeypatch):
    want = [light.latents(s) for s in streams]
    for sites in (1, 33):
        monkeypatch.setattr(zone, "STRIPE", sites)
        assert all(np.array_equal(light.latents(s), w) for s, w in zip(streams, want, strict=True))


@pytest.mark.parametrize("model", ["small", "base"])
def test_the_shipped_models(model):
    codec, picture = ckbd.load(model, precision="float32"), textured(150, 200)
    (stream,) = codec.encode([picture], 60)
    made = Decoder(model)
    assert np.array_equal(made.latents(stream), codec.decode_latents([stream])[0])
    assert np.abs(made.decode(stream).rgb.astype(int) - codec.decode_pictures([stream])[0].rgb).max() <= 1


def outcome(decode, stream):
    try:
        decode(stream)
    except FormatError as error:
        return error.field, str(error)


def test_damaged_streams_raise_what_the_other_decoder_raises(tiny, light, streams):
    """Cut anywhere, or one byte changed, with the checksum put right where it would hide the rest."""
    stream, found = streams[8], set()
    s = container.parse(stream)
    bad = [stream[:n] for n in range(0, len(stream), 7)] + [stream + b"x"]
    for at in range(0, len(s.payload), 3):
        payload = bytearray(s.payload)
        payload[at] ^= 0x55
        bad.append(container.pack(Stream(s.header, bytes(payload))))
    for one in bad:
        outcomes = [outcome(tiny.decode_pictures, [one]), outcome(light.decode, one)]
        assert outcomes[0] == outcomes[1]
        found.add(outcomes[0] and outcomes[0][0])
    assert len(found - {None}) > 3


def test_another_model_and_too_large_a_picture_are_refused(tiny_path, streams):
    with pytest.raises(FormatError, match="made by model .*, this decoder has"):
        Decoder("small").decode(streams[1])
    with pytest.raises(FormatError, match="pixels"):
        Decoder(tiny_path, max_pixels=100).decode(streams[1])


def test_model_files_are_checked_as_ever(tmp_path, tiny_path):
    with pytest.raises(FileNotFoundError, match="no such file or model"):
        Decoder("nobody")
    (tmp_path / "m.safetensors").write_bytes(tiny_path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a safetensors file"):
        Decoder(tmp_path / "m.safetensors")
    with safe_open(str(tiny_path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        save_file(tensors | {"g_s.up.bias": tensors["g_s.up.bias"].to(dtype)}, tmp_path / "m.safetensors", metadata)
        for load in (Decoder, ckbd.load):
            with pytest.raises(ValueError, match="tensor g_s.up.bias: its dtype is none of NumPy's"):
                load(tmp_path / "m.safetensors")
    save_file(tensors, tmp_path / "m.safetensors", metadata | {"config": "[" * 100_000})
    with pytest.raises(ValueError, match="config: "):
        Decoder(tmp_path / "m.safetensors")


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="no /dev/stdin here")
def test_a_stream_comes_through_a_pipe(tiny, tiny_path, tmp_path, small_env):
    (stream,) = tiny.encode([textured(64, 70)])
    command = [sys.executable, "-m", "ckbd.cli", "decode", "/dev/stdin", str(tmp_path / "a.png")]
    done = subprocess.run([*command, "--model", str(tiny_path)], input=stream, capture_output=True, env=small_env)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.png") as pil:
        assert pil.size == (70, 64)


def test_a_device_that_is_not_there_is_said(tiny, tiny_path, tmp_path, small_env):
    (tmp_path / "a.ckbd").write_bytes(tiny.encode([textured(64, 70)])[0])
    command = [sys.executable, "-m", "ckbd.cli", "decode", str(tmp_path / "a.ckbd"), str(tmp_path / "a.png")]
    done = subprocess.run(
        [*command, "--model", str(tiny_path), "--device", "nowhere"], capture_output=True, text=True, env=small_env
    )
    assert done.returncode == 2 and "device 'nowhere'" in done.stderr and not (tmp_path / "a.png").exists()


def test_numbers_are_those_of_numerics():
    assert (payload.R_MAX, decoder.MEAN_STEP, proof.ACT_MAX) == (numerics.R_MAX, numerics.MEAN_STEP, numerics.ACT_MAX)
    assert payload.Z_MAX == numerics.ACT_MAX
    assert numerics.WEIGHT_MAX == proof.WEIGHT_MAX


def test_products_that_are_not_exact_are_found_out(monkeypatch, tiny_path):
    """As bfloat16 would make them: sums of small numbers are right still."""
    real = np.array_equal

    def rounded(a, b):
        bits = a.astype(np.float32).view(np.uint32)
        return real((bits + 0x8000 & 0xFFFF0000).view(np.float32), b)

    assert zone.exact()
    zone.exact.cache_clear()
    try:
        monkeypatch.setattr(zone.np, "array_equal", rounded)
        with pytest.raises(ValueError, match="NumPy's products in float32 are not exact here"):
            Decoder(tiny_path)
    finally:
        zone.exact.cache_clear()


@pytest.mark.parametrize("name, symbols", [("z symbol", 128), ("residual", -1024)])
def test_symbols_beyond_their_range_are_refused(light, streams, monkeypatch, name, symbols):
    """Tables of another model could hold them; what comes after counts on it that they are none."""
    step = "z_batch" if name == "z symbol" else "phase_batch"
    real = getattr(payload._rans, step)

    def beyond(coders, *arrays, threads):
        errors = real(coders, *arrays, threads=threads)
        arrays[-1][0][3] = symbols
        return errors

    monkeypatch.setattr(payload._rans, step, beyond)
    with pytest.raises(FormatError, match=f"payload.*a {name} is beyond"):
        light.latents(streams[1])


def test_gains_are_those_of_the_model(light, monkeypatch):
    log = np.random.default_rng(1).normal(size=light.log_ungain.shape).astype(np.float32)
    monkeypatch.setattr(light, "log_ungain", log)
    for quality in (1.0, 1.5, 33, 50.5, 51, 99.5, 100):
        want = gain_at(torch.from_numpy(log), torch.tensor([quality]))[0, :, 0, 0]
        np.testing.assert_allclose(np.exp(light._log_gain(quality)), want, rtol=1e-5)


def test_it_serves_few_pictures_that_are_not_large(tiny, tiny_path, monkeypatch):
    heads = [tiny.encode([textured(side, side)])[0][: container.HEAD] for side in (60, 65)]  # padded to 64 and 128
    heads.append(b"no stream")
    assert not choice.serves(tiny_path, heads), "torch is here"
    monkeypatch.delitem(sys.modules, "torch")
    assert choice.serves(tiny_path, heads)
    for name, most in (("ONE", 128 * 128), ("ALL", 64 * 64 + 128 * 128)):
        with monkeypatch.context() as patch:
            patch.setattr(choice, name, most)
            assert choice.serves(tiny_path, heads)
            patch.setattr(choice, name, most - 1)
            assert not choice.serves(tiny_path, heads)
    assert not choice.serves(tiny_path, [*heads, None]), "only files can be read twice"
    with monkeypatch.context() as patch:
        patch.setattr(choice.arrays, "format_of", lambda model: "ckbd-variant-1")
        assert not choice.serves(tiny_path, heads)
        assert choice.serves(None, heads), "nobody has the model of these, so it is not asked"
        patch.setenv("CKBD_MODELS", str(tiny_path.parent))
        assert not choice.serves(None, heads)
    monkeypatch.setattr(choice.zone, "exact", lambda: False)
    assert not choice.serves(tiny_path, heads) and not choice.serves(None, heads)


COMMAND = """
import json, os, sys
from ckbd import cli
status = cli.main(sys.argv[1:])
print(json.dumps([status, "torch" in sys.modules, os.environ["OPENBLAS_NUM_THREADS"]]))
"""


@pytest.mark.parametrize(
    "more, torch",
    [
        ([], False),
        (["--precision", "float32"], False),
        (["--precision", "bfloat16"], True),
        (["--backend", "torch"], True),
    ],
)
def test_the_command_needs_no_torch_for_a_few(tiny, tiny_path, tmp_path, more, torch, small_env):
    (tmp_path / "in").mkdir()
    for i in range(2):
        (tmp_path / "in" / f"{i}.ckbd").write_bytes(tiny.encode([textured(70, 90, i)])[0])
    (tmp_path / "in" / "bad.ckbd").write_bytes(b"nothing of ours")
    arguments = ["decode", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(tiny_path), *more]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, env=small_env, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [1, torch, "1"], done.stderr
    assert "bad.ckbd: magic" in done.stderr and len(done.stderr.splitlines()) == 1
    for i in range(2):
        with Image.open(tmp_path / "out" / f"{i}.png") as pil:
            assert pil.size == (90, 70)
