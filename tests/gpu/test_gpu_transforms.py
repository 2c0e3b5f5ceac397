"""g_a and g_s in Triton on a GPU: near the CPU's twins, and what a picture gives depends on nothing but itself.

Once these have passed, PASSED in ckbd.codec.networks.painting makes the kernels the default. Those named
test_small_... run under compute-sanitizer too.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transform_cases as cases
from conftest import SIZES, textured, tiny_model

import ckbd
from ckbd.codec.networks import painting
from ckbd.kernels import Lattice, transforms
from ckbd.kernels.network import padded
from ckbd.kernels.transforms import Pictures, configs
from ckbd.kernels.transforms.pictures import DTYPES
from ckbd.model import file as modelfile

sys.path[:0] = [str(Path(__file__).parent)]

from choices import own_choices  # noqa: E402, F401

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

HALF, SINGLE = torch.float16, torch.float32
LAT = Lattice(cases.LATENTS, 1)
# (M, features, dtype), few, since every kernel of each is compiled first.
NETWORKS = ((16, 66, HALF), (9, 65, HALF), (256, 128, HALF), (320, 256, HALF), (16, 66, SINGLE))
# A picture of a site and larger ones, more tiles than a GPU runs programs at a time.
MANY = Lattice(((32, 48),) * 12 + ((1, 1), (70, 130), (5, 9)))
# Pixels of 255 that g_s may be off, and the share of the largest feature that g_a may: sums are in another order.
PIXELS, FEATURES = {HALF: 2, SINGLE: 1}, {HALF: 1e-2, SINGLE: 1e-4}


def sizes_of(lattice):
    return tuple((16 * H - 3 * (H > 1), 16 * W - 5 * (W > 1)) for H, W in lattice.sizes)


def paint(
    network, lattice=LAT, sizes=cases.SIZES, layout="CHW", dtype=torch.uint8, plan=None, device="cuda", **where
):
    album = cases.Album(sizes, layout, dtype, device, **where)
    r, mean = (t.to(device) for t in cases.halves(lattice, network.M))
    transforms.synthesise(r, mean, lattice, network, album.pictures, configs=plan)
    assert album.untouched()
    return [x.cpu() for x in album.pictures.tensors]


def blocks(width, dtype=HALF):
    """All configs of a block here."""
    return configs.candidates(
        "block", dtype, width, configs.gpu_of(torch.device("cuda", torch.cuda.current_device()))
    )


def plans(dtype, width, M):
    """Every config of every kernel has its turn; a block's is also that of those at 1/16, whose width is M's."""
    width, M = padded(width), padded(M)
    options = {name: configs.candidates(name, dtype, M if name == "enter" else width) for name in configs.LAYERS}
    here, there = (blocks(n, dtype) for n in (width, M))
    # Blocks of both widths are each measured where no config is given, so what only one of them has is tried there.
    options["block"] = [c for c in here if c in there]
    for i in range(max(map(len, options.values()))):
        yield {name: some[i % len(some)] for name, some in options.items()}
    yield {name: some[0] for name, some in options.items() if name != "block"}


def equal(some, others):
    return len(some) == len(others) and all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def worst(some, others):
    return max((a.float() - b.float()).abs().max().item() for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("M, width, dtype", NETWORKS, ids=str)
def test_g_s_is_near_the_twin_of_the_cpu(M, width, dtype):
    here, there = (cases.synthesis(M, width, dtype, 2, device) for device in ("cpu", "cuda"))
    for layout in cases.LAYOUTS:
        want, plan = paint(here, layout=layout, device="cpu"), next(plans(dtype, width, M))
        assert worst(paint(there, layout=layout, plan=plan), want) <= PIXELS[dtype]


@pytest.mark.parametrize("M, width, dtype", NETWORKS, ids=str)
def test_g_a_is_near_the_twin_of_the_cpu(M, width, dtype):
    for layout in cases.LAYOUTS:
        found = []
        for device in ("cpu", "cuda"):
            given, network = (
                cases.random_pictures(layout=layout, device=device),
                cases.analysis(M, width, dtype, 2, device),
            )
            found.append(transforms.analyse(given, LAT, network, configs=next(plans(dtype, width, M))).cpu())
        assert (found[0] - found[1]).abs().max() <= FEATURES[dtype] * found[0].abs().max()


@pytest.mark.parametrize("M, width, dtype", [(256, 128, HALF), (320, 256, HALF), (16, 66, SINGLE)], ids=str)
def test_neither_neighbours_nor_tile_nor_form_change_a_bit(M, width, dtype):
    """What lets a picture be the same alone and in any batch. Pictures are compared as floats in full."""
    network, reader = (kind(M, width, dtype, 2, "cuda") for kind in (cases.synthesis, cases.analysis))
    sizes = sizes_of(MANY)
    given = cases.random_pictures(sizes, device="cuda")
    first, y = paint(network, MANY, sizes), transforms.analyse(given, MANY, reader)
    for plan in plans(dtype, width, M):
        assert equal(first, paint(network, MANY, sizes, plan=plan)), plan
        assert torch.equal(y, transforms.analyse(given, MANY, reader, configs=plan)), plan
    r, mean = (t.cuda() for t in cases.halves(MANY, M))
    for n in (0, 11, 12, 13, 14):
        rows, full = MANY.rows()[n], MANY.rows(full=True)[n]
        one, x = Lattice((MANY.sizes[n],)), torch.zeros_like(first[n]).cuda()
        alone = Pictures.of([x], gray=[n % 3 == 1], quality2=[2 + 31 * n % transforms.QUALITIES])
        half = r[:, rows].contiguous(), mean[:, rows].contiguous()
        transforms.synthesise(*half, one, network, alone)
        assert torch.equal(x.cpu(), first[n])
        assert torch.equal(transforms.analyse(Pictures.of(given.tensors[n : n + 1]), one, reader), y[full])


def test_small_batch():
    for dtype in (HALF, SINGLE):
        network, reader = (kind(16, 66, dtype, 1, "cuda") for kind in (cases.synthesis, cases.analysis))
        results = [paint(network, plan=plan) for plan in plans(dtype, 66, 16)]
        assert all(equal(results[0], other) for other in results)
        given = cases.random_pictures(device="cuda")
        found = [transforms.analyse(given, LAT, reader, configs=plan) for plan in plans(dtype, 66, 16)]
        assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("width", [64, 128, 256, 320])
def test_small_block_of_every_form(width):
    weights = cases.synthesis(16, width, HALF, 1, "cuda").blocks8[0]
    x = cases.features(LAT.full_sites, width, width, HALF).cuda()
    first, *others = (transforms.block(x, weights, LAT, config=c) for c in blocks(width))
    assert others and all(torch.equal(first, other) for other in others)


def test_the_same_again_and_again():
    """A race shows now and then."""
    network, sizes = cases.synthesis(128, 128, HALF, 2, "cuda"), sizes_of(MANY)
    for block in blocks(128):
        first = paint(network, MANY, sizes, plan={"block": block})
        for _ in range(30):
            assert equal(first, paint(network, MANY, sizes, plan={"block": block}))


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_floats_are_the_8_bit_pixels_over_255(layout):
    network = cases.synthesis(40, 100, HALF, 1, "cuda")
    eight = paint(network, layout=layout)
    for dtype in DTYPES[1:]:
        for x, y in zip(paint(network, layout=layout, dtype=dtype), eight, strict=True):
            assert torch.equal(x, y.float().div(255).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_small_rows_that_take_eight_pixels_in_one_store(dtype):
    """Where pictures lie changes no pixel: at addresses that let a store have eight of them, and elsewhere."""
    network, sizes = cases.synthesis(16, 66, HALF, 1, "cuda"), ((70, 136), (16, 8), (33, 64), (16, 96), (45, 40))
    for plan in plans(HALF, 66, 16):
        results = [paint(network, sizes=sizes, dtype=dtype, plan=plan, margin=margin) for margin in (16, 37)]
        assert equal(*results)


def test_features_stay_within_float16():
    network = cases.synthesis(16, 66, HALF, 1, "cuda")
    network.gains.mul_(1e6)
    r, mean = (torch.full((2, LAT.sites, 16), n, dtype=torch.int16, device="cuda") for n in (1023, 16383))
    album = cases.Album(dtype=SINGLE, device="cuda")
    transforms.synthesise(r, mean, LAT, network, album.pictures)
    assert all(((x >= 0) & (x <= 1)).all() for x in album.pictures.tensors)


def test_in_a_graph():
    """Captured once, replayed for other latents and other pictures' addresses."""
    network = cases.synthesis(128, 128, HALF, 2, "cuda")
    r, mean = (t.cuda() for t in cases.halves(LAT, 128))
    albums = [cases.Album(device="cuda") for _ in range(3)]
    transforms.synthesise(r, mean, LAT, network, albums[0].pictures)
    table = albums[1].pictures.table.clone()
    fixed = Pictures(*(getattr(albums[1].pictures, n) if n != "table" else table for n in Pictures.__annotations__))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        transforms.synthesise(r, mean, LAT, network, fixed)
    graph.replay()
    assert equal(albums[0].pictures.tensors, albums[1].pictures.tensors)
    table.copy_(albums[2].pictures.table)
    graph.replay()
    assert equal(albums[0].pictures.tensors, albums[2].pictures.tensors)
    r.add_(1)
    graph.replay()
    assert not equal(albums[0].pictures.tensors, albums[2].pictures.tensors)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compiled_whole():
    network = cases.synthesis(128, 128, HALF, 1, "cuda")
    r, mean = (t.cuda() for t in cases.halves(LAT, 128))
    want, got = cases.Album(device="cuda"), cases.Album(device="cuda")
    transforms.synthesise(r, mean, LAT, network, want.pictures)
    torch.compile(transforms.synthesise, fullgraph=True)(r, mean, LAT, network, got.pictures)
    assert equal(want.pictures.tensors, got.pictures.tensors) and got.untouched()


