"""Where a member's random numbers come from: which units a step takes, and its noise.

Keys of draws and noise are read from two streams of their own keys, so that whoever reads ahead in one changes nothing in the
other. A stream lives for one training call and is never stored, so no two streams share a key and nothing can be
drawn again.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt
from randomgen import AESCounter

from hansa.errors import PrivacyParameterError
from hansa.privacy.noise import discrete_gaussian
from hansa.privacy.streams import KEY_BYTES, SecretStream


class Randomness(Protocol):
    """The two kinds of draws that DP training makes."""

    def key(self) -> bytes:
        """32 fresh bytes: the key by which one step, or one epoch, draws its units."""

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        """`size` independent draws of the discrete Gaussian of parameter `sigma`, in grid units."""


class SecretRandomness:
    """Draws from keys that nobody knows, not even the member's own operator.

    Guarantees: AES-256 in counter mode under two keys of the operating system's generator, one for the keys
    of draws and one for noise; keys are held in memory only, for the life of the object. It is neither copied nor stored.
    """

    def __init__(self) -> None:
        self._keys = SecretStream()
        self._noise = SecretStream()

    def key(self) -> bytes:
        words = np.empty(KEY_BYTES // 8, dtype=np.uint64)
        self._keys.fill(words)
        return words.tobytes()

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        return discrete_gaussian(self._noise, sigma, size)


class PublicSampling:
    """Reproducible sampling for runs that claim no privacy; refuses to make noise.

    Two machines that are given the same seed and names draw the same units, whatever engine runs them.
    """

    def __init__(self, *names: str | int) -> None:
        digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
        self._words = AESCounter(key=int.from_bytes(digest[:16], "little"))

    def key(self) -> bytes:
        return np.asarray(self._words.random_raw(KEY_BYTES // 8), dtype="<u8").tobytes()

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        raise PrivacyParameterError(
            f"noise of {size} entries at sigma {sigma:g} was asked of a public stream"
        )
