"""Fixtures of tests/browser: a browser, a page, and what opens it."""

import os
import shutil

import numpy as np
import page_cases
import pytest
from browser_cases import BROWSERS, RIVALS, WIDE, settled
from conftest import textured
from jpeg_codec import JpegCodec
from page_cases import HOSTILE, STRANGE, blocks
from playwright.sync_api import sync_playwright

from ckbd.evaluation import evaluate, page


@pytest.fixture(scope="session")
def browser():
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--force-color-profile=srgb"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    """A page of four pictures, two of which have names that would do something if they were not text."""
    folder = tmp_path_factory.mktemp("browser") / "pictures"
    with pytest.MonkeyPatch.context() as monkeypatch:
        page_cases.few_settings(monkeypatch)
        page_cases.save(folder / "a.png", textured(240, 360))
        page_cases.save(folder / HOSTILE, textured(180, 170, 1))
        page_cases.save(folder / STRANGE, textured(300, 420, 2))
        page_cases.save(folder / "z.png", np.array([[[200, 30, 70]]], dtype=np.uint8))
        result = evaluate.run(JpegCodec(), folder, [20, 50, 80], RIVALS, window=(1e-3, 1e3), threads=2)
        page.write(folder.parent / "page.html", result, JpegCodec(), folder, threads=2)
    return folder.parent / "page.html"


@pytest.fixture(scope="session")
def found(file):
    return blocks(file.read_text())


@pytest.fixture
def opened(browser, file):
    """Opens a page; at the end nothing may have gone wrong on any, nor have been asked for elsewhere."""
    contexts, wrong = [], []

    def open_page(viewport=WIDE, path=file, **options):
        context = browser.new_context(viewport=viewport, device_scale_factor=1, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.on("request", lambda request: elsewhere(request.url))
        tab.goto(path.as_uri())
        if tab.locator("#stage").is_visible():
            settled(tab)
        return tab

    def elsewhere(url):
        if not url.startswith((file.parent.as_uri(), "data:", "blob:")):
            wrong.append(f"asked for {url}")

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
