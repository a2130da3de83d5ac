"""The last part of a private step: the sum rounded, noise added, the weights changed and written into the model."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from hansa.errors import ModelError
from hansa.models import BuiltModel
from hansa_client.training.clipping import ClippedSum

Vector: TypeAlias = npt.NDArray[np.float64]
# Noise for the entries from a first one up to a last one that is not among them: int64, grid units.
Noise: TypeAlias = Callable[[int, int], npt.NDArray[np.int64]]

PIECE = 1 << 19  # weights that one thread takes at a time: 4 MB of noise, which stay in a shared cache
_BLOCK = 1 << 16  # of them at once: what is in the works stays in a core's own cache
_LARGEST = float(np.finfo(np.float32).max)


class Descent:
    """A member's float64 weights on their way through a round, and the model that holds them rounded.

    A step reads and writes every array once, block by block, in as many threads as there are. What comes out has the
    bits of the plain way: round the sum to int64, add noise, divide by scale times divisor, multiply by the learning
    rate, subtract, round to float32. Integers are added as float64, which is exact below 2^53 (`ClippedSum` sees to
    that for the sum; a draw is below 2^45).

    Args:
        built: the model; its weights are overwritten.
        start: float64 [d], the round's weights.
        unit: grid units in a mean gradient of 1: scale times divisor.
        learning_rate: of the steps.
        threads: how many may compute.

    Raises:
        ModelError: weights that are not finite float32 numbers; in `step` some may have been written before.

    Guarantees: `step` asks for noise for each entry exactly once, and changes no weight by anything but a noisy sum. If it
        raises, some entries have taken the step and others have not, no thread works on, and the round is over.
    """

    def __init__(
        self, built: BuiltModel, start: Vector, unit: float, learning_rate: float, threads: int
    ) -> None:
        self.weights = np.array(start, dtype=np.float64)
        self._built = built
        self._unit, self._rate = unit, learning_rate
        self._offsets = built.flat.offsets
        built.flat.load(built.module, self.weights)
        self._held = _memory_of(built)
        many = threads > 1 and len(self.weights) > PIECE
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="hansa-step") if many else None

    def step(self, clipped: ClippedSum, noise: Noise) -> None:
        """Take one step.

        Args:
            clipped: of the step.
            noise: asked for disjoint pieces that cover everything, from several threads at once.
        """
        size = len(self.weights)
        pieces = [(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]
        stop = threading.Event()

        def take(piece: tuple[int, int]) -> None:
            if stop.is_set():
                return
            try:
                self._take(clipped, noise, *piece)
            except BaseException:
                stop.set()
                raise

        if self._pool is None:
            for piece in pieces:
                take(piece)
        else:
            under_way = [self._pool.submit(take, piece) for piece in pieces]
            try:
                for one in under_way:
                    one.result()
            finally:
                stop.set()  # nothing is left to do, or nothing more is to be begun
        if self._held is None:
            self._built.flat.load(self._built.module, self.weights)

    def plain_step(self, total: Vector) -> None:
        """Take one step without noise, for runs that claim no privacy.

        Args:
            total: float64 [d], the sum of the records' gradients; overwritten.
        """
        total /= self._unit
        total *= self._rate
        self.weights -= total
        self._built.flat.load(self._built.module, self.weights)

    def _take(self, clipped: ClippedSum, noise: Noise, first: int, last: int) -> None:
        drawn = noise(first, last)
        space = np.empty(min(_BLOCK, last - first))
        for start in range(first, last, _BLOCK):
            stop = min(start + _BLOCK, last)
            change, weights = space[: stop - start], self.weights[start:stop]
            clipped.add_to(drawn[start - first : stop - first], start, change)
            change /= self._unit
            change *= self._rate
            weights -= change
            if not (weights.min() >= -_LARGEST and weights.max() <= _LARGEST):  # NaN is neither
                raise ModelError("weights are not finite float32 numbers after a step")
            if self._held is not None:
                self._write(self._held, start, stop)

    def _write(self, memory: list[npt.NDArray[Any]], start: int, stop: int) -> None:
        """Round [start, stop) into the model's own memory."""
        place = bisect.bisect_right(self._offsets, start) - 1
        while place < len(memory) and self._offsets[place] < stop:
            offset, held = self._offsets[place], memory[place]
            begin, end = max(start, offset), min(stop, offset + len(held))
            held[begin - offset : end - offset] = self.weights[begin:end]
            place += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _memory_of(built: BuiltModel) -> list[npt.NDArray[Any]] | None:
    """The trained weights as flat arrays that share their memory; `None` where one does not lie there in order."""
    parameters = built.flat.parameters(built.module)
    if any(p.device.type != "cpu" or not p.is_contiguous() or p.dtype != torch.float32 for p in parameters):
        return None
    return [p.detach().view(-1).numpy() for p in parameters]
