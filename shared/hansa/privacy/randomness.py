"""Where a member's secret random numbers come from.

One stream is one AES-128 key from the operating system in counter mode, read through numpy's own samplers
(`randomgen.AESCounter`; a test holds its output against AES from `cryptography`). A stream lives for one
training call and is never stored, so no two streams share a key and nothing can be drawn again.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Protocol

import numpy as np
import numpy.typing as npt
from randomgen import AESCounter

from hansa.errors import PrivacyParameterError
from hansa.privacy.noise import discrete_gaussian

KEY_BYTES = 32


class Randomness(Protocol):
    """The two kinds of draws that DP training makes."""

    def key(self) -> bytes:
        """32 fresh bytes: the key by which one step, or one epoch, draws its units."""

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        """`size` independent draws of the discrete Gaussian of parameter `sigma`, in grid units."""


class SecretRandomness:
    """Draws from a key that nobody knows, not even the member's own operator.

    Guarantees: AES-128 in counter mode under a key of the operating system's generator; the key is held in
    memory only, for the life of the object.
    """

    def __init__(self) -> None:
        self._generator = np.random.Generator(AESCounter(key=secrets.randbits(128)))

    def key(self) -> bytes:
        return secrets.token_bytes(KEY_BYTES)

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        return discrete_gaussian(self._generator, sigma, size)


class PublicSampling:
    """Reproducible sampling for runs that claim no privacy; refuses to make noise.

    Two machines that are given the same seed and names draw the same units, whatever engine runs them.
    """

    def __init__(self, *names: str | int) -> None:
        digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
        self._generator = np.random.Generator(AESCounter(key=int.from_bytes(digest[:16], "little")))

    def key(self) -> bytes:
        return self._generator.bytes(KEY_BYTES)

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        raise PrivacyParameterError(
            f"noise of {size} entries at sigma {sigma:g} was asked of a public stream"
        )
