"""One step under what has adapted: by how much each unit's gradient is bounded, and what is counted beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hansa.privacy.adaptation import Adaptation


class AdaptedStep:
    """Bounds the whole vector of a unit, gradient and counts together, to the norm of the grid.

    Args:
        adapts: as agreed.
        quantities: of this step, as they follow from the sums so far.
        norm: C, of the grid, in gradient units.

    Guarantees: a unit with a gradient of length n stands in the sum with one of length at most `gradient_part`·C·(1 − η), on the scale
        of the step's own norm, and counts of at most `magnitudes`·C·(1 − η): together at most C·(1 − η). What it counts for
        changes no faster with n than its clipped gradient does, so that a float's last digit moves neither further.

    Raises:
        PrivacyParameterError: the quantities are not of this agreement, or outside its bounds.
    """

    def __init__(self, adapts: Adaptation, quantities: Sequence[float], norm: float) -> None:
        self._adapts = adapts
        self._norm = norm
        self._clip = adapts.norm_of(quantities)

    def factors(self, norms: Tensor, margin: float) -> Tensor:
        """What each unit's gradient is to be multiplied by, float64 [U].

        Args:
            norms: float64 [U], lengths of the units' gradients.
            margin: η.
        """
        most = self._norm * self._adapts.gradient_part * (1 - margin)
        return most / norms.clamp(min=self._clip)

    def counted(self, norms: Tensor, sound: Tensor, margin: float) -> Tensor:
        """What the units count for together, float64 [k], in gradient units; a unit that is not sound counts for nothing.

        Args:
            norms: float64 [U].
            sound: bool [U].
            margin: η.
        """
        rule, (magnitude,) = self._adapts.norm, self._adapts.magnitudes
        below = (1.5 - norms / self._clip).clamp(0.0, 1.0) - rule.quantile
        each = torch.where(sound, below, 0.0) * (self._norm * magnitude * (1 - margin) / rule.most)
        return each.sum().reshape(1)
