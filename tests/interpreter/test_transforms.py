"""g_a and g_s in Triton: their twins to the bit, once both add in the same order, and nothing beside the outputs."""

import pytest
import torch
import transform_cases as cases
from ordered import ordered_linear

from ckbd.kernels import Lattice, layer, transforms
from ckbd.kernels.configs import Config
from ckbd.kernels.transforms import Pictures, configs, ends, launch, pictures, residual, twin

HALF, SINGLE = torch.float16, torch.float32
SPREAD = Config("spread", 32, 64, 64, 4, 2)
HELD = Config("held", 32, 64, 64, 4, 2)
RESIDENT = Config("resident", 32, 64, 64, 4, 1)
WIDE = Config("spread", 256, 64, 64, 4, 2)
# Tiles of other sizes than the shipped ones, so that several of each kind are in a test's few sites.
SMALL = {name: Config("layers", 32, 64, 64, 4, 2) for name in configs.LAYERS} | {"block": SPREAD}
LARGE = {name: Config("layers", 128, 32, 32, 4, 2) for name in configs.LAYERS}
LARGE |= {"block": Config("spread", 64, 32, 32, 4, 2)}
LAT = Lattice(cases.LATENTS, 1)


@pytest.fixture
def ordered(ordered_dot, monkeypatch):
    monkeypatch.setattr(twin, "linear", ordered_linear)


@pytest.fixture(autouse=True)
def guarded(monkeypatch):
    """Features lie among poison, and all of them are written; looked at when the test ends."""
    found = []

    def rows(of, count, channels, dtype=None):
        whole = of.new_full((count + 6, channels), float("nan"), dtype=dtype)
        found.append(whole)
        return whole[3 : 3 + count]

    monkeypatch.setattr(launch, "_rows", rows)
    yield found
    for whole in found:
        assert whole[:3].isnan().all() and whole[-3:].isnan().all(), "written beside an output"


def both(function, *args, **options):
    return [function(*args, backend=backend, **options) for backend in ("torch", "triton")]


def paint(network, lattice, sizes, layout="CHW", dtype=torch.uint8, backend="triton", plan=None, **where):
    album = cases.Album(sizes, layout, dtype, **where)
    r, mean = cases.halves(lattice, network.M)
    transforms.synthesise(r, mean, lattice, network, album.pictures, backend=backend, configs=plan)
    assert album.untouched()
    return album.pictures.tensors


def equal(some, others):
    return len(some) == len(others) and all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize(
    "M, width, dtype", [(*w, HALF) for w in cases.WIDTHS] + [(*w, SINGLE) for w in cases.WIDTHS[:2]], ids=str
)
def test_g_s_is_its_ordered_twin_to_the_bit(M, width, dtype, ordered):
    network = cases.synthesis(M, width, dtype)
    for layout in cases.LAYOUTS if (M, width) == cases.WIDTHS[0] else ("CHW",):
        want = paint(network, LAT, cases.SIZES, layout, backend="torch")
        assert equal(want, paint(network, LAT, cases.SIZES, layout, plan=SMALL))
        assert len(want[0].unique()) > 100


@pytest.mark.parametrize(
    "M, width, dtype", [(*w, HALF) for w in cases.WIDTHS] + [(*w, SINGLE) for w in cases.WIDTHS[:2]], ids=str
)
def test_g_a_is_its_ordered_twin_to_the_bit(M, width, dtype, ordered):
    network = cases.analysis(M, width, dtype)
    for layout in cases.LAYOUTS if (M, width) == cases.WIDTHS[0] else ("HWC",):
        given = cases.random_pictures(layout=layout)
        want, got = both(transforms.analyse, given, LAT, network, configs=SMALL)
        assert torch.equal(want, got) and want.isfinite().all() and want.std() > 0.1


