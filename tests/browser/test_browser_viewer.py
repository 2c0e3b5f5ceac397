"""Pictures side by side in a real browser: what is seen, by pointers and by keys."""

import numpy as np
import pytest
from browser_cases import NARROW, choose, pixels, settled, valuenow
from page_cases import embedded

pytest_plugins = ["browser_pages"]


@pytest.mark.parametrize("left, right", [("original", "ckbd"), ("ckbd", "webp"), ("jpeg", "original")])
def test_each_side_shows_its_own_pixels(opened, found, left, right):
    tab = opened()
    choose(tab, "left", left)
    choose(tab, "right", right)
    tab.keyboard.press("0")
    order = ["original", "ckbd", "jpeg", "webp", "avif"]
    ours, others = (embedded(found["picture-0"][order.index(name)])[1].astype(int) for name in (left, right))
    assert found["report"]["pictures"][0]["name"] == "a.png"
    tab.select_option("#chooser", label="a.png")
    settled(tab)
    tab.click("#actual")
    tab.evaluate("document.querySelectorAll('.badge').forEach((badge) => (badge.hidden = true))")
    for press, share in [(None, 0.5), ("ArrowLeft", 0.49), ("Shift+ArrowRight", 0.59)]:
        if press:
            tab.focus("#divider")
            tab.keyboard.press(press)
        seen, width = pixels(tab, "#left img").astype(int), ours.shape[1]
        assert seen.shape == ours.shape
        room = tab.locator("#stage").bounding_box()["width"]
        divide = round(share * room - (room - width) / 2)
        lossy = 4 if {left, right} & {"jpeg", "webp"} else 0  # another decoder than Pillow's rounds otherwise
        assert 25 < divide < width - 25
        assert np.abs(seen[:, : divide - 24] - ours[:, : divide - 24]).max() <= lossy
        assert np.abs(seen[:, divide + 24 :] - others[:, divide + 24 :]).max() <= lossy
        # Beside the line itself, above the handle.
        near = slice(divide - 8, divide - 3), slice(divide + 3, divide + 8)
        assert np.abs(seen[:100, near[0]] - ours[:100, near[0]]).max() <= lossy
        assert np.abs(seen[:100, near[1]] - others[:100, near[1]]).max() <= lossy
    assert np.abs(ours - others).max() > 20


def test_the_divider_by_mouse_and_keys(opened):
    tab = opened()
    tab.locator("#stage").scroll_into_view_if_needed()
    box = tab.locator("#stage").bounding_box()
    middle = box["y"] + box["height"] / 2
    assert valuenow(tab) == 50 and tab.get_attribute("#divider", "role") == "slider"
    tab.mouse.move(box["x"] + box["width"] / 2 + 5, middle)
    tab.mouse.down()
    assert valuenow(tab) == 50  # taking hold moves nothing
    tab.mouse.move(box["x"] + box["width"] * 0.25 + 5, middle, steps=4)
    tab.mouse.up()
    assert valuenow(tab) == 25
    tab.mouse.move(box["x"] + box["width"] * 0.6, middle)
    assert valuenow(tab) == 25  # let go
    tab.mouse.click(box["x"] + box["width"] * 0.4, middle)
    assert valuenow(tab) == 40 and tab.evaluate("document.activeElement.id") == "divider"
    for key, value in [("ArrowRight", 41), ("Shift+ArrowRight", 51), ("ArrowLeft", 50), ("End", 100), ("Home", 0)]:
        tab.focus("#divider")
        tab.keyboard.press(key)
        assert valuenow(tab) == value, key
    for value in (100, 0, 100):
        tab.keyboard.press("Space")
        assert valuenow(tab) == value


