"""Models with channel groups: the same streams by every zone, read by the plain decoder, and by no other model."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import plain_decoder
import plain_numerics
import pytest
import torch
from conftest import GROUPED, TINY, textured, tiny_model
from safetensors.torch import load_file, save_file

import ckbd
from ckbd import _rans
from ckbd.codec import container
from ckbd.codec.container import FormatError
from ckbd.codec.zone import Carriers, Grouped, Integers, make
from ckbd.kernels import numerics, products
from ckbd.light.decoder import Decoder as Light
from ckbd.model import arrays
from ckbd.model import file as modelfile
from ckbd.model.config import MAX_GROUPS, Config, by_group, exact_shapes
from ckbd.model.quant import QuantLinear

pytestmark = pytest.mark.usefixtures("eight_bits")
CPU, GOLDEN = torch.device("cpu"), Path(__file__).parent.parent / "golden"
SIZES = ((1, 1), (64, 64), (130, 200), (64, 64))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "grouped.safetensors"
    modelfile.save(tiny_model(3, GROUPED), path)
    return path


@pytest.fixture(scope="module")
def codec(path):
    return ckbd.load(path, backend="torch")


@pytest.fixture(scope="module")
def streams(codec):
    return codec.encode([textured(*size, seed) for seed, size in enumerate(SIZES)], [1, 40, 60, 100])


def test_it_is_one_zone_for_each_group(codec):
    zone = codec.decoder.zone
    assert isinstance(zone, Grouped) and zone.phases == 6 and all(isinstance(one, Carriers) for one in zone.zones)
    assert [zone.channels(p) for p in range(6)] == [slice(0, 8)] * 2 + [slice(8, 16)] * 2 + [slice(16, 40)] * 2


def test_every_group_matters(codec, streams):
    """A group's parameters change with the groups before it: latents of none are those of another model."""
    latents = codec.decode_latents(streams)[2]
    assert all(latents[one].any() for one in (slice(0, 8), slice(8, 16), slice(16, 40)))
    state = codec.decoder.zone.begin(torch.zeros(1, 1, 1, TINY.Nz, dtype=torch.int16), torch.tensor([50]))
    again = codec.decoder.zone.begin(torch.zeros(1, 1, 1, TINY.Nz, dtype=torch.int16), torch.tensor([50]))
    seen = []
    for one, value in ((state, 0), (again, 5)):
        for p in range(5):
            k = codec.decoder.zone.phase(one, p)
            codec.decoder.zone.assemble(one, p, torch.full(k.shape, value * (p < 2), dtype=torch.int16))
        seen.append([codec.decoder.zone.mean(one, p) for p in range(5)])
    same = [torch.equal(a, b) for a, b in zip(*seen, strict=True)]
    assert same[0] and not any(same[1:])  # anchors of the first group see nothing, all others what came before


@pytest.mark.parametrize("effort", [0, 1])
def test_streams_and_latents_are_the_same_by_every_zone(path, codec, effort):
    pictures = [textured(200, 330, 1), textured(5, 70)]
    layers, quality = codec.model.layers, [100, 25]
    want = codec.encode(pictures, quality, effort)
    latents = codec.decode_latents(want)
    zones = [Grouped([Carriers(own, CPU, torch.float64) for own in layers.groups()], GROUPED.groups)]
    for reach in {products.NARROW, products.WIDE if products.reach([(8, 8)]) == products.WIDE else products.NARROW}:
        zones.append(Grouped([Integers(own, reach=reach) for own in layers.groups()], GROUPED.groups))
    other = ckbd.load(path, threads=2)
    for zone in zones:
        other.encoder.zone = other.decoder.zone = zone
        assert other.encode(pictures, quality, effort) == want
        assert all(np.array_equal(a, b) for a, b in zip(other.decode_latents(want), latents, strict=True))


def test_groups_that_can_do_less_bind_the_others(path, codec, streams, monkeypatch):
    """What is read of the groups before is shifted by one reach for all; or all are carried in floats."""
    layers = codec.model.layers
    last, want = len(layers.groups()[2]["output"].weight), codec.decode_latents(streams)
    for least, kind in ((products.NARROW, Integers), (0, Carriers)):
        monkeypatch.setattr(
            products, "reach", lambda shapes, least=least: least if shapes[-2][1] == last else products.NARROW + 1
        )
        monkeypatch.setattr(products, "gain", lambda dtype: 2.0)
        zone = make(layers, CPU)
        assert [type(one) for one in zone.zones] == [kind] * 3
        assert kind is Carriers or [one.reach for one in zone.zones] == [products.NARROW] * 3
        other = ckbd.load(path, backend="torch")
        other.decoder.zone = zone
        assert all(np.array_equal(a, b) for a, b in zip(other.decode_latents(streams), want, strict=True))


