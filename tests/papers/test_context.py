"""Masks and orders as data: who sees whom, by perturbation, and in which steps sites may be decoded."""

import itertools

import numpy as np
import pytest
import torch

from ckbd.kernels import numerics
from ckbd.papers import scan
from ckbd.papers.context import NAMED, Context, columns, from_spec, square


def seen_by(context: Context, row: int, column: int, height: int, width: int) -> set:
    """The sites that move when the latent at (row, column) does."""
    y = torch.zeros(1, height, width, 1)
    y[0, row, column] = 1.0
    moved = columns(y, context, context.live(height, width))[0].abs().sum(-1)
    return set(map(tuple, moved.nonzero().tolist()))


@pytest.mark.parametrize("name", NAMED)
def test_a_site_sees_its_earlier_neighbours_and_nobody_else(name):
    context, height, width = NAMED[name], 7, 9
    phase = context.phase_map(height, width)
    for row, column in itertools.product(range(height), range(width)):
        expected = set()
        for dh, dw in context.taps:
            r, c = row - dh, column - dw
            if 0 <= r < height and 0 <= c < width:
                if context.order is None or phase[row, column] < phase[r, c]:
                    expected.add((r, c))
        moved = seen_by(context, row, column, height, width)
        assert moved == expected
        if context.order is None:
            assert all((row, column) < site for site in moved)


def test_named_masks_have_the_taps_of_the_papers():
    counts = {name: len(NAMED[name].taps) for name in NAMED}
    assert counts["none"] == 0 and counts["raster"] == 12 and counts["checkerboard"] == 12
    assert [counts[f"raster{s}"] for s in (3, 7)] == [4, 24] and counts["checkerboard7"] == 24
    anchors = NAMED["checkerboard"].phase_map(4, 6), NAMED["checkerboard-odd"].phase_map(4, 6)
    assert torch.equal(anchors[0], 1 - anchors[1]) and anchors[0][0, 0] == 0
    assert NAMED["corners"].phase_map(4, 4).float().mean() == 0.75


def test_columns_are_a_masked_convolution():
    torch.manual_seed(0)
    context = NAMED["raster"]
    y, weight = torch.randn(2, 6, 7, 3), torch.randn(4, 3, 5, 5)
    mask = torch.tensor(context.mask)
    dense = torch.nn.functional.conv2d(y.permute(0, 3, 1, 2), weight * mask, padding=2).permute(0, 2, 3, 1)
    live = torch.cat([weight[:, :, dh + 2, dw + 2] for dh, dw in context.taps], 1)
    assert torch.allclose(columns(y, context) @ live.T, dense, atol=1e-5)


@pytest.mark.parametrize("name", ["raster3", "raster", "raster7"])
@pytest.mark.parametrize(
    "height, width, tracks", [(1, 1, 1), (5, 9, 1), (6, 4, 2), (8, 13, 3), (8, 13, 8), (4, 1, 4)]
)
def test_wavefronts_visit_every_site_once_after_all_that_it_sees(name, height, width, tracks):
    context, done, order = NAMED[name], np.zeros((height, width), bool), {}
    steps = list(scan.wavefront(height, width, context.skew, tracks))
    for rows, cols in steps:
        assert len(set(rows % tracks)) == len(rows)  # one site of a track at a time
        for row, column in zip(rows, cols, strict=True):
            for dh, dw in context.taps:
                r, c = row + dh, column + dw
                assert not (0 <= r < height and 0 <= c < width) or done[r, c]
            for before in order.get(row % tracks, []):
                assert before < (row, column)
        for row, column in zip(rows, cols, strict=True):
            assert not done[row, column]
            done[row, column] = True
            order.setdefault(row % tracks, []).append((row, column))
    assert done.all()
    if tracks == height:
        assert len(steps) == width + min(context.skew, width) * (height - 1)


def test_skew_is_the_least_that_keeps_the_order():
    assert [NAMED[n].skew for n in ("raster3", "raster", "raster7")] == [2, 3, 4]
    assert Context(((0, 1, 0), (1, 0, 0), (0, 0, 0)), None).skew == 1
    assert Context(((0, 0, 0), (1, 0, 0), (0, 0, 0)), None).skew == 1


def test_own_masks_and_orders_come_back_from_their_description():
    for context in (*NAMED.values(), Context(((0, 1, 0), (1, 0, 0), (0, 0, 0)), ((0, 1), (2, 3)))):
        assert from_spec(context.to_json()) == context
        assert from_spec(context) is context


@pytest.mark.parametrize(
    "spec, message",
    [
        ("chess", "context: expected one of none, raster3"),
        ({"mask": [[0]]}, "context: expected a name or"),
        (7, "context: expected a name or"),
        ({"mask": [[0, 1], [1, 0]], "order": None}, "mask: expected a square of odd side"),
        ({"mask": [[0, 1, 0]], "order": None}, "mask: expected a square of odd side"),
        ({"mask": [[1]], "order": None}, "mask: expected 0 at the centre"),
        ({"mask": [[2]], "order": None}, "mask: expected integers from 0 to 1"),
        ({"mask": "x", "order": None}, "mask: expected a list of rows"),
        ({"mask": [[0, 0, 0], [0, 0, 1], [0, 0, 0]], "order": None}, r"not decoded the neighbour at \(0, 1\)"),
        ({"mask": square(3, lambda dh, dw: True), "order": [[0, 2]]}, "order: expected the phases 0..1"),
        ({"mask": [[0]], "order": [[0], [0, 1]]}, "order: expected rows of one length"),
        ({"mask": [[0]], "order": [[0] * 9]}, "order: expected rows of one length"),
        ({"mask": [[0]], "order": [[True]]}, "order: expected integers"),
    ],
)
def test_wrong_descriptions_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        from_spec(spec)


def test_a_raster_scan_has_no_phases():
    with pytest.raises(ValueError, match="a raster scan has no phases"):
        NAMED["raster"].phases  # noqa: B018


def test_the_table_of_companded_values_is_the_function():
    every = torch.arange(-(1 << 15), 1 << 15).short()
    assert np.array_equal(scan.compand(every.numpy()), numerics.compand(every.float()).numpy())
