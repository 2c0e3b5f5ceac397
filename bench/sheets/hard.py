"""Pictures that are hard for a codec trained on photographs, drawn here or made of scikit-image's photographs.

Each is the same on every call: noise has seeds, letters are those of the font inside Pillow (needs its FreeType).
Pictures are uint8 (256, 384, 3) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDTH = 256, 384
WORDS = (
    "Anchors are decoded from the hyperprior alone, then all other sites at once. "
    "The quick brown fox jumps over the lazy dog; 0123456789 (3.14 + 2.72) = 5.86. "
    "Pack my box with five dozen liquor jugs? Sphinx of black quartz, judge my vow! "
)


@dataclass(frozen=True)
class Hard:
    """A hard picture and how to look at it.

    make: () -> uint8 (H, W, 3). crop: top and left of the square that a sheet shows. gain: what is shown is
    about + gain * (value - about), since differences of a few levels would not be seen. about: None: the mean of
    each channel over the original's crop.
    """

    title: str
    make: Callable[[], np.ndarray]
    crop: tuple[int, int]
    gain: float = 1
    about: float | None = 0


def _canvas(colour: tuple[int, int, int] | str = "white") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (WIDTH, HEIGHT), colour)
    return image, ImageDraw.Draw(image)


def _words(draw: ImageDraw.ImageDraw, x: int, y: int, size: int, colour: str, right: int = WIDTH) -> None:
    """A line of WORDS from (x, y), cut before right; lines that begin elsewhere begin with other words."""
    font = ImageFont.load_default(size)
    words, line = (WORDS * 3).split()[(7 * y) % 40 :], ""
    for word in words:
        if x + draw.textlength(line + word, font) > right - 2:
            break
        line += word + " "
    draw.text((x, y), line, colour, font)


def text() -> np.ndarray:
    """Black on white, 8 to 36 pixels high."""
    image, draw = _canvas()
    y = 4
    for size in (36, 28, 20, 16, 14, 14, 12, 12, 10, 10, 10, 8, 8, 8):
        _words(draw, 6, y, size, "black")
        y += round(1.25 * size)
    return np.array(image)


def coloured_text() -> np.ndarray:
    """Letters of the same range of brightness as their ground, in other colours."""
    image, draw = _canvas()
    pairs = ("yellow navy", "red white", "blue red", "white green", "magenta black", "red cyan", "#204080 #c0c0c0")
    for n, pair in enumerate(pairs):
        ink, ground = pair.split()
        top = n * HEIGHT // len(pairs)
        draw.rectangle((0, top, WIDTH, HEIGHT), ground)
        _words(draw, 6, top + 1, 16, ink)
        _words(draw, 6, top + 20, 11, ink)
    return np.array(image)


def screenshot() -> np.ndarray:
    """A window over a desktop: title bar with a gradient, icons, hairlines, a table with small letters."""
    image, draw = _canvas("#3a6ea5")
    for x in range(WIDTH):
        draw.line((x, 0, x, HEIGHT), (30 + x // 8, 70 + x // 6, 120 + x // 8))
    draw.rectangle((20, 14, 364, 244), "#f0f0f0", "#404040")
    for y in range(15, 34):
        draw.line((21, y, 363, y), (90 - y, 130 - y, 210 - y))
    draw.text((44, 16), "measurements - Editor", "white", ImageFont.load_default(12))
    for n, colour in enumerate(("#e04343", "#f0c030", "#40b050")):
        draw.ellipse((316 + 15 * n, 19, 326 + 15 * n, 29), colour, "#303030")
    for n, word in enumerate(("File", "Edit", "View", "Tools", "Help")):
        draw.text((28 + 40 * n, 36), word, "black", ImageFont.load_default(11))
    for n in range(10):
        x = 28 + 22 * n
        draw.rectangle((x, 52, x + 16, 68), "white", "#808080")
        colour = ("#d02020", "#2060d0", "#20a040", "#e09010", "#8030b0")[n % 5]
        if n % 3 == 0:
            draw.polygon(((x + 8, 55), (x + 13, 65), (x + 3, 65)), colour)
        elif n % 3 == 1:
            draw.ellipse((x + 4, 56, x + 12, 64), None, colour)
        else:
            draw.line((x + 3, 65, x + 13, 55), colour)
            draw.rectangle((x + 3, 55, x + 7, 59), colour)
    draw.line((21, 73, 363, 73), "#b0b0b0")
    draw.rectangle((110, 78, 358, 238), "white", "#909090")
    for n in range(10):
        y = 80 + 16 * n
        draw.text((30 + 8 * (n % 3), y), ("data", "figures", "notes")[n % 3], "black", ImageFont.load_default(10))
        if n == 3:
            draw.rectangle((111, y, 357, y + 13), "#2a6fd0")
        draw.line((111, y + 14, 357, y + 14), "#dddddd")
        cells = f"{n:02d}", f"{3.7 * n + 0.11:.2f}", f"{(n * 7919) % 997}", ("ready", "queued", "failed")[n % 3]
        for column, cell in enumerate(cells):
            ink = "white" if n == 3 else "#c01010" if cell == "failed" else "black"
            draw.text((116 + 62 * column, y + 1), cell, ink, ImageFont.load_default(10))
    for x in (172, 234, 296):
        draw.line((x, 79, x, 237), "#dddddd")
    draw.polygon(
        ((250, 150), (250, 167), (254, 163), (257, 169), (259, 168), (256, 162), (261, 162)), "black", "white"
    )
    return np.array(image)


def line_art() -> np.ndarray:
    """Ink on paper: hairlines at many angles, circles that close in on each other, hatching, a thick outline."""
    scale = 4  # drawn larger and averaged, so that lines of one pixel have soft edges
    image = Image.new("L", (scale * WIDTH, scale * HEIGHT), 255)
    draw = ImageDraw.Draw(image)
    for n in range(48):
        angle = np.pi * n / 24
        end = 500 + 420 * np.cos(angle), 500 + 420 * np.sin(angle)
        draw.line((500, 500, *map(round, end)), 0, scale)
    for n in range(1, 24):
        radius = 9 * n + n * n // 2
        draw.ellipse((1140 - radius, 300 - radius, 1140 + radius, 300 + radius), None, 0, scale)
    for n in range(40):
        draw.line((820 + 16 * n, 1000, 700 + 16 * n, 620), 0, 3 if n < 20 else 6)
    draw.line([(40 * n, round(880 - 90 * np.sin(n / 2.2))) for n in range(22)], 0, 10, "curve")
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.array(small.convert("RGB"))


def cartoon() -> np.ndarray:
    """Nine colours, flat, with hard black outlines: what a palette file holds."""
    image, draw = _canvas("#7ec8f0")
    draw.ellipse((290, 14, 350, 74), "#ffd830", "black", 2)
    draw.polygon(((0, 190), (90, 90), (170, 180), (250, 110), (384, 200), (384, 256), (0, 256)), "#58a848", "black")
    draw.rectangle((120, 120, 250, 220), "#d84030", "black", 2)
    draw.polygon(((104, 122), (185, 60), (266, 122)), "#804020", "black", 2)
    for x in (136, 204):
        draw.rectangle((x, 136, x + 30, 164), "white", "black", 2)
        draw.line((x + 15, 136, x + 15, 164), "black", 2)
    draw.rectangle((170, 172, 200, 220), "#804020", "black", 2)
    for x in (40, 310):
        draw.rectangle((x - 6, 170, x + 6, 226), "#804020", "black", 2)
        for dx, dy in ((-16, 158), (16, 158), (0, 138)):
            draw.ellipse((x + dx - 22, dy - 22, x + dx + 22, dy + 22), "#2c7030", "black", 2)
    draw.text((8, 228), "Flat colours, hard edges", "black", ImageFont.load_default(20))
    return np.array(image.quantize(16, dither=Image.Dither.NONE).convert("RGB"))


def checkers() -> np.ndarray:
    """Red and blue, and below green and magenta, in squares of 16, 8, 4, 2, 1 and 3 pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    side = np.array((16, 8, 4, 2, 1, 3))[x * 6 // WIDTH]
    odd = (x // side + y // side) % 2
    colours = np.array((((255, 0, 0), (0, 0, 255)), ((0, 255, 0), (255, 0, 255))), np.uint8)
    return colours[(y >= HEIGHT // 2).astype(int), odd]


def flat() -> np.ndarray:
    """Gray of level 128 and nothing else."""
    return np.full((HEIGHT, WIDTH, 3), 128, np.uint8)


def dark() -> np.ndarray:
    """Gray squares of levels 0 to 15 over a slow ramp from 0 to 16."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    squares = 8 * (y // 64 % 2) + x // 48
    level = np.where(y < 128, squares, np.round(16 * x / (WIDTH - 1)))
    return np.repeat(level.astype(np.uint8)[:, :, None], 3, axis=2)


def gradient() -> np.ndarray:
    """A sky: a slow change from one blue to another, without any noise that would hide steps."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    t = (y / (HEIGHT - 1) + 0.3 * np.square(x / (WIDTH - 1) - 0.5))[:, :, None] / 1.08
    sky = np.array((70.0, 110, 165)) * (1 - t) + np.array((160.0, 185, 210)) * t
    return np.round(sky).astype(np.uint8)


def faces() -> np.ndarray:
    """One face (scikit-image's astronaut) at heights of about 110, 55, 28 and 14 pixels, as in a group's picture."""
    from skimage.data import astronaut

    head = Image.fromarray(astronaut()[:256, 128:320])
    image, _ = _canvas("#c4bcb4")
    image.paste(head, (0, 0))
    y = 0
    for halvings, columns, rows in ((1, 2, 1), (2, 4, 1), (3, 8, 2)):
        width, height = 192 >> halvings, 256 >> halvings
        small = head.resize((width, height), Image.Resampling.LANCZOS)
        for row, column in np.ndindex(rows, columns):
            image.paste(small, (192 + column * width, y + row * height))
        y += rows * height
    return np.array(image)


def white_noise() -> np.ndarray:
    """Independent normal values in each channel and pixel, mean 128, deviation 40."""
    values = np.random.default_rng(1).normal(128, 40, (HEIGHT, WIDTH, 3))
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def grain() -> np.ndarray:
    """A photograph (scikit-image's coffee) under film-like grain: a few pixels wide, strongest in middle gray."""
    from skimage.data import coffee

    photo = coffee()[80 : 80 + HEIGHT, 150 : 150 + WIDTH].astype(np.float64)
    noise = np.random.default_rng(2).normal(0, 1, (HEIGHT + 2, WIDTH + 2, 3))
    noise += 1.5 * noise.mean(axis=2, keepdims=True)  # mostly of brightness
    blurred = sum(
        weight * noise[i : i + HEIGHT, j : j + WIDTH]
        for (i, j), weight in np.ndenumerate(np.outer((1, 2, 1), (1, 2, 1)) / 6)
    )
    strength = 3 + 8 * np.sqrt(photo / 255 * (1 - photo / 255))
    return np.clip(np.round(photo + strength * blurred), 0, 255).astype(np.uint8)


HARD = {
    "drawn": {
        "text": Hard("text, black on white", text, (110, 0)),
        "coloured-text": Hard("text in colours", coloured_text, (36, 0)),
        "screenshot": Hard("a screenshot", screenshot, (46, 104)),
        "line-art": Hard("line art", line_art, (56, 140)),
        "cartoon": Hard("a cartoon of 9 flat colours", cartoon, (60, 100)),
    },
    "flat": {
        "flat": Hard("flat gray, shown with 8 times the contrast", flat, (64, 128), 8, 128),
        "dark": Hard("gray of levels 0 to 16, shown 12 times as bright", dark, (64, 48), 12),
        "gradient": Hard("a smooth gradient, shown with 4 times the contrast", gradient, (64, 128), 4, None),
        "checkers": Hard("saturated checkers", checkers, (64, 100)),
    },
    "noise": {
        "white-noise": Hard("white noise", white_noise, (64, 128)),
        "grain": Hard("a photograph under film-like grain", grain, (64, 128)),
        "faces": Hard("faces, large to small", faces, (100, 200)),
    },
}
"""Sheet -> name -> picture."""


def all_hard() -> Iterator[tuple[str, Hard]]:
    """Every (name, picture), in the order of the sheets."""
    for group in HARD.values():
        yield from group.items()
