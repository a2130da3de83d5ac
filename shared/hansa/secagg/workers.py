"""Processes that expand masks over shared memory, for vectors so large that one core is too slow.

The vector lives in an anonymous file in memory (`memfd_create`): no name in the file system, no size limit of
/dev/shm, gone with the last process that maps it. Workers reach it through /proc, which Linux has; elsewhere
`MaskWorkers` expands in the process itself.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from types import TracebackType
from typing import Self

import numpy as np

from hansa.secagg.errors import MaskWorkersError
from hansa.secagg.masks import WORDS_PER_COUNTER, MaskKey, add_masks, expand_into, gain_of_gcm
from hansa.secagg.ring import RingVector

MIN_KEPT_WORDS = 32_768  # below, the allocator keeps memory by itself
MIN_SHARED_WORDS = (
    1_000_000  # below, handing work over costs more than it saves; later where one core is faster
)
SHARED_MEMORY = sys.platform == "linux"


class _Memory:
    """Memory for one vector after another, shared with other processes or not."""

    def __init__(self, size: int, *, shared: bool) -> None:
        self.size = size
        self.path = ""
        if shared:
            descriptor = os.memfd_create("hansa-secure-sum", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, size)
            weakref.finalize(self, os.close, descriptor)  # the mapping itself lives as long as its arrays
            self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
            self._mapping = mmap.mmap(descriptor, size)
        else:
            self._mapping = mmap.mmap(-1, size)
        self._lent: weakref.ReferenceType[RingVector] | None = None

    def lend(self, length: int) -> RingVector | None:
        """A vector over this memory, if it is large enough and nothing uses it."""
        if 4 * length > self.size or (self._lent is not None and self._lent() is not None):
            return None
        vector: RingVector = np.frombuffer(self._mapping, dtype="<u4", count=length)
        self._lent = weakref.ref(vector)
        return vector

    def is_of(self, vector: RingVector) -> bool:
        """Whether this vector is the one lent."""
        return self._lent is not None and self._lent() is vector


class MaskWorkers:
    """A pool of processes kept for the life of a node or a coordinator, and memory for its vectors.

    Args:
        processes: how many cores to use, this process's own included; 1 starts no other process.

    Keys reach the workers through a pipe between processes of the same user and are not written anywhere.
    """

    def __init__(self, processes: int = 1) -> None:
        if processes < 1:
            raise ValueError("at least one process expands masks")
        self.processes = processes if SHARED_MEMORY else 1
        self._pool: ProcessPoolExecutor | None = None
        self._memory: _Memory | None = None

    def empty(self, length: int) -> RingVector:
        """A vector of any content that the workers can reach, where there are workers; dtype uint32, shape (length,).

        Its memory is kept and used again once nothing refers to the vector: touching fresh memory costs as much
        as masking it. The workers reach the last vector made; an older one is masked by this process alone.
        """
        if length < MIN_KEPT_WORDS:
            return np.empty(length, dtype="<u4")
        vector = None if self._memory is None else self._memory.lend(length)
        if vector is None:
            shared = self.processes > 1 and length >= MIN_SHARED_WORDS * gain_of_gcm()
            self._memory = _Memory(4 * length, shared=shared)
            vector = self._memory.lend(length)
        if vector is None:
            raise MaskWorkersError("fresh memory is in use")
        return vector

    def give_back(self) -> None:
        """Keep no memory for the next vector; what is in use goes with its last user."""
        self._memory = None

    def add_masks(self, vector: RingVector, plus: Sequence[MaskKey], minus: Sequence[MaskKey] = ()) -> None:
        """As `hansa.secagg.masks.add_masks`; shared out when `vector` came from `MaskWorkers.empty`.

        Raises:
            MaskKeyUsedError: a key was used before.
            MaskWorkersError: a worker failed; the vector is spoilt and the keys are used up.
        """
        memory = self._memory
        if memory is None or not memory.path or not memory.is_of(vector):
            add_masks(vector, plus, minus)
            return
        added, subtracted = [key.take() for key in plus], [key.take() for key in minus]
        own, share = _shares(len(vector), self.processes)
        jobs: list[Future[None]] = []
        try:
            for start in range(own, len(vector), share):
                part = start, min(start + share, len(vector))
                jobs.append(self._started().submit(_expand_part, memory.path, *part, added, subtracted))
            expand_into(vector[:own], added, subtracted, first_word=0)
            for job in jobs:
                job.result()
        except (BrokenExecutor, OSError) as error:
            wait(jobs)
            self.close()  # the next mask starts new processes
            raise MaskWorkersError(f"a mask worker failed: {type(error).__name__}") from None

    def warm(self) -> None:
        """Start the processes now, so that the first mask waits neither for them nor for what they import."""
        if self.processes > 1:
            wait([self._started().submit(_expand_nothing) for _ in range(self.processes - 1)])

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.processes - 1, mp_context=get_context("spawn"))
        return self._pool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes; they start again when they are needed."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _shares(length: int, processes: int) -> tuple[int, int]:
    """Words for this process, which may be faster as it expands the start of the masks, and for each of the others."""
    gain, others = gain_of_gcm(), processes - 1
    own = min(length, _whole_blocks(length * gain / (gain + others)))
    return own, max(WORDS_PER_COUNTER, _whole_blocks((length - own) / max(others, 1)))


def _whole_blocks(words: float) -> int:
    return math.ceil(words / WORDS_PER_COUNTER) * WORDS_PER_COUNTER


def _expand_nothing() -> None:
    """Run where this module has been imported."""


def _expand_part(path: str, start: int, stop: int, plus: list[bytes], minus: list[bytes]) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        mapped = mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)
    expand_into(np.frombuffer(mapped, dtype="<u4")[start:stop], plus, minus, first_word=start)
