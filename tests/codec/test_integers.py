"""The exact zone in integers: equal to ckbd.kernels.reference on every bit, on whatever kind of processor."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import kernel_cases as cases
import numpy as np
import pytest
import torch
from conftest import textured

import ckbd
from ckbd.codec import zone
from ckbd.codec.zone.integers import Integers, IntegerState
from ckbd.kernels import numerics, products, reference
from ckbd.kernels.numerics import IntLayer
from ckbd.model.model import ExactLayers, hyper_map

pytestmark = pytest.mark.usefixtures("one_thread", "eight_bits")
CPU = torch.device("cpu")
REACHES = [None, products.NARROW]
# (pictures, rows, columns of a half): every size of the kernels' suite, and more than a stripe.
SHAPES = [(1, 1, 1), (1, 1, 5), (1, 9, 1), (1, 6, 4), (1, 7, 3), (2, 4, 3), (3, 5, 4), (2, 31, 9)]
WIDTHS = [dataclasses.replace(w, kernel=5) for w in cases.WIDTHS]
NZ, BETWEEN = 5, 12


def layers_of(widths: cases.Widths, seed: int = 0) -> ExactLayers:
    g = torch.Generator().manual_seed(seed + 50)

    def conv(n: int, c: int) -> IntLayer:
        flat = cases.random_layer(g, 4 * n, 9 * c, 8)
        return IntLayer(flat.weight.view(4 * n, c, 3, 3), flat.bias, flat.shift)

    _, g_ep = cases.integers(widths, seed)
    found = (conv(BETWEEN, NZ + 1), conv(widths.C, BETWEEN), *g_ep)
    return ExactLayers(zip(ExactLayers.NAMES, found, strict=True))


def exactly(layers: ExactLayers) -> ExactLayers:
    return ExactLayers((name, layer.to("cpu", torch.float64)) for name, layer in layers.items())


def drawn(shape, low, high, seed, extreme):
    """Integers of a range, or its two ends and the middle."""
    g = torch.Generator().manual_seed(seed)
    if extreme:
        return torch.tensor([low, (low + high + 1) // 2, high])[torch.randint(0, 3, shape, generator=g)]
    return torch.randint(low, high + 1, shape, generator=g)


@pytest.mark.parametrize("extreme", [False, True], ids=["random", "extreme"])
@pytest.mark.parametrize("reach", REACHES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_both_phases_are_the_reference_to_the_bit(widths, shape, reach, extreme):
    layers = layers_of(widths)
    made, want = Integers(layers, reach=reach), exactly(layers)
    B, H, half = shape
    psi = drawn((2, B * H, half, widths.C), 0, 127, 1, extreme).to(torch.uint8)
    blank = torch.zeros((2, B * H, half, widths.M), dtype=torch.int16)
    state, context = IntegerState(B, psi, blank, blank.clone()), None
    for p in (0, 1):
        k = made.phase(state, p)
        psi_acc = reference.project_psi(psi[p].view(B, H, half, -1).double(), want["first"])
        mean, want_k = reference.phase(psi_acc, context, want.g_ep)
        assert torch.equal(k.double(), want_k) and torch.equal(made.mean(state, p).double(), mean)
        r = drawn((B, H, half, widths.M), -numerics.R_MAX, numerics.R_MAX, 2 + p, extreme).to(torch.int16)
        # Most are small, as they are in streams: of some channels nothing is beyond any reach.
        r[..., ::2] %= 3
        if p == 1:
            made.room(state, p)[:] = r.flatten()
        made.assemble(state, p, made.room(state, p).view(-1, widths.M) if p else r)
        y_hat = numerics.MEAN_STEP * r.double() + mean
        context = numerics.compand(y_hat)
        full = reference.merge(*((y_hat, y_hat) if p else (y_hat, 0 * y_hat)))
        rows = made.y_hat(state).permute(0, 2, 3, 1).double()
        assert torch.equal(reference.split(rows.permute(0, 3, 1, 2))[p], reference.split(full)[p])
    assert mean.unique().numel() > 4 and want_k.unique().numel() > 2, "the case must use several tables"


@pytest.mark.parametrize("extreme", [False, True], ids=["random", "extreme"])
@pytest.mark.parametrize("reach", REACHES, ids=str)
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 3, 2), (2, 2, 5), (3, 1, 7), (2, 8, 9)], ids=str)
def test_h_s_is_the_reference_to_the_bit(size, reach, extreme):
    layers = layers_of(WIDTHS[0], 3)
    B, Hz, Wz = size
    z = drawn((B, Hz, Wz, NZ), -127, 127, 4, extreme).to(torch.int16)
    z[..., 0] %= 50  # of one channel nothing is beyond any reach
    quality = torch.tensor([100, 1, 64][:B])
    want = reference.split(hyper_map(z.permute(0, 3, 1, 2).double(), quality, exactly(layers)))
    made = Integers(layers, reach=reach)
    rows = z.flatten(0, 2), quality.view(B, 1).expand(B, Hz * Wz).reshape(-1).to(torch.int16), [(Hz, Wz)] * B
    for state in (made.begin(z, quality), made.begin_rows(*rows)):
        assert state.shape == (B, 4 * Hz, 2 * Wz, WIDTHS[0].M)
        for got, one in zip(state.psi, want, strict=True):
            assert torch.equal(got.view(one.shape).double(), one)
    assert all(one.unique().numel() > 4 for one in want)


@pytest.mark.parametrize("reach", REACHES, ids=str)
def test_streams_and_latents_are_those_of_the_carriers(tiny_path, reach):
    plain, codec = (ckbd.load(tiny_path, backend=backend) for backend in ("torch", "integers"))
    made = Integers(codec.model.layers, codec.team.on(CPU), reach=reach)
    codec.decoder.zone = codec.encoder.zone = made
    pictures = [textured(200, 330, seed) for seed in (1, 2)] + [textured(5, 70)]
    for quality in (1, 60, 100):
        streams = codec.encode(pictures, quality)
        assert streams == plain.encode(pictures, quality)
        for a, b in zip(codec.decode_latents(streams), plain.decode_latents(streams), strict=True):
            assert np.array_equal(a, b)
    assert not isinstance(plain.decoder.zone, Integers)


def saturating(x, w, out=None):
    """torch._int_mm as it is without VNNI: pairs are added in int16, and cut."""
    products_ = (x.long()[:, :, None] * w.long()[None]).unflatten(1, (-1, 2)) if x.shape[1] % 2 == 0 else None
    if products_ is None:
        return saturating(torch.nn.functional.pad(x, (0, 1)), torch.nn.functional.pad(w, (0, 0, 0, 1)), out)
    sums = products_.sum(2).clamp(-(1 << 15), (1 << 15) - 1).sum(1).to(torch.int32)
    return sums if out is None else out.copy_(sums)


def test_products_that_saturate_are_found_out_and_given_less(monkeypatch, tiny_path):
    want = ckbd.load(tiny_path, backend="torch")
    stream = want.encode([textured(70, 90)], 100)
    monkeypatch.setattr(torch, "_int_mm", saturating)
    shapes = [(33, 64), (192, 70)]
    assert products.reach(shapes) == products.NARROW
    codec = ckbd.load(tiny_path, backend="integers")
    assert codec.decoder.zone.reach == products.NARROW
    assert np.array_equal(codec.decode_latents(stream)[0], want.decode_latents(stream)[0])


def test_every_shape_and_number_of_rows_is_asked(monkeypatch):
    """oneDNN has other code for other shapes: of one input and several outputs it writes nothing at all."""
    real, good = torch._int_mm, products.reach([(33, 64), (64, 3)])
    assert good and products.reach([(64, 3)]) == good
    for bad in ((1, 33, 64), (16, 64, 3), (65, 33, 64)):

        def wrong(x, w, bad=bad):
            return real(x, w) + int((len(x), *w.shape) == bad)

        monkeypatch.setattr(torch, "_int_mm", wrong)
        assert products.reach([(33, 64), (64, 3)]) == 0, bad
    monkeypatch.setattr(torch, "_int_mm", real)
    if products.reach([(1, 3)]) == 0:
        assert products.reach([(33, 64), (1, 3)]) == 0
        layers = layers_of(cases.Widths(4, 1, 1, 1))
        with pytest.raises(zone.Unserved, match="no exact products"):
            Integers(layers)


@pytest.mark.parametrize("shift", [1, 8])
def test_products_that_are_wrong_are_not_used(monkeypatch, tiny_path, shift):
    real = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda x, w: real(x, w) >> shift << shift)
    assert products.reach([(33, 64)]) == 0
    assert isinstance(ckbd.load(tiny_path).decoder.zone, zone.Carriers)
    with pytest.raises(
        ValueError, match="backend 'integers': this processor and this PyTorch have no exact .*'torch'"
    ):
        ckbd.load(tiny_path, backend="integers")


def test_a_torch_that_has_no_such_products_runs_in_floats(monkeypatch, tiny_path):
    def missing(x, w):
        raise RuntimeError("not implemented")

    monkeypatch.setattr(torch, "_int_mm", missing)
    assert isinstance(ckbd.load(tiny_path).decoder.zone, zone.Carriers)
    monkeypatch.delattr(torch, "_int_mm")
    assert isinstance(ckbd.load(tiny_path).decoder.zone, zone.Carriers)


def test_products_that_are_slower_are_for_who_asks(monkeypatch, tiny_path):
    for gain, kind in ((0.3, zone.Carriers), (2.0, Integers)):
        monkeypatch.setattr(products, "gain", lambda dtype, gain=gain: gain)
        assert isinstance(ckbd.load(tiny_path).decoder.zone, kind)
        assert isinstance(ckbd.load(tiny_path, backend="integers").decoder.zone, Integers)


def test_integers_are_for_a_cpu_and_take_no_carrier(tiny_path):
    with pytest.raises(zone.Unserved, match="device meta: integers run on a CPU only"):
        Integers(layers_of(WIDTHS[0]), device=torch.device("meta"))
    with pytest.raises(ValueError, match="carrier: backend 'integers' computes in integers"):
        ckbd.load(tiny_path, backend="integers", carrier=torch.float32)
    assert isinstance(ckbd.load(tiny_path, carrier=torch.float32).decoder.zone, zone.Carriers)


def test_the_callers_default_device_and_dtype_do_not_reach_decoding(tiny_path, monkeypatch):
    codec = ckbd.load(tiny_path, backend="integers")
    (stream,) = codec.encode([textured(70, 90)])
    want, pixels = codec.decode_latents([stream])[0], codec.decode_pictures([stream])[0].rgb
    monkeypatch.setattr(codec.decoder, "zone", Integers(codec.model.layers, reach=products.NARROW))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert np.array_equal(codec.decode_latents([stream])[0], want)
            assert np.array_equal(codec.decode_pictures([stream])[0].rgb, pixels)
    finally:
        torch.set_default_dtype(before)


def test_what_is_relied_on_of_the_private_product():
    """torch._int_mm takes uint8 times int8, the second transposed without a copy, and writes where it is told."""
    x, w = torch.arange(6, dtype=torch.uint8).view(2, 3), torch.tensor([[1, -2, 3], [-127, 127, 0]], dtype=torch.int8)
    out = torch.empty(2, 2, dtype=torch.int32)
    assert products.integers(x, w, out) is out
    assert out.tolist() == [[4, 127], [10, 127]] and torch.equal(products.integers(x, w), out)


@pytest.mark.parametrize("isa", ["AVX512_CORE", "AVX2", "SSE41"])
def test_other_kinds_of_processor_give_the_same(isa, small_env):
    """This file again where oneDNN uses less than this processor has."""
    if "ONEDNN_MAX_CPU_ISA" in os.environ:
        pytest.skip("it is one of them")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    done = subprocess.run(command, env=small_env | {"ONEDNN_MAX_CPU_ISA": isa}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
