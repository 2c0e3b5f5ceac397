"""Streams through every way of reading them, which must agree."""

import io
import zlib
from pathlib import Path

import numpy as np
import plain_decoder
import plain_numerics
import torch
from readers import outcome
from readers.outcome import must, same, told

import ckbd
from ckbd.codec import batches, container, limits, sections
from ckbd.light.decoder import Decoder as Light
from ckbd.pillow import CkbdImageFile, UnreadableImage

NO_LIMIT = (1 << 64) - 1
MOST_PIXELS = 1 << 19  # that are decoded here; what the readers of containers allow is theirs
PLAIN_PATCHES = 4  # what the plain decoders may take, which are slow
# Fields that both name alike, where the byte is the format's to say. Not width: the limit of pixels is of both sides.
COMMON = ("magic", "version", "model", "flags", "quality", "coder", "header_crc", "payload_crc", "section type")
HEADER = ("magic", "version", "model", "flags", "quality", "coder", "width", "height", "tail", "tracks")
HEADER += ("payload_length", "section_count", "header_crc")


class Checkerboards:
    """Decoders of a model of version 1: with layers in floats and in eight bits, in batches, without torch, plain."""

    version = container.VERSION

    def __init__(self, path: Path):
        given = {"threads": 1, "max_pixels": MOST_PIXELS}
        self.codec = ckbd.load(path, **given)
        self.others = [ckbd.load(path, backend=backend, **given) for backend in ("torch", "integers")]
        self.light = Light(path, MOST_PIXELS)
        self.phases = self.codec.decoder.zone.phases
        self.plain = plain_numerics.load_model(path)

    def latents(self, data, rng):
        """Outcome of the latents, by all the ways that there are."""
        found = latents(data, self.codec)
        light = outcome.stream(data, self.light.latents, data)
        same(found, light, "latents: torch and without it")
        must(found.refused or np.array_equal(found.value, light.value), "latents differ without torch")
        if rng.random() < 0.3:
            other = latents(data, self.others[int(rng.integers(2))])
            same(found, other, "latents: floats and integers")
            must(found.refused or np.array_equal(found.value, other.value), "latents differ with another backend")
        return found

    def pixels(self, data, found, opened, rng):
        """Pictures, singly and among others, and without torch."""
        picture = picture_of(data, self.codec, found, opened)
        light = outcome.stream(data, self.light.decode, data)
        same(picture, light, "pictures: torch and without it")
        must(picture.refused or picture.value.rgb.shape == light.value.rgb.shape, "sizes differ without torch")
        # A batch leaves sections' contents alone: it gives pixels, and refuses what latents refuse.
        good = self.good[int(rng.integers(len(self.good)))]
        several = [good, data, good] if rng.random() < 0.5 else [data, good]
        got = [x for _, x in self.codec.decode_iter(several, layout="HWC", on_error="yield")]
        own = got[several.index(data)]
        batch = outcome.refusal(data, own) if isinstance(own, container.FormatError) else outcome.Outcome(own)
        same(found, batch, "latents and a batch")
        must(isinstance(got[-1 if several[-1] is good else 0], torch.Tensor), "the stream beside it is not read")
        if not picture.refused:
            must(np.array_equal(picture.value.rgb, own.numpy()), "pixels differ in a batch")

    def plainly(self, data, opened, found):
        """The plain decoder: it reads what is read, alpha included."""
        expected = as_plain(data, self, opened, found)
        try:
            got = plain_decoder.decode(data, self.plain, MOST_PIXELS)
        except plain_decoder.PlainError as error:
            must(expected.refused, f"read, but not by the plain decoder: {error}")
            if error.field == expected.field and error.field in COMMON:
                must(error.offset == expected.offset, f"{expected.text!r}, plain: {error}")
            return
        must(not expected.refused, f"{expected.text!r}, but the plain decoder reads it")
        must(np.array_equal(got.y_hat, found.value), "latents differ from the plain decoder's")


def latents(data, codec):
    return outcome.stream(data, lambda: codec.decode_latents([data])[0])


def picture_of(data, codec, found, opened):
    """The picture's outcome: sections are opened before the payload is."""
    picture = outcome.stream(data, lambda: codec.decode_pictures([data])[0])
    same(opened if opened.refused else found, picture, "latents and pictures")
    if not picture.refused:
        h = opened.value.header
        must(picture.value.rgb.shape == (h.height, h.width, 3), "a picture of another size than the header's")
        must(picture.value.gray == h.gray, "another gray than the header's")
    return picture


