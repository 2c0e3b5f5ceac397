"""What ckbd.evaluation.evaluate.run returned, to look at: one HTML file of curves, tables and pictures side by side.

Everything is inside the file, which asks for nothing else. Names of files are somebody else's text: they are in JSON
in which nothing ends a script or begins a tag, and the page's own scripts only ever write them as text.
"""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ckbd.codec import image, machine
from ckbd.codec.files.output import replacing
from ckbd.codec.machine import Each
from ckbd.evaluation import layers
from ckbd.evaluation.bd import METRICS, scaled
from ckbd.evaluation.evaluate import Codec
from ckbd.evaluation.layers import Shot
from ckbd.evaluation.report import AXES, DIGITS, LABELS, STYLES

LIMIT = 10_000_000  # bytes of a page
RUNGS = (97, 95, 92, 90, 88, 86, 84, 82, 80, 75, 70, 65, 60)
NOTE = 80  # bytes of what is said of a layer, at most
SAMPLE = 4  # pictures by which a rung's bytes are estimated
STYLE_SHEETS = ("page.css", "view.css")
SCRIPTS = ("page.js", "curves.js", "tables.js", "layers.js", "zoom.js", "view.js", "keys.js")


class Pixels(NamedTuple):
    """A layer's file as the page holds it, and what it is, in words."""

    data: bytes
    note: str


Held = dict[tuple[int, int], Pixels]  # by number of the shot and of its layer


def write(
    path: str | os.PathLike[str],
    result: dict[str, Any],
    codec: Codec,
    folder: str | os.PathLike[str],
    quality: float = 50.0,
    *,
    effort: int | None = None,
    threads: int | None = None,
    limit: int = LIMIT,
    progress: bool = False,
) -> list[str]:
    """Writes the page of a result of ckbd.evaluation.evaluate.run; returns what its reader is to be told, in lines.

    Every picture of the folder is encoded again at the quality, and by the rivals with as many bytes; the files that
    are shown are kept, and no pixels. effort, threads and progress: as run() has them. limit: bytes that the page may
    have. Pixels are in it without loss if it then stays below, otherwise at the highest of RUNGS at which it does;
    if there is none, pictures are left out from the end. Raises ValueError as run() does, OSError if path cannot be
    written.
    """
    rivals = [name for name in result["rivals"] if name in STYLES]
    team = machine.Team(threads or os.cpu_count() or 1)
    names = result["images"]
    with (
        tempfile.TemporaryDirectory(prefix="ckbd-") as spool,
        tqdm(total=len(names), unit="picture", disable=not progress) as bar,
        machine.alone(),
    ):

        def collect(i: int) -> Shot:
            own = Path(spool, str(i))
            own.mkdir()
            shot = layers.collect(
                codec,
                Path(folder, names[i]),
                names[i],
                rivals,
                quality=quality,
                effort=effort,
                metrics=result["metrics"],
                each=team,
                folder=own,
            )
            bar.update()
            return shot

        shots = team(collect, range(len(names)))
        text, left = _within(result, quality, shots, limit, team)
    with replacing(path) as temporary:
        temporary.write_bytes(text)
    if not left:
        return []
    return [f"{left} of {len(shots)} pictures are not shown, which would make it larger than {limit} bytes"]


def _within(result: dict[str, Any], quality: float, shots: list[Shot], limit: int, each: Each) -> tuple[bytes, int]:
    """The page, and how many pictures had to be left out of it."""
    places = list(layers.pixel_layers(shots))
    held: Held = {}
    files = sum(file.stat().st_size for *_, file in places)
    room = limit - len(_page(result, quality, shots, {})) - NOTE * len(places)
    if _encoded(files) <= room:
        held = {(i, j): Pixels(file.read_bytes(), "lossless") for i, j, file in places}
        text = _page(result, quality, shots, held)
        if len(text) <= limit:
            return text, 0
    for rung in _promising(places, len(shots), room, each):
        held = dict(zip([(i, j) for i, j, _ in places], each(_at(rung), [f for *_, f in places]), strict=True))
        text = _page(result, quality, shots, held)
        if len(text) <= limit:
            return text, 0
    # Even the lowest rung is too much: as many pictures as there is room for, by halving.
    low, high = 0, len(shots)
    while high - low > 1:
        middle = (low + high) // 2
        fits = len(_page(result, quality, shots[:middle], held, len(shots))) <= limit
        low, high = (middle, high) if fits else (low, middle)
    return _page(result, quality, shots[:low], held, len(shots)), len(shots) - low


