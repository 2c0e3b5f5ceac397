"""Pictures to train on, and a run of `ckbd train` whose every step is logged."""

import csv
import dataclasses
import json

from conftest import TINY, textured
from PIL import Image

from ckbd.training.train import main


def few(path):
    """The folder, with three pictures and the config of TINY."""
    for n in range(3):
        Image.fromarray(textured(90, 70 + 10 * n, n)).save(path / f"{n}.png")
    (path / "tiny.json").write_text(json.dumps(dataclasses.asdict(TINY)))
    return path


def run(folder, out, steps, *more, monkeypatch):
    """[(step, loss), ...] of TINY, as the log has them."""
    monkeypatch.setattr("ckbd.training.train.LOG_EVERY", 1)
    argv = [
        "--data",
        str(folder),
        "--out",
        str(out),
        "--steps",
        str(steps),
        "--crops",
        "64x2",
        "--config",
        str(folder / "tiny.json"),
        "--rounded-from",
        "0",
        *more,
    ]
    assert main(argv) == 0
    with open(out / "log.csv") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]
