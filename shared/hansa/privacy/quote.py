"""What a run would mean for one limit of a budget, before it is reserved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hansa.privacy.composition import Rule
from hansa.privacy.loss import PrivacyLoss


@dataclass(frozen=True)
class Quote:
    """What a reservation would mean for one limit.

    Attributes:
        against: whom the limit holds against, in words.
        limit: (ε, δ).
        used: ε by the limit's rule before.
        together: ε by the rule with the reservation; infinite where the rule admits no further one.
        rule: by which runs add up to the limit.
    """

    against: str
    limit: PrivacyLoss
    used: float
    together: float
    rule: Rule

    @property
    def fits(self) -> bool:
        """Whether the limit would hold."""
        return self.together <= self.limit.epsilon

    @property
    def run_admitted(self) -> bool:
        """Whether the rule admits a further run at all, whatever it costs."""
        return math.isfinite(self.together)

    @property
    def remaining(self) -> PrivacyLoss:
        """What the limit has left before, for showing; `fits` decides."""
        return PrivacyLoss(max(self.limit.epsilon - self.used, 0.0), self.limit.delta)
