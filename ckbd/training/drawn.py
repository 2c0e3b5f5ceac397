"""Pictures that no camera took, drawn from a generator's numbers: text, windows, line art, flat shapes, gradients.

Photographs alone teach a codec nothing of saturated colours, hard edges and areas of one value. These are drawn while
training runs and never written to disk. Letters are those of Pillow's own font and of the TrueType fonts that the
system has: the same seed draws the same on one machine.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "/Library/Fonts", "C:/Windows/Fonts")
FONTS = 64  # at most, of those found
FINER = 3  # what has soft edges is drawn so much larger, then averaged
Colour = tuple[int, int, int]
Pen = ImageDraw.ImageDraw
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=1)
def fonts() -> tuple[Path, ...]:
    """TrueType files that Pillow opens and that have letters, in the order of their names."""
    found = (p for folder in FOLDERS for p in Path(folder).expanduser().rglob("*.[to]tf"))
    return tuple(islice((p for p in sorted(found, key=lambda p: (p.name, p)) if _has_letters(p)), FONTS))


def _has_letters(path: Path) -> bool:
    try:
        font = ImageFont.truetype(path, 12)
        return bytes(font.getmask("a")) != bytes(font.getmask("\uffff"))
    except OSError:
        return False


@lru_cache(maxsize=512)
def _font(number: int, size: int) -> Font:
    return ImageFont.truetype(fonts()[number - 1], size) if number else ImageFont.load_default(size)


def picture(rng: np.random.Generator, side: int) -> np.ndarray:
    """One picture, uint8 (side, side, 3), of a kind that rng chooses; side at least 32."""
    kinds: tuple[Callable[[np.random.Generator, int], Image.Image], ...]
    kinds = page, window, lines, shapes, gradient, pattern
    return np.asarray(kinds[rng.integers(len(kinds))](rng, side))


def pictures(count: int, side: int, seed: int) -> list[np.ndarray]:
    """count of them, of a seed."""
    rng = np.random.default_rng(seed)
    return [picture(rng, side) for _ in range(count)]


def colour(rng: np.random.Generator) -> Colour:
    """Black, white, a gray, a corner of the cube, a saturated or any colour."""
    kind = rng.integers(8)
    if kind < 2:
        return (0, 0, 0) if kind else (255, 255, 255)
    if kind == 2:
        return (int(rng.integers(256)),) * 3
    if kind < 5:
        r, g, b = (255 * int(bit) for bit in rng.integers(2, size=3))
    elif kind < 7:
        channels = [0, int(rng.integers(256)), 255]
        rng.shuffle(channels)
        r, g, b = channels
    else:
        r, g, b = (int(v) for v in rng.integers(256, size=3))
    return r, g, b


def pair(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """(ink, ground), which differ: black on white or the other way round in two of five draws."""
    kind = rng.integers(5)
    if kind < 2:
        black, white = (0, 0, 0), (255, 255, 255)
        return (white, black) if kind else (black, white)
    ink = ground = colour(rng)
    while sum(abs(a - b) for a, b in zip(ink, ground, strict=True)) < 60:
        ground = colour(rng)
    return ink, ground


def words(rng: np.random.Generator, count: int) -> str:
    """Nonsense: letters for the most part, some digits and signs."""
    letters = string.ascii_lowercase * 3 + string.ascii_uppercase
    out = []
    for _ in range(count):
        kind, length = rng.integers(8), int(rng.integers(1, 10))
        if kind == 0:
            out.append(f"{rng.integers(10**6) / 10 ** int(rng.integers(5)):g}")
        else:
            word = "".join(letters[i] for i in rng.integers(len(letters), size=length))
            out.append(word + (".,:;!?)-"[rng.integers(8)] if kind == 1 else ""))
    return " ".join(out)


def _write(pen: Pen, rng: np.random.Generator, at: tuple[int, int], ink: Colour, font: Font, width: int) -> None:
    """A line of words that begins at a place and is cut at a width."""
    text = words(rng, 3 + width // 24)
    while text and pen.textlength(text, font) > width:
        text = text[: int(len(text) * 0.9)]
    pen.text(at, text, ink, font)


def _some_font(rng: np.random.Generator, smallest: int = 8, largest: int = 40) -> tuple[Font, int]:
    """(font, its size): small ones more often than large ones."""
    size = round(smallest * (largest / smallest) ** float(rng.random() ** 1.5))
    return _font(int(rng.integers(len(fonts()) + 1)), size), size


def page(rng: np.random.Generator, side: int) -> Image.Image:
    """Lines of text; on the way down font, size and colours may change."""
    ink, ground = pair(rng)
    image = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(image)
    pen.fontmode = "1" if rng.integers(4) == 0 else "L"
    y = int(rng.integers(8))
    font, size = _some_font(rng)
    while y < side:
        if rng.integers(6) == 0:
            font, size = _some_font(rng)
            if rng.integers(2):
                ink, ground = pair(rng)
                pen.rectangle((0, y, side, side), ground)
        _write(pen, rng, (int(rng.integers(2, 12)), y), ink, font, side - 4)
        y += round(size * (1.1 + 0.3 * float(rng.random())))
    return image


def window(rng: np.random.Generator, side: int) -> Image.Image:
    """A piece of a screen: bars, panels, buttons, icons, tables with hairlines and small letters."""
    dark = rng.integers(3) == 0
    base = int(rng.integers(20, 60)) if dark else int(rng.integers(215, 256))
    ink = (235, 235, 235) if dark else (int(rng.integers(60)),) * 3
    accent = colour(rng)

    def shade(by: int) -> Colour:
        return (int(np.clip(base + (by if dark else -by), 0, 255)),) * 3

    image = Image.new("RGB", (side, side), shade(0))
    pen = ImageDraw.Draw(image)
    number, size = int(rng.integers(len(fonts()) + 1)), int(rng.integers(9, 15))
    font, y = _font(number, size), 0
    while y < side:
        kind, height = rng.integers(6), size + int(rng.integers(4, 16))
        if kind == 0:  # a bar, shaded or of one colour
            fall = 0.4 * int(rng.integers(2)) / height
            for row in range(height):
                pen.line((0, y + row, side, y + row), tuple(int(c * (1 - fall * row)) for c in accent))
            light = sum(accent) > 380
            _write(pen, rng, (8, y + 3), (0, 0, 0) if light else (255, 255, 255), font, side // 2)
        elif kind == 1:  # buttons or icons
            step = int(rng.integers(height, 4 * height))
            for x in range(4, side, step):
                box = (x, y + 2, x + min(step - 6, side), y + height - 2)
                pen.rounded_rectangle(box, int(rng.integers(6)), shade(int(rng.integers(40))), shade(90))
                if step < 2 * height:
                    _icon(pen, rng, box)
                else:
                    _write(pen, rng, (x + 5, y + 3), ink, font, step - 16)
        elif kind == 2:  # a table
            columns = sorted(int(v) for v in rng.integers(side, size=int(rng.integers(1, 5))))
            rows, first = int(rng.integers(2, 7)), y
            for row in range(rows):
                if rng.integers(6) == 0:
                    pen.rectangle((0, y, side, y + height), accent)
                elif row % 2:
                    pen.rectangle((0, y, side, y + height), shade(8))
                for x, end in zip([2, *columns], [*columns, side], strict=True):
                    _write(pen, rng, (x + 4, y + 2), ink if rng.integers(8) else colour(rng), font, end - x - 6)
                pen.line((0, y, side, y), shade(40))
                y += height
            for x in columns:
                pen.line((x, first, x, y), shade(40))
            height = 0
        else:
            _write(pen, rng, (int(rng.integers(4, 40)), y + 2), ink, font, side - 44)
            if kind == 3:
                pen.line((0, y + height - 1, side, y + height - 1), shade(int(rng.integers(20, 120))))
        y += height
    if rng.integers(2):  # another window over it
        x, top = (int(v) for v in rng.integers(side // 2, size=2))
        right, bottom = x + int(rng.integers(side // 3, side)), top + int(rng.integers(side // 4, side))
        pen.rectangle((x, top, right, bottom), shade(int(rng.integers(20))), shade(120))
        pen.rectangle((x + 1, top + 1, right - 1, top + size + 8), accent)
        for line in range(top + size + 12, min(bottom - size, side), size + 4):
            _write(pen, rng, (x + 6, line), ink, font, right - x - 12)
    return image


def _icon(pen: Pen, rng: np.random.Generator, box: tuple[int, int, int, int]) -> None:
    """A few strokes and shapes inside a box."""
    left, top, right, bottom = box
    for _ in range(int(rng.integers(1, 4))):
        x = sorted(int(v) for v in rng.integers(left + 2, max(right - 1, left + 3), size=2))
        y = sorted(int(v) for v in rng.integers(top + 2, max(bottom - 1, top + 3), size=2))
        kind = rng.integers(3)
        if kind == 0:
            pen.ellipse((x[0], y[0], x[1], y[1]), colour(rng))
        elif kind == 1:
            pen.rectangle((x[0], y[0], x[1], y[1]), None, colour(rng))
        else:
            pen.line((x[0], y[1], x[1], y[0]), colour(rng), int(rng.integers(1, 3)))


def lines(rng: np.random.Generator, side: int) -> Image.Image:
    """Ink on paper: fans of lines, rings, hatching, curves, from hairlines to a few pixels wide."""
    finer = FINER if rng.integers(4) else 1
    ink, paper = pair(rng)
    image = Image.new("RGB", (finer * side, finer * side), paper)
    pen, whole = ImageDraw.Draw(image), finer * side
    for _ in range(int(rng.integers(2, 6))):
        kind, wide = rng.integers(4), max(1, round(finer * float(rng.uniform(0.7, 1.5) ** 3)))
        x, y = (int(v) for v in rng.integers(whole, size=2))
        count, reach = int(rng.integers(5, 40)), int(rng.integers(whole // 8, whole))
        if kind == 0:
            for angle in np.arange(count) * 2 * np.pi / count:
                pen.line((x, y, x + reach * float(np.cos(angle)), y + reach * float(np.sin(angle))), ink, wide)
        elif kind == 1:
            for radius in np.linspace(2, reach, count) ** float(rng.uniform(0.8, 1.1)):
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), None, ink, wide)
        elif kind == 2:
            step, slope = int(rng.integers(2, 12)) * finer, int(rng.integers(-reach, reach))
            for n in range(count):
                pen.line((x + n * step, y, x + n * step + slope, y + reach), ink, wide)
        else:
            t = np.linspace(0, 1, 60)
            bend, phase = rng.uniform(0.05, 0.3), rng.uniform(0, 6)
            curve = y + whole * bend * np.sin(rng.uniform(2, 20) * t + phase)
            pen.line(list(zip((t * whole).tolist(), curve.tolist(), strict=True)), ink, 3 * wide, "curve")
        if rng.integers(3) == 0:
            ink = colour(rng)
    return image if finer == 1 else image.resize((side, side), Image.Resampling.BOX)


def shapes(rng: np.random.Generator, side: int) -> Image.Image:
    """Flat areas of few colours with hard or soft edges, some with outlines, some with letters on them."""
    finer = FINER if rng.integers(2) else 1
    palette = [colour(rng) for _ in range(int(rng.integers(3, 9)))]
    outline = (0, 0, 0) if rng.integers(2) else None
    image = Image.new("RGB", (finer * side, finer * side), palette[0])
    pen, whole = ImageDraw.Draw(image), finer * side
    for _ in range(int(rng.integers(4, 40))):
        fill, kind = palette[rng.integers(len(palette))], rng.integers(4)
        size = 4 + (whole * float(rng.random()) ** 2)
        x, y = (float(v) for v in rng.uniform(-size / 2, whole - size / 2, size=2))
        w, h = size * float(rng.uniform(0.3, 1)), size * float(rng.uniform(0.3, 1))
        wide = int(rng.integers(1, 4)) * finer
        if kind == 0:
            pen.rectangle((x, y, x + w, y + h), fill, outline, wide)
        elif kind == 1:
            pen.ellipse((x, y, x + w, y + h), fill, outline, wide)
        elif kind == 2:
            corners = rng.uniform((x, y), (x + w, y + h), size=(int(rng.integers(3, 7)), 2))
            pen.polygon([(float(a), float(b)) for a, b in corners], fill, outline, wide)
        else:
            pen.text((x, y), words(rng, 1), fill, _font(int(rng.integers(len(fonts()) + 1)), int(8 + size // 6)))
    return image if finer == 1 else image.resize((side, side), Image.Resampling.BOX)


def gradient(rng: np.random.Generator, side: int) -> Image.Image:
    """A slow change between colours along a line or from a centre, in steps of one level or in wider bands."""
    y, x = np.mgrid[:side, :side] / side
    angle, (cy, cx) = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1, 2)
    t = x * np.cos(angle) + y * np.sin(angle) if rng.integers(2) else np.hypot(y - cy, x - cx)
    t = (t - t.min()) / np.ptp(t)
    first, last = (np.array(colour(rng), np.float64) for _ in range(2))
    if rng.integers(3) == 0:
        last = first + (last - first) * rng.uniform(0.02, 0.2)
    if rng.integers(4) == 0:
        bands = rng.integers(2, 24)
        t = np.floor(t * bands) / bands
    value = first + (last - first) * t[:, :, None]
    return Image.fromarray(np.clip(np.round(value), 0, 255).astype(np.uint8))


def pattern(rng: np.random.Generator, side: int) -> Image.Image:
    """Checkers, stripes or dots of 1 to 32 pixels, in two or four colours, in one area or three."""
    y, x = np.mgrid[:side, :side]
    out = np.empty((side, side, 3), np.uint8)
    cut = rng.integers(side // 4, 3 * side // 4, 2) if rng.integers(2) else (side, side)
    for area in ((y < cut[0]) & (x < cut[1]), (y < cut[0]) & (x >= cut[1]), y >= cut[0]):
        step = int(round(2 ** float(rng.uniform(0, 4))))
        rows, columns = y // step, x // max(1, round(step * rng.choice((1, 1, 0.5, 2))))
        index = (rows + columns, columns, rows, (rows % 2) * (columns % 2) * (1 + columns // 2))[rng.integers(4)]
        colours = np.array(pair(rng) + pair(rng), np.uint8)
        out[area] = colours[index % (2 if rng.integers(4) else 4)][area]
    return Image.fromarray(out)