@pytest.mark.parametrize(
    "width, config, dtype",
    [
        *((66, WIDE, HALF), (128, HELD, HALF), (128, SPREAD, HALF), (128, SPREAD, SINGLE), (256, HELD, HALF)),
        *((128, RESIDENT, HALF), (64, RESIDENT, HALF)),
    ],
    ids=str,
)
def test_a_block_over_many_tiles(width, config, dtype, ordered):
    """From a site to 70 x 130 of them, whose tiles end where they like."""
    lattice = Lattice(((70, 130), (1, 1), (3, 7)) if width < 128 else ((9, 31), (1, 1), (13, 2)))
    weights = cases.synthesis(16, width, dtype).blocks8[0]
    x = cases.features(lattice.full_sites, width, weights.tensors[4].shape[0], dtype)
    want, got = both(transforms.block, x, weights, lattice, config=config)
    assert torch.equal(want, got) and not torch.equal(want, x)
    assert not want[:, width:].any(), "padded channels stay zero"


def test_pixels_of_a_large_picture(ordered):
    lattice, network = Lattice(((35, 65), (1, 1))), cases.synthesis(16, 66, HALF, blocks=0)
    sizes = ((550, 1033), (16, 16))
    want = paint(network, lattice, sizes, backend="torch")
    assert equal(want, paint(network, lattice, sizes, plan=LARGE))


@pytest.mark.parametrize("margin", [16, 20])
@pytest.mark.parametrize("dtype", pictures.DTYPES, ids=str)
def test_rows_that_take_eight_pixels_in_one_store(dtype, margin, ordered):
    """Widths and addresses that are multiples of eight pixels, beside some that are not; each cut somewhere."""
    network, sizes = cases.synthesis(16, 66, HALF, blocks=0), ((70, 136), (16, 8), (33, 64), (16, 90), (45, 40))
    want = paint(network, LAT, sizes, dtype=dtype, backend="torch", margin=margin)
    album = cases.Album(sizes, dtype=dtype, margin=margin)
    whole = [x.shape[2] % 8 == 0 and x.data_ptr() % (8 * x.element_size()) == 0 for x in album.pictures.tensors]
    assert sum(whole) >= (3 if margin == 16 else 0) and not all(whole)
    assert equal(want, paint(network, LAT, sizes, dtype=dtype, plan=SMALL, margin=margin))


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", pictures.DTYPES, ids=str)
def test_floats_are_the_8_bit_pixels_over_255(dtype, layout, ordered):
    network = cases.synthesis(16, 66, HALF)
    eight = paint(network, LAT, cases.SIZES, layout, plan=SMALL)
    got = paint(network, LAT, cases.SIZES, layout, dtype, plan=SMALL)
    assert equal(got, paint(network, LAT, cases.SIZES, layout, dtype, backend="torch"))
    for x, y in zip(got, eight, strict=True):
        assert torch.equal(x, y if dtype == torch.uint8 else y.float().div(255).to(dtype))


@pytest.mark.parametrize("dtype", [HALF, SINGLE], ids=str)
def test_a_picture_depends_on_neither_neighbours_nor_tile_nor_form(dtype, ordered_dot):
    network, reader = cases.synthesis(16, 128, dtype), cases.analysis(16, 128, dtype)
    held = [SMALL | {"block": form} for form in (HELD, RESIDENT)] if dtype == HALF else []
    first, *others = (paint(network, LAT, cases.SIZES, plan=plan) for plan in (SMALL, LARGE, *held))
    assert all(equal(first, other) for other in others)
    given = cases.random_pictures()
    y, *more = (transforms.analyse(given, LAT, reader, backend="triton", configs=p) for p in (SMALL, LARGE, *held))
    assert equal([y] * len(more), more)
    r, mean = cases.halves(LAT, network.M)
    for n, (rows, full) in enumerate(zip(LAT.rows(), LAT.rows(full=True), strict=True)):
        one = Lattice((cases.LATENTS[n],), 1)
        album = cases.Album(cases.SIZES[n : n + 1])
        gray, quality2 = [n % 3 == 1], [2 + 31 * n % transforms.QUALITIES]
        alone = Pictures.of(album.pictures.tensors, gray=gray, quality2=quality2)
        half = r[:, rows].contiguous(), mean[:, rows].contiguous()
        transforms.synthesise(*half, one, network, alone, backend="triton", configs=LARGE)
        assert torch.equal(alone.tensors[0], first[n])
        single = Pictures.of(given.tensors[n : n + 1])
        assert torch.equal(transforms.analyse(single, one, reader, backend="triton", configs=SMALL), y[full])


