"""Where a member's random numbers come from: which units a step takes, and its noise.

Sampling and noise read two streams of their own keys, so that whoever reads ahead in one changes nothing in the
other. A stream lives for one training call and is never stored, so no two streams share a key and nothing can be
drawn again.
"""

from __future__ import annotations

import hashlib
import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
from randomgen import AESCounter

from hansa.errors import PrivacyParameterError
from hansa.privacy.noise import discrete_gaussian
from hansa.privacy.streams import SecretStream, Words


class Randomness(Protocol):
    """The two kinds of draws that DP training makes."""

    def select(self, units: int, rate: float) -> npt.NDArray[np.bool_]:
        """Poisson sampling: for each of `units` units independently, true with probability `rate`."""

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        """`size` independent draws of the discrete Gaussian of parameter `sigma`, in grid units."""


def _poisson_mask(words: Words, rate: float) -> npt.NDArray[np.bool_]:
    """True where a word of 64 bits is below rate·2^64, rounded down: exactly `rate` from 2^-12 on, else at most."""
    if not 0 <= rate <= 1:
        raise PrivacyParameterError(f"a sampling rate of {rate:g} is outside [0, 1]")
    below = math.floor(math.ldexp(rate, 64))
    return words <= np.uint64(below - 1) if below else np.zeros(len(words), dtype=np.bool_)


class SecretRandomness:
    """Draws from keys that nobody knows, not even the member's own operator.

    Guarantees: AES-256 in counter mode under two keys of the operating system's generator, one for sampling and one for
    noise; keys are held in memory only, for the life of the object. It is neither copied nor stored.
    """

    def __init__(self) -> None:
        self._sampling = SecretStream()
        self._noise = SecretStream()

    def select(self, units: int, rate: float) -> npt.NDArray[np.bool_]:
        words = np.empty(units, dtype=np.uint64)
        self._sampling.fill(words)
        return _poisson_mask(words, rate)

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        return discrete_gaussian(self._noise, sigma, size)


class PublicSampling:
    """Reproducible sampling for runs that claim no privacy; refuses to make noise.

    Two machines that are given the same seed and names draw the same units, whatever engine runs them.
    """

    def __init__(self, *names: str | int) -> None:
        digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
        self._words = AESCounter(key=int.from_bytes(digest[:16], "little"))

    def select(self, units: int, rate: float) -> npt.NDArray[np.bool_]:
        return _poisson_mask(np.asarray(self._words.random_raw(units), dtype=np.uint64), rate)

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        raise PrivacyParameterError(
            f"noise of {size} entries at sigma {sigma:g} was asked of a public stream"
        )
