"""Each Triton kernel against its torch twin: equal on every bit, and nothing written beside the output."""

import kernel_cases as cases
import pytest
import torch

from ckbd import kernels
from ckbd.kernels import Lattice, launch, layer, numerics, reference
from ckbd.kernels.configs import CONFIGS, Config
from ckbd.kernels.lattice import MAX_SIDE, blanks

# Small tiles: several of each kind at test sizes. The shipped ones are run once below.
SMALL = {f: Config(f, 16, 64, 64, 4, 2) for f in ("layers", "fused")}
PHASES = [(p, f) for p in (0, 1) for f in SMALL]


def run_phase(net, lat, p, config, extreme=False, seed=0):
    """Twin and kernel on the same inputs, which lie in the middle of poisoned arrays, as do the kernel's outputs."""
    _, psi = cases.guarded(lat.sites, net.C, net.psi.dtype)
    psi.copy_(cases.activations((lat.sites, net.C), seed, extreme, net.psi.dtype))
    acc = kernels.project(psi, net, backend="torch")
    assert torch.equal(acc, kernels.project(psi, net, backend="triton", config=config))
    context = None
    if p:
        whole, context = cases.guarded(lat.sites, net.M, net.psi.dtype)
        context.copy_(cases.activations((lat.sites, net.M), seed + 1, extreme, net.psi.dtype))
    want = kernels.phase(acc, context, net, lat, backend="torch")
    outputs = [cases.guarded(lat.sites, net.M, t.dtype) for t in want]
    before = None if context is None else whole.clone()
    kernels.phase(acc, context, net, lat, out=tuple(o for _, o in outputs), backend="triton", config=config)
    assert all(cases.untouched(whole) for whole, _ in outputs)
    assert context is None or torch.equal(whole.nan_to_num(), before.nan_to_num())
    return want, tuple(o for _, o in outputs)


# Every size with the first widths, one of each kind with the others.
SHAPES = [(w, s) for i, w in enumerate(cases.WIDTHS) for s in (cases.SIZES if i == 0 else ("one site", "mixed"))]


@pytest.mark.parametrize("p, form", PHASES)
@pytest.mark.parametrize("widths, sizes", SHAPES, ids=lambda v: str(v))
def test_phase_is_the_twin_to_the_bit(widths, sizes, p, form):
    net, _ = cases.integers(widths)
    for parity in (0, 1) if sizes in ("odd", "mixed") else (len(sizes) % 2,):
        want, got = run_phase(net, cases.lattice(sizes, parity), p, SMALL[form])
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("p, form", PHASES)
def test_phase_at_the_ends_of_every_range(p, form):
    """Activations of +-127 only: accumulators near their bound, means and indices at both limits."""
    net, _ = cases.integers(cases.Widths(64, 128, 128, 64), seed=5)
    want, got = run_phase(net, cases.lattice("mixed"), p, SMALL[form], extreme=True)
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
    assert want[0].max() == 16383 and want[0].min() == -16383 and want[1].max() == 63 and want[1].min() == 0


@pytest.mark.parametrize("p", [0, 1])
@pytest.mark.parametrize("config", CONFIGS[torch.int8], ids=str)
def test_every_shipped_integer_config(config, p):
    net, _ = cases.integers(cases.Widths(130, 48, 192, 96, 3))
    want, got = run_phase(net, Lattice(((5, 31), (2, 3))), p, config)
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("p, form", PHASES)
def test_channel_groups_read_and_write_slices_of_wider_arrays(p, form):
    """Two groups of one latent: each reads its channels, conditioned on psi and the group before, and writes its
    own.
    """
    lat, widths = cases.lattice("mixed"), cases.Widths(16, 48, 64, 64)
    y = cases.activations((lat.sites, 40))
    mean = torch.full((lat.sites, 40), 7, dtype=torch.int16)
    k = torch.full((lat.sites, 40), 7, dtype=torch.uint8)
    want_mean, want_k = mean.clone(), k.clone()
    for group, where in enumerate((slice(4, 20), slice(24, 40))):
        net, _ = cases.integers(widths, seed=group)
        acc = kernels.project(cases.activations((lat.sites, 48), group), net, backend="torch")
        context = y[:, where] if p else None
        kernels.phase(acc, context, net, lat, out=(mean[:, where], k[:, where]), backend="triton", config=SMALL[form])
        want_mean[:, where], want_k[:, where] = kernels.phase(acc, context, net, lat, backend="torch")
    assert torch.equal(mean, want_mean) and torch.equal(k, want_k)