def test_the_plain_decoder_and_the_light_one_read_them(path, codec, streams):
    model, light = plain_numerics.load_model(path), Light(path)
    assert plain_numerics.model_identity(model) == codec.model.identity == light.identity
    for stream, want, picture in zip(
        streams, codec.decode_latents(streams), codec.decode_pictures(streams), strict=True
    ):
        plain = plain_decoder.decode(stream, model)
        assert np.array_equal(plain.y_hat, want) and len(plain.k) == 6
        assert np.array_equal(light.latents(stream), want)
        assert np.abs(light.decode(stream).rgb.astype(int) - picture.rgb).max() <= 1


def test_batches_and_iterators_give_the_same_pixels(codec, streams):
    want = codec.decode_pictures(streams)
    for codec_ in (codec, ckbd.load(codec.origin[1]["model"], threads=2)):
        broken = streams[1][:-1] + bytes([streams[1][-1] ^ 1])
        found = [x for _, x in codec_.decode_iter([*streams, broken], layout="HWC", on_error="yield")]
        assert isinstance(found.pop(), FormatError)
        assert all(np.array_equal(a.numpy(), b.rgb) for a, b in zip(found, want, strict=True))
        found = [stream for _, stream in codec_.encode_iter([p.rgb for p in want], 60)]
        assert found == codec.encode([p.rgb for p in want], 60)


def test_the_decoder_has_what_training_saw():
    """y_hat of the forward pass and of the stream's own symbols, and its rate by the tables of Gaussians."""
    model = tiny_model(5, GROUPED)
    y = 6 * torch.randn(1, GROUPED.M, 8, 12)
    z = torch.randint(-9, 10, (1, GROUPED.Nz, 2, 3)).float()
    with torch.no_grad():
        y_hat, bits = model.two_phases(y, z, torch.tensor([50.0]), noise=False)
    layers = model.exact.integers()
    zone = Grouped([Carriers(own, CPU, torch.float64) for own in layers.groups()], GROUPED.groups)
    state = zone.begin(z.permute(0, 2, 3, 1).to(torch.int16), torch.tensor([50]))
    for p in range(zone.phases):
        zone.phase(state, p)
        zone.assemble(state, p, zone.quantise(state, p, y))
    assert torch.equal(zone.y_hat(state), y_hat * numerics.MEAN_STEP) and bits.item() > 0


def test_gradients_reach_every_layer_and_integers_come_back():
    model = tiny_model(1, GROUPED)
    out = model(torch.rand(2, 3, 64, 128), torch.tensor([30.0, 80.0]))
    (out["bits_y"].sum() + out["bits_z"].sum() + out["x_hat"].square().sum()).backward()
    names = {
        name.rpartition(".")[0] for name, p in model.exact.named_parameters() if p.grad is None or not p.grad.any()
    }
    assert not names and {f"group_{g}_first" for g in range(3)} <= {n for n, _ in model.exact.named_children()}
    assert all(isinstance(layer, QuantLinear) for layer in model.exact.children())
    layers, other = model.exact.integers(), tiny_model(2, GROUPED)
    assert list(layers) == list(exact_shapes(GROUPED))
    other.exact.set_integers(layers)
    for name, layer in other.exact.integers().items():
        assert all(torch.equal(a, b) for a, b in zip(layer[:3], layers[name][:3], strict=True))


def test_damage_is_refused_wherever_it_is(codec, streams):
    """Every byte of a stream flipped, every length: an error that says where, never other latents."""
    stream, (want,) = streams[1], codec.decode_latents(streams[1:2])
    rng = np.random.default_rng(0)
    for at in rng.choice(len(stream), 150, replace=False):
        wrong = bytearray(stream)
        wrong[at] ^= 1 << rng.integers(8)
        with pytest.raises(FormatError):
            codec.decode_latents([bytes(wrong)])
    for length in (0, 5, 30, len(stream) // 2, len(stream) - 1):
        with pytest.raises(FormatError):
            codec.decode_latents([stream[:length]])
    # The payload behind right checksums, as whoever writes a stream may have it.
    s = container.parse(stream)
    light = Light(codec.origin[1]["model"])
    for at in rng.choice(len(s.payload), 80, replace=False):
        payload = bytearray(s.payload)
        payload[at] ^= 1 << rng.integers(8)
        forged = container.pack(dataclasses.replace(s, payload=bytes(payload)))
        outcomes = []
        for decode in (lambda one: codec.decode_latents([one])[0], light.latents):
            try:
                outcomes.append(decode(forged).tobytes())
            except FormatError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1] and outcomes[0] != want.tobytes()


