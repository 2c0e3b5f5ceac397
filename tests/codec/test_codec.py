"""The codec end to end with a small untrained model: any picture in, the same latents out, everywhere."""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, textured, tiny_model
from PIL import Image, ImageCms
from plain_decoder import decode as plain_decode
from plain_decoder import load_model as plain_model
from plain_decoder import model_identity
from safetensors.torch import save_file

import ckbd
from ckbd import FormatError, _rans
from ckbd.codec import batches, container, image
from ckbd.model import arrays
from ckbd.model import file as modelfile

GOLDEN = Path(__file__).parents[1] / "golden"


def test_loading_imports_no_compiler(tiny_path, small_env):
    """A model's layers wait on the device "meta"; arithmetic there takes 1.6 s and 140 MB for torch._dynamo."""
    code = f"import sys, ckbd; ckbd.load({str(tiny_path)!r}); assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=small_env, check=True)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 200), (63, 65), (64, 64), (129, 70)])
def test_any_size_comes_back_at_its_size(tiny, height, width):
    (data,) = tiny.encode([textured(height, width)], quality=70)
    (out,) = tiny.decode([data])
    assert (out.mode, out.size) == ("RGB", (width, height))
    assert len(out.tobytes()) == 3 * height * width


def test_decoder_reproduces_the_encoders_latents(tiny, tiny_path):
    """What the encoder saw as symbols is what the decoder reads, and y_hat follows from them."""
    pictures = [image.from_array(textured(100, 180, seed)) for seed in range(3)]
    for picture, data in zip(pictures, tiny.encode(pictures, quality=[2.5, 50, 75.5]), strict=True):
        stream = tiny.decoder.parse(data)
        ((z, phases),) = tiny.encoder.symbols([picture], [stream.header.quality2 / 2])
        decoded = plain_decode(data, plain_model(tiny_path))
        assert np.array_equal(decoded.z.reshape(-1), z)
        for (k, r), got_k, got_r in zip(phases, decoded.k, decoded.r, strict=True):
            assert np.array_equal(got_k.reshape(-1), k) and np.array_equal(got_r.reshape(-1), r)
        (y_hat,) = tiny.decode_latents([data])
        assert np.array_equal(y_hat, decoded.y_hat)


def test_batch_equals_single_for_streams_of_mixed_sizes_and_qualities(tiny, monkeypatch):
    monkeypatch.setitem(batches.MAX_BATCH_PIXELS, "cpu", 1 << 30)
    sizes = [(64, 64), (65, 130), (50, 60), (128, 100), (33, 64), (64, 1), (65, 128)]
    streams = [tiny.encode([textured(h, w, i)], quality=10 + 12 * i)[0] for i, (h, w) in enumerate(sizes)]
    alone = [tiny.decode_latents([s])[0] for s in streams]
    pictures = tiny.decode_pictures(streams)
    for s, picture, (h, w) in zip(streams, pictures, sizes, strict=True):
        assert picture.rgb.shape == (h, w, 3)
        (single,) = tiny.decode_pictures([s])
        assert np.abs(single.rgb.astype(int) - picture.rgb).max() <= 1, "g_s is float: off by one at most"
    parsed = [tiny.decoder.parse(s) for s in streams]
    for batch in batches.groups(sizes, 1 << 30):
        y_hat = tiny.decoder.latents([parsed[i] for i in batch]).to(torch.int16).numpy()
        for i, latents in zip(batch, y_hat, strict=True):
            assert np.array_equal(latents, alone[i])


def test_threads_and_carrier_change_no_latent(tiny, tiny_path):
    (data,) = tiny.encode([textured(130, 200)], quality=80)
    (want,) = tiny.decode_latents([data])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            for carrier in (torch.float32, torch.float64):
                other = ckbd.load(tiny_path, threads=threads, carrier=carrier)
                assert other.model_hash == tiny.model_hash
                assert np.array_equal(other.decode_latents([data])[0], want)
    finally:
        torch.set_num_threads(before)


