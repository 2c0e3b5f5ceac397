"""ckbd.open and ckbd.decode: the pictures of streams, each by the model that it names."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from ckbd.codec.progress import Progress, Tell
from ckbd.readers import codecs

if TYPE_CHECKING:
    from ckbd.api import Codec
    from ckbd.codec.view import Region
    from ckbd.pillow import CkbdImageFile


def open(source: str | os.PathLike[str] | IO[bytes], *, model: str | Path | None = None) -> CkbdImageFile:
    """A Pillow image of a .ckbd file, a path or the file itself, from its beginning: size, mode and metadata at once.

    Pixels come with the first use of them, or load(); PyTorch is imported then. model: a name or a file, for streams
    of that model alone; None: the one that the stream names. Raises OSError, and FormatError for what is damaged.
    """
    from ckbd.pillow import CkbdImageFile

    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "read"):
            what = type(source).__name__
            raise TypeError(f"source: expected a path or a file, got {what} (ckbd.decode takes the bytes of streams)")
        try:
            source.seek(0)
        except (AttributeError, OSError):  # of a pipe all is read
            source = io.BytesIO(source.read())
    image = CkbdImageFile(source)
    image.model = model
    return image


def decode(
    streams: Sequence[bytes],
    *,
    model: str | Path | None = None,
    region: Region | None = None,
    scale: float = 1,
    progress: Tell | None = None,
    **options: Any,
) -> list[Image.Image]:
    """Streams to PIL images as ckbd.Codec.decode, each by the model that it names; models are loaded once a process.

    model: as in open. region, scale, progress: as in ckbd.Codec.decode. options: those of ckbd.load.
    """
    if isinstance(streams, (bytes, bytearray, memoryview)):  # a sequence, too, but of numbers
        raise TypeError("streams: expected a sequence of streams, got the bytes of one")
    readers = codecs(model, **options)
    by_model: dict[int, tuple[Codec, list[int]]] = {}
    for i, stream in enumerate(streams):
        if not isinstance(stream, (bytes, bytearray, memoryview)):
            raise TypeError(f"stream: expected bytes, got {type(stream).__name__} (ckbd.open takes paths and files)")
        codec = readers.of(stream)
        by_model.setdefault(id(codec), (codec, []))[1].append(i)
    found: dict[int, Image.Image] = {}
    told = Progress(progress, len(streams))
    for codec, numbers in by_model.values():
        some, tell = [streams[i] for i in numbers], told.part(len(numbers))
        pictures = codec.decode(some, region=region, scale=scale, progress=tell)
        found |= zip(numbers, pictures, strict=True)
    return [found[i] for i in range(len(found))]
