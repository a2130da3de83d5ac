"""(ε, δ) as a value: what a limit is, what is asked for, what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hansa.errors import PrivacyParameterError


@dataclass(frozen=True)
class PrivacyLoss:
    """An (ε, δ) statement under add-or-remove-one of a unit.

    Attributes:
        epsilon: at least 0; infinity states nothing.
        delta: in (0, 1).

    Raises:
        PrivacyParameterError: either is out of range, or not a number.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise PrivacyParameterError(f"ε = {self.epsilon:g} is not at least 0")
        if not 0 < self.delta < 1:
            raise PrivacyParameterError(f"δ = {self.delta:g} is outside (0, 1)")

    def __add__(self, other: PrivacyLoss) -> PrivacyLoss:
        """Both together, by basic composition.

        Raises:
            PrivacyParameterError: the δ add up to 1 or more.
        """
        return PrivacyLoss(self.epsilon + other.epsilon, math.fsum((self.delta, other.delta)))

    def as_dict(self) -> dict[str, float]:
        """As plain JSON values."""
        return {"epsilon": self.epsilon, "delta": self.delta}
