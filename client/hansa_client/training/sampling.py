"""Which units a step uses: each unit's draw is a function of a fresh secret key and of its own id alone.

A unit's id is hashed once to a block of 16 bytes. A draw encrypts every unit's block with AES-256 under a key that is
drawn anew for each step (for each epoch of fixed batches): the first half of the result decides whether the unit is
drawn, the second half its place where a sample is cut. Adding, removing or moving a unit changes no other's draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.errors import TrainingError
from hansa.privacy.randomness import Randomness
from hansa.privacy.sampling import FixedBatches, Sampling, TruncatedSampling

Units: TypeAlias = npt.NDArray[np.int64]
_Words: TypeAlias = npt.NDArray[np.uint64]

_BLOCK = 16  # bytes of an AES block


class Draws(Protocol):
    """Makes batches."""

    def batches(self, randomness: Randomness, steps: int) -> Iterator[Units]:
        """The places of the units in each of `steps` batches, ascending; a batch may be empty."""


class KeyedDraws:
    """Draws by keyed hashes of unit ids, as an agreement's `Sampling` says.

    Args:
        unit_ids: one for each unit of the dataset, all different.
        sampling: how a step draws.

    Guarantees: exactly the given number of batches, whatever the data. Under Poisson sampling each unit is drawn with
        probability at most q and at least q − 2⁻⁶⁴, independently; of a sample above the largest batch every part of
        that size is equally likely; of an epoch's fixed batches each unit is in exactly one. What is drawn of the
        other units is the same with a unit or without it, but where it takes a place in a batch that is cut.
    Assumes: AES-256 is a pseudorandom function, and no two ids share 128 bits of BLAKE2b.

    Raises:
        TrainingError: two units have one id, so that they would always be drawn together, or there are more units
            than the event of a cut sample holds for.
    """

    def __init__(self, unit_ids: Sequence[str], sampling: Sampling) -> None:
        digests = [hashlib.blake2b(unit.encode(), digest_size=_BLOCK).digest() for unit in unit_ids]
        if len(set(digests)) != len(digests):
            raise TrainingError(
                "two privacy units have the same id",
                remedy="Give every unit an id of its own; records of one patient belong to one unit.",
            )
        if isinstance(sampling, TruncatedSampling) and len(unit_ids) > sampling.cut.most_units:
            raise TrainingError(
                "there are more units here than the agreement's truncated sampling is charged for",
                remedy="Declare a larger public number of units, or agree on sampling = 'poisson'.",
            )
        self._blocks = b"".join(digests)
        self._sampling = sampling

    def batches(self, randomness: Randomness, steps: int) -> Iterator[Units]:
        if isinstance(self._sampling, FixedBatches):
            yield from self._epochs(self._sampling.batches, randomness, steps)
            return
        largest = self._sampling.cut.largest_batch if isinstance(self._sampling, TruncatedSampling) else None
        for _ in range(steps):
            yield self._sample(self._words(randomness.key()), self._sampling.rate, largest)

    @staticmethod
    def _sample(words: _Words, rate: float, largest: int | None) -> Units:
        if rate < 1:
            drawn = np.flatnonzero(words[:, 0] < np.uint64(int(rate * 2.0**64)))
        else:
            drawn = np.arange(len(words))
        if largest is not None and len(drawn) > largest:
            places = np.argpartition(words[drawn, 1], largest)[:largest]
            drawn = np.sort(drawn[places])
        return drawn.astype(np.int64)

    def _epochs(self, batches: int, randomness: Randomness, steps: int) -> Iterator[Units]:
        number = np.zeros(0, dtype=np.uint64)
        for step in range(steps):
            if step % batches == 0:
                number = self._words(randomness.key())[:, 0] % np.uint64(batches)
            yield np.flatnonzero(number == step % batches).astype(np.int64)

    def _words(self, key: bytes) -> _Words:
        """Two pseudorandom 64-bit words for each unit, uint64 [n, 2]."""
        encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305  # a PRF of different blocks
        return np.frombuffer(encryptor.update(self._blocks), dtype="<u8").reshape(-1, 2).astype(np.uint64)
