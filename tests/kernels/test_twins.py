"""The torch twins on batches of any sizes against the dense computation; the checks of the public functions."""

import kernel_cases as cases
import pytest
import torch
from test_kernels import dense_phase

from ckbd import kernels
from ckbd.kernels import Lattice, Network, SubPixel, cost, lattice, reference, twin
from ckbd.kernels.configs import CONFIGS, Config
from ckbd.kernels.network import fold_context
from ckbd.kernels.numerics import IntLayer, compand


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("sizes", cases.SIZES)
@pytest.mark.parametrize("widths", cases.WIDTHS, ids=str)
def test_phase_equals_the_dense_masked_convolution_image_by_image(widths, sizes, parity):
    net, layers = cases.integers(widths)
    lat = cases.lattice(sizes, parity)
    psi_acc = torch.randint(-9000, 9000, (lat.sites, net.hidden[0].shape[1]), dtype=torch.int32)
    context = cases.activations((lat.sites, widths.M))
    for c in (None, context):
        mean, k = kernels.phase(psi_acc, c, net, lat, backend="torch")
        p = 0 if c is None else 1
        for (H, W), rows in zip(lat.sizes, lat.rows(), strict=True):
            shape = (1, H, lattice.half(W), -1)
            one = None if c is None else c[rows].clone()
            if one is not None:
                one[lattice.blanks(Lattice(((H, W),), parity), 0)] = 0
                one = one.view(shape)
            acc = psi_acc[rows, : widths.H1].reshape(shape)
            want = dense_phase(acc, one, layers, W, widths.kernel, parity)
            blank = lattice.blanks(Lattice(((H, W),), parity), p)[:, None]
            for got, w in zip((mean, k), want, strict=True):
                assert torch.equal(got[rows].long(), w.flatten(0, 2).masked_fill(blank, 0))
    assert k.unique().numel() > 4 or lat.sites < 8, "the case must use several tables"


def test_what_anchors_hold_at_blanks_is_ignored():
    net, _ = cases.integers(cases.WIDTHS[0])
    lat = Lattice(((3, 5), (1, 1)))
    psi_acc = torch.zeros(lat.sites, 64, dtype=torch.int32)
    context = cases.activations((lat.sites, 16))
    other = context.clone()
    other[lattice.blanks(lat, 0)] = 99
    a, b = (kernels.phase(psi_acc, c, net, lat, backend="torch") for c in (context, other))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("thresholds", [True, False])
def test_float_phase_is_the_convolution_and_the_two_layers(dtype, thresholds):
    g = torch.Generator().manual_seed(3)
    r = lambda *shape: (torch.randn(shape, generator=g) / 4).to(dtype).float()  # noqa: E731
    w_psi, conv, bias = r(12, 5), r(12, 6, 5, 5), r(2, 12)
    hidden, output = (r(10, 12), r(10)), (r(12, 10), r(12))
    t = torch.linspace(-1, 1, 9) if thresholds else None
    net = Network.floats(w_psi, conv, bias, hidden, output, slope=0.01, thresholds=t, dtype=dtype)
    lat = Lattice(((4, 7),), 1)
    full = r(1, 6, 4, 7)
    anchors, _ = reference.split(full, 1)
    psi = r(lat.sites, 5).to(dtype)
    acc = kernels.project(psi, net, backend="torch")
    mean, k = kernels.phase(acc, anchors.flatten(0, 2).to(dtype), net, lat, backend="torch")
    mask = torch.zeros(25)
    mask[1::2] = 1
    only = reference.merge(anchors, torch.zeros_like(anchors), 1, 7)
    context = torch.nn.functional.conv2d(only, conv * mask.view(5, 5), padding=2)
    h = reference.split(context, 1)[1].flatten(0, 2) + psi.float() @ w_psi.T + bias[1]
    for w, b in (hidden, output):
        h = torch.nn.functional.leaky_relu(h, 0.01).to(dtype).float() @ w.T + b
    keep = ~lattice.blanks(lat, 1)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3  # float16 may round an activation to its neighbour
    assert torch.allclose(mean[keep], h[keep, :6], atol=tolerance)
    if thresholds:
        sigma = h[keep, 6:]
        clear = ((sigma.unsqueeze(-1) - t).abs() > tolerance).all(-1)
        assert clear.float().mean() > 0.8
        assert torch.equal(k[keep][clear].long(), (sigma.unsqueeze(-1) > t).sum(-1)[clear])
    else:
        assert k.dtype == torch.float32 and torch.allclose(k[keep], h[keep, 6:], atol=tolerance)
    assert not mean[~keep].any() and not k[~keep].any()


