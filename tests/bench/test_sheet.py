"""The model card's pictures: equal bytes, pictures that do not change, sheets of the right size."""

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import textured
from PIL import Image

from bench.sheets import draw as sheet_draw
from bench.sheets import hard as hard_pictures
from bench.sheets import sheet
from ckbd.codec.image import psnr
from ckbd.evaluation import rivals

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("nbytes", [600, 1200, 4000])
@pytest.mark.parametrize("name", ["JPEG", "WebP"])
def test_rivals_have_no_more_bytes(name, nbytes):
    rgb = textured(72, 100)
    found = sheet.rival_at(name, rgb, nbytes)
    assert found.nbytes <= nbytes and not found.over and "*" not in found.caption
    kind = {label: key for key, label in sheet.NAMES.items()}[found.codec]
    data = rivals.RIVALS[kind].encode(rgb, found.setting)
    assert len(data) == found.nbytes and np.array_equal(rivals.decode(data), found.rgb)
    assert found.psnr == psnr(rgb, found.rgb) and found.bpp == 8 * found.nbytes / (72 * 100)


def test_jpeg_is_the_better_of_both_samplings():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = (220, 40, 40)
    stripes[:, 1::2] = (40, 40, 220)  # colour alone: halved chroma would average it away
    assert sheet.rival_at("JPEG", stripes, 10**6).codec == "JPEG 4:4:4"


def test_what_cannot_be_so_small_is_marked():
    found = sheet.rival_at("JPEG", textured(72, 100), 100)
    assert found.over and found.nbytes > 100 and f"{found.bpp:.3f} bpp*" in found.caption


@pytest.mark.parametrize("nbytes", [120, 300, 500])
def test_ckbd_has_the_largest_stream_that_fits(tiny, nbytes):
    rgb = textured(64, 64)
    qualities = (1, 20, 40, 60, 80, 100)
    sizes = {q: len(tiny.encode([rgb], q)[0]) for q in qualities}
    found = sheet.ckbd_at(tiny, rgb, nbytes, qualities)
    fitting = [size for size in sizes.values() if size <= nbytes]
    assert found.nbytes == sizes[found.setting] == (max(fitting) if fitting else min(sizes.values()))
    assert found.over == (not fitting)
    assert np.array_equal(found.rgb, np.array(tiny.decode(tiny.encode([rgb], found.setting))[0]))


def test_best_is_by_psnr_among_those_that_fit():
    def coded(nbytes, value):
        return sheet.Coded("x", 1, nbytes, 100, np.zeros((1, 1, 3), np.uint8), value)

    assert sheet.best([coded(90, 30.0), coded(100, 31.0), coded(101, 40.0)]).psnr == 31
    assert sheet.best([coded(300, 40.0), coded(200, 20.0)]).nbytes == 200


@pytest.mark.parametrize("name, hard", list(hard_pictures.all_hard()))
def test_hard_pictures_are_the_same_on_every_call(name, hard):
    np.random.seed(1)
    first = hard.make()
    np.random.seed(2)
    assert np.array_equal(first, hard.make())
    assert first.shape == (256, 384, 3) and first.dtype == np.uint8
    assert sheet.cut(first, hard.crop).shape == (sheet.CROP, sheet.CROP, 3)
    assert (
        name == "flat" or sheet.cut(first, hard.crop, sheet.stretch(hard, first)).std() > 5
    )  # there is something to see


