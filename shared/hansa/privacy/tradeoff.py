"""Trade-off curves: all of a privacy claim at once, where (ε, δ) is one point of it.

A training is f-private if no test that tells "in" from "out" with false positive rate α has a false negative rate below f(α)
(Dong, Roth, Su, arXiv 1905.02383). Curves here are symmetric: they hold for adding and for removing a unit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

from hansa.errors import PrivacyParameterError
from hansa.privacy.errors import AccountantFailedError
from hansa.privacy.events import Spend, counted, event_from_json

_NORMAL = NormalDist()
_INTERVAL = (
    1e-3  # of the discretised privacy loss; pessimistic at any, so that a curve is never above the true one
)
_POINTS = 400
_LARGEST_EPSILON = 20.0  # e^ε times the rounding of a rate stays small
_SMALLEST_DELTA = 1e-13  # below, the δ of a composed PLD is noise of its FFT


class TradeOff(Protocol):
    """A symmetric trade-off curve f."""

    def inverse_of_complement(self, rate: float) -> float:
        """The smallest false positive rate at which a test may be right about `rate` of what is in.

        Args:
            rate: in [0, 1].

        Returns:
            The inverse of α ↦ 1 − f(α) at `rate`: 0 where f promises nothing, never above `rate`.
        """


class GaussianTradeOff:
    """What one Gaussian mechanism of noise multiplier 1 / `mu` promises: `mu`-GDP.

    Raises:
        PrivacyParameterError: `mu` is negative or no number.
    """

    def __init__(self, mu: float) -> None:
        if not mu >= 0:
            raise PrivacyParameterError(f"μ = {mu:g} is not at least 0")
        self.mu = mu

    def inverse_of_complement(self, rate: float) -> float:
        if not 0 < rate < 1:
            return float(rate >= 1)
        return 0.5 * math.erfc((self.mu - _NORMAL.inv_cdf(rate)) / math.sqrt(2))


class PointsTradeOff:
    """What a list of (ε, δ) statements promises together.

    Args:
        epsilons, deltas: of the statements, each in itself true of the training.

    Raises:
        PrivacyParameterError: there are none, or one is no statement.
    """

    def __init__(self, epsilons: Sequence[float], deltas: Sequence[float]) -> None:
        e, d = np.asarray(epsilons, dtype=np.float64), np.asarray(deltas, dtype=np.float64)
        if not len(e) or e.shape != d.shape or not bool((e >= 0).all() and (d >= 0).all() and (d <= 1).all()):
            raise PrivacyParameterError("a trade-off curve needs statements of ε and δ")
        self._epsilons, self._deltas = e, d
        self._factors, self._inverses = np.exp(e), np.exp(-e)

    def inverse_of_complement(self, rate: float) -> float:
        # power ≤ δ + e^ε α, and 1 − α ≤ δ + e^ε (1 − power); each solved for α
        first = (self._inverses * (rate - self._deltas)).max()
        second = ((1 - self._deltas) - self._factors * (1 - rate)).max()
        return max(float(first), float(second), 0.0)

    def epsilon(self, delta: float) -> float:
        """ε at `delta`, from below: log δ is read linearly between statements, at most the largest ε of them.

        Assumes: statements in ascending order of ε, of a curve whose log δ is concave in ε.
        """
        if self._deltas[0] <= delta:
            return 0.0
        after = int(np.argmax(self._deltas <= delta))
        if self._deltas[after] > delta:
            return float(self._epsilons[-1])
        between = slice(after - 1, after + 1)
        logs = np.log(np.maximum(self._deltas[between], _SMALLEST_DELTA))
        return float(np.interp(-math.log(delta), -logs, self._epsilons[between]))


def trade_off_of(spends: Iterable[Spend]) -> PointsTradeOff:
    """What the accountant of record promises of events with counts, at every δ at once.

    Args:
        spends: as the accountant takes them.

    Raises:
        AccountantFailedError: it cannot be computed.
        PrivacyParameterError: an event is not known, or there are none.

    Guarantees: never above the true trade-off curve of the events, in either direction: from δ(ε) of their composed
        privacy loss distribution, pessimistically discretised.
    """
    return _of_events(counted(spends))


@lru_cache(maxsize=64)
def _of_events(counts: tuple[tuple[bytes, int], ...]) -> PointsTradeOff:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    if not counts:
        raise PrivacyParameterError("no events have no trade-off curve")
    accountant: Any = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, _INTERVAL)
    epsilons = np.linspace(0, math.sqrt(_LARGEST_EPSILON), _POINTS) ** 2  # dense where statements are weakest
    try:
        for event, count in counts:
            accountant.compose(event_from_json(json.loads(event)), count)
        deltas = np.asarray(accountant.get_delta(epsilons), dtype=np.float64)
    except (ArithmeticError, MemoryError, ValueError) as error:
        raise AccountantFailedError(f"PLD: {type(error).__name__}: {error}") from error
    if deltas.ndim == 0:  # an event without privacy
        deltas = np.ones_like(epsilons)
    return PointsTradeOff(epsilons.tolist(), np.clip(deltas, _SMALLEST_DELTA, 1).tolist())