def test_psi_of_a_large_batch_is_projected_strip_by_strip():
    """More rows than an image may be wide."""
    net, _ = cases.integers(cases.Widths(8, 32, 64, 64))
    psi = cases.activations((MAX_SIDE + 130, 32))
    got = kernels.project(psi, net, backend="triton", config=Config("layers", 1024, 64, 32, 4, 2))
    assert torch.equal(got, kernels.project(psi, net, backend="torch"))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("C", [1, 8, 31, 33, 48, 100, 656])
def test_psi_of_any_width_is_projected_to_the_bit(C, dtype):
    """Rows of psi lie as close as their width lets them, or in the middle of a poisoned array."""
    widths = cases.Widths(8, C, 70, 64, 3)
    net = cases.integers(widths)[0] if dtype == torch.int8 else cases.floats(widths, dtype, dyadic=True)
    assert net.psi.shape == (128, (C + 31) // 32 * 32 if C <= 32 else (C + 63) // 64 * 64)
    _, inside = cases.guarded(41, C, dtype)
    inside.copy_(cases.activations((41, C), dtype=dtype))
    for psi in (inside, inside.clone(memory_format=torch.contiguous_format)):
        want = kernels.project(psi, net, backend="torch")
        for config in (c for c in CONFIGS[dtype] if c.form == "layers"):
            assert torch.equal(want, kernels.project(psi, net, backend="triton", config=config))


@pytest.mark.parametrize("p, form", PHASES)
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16], ids=str)
def test_a_network_of_one_channel_of_everything(dtype, p, form):
    widths = cases.Widths(1, 1, 1, 1, 3)
    net = cases.integers(widths)[0] if dtype == torch.int8 else cases.floats(widths, dtype, dyadic=True)
    want, got = run_phase(net, cases.lattice("mixed"), p, SMALL[form])
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("split, factor", [(False, 2), (True, 2), (False, 1)])
@pytest.mark.parametrize("C, N", [(65, 24), (24, 40), (8, 16), (1, 1)])
@pytest.mark.parametrize("sizes", ["one site", "a row", "odd", "mixed"])
def test_sub_pixel_convolution_is_the_twin_to_the_bit(sizes, C, N, split, factor):
    conv = cases.sub_pixel(C, N, factor=factor)
    for parity, extreme, wide in ((0, False, False), (1, True, True)):
        lat = cases.lattice(sizes, parity)
        x = cases.activations((lat.full_sites, C), extreme=extreme)
        if wide:
            x = torch.nn.functional.pad(x, (0, conv.width - C))
        want = kernels.convolve(x, conv, lat, split=split, backend="torch")
        got = kernels.convolve(x, conv, lat, split=split, backend="triton", config=SMALL["layers"])
        assert torch.equal(want, got)


@pytest.mark.parametrize("sizes", cases.SIZES)
@pytest.mark.parametrize("M", [1, 5, 130])
def test_pointwise_kernels_are_their_twins_to_the_bit(sizes, M):
    for parity in (0, 1):
        lat = cases.lattice(sizes, parity)
        g = torch.Generator().manual_seed(M)
        y = torch.randn(lat.full_sites, M, generator=g) * 300
        y[0] = 1e9
        for p in (0, 1):
            mean = torch.randint(-16383, 16384, (lat.sites, M), generator=g).to(torch.int16)
            r = kernels.quantise(y, mean, lat, p, backend="torch")
            assert torch.equal(r, kernels.quantise(y, mean, lat, p, backend="triton"))
            for dtype in (torch.int16, torch.float32):
                results = []
                for backend in ("torch", "triton"):
                    whole, y_hat = cases.guarded(lat.full_sites, M, dtype)
                    around, context = cases.guarded(lat.sites, M, torch.int8)
                    kernels.assemble(r, mean, lat, p, y_hat, context, backend=backend)
                    assert cases.untouched(whole) and cases.untouched(around)
                    results.append((whole.nan_to_num(), around))
                assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
            packed = kernels.split(y, lat, p, backend="triton")
            assert torch.equal(packed, kernels.split(y, lat, p, backend="torch"))
            results = []
            for backend in ("torch", "triton"):
                whole, back = cases.guarded(lat.full_sites, M, torch.float32)
                kernels.merge(packed, lat, p, back, backend=backend)
                assert cases.untouched(whole)
                results.append(whole.nan_to_num())
            assert torch.equal(*results)