def test_hard_pictures_are_what_they_say():
    assert len(np.unique(hard_pictures.cartoon().reshape(-1, 3), axis=0)) <= 16
    dark = hard_pictures.dark()
    assert set(range(17)) == set(np.unique(dark)) and np.all(dark == dark[..., :1])
    checkers = hard_pictures.checkers()
    assert checkers[0, 0].tolist() == [255, 0, 0] and checkers[0, 16].tolist() == [0, 0, 255]
    assert np.all(checkers[:, 256:319] != checkers[:, 257:320], axis=(0, 1))[[0, 2]].all()  # squares of one pixel
    steps = np.diff(hard_pictures.gradient().astype(int), axis=0)
    assert steps.min() >= 0 and steps.max() == 1
    noise = hard_pictures.white_noise().astype(float)
    assert abs(noise.mean() - 128) < 0.5 and abs(noise.std() - 40) < 1
    assert abs(np.corrcoef(noise[:, 1:, 0].ravel(), noise[:, :-1, 0].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("photo", sheet.PHOTOS, ids=lambda photo: photo.name)
def test_photographs_come_without_a_network_and_hold_their_crops(photo, monkeypatch):
    from skimage.data import _fetchers

    monkeypatch.setattr(_fetchers, "_image_fetcher", None)  # what would fetch
    assert sheet.cut(photo.pixels(), photo.crop).shape == (sheet.CROP, sheet.CROP, 3)


def test_stretching_shows_small_differences():
    hard = hard_pictures.HARD["flat"]["gradient"]
    original = np.full((256, 384, 3), 100, np.uint8)
    assert np.all(sheet.stretch(hard, original)(original) == 100)
    assert np.all(sheet.stretch(hard, original)(original + np.uint8(2)) == 108)
    assert np.all(sheet.stretch(hard, original)(original * 0 + np.uint8(255)) == 255)


def test_a_sheet_has_its_size_and_shows_the_pixels():
    pixels = textured(6, 8)
    rows = [sheet_draw.Row("row", [sheet_draw.Cell(pixels, "a"), sheet_draw.Cell(pixels, "b", True)])] * 3
    drawn = sheet_draw.draw("heading", rows, scale=2)
    gap, head, title, caption = sheet_draw.GAP, sheet_draw.HEAD, sheet_draw.TITLE, sheet_draw.CAPTION
    assert drawn.shape == (head + 3 * (title + 12 + caption) + gap, gap + 2 * (16 + gap), 3)
    assert sheet_draw.size(rows, 2) == drawn.shape[1::-1]
    top, left = head + title, gap + 16 + gap
    assert np.array_equal(drawn[top : top + 12 : 2, left : left + 16 : 2], pixels)
    assert np.array_equal(drawn[top + 1 : top + 12 : 2, left + 1 : left + 16 : 2], pixels)
    other = sheet_draw.Cell(pixels[:5], "c")
    with pytest.raises(ValueError, match="cells: expected one shape, got .*5, 8, 3.*6, 8, 3"):
        sheet_draw.draw("heading", [*rows, sheet_draw.Row("odd", [other])])


def test_the_command_writes_sheets_and_tables(tmp_path, tiny_path, monkeypatch, capsys):
    small = argparse.Namespace(name="small", title="t", licence="l", crop=(0, 0), pixels=lambda: textured(40, 48))
    hard = hard_pictures.Hard("h", lambda: textured(40, 48, 1), (4, 8), 2, None)
    monkeypatch.setattr(sheet, "CROP", 32)
    monkeypatch.setattr(sheet, "PHOTOS", (small,))
    monkeypatch.setattr(sheet, "HARD", {"some": {"one": hard}})
    monkeypatch.setattr(sheet, "RIVALS", {"JPEG": ("jpeg-420", "jpeg-444"), "WebP": ("webp",)})
    argv = ["--model", str(tiny_path), "--out", str(tmp_path), "--bpp", "0.5", "3", "--qualities", "50"]
    assert sheet.main([*argv, "--photos", "small", "--groups", "some"]) == 0
    gap, head, title, caption = sheet_draw.GAP, sheet_draw.HEAD, sheet_draw.TITLE, sheet_draw.CAPTION
    for file, rows, columns in (("small.png", 2, 4), ("failures-some.png", 1, 3)):
        with Image.open(tmp_path / file) as image:
            assert image.size == (gap + columns * (64 + gap), head + rows * (title + 64 + caption) + gap)
    assert len(re.findall(r"^\| small \|", (tmp_path / "contact.md").read_text(), re.M)) == 2
    assert re.search(r"^\| one \| 50 \| .*\((JPEG|WebP)", (tmp_path / "failures.md").read_text(), re.M)
    assert "small.png: " in capsys.readouterr().out
    for option in ("--photos", "--groups"):
        with pytest.raises(SystemExit):
            sheet.main([*argv, option, "nothing"])
        assert f"{option}: expected some of" in capsys.readouterr().err


def test_the_card_shows_what_the_commands_write():
    written = {f"model/{photo.name}.png" for photo in sheet.PHOTOS}
    written |= {f"model/failures-{group}.png" for group in hard_pictures.HARD}
    written |= {f"model/beside-{photo.name}.png" for photo in sheet.PHOTOS}  # of bench.sheets.beside
    card = " ".join((ROOT / "docs/model-card.md").read_text().split())
    assert set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", card)) == written
    for photo in sheet.PHOTOS:
        assert photo.licence in card
