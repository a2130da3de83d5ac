"""The masks of a vector, expanded while the vector is made."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from hansa.secagg.errors import MaskKeyUsedError
from hansa.secagg.masks import MaskKey
from hansa.secagg.ring import RingVector
from hansa.secagg.workers import MaskWorkers

WORTH_A_THREAD = 1 << 18  # words: fewer are expanded sooner than a thread is begun and ended


class MaskAhead:
    """The sum of a vector's masks, in memory, to be laid over that one vector.

    Use it as a context around what makes the vector: leaving it waits for the masks. Short ones are expanded at once, long
    ones in one background thread, so that nothing but one addition is left to do once the vector is there.

    Guarantees: the masks are laid over one vector; keys are used up when this is made. Where the vector is never made, the sum
        of masks is forgotten, and has met nothing.
    Assumes: the caller marks the masks as used, durably, before `over`.

    Args:
        workers: expand the masks, and lend the memory.
        length: entries.
        plus, minus: keys of masks that are added and subtracted.
    """

    def __init__(
        self, workers: MaskWorkers, length: int, plus: Sequence[MaskKey], minus: Sequence[MaskKey]
    ) -> None:
        self._workers, self._length = workers, length
        self._plus, self._minus = plus, minus
        self._made: Future[RingVector] = Future()
        self._used = False
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._length < WORTH_A_THREAD:
            self._made.set_result(self._expanded())
        else:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hansa-masks")
            self._made = self._thread.submit(self._expanded)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        if kind is not None:
            self._used = True  # nothing is laid over anything after a failure

    def over(self, vector: RingVector) -> RingVector:
        """The vector under its masks, modulo 2^32; dtype uint32 [d], in memory that the workers lent.

        Raises:
            MaskKeyUsedError: a vector was masked before, or making it failed.
            MaskWorkersError: a worker failed.
        """
        if self._used:
            raise MaskKeyUsedError("a mask is laid over a second vector")
        self._used = True
        mask = self._made.result()
        self._made = Future()
        return np.add(mask, vector, out=mask)

    def _expanded(self) -> RingVector:
        mask = self._workers.empty(self._length)
        mask.fill(0)
        self._workers.add_masks(mask, self._plus, self._minus)
        return mask
