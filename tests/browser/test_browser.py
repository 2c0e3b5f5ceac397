"""The page of `ckbd eval --html` in a real browser: `make browser`."""

import dataclasses
import json

import page_cases
import pytest
from browser_cases import NARROW, WIDE, brightness, choose, names_of, settled
from conftest import textured
from jpeg_codec import JpegCodec
from page_cases import HOSTILE

from ckbd.evaluation import evaluate, page, rivals

pytest_plugins = ["browser_pages"]


def test_nothing_goes_wrong_and_no_name_runs(opened, found):
    tab = opened()
    assert tab.title() == "ckbd beside other codecs" and tab.get_attribute("html", "lang") == "en"
    for number, name in enumerate([picture["name"] for picture in found["report"]["pictures"]]):
        tab.select_option("#chooser", index=number)
        settled(tab)
        for layer in ("original", "ckbd", "jpeg", "webp", "avif"):
            choose(tab, "right", layer)
            assert tab.evaluate("document.querySelector('#right img').naturalWidth") > 0
        assert tab.locator("#table tbody th button").nth(number).get_attribute("title") == name
    assert not tab.locator(".broken").count() and not tab.locator('img[src="x"]').count()
    assert tab.title() == "ckbd beside other codecs"
    assert HOSTILE in names_of(tab)


def test_the_table_sorts_and_opens(opened, found):
    tab = opened()
    pictures = found["report"]["pictures"]
    by_bytes = [one["name"] for one in sorted(pictures, key=lambda one: one["layers"][1]["bytes"])]
    tab.click('#table thead button:text-is("bytes")')
    assert names_of(tab) == by_bytes
    assert tab.get_attribute('#table th[data-column="bytes"]', "aria-sort") == "ascending"
    tab.keyboard.press("Enter")  # the focus is still there
    assert names_of(tab) == by_bytes[::-1]
    tab.focus('#table thead [data-column="webp"] button')
    tab.keyboard.press("Space")
    assert names_of(tab) == [
        one["name"] for one in sorted(pictures, key=lambda one: one["layers"][3]["values"]["psnr"])
    ]
    tab.click('#measures button:text-is("SSIMULACRA2")')
    cells = tab.locator("#table tbody tr").filter(has_text="z.png").locator("td").all_inner_texts()
    assert cells[-4:] == ["\u2013"] * 4  # too small to be measured
    assert names_of(tab)[-1] == "z.png"
    tab.locator("#table tbody tr").filter(has_text="z.png").locator("td").nth(1).click()
    settled(tab)
    assert tab.evaluate("document.getElementById('chooser').selectedOptions[0].textContent") == "z.png"
    assert tab.evaluate("document.activeElement.id") == "divider"
    assert tab.locator("#table tr.current th").inner_text() == "z.png"


def test_curves_tell_their_points(opened, found):
    tab = opened()
    own = next(one for one in found["report"]["series"] if one["name"] == "ckbd")
    setting, bpp, value, _ = own["points"]["psnr"][1]
    tab.locator("#legend button").filter(has_text="jpeg-444").click()  # the stand-in's twin lies on its points
    markers = tab.locator("#chart svg path:not(.curve)")
    box = markers.nth(markers.count() - 2).bounding_box()  # ckbd is drawn last
    tab.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2 - 2)
    text = tab.inner_text("#tip")
    assert text.split("\n")[:4] == ["ckbd", f"quality {setting}", f"{bpp:.3f} bpp", f"PSNR {value:.2f} dB"]
    curves = tab.locator("#chart .curve").count()
    button = tab.locator("#legend button").filter(has_text="webp")
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and tab.locator("#chart .curve").count() == curves - 1
    button.click()
    assert tab.locator("#chart .curve").count() == curves
    tab.focus("#chart svg")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#tip").split("\n")[1:3] == [f"quality {setting}", f"{bpp:.3f} bpp"]
    tab.keyboard.press("ArrowDown")
    assert not tab.inner_text("#tip").startswith("ckbd")
    tab.click('#metrics button:text-is("MS-SSIM")')
    assert "MS-SSIM" in tab.locator("#chart svg text").last.evaluate("(one) => one.parentNode.textContent")
    tab.keyboard.press("ArrowRight")
    assert tab.locator('#metrics [aria-checked="true"]').inner_text() == "SSIMULACRA2"


def test_dark_and_light(opened):
    tab = opened(color_scheme="light")
    assert brightness(tab) > 200
    own = "document.querySelector('#chart .curve.own')"
    assert tab.evaluate(f"getComputedStyle({own}).stroke") == "rgb(0, 0, 0)"
    tab.emulate_media(color_scheme="dark")
    assert brightness(tab) < 60 and tab.inner_text("#theme") == "light"
    assert tab.evaluate(f"getComputedStyle({own}).stroke") == "rgb(255, 255, 255)"
    tab.click("#theme")
    assert brightness(tab) > 200 and tab.inner_text("#theme") == "dark"
    tab.click("#theme")
    assert brightness(tab) < 60


@pytest.mark.parametrize("viewport", [NARROW, {"width": 320, "height": 600}, WIDE], ids=lambda v: str(v["width"]))
def test_nothing_is_wider_than_the_window(opened, viewport):
    tab = opened(viewport)
    for number in range(4):
        tab.select_option("#chooser", index=number)
        settled(tab)
        assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    tab.keyboard.press("?")
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_a_page_of_little(opened, file, tmp_path, monkeypatch):
    """No rivals, one picture, nothing measured of it; and a page with no room for pictures."""
    page_cases.save(tmp_path / "in" / "a.png", textured(60, 90)[..., 0])
    result = evaluate.run(JpegCodec(), tmp_path / "in", [50], (), threads=1)
    result["absent"] = {"avif": "<b>none</b>"}
    path = file.parent / "little.html"
    page.write(path, result, JpegCodec(), tmp_path / "in")
    tab = opened(path=path)
    assert tab.locator("#left-card .choices button").all_inner_texts() == ["original", "ckbd"]
    assert "No rivals were measured" in tab.inner_text("#savings")
    assert "avif was not measured: <b>none</b>" in tab.inner_text("#footer")
    tab.click('#metrics button:text-is("MS-SSIM")')
    assert tab.locator("#chart svg").text_content() == "not measured"
    assert tab.locator("#left-card dd").last.inner_text() == "60" or "\u2013" in tab.inner_text("#right-card")
    page.write(path, result, JpegCodec(), tmp_path / "in", limit=1)
    tab = opened(path=path)
    assert not tab.locator("#viewer").is_visible() and "1 picture of 1 are not shown" in tab.inner_text("#footer")


def test_a_rival_that_is_larger_is_said_to_be(opened, file, tmp_path, monkeypatch):
    page_cases.few_settings(monkeypatch)
    page_cases.save(tmp_path / "in" / "a.png", textured(60, 90))
    large = dataclasses.replace(rivals.RIVALS["webp"], every=(100,))
    monkeypatch.setitem(rivals.RIVALS, "webp", large)
    result = evaluate.run(JpegCodec(), tmp_path / "in", [5], ["webp"], threads=1)
    path = file.parent / "larger.html"
    page.write(path, result, JpegCodec(), tmp_path / "in", quality=5)
    tab = opened(path=path)
    assert tab.inner_text("#right-card .warn").startswith("More bytes than ckbd")
    assert "*" in tab.locator("#table tbody td").last.inner_text() and "*" in tab.inner_text("#table-note")
    assert json.loads(tab.locator("#report").text_content())["pictures"][0]["layers"][2]["fits"] is False
