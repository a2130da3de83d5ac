"""The integer grid on which clipped sums are rounded and noised, and the event that a step is charged as.

A member's clipped sum S (L2 sensitivity C when a unit is added or removed) is scaled by s and rounded. Rounding
moves each coordinate by at most one half, so the sensitivity of the integer vector is at most
Δ = s·C + √d. A discrete Gaussian of parameter σ ≥ 20 is, to within 3e-68 of each probability, a continuous Gaussian
of variance σ² − 4 whose value is then rounded at random without looking at the data: a post-processing. The step is
therefore charged as the Gaussian mechanism with noise multiplier √(σ² − 4) / Δ. docs/noise.md has the derivation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hansa.errors import PrivacyParameterError
from hansa.privacy.noise import SMALLEST_SIGMA

_ROUNDING_SHARE = 1e-3  # of the sensitivity that rounding may add
ROUNDING_RATIO = 3e-68  # of each probability, from σ = 20 on
_MOST_UNITS = 2.0**24  # integers up to here are exact in float32, in which gradients are rounded


def epsilon_of_rounding(coordinates: int) -> float:
    """What is missing in ε where discrete noise is charged as a continuous Gaussian of variance σ² − 4.

    With P the law of so many noisy integers and Q that of the rounded Gaussians, P / Q is between e^−nη and e^nη
    everywhere, η = `ROUNDING_RATIO`. If Q is (ε, δ)-DP, then P is (ε + 2nη, e^nη·δ)-DP. Over 2^63 coordinates that is
    6e-49, far below what the accountant of record rounds up at each step; no account mentions it.
    """
    return 2 * coordinates * ROUNDING_RATIO


@dataclass(frozen=True)
class Grid:
    """A grid for clipped sums of `dimension` coordinates.

    Attributes:
        clipping_norm: C, the L2 bound of one unit's contribution, in gradient units.
        dimension: d, number of coordinates.
        scale: s, grid units per gradient unit.
    """

    clipping_norm: float
    dimension: int
    scale: float

    @classmethod
    def of(cls, clipping_norm: float, dimension: int) -> Grid:
        """The grid that both sides derive from public numbers: s·C is the power of two from 1000·√d on.

        Raises:
            PrivacyParameterError: the norm or the dimension is not positive, or too large for an exact grid.
        """
        if not (math.isfinite(clipping_norm) and clipping_norm > 0 and dimension > 0):
            raise PrivacyParameterError(
                "a grid needs a finite clipping norm above 0 and at least one coordinate"
            )
        _, exponent = math.frexp(math.sqrt(dimension) / _ROUNDING_SHARE)  # exact, unlike a logarithm
        units = math.ldexp(1.0, exponent)
        return cls(clipping_norm, dimension, min(units, _MOST_UNITS) / clipping_norm)

    @property
    def sensitivity(self) -> float:
        """Δ = s·C + √d: L2 sensitivity of the rounded sum in grid units, add-or-remove-one."""
        return self.scale * self.clipping_norm + math.sqrt(self.dimension)

    def sigma(self, noise_multiplier: float) -> float:
        """The discrete Gaussian's parameter, in grid units, that is charged as `noise_multiplier`.

        Raises:
            PrivacyParameterError: it would be below 20 grid units, where the charge would not hold.
        """
        scaled = noise_multiplier * self.sensitivity
        sigma = math.sqrt(scaled * scaled + 4)  # + × √ alone: the same bits on every machine
        if not sigma >= SMALLEST_SIGMA:
            raise PrivacyParameterError(
                f"a noise multiplier of {noise_multiplier:g} is {sigma:.3g} grid units, below {SMALLEST_SIGMA:g}"
            )
        return sigma

    def noise_multiplier(self, sigma: float) -> float:
        """The multiplier that noise of parameter `sigma` is charged as: √(σ² − 4) / Δ."""
        if not sigma >= SMALLEST_SIGMA:
            raise PrivacyParameterError(f"noise of {sigma:.3g} grid units is below {SMALLEST_SIGMA:g}")
        return math.sqrt(sigma * sigma - 4) / self.sensitivity
