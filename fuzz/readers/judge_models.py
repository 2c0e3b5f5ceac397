"""Model files through everything that reads them."""

import numpy as np
import plain_numerics
from readers import damage_models, outcome, plain_variant
from readers.damage_streams import any_of
from readers.kinds import GOLDEN, WHOLE
from readers.outcome import must, told

import ckbd
from ckbd.light.decoder import Decoder as Light
from ckbd.model import arrays, library
from ckbd.papers import file as variantfile

CODED = 0.3  # of the models that load and are others than they were
NOT_LIGHT = ("g_a", "h_a", "log_gain")  # what a decoder without torch has no use for


class Models:
    """Model files of each kind."""

    def __init__(self, folder):
        self.path = folder / "m.safetensors"
        self.bases = []
        for name in ("model", "groups", "variant_raster", "variant_mixture"):
            stream = (GOLDEN / f"{'gray' if name == 'model' else name}.ckbd").read_bytes()
            path = GOLDEN / f"{name}.safetensors"
            codec = ckbd.load(path, threads=1)
            self.bases.append((path.read_bytes(), stream, codec.model.identity, codec.decode_latents([stream])[0]))
        self.picture = np.random.default_rng(0).integers(0, 256, (9, 70, 3), np.uint8)

    def make(self, rng):
        number = int(rng.choice(len(self.bases), p=(0.4, 0.2, 0.2, 0.2)))
        base = self.bases[number]
        if rng.random() < WHOLE:
            return base[0], "whole", lambda data: self.judge(data, base, rng, whole=True)
        data, done = damage_models.mutated(rng, base[0])
        return data, "+".join(done), lambda data: self.judge(data, base, rng, integers=done == ["values"])

    def judge(self, data, base, rng, whole=False, integers=False):
        """The outcome of a model file. integers: whatever is wrong is in the numbers."""
        self.path.write_bytes(data)
        path = self.path
        format = outcome.model(arrays.format_of, path)
        identity = outcome.model(arrays.identity_of, path)
        must(library.identity_of(path) == identity.value, "library.identity_of differs")
        loaded = outcome.model(lambda: ckbd.load(path, threads=1))
        must(not whole or not loaded.refused, f"a whole model: {told(loaded)}")
        if format.refused:
            # Not the words: which of two tensors safetensors names is left to chance.
            must(loaded.field == format.field, f"format_of and load: {told(format)}, {told(loaded)}")
            must(identity.refused, "format_of refuses, identity_of does not")
        if not loaded.refused:
            must(format.value in (arrays.FORMAT, variantfile.FORMAT), "loaded, of a format that is none")
            must(identity.value == loaded.value.model.identity, f"identity: {told(identity)}, and loaded")
        light = None
        if format.value != variantfile.FORMAT:
            light = self.lightly(path, loaded, integers)
        if not loaded.refused:
            self.used(loaded.value, light, base, rng)
        return loaded

    def lightly(self, path, loaded, integers):
        """The reader without torch, and the plain decoder's of integers."""
        light = outcome.model(Light, path)
        must(loaded.refused or not light.refused, f"loaded, but {told(light)} without torch")
        if loaded.refused and not light.refused:
            must(any(part in loaded.text for part in NOT_LIGHT), f"read without torch, but {told(loaded)}")
        try:
            plain_numerics.load_model(path)
        except plain_numerics.PlainError as error:
            must(loaded.refused and light.refused, f"loaded, but not by the plain decoder: {error}")
        except Exception as error:  # it promises nothing of what is no model file at all
            must(loaded.refused, f"loaded, but the plain decoder: {error!r}")
        else:
            floats = ("g_", "h_a", "log_")
            told_of = light.text.removeprefix("model file: tensor ").startswith(floats)
            must(not integers or not light.refused or told_of, f"the plain decoder loads it, but {told(light)}")
        return light.value

    def used(self, codec, light, base, rng):
        """Streams by a model that has loaded."""
        _, stream, identity, y_hat = base
        if codec.model.identity == identity:
            must(np.array_equal(codec.decode_latents([stream])[0], y_hat), "the same identity, other latents")
            if rng.random() < CODED:
                codec.decode([stream])
        if rng.random() < CODED:
            quality = any_of(rng, (1, 37.5, 100))
            try:
                (made,) = codec.encode([self.picture], quality)
            except ValueError as error:  # what it draws may be beyond all use
                must(type(error) is ValueError and str(error), f"encode: {error!r}")
                return
            found = codec.decode_latents([made])[0]
            if light is not None:
                must(np.array_equal(light.latents(made), found), "latents differ without torch")
                light.decode(made)
            elif len(codec.model.layers):
                plain = plain_variant.decode(made, *plain_variant.load_model(self.path), 1 << 20)
                must(np.array_equal(plain, found), "latents differ from the plain decoder's")
            codec.decode([made])
