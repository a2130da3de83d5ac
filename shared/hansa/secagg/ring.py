"""Real vectors as integers modulo 2^32, so that sums are exact and can be masked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.errors import TrainingError, WireError

RING_BITS = 32
_HEADROOM_BITS = RING_BITS - 2  # one bit is the sign, one is the guard that shows a sum out of range

RingVector: TypeAlias = npt.NDArray[np.uint32]
Vector: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RingEncoding:
    """Fixed-point encoding for sums over at most `members` vectors.

    Attributes:
        bound: entries are clipped to ±bound.
        members: how many vectors a sum may have.

    Guarantees: a sum of up to `members` encoded vectors never wraps and decodes to the exact sum of the rounded
        entries; each entry is off by at most half of `resolution`.
    """

    bound: float
    members: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and self.bound > 0 and 1 <= self.members <= 2**20):
            raise WireError("a ring encoding needs a finite bound above 0 and at least one member")

    @property
    def largest(self) -> int:
        """The integer that ±bound is encoded as; `members` of them fill half the ring's positive side."""
        return (1 << _HEADROOM_BITS) // self.members

    @property
    def resolution(self) -> float:
        """What one ring unit stands for."""
        return self.bound / self.largest

    def encode(self, values: Vector) -> RingVector:
        """Clip, scale and round.

        Args:
            values: float64 [d].

        Returns:
            uint32 [d], negative numbers in two's complement.

        Raises:
            TrainingError: NaN or infinity among the values.
        """
        if not np.isfinite(values).all():
            raise TrainingError("a vector with NaN or infinity cannot be encoded")
        scaled = np.clip(values, -self.bound, self.bound)
        scaled *= self.largest / self.bound
        np.rint(scaled, out=scaled)
        return scaled.astype(np.int32).view(np.uint32)

    def decode_sum(self, total: RingVector, count: int) -> Vector:
        """The sum of `count` encoded vectors.

        Raises:
            WireError: an entry is larger than `count` honest vectors could make it, so somebody's was not.
        """
        if not 1 <= count <= self.members:
            raise WireError(f"a sum over {count} vectors was not foreseen; at most {self.members}")
        signed = total.view(np.int32)
        largest = count * self.largest
        if len(signed) and (int(signed.max()) > largest or int(signed.min()) < -largest):
            raise WireError("a sum is out of range: a vector in it was not encoded as agreed")
        decoded: Vector = np.multiply(signed, self.resolution, dtype=np.float64)
        return decoded


def ring_sum(vectors: Iterable[RingVector], length: int) -> RingVector:
    """The sum modulo 2^32, in one accumulator."""
    total = np.zeros(length, dtype=np.uint32)
    for vector in vectors:
        np.add(total, vector, out=total)
    return total