def test_autocast_around_the_codec_does_not_reach_the_exact_zone(tiny):
    (data,) = tiny.encode([textured(70, 70)], quality=50)
    (want,) = tiny.decode_latents([data])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(tiny.decode_latents([data])[0], want)


def png(im: Image.Image, **options) -> Image.Image:
    """Through a file and back, so that Pillow reports the mode it reads."""
    buffer = io.BytesIO()
    im.save(buffer, "PNG", **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_picture_kinds_come_back_as_a_person_expects(tiny):
    rgb = Image.fromarray(textured(40, 50))
    alpha = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    gray = rgb.convert("L")
    gray_alpha = gray.copy()
    gray_alpha.putalpha(alpha)
    wide = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    kinds = [
        (rgb, "RGB"),
        (rgba, "RGBA"),
        (gray, "L"),
        (gray_alpha, "LA"),
        (wide, "L"),
        (rgb.quantize(32), "RGB"),
        (rgb.convert("CMYK"), "RGB"),
        (gray.convert("1"), "L"),
    ]
    out = tiny.decode(tiny.encode([k for k, _ in kinds], quality=100))
    for (source, mode), got in zip(kinds, out, strict=True):
        assert (got.mode, got.size) == (mode, source.size)
    for got in (out[1], out[3]):
        assert np.array_equal(np.asarray(got.getchannel("A")), np.asarray(alpha)), "alpha is lossless"
    assert np.array_equal(np.asarray(out[2]), np.asarray(out[4])), "16-bit gray is the same picture"


def test_icc_profile_is_carried(tiny):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    im = png(Image.fromarray(textured(20, 20)), icc_profile=profile)
    (got,) = tiny.decode(tiny.encode([im]))
    assert got.info["icc_profile"] == profile


def test_exif_rotation_is_applied(tiny):
    im = Image.fromarray(textured(20, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    (got,) = tiny.decode(tiny.encode([png(im, exif=exif)]))
    assert got.size == (20, 60)


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(quality=0.5), "quality: expected 1 to 100, got 0.5"),
        (dict(quality=101), "quality: expected 1 to 100, got 101"),
        (dict(quality=float("nan")), "quality: expected 1 to 100, got nan"),
        (dict(quality=[5, 6]), "quality: expected one number or 1 of them, got 2"),
    ],
)
def test_encode_refuses_bad_qualities(tiny, bad, message):
    with pytest.raises(ValueError, match=message):
        tiny.encode([textured(8, 8)], **bad)


def test_encode_refuses_what_is_no_picture(tiny):
    with pytest.raises(TypeError, match="image: expected a PIL image, a numpy array, a tensor or a Picture, got str"):
        tiny.encode(["photo.jpg"])
    with pytest.raises(ValueError, match="array: expected uint8, uint16 or bool, got float64; where 1 is white"):
        tiny.encode([np.zeros((4, 4, 3))])


def test_the_wrong_model_is_named_with_the_right_one(tiny, tmp_path):
    modelfile.save(tiny_model(1), tmp_path / "other.safetensors")
    other = ckbd.load(tmp_path / "other.safetensors")
    (data,) = tiny.encode([textured(8, 8)])
    with pytest.raises(FormatError) as caught:
        other.decode([data])
    assert tiny.model_hash in str(caught.value) and other.model_hash in str(caught.value)
    assert (caught.value.field, caught.value.offset) == ("model", 4)


def test_headers_that_claim_too_much_are_refused_before_allocation(tiny):
    (data,) = tiny.encode([textured(8, 8)])
    s = container.parse(data)
    claim = container.Header(s.header.model, 100, 65535, 65535, lanes_log2=0)
    with pytest.raises(FormatError, match="max_pixels"):
        tiny.decode([container.pack(container.Stream(claim, bytes(100)))])
    claim = container.Header(s.header.model, 100, 11000, 11000, lanes_log2=0)
    with pytest.raises(FormatError, match="100 bytes cannot hold"):
        tiny.decode([container.pack(container.Stream(claim, bytes(100)))])