def test_folding_the_context_into_the_first_layer_changes_nothing_but_rounding():
    g = torch.Generator().manual_seed(0)
    w_first, w_conv, b = (torch.randn(s, generator=g).double() for s in ((7, 8), (8, 3, 5, 5), (8,)))
    w, bias = fold_context(w_first, w_conv, b)
    x = torch.randn(1, 3, 6, 6, generator=g).double()
    conv = torch.nn.functional.conv2d
    assert torch.allclose(conv(x, w, bias, padding=2), conv(conv(x, w_conv, b, padding=2), w_first[..., None, None]))


@pytest.mark.parametrize("sizes", cases.SIZES)
@pytest.mark.parametrize("parity", [0, 1])
def test_assemble_quantise_split_and_merge_go_where_the_lattice_says(sizes, parity):
    lat, M = cases.lattice(sizes, parity), 5
    y = torch.randn(lat.full_sites, M) * 40
    y_hat = torch.full((lat.full_sites, M), -1, dtype=torch.int16)
    back = torch.full_like(y, float("nan"))
    for p in (0, 1):
        mean = torch.randint(-16383, 16384, (lat.sites, M)).to(torch.int16)
        r = kernels.quantise(y, mean, lat, p, backend="torch")
        context = torch.full((lat.sites, M), 55, dtype=torch.int8)
        kernels.assemble(r, mean, lat, p, y_hat, context, backend="torch")
        packed = kernels.split(y, lat, p, backend="torch")
        kernels.merge(packed, lat, p, back, backend="torch")
        for (_, W), full, rows in zip(lat.sizes, lat.rows(True), lat.rows(), strict=True):
            for i in range(rows.stop - rows.start):
                h, j = divmod(i, lattice.half(W))
                w = 2 * j + ((h + p + parity) & 1)
                site = rows.start + i
                if w >= W:
                    assert not r[site].any() and not context[site].any() and not packed[site].any()
                    continue
                here = y[full.start + h * W + w]
                assert torch.equal(packed[site], here)
                assert torch.equal(
                    r[site], torch.floor(here - mean[site] / 16 + 0.5).clamp(-1023, 1023).to(torch.int16)
                )
                want = 16 * r[site].int() + mean[site]
                assert torch.equal(y_hat[full.start + h * W + w].int(), want)
                assert torch.equal(context[site].float(), compand(want.float()))
    assert torch.equal(back, y)


@pytest.mark.parametrize("split", [False, True])
def test_sub_pixel_convolution_of_mixed_sizes_is_that_of_each_image(split):
    conv = cases.sub_pixel(20, 12)
    lat = Lattice(((2, 3), (1, 1), (4, 2)), 1)
    x = cases.activations((lat.full_sites, 20))
    got = kernels.convolve(x, conv, lat, split=split, backend="torch")
    big = lat.scaled(2)
    for i, size in enumerate(lat.sizes):
        one = kernels.convolve(x[lat.rows(True)[i]], conv, Lattice((size,), 1), split=split, backend="torch")
        where = big.rows(not split)[i]
        assert torch.equal(got[:, where] if split else got[where], one)
    wide = torch.zeros(lat.full_sites, conv.width, dtype=torch.int8)
    wide[:, :20] = x
    assert torch.equal(got, kernels.convolve(wide, conv, lat, split=split, backend="torch"))


def test_a_convolution_that_keeps_the_size_is_the_definition_in_halves():
    """Of images of odd sizes too, whose blanks hold 0."""
    g = torch.Generator().manual_seed(3)
    flat = cases.random_layer(g, 12, 9 * 20, 8)
    layer = IntLayer(flat.weight.view(12, 20, 3, 3), flat.bias, flat.shift)
    conv = SubPixel.pack(layer, factor=1)
    for parity in (0, 1):
        lat = Lattice(((2, 3), (1, 1), (4, 2)), parity)
        x = cases.activations((lat.full_sites, 20))
        got = kernels.convolve(x, conv, lat, backend="torch")
        assert got.shape == (2, lat.sites, 12)
        assert torch.equal(got, kernels.convolve(x, conv, lat, split=True, backend="torch"))
        for (H, W), full, packed in zip(lat.sizes, lat.rows(True), lat.rows(), strict=True):
            image = x[full].view(1, H, W, 20).permute(0, 3, 1, 2).float()
            halves = reference.split(reference.exact_conv3x3(image, layer.to("cpu", torch.float32)), parity)
            for half, want in zip(got, halves, strict=True):
                assert torch.equal(half[packed].float(), want.flatten(0, 2))


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("sizes", cases.SIZES)
def test_tiles_cover_every_site_once(sizes, full, block):
    lat = cases.lattice(sizes)
    table = lattice.tile_table(lat, block, full, torch.device("cpu")).tolist()
    seen = []
    for packed, first, H, W, base, image in table:
        assert (H, W) == lat.sizes[image] and lat.rows(full)[image].start == (base if full else packed)
        count = H * (W if full else lattice.half(W))
        assert first < count
        seen += [(base if full else packed) + s for s in range(first, min(first + block, count))]
    assert seen == list(range(lat.full_sites if full else lat.sites))


