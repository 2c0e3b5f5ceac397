"""The page of an evaluation, with a stand-in codec."""

import dataclasses
import os
import re

import numpy as np
import page_cases
import pytest
from conftest import textured
from jpeg_codec import JpegCodec
from page_cases import HOSTILE, STRANGE, blocks, embedded
from PIL import features

from ckbd.codec import image
from ckbd.codec.image import Picture
from ckbd.evaluation import evaluate, layers, page, rivals


@pytest.fixture
def folder(tmp_path, monkeypatch):
    page_cases.few_settings(monkeypatch)
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def written(folder, codec=None, chosen=("jpeg-420", "jpeg-444", "webp", "avif"), metrics=("psnr",), **options):
    """(text, its blocks, what was said, the result) of a page beside the folder."""
    codec = codec or JpegCodec()
    result = evaluate.run(codec, folder, [30, 80], chosen, metrics=metrics, threads=1)
    path = folder.parent / "page.html"
    said = page.write(path, result, codec, folder, threads=1, **options)
    text = path.read_bytes().decode()
    return text, blocks(text), said, result


def test_layers_are_what_they_say(folder):
    page_cases.fill(folder)
    _, found, said, result = written(folder, metrics=("psnr", "ms_ssim"), quality=40)
    assert said == [] and found["report"]["left"] == 0
    pictures = found["report"]["pictures"]
    assert [picture["name"] for picture in pictures] == result["images"]
    assert {HOSTILE, STRANGE, "a.png", "z.png"} == set(result["images"])
    for i, about in enumerate(pictures):
        rgb = image.read(folder / about["name"]).rgb
        (stream,) = JpegCodec().encode([Picture(rgb)], 40)
        entries = found[f"picture-{i}"]
        assert [layer["name"] for layer in about["layers"]] == ["original", "ckbd", "jpeg", "webp", "avif"]
        assert len(entries) == 5 and about["cut"] is None and about["missing"] == {}
        for layer, entry in zip(about["layers"], entries, strict=True):
            data, pixels = embedded(entry)
            assert pixels.shape == rgb.shape == (about["height"], about["width"], 3)
            if layer["name"] == "original":
                assert np.array_equal(pixels, rgb) and layer["note"] == "lossless" and layer["bytes"] is None
                continue
            assert layer["values"]["psnr"] == pytest.approx(image.psnr(rgb, pixels))
            assert layer["values"]["ms_ssim"] is None is layer["values"]["ssimulacra2"]  # too small, not asked for
            assert layer["bpp"] == pytest.approx(8 * layer["bytes"] / (about["height"] * about["width"]))
            if layer["name"] == "ckbd":
                assert layer["bytes"] == len(stream) and layer["note"] == "lossless" and layer["made"] == "quality 40"
                assert np.array_equal(pixels, JpegCodec().decode_pictures([stream])[0].rgb)
            else:
                assert layer["bytes"] == len(data) and layer["note"] == "the file itself"
                assert layer["fits"] == (len(data) <= len(stream))
    assert any(layer["fits"] for layer in pictures[-1]["layers"][2:])


def test_curves_are_those_of_the_result(folder):
    page_cases.save(folder / "a.png", textured(40, 50))
    _, found, _, result = written(folder, chosen=tuple(rivals.RIVALS))
    series = {one["name"]: one for one in found["report"]["series"]}
    assert set(series) == {"ckbd", *rivals.RIVALS}  # and not jpeg-best, which has no curve in the plot either
    for name, one in series.items():
        curve = result["curve"] if name == "ckbd" else result["rivals"][name]
        settings = [30, 80] if name == "ckbd" else rivals.RIVALS[name].settings
        expected = sorted(zip(settings, curve["bpp"], curve["psnr"], curve["psnr"], strict=True), key=lambda p: p[1])
        assert [tuple(point) for point in one["points"]["psnr"]] == expected
    (panel,) = found["report"]["panels"]
    assert [name for name, *_ in panel["bd"]] == [*rivals.RIVALS, "jpeg-best"]
    assert [layer["name"] for layer in found["report"]["pictures"][0]["layers"]][2:] == ["jpeg", "webp", "avif"]


