"""Sheets of crops: rows of equal cells on white, a title above each row and a caption under each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, HEAD, TITLE, CAPTION = 10, 34, 32, 22  # pixels: around cells, of the heading, a row's title, a caption
INK, MARK = "black", "#b00020"


class Cell(NamedTuple):
    """pixels: uint8 (h, w, 3). marked: the caption is printed in another colour, for what breaks the sheet's rule."""

    pixels: np.ndarray
    caption: str
    marked: bool = False


class Row(NamedTuple):
    title: str
    cells: list[Cell]


def size(rows: Sequence[Row], scale: int) -> tuple[int, int]:
    """(width, height) in pixels of the sheet that draw makes. ValueError unless all cells have one shape."""
    shapes = {cell.pixels.shape for row in rows for cell in row.cells}
    if len(shapes) != 1:
        raise ValueError(f"cells: expected one shape, got {sorted(shapes)}")
    ((height, width, _),) = shapes
    columns = max(len(row.cells) for row in rows)
    return (
        GAP + columns * (scale * width + GAP),
        HEAD + len(rows) * (TITLE + scale * height + CAPTION) + GAP,
    )


def draw(heading: str, rows: Sequence[Row], scale: int = 2) -> np.ndarray:
    """The sheet, uint8 (H, W, 3). Each pixel of a crop becomes scale x scale equal ones: nothing is smoothed."""
    width, height = size(rows, scale)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    large, bold, small = (ImageFont.load_default(size) for size in (20, 17, 15))
    pen.text((GAP, 7), heading, INK, large)
    top = HEAD
    for row in rows:
        pen.text((GAP, top + 9), row.title, INK, bold)
        top += TITLE
        for n, cell in enumerate(row.cells):
            magnified = np.repeat(np.repeat(cell.pixels, scale, axis=0), scale, axis=1)
            left = GAP + n * (magnified.shape[1] + GAP)
            sheet.paste(Image.fromarray(magnified), (left, top))
            pen.rectangle((left - 1, top - 1, left + magnified.shape[1], top + magnified.shape[0]), None, "#808080")
            pen.text((left, top + magnified.shape[0] + 3), cell.caption, MARK if cell.marked else INK, small)
        top += magnified.shape[0] + CAPTION
    return np.array(sheet)