def test_context_takes_at_most_two_fifths_of_the_dense_way():
    """Counted as launched, tiles and padding included, at the sizes of public models."""
    widths = cases.Widths(192, 384, 640, 512)
    zeros = torch.zeros
    net = Network.floats(
        zeros(640, 384), zeros(640, 192, 5, 5), zeros(2, 640), (zeros(512, 640), zeros(512)),
        (zeros(384, 512), zeros(384)), slope=0.01,
    )  # fmt: skip
    lat = Lattice(((32, 48),))
    for config in CONFIGS[torch.int8]:
        c = cost.phase_cost(net, lat, 1, config)
        assert c.macs == 768 * (12 * 192 * 640 + 640 * 512 + 384 * 512)
        assert c.macs <= c.issued <= 0.4 * cost.dense_macs(net, lat), (widths, config)


@pytest.mark.parametrize(
    "values, message",
    [
        (("quick", 64, 64, 64, 4, 2), "form fused or layers or held or resident or spread, got 'quick'"),
        (("layers", 96, 64, 64, 4, 2), "block_p: expected a power of two, got 96"),
        (("layers", 64, 0, 64, 4, 2), "block_n: expected a power of two, got 0"),
        (("layers", 64, 64, 48, 4, 2), "block_k: expected a power of two, got 48"),
        (("layers", 64, 64, 64, 3, 2), "warps: expected a power of two, got 3"),
        (("layers", 64, 64, 64, 4, 0), "stages: expected at least 1, got 0"),
    ],
)
def test_configs_that_no_compiler_takes_are_refused(values, message):
    with pytest.raises(ValueError, match=f"config: .*{message}"):
        Config(*values)