def judge(data, readers, rng, whole=False):
    """The outcome of a stream, by the codec's words. Raises Finding, or what a reader must not raise."""
    of_container(data, readers.version)
    opened = outcome.stream(data, lambda: sections.opened(readers.codec.decoder.parse(data)))
    found = readers.latents(data, rng)
    parsed = outcome.stream(data, readers.codec.decoder.parse, data)
    if parsed.refused:
        same(parsed, opened, "parsing and opening")
        same(parsed, found, "parsing and latents")
    else:
        damaged = damaged_sections(parsed.value)
        must(opened.field in damaged if damaged else not opened.refused, f"damaged: {damaged}, {told(opened)}")
    must(not whole or not (opened.refused or found.refused), f"a whole stream: {told(opened)}, {told(found)}")
    if rng.random() < (1 if not found.refused else 0.3):
        readers.pixels(data, found, opened, rng)
    if rng.random() < 0.2:
        with_pillow(data)
    if rng.random() < readers.share_of_plain and fits_plain(data):
        readers.plainly(data, opened, found)
    return opened if opened.refused else found


def as_plain(data, readers, opened, found):
    """What is to be expected of a plain decoder, which leaves EXIF and XMP alone but not alpha."""
    parsed = outcome.stream(data, readers.codec.decoder.parse, data)
    if parsed.refused or "alpha" in damaged_sections(parsed.value):
        return opened
    return found


def damaged_sections(s):
    """Names of the sections whose bodies break docs/format.md, section 7; without ckbd.codec.sections."""
    area, found = s.header.width * s.header.height, []
    for kind, name, least, most in ((2, "alpha", area, area), (128, "exif", 1, 1 << 24), (129, "xmp", 1, 1 << 24)):
        if kind in s.sections:
            expander = zlib.decompressobj()
            try:
                size = len(expander.decompress(s.sections[kind], most + 1))
            except zlib.error:
                size = -1
            if not (least <= size <= most and expander.eof and not expander.unused_data):
                found.append(name)
    return found


def fits_plain(data):
    size = container.peek(data)
    down, across = batches.patches(*size) if size else (0, 0)
    return down * across <= PLAIN_PATCHES and len(data) < 5000


def of_container(data, version):
    """Readers of the container alone, at the limit of pixels that is everybody's."""
    parsed = outcome.stream(data, container.parse, data, limits.MAX_PIXELS, version)
    whole = outcome.stream(data, container.parse, data, NO_LIMIT, version)
    described = outcome.stream(data, container.describe, data)
    outlined = outcome.stream(data, lambda: container.outline(io.BytesIO(data)))
    head = outcome.stream(data, container.head, data)
    size, maker = container.peek(data), container.maker(data)
    foreign = whole.field == "version"  # which describe, outline and head may know
    if not foreign:
        same(whole, described, "parse and describe")
    if parsed.refused and not whole.refused:
        must(parsed.field == "height" and "max_pixels" in parsed.text, f"refused for the limit alone: {parsed.text}")
    if not whole.refused:
        s = whole.value
        at = 0
        for name, start, count, _ in described.value:
            must(start == at, f"describe: {name} at {start}, what is before it ends at {at}")
            at += count
        must(at == len(data), f"describe: ends at {at} of {len(data)}")
        must(outlined.value is not None, f"outline refuses what parse reads: {outlined.text}")
        o = outlined.value
        must(
            (s.header, s.sections, s.section_offsets) == (o.header, o.sections, o.section_offsets), "outline differs"
        )
        must((size, maker) == ((s.header.height, s.header.width), s.header.model), "peek or maker differs")
        must(container.parse(container.pack(s), NO_LIMIT, version).header == s.header, "packed again it differs")
    elif not foreign and whole.field != "payload_crc":
        same(whole, outlined, "parse and outline")
    if not parsed.refused:
        must(head.value == parsed.value.header, "head differs")
    elif not foreign and parsed.field in HEADER:
        same(parsed, head, "parse and head")
    elif not foreign:
        must(not head.refused, f"head refuses what is not in it: {head.text}")


def with_pillow(data):
    """Pillow's image of it: opened, verified, not loaded."""
    image = outcome.stream(data, lambda: CkbdImageFile(io.BytesIO(data)), kind=UnreadableImage)
    outlined = outcome.stream(data, lambda: sections.metadata_of(container.outline(io.BytesIO(data))))
    same(outlined, image, "outline and Pillow")
    if not image.refused:
        verified = outcome.stream(data, image.value.verify, kind=UnreadableImage)
        same(outcome.stream(data, container.describe, data), verified, "describe and verify")