def test_max_pixels_is_the_callers_to_set(tiny_path, tiny):
    strict = ckbd.load(tiny_path, max_pixels=99)
    (data,) = tiny.encode([textured(10, 10)])
    with pytest.raises(FormatError, match="more than the limit of 99"):
        strict.decode([data])
    with pytest.raises(ValueError, match="more than the limit of 99"):
        strict.encode([textured(10, 10)])


def test_alpha_that_expands_too_far_or_not_at_all_is_refused(tiny):
    (data,) = tiny.encode([textured(30, 30)])
    s = container.parse(data)
    for body in (
        zlib.compress(bytes(10**7)),
        zlib.compress(bytes(899)),
        b"junk",
        zlib.compress(bytes(900)) + b"x",
        zlib.compress(bytes(900))[:-4],
    ):
        bad = container.pack(container.Stream(s.header, s.payload, sections={container.ALPHA: body}))
        with pytest.raises(FormatError) as caught:
            tiny.decode([bad])
        assert caught.value.field == "alpha"


def test_quality_moves_bytes_and_error_in_opposite_directions(tiny):
    picture = textured(128, 128)
    streams = [tiny.encode([picture], quality=q)[0] for q in (5, 35, 65, 95)]
    errors = [np.square(np.asarray(im).astype(float) - picture).mean() for im in tiny.decode(streams)]
    assert [len(s) for s in streams] == sorted(len(s) for s in streams)
    assert errors == sorted(errors, reverse=True)


def test_model_identity_is_that_of_the_document(tiny_path, tiny):
    assert model_identity(plain_model(tiny_path)).hex() == tiny.model_hash


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda t: t.pop("exact.hidden.bias"), "exact.hidden.bias is missing"),
        (lambda t: t.update({"exact.hidden.bias": t["exact.hidden.bias"][1:]}), "exact.hidden.bias: expected"),
        (
            lambda t: t.update({"exact.hidden.weight": t["exact.hidden.weight"].short()}),
            "exact.hidden.weight: expected",
        ),
        (lambda t: t["exact.hidden.bias"].fill_(1 << 24), "hidden: output channel [0-9]+ can reach"),
        (lambda t: t["table.y.freq"][3].add_(1), "y_freq"),
        (lambda t: t.pop("g_s.up.bias"), "g_s.up.bias is missing"),
        (lambda t: t.pop("table.z.low"), "table.z.low is missing"),
        (lambda t: t.update({"table.z.low": t["table.z.low"][:3]}), "table.z.low: expected"),
        (lambda t: t["exact.hidden.weight"][0, 0].fill_(-128), "expected .w. <= 127, got 128"),
        (lambda t: t["g_a.out.weight"][0, 0, 0, 0].fill_(float("nan")), "g_a.out.weight holds values that are not"),
        (lambda t: t.update({"g_s.blocks8.9.reduce.bias": torch.zeros(1)}), "no place for tensor g_s.blocks8.9"),
        (lambda t: t.update({"exact.note": torch.zeros(1)}), "exact.note: expected integers"),
    ],
)
def test_damaged_model_files_are_refused(tmp_path, damage, message):
    tensors = {name: t.clone() for name, t in modelfile.export(tiny_model()).items()}
    damage(tensors)
    metadata = {"format": arrays.FORMAT, "config": json.dumps(dataclasses.asdict(TINY))}
    save_file(tensors, tmp_path / "bad.safetensors", metadata)
    with pytest.raises(ValueError, match=message):
        ckbd.load(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("device", ["nonsense", "cuda:77"])
def test_devices_that_are_not_there_are_refused(tiny_path, device):
    with pytest.raises(ValueError, match=f"device '{device}'"):
        ckbd.load(tiny_path, device=device)


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or model"):
        ckbd.load("nonsense")
    (tmp_path / "x.safetensors").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="not a safetensors file"):
        ckbd.load(tmp_path / "x.safetensors")


