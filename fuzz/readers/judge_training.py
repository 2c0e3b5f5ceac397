"""What training reads from others: recipes, checkpoints, and tar files of pictures."""

import io
import json
import tarfile

import numpy as np
import torch
from PIL import Image
from readers.damage_models import CONFIG, VALUES, dumps
from readers.damage_streams import any_of, damaged_file
from readers.kinds import WHOLE
from readers.outcome import Finding, Outcome, must, timed

from ckbd.model.config import Config
from ckbd.model.model import Checkerboard
from ckbd.training import data as pictures
from ckbd.training import start
from ckbd.training.recipe import Recipe

TINY = {"width": 64, "M": 8, "Nz": 2, "hyper": 8, "h_s": 8, "psi": 32, "H1": 32, "H2": 32, "analysis8": 0}
TINY |= {"analysis16": 0, "synthesis8": 0, "synthesis16": 0, "levels": 2}
FIELDS = ("model", "data", "out", "init", "steps", "crops", "lr", "clip", "ema", "metric", "rate", "latent", "bf16")
FIELDS += ("seed", "threads", "device", "checkpoint_every", "more")
CROPS = ("", "x", "128x", "128x8,", "0x0", "-64x1", "100x3", "192x1", "9" * 5000 + "x1", "64x8,128x4", "١٢٨x٨")


class Training:
    def __init__(self, folder):
        self.folder = folder
        self.recipe = {
            "model": TINY | {"context": "raster"},
            "data": ["photos.tar"],
            "steps": 9,
            "crops": "64x2,128x1",
        }
        self.state = {"config": Config(**TINY).to_json(), "average": Checkerboard(Config(**TINY)).state_dict()}
        self.bases = [
            json.dumps(self.recipe).encode(),
            saved(self.state),
            *(tar(mode) for mode in ("w", "w:gz", "w:xz")),
        ]

    def make(self, rng):
        number = int(rng.choice(5, p=(0.4, 0.2, 0.2, 0.1, 0.1)))
        data, label = self.bases[number], ("recipe", "checkpoint", "tar", "tar.gz", "tar.xz")[number]
        whole = rng.random() < WHOLE
        if whole:
            label += " whole"
        elif number < 2 and rng.random() < 0.8:
            data = self.fields(rng) if number == 0 else self.config(rng)
        else:
            data = damaged_file(rng, data)
        return data, label, lambda data: self.judge(data, label.split()[0], whole)

    def fields(self, rng):
        """A recipe with other values in its fields, or in its model's."""
        recipe = json.loads(self.bases[0])
        for _ in range(int(rng.integers(1, 3))):
            if rng.random() < 0.4 and isinstance(recipe.get("model"), dict):
                recipe["model"] = recipe["model"] | {any_of(rng, CONFIG): any_of(rng, VALUES)}
            else:
                recipe[any_of(rng, FIELDS)] = any_of(rng, (*VALUES, *CROPS))
        inner = dumps(recipe.pop("model")) if isinstance(recipe.get("model"), dict) else None
        text = dumps(recipe)
        return (text if inner is None else text[:-1] + ', "model": ' + inner + "}").encode("utf-8", "surrogatepass")

    def config(self, rng):
        """A checkpoint whose config or weights are others, none of them large."""
        state = {"config": dict(self.state["config"]), "average": dict(self.state["average"])}
        match int(rng.integers(4)):
            case 0:
                state[any_of(rng, list(state))] = any_of(rng, (None, 7, [], "x", {}, torch.zeros(3)))
            case 1:
                state.pop(any_of(rng, list(state)))
            case 2:
                value = any_of(rng, [one for one in VALUES if type(one) is not int or one < 100])
                state["config"][any_of(rng, CONFIG)] = value
            case _:
                name = any_of(rng, list(state["average"]))
                state["average"][name] = any_of(
                    rng, (torch.zeros(3), None, torch.zeros(0), 7, torch.zeros(2, 2).to_sparse())
                )
        return saved(state)

    def judge(self, data, kind, whole):
        path = self.folder / {"checkpoint": "c.pt", "recipe": "r.json"}.get(kind, "t.tar")
        path.write_bytes(data)
        readers = {"checkpoint": start.model_of, "recipe": lambda path: Recipe.read(path).config}
        try:
            timed(readers.get(kind, lambda path: list(pictures.pictures(path))), path)
        except (ValueError, FileNotFoundError) as error:
            if type(error) not in (ValueError, FileNotFoundError):
                raise
            must(not whole, f"a whole {kind}: {error}")
            if not str(error) or "\n" in str(error):
                raise Finding(f"a refusal of no line, or of more than one: {str(error)[:300]!r}") from error
            return Outcome(None, kind, None, str(error))
        return Outcome(None)


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def tar(mode):
    """Two pictures and a text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:
        for i, name in enumerate(("a.png", "b.jpg", "c.txt")):
            one = io.BytesIO()
            if name == "c.txt":
                one.write(b"text")
            else:
                pixels = np.random.default_rng(i).integers(0, 256, (9, 8, 3), np.uint8)
                Image.fromarray(pixels).save(one, "PNG" if name == "a.png" else "JPEG")
            about = tarfile.TarInfo(name)
            about.size = len(one.getvalue())
            file.addfile(about, io.BytesIO(one.getvalue()))
    return out.getvalue()
