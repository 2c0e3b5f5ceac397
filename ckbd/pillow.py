"""`import ckbd.pillow`, and Pillow knows .ckbd: Image.open, Image.save, and whatever sits on Pillow.

An image is opened from its header and its sections alone, without PyTorch. Pixels are those of ckbd.Codec.decode, on
the CPU; the codec of each model is loaded once a process, by the first image that needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile

from ckbd.codec import container, sections
from ckbd.codec.container import FormatError
from ckbd.codec.files import metadata
from ckbd.codec.view import SHRINKS
from ckbd.forks import Lock

FORMAT, SUFFIX, MIME = "CKBD", ".ckbd", "image/x-ckbd"
KINDS: dict[str, tuple[type, ...]] = {"exif": (bytes, Image.Exif), "xmp": (bytes, str), "icc_profile": (bytes,)}


class UnreadableImage(FormatError, OSError):
    """A FormatError that is an OSError too, which is what users of Pillow expect of files that cannot be read."""


class CkbdImageFile(ImageFile.ImageFile):
    """An opened stream. model: the one that is to decode it, a name or a file; None: the one that it names.

    info has "icc_profile", "exif" and "xmp" where the stream has them, "ckbd_quality" and "ckbd_model" of its header.
    """

    format, format_description = FORMAT, "ckbd, a learned codec"
    model: str | Path | None = None
    _shrink = 1

    def _open(self) -> None:
        assert self.fp is not None
        try:
            s = container.outline(self.fp)
            found = sections.metadata_of(s)
        except FormatError as error:
            raise _unreadable(error) from error
        h = s.header
        self._size = h.width, h.height
        self._mode = ("L" if h.gray else "RGB") + ("A" if container.ALPHA in s.sections else "")
        self.info |= {"ckbd_quality": h.quality2 / 2, "ckbd_model": h.model.hex()}
        if container.ICC in s.sections:
            self.info["icc_profile"] = s.sections[container.ICC]
        if "exif" in found:
            self.info["exif"] = metadata.MARKER + found["exif"]
        if "xmp" in found:
            self.info["xmp"] = found["xmp"]
        self.tile = [ImageFile._Tile("ckbd", (0, 0, *self.size), 0, self.mode)]  # one, which load() takes
        self._loading = Lock()

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Before load: a picture of 1/2, 1/4 or 1/8 of its sides, the smallest that is not smaller than size, decoded
        in less time, as a JPEG's draft is; Image.thumbnail() asks for it by itself. mode is left as it is. Returns
        the mode and the whole picture's box in the smaller one's pixels; None if nothing changes.
        """
        with self._loading.held():
            if not self.tile or self._shrink > 1 or size is None:
                return None
            width, height = self.size
            most = min(width // max(size[0], 1), height // max(size[1], 1))
            self._shrink = max(s for s in SHRINKS if s <= max(most, 1))
            if self._shrink == 1:
                return None
            self._size = -(-width // self._shrink), -(-height // self._shrink)
            self.tile = [ImageFile._Tile("ckbd", (0, 0, *self.size), 0, self.mode)]
            return self.mode, (0, 0, width / self._shrink, height / self._shrink)

    def load(self) -> Any:
        """The pixels, decoded by the first call. Raises FormatError, which is an OSError here.

        A stream that ends early has no picture, so ImageFile.LOAD_TRUNCATED_IMAGES changes nothing.
        """
        with self._loading.held():
            if self.tile:
                if self.fp is None:
                    raise OSError("closed or verified before it was loaded: open it again")
                decoded = self._decoded(self._stream())
                self.im, self.readonly, self.tile = decoded.im, decoded.readonly, []
                if self._exclusive_fp:
                    self.fp.close()
                self.fp = None
            return Image.Image.load(self)

    def load_seek(self, pos: int) -> None:
        """Never called: to ImageFile.Parser it says that there is a load() of its own."""

    def verify(self) -> None:
        """Checks all that can be known of the stream without decoding it, its checksums above all. To be called
        directly after open, as of any format, and the image is to be opened again after it.
        """
        with self._loading.held():
            if self.fp is None:
                raise OSError("verify() is for images that were just opened: open it again")
            try:
                container.describe(self._stream())
            except FormatError as error:
                raise _unreadable(error) from error
            super().verify()

    def _stream(self) -> bytes:
        assert self.fp is not None
        self.fp.seek(0)
        return self.fp.read()

    def _decoded(self, stream: bytes) -> Image.Image:
        from ckbd.readers import codecs

        try:
            decoded = codecs(self.model).of(stream).decode([stream], scale=1 / self._shrink)[0]
        except FormatError as error:
            raise _unreadable(error) from error
        if self.mode.endswith("A") and not decoded.mode.endswith("A"):  # means that are opaque, of what is not
            decoded.putalpha(255)
        return decoded

    def __getstate__(self) -> list[Any]:
        return [*super().__getstate__(), self.model, self._shrink]

    def __setstate__(self, state: list[Any]) -> None:
        self._loading, self.fp, self._shrink, self.model = Lock(), None, state.pop(), state.pop()
        super().__setstate__(state)


def _unreadable(error: FormatError) -> UnreadableImage:
    why = "; LOAD_TRUNCATED_IMAGES changes nothing: a part of a stream has no picture"
    return UnreadableImage(error.field, error.offset, error.reason + why * bool(ImageFile.LOAD_TRUNCATED_IMAGES))


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.MAGIC)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Image.save: quality (50), model ("default") and effort as ckbd.Codec.encode has them; exif, xmp, icc_profile in
    place of the image's own, which go along otherwise (an empty one is none).
    """
    from ckbd.readers import codecs

    given = image.encoderinfo
    if own := {name: given[name] for name in KINDS if name in given}:
        for name, value in own.items():
            if value is not None and not isinstance(value, KINDS[name]):
                raise TypeError(f"{name}: expected {KINDS[name][0].__name__} or None, got {type(value).__name__}")
        if isinstance(own.get("exif"), Image.Exif):
            own["exif"] = own["exif"].tobytes() if len(own["exif"]) else None
        image = image.copy()
        image.info = {name: value for name, value in (image.info | own).items() if name not in own or value}
    codec = codecs().at(given.get("model") or "default")
    quality = 50 if given.get("quality") is None else given["quality"]
    (stream,) = codec.encode([image], quality=quality, effort=given.get("effort"))
    file.write(stream)


Image.register_open(FORMAT, CkbdImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, MIME)