def test_names_stay_text_and_nothing_is_asked_for(folder):
    page_cases.fill(folder)
    text, found, _, _ = written(folder, chosen=())
    plain, _, _, _ = written(page_cases.fill(folder.parent / "pictures"), chosen=())
    assert text == plain  # the same input, the same bytes
    assert "<img src=x" not in text and HOSTILE not in text and text.isascii()
    assert text.count("<script") == 2 + len(found["report"]["pictures"]) == text.count("</script>")
    for inside in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S):
        assert not re.search("[<>&\u2028\u2029]", inside)
    assert set(re.findall(r"\w+://[^\"'`\s]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, nothing to load
    assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) == {"data:,"}
    assert "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in text
    assert "{{" not in re.sub(r"<script type.*?</script>", "", text, flags=re.S)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert [layer["name"] for layer in found["report"]["pictures"][0]["layers"]] == ["original", "ckbd"]


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname != "Linux", reason="names of bytes that are no text")
def test_a_name_that_is_no_text(folder):
    page_cases.save(folder / os.fsdecode(b"\xff.png"), textured(20, 30))
    _, found, _, _ = written(folder, chosen=())
    assert found["report"]["pictures"][0]["name"] == "\udcff.png"


def test_pixels_are_made_as_small_as_they_must_be(folder, monkeypatch):
    for i in range(6):
        page_cases.save(folder / f"{i}.png", textured(96, 96, i))
    text, _, _, _ = written(folder, chosen=("jpeg-444",))
    tried = []
    encode = layers.Ladder.encode
    monkeypatch.setattr(layers.Ladder, "encode", lambda *args: tried.append(args[2]) or encode(*args))
    limit = len(text) - 100_000
    smaller, found, said, _ = written(folder, chosen=("jpeg-444",), limit=limit)
    assert said == [] and limit * 0.75 < len(smaller) <= limit
    notes = {layer["note"] for picture in found["report"]["pictures"] for layer in picture["layers"]}
    (rung,) = {int(re.search(r"quality (\d+)", note)[1]) for note in notes - {"the file itself"}}
    assert rung in page.RUNGS and len(tried) <= 4 * 8 + 2 * 12
    for i, picture in enumerate(found["report"]["pictures"]):
        rgb = image.read(folder / picture["name"]).rgb
        _, pixels = embedded(found[f"picture-{i}"][0])
        distance = image.psnr(rgb, pixels)
        kind = "AVIF 4:4:4" if features.check("avif") else "WebP"
        expected = f"shown as {kind} quality {rung}, {distance:.1f} dB from the pixels"
        assert picture["layers"][0]["note"] == expected and distance < 100
        assert picture["layers"][2]["note"] == "the file itself"


def test_a_rung_that_promised_too_much_is_left(folder, monkeypatch):
    page_cases.save(folder / "a.png", textured(96, 96))
    text, _, _, _ = written(folder, chosen=())
    monkeypatch.setattr(page, "_promising", lambda *_: page.RUNGS)
    limit = len(text) - 28_000
    smaller, found, _, _ = written(folder, chosen=(), limit=limit)
    assert len(smaller) <= limit and "quality 97" not in found["report"]["pictures"][0]["layers"][0]["note"]


def test_what_there_is_no_room_for_is_left_out_and_said(folder):
    for i in range(5):
        page_cases.save(folder / f"{i}.png", textured(64, 64, i))
    empty, _, _, _ = written(folder, chosen=(), limit=1)
    limit = len(empty) + 9_000
    text, found, said, _ = written(folder, chosen=(), limit=limit)
    kept = len(found["report"]["pictures"])
    assert 0 < kept < 5 and found["report"]["left"] == 5 - kept and len(text) <= limit
    assert [picture["name"] for picture in found["report"]["pictures"]] == [f"{i}.png" for i in range(kept)]
    assert said == [f"{5 - kept} of 5 pictures are not shown, which would make it larger than {limit} bytes"]
    assert set(found) == {"report", *(f"picture-{i}" for i in range(kept))}


