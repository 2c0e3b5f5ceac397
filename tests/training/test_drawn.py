"""Pictures that are drawn for training: of every kind, of any side, the same for a seed, with or without fonts."""

import itertools

import numpy as np
import pytest
from PIL import Image

from ckbd.training import drawn

KINDS = (drawn.page, drawn.window, drawn.lines, drawn.shapes, drawn.gradient, drawn.pattern)


@pytest.mark.parametrize("side", [32, 64, 200])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_draws_any_side_and_mostly_something(kind, side):
    found = [np.asarray(kind(np.random.default_rng(seed), side)) for seed in range(12)]
    assert all(p.shape == (side, side, 3) and p.dtype == np.uint8 for p in found)
    assert sum(p.std() > 1 for p in found) >= 9
    assert len({p.tobytes() for p in found}) >= 11


def test_a_picture_is_of_any_kind_and_a_seed_fixes_it(monkeypatch):
    first, again, other = (drawn.pictures(4, 48, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    seen = []
    blank = Image.new("RGB", (48, 48))
    for kind in KINDS:
        monkeypatch.setattr(drawn, kind.__name__, lambda rng, side, kind=kind: seen.append(kind) or blank)
    drawn.pictures(100, 48, 0)
    assert set(seen) == set(KINDS) and all(seen.count(kind) > 5 for kind in KINDS)


def test_without_a_font_of_the_system_pillows_own_is_taken(monkeypatch):
    monkeypatch.setattr(drawn, "fonts", lambda: ())
    for kind in (drawn.page, drawn.window, drawn.shapes):
        for seed in range(5):
            kind(np.random.default_rng(seed), 64)


def test_fonts_are_files_with_letters(monkeypatch, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(drawn, "FOLDERS", (str(tmp_path), str(tmp_path / "nowhere")))
    drawn.fonts.cache_clear()
    try:
        assert drawn.fonts() == ()
    finally:
        drawn.fonts.cache_clear()


def test_letters_are_of_fonts_that_are_found(monkeypatch):
    taken = []
    monkeypatch.setattr(drawn, "fonts", lambda: ("a.ttf", "b.ttf"))
    monkeypatch.setattr(drawn.ImageFont, "truetype", lambda path, size, **more: taken.append((path, size)))
    drawn._font.cache_clear()
    try:
        assert drawn._font(2, 17) is None and taken == [("b.ttf", 17)]
        monkeypatch.undo()
        assert drawn._font(0, 17) is not None
    finally:
        drawn._font.cache_clear()


def test_a_font_without_letters_is_none(monkeypatch, tmp_path):
    class Blank:
        def getmask(self, text):
            return b"box"

    monkeypatch.setattr(drawn.ImageFont, "truetype", lambda path, size: Blank())
    assert not drawn._has_letters(tmp_path)


def test_lines_have_soft_edges_and_patterns_are_not_empty():
    found = [np.asarray(drawn.lines(np.random.default_rng(seed), 64)).reshape(-1, 3) for seed in range(8)]
    assert sum(len(np.unique(p, axis=0)) > 8 for p in found) >= 4
    patterns = [drawn.pattern(np.random.default_rng(seed), 64) for seed in range(200)]
    assert sum(np.ptp(np.asarray(p), axis=(0, 1)).max() == 0 for p in patterns) < 4


def test_ink_differs_from_its_ground_and_saturated_colours_are_common():
    rng = np.random.default_rng(0)
    for _ in range(300):
        ink, ground = drawn.pair(rng)
        assert sum(abs(a - b) for a, b in zip(ink, ground, strict=True)) >= 60
    colours = [drawn.colour(rng) for _ in range(2000)]
    assert all(0 <= v <= 255 and type(v) is int for c in colours for v in c)
    assert set(itertools.product((0, 255), repeat=3)) <= set(colours)  # all corners of the cube
    assert 0.4 < np.mean([max(c) - min(c) > 128 for c in colours]) < 0.9
