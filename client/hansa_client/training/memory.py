"""Freed memory is kept for the next step instead of being handed back to the system."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's <malloc.h>
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large blocks: a training step frees and asks for the same hundreds of megabytes again.

    Left to itself glibc unmaps what is larger than 32 MB and trims the rest, and every step pays for fresh pages,
    about a seventh of its time with five million weights. The process keeps its peak until it ends.

    Returns:
        Whether it was told; elsewhere than under glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))
