"""Pictures and pages for the tests of `ckbd eval --html`."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
from conftest import textured
from PIL import Image

from ckbd.evaluation import rivals

HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=document.title='run'>.png"
STRANGE = "\u2028 d\u00e9j\u00e0 {{script}} &lt;b&gt; \"'.png"


def few_settings(monkeypatch):
    """Rivals with two points in a curve and a few settings to search in, so that tests are quick."""
    for name, rival in rivals.RIVALS.items():
        settings, every = (rival.settings[2], rival.settings[-2]), rival.every[:: len(rival.every) // 6]
        monkeypatch.setitem(rivals.RIVALS, name, dataclasses.replace(rival, settings=settings, every=every))


def save(path, pixels):
    """Writes pixels to a file, whose name may hold folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fill(folder):
    """Four pictures: one gray, one with alpha, one of a pixel, and two with names that must stay text."""
    save(folder / "a.png", textured(120, 170))
    save(folder / HOSTILE, textured(70, 60, 1)[..., 0])
    pil = Image.fromarray(textured(50, 90, 2))
    pil.putalpha(7)
    pil.save(folder / STRANGE)
    save(folder / "z.png", np.array([[[200, 30, 70]]], dtype=np.uint8))
    return folder


def blocks(text):
    """{id: value} of a page's JSON, found as a browser does: up to the first end of a script."""
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script', text, re.S)
    return {name: json.loads(inside) for name, inside in found}


def embedded(entry):
    """(file, pixels) of a layer's entry in a block."""
    data = base64.b64decode(entry["data"])
    with Image.open(io.BytesIO(data)) as pil:
        assert Image.MIME[pil.format] == entry["type"]
        return data, np.array(pil.convert("RGB"))