# The codec


@pytest.fixture(scope="module", params=["tiny", "small"])
def both(request, tmp_path_factory):
    """(of the CPU, of the GPU in kernels): the same model."""
    path = request.param
    if path == "tiny":
        path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
        modelfile.save(tiny_model(), path)
    return ckbd.load(path), ckbd.load(path, device="cuda", backend="triton")


def test_a_codec_in_kernels(both):
    """decode and decode_iter give the same bits, whatever the batch, and nearly the CPU's pixels."""
    cpu, gpu = both
    pictures = [textured(h, w, i) for i, (h, w) in enumerate(SIZES)]
    pictures[3] = pictures[3][..., 0]
    streams = gpu.encode(pictures, 60)
    assert all(np.array_equal(a, b) for a, b in zip(*(c.decode_latents(streams) for c in both), strict=True))
    want = [torch.from_numpy(p.rgb) for p in gpu.decode_pictures(streams)]
    assert worst(want, [torch.from_numpy(p.rgb) for p in cpu.decode_pictures(streams)]) <= 2
    for count in (1, 3, 256):
        found = [x.cpu() for _, x in gpu.decode_iter(streams * 3, layout="HWC", batch_count=count)]
        assert equal(found, want * 3)
    single = [x.cpu() for x in gpu.decode_tensors(streams, layout="HWC", half=False)]
    assert worst(single, want) <= 2
    theirs = cpu.encode(pictures, 60)
    assert abs(sum(map(len, streams)) / sum(map(len, theirs)) - 1) < 0.01


def test_one_bad_stream_of_a_batch(both):
    _, gpu = both
    streams = gpu.encode([textured(h, w, i) for i, (h, w) in enumerate(SIZES)], 60)
    want = gpu.decode_tensors(streams)
    bad = streams[2][:-6] + bytes([streams[2][-6] ^ 1]) + streams[2][-5:]
    out = [x for _, x in gpu.decode_iter([*streams[:2], bad, *streams[3:]], on_error="yield")]
    assert isinstance(out[2], ckbd.FormatError)
    assert equal(out[:2] + out[3:], want[:2] + want[3:])


def test_who_does_not_ask_has_layers(tmp_path):
    modelfile.save(tiny_model(), tmp_path / "tiny.safetensors")
    codec = ckbd.load(tmp_path / "tiny.safetensors", device="cuda")
    assert (codec.decoder.painter is not None) == painting.PASSED