def test_a_batch_of_streams_is_the_decoder_of_each(codec, streams):
    """_rans.Batch against decode_latents: widths that differ from phase to phase, and a call out of turn."""
    tables = codec.decoder.tables

    def batch(channels):
        options = {"model": codec.model.identity, "channels": channels, "max_pixels": 1 << 20}
        return _rans.Batch(tables, streams, **options)

    for wrong in ([], [8] * (MAX_GROUPS + 1), [8, 0], [8, "x"], "8", 0, None):
        with pytest.raises((ValueError, TypeError), match="channels"):
            batch(wrong)
    one = batch(GROUPED.groups)
    zones = sum(-(-h // 64) * -(-w // 64) for h, w in SIZES)
    one.z(np.empty(zones * GROUPED.Nz, np.int16))
    for p in range(6):
        n = 8 * zones * GROUPED.groups[p // 2]
        with pytest.raises(ValueError, match="k: expected"):
            one.phase(np.zeros(n + 1, np.uint8), np.empty(n + 1, np.int8))
        with pytest.raises(ValueError, match="table indices"):
            one.phase(np.full(n, 64, np.uint8), np.empty(n, np.int8))
        one.phase(np.zeros(n, np.uint8), np.empty(n, np.int8))
    with pytest.raises(RuntimeError, match="6 times phase"):
        one.phase(np.zeros(n, np.uint8), np.empty(n, np.int8))
    # A model with fewer groups would read other exceptions: what it takes for escapes or words is none.
    assert len(batch([GROUPED.M]).errors()) > 0


@pytest.mark.parametrize(
    "groups, words",
    [
        ([16, 16], "add to M = 40"),
        ([40], "2 to 16"),
        ([0, 40], "8 and more"),
        ([4, 36], "8 and more"),
        ([8.0, 32], "8 and more"),
        ([True, 39], "8 and more"),
        (40, "2 to 16"),
        ("8", "add to M"),
        ({"8": 32}, "add to M"),
        (None, "add to M"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, words):
    text = json.dumps(dataclasses.asdict(GROUPED) | {"groups": groups})
    with pytest.raises(ValueError, match=f"groups: .*{words}"):
        Config.from_json(text)
    assert Config.from_json(json.dumps(GROUPED.to_json())) == GROUPED
    assert "groups" not in TINY.to_json() and Config.from_json(json.dumps(TINY.to_json())) == TINY


def test_too_many_groups():
    with pytest.raises(ValueError, match="2 to 16 of them, got 17"):
        Config(M=8 * 17, groups=(8,) * 17)
    assert len(by_group(dict.fromkeys(exact_shapes(Config(M=128, groups=(8,) * 16)), 0))) == 16


def changed(path, tmp_path, change, config=GROUPED):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, tmp_path / "m.safetensors", {"format": arrays.FORMAT, "config": json.dumps(config.to_json())})
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop("exact.1.channel.bias"), "exact.1.channel.bias is missing"),
        (lambda t: t.pop("exact.2.first.weight"), "exact.2.first.weight is missing"),
        (lambda t: t.update({"exact.2.channel.weight": t["exact.2.channel.weight"][:, 1:].clone()}), "expected int8"),
        (lambda t: t["exact.2.channel.bias"].fill_(1 << 24), "2.channel: output channel [0-9]+ can reach"),
        (lambda t: t.update({"exact.first.weight": t["exact.0.first.weight"].clone()}), "no place for .*exact.first"),
        (lambda t: t.update({"exact.3.first.weight": t["exact.0.first.weight"].clone()}), "no place for .*exact.3"),
        (lambda t: t.update({"exact.0.channel.bias": t["exact.1.channel.bias"].clone()}), "no place for .*exact.0"),
    ],
)
def test_model_files_that_are_none(path, tmp_path, change, words):
    wrong = changed(path, tmp_path, change)
    with pytest.raises(ValueError, match=words):
        ckbd.load(wrong)
    with pytest.raises(ValueError, match=words):
        Light(wrong)
    with pytest.raises(plain_numerics.PlainError):
        plain_numerics.load_model(wrong)


def test_a_file_of_groups_is_no_model_without(path, tiny_path, tmp_path):
    with pytest.raises(ValueError, match="no place for tensor exact.0"):
        ckbd.load(changed(path, tmp_path, lambda t: None, dataclasses.replace(GROUPED, groups=())))
    with pytest.raises(ValueError, match="no place for tensor exact.first"):
        ckbd.load(changed(tiny_path, tmp_path, lambda t: None, dataclasses.replace(TINY, groups=(8, 8))))


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_the_golden_stream_is_read_as_ever(backend):
    want, data = json.loads((GOLDEN / "groups.json").read_text()), (GOLDEN / "groups.ckbd").read_bytes()
    assert hashlib.sha256(data).hexdigest() == want["stream"]
    codec = ckbd.load(GOLDEN / "groups.safetensors", backend=backend)
    readers = [lambda: codec.decode_latents([data])[0], lambda: Light(GOLDEN / "groups.safetensors").latents(data)]
    readers.append(lambda: plain_decoder.decode(data, plain_numerics.load_model(GOLDEN / "groups.safetensors")).y_hat)
    assert codec.model_hash == want["model"]
    for read in readers:
        assert hashlib.sha256(read().astype("<i2").tobytes()).hexdigest() == want["y_hat"]