def _promising(places: Sequence[tuple[int, int, Path]], count: int, room: int, each: Each) -> Sequence[int]:
    """RUNGS from the first on at which a few pictures, spread over all, promise no more bytes than there is room for.

    A rung's bytes are taken to be in one proportion to those without loss.
    """
    chosen = {count * (2 * n + 1) // (2 * SAMPLE) for n in range(SAMPLE)}
    files = [file for i, _, file in places if i in chosen]
    whole = sum(file.stat().st_size for *_, file in places)
    part = sum(file.stat().st_size for file in files)
    low, high = -1, len(RUNGS) - 1  # the last one is tried whatever the estimate
    while high - low > 1:
        middle = (low + high) // 2
        made = sum(len(one.data) for one in each(_at(RUNGS[middle]), files))
        fits = _encoded(made * whole // max(part, 1)) <= room
        low, high = (low, middle) if fits else (middle, high)
    return RUNGS[high:]


def _encoded(nbytes: int) -> int:
    return (nbytes + 2) // 3 * 4


def _at(rung: int) -> Callable[[Path], Pixels]:
    """The function of a lossless file that gives its pixels as they are shown at a rung."""
    kind = layers.ladder()

    def encode(file: Path) -> Pixels:
        rgb = layers.decode(file.read_bytes())
        data = kind.encode(rgb, rung)
        distance = image.psnr(rgb, layers.decode(data))
        return Pixels(data, f"shown as {kind.name} quality {rung}, {distance:.1f} dB from the pixels")

    return encode


def _page(result: dict[str, Any], quality: float, shots: Sequence[Shot], held: Held, of: int | None = None) -> bytes:
    """The whole file; layers that are not held are without data. of: how many pictures there are."""
    report = {
        "model": result["model"],
        "count": len(result["images"]),
        "quality": quality,
        "left": (of or len(shots)) - len(shots),
        "series": _series(result),
        "panels": _panels(result),
        "absent": result["absent"],
        "pictures": [_about(i, shot, held) for i, shot in enumerate(shots)],
    }
    blocks = [f'<script type="application/json" id="report">{_json(report)}</script>']
    for i, shot in enumerate(shots):
        data = [layer.data or held.get((i, j), Pixels(b"", "")).data for j, layer in enumerate(shot.layers)]
        files = [{"type": layers.media_type(one), "data": base64.b64encode(one).decode()} for one in data]
        blocks.append(f'<script type="application/json" id="picture-{i}">{_json(files)}</script>')
    parts = {
        "style": "\n".join(_part(name) for name in STYLE_SHEETS),
        "data": "\n".join(blocks),
        "script": "\n".join(['"use strict";', *(_part(name) for name in SCRIPTS)]),
    }
    # In one pass, so that what was put in is never taken for a place to put something.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html")).encode()


def _part(name: str) -> str:
    return (resources.files("ckbd.evaluation") / "html" / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON in ASCII without <, > and &: no text in it can end the script that it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _series(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What the curves are drawn from: points by metric, [setting, bpp, value, value as measured]."""
    curves = {"ckbd": result["curve"], **{n: c for n, c in result["rivals"].items() if n in STYLES}}
    made = []
    for name, curve in curves.items():
        settings = list(dict.fromkeys(row["setting"] for row in result["rows"] if row["codec"] == name))
        points = {}
        for metric in result["metrics"]:
            columns = zip(settings, curve["bpp"], scaled(curve, metric), curve[metric], strict=True)
            points[metric] = sorted((p for p in columns if p[2] is not None), key=lambda p: p[1])
        colour, marker = STYLES[name]
        kind = "rate" if name == "jpeg2000" else "quality"
        made.append({"name": name, "colour": colour, "marker": marker, "setting": kind, "points": points})
    return made


def _panels(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each metric that was measured: its names, its digits, and [rival, BD-rate in percent, its rates in bpp]."""
    made = []
    for metric in METRICS:
        if metric not in result["metrics"]:
            continue
        suffix = "" if metric == "psnr" else f"_{metric}"
        percents, rates = result["bd_rate" + suffix], result["bd_bpp" + suffix]
        made.append(
            {
                "metric": metric,
                "label": LABELS[metric],
                "axis": AXES[metric],
                "digits": DIGITS[metric],
                "bd": [[name, percent, rates[name]] for name, percent in percents.items()],
            }
        )
    return made


def _about(i: int, shot: Shot, held: Held) -> dict[str, Any]:
    """All that is said of a picture, in words and numbers."""
    pixels = shot.width * shot.height
    described = []
    for j, layer in enumerate(shot.layers):
        note = held[i, j].note if (i, j) in held else "the file itself" if layer.data else ""
        bpp = None if layer.size is None else 8 * layer.size / pixels
        described.append(
            {
                "name": layer.name,
                "made": layer.made,
                "bytes": layer.size,
                "bpp": bpp,
                "fits": layer.fits,
                "values": layer.values,
                "note": note,
            }
        )
    return {
        "name": shot.name,
        "width": shot.width,
        "height": shot.height,
        "cut": shot.cut,
        "layers": described,
        "missing": shot.missing,
    }
