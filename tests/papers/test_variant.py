"""Models by config: real streams of every kind, read in every order, and what must be refused."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, textured, tiny_model
from safetensors.numpy import save_file

import ckbd
from ckbd import loading
from ckbd.codec import container
from ckbd.evaluation.evaluate import EXCESS_BYTES, EXCESS_SHARE
from ckbd.kernels import numerics, reference
from ckbd.model import entropy
from ckbd.model.model import hyper_map, projected
from ckbd.papers import context, scan
from ckbd.papers import file as variantfile
from ckbd.papers.cut import cut
from ckbd.papers.variant import Variant, VariantConfig, parameters, project_psi, with_context

GOLDEN = Path(__file__).parents[1] / "golden"
pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {
    "factorised": dict(prior="factorised", context="none"),
    "scale": dict(prior="scale", context="none"),
    "scale-raster": dict(prior="scale", context="raster"),
    "mean-scale": dict(context="none"),
    "raster": dict(context="raster"),
    "raster-integer": dict(context="raster", centring="integer"),
    "raster-own": dict(context={"mask": [[0, 1, 0], [1, 0, 0], [0, 0, 0]], "order": None}),
    "raster-mixture": dict(context="raster7", centring="integer", mixtures=3),
    "checkerboard": dict(context="checkerboard"),
    "checkerboard-odd": dict(context="checkerboard-odd", centring="integer"),
    "checkerboard-mixture": dict(context="checkerboard", centring="integer", mixtures=3),
    "four-phases": dict(context={"mask": [[1, 1, 1], [1, 0, 1], [1, 1, 1]], "order": [[0, 1], [2, 3]]}),
    "corners": dict(context="corners", centring="integer"),
    "minnen2018": dict(transform="minnen2018", context="raster"),
}


def config(**changes) -> VariantConfig:
    return VariantConfig(**dataclasses.asdict(TINY), **changes)


def variant(**changes) -> Variant:
    torch.manual_seed(0)
    model = Variant(config(**changes))
    if model.config.prior != "factorised":
        with torch.no_grad():
            model.exact.output.weight *= 4
            model.exact.first.bias.normal_(0, 0.5)
            model.exact.hidden.bias.normal_(0, 0.3)
    return model


def codec_of(model: Variant, folder) -> ckbd.Codec:
    variantfile.save(model, folder / "v.safetensors")
    return ckbd.load(folder / "v.safetensors")


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    made = {}

    def get(kind: str) -> ckbd.Codec:
        if kind not in made:
            made[kind] = codec_of(variant(**KINDS[kind]), tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_streams_come_back_in_every_order_and_cost_what_was_estimated(codecs, kind):
    codec, picture = codecs(kind), ckbd.Picture(textured(70, 100))
    for quality in (1, 90):
        (stream,) = codec.encode([picture], quality)
        (bits,) = codec.estimate([picture], quality)
        assert abs(len(stream) - bits / 8) <= EXCESS_SHARE * bits / 8 + EXCESS_BYTES
        z, mean, _, _, symbols = codec.encoder.symbols(picture, quality)
        want = 16 * (z.reshape(8, 8, -1) if (codec.decoder.zone is None) else symbols)
        if codec.model.config.centred and codec.decoder.zone is not None:
            want = want + mean[:, :, 0]
        for order in ("auto", "raster", "wavefront", "tuned"):
            codec.decoder.order = order
            (latents,) = codec.decode_latents([stream])
            assert np.array_equal(latents, want.transpose(2, 0, 1)), order
        (image,) = codec.decode([stream])
        assert image.size == (100, 70)


def test_variants_have_no_effort_but_0(codecs):
    codec, picture = codecs("checkerboard"), textured(64, 64)
    assert codec.encode([picture], 50, effort=0) == codec.encode([picture], 50)
    for call in (codec.encode, codec.estimate):
        with pytest.raises(ValueError, match="effort: expected 0, got 1"):
            call([picture], 50, effort=1)


@pytest.mark.parametrize(
    "kind", [k for k, v in KINDS.items() if v.get("centring") == "integer" or k == "scale-raster"]
)
def test_one_pass_and_phase_by_phase_encoders_write_identical_bytes(codecs, kind):
    codec = codecs(kind)
    picture = ckbd.Picture(textured(90, 70, seed=3))
    at_once = codec.encode([picture], 60)
    codec.encoder.one_pass = False
    try:
        assert codec.encode([picture], 60) == at_once
    finally:
        codec.encoder.one_pass = True


def test_the_checkerboard_has_the_parameters_of_the_codec_that_ships():
    """Same weights, same integers: masks as data compute what the phases of ckbd.model.model do."""
    model = tiny_model()
    c = config(context="checkerboard")
    layers, z = model.exact.integers(), torch.randint(-20, 21, (1, TINY.Nz, 2, 3)).float()
    y_hat = torch.randint(-400, 401, (1, TINY.M, 8, 12)).float()
    quality = torch.tensor([50.0])
    psi = projected(hyper_map(z, quality, layers), layers)
    anchors, _ = reference.split(y_hat)
    companded = numerics.compand(y_hat)
    want = [
        reference.phase(psi[0], None, layers.g_ep),
        reference.phase(psi[1], numerics.compand(anchors), layers.g_ep),
    ]
    seen = context.columns(companded.permute(0, 2, 3, 1), c.context, c.context.live(8, 12))
    psi_acc = project_psi(hyper_map(z, quality, layers), layers)
    mean, k, _ = parameters(with_context(psi_acc, seen, c.context.phase_map(8, 12), layers, c), layers, c)
    for name, got in (("mean", mean), ("k", k)):
        got = reference.split(got[..., 0, :].permute(0, 3, 1, 2))
        for p in (0, 1):
            assert torch.equal(got[p], want[p][name == "k"]), (name, p)


@pytest.mark.parametrize("rate, latent", [("noise", "ste"), ("rounded", "ste"), ("noise", "noise")])
def test_every_kind_trains(rate, latent):
    for kind in ("factorised", "scale", "raster", "checkerboard", "checkerboard-mixture", "minnen2018"):
        model = variant(**KINDS[kind])
        out = model(torch.rand(1, 3, 64, 64), torch.tensor([50.0]), rate, latent)
        (out["bits_y"].sum() + out["bits_z"].sum() + out["x_hat"].square().sum()).backward()
        silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not silent, kind


def test_training_measures_what_is_coded(codecs):
    """The bits of rounded values are those of the symbols and parameters that reach the coder."""
    for kind in ("mean-scale", "checkerboard", "checkerboard-mixture", "corners", "raster-integer"):
        model, picture = variant(**KINDS[kind]).eval(), ckbd.Picture(textured(64, 128))
        x = torch.from_numpy(picture.rgb.copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            out = model(x, torch.tensor([60.0]), "rounded")
        _, mean, k, share, y = (
            torch.from_numpy(a.copy()).double() for a in codecs(kind).encoder.symbols(picture, 60)
        )
        r = y.unsqueeze(-2) - (0 if codecs(kind).model.config.centred else mean / 16)
        assert float(out["bits_y"]) == pytest.approx(float(entropy.mixture_bits(r, k, share).sum()), rel=1e-5), kind


def test_a_supernet_is_cut_to_any_mask_and_then_does_what_it_did(tmp_path):
    net = variant(context="none", supernet=True, centring="integer").eval()
    taps = net.config.seen.taps
    for name in ("raster", "checkerboard", "corners3", "none"):
        chosen = context.NAMED[name]
        model = cut(net, chosen)
        assert model.config.context == chosen and not model.config.supernet
        codec = codec_of(model, tmp_path)
        (stream,) = codec.encode([textured(64, 64)], 50)
        assert codec.decode([stream])[0].size == (64, 64)
    only = torch.tensor([float(tap in context.NAMED["raster"].taps) for tap in taps])
    x, quality = torch.rand(1, 3, 64, 64), torch.tensor([50.0])
    with torch.no_grad():
        whole = net(x, quality, "rounded", only=only)
        part = cut(net, context.NAMED["raster"])(x, quality, "rounded")
    # Fewer weights may take a finer step, so not to the bit.
    assert float(part["bits_y"]) == pytest.approx(float(whole["bits_y"]), rel=0.02)
    with pytest.raises(ValueError, match="has no weights for the neighbour at"):
        cut(net, context.NAMED["raster7"])
    with pytest.raises(ValueError, match="expected a supernet"):
        cut(cut(net, context.NAMED["none"]), context.NAMED["none"])


def test_versions_refuse_each_other(codecs, tiny):
    (old,), (new,) = tiny.encode([textured(64, 64)]), codecs("checkerboard").encode([textured(64, 64)])
    with pytest.raises(ckbd.FormatError, match="version at byte 3: this reader knows version 1, the stream says 2"):
        tiny.decode([new])
    with pytest.raises(ckbd.FormatError, match="version at byte 3: this reader knows version 2, the stream says 1"):
        codecs("checkerboard").decode([old])
    assert ("tracks", "1") in [(name, value) for name, _, _, value in container.describe(new)]
    with pytest.raises(ckbd.FormatError, match="model at byte 4"):
        codecs("raster").decode([new])


@pytest.mark.parametrize("kind", ["factorised", "raster-mixture", "checkerboard"])
def test_hostile_streams_are_refused_with_field_and_offset(codecs, kind):
    codec = codecs(kind)
    (stream,) = codec.encode([textured(64, 128)], 50)
    for end in range(0, len(stream), 53):
        with pytest.raises(ckbd.FormatError):
            codec.decode([stream[:end]])
    parsed = container.parse(stream, version=container.TRACKS)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(24):
        payload = bytearray(parsed.payload)
        payload[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        try:
            codec.decode_latents([container.pack(dataclasses.replace(parsed, payload=bytes(payload)))])
        except ckbd.FormatError as error:
            assert error.field in ("tracks", "symbols", "end state", "payload")
            assert parsed.payload_offset <= error.offset <= len(stream)
            refused += 1
    assert refused > 12
    large = dataclasses.replace(parsed.header, width=1 << 13, height=1 << 13)
    with pytest.raises(ckbd.FormatError, match="cannot hold a picture"):
        codec.decode([container.pack(dataclasses.replace(parsed, header=large))])
    many = dataclasses.replace(parsed.header, tracks=5)
    with pytest.raises(ckbd.FormatError, match="tracks at byte 1[0-9]: expected 1 to 4, got 5"):
        codec.decode([container.pack(dataclasses.replace(parsed, header=many))])
    tall = dataclasses.replace(parsed.header, width=1, height=1 << 20, tracks=65536)
    with pytest.raises(ckbd.FormatError, match="tracks at byte 1[0-9]: expected 1 to 65535, got 65536"):
        codec.decode([container.pack(dataclasses.replace(parsed, header=tall))])
    if kind != "raster-mixture":
        many = dataclasses.replace(parsed.header, tracks=2)
        with pytest.raises(ckbd.FormatError, match="tracks at byte 1[0-9]: expected 1, the model codes in phases"):
            codec.decode([container.pack(dataclasses.replace(parsed, header=many))])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"prior": "hyper"}, "prior: expected one of factorised, scale, mean-scale, got 'hyper'"),
        ({"mixtures": 2}, "mixtures: expected one of 1, 3"),
        ({"mixtures": True}, "mixtures: expected one of 1, 3"),
        ({"mixtures": 3}, "mixtures: several means need centring 'integer'"),
        ({"centring": "middle"}, "centring: expected one of mean, integer"),
        ({"prior": "factorised"}, "a factorised prior has neither"),
        ({"supernet": True}, "supernet: expected context 'none'"),
        ({"context": "chess"}, "context: expected one of"),
        ({"M": 4}, "M: expected an integer from 8"),
    ],
)
def test_wrong_configs_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        VariantConfig(**dataclasses.asdict(TINY) | changes)


@pytest.mark.parametrize("tensor", ["exact.context.mask", "exact.context.order", "exact.kind", "table.m.cdf"])
def test_model_files_say_what_they_are_twice(tmp_path, tensor):
    model = variant(context="raster")
    tensors = variantfile.export(model)
    assert variantfile.context_of(tensors) == model.config.context
    tensors[tensor] = tensors[tensor] * 0 + 1 if tensor != "table.m.cdf" else tensors[tensor][:-1].clone()
    path = tmp_path / "m.safetensors"
    variantfile.write(tensors, path, variantfile.FORMAT, model.config.to_json())
    with pytest.raises(ValueError, match=tensor):
        ckbd.load(path)


def test_brackets_without_end_are_no_config(tmp_path):
    model = variant(context="raster")
    path = tmp_path / "m.safetensors"
    tensors = {name: t.numpy() for name, t in variantfile.export(model).items()}
    save_file(tensors, path, {"format": variantfile.FORMAT, "config": "[" * 100000})
    with pytest.raises(ValueError, match="config: "):
        ckbd.load(path)


@pytest.mark.parametrize("width, height, walk", [(64, 400, "tuned"), (700, 500, "wavefront")])
def test_a_scan_is_walked_in_the_order_that_suits_it(codecs, monkeypatch, width, height, walk):
    codec, walked = codecs("raster"), []
    for name in ("tuned", "wavefront"):
        place, method = (scan.TunedRaster, "run") if name == "tuned" else (scan, "wavefront")
        real = getattr(place, method)
        note = functools.partial(lambda name, real, *args: walked.append(name) or real(*args), name, real)
        monkeypatch.setattr(place, method, functools.partialmethod(note) if name == "tuned" else note)
    (stream,) = codec.encode([textured(height, width)], 100)
    walked.clear()
    codec.decoder.order = "auto"
    codec.decode_latents([stream])
    assert walked == [walk]


def test_a_supernet_wants_a_mask_for_each_step():
    model = Variant(config(context="none", centring="integer", supernet=True))
    with pytest.raises(ValueError, match="only: a supernet needs the mask"):
        model(torch.rand(1, 3, 64, 64), torch.tensor([50.0]))


def test_what_a_variant_cannot_do_is_refused(tmp_path):
    variantfile.save(variant(**KINDS["mean-scale"]), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="backend 'torch' and carrier float32 only"):
        ckbd.load(tmp_path / "m.safetensors", backend="triton")
    with pytest.raises(ValueError, match="backend 'torch' and carrier float32 only"):
        ckbd.load(tmp_path / "m.safetensors", carrier=torch.float64)
    with pytest.raises(ValueError, match="threads: expected at least 1"):
        ckbd.load(tmp_path / "m.safetensors", threads=0)


@pytest.mark.parametrize("name", ["raster", "mixture"])
@pytest.mark.parametrize("order", ["auto", "raster", "wavefront", "tuned"])
def test_golden_streams_decode_to_their_latents(name, order):
    """Changing what one decodes to is a new format version."""
    want = json.loads((GOLDEN / "variants.json").read_text())[name]
    data = (GOLDEN / f"variant_{name}.ckbd").read_bytes()
    assert hashlib.sha256(data).hexdigest() == want["stream"]
    codec = ckbd.load(GOLDEN / f"variant_{name}.safetensors")
    codec.decoder.order = order
    (latents,) = codec.decode_latents([data])
    assert hashlib.sha256(np.ascontiguousarray(latents).astype("<i2").tobytes()).hexdigest() == want["y_hat"]
    assert container.parse(data, version=container.TRACKS).header.tracks == want["tracks"]


def test_the_loader_knows_the_format_of_variants(tmp_path):
    assert variantfile.FORMAT == loading.VARIANT
    path = tmp_path / "v.safetensors"
    variantfile.save(Variant(config()), path)
    with pytest.raises(ValueError, match="a variant runs with precision float32 only"):
        ckbd.load(path, precision="bfloat16")