# Golden streams: changing what one decodes to is a new format version.


def golden_cases():
    return json.loads((GOLDEN / "golden.json").read_text())["streams"]


def sha(a: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(a).astype("<i2").tobytes()).hexdigest()


@pytest.mark.parametrize("name", sorted(golden_cases()))
def test_golden_streams_decode_to_their_latents(name):
    want = golden_cases()[name]
    data = (GOLDEN / f"{name}.ckbd").read_bytes()
    assert hashlib.sha256(data).hexdigest() == want["stream"]
    codec = ckbd.load(GOLDEN / "model.safetensors")
    assert sha(codec.decode_latents([data])[0]) == want["y_hat"]
    assert sha(plain_decode(data, plain_model(GOLDEN / "model.safetensors")).y_hat) == want["y_hat"]
    (picture,) = codec.decode_pictures([data])
    assert [picture.height, picture.width, picture.gray, picture.alpha is not None, picture.icc is not None] == (
        want["picture"]
    )
    assert {"exif": picture.exif, "xmp": picture.xmp} == {
        key: bytes.fromhex(want[key]) if key in want else None for key in ("exif", "xmp")
    }


def test_golden_streams_reach_every_corner_of_the_coder():
    """Exceptions, escapes of both kinds, narrow and wide classes, one lane and many occur among them."""
    model = plain_model(GOLDEN / "model.safetensors")
    largest, low, size = model["table.y.max"], model["table.z.low"], model["table.z.size"]
    seen = set()
    for name in golden_cases():
        data = (GOLDEN / f"{name}.ckbd").read_bytes()
        header = container.parse(data).header
        decoded = plain_decode(data, model)
        seen.add("many lanes" if header.lanes_log2 == 5 else "few lanes")
        if ((decoded.z < low) | (decoded.z >= low + size)).any():
            seen.add("z escape")
        for k, r in zip(decoded.k, decoded.r, strict=True):
            skipped = k <= header.skip_max
            seen |= {"exception"} if (r[skipped] != 0).any() else set()
            seen |= {"y escape"} if (np.abs(r[~skipped]) > largest[k[~skipped]]).any() else set()
            seen |= {"narrow"} if (~skipped & (k <= 22)).any() else set()
            seen |= {"wide"} if (k > 22).any() else set()
    assert seen == {"many lanes", "few lanes", "z escape", "exception", "y escape", "narrow", "wide"}


def crafted(tiny, z=0, r=0, more=b""):
    """A stream with right checksums and one odd symbol: z or r of the first element that is coded, or more words."""
    picture = image.from_array(textured(64, 64))
    ((symbols, phases),) = tiny.encoder.symbols([picture], [50.0])
    (k, residuals), second = phases
    if z:
        symbols[0] = z
    if r:
        residuals[np.flatnonzero(k > 0)[0]] = r
    payload, lanes_log2, _, tail = _rans.encode(tiny.encoder.tables, symbols, [(k, residuals), second], skip_max=0)
    header = container.Header(tiny.model.identity, 100, 64, 64, lanes_log2=lanes_log2, skip_max=0, tail=tail)
    return container.pack(container.Stream(header, payload + more))