def test_quantise_at_ties_and_limits():
    """Every fraction of a sixteenth around zero, both signs: floor(x + 1/2), never round-to-even."""
    lat = Lattice(((1, 2),))
    y = torch.arange(-4096, 4096).view(2, -1) / 64
    for m in (-16383, -1, 0, 8, 16383):
        mean = torch.full((1, y.shape[1]), m, dtype=torch.int16)
        for p in (0, 1):
            got = kernels.quantise(y, mean, lat, p, backend="triton")[0].double()
            exact = y[p].double() - m / 16
            assert torch.equal(got, torch.floor(exact + 0.5).clamp(-1023, 1023))


# Float mode


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("p, form", PHASES)
@pytest.mark.parametrize("widths", cases.WIDTHS[:3], ids=str)
def test_float_phase_is_exact_where_floats_are(widths, p, form, dtype):
    """Values of few digits, of which every sum is exact in float32: then the order of summation is no excuse."""
    net = cases.floats(widths, dtype, dyadic=True)
    lat = cases.lattice("mixed", 1)
    want, got = run_phase(net, lat, p, SMALL[form])
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("p", [0, 1])
def test_sigma_comes_out_where_there_are_no_thresholds(p):
    net = cases.floats(cases.WIDTHS[1], torch.float32, dyadic=True, thresholds=False)
    want, got = run_phase(net, cases.lattice("mixed"), p, SMALL["layers"])
    assert got[1].dtype == torch.float32 and all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def in_float64(net, psi, context, lat, absolute=False):
    """Means and scales of one image in float64; absolute: with the sizes of all terms, which bounds rounding."""

    def of(t):
        return t.double().abs() if absolute else t.double()

    H, count = lat.sizes[0][0], net.kernel**2 // 2
    h = of(psi) @ of(net.psi[:, : net.C]).T
    if context is not None:
        anchors = context.masked_fill(blanks(lat, 0)[:, None], 0).double().view(1, H, -1, net.M)
        columns = reference.context_columns(anchors, 0, H, net.kernel, lat.parity).flatten(0, 2)
        h = h + of(columns) @ of(net.first[0].unflatten(1, (count, -1))[..., : net.M].flatten(1)).T
    h = h + of(net.first[1][0 if context is None else 1])
    for weight, bias, _ in (net.hidden, net.output):
        h = torch.nn.functional.leaky_relu(h, net.slope) @ of(weight).T + of(bias)
    return [half[:, : net.M] for half in h.chunk(2, dim=1)]


