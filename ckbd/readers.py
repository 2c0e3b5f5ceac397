"""What reads a stream, by the model that it names: one for each model, loaded when its first stream comes.

Without torch, which comes with the codecs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ckbd.codec import container
from ckbd.codec.container import FormatError
from ckbd.forks import Lock
from ckbd.model import library

if TYPE_CHECKING:
    from ckbd.api import Codec

T = TypeVar("T")


class Readers(Generic[T]):
    """What load(model file) gave, kept for every stream of that model; safe to share between threads.

    model: the one model, whatever streams name; None: each stream's own.
    """

    def __init__(self, load: Callable[[str | Path], T], model: str | Path | None = None):
        self.load, self.model = load, model
        self._loaded: dict[str | Path, tuple[bytes | None, T]] = {}
        self._lock = Lock()

    def of(self, stream: bytes) -> T:
        """What reads a stream, of which its first bytes are enough. Raises FormatError for what is no stream or of
        a model that is not here, and what load raises.
        """
        if self.model is not None:
            return self._get(self.model, None)
        identity = container.head(stream, 1 << 64).model
        return self._get(file_of(identity), identity)

    def at(self, model: str | Path) -> T:
        """What reads the streams of a model, a name or a file, as it is now. Raises what load raises."""
        path = library.find(model)
        return self._get(path, library.identity_of(path))

    def ready(self) -> None:
        """Loads the one model, where there is one."""
        if self.model is not None:
            self._get(self.model, None)

    def _get(self, model: str | Path, identity: bytes | None) -> T:
        """identity: of a file, which is loaded again when it has become another."""
        with self._lock.held():  # others wait for the one that loads
            if model not in self._loaded or self._loaded[model][0] != identity:
                self._loaded[model] = identity, self.load(model)
            return self._loaded[model][1]


def file_of(identity: bytes) -> Path:
    """The model file that reads streams of an identity. Raises FormatError if there is none here."""
    path = library.holder(identity)
    if path is None:
        raise FormatError("model", 4, f"made by model {identity.hex()}, which is not here ({library.known()})")
    return path


def codecs(model: str | Path | None = None, **options: Any) -> Readers[Codec]:
    """This process's codecs with these options of ckbd.load."""
    return _codecs(model, tuple(sorted(options.items())))


@lru_cache(maxsize=8)
def _codecs(model: str | Path | None, options: tuple[tuple[str, Any], ...]) -> Readers[Codec]:
    from ckbd.loading import load

    return Readers(partial(load, **dict(options)), model)
