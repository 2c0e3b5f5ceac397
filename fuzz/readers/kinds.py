"""The kinds of bytes that fuzz/files.py makes: where they begin, how they are damaged, who judges them."""

from pathlib import Path

import numpy as np
from readers import damage_streams, judge_streams
from readers.damage_streams import any_of
from readers.judge_streams import Checkerboards
from readers.judge_variants import Variants

ROOT = Path(__file__).resolve().parents[2]
GOLDEN, CORPUS = ROOT / "tests/golden", ROOT / "fuzz/corpus/files"
WHOLE = 0.03  # of all cases


class Streams:
    """Streams of some models, each with its readers."""

    def __init__(self, of, models):
        """models: {model file: names of streams}; shares of bases that are quick are larger."""
        self.bases = []
        for model, names in models.items():
            readers = of(GOLDEN / model)
            paths = [GOLDEN / f"{name}.ckbd" for name in names] + sorted(CORPUS.glob(f"{Path(model).stem}-*.ckbd"))
            bases = [path.read_bytes() for path in paths]
            readers.good = [one for one in bases if len(one) < 2000] or bases
            self.bases += [(one, bases, readers) for one in bases]
        self.shares = np.array([1 / (200 + len(one)) for one, _, _ in self.bases])
        self.shares /= self.shares.sum()

    def make(self, rng):
        base, bases, readers = self.bases[int(rng.choice(len(self.bases), p=self.shares))]
        if rng.random() < WHOLE:
            return base, "whole", lambda data: judge_streams.judge(data, readers, rng, whole=True)
        others = [any_of(rng, bases) for _ in range(2)]
        data, done = damage_streams.mutated(rng, base, others, readers.phases)
        return data, "+".join(done), lambda data: judge_streams.judge(data, readers, rng)


def streams(share_of_plain):
    Checkerboards.share_of_plain = share_of_plain
    names = ("one_pixel", "gray", "metadata", "alpha_icc", "odd_size", "lowest", "highest")
    return Streams(Checkerboards, {"model.safetensors": names, "groups.safetensors": ("groups",)})


def variants(share_of_plain):
    Variants.share_of_plain = 5 * share_of_plain  # which is quicker
    return Streams(Variants, {f"variant_{one}.safetensors": (f"variant_{one}",) for one in ("raster", "mixture")})


def models(folder):
    from readers.judge_models import Models

    return Models(folder)


def training(folder):
    from readers.judge_training import Training

    return Training(folder)


# By name: (a folder to work in, share of the streams that the plain decoder reads) -> what has make(rng).
MAKERS = {
    "stream": lambda folder, plain: streams(plain),
    "variant": lambda folder, plain: variants(plain),
    "model": lambda folder, plain: models(folder),
    "training": lambda folder, plain: training(folder),
}
