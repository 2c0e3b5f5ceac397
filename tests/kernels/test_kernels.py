"""The torch twins of the phase kernels against a dense, obvious computation in int64."""

import subprocess
import sys

import pytest
import torch
from conftest import tiny_model

from ckbd.kernels import products, reference
from ckbd.kernels.numerics import compand
from ckbd.model.model import hyper_map, projected
from ckbd.model.transforms import Block


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("H, W", [(1, 1), (1, 2), (4, 4), (5, 6), (3, 13), (8, 2), (2, 5)])
def test_split_takes_the_sites_of_a_phase_and_merge_undoes_it(H, W, parity):
    y = torch.arange(1, 2 * 3 * H * W + 1).view(2, 3, H, W)
    halves = reference.split(y, parity)
    for p, half in enumerate(halves):
        for h in range(H):
            for j in range((W + 1) // 2):
                w = 2 * j + ((h + p + parity) & 1)
                assert torch.equal(half[:, h, j], y[:, :, h, w] if w < W else torch.zeros(2, 3).long())
    assert torch.equal(reference.merge(*halves, parity, W), y)


def dense_phase(psi_acc, context, layers, W, kernel=5, parity=0):
    """Phase 1 the long way: full lattice, convolution with a masked kernel, int64."""
    first, hidden, output = [tuple(t.to(torch.int64) for t in layer[:3]) for layer in layers]
    B, H, _, H1 = psi_acc.shape
    M = output[0].shape[0] // 2
    live = kernel * kernel // 2
    full = torch.zeros(B, M, H, W, dtype=torch.int64)
    masked = torch.zeros(H1, M, kernel * kernel, dtype=torch.int64)
    masked[:, :, 1::2] = first[0][:, -live * M :].view(-1, live, M).transpose(1, 2)
    if context is not None:
        full = reference.merge(context, torch.zeros_like(context), parity, W).to(torch.int64)
    # Exact in float64: products of values up to 127.
    columns = torch.nn.functional.unfold(full.double(), kernel, padding=kernel // 2).to(torch.int64)
    acc = torch.einsum("nk,bkp->bnp", masked.view(H1, -1), columns).view(B, H1, H, W)
    p = 0 if context is None else 1
    acc = reference.split(acc, parity)[p] + psi_acc.to(torch.int64) + first[1][p]

    def shift(x, s, low, high):
        half = torch.where(s > 0, 1 << (s - 1).clamp(min=0), 0)
        return torch.minimum(torch.maximum((x + half) >> s, low), high)

    low, high = torch.tensor(0), torch.tensor(127)
    h = shift(acc, first[2], low, high)
    h = shift(h @ hidden[0].T + hidden[1], hidden[2], low, high)
    out = h @ output[0].T + output[1]
    low = torch.cat((torch.full((M,), -16383), torch.zeros(M, dtype=torch.int64)))
    high = torch.cat((torch.full((M,), 16383), torch.full((M,), 63)))
    out = shift(out, output[2], low, high)
    return out[..., :M], out[..., M:]


def inputs(H, W, B=2, seed=0, carrier=torch.float32):
    model = tiny_model(seed)
    with torch.no_grad():
        layers = model.exact.integers()
    torch.manual_seed(seed)
    psi_acc = torch.randint(-9000, 9000, (B, H, W // 2, 64)).to(carrier)
    y_hat = (torch.randn(B, H, W // 2, 16) * 400).round().clamp(-32751, 32751).to(carrier)
    return psi_acc, compand(y_hat), layers


@pytest.mark.parametrize("H, W", [(1, 2), (4, 4), (7, 10), (13, 6)])
@pytest.mark.parametrize("stripe", [1, 3, 64])
def test_phase_equals_dense_masked_convolution(H, W, stripe):
    psi_acc, context, layers = inputs(H, W)
    for c in (None, context):
        mean, k = reference.phase(psi_acc, c, layers.g_ep, stripe)
        want_mean, want_k = dense_phase(psi_acc, c, layers.g_ep, W)
        assert torch.equal(mean.long(), want_mean)
        assert torch.equal(k.long(), want_k)
    assert k.unique().numel() > 4, "the case must use several tables"


@pytest.mark.parametrize("H, W", [(1, 1), (2, 3), (5, 4)])
@pytest.mark.parametrize("stripe", [1, 2, 64])
def test_conv3x3_equals_the_sum_of_the_document(H, W, stripe):
    with torch.no_grad():
        layer = tiny_model(1).exact.h_s_0.integers()
    x = torch.randint(-127, 128, (2, layer.weight.shape[1], H, W)).float()
    got = reference.exact_conv3x3(x, layer, stripe)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1)).long()
    weight, bias, shift = (t.long() for t in layer[:3])
    for n in range(0, weight.shape[0], 5):
        for i in range(H):
            for j in range(W):
                acc = (padded[:, :, i : i + 3, j : j + 3] * weight[n]).sum((1, 2, 3)) + bias[n]
                half = 1 << (shift[n] - 1) if shift[n] else 0
                assert torch.equal(got[:, n, i, j].long(), ((acc + half) >> shift[n]).clamp(0, 127))


def test_probe_passes_exact_arithmetic_and_catches_what_loses_bits(monkeypatch):
    for dtype in (torch.float32, torch.float64):
        reference.probe(torch.device("cpu"), dtype)
    with pytest.raises(ValueError, match="not exact"):
        reference.probe(torch.device("cpu"), torch.bfloat16)

    def rounded(x, w, *_):  # an accumulator of 22 bits
        return torch.floor(x @ w.T / 4) * 4

    monkeypatch.setattr(products, "_onednn", rounded)
    with pytest.raises(ValueError, match="not exact"):
        reference.probe(torch.device("cpu"), torch.float32)


def test_products_are_those_of_pytorch_whatever_the_library(monkeypatch):
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 5, 7, 33), torch.randn(9, 40), torch.randn(9)
    for weight in (w[:, :33], w[:, :33].contiguous()):
        for bias in (None, b):
            for slope in (1.0, 0.1):
                want = torch.nn.functional.leaky_relu(torch.nn.functional.linear(x, weight, bias), slope)
                assert torch.equal(products.linear(x, weight, bias, slope), want), "with gradients: PyTorch's own"
                with torch.no_grad():
                    got = products.linear(x, weight, bias, slope)
                    monkeypatch.setattr(products, "_onednn", None)
                    assert torch.equal(products.linear(x, weight, bias, slope), want), "a build without oneDNN"
                    monkeypatch.undo()
                assert torch.allclose(got, want, atol=1e-5)
    with torch.no_grad():
        a, c = (torch.randint(-127, 128, (n, 1000)).float() for n in (40, 30))
        exact = (a.long() @ c.long().T).float()
        assert torch.equal(products.linear(a, c), exact) and torch.equal(
            products.linear(a.double(), c.double()), exact.double()
        )
        assert products.linear(torch.zeros(0, 3), torch.zeros(2, 3)).shape == (0, 2)


def test_products_of_a_network_in_mixed_precision():
    """Under autocast what a convolution gives is bfloat16 and the next weights are not."""
    torch.manual_seed(0)
    block = Block(66)
    x = torch.randn(1, 66, 5, 4)
    want = block(x).detach()
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(block(x).float(), want, atol=0.05)


def two_phases(layers, z, quality, y_hat):
    """(mean, k) of both phases for given z (B, Nz, hz, wz), quality (B,), y_hat of the anchors (packed)."""
    out, context = [], None
    for psi_acc in projected(hyper_map(z, quality, layers), layers):
        out += reference.phase(psi_acc, context, layers.g_ep)
        context = compand(y_hat)
    return out


def case(B=1, seed=5):
    with torch.no_grad():
        layers = tiny_model(seed).exact.integers()
    torch.manual_seed(seed)
    z = torch.randint(-40, 41, (B, 6, 2, 3)).float()
    y_hat = (torch.randn(B, 8, 6, 16) * 200).round()
    return layers, z, torch.randint(1, 101, (B,)), y_hat


@pytest.mark.parametrize("B", [7, 64])
def test_same_numbers_for_every_batch_size(B):
    layers, z, quality, y_hat = case(B)
    together = two_phases(layers, z, quality, y_hat)
    for b in range(0, B, 5):
        alone = two_phases(layers, z[b : b + 1], quality[b : b + 1], y_hat[b : b + 1])
        assert all(torch.equal(t[b : b + 1], a) for t, a in zip(together, alone, strict=True))


def test_same_numbers_in_float64_channels_last_autocast_and_with_any_threads():
    layers, z, quality, y_hat = case(3)
    want = two_phases(layers, z, quality, y_hat)
    assert all(
        torch.equal(a.double(), b)
        for a, b in zip(want, two_phases(layers, z.double(), quality, y_hat.double()), strict=True)
    )
    last = z.contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(want, two_phases(layers, last, quality, y_hat), strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = two_phases(layers, z, quality, y_hat)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(want, got, strict=True))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(want, two_phases(layers, z, quality, y_hat), strict=True))
    finally:
        torch.set_num_threads(before)


CHILD = """
import hashlib, sys; sys.path[:0] = {paths!r}
from test_kernels import case, two_phases
digest = hashlib.sha256()
for t in two_phases(*case(3)): digest.update(t.int().numpy().tobytes())
print(digest.hexdigest())
"""


def test_same_numbers_when_onednn_is_limited_to_other_instruction_sets(small_env, request):
    code = CHILD.format(paths=[str(request.path.parent), str(request.path.parents[1])])
    seen = set()
    for limit in (
        {},
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ATEN_CPU_CAPABILITY": "default"},
    ):
        run = subprocess.run([sys.executable, "-c", code], env=small_env | limit, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        seen.add(run.stdout)
    assert len(seen) == 1


def test_context_is_causal():
    """Change one anchor: only the twelve non-anchors around it may move, and each of them can."""
    psi_acc, context, layers = inputs(9, 10, B=1, seed=8)
    base = torch.cat(reference.phase(psi_acc, context, layers.g_ep), -1)
    h, j = 4, 2
    row, column = h, 2 * j  # an even row: anchors on even columns
    moved = set()
    for channel in range(16):
        for value in (-127, 127):
            changed = context.clone()
            changed[0, h, j, channel] = value
            out = torch.cat(reference.phase(psi_acc, changed, layers.g_ep), -1)
            for hh, jj in (out != base).any(-1)[0].nonzero().tolist():
                moved.add((hh - row, 2 * jj + 1 - (hh & 1) - column))
    # Cross-correlation: the site at offset o sees the anchor at -o, and the mask is symmetric.
    assert moved == set(reference.TAPS)
