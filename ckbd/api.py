"""ckbd.Codec: an encoder and a decoder of one model, and what both of them take and give.

The algorithm is in ckbd.codec.encoder and ckbd.codec.decoder, in parts; ckbd.papers has others of both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ckbd.codec import image, limits, machine, zone
from ckbd.codec.decoder import Decoder
from ckbd.codec.encoder import Encoder
from ckbd.codec.image import Picture
from ckbd.codec.inputs import AnyImage, Quality
from ckbd.codec.machine import Team
from ckbd.codec.networks import floats, painting
from ckbd.codec.progress import Tell
from ckbd.codec.tables import coder_tables
from ckbd.codec.view import WHOLE, Region, View, view
from ckbd.model import file
from ckbd.model.file import Networks
from ckbd.pipeline.decode import COUNT, Decoding
from ckbd.pipeline.encode import Encoding

Stream = bytes | bytearray | memoryview | np.ndarray | Tensor  # uint8 of one dimension


class Encodes(Protocol):
    """What a codec needs of its encoder; ckbd.codec.encoder says what each does."""

    @property
    def model(self) -> Networks: ...
    def encode(
        self, images: Sequence[AnyImage], quality: Quality, effort: int | None, progress: Tell | None = None
    ) -> list[bytes]: ...
    def encode_at(self, picture: AnyImage, qualities: Sequence[float], effort: int | None) -> list[bytes]: ...
    def estimate(self, images: Sequence[AnyImage], quality: Quality, effort: int | None) -> list[float]: ...


class Decodes(Protocol):
    """What a codec needs of its decoder."""

    def decode(self, streams: Sequence[bytes], view: View = WHOLE, progress: Tell | None = None) -> list[Picture]: ...
    def decode_latents(self, streams: Sequence[bytes]) -> list[np.ndarray]: ...


E = TypeVar("E", bound=Encodes)
D = TypeVar("D", bound=Decodes)


class Codec(Generic[E, D]):
    """A loaded model, safe to share between threads; make it with ckbd.load().

    encoder, decoder: the two ways, each in steps that can be called on their own. team, device: its threads, and
    where its networks run.
    """

    def __init__(self, encoder: E, decoder: D, team: Team, device: torch.device):
        self.encoder, self.decoder, self.team, self.device = encoder, decoder, team, device
        self.origin: tuple[Callable[..., Any], dict[str, Any]] | None = None  # how to load it again
        self._decoding, self._encoding = Decoding(decoder, team, device), Encoding(encoder, team, device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled are the arguments of ckbd.load, so that the other process loads the same model file."""
        if self.origin is None:
            raise TypeError("only a codec of ckbd.load can be pickled: load one in each process")
        function, arguments = self.origin
        return partial(function, **arguments), ()

    def __repr__(self) -> str:
        return f"<ckbd.Codec of model {self.model_hash} on {self.device}, threads {self.team.threads}>"

    @property
    def model(self) -> Networks:
        """The model's networks, tables and identity, as they run."""
        return self.encoder.model

    @property
    def model_hash(self) -> str:
        """The model's identity, 12 hex digits; a stream decodes only with the model whose identity it carries."""
        return self.model.identity.hex()

    def encode(
        self,
        images: Sequence[AnyImage],
        quality: Quality = 50.0,
        effort: int | None = None,
        *,
        progress: Tell | None = None,
    ) -> list[bytes]:
        """Compress images: PIL images, arrays (H, W) or (H, W, C), Pictures, or tensors; one stream each.

        C is 1 for gray, 3 for RGB, and one more with alpha, which is last. Arrays are uint8, or uint16 or bool, which
        become 8 bits; tensors also floating point in [0, 1], on any device, and (C, H, W) too.
        quality: 1 (smallest) to 100, in steps of 1/2, one for all or one for each image. effort: 0 rounds, 1 (or
        None) weighs bits against error (docs/encoding.md); no decoder sees a difference. progress: called with the
        share that is done, from 0 to 1. Streams carry gray-ness, alpha (lossless), ICC profile, EXIF and XMP. Raises
        ValueError or TypeError for what cannot be coded.
        """
        return self.encoder.encode(images, quality, effort, progress)

    def encode_at(self, picture: AnyImage, qualities: Sequence[float], effort: int | None = None) -> list[bytes]:
        """One picture at several qualities: the streams that encode gives of it at each, but g_a runs once."""
        return self.encoder.encode_at(picture, qualities, effort)

    def estimate(self, images: Sequence[AnyImage], quality: Quality = 50.0, effort: int | None = None) -> list[float]:
        """The ideal code length of each image's symbols in bits, by the model's integer tables.

        Nothing for header, checksums or the coder's state: what these cost is the difference to real streams.
        """
        return self.encoder.estimate(images, quality, effort)

    def decode(
        self,
        streams: Sequence[bytes],
        *,
        region: Region | None = None,
        scale: float = 1,
        progress: Tell | None = None,
    ) -> list[Image.Image]:
        """Streams to PIL images of mode L, LA, RGB or RGBA, with ICC profile, EXIF and XMP in .info as they came.

        region: (left, top, right, bottom) in pixels, of each picture; all symbols are read, g_s runs where it must,
        and pixels are those of the whole picture up to rounding. scale: 1, 1/2, 1/4 or 1/8, for a picture of so much
        of its sides, rounded up, at a fraction of g_s's time (docs/pictures.md); with a region, all that shows some
        of it. progress: called with the share that is done, from 0 to 1. Raises FormatError, naming the field and its
        offset, for a stream that is damaged, hostile, too large, or made by another model, ValueError for a region
        that is not within a picture, or another scale. One bad stream fails the call: decode singly to keep the
        others.
        """
        return [image.to_pil(p) for p in self.decode_pictures(streams, region=region, scale=scale, progress=progress)]

    def decode_pictures(
        self,
        streams: Sequence[bytes],
        *,
        region: Region | None = None,
        scale: float = 1,
        progress: Tell | None = None,
    ) -> list[Picture]:
        """As decode, to Pictures."""
        return self.decoder.decode(streams, view(region, scale), progress)

    def decode_tensors(
        self,
        streams: Sequence[Stream],
        *,
        layout: str = "CHW",
        dtype: torch.dtype = torch.uint8,
        out: Iterable[Tensor] | None = None,
        half: bool | None = None,
    ) -> list[Tensor]:
        """The pixels of each stream as a tensor of its own on the codec's device, always RGB (alpha is left out).

        Arguments as decode_iter has them. Raises as decode does.
        """
        return self._decoding.tensors(streams, layout=layout, dtype=dtype, out=out, half=half)

    def decode_iter(
        self,
        streams: Iterable[Stream | str | os.PathLike[str] | tuple[Any, Any]],
        *,
        layout: str = "CHW",
        dtype: torch.dtype = torch.uint8,
        out: Iterable[Tensor] | None = None,
        on_error: str = "raise",
        batch_pixels: int | None = None,
        batch_count: int = COUNT,
        half: bool | None = None,
    ) -> Iterator[tuple[Any, Tensor | ValueError | OSError]]:
        """(name, tensor) of each stream, in order, while the next ones are decoded: for any number of any sizes.

        streams: bytes, uint8 tensors of one dimension, paths, or pairs (name, one of these), or a mapping; the name
        of a path is the path, of anything else its number. layout: "CHW" or "HWC". dtype: uint8, or float16 or
        float32 in [0, 1], which are the uint8 pixels over 255. out: tensors to decode into, one for each stream, of
        just its shape. on_error: "raise", or "yield" the FormatError, or what reading a path raised, in the tensor's
        place. batch_pixels, batch_count: what is taken from streams together at the most; memory is bounded by a few
        times that, and by one picture (docs/batches.md). half: g_s in float16 (None: on a GPU, and in kernels).
        Latents are those of decode_latents, to the bit; pixels are those of decode on a CPU, unless half is set, and
        in kernels (backend "triton"), unless it is False.
        """
        return self._decoding.run(
            streams,
            layout=layout,
            dtype=dtype,
            out=out,
            on_error=on_error,
            batch_pixels=batch_pixels,
            batch_count=batch_count,
            half=half,
        )

    def encode_iter(
        self,
        images: Iterable[AnyImage | str | os.PathLike[str] | tuple[Any, Any]],
        quality: float | Iterable[float] = 50.0,
        effort: int | None = None,
        *,
        on_error: str = "raise",
    ) -> Iterator[tuple[Any, bytes | ValueError | OSError]]:
        """(name, stream) of each image, in order, while the next ones are encoded.

        images: what encode takes, paths of image files, or pairs (name, one of these), named as in decode_iter.
        quality: one number, or one for each image. on_error: "raise", or "yield" the error in the stream's place.
        """
        return self._encoding.run(images, quality, effort, on_error=on_error)

    def warm_up(self) -> Iterator[str]:
        """Does ahead of time what a GPU's first decode would wait for, and gives a line for each size that is done.

        That of uint8 pixels, with g_s as it runs unless `half` is given. Kernels are compiled, and measured where
        nobody has measured them on this GPU; later processes find the results (ckbd.kernels.tune). On a CPU there is
        nothing to do.
        """
        return self._decoding.warm_up()

    def decode_latents(self, streams: Sequence[bytes]) -> list[np.ndarray]:
        """y_hat of each stream in 1/16 units, int16 (M, 4 ceil(height/64), 4 ceil(width/64)); raises as decode."""
        return self.decoder.decode_latents(streams)


def load(
    model: str | Path = "default",
    *,
    device: str | torch.device = "cpu",
    team: Team,
    max_pixels: int = limits.MAX_PIXELS,
    carrier: torch.dtype | None = None,
    backend: str = "auto",
    precision: str = "auto",
) -> Codec[Encoder, Decoder]:
    """ckbd.load of a checkerboard model's file, for a team of threads: other arguments and errors as there."""
    place = machine.device_of(device)
    loaded = file.load(model, place)
    exact = zone.make(loaded.layers, place, backend, carrier, team.on(place))
    tables = coder_tables(loaded.tables)
    fused = painting.wanted(backend, place)
    products = floats.dtype_of(precision, place)
    options: dict[str, Any] = {"device": place, "team": team, "max_pixels": max_pixels, "products": products}
    reader = painting.Reader(loaded, place, backend) if fused else None
    painter = painting.Painter(loaded, place, backend) if fused else None
    if place.type == "cuda":
        torch.cuda.synchronize(place)  # whatever stream it is used on, the model is there
    return Codec(
        Encoder(loaded, exact, tables, reader=reader, **options),
        Decoder(loaded, exact, tables, painter=painter, **options),
        team,
        place,
    )
