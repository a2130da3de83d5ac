"""What the system says of processes: their children, memory, threads and open files. Linux."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

_PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """All processes that a process has started, and those that these have."""
    found: list[int] = []
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    return found


def command(pid: int) -> str:
    """The command line of a process; empty where it is gone."""
    with suppress(OSError):
        return (
            (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    return ""


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended, and that nobody has asked about, does not."""
    with suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


def resident_bytes(pid: int) -> int:
    """The memory that a process has; 0 where it is gone."""
    with suppress(OSError, IndexError):
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


def thread_count(pid: int) -> int:
    """How many threads a process has."""
    with suppress(OSError):
        return len(list((_PROC / str(pid) / "task").iterdir()))
    return 0


def descriptor_count(pid: int) -> int:
    """How many files and sockets a process has open."""
    with suppress(OSError):
        return len(list((_PROC / str(pid) / "fd").iterdir()))
    return 0


class PeakMemory:
    """The most that some processes had together, and each of them, sampled beside whoever waits.

    Args:
        pids: called for each sample.
        every_s: between two samples.

    Attributes:
        bytes: the most that they had together.
        of_each: the most that each had, at whatever time, by its number.
    """

    def __init__(self, pids: Callable[[], Iterable[int]], every_s: float = 0.02) -> None:
        self._pids, self._every_s = pids, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.bytes = 0
        self.of_each: dict[int, int] = {}

    def now(self) -> int:
        """What they have now."""
        return sum(self.now_of_each().values())

    def now_of_each(self) -> dict[int, int]:
        """What each of them has now, by its number."""
        return {pid: resident_bytes(pid) for pid in self._pids()}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._every_s):
            now = self.now_of_each()
            self.bytes = max(self.bytes, sum(now.values()))
            for pid, each in now.items():
                self.of_each[pid] = max(self.of_each.get(pid, 0), each)
