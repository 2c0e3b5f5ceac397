"""g_a and g_s of ckbd.kernels.transforms without Triton: twins against the networks that are trained, operators, what
they cost, which config is for whom.
"""

import pytest
import torch
import transform_cases as cases

from ckbd.codec.networks import tensors
from ckbd.kernels import Lattice, transforms
from ckbd.kernels.transforms import QUALITIES, Pictures, configs, pictures

LAT = Lattice(cases.LATENTS, 1)
TORCH = {"backend": "torch"}


def y_hat(lattice, r, mean, n):
    """(1, M, H, W) of an image, made of its halves site by site."""
    (H, W), rows = lattice.sizes[n], lattice.rows()[n]
    out = torch.zeros(1, r.shape[2], H, W)
    for h in range(H):
        for w in range(W):
            p, at = (h + w + lattice.parity) & 1, rows.start + h * ((W + 1) // 2) + w // 2
            out[0, :, h, w] = (16 * r[p, at].float() + mean[p, at]) / 16
    return out


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("M, width", cases.WIDTHS)
def test_g_s_paints_what_the_network_gives(M, width, layout, parity):
    lattice, album = Lattice(cases.LATENTS, parity), cases.Album(layout=layout)
    r, mean = cases.halves(lattice, M)
    g_s, network = cases.g_s(M, width, 2), cases.synthesis(M, width, torch.float32, 2)
    transforms.synthesise(r, mean, lattice, network, album.pictures, **TORCH)
    assert album.untouched()
    for n, x in enumerate(album.pictures.tensors):
        gain = network.gains[album.pictures.quality[n]].view(1, -1, 1, 1)
        with torch.no_grad():
            x_hat = g_s(y_hat(lattice, r, mean, n) * gain)
        rgb = x.numpy() if layout == "HWC" else x.permute(1, 2, 0).numpy()
        want = rgb.copy()
        tensors.put(want, x_hat[0], album.pictures.gray[n])
        assert abs(rgb.astype(int) - want).max() <= 1 and (rgb != want).mean() < 0.01


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("M, width", cases.WIDTHS)
def test_g_a_reads_what_the_network_reads(M, width, layout):
    given, network = cases.random_pictures(layout=layout), cases.analysis(M, width, torch.float32, 2)
    rows = transforms.analyse(given, LAT, network, **TORCH)
    assert rows.shape == (LAT.full_sites, M) and rows.dtype == torch.float32
    g_a = cases.g_a(M, width, 2)
    for x, (H, W), where in zip(given.tensors, LAT.sizes, LAT.rows(full=True), strict=True):
        planes = (x if layout == "CHW" else x.permute(2, 0, 1)).float().div(255).unsqueeze(0)
        more = (0, 16 * W - planes.shape[3], 0, 16 * H - planes.shape[2])
        with torch.no_grad():
            want = g_a(torch.nn.functional.pad(planes, more, mode="replicate"))[0].permute(1, 2, 0).flatten(0, 1)
        assert torch.allclose(rows[where], want, atol=2e-5 * float(want.abs().max()))


def test_half_precision_is_near():
    r, mean = cases.halves(LAT, 40)
    albums = [cases.Album(dtype=torch.float32) for _ in range(2)]
    for album, dtype in zip(albums, (torch.float16, torch.float32), strict=True):
        transforms.synthesise(r, mean, LAT, cases.synthesis(40, 100, dtype, 2), album.pictures, **TORCH)
    a, b = (torch.cat([x.flatten() for x in album.pictures.tensors]) for album in albums)
    assert 0 < (a - b).abs().max() < 0.05 and (a - b).square().mean().sqrt() < 0.005


def test_a_picture_does_not_depend_on_its_neighbours_in_the_twin():
    r, mean = cases.halves(LAT, 16)
    album, network = cases.Album(), cases.synthesis(16, 66, torch.float16)
    transforms.synthesise(r, mean, LAT, network, album.pictures, **TORCH)
    for n, rows in enumerate(LAT.rows()):
        x = torch.zeros_like(album.pictures.tensors[n])
        one = Pictures.of([x], gray=[album.pictures.gray[n]], quality2=[album.pictures.quality[n] + 2])
        half = r[:, rows].contiguous(), mean[:, rows].contiguous()
        transforms.synthesise(*half, Lattice((LAT.sizes[n],), 1), network, one, **TORCH)
        assert (x.int() - album.pictures.tensors[n].int()).abs().max() <= 1  # a library's sums, which may differ


def test_operators_say_what_they_give():
    """Fake kernels and schemas, as PyTorch checks them."""
    network, reader = cases.synthesis(16, 66, torch.float32), cases.analysis(16, 66, torch.float32)
    sizes = [n for size in LAT.sizes for n in size]
    fine = [2 * n for n in sizes]
    place = (0, "torch", [])
    r, mean = cases.halves(Lattice(LAT.sizes), 16)
    given, album = cases.random_pictures(), cases.Album()
    x16, x8 = (cases.features(n, 16, c, torch.float32) for n, c in ((LAT.full_sites, 32), (4 * LAT.full_sites, 128)))
    enter, up, down, out, pixels = network.enter, network.up, reader.down, reader.out, network.pixels
    calls = {
        "block": (x8, network.blocks8[0].tensors, fine, *place),
        "enter": (r, mean, network.gains, given.table, enter.weight, enter.bias, sizes, *place),
        "patch": (given.table, given.tensors, False, reader.patch.weight, reader.patch.bias, fine, *place),
        "paint": (
            *(x8, pixels.weight, pixels.bias, album.pictures.table, album.pictures.addresses),
            *(album.pictures.tensors, list(album.pictures.gray), False, fine, *place),
        ),
    }
    for name, args in calls.items():
        torch.library.opcheck(getattr(torch.ops.ckbd, f"transform_{name}").default, args)
    for x, layer, kind in ((x16, up, "up"), (x8, down, "down"), (x16, out, "out")):
        args = x, layer.weight, layer.bias, layer.N, kind, sizes, *place
        torch.library.opcheck(torch.ops.ckbd.transform_layer.default, args)


def test_a_batch_may_be_compiled_whole():
    network, lattice = cases.synthesis(16, 66, torch.float32), Lattice(((2, 3), (1, 1)))
    r, mean = cases.halves(lattice, 16)

    def run(album):
        transforms.synthesise(r, mean, lattice, network, album.pictures, **TORCH)
        return album.whole

    want = run(cases.Album(((30, 41), (16, 16))))
    got = torch.compile(run, fullgraph=True, backend="aot_eager")(cases.Album(((30, 41), (16, 16))))
    assert torch.equal(want, got)


# What it costs


def test_cost_is_that_of_the_network():
    """Multiply-adds counted by running the layers, bytes of what the launches take and give."""
    from torch.utils.flop_counter import FlopCounterMode

    M, width, lattice = 16, 66, Lattice(((4, 6), (4, 6)))
    network, reader = (kind(M, width, torch.float16, 2) for kind in (cases.synthesis, cases.analysis))
    for module, x, parts in (
        (cases.g_s(M, width, 2), torch.zeros(2, M, 4, 6), transforms.synthesis_cost(network, lattice, 2 * 64 * 96)),
        (cases.g_a(M, width, 2), torch.zeros(2, 3, 64, 96), transforms.analysis_cost(reader, lattice, 2 * 64 * 96)),
    ):
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            module(x)
        assert 2 * sum(p.macs for p in parts) == counter.get_total_flops()
    enter, *_, paint = transforms.synthesis_cost(network, lattice, 1000)
    assert enter.bytes == 4 * 48 * M + 2 * 48 * 32 + 2 * 32 * 32
    assert paint.bytes == 2 * 192 * 128 + 3 * 1000 + 2 * 192 * 128


def test_the_default_model_moves_less_than_25_megabytes_a_picture():
    """The bar, for 768 x 512; and less than a sixth of what layers move."""
    from ckbd.model import file

    model = file.load("small")
    network = transforms.Synthesis.pack(model.g_s.state_dict(), torch.ones(QUALITIES, 256))
    lattice, pixels = Lattice(((32, 48),)), 768 * 512
    ours = sum(p.bytes for p in transforms.synthesis_cost(network, lattice, pixels))
    assert ours <= 25e6 and transforms.eager_bytes(network, lattice, pixels) > 6 * ours


@pytest.mark.parametrize("kernel", ["block", *configs.LAYERS])
def test_every_width_has_a_config(kernel):
    for dtype in (torch.float16, torch.float32):
        for width in (32, 64, 128, 192, 256, 320, 2048):
            found = configs.candidates(kernel, dtype, width)
            assert found and len(set(found)) == len(found)
            assert all(c.block_p >= 64 for c in found), "one instruction must do every tile"
    assert pictures.LAYOUTS == cases.LAYOUTS


# Which config is for whom


@pytest.mark.parametrize("multiprocessors", [0, 1, 132])
def test_every_launch_has_programs(multiprocessors, monkeypatch):
    """Of a single tile too, or nothing would be computed."""
    pytest.importorskip("triton")
    from types import SimpleNamespace

    from ckbd.kernels.transforms import launch

    device = torch.device("cuda", 0) if multiprocessors else torch.device("cpu")
    about = SimpleNamespace(multi_processor_count=multiprocessors)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    for CP in (64, 128):
        found = {tiles: launch._resident(device, tiles, CP) for tiles in (1, 2, 3, 300, 10**5)}
        assert found[1] == 1 and all(1 <= programs <= tiles for tiles, programs in found.items())
        assert found[10**5] == (multiprocessors * (2 if CP == 64 else 1) or 2)


@pytest.mark.parametrize(
    "capability, hip, name",
    [((9, 0), None, "sm_90"), ((8, 0), None, "sm_80"), ((8, 6), None, "other"), ((9, 4), "6.4", "other")],
)
def test_a_gpu_that_is_not_known_has_forms_that_fit_any(capability, hip, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    configs.gpu_of.cache_clear()
    assert configs.gpu_of(torch.device("cuda", 7)) == name
    configs.gpu_of.cache_clear()
    forms = {c.form for width in (64, 128, 256) for c in configs.candidates("block", torch.float16, width, name)}
    assert forms == ({"spread"} if name == "other" else {"held", "resident", "spread"})
    assert configs.gpu_of(torch.device("cpu")) == configs.ANY
