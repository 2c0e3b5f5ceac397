"""`import ckbd.pillow`, and Pillow knows .ckbd: Image.open, Image.save, and whatever sits on Pillow.

An image is opened from its header and its sections alone, without PyTorch. Pixels are those of ckbd.Codec.decode, on
the CPU; the codec of each model is loaded once a process, by the first image that needs it.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile

from ckbd.codec import container, sections
from ckbd.codec.container import FormatError
from ckbd.codec.files import metadata

FORMAT, SUFFIX, MIME = "CKBD", ".ckbd", "image/x-ckbd"


class DamagedImage(FormatError, OSError):
    """A FormatError that is an OSError too, which is what users of Pillow expect of files that cannot be read."""


class CkbdImageFile(ImageFile.ImageFile):
    """An opened stream. model: the one that is to decode it, a name or a file; None: the one that it names.

    info has "icc_profile", "exif" and "xmp" where the stream has them, and "quality" and "model" of its header.
    """

    format, format_description = FORMAT, "ckbd, a learned codec"
    model: str | Path | None = None

    def _open(self) -> None:
        assert self.fp is not None
        try:
            s = container.outline(self.fp)
            found = sections.metadata_of(s)
        except FormatError as error:
            raise _damaged(error) from error
        h = s.header
        self._size = h.width, h.height
        self._mode = ("L" if h.gray else "RGB") + ("A" if container.ALPHA in s.sections else "")
        self.info |= {"quality": h.quality2 / 2, "model": h.model.hex()}
        if container.ICC in s.sections:
            self.info["icc_profile"] = s.sections[container.ICC]
        if "exif" in found:
            self.info["exif"] = metadata.MARKER + found["exif"]
        if "xmp" in found:
            self.info["xmp"] = found["xmp"]
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        self._loading = threading.RLock()

    def load(self) -> Any:
        """The pixels, decoded by the first call. Raises FormatError, which is an OSError here.

        A stream that ends early has no picture, so ImageFile.LOAD_TRUNCATED_IMAGES changes nothing.
        """
        with self._loading:
            if self.tile and self.fp is None:
                raise OSError("closed or verified before it was loaded: open it again")
            if self.tile:
                self._decode(self._stream())
            return super().load()

    def load_seek(self, pos: int) -> None:
        """Pixels are where they begin; and without this Pillow would map the stream's own file in their place."""

    def verify(self) -> None:
        """Checks all that can be known of the stream without decoding it, its checksums above all."""
        try:
            container.describe(self._stream())
        except FormatError as error:
            raise _damaged(error) from error
        super().verify()

    def _stream(self) -> bytes:
        assert self.fp is not None
        self.fp.seek(0)
        return self.fp.read()

    def _decode(self, stream: bytes) -> None:
        from ckbd.readers import codecs

        try:
            (image,) = codecs(self.model).of(stream).decode([stream])
        except FormatError as error:
            raise _damaged(error) from error
        if self.fp is not None and self._exclusive_fp:
            self.fp.close()
        self.fp = io.BytesIO(image.tobytes())

    def __getstate__(self) -> list[Any]:
        return [*super().__getstate__(), self.model]

    def __setstate__(self, state: list[Any]) -> None:
        self._loading, self.model = threading.RLock(), state.pop()
        super().__setstate__(state)


def _damaged(error: FormatError) -> DamagedImage:
    return DamagedImage(error.field, error.offset, error.reason)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.MAGIC)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Image.save: quality (50), model ("default") and effort as ckbd.Codec.encode has them; exif, xmp, icc_profile in
    place of the image's own, which go along otherwise (an empty one is none).
    """
    from ckbd.readers import codecs

    given = image.encoderinfo
    if own := {name: given[name] for name in ("exif", "xmp", "icc_profile") if name in given}:
        if isinstance(own.get("exif"), Image.Exif):
            own["exif"] = own["exif"].tobytes()
        image = image.copy()
        image.info = {name: value for name, value in (image.info | own).items() if name not in own or value}
    codec = codecs().at(given.get("model", "default"))
    (stream,) = codec.encode([image], quality=given.get("quality", 50), effort=given.get("effort"))
    file.write(stream)


Image.register_open(FORMAT, CkbdImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, MIME)
