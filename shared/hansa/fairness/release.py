"""An evaluation as a release: noise for agreed (ε, δ), the vector that is summed, and what is read off the sum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hansa.errors import PrivacyParameterError
from hansa.fairness.counting import Integers, clamp
from hansa.fairness.layout import TableLayout
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import EVALUATION, Charge
from hansa.privacy.events import Spend, gaussian
from hansa.privacy.randomness import Randomness

_FINEST_SHARE = 64.0  # grid units of one share of noise, at least: √(64² − 4) is 64 to 0.05 %
_TOLERANCE = 1e-4
_LARGEST_MULTIPLIER = 1e6
_LARGEST_EPSILON = 50.0  # more is no promise


def evaluation_noise(epsilon: float, delta: float, evaluations: int) -> float:
    """The smallest noise multiplier, to 0.01 %, at which so many evaluations cost at most ε together.

    Args:
        epsilon: of all evaluations of a model together, which are fixed beforehand.
        delta: at which it holds.
        evaluations: how many there may be.

    Returns:
        Noise over L2 sensitivity, of each evaluation. The accountant of record is asked in the end.

    Raises:
        PrivacyParameterError: ε or the number of evaluations is out of range, or δ is outside what can be accounted.

    Source: the search starts from the exact curve of the Gaussian mechanism (Balle and Wang, arXiv 1805.06530,
        theorem 8); m releases with multiplier z are one with z/√m.
    """
    if not 0 < epsilon <= _LARGEST_EPSILON or type(evaluations) is not int or evaluations < 1:
        raise PrivacyParameterError(
            f"ε = {epsilon:g} for {evaluations} evaluations: above 0 and at most {_LARGEST_EPSILON:g}, for one or more",
            remedy="Set evaluation.epsilon and evaluation.evaluations.",
        )
    low, high = 0.0, 1.0
    while _delta(epsilon, high) > delta:
        low, high = high, high * 2
        if high > _LARGEST_MULTIPLIER:
            raise PrivacyParameterError(f"no noise keeps ε at {epsilon:g} with δ = {delta:g}")
    while high - low > _TOLERANCE * high / 2:
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(epsilon, middle) > delta else (low, middle)
    multiplier = high * math.sqrt(evaluations)
    while epsilon_spent([Spend(gaussian(multiplier), evaluations)], delta) > epsilon:
        multiplier *= 1 + _TOLERANCE
    return multiplier


def _delta(epsilon: float, z: float) -> float:
    """δ(ε) of one Gaussian release with multiplier z."""
    upper = 0.5 * math.erfc((epsilon * z - 0.5 / z) / math.sqrt(2))
    lower = 0.5 * math.erfc((epsilon * z + 0.5 / z) / math.sqrt(2))
    return upper - (math.exp(epsilon) * lower if lower > 0 else 0.0)


@dataclass(frozen=True)
class EvaluationPlan:
    """All public numbers of an evaluation: what a member adds, what it is charged, and how the sum is read.

    Attributes:
        layout: what is counted.
        noise_multiplier: of what protects a unit: the member's own noise, or the shares of `honest` members together.
        cell_cap: most rows of one member in one cell.
        evaluations: how many there may be of a model, repeated ones included.
        honest: members whose shares count under the distributed mechanism, max(t, min_members) − c. 1 under the
            local one, where each member's noise is full.
        colluding: c of the distributed mechanism; 0 under the local one.

    Raises:
        PrivacyParameterError: the numbers do not fit.

    Guarantees: one `release` is the Gaussian mechanism with `charge`'s event on `layout.l2_sensitivity`, and nothing else
        of the tables leaves. Counts are multiplied by a whole number, so nothing is rounded, and the discrete Gaussian
        of σ grid units is charged as a Gaussian of variance σ² − 4 (docs/noise.md).
    Assumes: the tables were made by `count` with this layout.
    """

    layout: TableLayout
    noise_multiplier: float
    cell_cap: int
    evaluations: int = 1
    honest: int = 1
    colluding: int = 0

    def __post_init__(self) -> None:
        gaussian(self.noise_multiplier)  # refuses what is no multiplier
        if self.noise_multiplier == 0:
            raise PrivacyParameterError("an evaluation without noise is no release")
        for name, least in (("cell_cap", 1), ("evaluations", 1), ("honest", 1), ("colluding", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise PrivacyParameterError(f"{name} = {value!r} is no whole number from {least} on")
        if self.honest > 1 and self.colluding < 1:
            raise PrivacyParameterError("shared noise counts against a coalition of 1 or more")

    @property
    def scale(self) -> int:
        """Grid units per row: a power of two with which one share of noise has at least 64 grid units."""
        units = _FINEST_SHARE / (self._share * self.layout.l2_sensitivity)
        return 1 << max(0, math.ceil(math.log2(units)))

    @property
    def sigma(self) -> float:
        """Of one member's noise, in grid units."""
        scaled = self._share * self.layout.l2_sensitivity * self.scale
        return math.sqrt(scaled * scaled + 4)

    @property
    def _share(self) -> float:
        return self.noise_multiplier / math.sqrt(self.honest)

    def charge(self) -> Charge:
        """What all evaluations together are reserved as.

        On evaluation units that a public rule per unit keeps apart from training units it is spent in parallel to
        training, otherwise it adds to it.
        """
        own = gaussian(self._share)
        if self.colluding == 0:
            return Charge(EVALUATION, own, self.evaluations)
        return Charge(EVALUATION, own, self.evaluations, gaussian(self.noise_multiplier), self.colluding)

    def release(self, tables: Integers, randomness: Randomness) -> Integers:
        """A member's vector: clamped, scaled, noised.

        Args:
            tables: of `count`, int64 [layout.size].
            randomness: secret; read by nothing else.

        Returns:
            int64 [layout.size], for the ring of `hansa.protocol.table_encoding`.

        Raises:
            ValueError: the tables are of another layout.
        """
        if tables.shape != (self.layout.size,) or tables.dtype != np.int64:
            raise ValueError(f"{tables.dtype} {tables.shape} are no tables of {self.layout.size} cells")
        noisy = randomness.noise(self.sigma, self.layout.size)
        noisy += clamp(tables, self.cell_cap) * self.scale
        return noisy

    def noise_sd(self, contributors: int) -> float:
        """Standard deviation of the noise of one cell of a sum, in rows."""
        return self.sigma * math.sqrt(contributors) / self.scale

    def read(self, total: npt.NDArray[np.int32] | Integers, contributors: int) -> NoisyTables:
        """The tables that a sum of releases holds.

        Args:
            total: decoded sum in grid units [layout.size].
            contributors: whose releases are in it.

        Raises:
            ValueError: the sum is of another layout, or of nobody.
        """
        if total.shape != (self.layout.size,) or contributors < 1:
            raise ValueError(f"a sum {total.shape} over {contributors} is none of {self.layout.size} cells")
        return NoisyTables(
            self.layout,
            total.astype(np.float64) / self.scale,
            self.noise_sd(contributors),
            self.cell_cap,
            contributors,
        )


@dataclass(frozen=True, eq=False)
class NoisyTables:
    """Summed tables with noise: all that is known about the members' evaluation rows. Everything else follows.

    Attributes:
        layout: of the tables.
        counts: in rows, float64 [layout.size]; noise makes some negative.
        noise_sd: standard deviation of each cell's own noise, in rows; 0 where there is none (tests, pooled data).
        cell_cap: most rows of one member in one cell.
        contributors: members in the sum.
    """

    layout: TableLayout
    counts: npt.NDArray[np.float64]
    noise_sd: float
    cell_cap: int
    contributors: int