def test_of_a_large_picture_a_cut_is_shown(folder, monkeypatch):
    monkeypatch.setattr(layers, "MOST_PIXELS", 20_000)
    monkeypatch.setattr(layers, "SIDE", 64)
    rgb = np.full((130, 400, 3), 90, dtype=np.uint8)
    rgb[60:130, 330:400] = textured(70, 70)
    page_cases.save(folder / "a.png", rgb)
    _, found, _, _ = written(folder)
    (about,) = found["report"]["pictures"]
    x, y, width, height = about["cut"]
    assert (width, height) == (64, 64) and x >= 320 and y >= 56
    assert (about["width"], about["height"]) == (400, 130)
    (stream,) = JpegCodec().encode([Picture(rgb)], 50)
    decoded = JpegCodec().decode_pictures([stream])[0].rgb
    assert about["layers"][1]["values"]["psnr"] == pytest.approx(image.psnr(rgb, decoded))
    assert about["layers"][1]["bpp"] == 8 * len(stream) / (130 * 400)
    shown = [embedded(entry)[1] for entry in found["picture-0"]]
    assert np.array_equal(shown[0], rgb[y : y + 64, x : x + 64])
    assert np.array_equal(shown[1], decoded[y : y + 64, x : x + 64])
    assert [one.shape for one in shown] == [(64, 64, 3)] * 5
    assert {layer["note"] for layer in about["layers"]} == {"lossless"}


def test_what_is_cut():
    assert layers.cut_of(np.zeros((1024, 2048, 3), np.uint8)) is None
    assert layers.cut_of(np.zeros((1, 1, 3), np.uint8)) is None
    assert layers.cut_of(np.zeros((1025, 2048, 3), np.uint8)) == (0, 0, 1024, 1024)
    assert layers.cut_of(np.zeros((20, 17000, 3), np.uint8)) == (0, 0, 1024, 20)


class Terse(JpegCodec):
    """Two bytes a stream, fewer than anyone else has."""

    def encode(self, images, quality, effort=None):
        self.last = images[0]
        return [b"\xff\xd8"]

    def decode_pictures(self, streams):
        return [self.last]

    def estimate(self, pictures, quality, effort=None):
        return [16.0]


def test_a_rival_that_cannot_be_as_small_is_marked(folder):
    page_cases.save(folder / "a.png", textured(40, 50))
    _, found, _, _ = written(folder, Terse())
    own, *others = found["report"]["pictures"][0]["layers"][1:]
    assert own["fits"] and own["bytes"] == 2 and not any(one["fits"] for one in others)
    rgb = image.read(folder / "a.png").rgb
    for layer, name in zip(others[1:], ("webp", "avif"), strict=True):
        assert layer["bytes"] <= min(len(rivals.RIVALS[name].encode(rgb, s)) for s in rivals.RIVALS[name].every[:2])


def test_a_rival_that_fails_at_a_picture_is_named(folder, monkeypatch):
    page_cases.save(folder / "a.png", textured(40, 50))
    result = evaluate.run(JpegCodec(), folder, [50], ["jpeg-444", "webp"], metrics=["psnr"], threads=1)

    def fail(rgb, setting):
        raise OSError("no room for <b>")

    monkeypatch.setitem(rivals.RIVALS, "webp", dataclasses.replace(rivals.RIVALS["webp"], encode=fail))
    page.write(folder.parent / "p.html", result, JpegCodec(), folder)
    (about,) = blocks((folder.parent / "p.html").read_text())["report"]["pictures"]
    assert about["missing"] == {"webp": "no room for <b>"}
    assert [layer["name"] for layer in about["layers"]] == ["original", "ckbd", "jpeg"]


def test_a_pillow_that_lacks_formats(monkeypatch):
    rgb = textured(30, 40)
    for lacking, kind, start in [
        ((), "AVIF 4:4:4", b"\0"),
        (("avif",), "WebP", b"RIFF"),
        (("avif", "webp"), "JPEG", b"\xff"),
    ]:
        monkeypatch.setattr(features, "check", lambda name, lacking=lacking: name not in lacking)
        made = layers.ladder()
        assert made.name == kind and made.encode(rgb, 90).startswith(start)
        data = layers.lossless(rgb)
        assert np.array_equal(rivals.decode(data), rgb)
        assert layers.media_type(data) == ("image/png" if "webp" in lacking else "image/webp")


def test_the_file_appears_whole_or_not_at_all(folder, monkeypatch):
    page_cases.save(folder / "a.png", textured(20, 30))
    result = evaluate.run(JpegCodec(), folder, [50], (), metrics=["psnr"], threads=1)
    path = folder.parent / "out" / "p.html"
    path.parent.mkdir()
    path.write_text("old")
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="a.png: no image of a kind"):
        page.write(path, result, JpegCodec(), folder)
    assert path.read_text() == "old" and os.listdir(path.parent) == ["p.html"]
    page_cases.save(folder / "a.png", textured(20, 30))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        page.write(path, result, JpegCodec(), folder)
    assert path.read_text() == "old" and os.listdir(path.parent) == ["p.html"]
