"""`ckbd info` and `ckbd eval`: what they print and write."""

import json

import pytest
from shell_cases import photo

from ckbd import cli
from ckbd.codec import container

pytest_plugins = ["shell_codec"]

FIELDS = [("magic", 0, 4, "ckbd"), ("width", 4, 2, "768"), ("payload", 6, 1000, "")]


def test_info_shows_every_field(here, monkeypatch, capsys):
    monkeypatch.setattr(container, "describe", lambda data: FIELDS)
    (here / "a.ckbd").write_bytes(bytes(1006))
    assert cli.main(["info", "a.ckbd"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.ckbd: 1006 bytes",
        "  offset    bytes  field",
        "       0        4  magic    ckbd",
        "       4        2  width    768",
        "       6     1000  payload",
    ]
    assert cli.main(["info", "--json", "a.ckbd"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bytes"] == 1006
    assert shown["fields"] == [
        dict(zip(("name", "offset", "bytes", "value"), field, strict=True)) for field in FIELDS
    ]


@pytest.mark.parametrize("data, reason", [(b"junk, not a stream", "magic"), (b"", ""), (None, "No such file")])
def test_info_of_no_stream_is_one_line(data, reason, here, capsys):
    if data is not None:
        (here / "a.ckbd").write_bytes(data)
    assert cli.main(["info", "a.ckbd"]) == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and err.startswith("ckbd: a.ckbd: ") and reason in err


def test_eval_prints_and_writes(here, capsys):
    photo(here / "in" / "a.png")
    photo(here / "in" / "b.jpg", 33, 21, 1)
    arguments = ["eval", "in", "--qualities", "30,60,90", "--no-rivals"]
    assert cli.main([*arguments, "--json", "r.json", "--csv", "r.csv", "--plot", "r.svg"]) == 0
    out, err = capsys.readouterr()
    assert "mean over 2 images" in out and "PSNR dB" in out and "MS-SSIM  SSIMULACRA2" in out and not err
    result = json.loads((here / "r.json").read_text())
    assert result["curve"]["quality"] == [30, 60, 90] and result["rivals"] == {} == result["bd_rate"]
    assert len((here / "r.csv").read_text().splitlines()) == 1 + 2 * 3 and (here / "r.svg").stat().st_size > 1000
    assert cli.main([*arguments, "--metrics", "ms-ssim"]) == 0
    out = capsys.readouterr().out
    assert "MS-SSIM" in out and "SSIMULACRA2" not in out
    assert cli.main([*arguments, "--plot", "r.svg"]) == 2
    assert cli.main([*arguments, "--plot", "r.txt"]) == 1
    assert "for a plot" in capsys.readouterr().err


def test_eval_writes_a_page(here, capsys, monkeypatch):
    from ckbd.evaluation import page

    photo(here / "in" / "a.png")
    photo(here / "in" / "b.jpg", 33, 21, 1)
    arguments = ["eval", "in", "--qualities", "30", "--no-rivals", "--metrics", "psnr", "--html", "r.html"]
    assert cli.main(arguments) == 0
    assert not capsys.readouterr().err
    text = (here / "r.html").read_text()
    assert text.startswith("<!doctype html>") and '"made":"quality 50"' in text
    monkeypatch.setitem(page.write.__kwdefaults__, "limit", 1)
    assert cli.main([*arguments, "--html-quality", "20", "--force"]) == 0
    err = capsys.readouterr().err
    assert err == "ckbd: r.html: 2 of 2 pictures are not shown, which would make it larger than 1 bytes\n"
    assert '"quality":20' in (here / "r.html").read_text()


def test_eval_of_a_folder_without_images(here, capsys):
    (here / "in").mkdir()
    assert cli.main(["eval", "in"]) == 1
    assert capsys.readouterr().err == "ckbd: eval: in: no image files\n"
