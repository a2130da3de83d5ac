"""What takes the place of the mechanism in a test: a public stream that writes down what is asked of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt


class Recorder:
    """Public keys in a fixed order, no noise to speak of, and a list of what was asked.

    Two of the same seed give the same keys, so that two neighbouring datasets draw the same units.

    Attributes:
        asked: ``("key",)`` and ``("noise", sigma, size)`` in order. What stands for noise is a unit of the grid,
            enough to move every weight.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.asked: list[tuple[str | float, ...]] = []

    def key(self) -> bytes:
        self.asked.append(("key",))
        return hashlib.sha256(f"{self.seed}/{len(self.asked)}".encode()).digest()

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        self.asked.append(("noise", sigma, size))
        return np.ones(size, dtype=np.int64)


class Chosen:
    """Batches that a test has chosen; every unit in each of them by default."""

    def __init__(self, units: int, batches: Sequence[Sequence[int]] | None = None) -> None:
        self._units, self._batches = units, batches
        self.made = 0

    def batches(self, _randomness: object, steps: int) -> Iterator[npt.NDArray[np.int64]]:
        for step in range(steps):
            self.made += 1
            chosen = range(self._units) if self._batches is None else self._batches[step]
            yield np.array(list(chosen), dtype=np.int64)
