"""Which units a step uses: each unit's draw is a function of a fresh secret key and of its own id alone.

A unit's id is hashed once to a block of 16 bytes. A draw encrypts every unit's block with AES-256 under a key that is
drawn anew for each step (for each epoch of fixed batches): the first half of the result decides whether the unit is
drawn, the second half its place where a sample is cut. Adding, removing or moving a unit changes no other's draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.errors import TrainingError
from hansa.privacy.randomness import Randomness
from hansa.privacy.sampling import FixedBatches, GroupSampling, Sampling, TruncatedSampling

if TYPE_CHECKING:
    from hansa_client.data import Dataset

Units: TypeAlias = npt.NDArray[np.int64]
Rates: TypeAlias = npt.NDArray[np.float64]
_Words: TypeAlias = npt.NDArray[np.uint64]

_BLOCK = 16  # bytes of an AES block
_BELOW_ONE = 2.0**64 - 2.0**11  # the largest float64 that a 64-bit word holds


class Draws(Protocol):
    """Makes batches."""

    def batches(self, randomness: Randomness, steps: int) -> Iterator[Units]:
        """The places of the units in each of `steps` batches, ascending; a batch may be empty."""


class KeyedDraws:
    """Draws by keyed hashes of unit ids, as an agreement's `Sampling` says.

    Args:
        unit_ids: one for each unit of the dataset, all different.
        sampling: how a step draws.
        rates: float64 [units], of each unit, none above the sampling's; by default all are the sampling's.

    Guarantees: exactly the given number of batches, whatever the data. Under Poisson sampling each unit is drawn with
        probability at most q and at least q − 2⁻⁶⁴, independently, where q is its own rate; of a sample above the largest batch every part of
        that size is equally likely; of an epoch's fixed batches each unit is in exactly one. What is drawn of the
        other units is the same with a unit or without it, but where it takes a place in a batch that is cut.
    Assumes: AES-256 is a pseudorandom function, and no two ids share 128 bits of BLAKE2b.

    Raises:
        TrainingError: two units have one id, so that they would always be drawn together, there are more units
            than the event of a cut sample holds for, or a unit's rate is not one that is accounted.
    """

    def __init__(self, unit_ids: Sequence[str], sampling: Sampling, rates: Rates | None = None) -> None:
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
        self._rates: float | Rates = sampling.rate
        if isinstance(sampling, GroupSampling):
            if rates is None:
                raise TrainingError("groups are drawn at rates of their own, and units came without rates")
            self._rates = rates
        elif rates is not None:
            raise TrainingError("units came with rates of their own, and the agreement draws all at one")
        if np.shape(self._rates) not in {(), (len(unit_ids),)} or not np.all(
            (np.asarray(self._rates) > 0) & (np.asarray(self._rates) <= sampling.rate)
        ):
            raise TrainingError("a unit would be drawn at a rate above the accounted one, or at none")

    def batches(self, randomness: Randomness, steps: int) -> Iterator[Units]:
        if isinstance(self._sampling, FixedBatches):
            yield from self._epochs(self._sampling.batches, randomness, steps)
            return
        largest = self._sampling.cut.largest_batch if isinstance(self._sampling, TruncatedSampling) else None
        for _ in range(steps):
            yield self._sample(self._words(randomness.key()), self._rates, largest)

    @staticmethod
    def _sample(words: _Words, rate: float | Rates, largest: int | None) -> Units:
        below = np.minimum(np.floor(np.asarray(rate) * 2.0**64), _BELOW_ONE).astype(np.uint64)
        drawn = np.flatnonzero((words[:, 0] < below) | (np.asarray(rate) >= 1))
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


def keyed_draws(dataset: Dataset, sampling: Sampling) -> KeyedDraws:
    """The draws of a member's dataset under an agreement.

    Under `GroupSampling` a unit's rate is the largest of its records' groups, and the largest of all where a record has no
    value of the attribute: a function of the unit alone.

    Raises:
        TrainingError: the records lack the attribute; see also `KeyedDraws`.
    """
    return KeyedDraws(dataset.unit_ids, sampling, unit_rates(dataset, sampling))


def unit_rates(dataset: Dataset, sampling: Sampling) -> Rates | None:
    """The rate of each unit, float64 [units]; `None` where all are drawn at one.

    Raises:
        TrainingError: the records lack the attribute.
    """
    if not isinstance(sampling, GroupSampling):
        return None
    if sampling.attribute not in dataset.groups:
        raise TrainingError(
            f"the records lack the group attribute {sampling.attribute!r}, by which the agreement draws units",
            remedy="Name its column in node.toml under [columns]; records without a value are drawn at the largest rate.",
        )
    of_place = np.array([*sampling.rates.values(), sampling.rate])  # the last is found at -1: no value
    rates = np.zeros(dataset.number_of_units)
    np.maximum.at(rates, dataset.units, of_place[dataset.groups[sampling.attribute]])
    return rates
