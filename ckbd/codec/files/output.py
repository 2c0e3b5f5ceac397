"""Files that appear whole or not at all, whatever happens to the process meanwhile."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

UNABLE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS)  # file systems that have no nameless files


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to, which has path's name at the end, and is gone on an exception.

    Until then it has no name at all where the system can do so (Linux, most file systems): a process that is killed
    leaves nothing behind. Elsewhere as replacing(). Raises OSError as that does.
    """
    path = _fit(path)
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in UNABLE:
            raise OSError(error.errno, error.strerror, str(path)) from error
        with replacing(path) as temporary, open(temporary, "wb") as file:
            yield file
        return
    with os.fdopen(descriptor, "w+b") as file:
        yield file
        file.flush()
        try:
            _name(file.fileno(), path)
        except OSError:  # no /proc here, or what it takes is not allowed
            file.seek(0)
            with replacing(path) as temporary, open(temporary, "wb") as copy:
                shutil.copyfileobj(file, copy)


def _name(descriptor: int, path: Path) -> None:
    """Gives a file without a name this one, in the place of any other."""
    folder = os.open(path.parent, os.O_DIRECTORY)
    try:
        source = f"/proc/self/fd/{descriptor}"  # a link, which is to be followed
        places: dict[str, Any] = {
            "src_dir_fd": folder,
            "dst_dir_fd": folder,
            "follow_symlinks": True,
        }  # else it is the link itself
        try:
            os.link(source, path.name, **places)
        except FileExistsError:  # a name that is taken can only be renamed to
            temporary = _hidden(path)
            try:
                os.link(source, temporary.name, **places)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
    finally:
        os.close(folder)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside path to write to: renamed to path at the end, removed on an exception.

    Raises OSError if path exists and is not a regular file (a device or a pipe would be replaced by a file).
    """
    path = _fit(path)
    temporary = _hidden(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _fit(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: not a regular file")
    return path


def _hidden(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(6)}{path.suffix}")
