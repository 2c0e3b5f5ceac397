"""bench.sheets.published: curves of a file against what ckbd eval wrote."""

import json

import pytest

from bench.sheets import published
from ckbd.evaluation import bd

RATES, PSNRS, SIMILARITIES = [0.1, 0.3, 0.8, 1.6], [26.0, 30.0, 34.0, 37.0], [0.9, 0.96, 0.985, 0.995]


def curve(factor=1.0, **fields):
    return {"bpp": [factor * rate for rate in RATES], "psnr": PSNRS, "ms_ssim": SIMILARITIES} | fields


@pytest.fixture
def files(tmp_path):
    """(rd.json, curves.json, write(curves)): the codec's curve, and published ones that are scaled copies of it."""
    rd, curves = tmp_path / "rd.json", tmp_path / "curves.json"
    result = {"curve": curve(), "rivals": {"webp": curve(1.25)}, "images": ["a"], "model": "0123456789ab"}
    rd.write_text(json.dumps(result))

    def write(some):
        curves.write_text(json.dumps(some))

    decibels = bd.scaled(curve(), "ms_ssim")
    write(
        {
            "_meta": {"what": "no curve"},
            "vtm": curve(0.8),
            "hm": {"bpp": RATES, "psnr": PSNRS},
            "paper:elic2022": {"bpp": [2 * r for r in RATES], "ms_ssim_db": decibels},
            "other": curve(4),
        }
    )
    return str(rd), str(curves), write


def rows(text):
    return {line.split("  ")[1]: line for line in text.splitlines() if line.startswith("  ")}


def test_a_scaled_curve_gives_its_scale_by_every_metric_that_it_has(files, capsys):
    rd, curves, _ = files
    assert published.main([rd, "--curves", curves]) == 0
    out = capsys.readouterr().out
    assert "model 0123456789ab, mean over 1 images, 0.15 .. 1 bpp" in out
    lines = rows(out)
    assert list(lines) == [
        "webp (measured)",
        "hm (published)",
        "vtm (published)",
        "paper:elic2022 (published)",
    ]
    assert lines["vtm (published)"].count("+25.00 % [0.15 .. 1.00 bpp]") == 2
    assert lines["webp (measured)"].count("-20.00 %") == 2
    assert lines["hm (published)"].count("+0.00 %") == 1 and lines["hm (published)"].endswith(" -")
    assert lines["paper:elic2022 (published)"].count("-50.00 %") == 1


def test_names_choose(files, capsys):
    rd, curves, _ = files
    assert published.main([rd, "--curves", curves, "--names", "other", "vtm"]) == 0
    assert list(rows(capsys.readouterr().out)) == ["webp (measured)", "other (published)", "vtm (published)"]
    assert published.main([rd, "--curves", curves, "--names", "vvc"]) == 1
    assert "no curve 'vvc' (there are vtm, hm, paper:elic2022, other)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "bad, words",
    [
        ([1], "expected a JSON object, got list"),
        ({"vtm": [1, 2]}, "vtm: expected an object with bpp"),
        ({"vtm": {"psnr": PSNRS}}, "vtm: expected an object with bpp"),
        ({"vtm": curve(psnr=PSNRS[:2])}, "vtm: psnr: expected a list as long as bpp"),
        ({"vtm": curve(bpp=0.5)}, "vtm: bpp: expected a list"),
        ({"vtm": curve(psnr=[*PSNRS[:3], None])}, "vtm: psnr: expected finite numbers, got None"),
        ({"vtm": curve(ms_ssim=[*SIMILARITIES[:3], float("nan")])}, "vtm: ms_ssim: expected finite numbers, got nan"),
        ({"vtm": curve(bpp=[0.0, *RATES[1:]])}, "vtm: bpp: expected finite numbers, above 0, got 0.0"),
    ],
)
def test_bad_curves_are_named(files, capsys, bad, words):
    rd, curves, write = files
    write(bad)
    assert published.main([rd, "--curves", curves]) == 1
    assert words in capsys.readouterr().err


def test_files_that_are_no_results_are_named(files, tmp_path, capsys):
    rd, curves, _ = files
    (tmp_path / "junk.json").write_text("{")
    for arguments, words in (
        ((curves, curves), "curve is missing"),
        ((str(tmp_path / "junk.json"), curves), "junk.json: not JSON"),
        ((rd, str(tmp_path / "none.json")), "No such file"),
    ):
        assert published.main([arguments[0], "--curves", arguments[1]]) == 1
        assert words in capsys.readouterr().err
