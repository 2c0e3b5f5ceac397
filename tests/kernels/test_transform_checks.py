"""What ckbd.kernels.transforms refuses: it reads and writes where it is told."""

import pytest
import torch
import transform_cases as cases

from ckbd.kernels import BackendError, Config, Lattice, transforms
from ckbd.kernels.transforms import QUALITIES, Pictures, weights

LAT = Lattice(cases.LATENTS, 1)
TORCH = {"backend": "torch"}


@pytest.mark.usefixtures("with_triton")
def test_backends_are_refused_as_those_of_the_phases():
    r, mean = cases.halves(LAT, 16)
    with pytest.raises(BackendError, match="interpreter"):
        transforms.synthesise(
            r, mean, LAT, cases.synthesis(16, 66, torch.float16), cases.Album().pictures, backend="triton"
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"r": torch.zeros(2, 3, 16, dtype=torch.int16)}, r"r: expected contiguous int16 \(2, \d+, 16\)"),
        ({"mean": torch.zeros(2, LAT.sites, 16)}, "mean: expected contiguous int16 .*, got torch.float32"),
        ({"r": torch.zeros(2, LAT.sites, 32, dtype=torch.int16)[..., ::2]}, "r: expected contiguous"),
        ({"sizes": cases.SIZES[:-1]}, "pictures: expected 5, as many as images, got 4"),
        ({"sizes": ((81, 130), *cases.SIZES[1:])}, "picture 0: 81 x 130 pixels are more than 5 x 9 latents have"),
        ({"sizes": (*cases.SIZES[:-1], (45, 65))}, "picture 4: 45 x 65 pixels"),
    ],
)
def test_what_would_be_read_or_written_elsewhere_is_refused(change, message):
    r, mean = cases.halves(LAT, 16)
    given = {"r": r, "mean": mean, "sizes": cases.SIZES} | change
    album = cases.Album(given["sizes"])
    with pytest.raises(ValueError, match=message):
        transforms.synthesise(
            given["r"], given["mean"], LAT, cases.synthesis(16, 66, torch.float16), album.pictures, **TORCH
        )
    assert (album.whole == cases.POISON).all()


def test_pictures_that_g_a_cannot_read_are_refused():
    network = cases.analysis(16, 66, torch.float32)
    for album in (cases.Album(dtype=torch.float32), cases.Album(((0, 0), *cases.SIZES[1:]))):
        with pytest.raises(ValueError, match="pictures: expected uint8 with at least one pixel each"):
            transforms.analyse(album.pictures, LAT, network, **TORCH)


def test_a_block_checks_its_features():
    weights, lattice = cases.synthesis(16, 66, torch.float16).blocks8[0], Lattice(((2, 3),))
    for x in (torch.zeros(6, 66).half(), torch.zeros(6, 128), torch.zeros(6, 256).half()[:, ::2]):
        with pytest.raises(ValueError, match=r"x: expected contiguous torch.float16 \(6, 128\)"):
            transforms.block(x, weights, lattice, **TORCH)
    with pytest.raises(ValueError, match="no gradient"):
        transforms.block(torch.zeros(6, 128).half().requires_grad_(), weights, lattice, **TORCH)
    for name, form, message in (
        ("block", "layers", "configs: block: expected held or resident or spread, got layers"),
        ("paint", "held", "configs: paint: expected layers, got held"),
        ("layer", "layers", "configs: layer: expected no such kernel"),
    ):
        with pytest.raises(ValueError, match=message):
            r, mean = cases.halves(LAT, 16)
            network, plan = cases.synthesis(16, 66, torch.float16), {name: Config(form, 16, 16, 16, 4, 2)}
            transforms.synthesise(r, mean, LAT, network, cases.Album().pictures, configs=plan, **TORCH)
    odd, config = cases.synthesis(16, 130, torch.float16).blocks8[0], Config("held", 16, 16, 16, 4, 2)
    with pytest.raises(ValueError, match="a block of 192 channels, no power of two, can only be spread"):
        transforms.block(torch.zeros(6, 192).half(), odd, lattice, config=config, **TORCH)
    with pytest.raises(ValueError, match="block_k: expected at least 16"):
        config = Config("spread", 16, 16, 8, 4, 2)
        transforms.block(torch.zeros(6, 128).half(), weights, lattice, config=config, **TORCH)


@pytest.mark.parametrize(
    "tensors, options, message",
    [
        ([], {}, "expected at least one"),
        ([(3, 4, 5)], {"layout": "CWH"}, "layout: expected CHW or HWC, got 'CWH'"),
        ([(4, 5, 3)], {}, r"picture 0: expected contiguous \(3, H, W\), got \(4, 5, 3\)"),
        ([(3, 4, 5)], {"layout": "HWC"}, r"picture 0: expected contiguous \(H, W, 3\)"),
        ([(3, 4)], {}, "picture 0: expected contiguous"),
        ([(3, 4, 5)], {"gray": [True, False]}, "gray: expected 1 values, got 2"),
        ([(3, 4, 5)], {"quality2": [1]}, "quality2: expected 2 to 200, got 1"),
        ([(3, 4, 5)], {"quality2": [201]}, "quality2: expected 2 to 200, got 201"),
    ],
)
def test_a_table_of_pictures_is_checked(tensors, options, message):
    with pytest.raises(ValueError, match=message):
        Pictures.of([torch.zeros(t, dtype=torch.uint8) for t in tensors], **options)


def test_pictures_are_of_one_dtype_and_in_one_piece():
    x = torch.zeros(3, 4, 6, dtype=torch.uint8)
    with pytest.raises(ValueError, match="picture 1: expected torch.uint8 on cpu, got torch.float32"):
        Pictures.of([x, x.float()])
    with pytest.raises(ValueError, match="picture 0: expected torch.uint8, torch.float16, torch.float32, got"):
        Pictures.of([x.int()])
    with pytest.raises(ValueError, match="picture 0: expected contiguous"):
        Pictures.of([x[..., ::2]])


def test_gains_are_one_for_each_quality():
    weights = cases.g_s(16, 66).state_dict()
    with pytest.raises(ValueError, match=r"gains: expected \(199, 16\), got \(199, 8\)"):
        transforms.Synthesis.pack(weights, torch.ones(QUALITIES, 8))
    with pytest.raises(ValueError, match="dtype float32 or float16, got torch.bfloat16"):
        transforms.Synthesis.pack(weights, torch.ones(QUALITIES, 16), torch.bfloat16)


def test_tensors_on_two_devices_are_refused():
    r, mean = cases.halves(LAT, 16)
    with pytest.raises(ValueError, match="expected all tensors on cpu, as the network, got one on meta"):
        transforms.synthesise(
            r.to("meta"), mean, LAT, cases.synthesis(16, 66, torch.float16), cases.Album().pictures, **TORCH
        )


def test_widths_beyond_a_tile_s_offsets_are_refused():
    class Shape:
        def __init__(self, *shape):
            self.shape = shape

    weights._checked("up", 4 * 4096, 4096)
    for shape in ((2049, 2 * 2049), (64, 4097), (4 * 4097, 64)):
        with pytest.raises(ValueError, match="up: expected widths of at most 4096"):
            weights._checked("up", *shape)