@pytest.mark.parametrize("p", [0, 1])
def test_float_phase_within_the_rounding_of_float32(p):
    """A sum of n terms is off by at most n eps sum |a b| (1 + small); layer by layer that adds up along the sizes of
    terms.
    """
    net = cases.floats(cases.WIDTHS[0], torch.float32, thresholds=False)
    lat = Lattice(((5, 7),))
    psi = torch.randn(lat.sites, 32)
    context = torch.randn(lat.sites, 16) if p else None
    acc = kernels.project(psi, net, backend="triton")
    got = kernels.phase(acc, context, net, lat, backend="triton")
    terms = (32 + 12 * 16) + 64 + 64 + 8
    there = ~blanks(lat, p)
    for value, want, size in zip(
        got, in_float64(net, psi, context, lat), in_float64(net, psi, context, lat, True), strict=True
    ):
        assert ((value - want).abs() <= 1.01 * terms * 2**-24 * size)[there].all()
    assert torch.equal(got[0] == 0, ~there[:, None].expand_as(got[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_float_results_depend_on_neither_batch_nor_tile_nor_form(dtype, ordered_dot):
    net = cases.floats(cases.Widths(40, 24, 70, 100), dtype)
    sizes = ((4, 7), (3, 5), (4, 7))
    lat = Lattice(sizes)
    psi = torch.randn(lat.sites, 24).to(dtype)
    context = torch.randn(lat.sites, 40).to(dtype)
    acc = kernels.project(psi, net, backend="triton", config=SMALL["layers"])
    configs = (*SMALL.values(), Config("layers", 32, 32, 32, 4, 2), Config("fused", 16, 64, 32, 4, 2))
    for c in (None, context):
        first, *others = (kernels.phase(acc, c, net, lat, backend="triton", config=f) for f in configs)
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
        for size, rows in zip(sizes, lat.rows(), strict=True):
            one = Lattice((size,))
            alone = kernels.project(psi[rows], net, backend="triton", config=SMALL["layers"])
            assert torch.equal(alone, acc[rows])
            out = kernels.phase(
                alone, None if c is None else c[rows], net, one, backend="triton", config=SMALL["fused"]
            )
            assert all(torch.equal(a[rows], b) for a, b in zip(first, out, strict=True))


@pytest.mark.parametrize("p", [0, 1])
def test_float_assembly(p):
    lat, M = cases.lattice("mixed"), 6
    r = torch.randint(-99, 100, (lat.sites, M)).to(torch.int16)
    mean = torch.randn(lat.sites, M)
    for dtype in (torch.float32, torch.float16):
        results = []
        for backend in ("torch", "triton"):
            y_hat, context = torch.zeros(lat.full_sites, M), torch.full((lat.sites, M), 9.0, dtype=dtype)
            kernels.assemble(r, mean, lat, p, y_hat, context, backend=backend)
            results.append((y_hat, context))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# What holds the two together


def test_constants_are_those_of_the_document():
    assert layer.MEAN_MAX.value == numerics.MEAN_MAX
    assert layer.K_MAX.value == numerics.K_MAX
    assert layer.ACT_MAX.value == numerics.ACT_MAX


def test_a_wrong_tap_is_noticed(monkeypatch):
    """The comparison can fail: the twin with two taps exchanged is not the kernel."""
    net, _ = cases.integers(cases.WIDTHS[0])
    taps = list(reference.taps(5))
    taps[3], taps[4] = taps[4], taps[3]
    monkeypatch.setattr(reference, "taps", lambda kernel: tuple(taps))
    want, got = run_phase(net, cases.lattice("even"), 1, SMALL["layers"])
    assert not torch.equal(want[0], got[0])


def test_the_dots_of_a_phase_are_those_that_cost_counts(monkeypatch):
    """phase_cost's `issued` is the work that the kernels do, multiply-add for multiply-add."""
    from triton.runtime.interpreter import InterpreterBuilder

    done = 0
    before = InterpreterBuilder.create_dot

    def counted(self, a, b, *rest):
        nonlocal done
        done += a.data.shape[0] * a.data.shape[1] * b.data.shape[1]
        return before(self, a, b, *rest)

    net, _ = cases.integers(cases.WIDTHS[1])
    lat = cases.lattice("mixed")
    acc = torch.zeros(lat.sites, net.hidden[0].shape[1], dtype=torch.int32)
    context = cases.activations((lat.sites, net.M))
    monkeypatch.setattr(InterpreterBuilder, "create_dot", counted)
    for config in SMALL.values():
        for p, c in ((0, None), (1, context)):
            done = 0
            kernels.phase(acc, c, net, lat, backend="triton", config=config)
            assert done == kernels.phase_cost(net, lat, p, config).issued


def test_a_product_that_a_gpu_refuses_is_refused_here(monkeypatch):
    """The interpreter would take 8 channels at a time; conftest.py holds it to what compiles."""
    net, _ = cases.integers(cases.WIDTHS[0])
    monkeypatch.setitem(launch.LEAST_K, torch.int8, 8)
    psi = cases.activations((20, net.C))
    with pytest.raises(Exception, match="K >= 32"):
        kernels.project(psi, net, backend="triton", config=Config("layers", 16, 64, 8, 4, 2))


def test_persistent_programs_take_turns():
    """More tiles than programs, or the loop over tiles would go untested."""
    assert launch._programs(torch.device("cpu"), 9) < 9
