"""What Pillow and the libraries under it print by themselves, left unsaid: of a file that cannot be read there is one
line, and it is ours."""

from __future__ import annotations

import ctypes
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

MAPS = Path("/proc/self/maps")


@contextmanager
def pillow() -> Iterator[None]:
    """Without Pillow's warnings and log, libtiff's errors, and Pillow's own limit of pixels: --max-pixels is the one.

    For the whole process, which does nothing else. Whoever has asked Python for warnings gets them.
    """
    log = logging.getLogger("PIL")
    before, propagates, Image.MAX_IMAGE_PIXELS, log.propagate = Image.MAX_IMAGE_PIXELS, log.propagate, None, False
    nowhere = logging.NullHandler()
    log.addHandler(nowhere)
    handler = _libtiff_errors(None)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        _libtiff_errors(handler)
        log.removeHandler(nowhere)
        Image.MAX_IMAGE_PIXELS, log.propagate = before, propagates


def _libtiff_errors(handler: int | None) -> int | None:
    """Sets what libtiff calls of an error, by itself a function that prints, and returns the one before, if any.

    Of the library that Pillow has loaded; where the system does not tell which, its lines stay.
    """
    try:
        paths = set(re.findall(r"\s(/\S*libtiff[^/\s]*)$", MAPS.read_text(), re.MULTILINE))
    except OSError:
        return None
    for path in paths:
        try:
            set_handler = ctypes.CDLL(path).TIFFSetErrorHandler
        except (OSError, AttributeError):
            continue
        set_handler.restype, set_handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        return set_handler(handler)
    return None
