"""What a window needs of every stage's input: all that reaches it, and no more."""

from itertools import pairwise, product

import pytest
import torch
from conftest import textured
from test_strips import NETWORKS, network, pieces

import ckbd
from ckbd.codec.networks import strips
from ckbd.codec.networks.windows import Extent, Window, needed
from ckbd.kernels import products

pytestmark = pytest.mark.usefixtures("one_thread")


def sides(length):
    """Windows of a side: all of it, its ends, one row, some in the middle."""
    cuts = {(0, length), (0, 1), (length - 1, length), (length // 3, length // 3 + 1), (length // 3, length - 1)}
    return sorted(one for one in cuts if 0 <= one[0] < one[1] <= length)


def test_needed_is_what_reaches_and_no_more():
    """Against a plain walk: which rows of the input change a row of the output."""
    chains = [
        [Extent(1, 1, 1)],
        [Extent(2, 1, 2), Extent(0, 1, 4)],
        [Extent(1, 1, 1), Extent(1, 1, 2), Extent(1, 1, 1)],
    ]
    for extents, height in product(chains, (1, 2, 7)):
        length = height
        for extent in extents:
            length = length * extent.up
        for top, bottom in sides(length):
            rows, want = set(range(top, bottom)), []
            lengths = [height]
            for extent in extents:
                lengths.append(lengths[-1] * extent.up)
            for extent, most in zip(reversed(extents), reversed(lengths[:-1]), strict=True):
                near = {row // extent.up for row in rows}
                rows = {n + d for n in near for d in range(-extent.reach, extent.reach + 1) if 0 <= n + d < most}
                want.append((min(rows), max(rows) + 1))
            # The whole width of the output needs all of every input.
            widths = [(0, 3)]
            for extent in extents[:-1]:
                widths.append((0, widths[-1][1] * extent.up))
            found = needed(extents, (height, 3), Window(top, 0, bottom, length * 3 // height))
            assert [(one.top, one.bottom) for one in found[-2::-1]] == want
            assert [(one.left, one.right) for one in found[:-1]] == widths


def test_what_goes_down_is_needed_in_whole_units():
    assert needed([Extent(2, 2, 1)], (20, 20), Window(3, 0, 5, 10)) == [Window(4, 0, 12, 20), Window(3, 0, 5, 10)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_window_of_the_result_is_the_cut_of_the_whole(name):
    """Within 1e-5, at every border, whichever way the strips go."""
    made, (_, channels, unit) = network(name), NETWORKS[name]
    x = torch.randn(1, channels, 9 * unit, 7 * unit)
    stages = made.stages()
    with torch.inference_mode():
        want = made(x)
        assert want.std() > 0.01
        for (top, bottom), (left, right) in product(sides(want.shape[2]), sides(want.shape[3])):
            windows = strips.part(stages, (9 * unit, 7 * unit), Window(top, left, bottom, right))
            first = windows[0]
            part = x[:, :, first.top : first.bottom, first.left : first.right]
            for dim, size, bands in ((2, 100, 1), (2, 2, 1), (3, 2, 2)):
                some = pieces(part, dim, size * unit)
                got = torch.cat(list(strips.through(stages, some, dim, bands, windows=windows)), dim)
                cut = want[:, :, top:bottom, left:right]
                assert got.shape == cut.shape and torch.allclose(got, cut, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["synthesis", "minnen synthesis"])
def test_a_window_that_is_too_small_shows(name, monkeypatch):
    """The comparison above can fail."""
    made, (_, channels, _) = network(name), NETWORKS[name]
    x, window = torch.randn(1, channels, 9, 7), Window(48, 48, 80, 64)
    real = strips._chains
    short = [c._replace(extent=c.extent._replace(reach=0)) for c in real(made.stages())]
    windows = needed([c.extent for c in short], (9, 7), window)
    with torch.inference_mode():
        part = x[:, :, windows[0].top : windows[0].bottom, windows[0].left : windows[0].right]
        got = torch.cat(list(strips.through(made.stages(), [part], 2, windows=windows)), 2)
        assert (got - made(x)[:, :, 48:80, 48:64]).abs().max() > 1e-3


def test_work_is_in_proportion_to_the_region(tiny_path, monkeypatch):
    """Multiplications of g_s, counted: the region's share of the picture, and a margin of latents around it."""
    codec = ckbd.load(tiny_path, threads=1, precision="float32")
    streams, done, real = codec.encode([textured(640, 640)]), [0], products.linear

    def counted(x, weight, *rest):
        done[0] += x.numel() // x.shape[-1] * weight.numel()
        return real(x, weight, *rest)

    monkeypatch.setattr(products, "linear", counted)

    def count(**options):
        done[0] = 0
        codec.decode_pictures(streams, **options)
        return done[0]

    whole, sizes = count(), [64, 128, 256, 512]
    works = [count(region=(32, 32, 32 + size, 32 + size)) for size in sizes]
    assert all(a < b for a, b in pairwise([0, *works, whole]))
    for size, work in zip(sizes, works, strict=True):
        assert (size / 640) ** 2 <= work / whole <= ((size + 2 * 32) / 640) ** 2
