"""Training goes on from model files: integers, floats and densities are what they were."""

import dataclasses
import warnings
from pathlib import Path

import pytest
import torch
from conftest import TINY, textured, tiny_model

import ckbd
from ckbd.codec import image
from ckbd.model import entropy, file
from ckbd.model.model import Checkerboard, carried_gains
from ckbd.model.quant import QuantLinear
from ckbd.training import fit, start

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module", params=["small", "tiny", "groups"])
def model_file(request, tiny_path):
    return {"small": "small", "tiny": tiny_path, "groups": GOLDEN / "groups.safetensors"}[request.param]


@pytest.fixture(scope="module")
def pair(model_file):
    """(as it is loaded, as it can be trained)"""
    return file.load(model_file), start.model_of(model_file)


def test_integers_floats_and_gains_come_back_to_the_last_bit(pair):
    loaded, model = pair
    for name, layer in model.exact.integers().items():
        for field in ("weight", "bias", "shift"):
            was, now = getattr(loaded.layers[name], field), getattr(layer, field)
            assert torch.equal(was.float(), now), f"{name}.{field}"
    for part in ("g_a", "h_a", "g_s"):
        was, now = getattr(loaded, part).state_dict(), getattr(model, part).state_dict()
        assert was.keys() == now.keys() and all(torch.equal(was[n], now[n]) for n in was)
    assert torch.equal(loaded.log_gain, model.log_gain) and torch.equal(loaded.log_ungain, model.log_ungain)
    assert all(p.requires_grad for p in model.parameters())


def test_an_export_is_the_file_but_for_its_tables(pair):
    loaded, model = pair
    tensors = file.export(model)
    for name, layer in loaded.layers.items():
        assert torch.equal(layer.weight, tensors[f"exact.{name}.weight"])
    z = loaded.tables["table.z.freq"].long().sum(1)
    assert (z == entropy.TOTAL).all() and tensors.keys() >= loaded.tables.keys()


def test_densities_of_z_cost_next_to_nothing_beside_its_tables(pair):
    loaded, model = pair
    mass = fit.table_mass(loaded.tables)
    z = torch.arange(-127.0, 128.0).expand(len(mass), -1)
    with torch.no_grad():
        bits = (mass * -torch.log2(model.prior.mass(z).double().clamp(min=1e-9))).sum(1)
    least = -torch.special.xlogy(mass, mass).sum(1) / torch.log(torch.tensor(2.0))
    lost = (bits - least).sum() / 64**2  # bits a pixel
    assert -1e-6 < lost < 1e-4


def test_what_shipped_costs_what_it_did_before_any_step(tmp_path):
    """With tables of Gaussians: docs/training.md has what is left of the difference when they are fitted."""
    path = tmp_path / "again.safetensors"
    file.save(start.model_of("small"), path)
    picture = image.from_array(textured(192, 256))
    small, again = ckbd.load("small"), ckbd.load(path)
    for quality in (20, 60, 95):
        (was,), (now,) = (codec.encode([picture], quality) for codec in (small, again))
        assert abs(len(now) / len(was) - 1) < 0.02
        before, after = (c.decode_pictures([s])[0].rgb for c, s in ((small, was), (again, now)))
        assert abs(image.psnr(picture.rgb, after) - image.psnr(picture.rgb, before)) < 0.02


def test_gradients_reach_every_weight_of_a_model_that_came_from_a_file(tiny_path):
    model = start.model_of(tiny_path)
    out = model(torch.rand(1, 3, 64, 64), torch.tensor([60.0]))
    (out["bits_y"] + out["bits_z"] + out["x_hat"].square().sum()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("out_frac", [4, 8.0])
def test_any_layers_integers_give_themselves_again(out_frac):
    torch.manual_seed(0)
    for gain in (0.01, 1.0, 30.0):
        layer, again = (QuantLinear((6, 40), in_frac=4, out_frac=out_frac, gain=gain) for _ in range(2))
        with torch.no_grad():
            layer.weight[0] = 0
            layer.bias.normal_(0, 3)
        was = layer.integers()
        again.set_integers(was)
        for field in ("weight", "bias", "shift"):
            assert torch.equal(getattr(again.integers(), field), getattr(was, field))


def test_a_start_may_widen_lmbda_and_nothing_else():
    of = tiny_model()
    with torch.no_grad():
        of.log_ungain += torch.randn_like(of.log_ungain)
    wider = Checkerboard(dataclasses.replace(TINY, lmbda_max=TINY.lmbda_max * 2))
    start.start(wider, of, "a")
    assert torch.allclose(wider.log_ungain, -carried_gains(-of.log_ungain, TINY, wider.config), atol=1e-6)
    assert torch.equal(wider.exact.first.weight, of.exact.first.weight)
    assert wider.log_gain[-1].mean() > of.log_gain[-1].mean()
    with pytest.raises(ValueError, match="a.pt: made with another config"):
        start.start(Checkerboard(dataclasses.replace(TINY, M=24)), of, "a.pt")


def test_weights_are_compared_before_there_is_memory_for_a_config(tmp_path, monkeypatch):
    where = []
    made = start.Checkerboard
    monkeypatch.setattr(start, "Checkerboard", lambda c: where.append(torch.empty(0).device.type) or made(c))
    wide = {"width": 2048, "M": 2048, "psi": 2048, "analysis8": 64, "synthesis8": 64}
    torch.save({"config": wide, "average": {}}, tmp_path / "wide.pt")  # 8.5 GiB
    with pytest.raises(ValueError, match="wide.pt: config and weights of no such model"):
        start.model_of(tmp_path / "wide.pt")
    assert where == ["meta"]


def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="x.safetensors"):
        start.model_of(tmp_path / "x.safetensors")
    config = dataclasses.asdict(TINY)
    for bad, said in (
        ({"a": torch.zeros(2)}, "not a checkpoint of ckbd train: KeyError"),
        ({"average": {}, "config": config}, "config and weights of no such model"),
        ({"average": {}, "config": config | {"depth": 3}}, "config and weights of no such model"),
        ({"average": {}, "config": 7}, "config and weights of no such model"),
    ):
        torch.save(bad, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=f"x.pt: {said}"):
            start.model_of(tmp_path / "x.pt")
    for raw in (b"", b"text", bytes(range(256))):
        (tmp_path / "x.pt").write_bytes(raw)
        with pytest.raises(ValueError, match=r"^[^\n]*x.pt: not a checkpoint of ckbd train: [^\n]+$") as said:
            start.model_of(tmp_path / "x.pt")
        assert "weights_only" not in str(said.value)  # no advice to run what may be anybody's code
    torch.save({"average": {}, "config": config}, tmp_path / "x.pt", pickle_protocol=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch has words of its own about protocols
        with pytest.raises(ValueError, match="no tensors and numbers that torch.save wrote$"):
            start.model_of(tmp_path / "x.pt")
    torch.save({"average": {"a": torch.zeros(20000)}, "config": config}, tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:40000])
    with pytest.raises(ValueError, match=r"x.pt: not a checkpoint of ckbd train: it ends too soon$"):
        start.model_of(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="nonesuch"):
        start.model_of("nonesuch")
