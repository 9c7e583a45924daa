"""Gives memory that was freed back to the system: glibc keeps it, in pieces that batches of other sizes do not fit."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back_freed_memory() -> None:
    """Gives it back, where the C library is glibc; takes about ten milliseconds."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Returns glibc's malloc_trim(3); None for other C libraries."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        return None
    return trim