def test_keys_choose_layers_and_pictures(opened, found):
    tab = opened()
    tab.focus("#divider")
    chosen = '#{}-card [aria-checked="true"]'
    for key, side, name in [("4", "right", "webp"), ("Shift+Digit5", "left", "avif"), ("1", "right", "original")]:
        tab.keyboard.press(key)
        settled(tab)
        assert tab.inner_text(chosen.format(side)) == name
    assert tab.inner_text("#left-badge").startswith("avif, ") and tab.inner_text("#right-badge") == "original"
    for key, place in [("ArrowDown", 1), ("n", 2), ("j", 3), ("j", 3), ("ArrowUp", 2), ("p", 1), ("k", 0)]:
        tab.keyboard.press(key)
        settled(tab)
        assert tab.evaluate("document.getElementById('chooser').selectedIndex") == place, key
        assert tab.inner_text(chosen.format("left")) == "avif"
    avif = found["report"]["pictures"][0]["layers"][4]
    facts = tab.locator("#left-card dd").all_inner_texts()
    assert facts[:3] == [f"{avif['bytes']:,}", f"{avif['bpp']:.3f}", f"{avif['values']['psnr']:.2f} dB"]
    tab.keyboard.press("?")
    assert tab.locator("#help").is_visible()
    tab.keyboard.press("Escape")
    assert not tab.locator("#help").is_visible()


def test_zoom_by_keys_and_wheel(opened, found):
    tab = opened()
    tab.select_option("#chooser", label="a.png")
    settled(tab)
    tab.focus("#divider")
    scale = lambda: tab.inner_text("#scale")  # noqa: E731
    tab.keyboard.press("0")
    assert scale() == "100 %" and not tab.locator("#stage.sharp").count()
    for expected in ("200 %", "300 %", "400 %", "600 %", "800 %", "1200 %", "1600 %", "1600 %"):
        tab.keyboard.press("+")
        assert scale() == expected
    assert tab.evaluate("getComputedStyle(document.querySelector('#left img')).imageRendering") == "pixelated"
    tab.keyboard.press("Shift+Digit1")
    settled(tab)
    tab.keyboard.press("End")
    rgb = embedded(found["picture-0"][0])[1]
    seen = pixels(tab, "#stage")
    around = rgb[118:122, 160:200].reshape(-1, 3)
    middle = seen[seen.shape[0] // 2, seen.shape[1] // 2 - 200 : seen.shape[1] // 2 + 200]
    assert len(np.unique(middle, axis=0)) <= 27 and {*map(tuple, middle)} <= {*map(tuple, around)}
    tab.keyboard.press("f")
    tab.locator("#stage").scroll_into_view_if_needed()
    box = tab.locator("#stage").bounding_box()
    at = (box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7)

    def under():
        inside = tab.locator("#left img").bounding_box()
        return [(at[i] - inside["xy"[i]]) / inside[side] for i, side in enumerate(("width", "height"))]

    before = under()
    tab.mouse.move(*at)
    tab.mouse.wheel(0, -900)
    tab.wait_for_function("document.querySelector('#stage').classList.contains('wide')")
    assert int(scale().split()[0]) > 300 and under() == pytest.approx(before, abs=0.004)
    tab.mouse.down()
    tab.mouse.move(at[0] - 60, at[1] - 40, steps=3)
    tab.mouse.up()
    moved = under()
    assert moved[0] == pytest.approx(before[0], abs=0.1) and moved[0] > before[0] and moved[1] > before[1]
    tab.click("#whole")
    assert not tab.locator("#stage.wide").count()
    tab.click("#smaller")
    tab.click("#larger")


def test_two_fingers_zoom(opened):
    tab = opened(NARROW, has_touch=True)
    tab.locator("#stage").scroll_into_view_if_needed()
    box = tab.locator("#stage").bounding_box()
    x, y = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
    before = float(tab.inner_text("#scale").split()[0])
    touch = tab.context.new_cdp_session(tab)
    for kind, apart in [("touchStart", 15), ("touchMove", 30), ("touchMove", 60), ("touchEnd", None)]:
        points = [] if apart is None else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert float(tab.inner_text("#scale").split()[0]) == pytest.approx(4 * before, rel=0.02)
    assert valuenow(tab) == 50