@pytest.mark.parametrize(
    "odd, reason",
    [
        (dict(z=128), "a z symbol is beyond 127"),
        (dict(z=-128), "a z symbol is beyond 127"),
        (dict(r=1024), "a residual is beyond 1023"),
        (dict(r=-1024), "a residual is beyond 1023"),
        (dict(more=b"\0\0"), "1 words are left over"),
    ],
)
def test_symbols_out_of_range_and_words_left_over_are_refused(tiny, odd, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        tiny.decode_latents([crafted(tiny, **odd)])
    assert caught.value.offset >= 22, "offsets count from the start of the file"


def test_real_streams_exceed_their_estimate_by_no_more_than_the_bound(tiny):
    for quality in (5, 40, 70):
        picture = textured(200, 300, quality)
        bits = 8 * len(tiny.encode([picture], quality)[0])
        (estimate,) = tiny.estimate([picture], quality)
        # An untrained model's tables fit badly, and the exceptions adapt: it may take fewer bits, never more.
        assert 0.3 * estimate < bits <= 1.005 * estimate + 8 * 48


def test_encoder_clamps_what_no_stream_can_hold(tiny, monkeypatch):
    """Features far out of range must still make a stream that decodes to what the encoder saw."""
    wide = dataclasses.replace(tiny.model, log_gain=tiny.model.log_gain + 9)
    monkeypatch.setattr(tiny.encoder, "model", wide)
    picture = image.from_array(textured(64, 128))
    ((z, phases),) = tiny.encoder.symbols([picture], [100.0])
    assert max(int(np.abs(r).max()) for _, r in phases) == 1023
    (data,) = tiny.encode([picture], 100)
    tiny.decode_latents([data])


def test_features_that_are_not_finite_are_refused(tiny, monkeypatch):
    monkeypatch.setattr(tiny.encoder, "model", dataclasses.replace(tiny.model, log_gain=tiny.model.log_gain + 1e4))
    with pytest.raises(ValueError, match="not finite"):
        tiny.encode([textured(64, 64)], 100)


def test_single_things_where_sequences_belong_are_refused(tiny):
    with pytest.raises(TypeError, match="images: expected a sequence"):
        tiny.encode(textured(8, 8))
    (data,) = tiny.encode([textured(8, 8)])
    with pytest.raises(TypeError, match="streams: expected a sequence"):
        tiny.decode(data)
    with pytest.raises(TypeError, match="stream: expected bytes, got int"):
        tiny.decode([5])


@pytest.mark.usefixtures("with_triton")
def test_backends_that_cannot_be_had_are_refused(tiny_path):
    with pytest.raises(ValueError, match="backend 'triton': tensors on the CPU need Triton's interpreter.*'torch'"):
        ckbd.load(tiny_path, backend="triton")
    with pytest.raises(ValueError, match="backend: expected one of auto, torch, triton, integers, got 'cuda'"):
        ckbd.load(tiny_path, backend="cuda")


def test_carriers_other_than_the_two_are_refused(tiny_path):
    with pytest.raises(ValueError, match="carrier: expected torch.float32 or torch.float64, got torch.bfloat16"):
        ckbd.load(tiny_path, carrier=torch.bfloat16)


@pytest.mark.parametrize(
    "config, message",
    [
        ("", "config: "),
        ("[]", "config: "),
        ('{"depth": 3}', "config: .*depth"),
        ('{"hyper": 12000}', "hyper: expected an integer from 1 to 2048, got 12000"),
        ('{"M": 16.0}', "M: expected an integer"),
        ('{"analysis8": -3}', "analysis8: expected an integer from 0 to 64"),
        ('{"lmbda_min": "x"}', "lmbda_min: expected a number above 0"),
    ],
)
def test_hostile_configs_are_refused(tmp_path, config, message):
    save_file(modelfile.export(tiny_model()), tmp_path / "m.safetensors", {"format": arrays.FORMAT, "config": config})
    with pytest.raises(ValueError, match=message):
        ckbd.load(tmp_path / "m.safetensors")


def test_the_worked_example_of_the_format_is_a_golden_stream():
    text = (Path(__file__).parents[2] / "docs/format.md").read_text()
    lines = [line[4:] for line in text.splitlines() if len(line) > 4 and line[2] == ":"]
    assert bytes.fromhex("".join(lines)) == (GOLDEN / "one_pixel.ckbd").read_bytes()
