"""Pages of `ckbd eval --html` open in a browser, for tests/browser."""

import io

import numpy as np
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
RIVALS = ("jpeg-420", "jpeg-444", "webp", "avif")


def settled(tab):
    tab.wait_for_selector('#stage[aria-busy="false"]')


def pixels(tab, selector):
    """uint8 (H, W, 3) of what is seen where an element is, which is to be within the window."""
    tab.locator(selector).scroll_into_view_if_needed()
    box = tab.locator(selector).bounding_box()
    x, y, width, height = (round(box[side]) for side in ("x", "y", "width", "height"))
    with Image.open(io.BytesIO(tab.screenshot())) as pil:
        return np.array(pil.convert("RGB").crop((x, y, x + width, y + height)))


def valuenow(tab):
    return int(tab.get_attribute("#divider", "aria-valuenow"))


def choose(tab, side, name):
    tab.click(f'#{side}-card button:text-is("{name}")')
    settled(tab)


def names_of(tab):
    return tab.locator("#table tbody th").all_inner_texts()


def brightness(tab):
    return pixels(tab, "header").mean()