@pytest.mark.parametrize("dtype, least", [(torch.int8, 32), (torch.float16, 16), (torch.float32, 16)], ids=str)
def test_products_too_small_for_a_gpu_are_refused_on_every_backend(dtype, least):
    net = cases.integers(cases.WIDTHS[0])[0] if dtype == torch.int8 else cases.floats(cases.WIDTHS[0], dtype)
    psi = torch.zeros(3, net.C, dtype=dtype)
    kernels.project(psi, net, config=Config("layers", 64, 64, least, 4, 2))
    with pytest.raises(ValueError, match=f"block_k: expected at least {least} in {dtype}, got {least // 2}"):
        kernels.project(psi, net, config=Config("layers", 64, 64, least // 2, 4, 2))


@pytest.mark.parametrize("C, rows, message", [(0, 8, "at least 1, got M 3, C 0"), (5, 7, r"psi weight: .*\(8, 5\)")])
def test_networks_without_psi_or_with_another_s_are_refused(C, rows, message):
    z = torch.zeros
    with pytest.raises(ValueError, match=f"network: .*{message}"):
        Network.floats(
            z(rows, C), z(8, 3, 5, 5), z(2, 8), (z(8, 8), z(8)), (z(6, 8), z(6)), slope=0.0
        )  # fmt: skip


def test_issued_work_counts_what_tiles_and_padding_add():
    net, _ = cases.integers(cases.WIDTHS[1])
    config = Config("layers", 64, 64, 64, 4, 2)
    c = cost.phase_cost(net, Lattice(((5, 7), (1, 1))), 1, config)
    assert c.macs == (17 + 0) * (4 * 40 * 70 + 70 * 100 + 80 * 100)
    assert c.issued == 2 * 64 * (4 * 64 * 128 + 128 * 128 + 128 * 128)


REFUSALS = {
    "psi_acc: expected shape": {"psi_acc": torch.zeros(3, 64, dtype=torch.int32)},
    "psi_acc: expected torch.int32": {"psi_acc": torch.zeros(8, 64)},
    "context: expected shape": {"context": torch.zeros(8, 15, dtype=torch.int8)},
    "context: expected torch.int8": {"context": torch.zeros(8, 16)},
    "context: expected channels to be contiguous": {"context": torch.zeros(16, 8, dtype=torch.int8).t()},
    "k: expected rows apart": {
        "out": (torch.zeros(8, 16, dtype=torch.int16), torch.zeros(1, 16, dtype=torch.uint8).expand(8, 16))
    },
    "mean: expected torch.int16": {"out": (torch.zeros(8, 16), torch.zeros(8, 16, dtype=torch.uint8))},
    "config: expected one of fused, layers": {"config": "quick"},
    "config: block_k: expected at least 32 in torch.int8, got 16": {"config": Config("layers", 64, 64, 16, 4, 2)},
    "backend: expected one of auto, torch, triton": {"backend": "cuda"},
}


@pytest.mark.parametrize("message", REFUSALS)
def test_wrong_arguments_are_named(message):
    net, _ = cases.integers(cases.WIDTHS[0])
    args = {
        "psi_acc": torch.zeros(8, 64, dtype=torch.int32),
        "context": torch.zeros(8, 16, dtype=torch.int8),
        "network": net,
        "lattice": Lattice(((4, 4),)),
    }
    with pytest.raises((ValueError, TypeError), match=message):
        kernels.phase(**(args | REFUSALS[message]))


@pytest.mark.usefixtures("with_triton")
def test_a_device_that_triton_cannot_serve_says_what_would():
    net, _ = cases.integers(cases.WIDTHS[0])
    with pytest.raises(kernels.BackendError, match="TRITON_INTERPRET=1.*backend 'torch' serves this device"):
        kernels.phase(torch.zeros(8, 64, dtype=torch.int32), None, net, Lattice(((4, 4),)), backend="triton")


def test_gradients_are_refused_rather_than_lost():
    net = cases.floats(cases.WIDTHS[0], torch.float32)
    psi_acc = torch.zeros(8, 64, requires_grad=True)
    with pytest.raises(ValueError, match="no gradient"):
        kernels.phase(psi_acc, None, net, Lattice(((4, 4),)))
    with torch.no_grad():
        kernels.phase(psi_acc, None, net, Lattice(((4, 4),)))


@pytest.mark.parametrize(
    "sizes, parity, message",
    [((), 0, "at least one"), (((0, 4),), 0, "got 0 x 4"), (((4, 4),), 2, "parity"), (((70000, 4),), 0, "side")],
)
def test_lattices_that_cannot_be_are_refused(sizes, parity, message):
    with pytest.raises(ValueError, match=message):
        Lattice(sizes, parity)


def test_compiles_as_one_graph_and_gives_the_same():
    """torch.compile sees the operators through their fake kernels: no break in the graph."""
    net, _ = cases.integers(cases.WIDTHS[0])
    lat = Lattice(((5, 7), (2, 3)))

    def two_phases(psi, r0):
        acc = kernels.project(psi, net).view(2, lat.sites, -1)
        mean0, k0 = kernels.phase(acc[0], None, net, lat)
        y_hat = torch.zeros(lat.full_sites, 16, dtype=torch.int16)
        context = torch.empty(lat.sites, 16, dtype=torch.int8)
        kernels.assemble(r0, mean0, lat, 0, y_hat, context)
        mean1, k1 = kernels.phase(acc[1], context, net, lat)
        return k0, mean1 + 0, k1, y_hat

    psi = cases.activations((2 * lat.sites, 32))
    r0 = torch.randint(-20, 21, (lat.sites, 16)).to(torch.int16)
    want = two_phases(psi, r0)
    got = torch.compile(two_phases, fullgraph=True, backend="aot_eager")(psi, r0)
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("sizes", ["one site", "mixed"])
def test_fake_kernels_promise_what_the_operators_return(sizes):
    lat = cases.lattice(sizes)
    flat = [n for s in lat.sizes for n in s]
    x = cases.activations((lat.full_sites, 20))
    checks = ("test_schema", "test_faketensor")
    for split, factor in ((False, 2), (True, 2), (False, 1)):
        args = (x, *cases.sub_pixel(20, 12, factor=factor).layer, 12, flat, 0, split, factor, "torch", [])
        torch.library.opcheck(torch.ops.ckbd.convolve.default, args, test_utils=checks)
    net, _ = cases.integers(cases.WIDTHS[0])
    psi = cases.activations((lat.sites, 32))
    torch.library.opcheck(torch.ops.ckbd.project.default, (psi, net.psi, "torch", []), test_utils=checks)
    acc = twin.project(psi, net.psi)
    mean, k = torch.empty(lat.sites, 16, dtype=torch.int16), torch.empty(lat.sites, 16, dtype=torch.uint8)
    args = (acc, None, net.tensors, None, 16, 5, 0.0, flat, 0, "torch", [], mean, k)
    torch.library.opcheck(torch.ops.ckbd.phase.default, args, test_utils=checks)
    y = torch.zeros(lat.full_sites, 16)
    mean.zero_()
    for op, args in (
        (torch.ops.ckbd.quantise, (y, mean, flat, 0, 1, "torch")),
        (torch.ops.ckbd.split, (y, flat, 0, 1, "torch")),
        (torch.ops.ckbd.merge, (y[: lat.sites].clone(), flat, 0, 0, "torch", y)),
        (torch.ops.ckbd.assemble, (mean, mean.clone(), flat, 0, 0, "torch", y, None)),
    ):
        torch.library.opcheck(op.default, args, test_utils=checks)
