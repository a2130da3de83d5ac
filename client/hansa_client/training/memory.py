"""The machine's memory: what may be used of it, and that freed memory is kept for the next step."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's <malloc.h>
_LARGEST = 2**31 - 1
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


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


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Memory that this process could still take without swapping, within its control group if that has a limit.

    Args:
        meminfo: as Linux writes it.
        cgroup: folder of the control group (version 2).

    Returns:
        `None` where the system does not say.
    """
    try:
        lines = meminfo.read_text().splitlines()
        found = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except OSError:
        return found
    return found if limit == "max" else max(0, min(found, int(limit) - used))


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