@pytest.mark.parametrize("kernel", ["block", *configs.LAYERS])
def test_every_shipped_config_gives_the_same(kernel, ordered_dot):
    """Alone among small ones, so that only its own tiles differ."""
    for width in (128, 256) if kernel == "block" else (128,):
        network, reader = cases.synthesis(width, width, HALF), cases.analysis(width, width, HALF)
        lattice, sizes, given = Lattice(((2, 3),)), ((30, 45),), cases.random_pictures(((30, 45),))
        want = paint(network, lattice, sizes, plan=SMALL)
        y = transforms.analyse(given, lattice, reader, backend="triton", configs=SMALL)
        for config in configs.candidates(kernel, HALF, width):
            plan = SMALL | {kernel: config}
            assert equal(want, paint(network, lattice, sizes, plan=plan)), config
            assert torch.equal(y, transforms.analyse(given, lattice, reader, backend="triton", configs=plan)), config


def test_a_picture_that_is_far_smaller_than_its_latents(ordered):
    """The last row and column stand for all beyond. (Offsets beyond int32 take too many sites to show here.)"""
    lattice, given = Lattice(((36, 64),)), cases.random_pictures(((1, 1024),), "HWC")
    network = cases.analysis(16, 66, HALF, blocks=0)
    want, got = both(transforms.analyse, given, lattice, network, configs=LARGE)
    assert torch.equal(want, got)


def test_compiled_whole_where_copies_stand_for_the_pictures(ordered_dot):
    """The table of pictures holds addresses, which a compiler's copies do not have."""
    network = cases.synthesis(16, 66, HALF, blocks=0)
    r, mean = cases.halves(LAT, 16)

    def run(album):
        transforms.synthesise(r, mean, LAT, network, album.pictures, backend="triton", configs=SMALL)
        return album.whole + 0

    want, album = run(cases.Album()), cases.Album()
    got = torch.compile(run, fullgraph=True, backend="aot_eager")(album)
    assert torch.equal(want, got) and torch.equal(album.whole, want) and album.untouched()


def test_pictures_without_pixels_are_left_out():
    network = cases.synthesis(16, 66, HALF)
    sizes = ((70, 130), (0, 0), (64, 64), (0, 0), (45, 60))
    want, got = paint(network, LAT, cases.SIZES, plan=SMALL), paint(network, LAT, sizes, plan=SMALL)
    assert equal([want[n] for n in (0, 2, 4)], [got[n] for n in (0, 2, 4)])


def test_features_stay_within_float16(ordered):
    """Latents that no encoder writes: pixels are still pixels, and the same as the twin's."""
    network = cases.synthesis(16, 66, HALF)
    network.gains.mul_(1e6)
    r, mean = (torch.full((2, LAT.sites, 16), n, dtype=torch.int16) for n in (1023, 16383))
    results = []
    for backend in ("torch", "triton"):
        album = cases.Album(dtype=torch.float32)
        transforms.synthesise(r, mean, LAT, network, album.pictures, backend=backend)
        results.append(album.pictures.tensors)
        assert all(((x >= 0) & (x <= 1)).all() for x in results[-1])
    assert equal(*results)


def test_constants_are_the_twins():
    assert residual.MOST.value == twin.MOST and launch.SLOPE == twin.SLOPE
    assert ends.FIELDS.value == cases.random_pictures().table.shape[1]
    assert layer.TILE_FIELDS.value == launch.tile_table(LAT, 16, True, torch.device("cpu")).shape[1]


@pytest.mark.parametrize("name, value", [("SLOPE", 0.2), ("MEAN_STEP", 8), ("CELL", 32)])
def test_a_wrong_kernel_is_noticed(name, value, monkeypatch):
    """The comparisons can fail."""
    network = cases.synthesis(16, 66, SINGLE)
    want = paint(network, LAT, cases.SIZES, plan=SMALL)
    monkeypatch.setattr(launch, name, value)
    assert not equal(want, paint(network, LAT, cases.SIZES, plan=SMALL))
