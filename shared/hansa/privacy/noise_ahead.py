"""The next step's noise, made while this step computes."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from hansa.errors import PrivacyParameterError
from hansa.privacy.randomness import Randomness


class NoiseAhead:
    """A `Randomness` whose noise is drawn one step ahead, in one background thread.

    Sampling is handed through, in the caller's thread; it has a stream of its own, so that it draws the same units with
    and without this class. At most one vector is ready or being made, 8·size bytes. Use it as a context: leaving it
    waits for the thread, at most for one vector.

    Guarantees: a vector is given away at most once. It leaves this object before anyone waits for it, so that an
        exception or an interrupt in between loses it and repeats nothing; the thread alone reads the noise stream.
    Assumes: whoever made `randomness` draws no noise from it elsewhere.

    Args:
        randomness: what to draw from.
        sigma, size: of every vector.
        steps: how many vectors will be asked for; no more are made or given.

    Raises:
        PrivacyParameterError: in `noise`: what is asked for is not what was announced, or it is asked for after the
            last step, after `close`, or in a forked process. Whatever goes wrong in the thread is raised in `noise`
            too, and the next call draws anew.
    """

    def __init__(self, randomness: Randomness, sigma: float, size: int, steps: int) -> None:
        if steps < 0:
            raise PrivacyParameterError(f"noise for {steps} steps was announced")
        self._randomness = randomness
        self._sigma, self._size = sigma, size
        self._left = steps
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._pending: Future[npt.NDArray[np.int64]] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hansa-noise")
        self._prepare()

    def select(self, units: int, rate: float) -> npt.NDArray[np.bool_]:
        return self._randomness.select(units, rate)

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        """The next vector; waits for it, and has the one after it begun."""
        if os.getpid() != self._process:
            raise PrivacyParameterError("noise that was made ahead is not shared with a forked process")
        if (sigma, size) != (self._sigma, self._size):
            raise PrivacyParameterError(
                f"{size} draws of sigma {sigma:g} were asked for where {self._size} of sigma {self._sigma:g} were announced"
            )
        vector = self._take()
        try:
            drawn = vector.result()
            self._prepare()
        except BaseException:
            with self._lock:
                self._left += 1  # the step has no noise yet; what was drawn for it is lost
            raise
        return drawn

    def close(self) -> None:
        """Wait for the thread to end; what it made and nobody took is forgotten. A second call does nothing."""
        with self._lock:
            self._closed = True
            self._pending = None
        if os.getpid() == self._process:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _prepare(self) -> None:
        with self._lock:
            if self._left and not self._closed:
                self._begin()

    def _take(self) -> Future[npt.NDArray[np.int64]]:
        with self._lock:
            if self._closed:
                raise PrivacyParameterError("noise was asked for after its source was closed")
            if self._left < 1:
                raise PrivacyParameterError("noise was asked for after the last step that was announced")
            vector = self._begin()
            self._pending = None
            self._left -= 1
            return vector

    def _begin(self) -> Future[npt.NDArray[np.int64]]:
        """Have the next vector made, unless it is under way. Under the lock."""
        if self._pending is None:
            self._pending = self._thread.submit(self._randomness.noise, self._sigma, self._size)
        return self._pending

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
