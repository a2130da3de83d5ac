"""Coins that decide which canaries are in, and guesses about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hansa.errors import UsageError
from hansa.privacy.attack import Design
from hansa.privacy.randomness import PublicSampling, SecretRandomness
from hansa.privacy.streams import AesStream

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Coins:
    """Which canaries are in.

    Attributes:
        inside: bool [canaries], independent and fair.
        seed: from which anybody can throw them again; `None` where they were secret.
    """

    inside: Bits
    seed: int | None

    @classmethod
    def thrown(cls, canaries: int, seed: int | None = None) -> Coins:
        """Throw a coin for each canary.

        Args:
            canaries: how many.
            seed: for an attack that is to be repeated in public. Canaries are nobody's data, so a known seed protects
                nobody less; but whoever made the trainer must not have known it.
        """
        source = SecretRandomness() if seed is None else PublicSampling("hansa/attack/coins", seed)
        return cls(_fair(source.key(), canaries), seed)

    def signs(self, columns: int) -> npt.NDArray[np.float32]:
        """Public signs of the canaries' directions, float32 [canaries, columns], of −1 and 1."""
        source = PublicSampling("hansa/attack/signs", len(self.inside))
        bits = _fair(source.key(), len(self.inside) * columns).reshape(-1, columns)
        return np.where(bits, np.float32(1), np.float32(-1))


def _fair(key: bytes, count: int) -> Bits:
    """Independent fair coins from a key of their own."""
    words = np.empty(count, dtype=np.uint64)
    AesStream(key).fill(words)
    return words < np.uint64(2**63)


def right_guesses(scores: npt.NDArray[np.float64], coins: Coins, design: Design) -> int:
    """How many guesses are right: "in" for the highest scores, "out" for the lowest, none about those between.

    Args:
        scores: float64 [canaries]; larger means rather in. Equal ones are told apart by their place, which says nothing.
        coins: the truth.
        design: how many guesses; fixed before.

    Raises:
        UsageError: scores that are no numbers, or another number of canaries than the design has.
    """
    if not len(scores) == len(coins.inside) == design.canaries:
        raise UsageError("scores, coins and design are about different numbers of canaries")
    if not np.isfinite(scores).all():
        raise UsageError("the attack has no score for some canaries", remedy="The training has diverged.")
    order = np.argsort(scores, kind="stable")
    top = order[design.canaries - design.guessed_in :]
    bottom = order[: design.guessed_out]
    return int(np.count_nonzero(coins.inside[top]) + np.count_nonzero(~coins.inside[bottom]))
