"""Streams of version 2 through the ways of reading them: the orders of a scan, pictures, tensors, the plain twin."""

import numpy as np
from plain_decoder import PlainError
from readers import outcome, plain_variant
from readers.judge_streams import COMMON, MOST_PIXELS, as_plain, latents, picture_of
from readers.outcome import must, same

import ckbd
from ckbd.codec import container

ORDERS = ("raster", "wavefront", "tuned", "auto")


class Variants:
    """Decoders of a model of version 2."""

    version = container.TRACKS
    share_of_plain = 0.1
    phases = 0  # which payloads of version 2 say nothing of

    def __init__(self, path):
        self.codec = ckbd.load(path, threads=1, max_pixels=MOST_PIXELS >> 3)  # 0.2 ms and more for 16 x 16 of them
        self.plain = plain_variant.load_model(path)

    def latents(self, data, rng):
        found = latents(data, self.codec)
        if rng.random() < 0.3:
            self.codec.decoder.order = ORDERS[int(rng.integers(len(ORDERS)))]
            try:
                other = latents(data, self.codec)
            finally:
                self.codec.decoder.order = "auto"
            # Which track is missed first depends on the order, and what is said of it.
            must(found.refused == other.refused, f"another order: {outcome.told(found)}, {outcome.told(other)}")
            must(found.refused or np.array_equal(found.value, other.value), "latents differ in another order")
        return found

    def pixels(self, data, found, opened, rng):
        picture = picture_of(data, self.codec, found, opened)
        ((_, got),) = self.codec.decode_iter([data], layout="HWC", on_error="yield")
        error = isinstance(got, container.FormatError)
        same(picture, outcome.refusal(data, got) if error else outcome.Outcome(got), "pictures and tensors")
        must(error or np.array_equal(picture.value.rgb, got.numpy()), "pixels of tensors differ")

    def plainly(self, data, opened, found):
        expected = as_plain(data, self, opened, found)
        try:
            got = plain_variant.decode(data, *self.plain, MOST_PIXELS >> 3)
        except PlainError as error:
            must(expected.refused, f"read, but not by the plain decoder: {error}")
            if error.field == expected.field and error.field in COMMON and error.field != "payload":
                must(error.offset == expected.offset, f"{expected.text!r}, plain: {error}")
            return
        must(not expected.refused, f"{expected.text!r}, but the plain decoder reads it")
        must(np.array_equal(got, found.value), "latents differ from the plain decoder's")
