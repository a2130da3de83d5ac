"""A lower bound of ε from one concrete attack: the answer of record may not lie below it.

The attacker sees T, the sum of all releases of one kind. Without the unit it is N(0, nσ²); with it, N(k, nσ²), where k
is binomial of n and q. It guesses "in" when T > t. A sum is post-processing, so for each t

    ε ≥ log((P[T > t | in] − δ) / P[T > t | out]).

A sample that may be cut is attacked as one that is not: with no more units than fit into a batch it never is cut.

The bound catches what an upper bound cannot: an accountant that forgets counts, as `dp_accounting` 0.6.0 does for
randomised response, or one that begins anew each round. It is far from tight at small sampling rates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import lru_cache

from hansa.privacy.accountant import check_delta
from hansa.privacy.errors import AccountantFailedError
from hansa.privacy.events import Spend, counted, rate_and_multiplier

_TAIL = 10.0  # standard deviations of the binomial that are kept; what is left out only lowers the bound
_THRESHOLDS = 48
_MOST_TERMS = 200_000
_SMALLEST = 1e-290  # below, float64 loses digits of a probability
_ROUNDING = 1e-8  # of float64 sums of probabilities, with room


class SumAttack:
    """The best threshold on the sum of the releases, for the kind of event for which it is worst."""

    name = "sum-attack"

    def epsilon(self, spends: Iterable[Spend], delta: float) -> float:
        check_delta(delta)
        return max((_bound(event, count, delta) for event, count in counted(spends)), default=0.0)


@lru_cache(maxsize=4096)
def _bound(event: bytes, count: int, delta: float) -> float:
    rate, multiplier = rate_and_multiplier(json.loads(event))
    if multiplier == 0:
        return math.inf
    spread = multiplier * math.sqrt(count)
    weights = _binomial(count, rate)
    mean = count * rate
    reach = math.sqrt(spread * spread + count * rate * (1 - rate))
    best = 0.0
    for step in range(_THRESHOLDS):
        threshold = mean / 2 + (step / _THRESHOLDS) * (mean / 2 + 8 * reach)
        outside = _tail(threshold / spread)
        inside = math.fsum(weight * _tail((threshold - k) / spread) for k, weight in weights)
        if outside > _SMALLEST and inside * (1 - _ROUNDING) > delta:
            best = max(best, math.log(inside * (1 - _ROUNDING) - delta) - math.log(outside))
    return best


def _binomial(count: int, rate: float) -> list[tuple[int, float]]:
    """The likely values of a binomial variable and their probabilities."""
    if rate == 1:
        return [(count, 1.0)]
    width = _TAIL * math.sqrt(count * rate * (1 - rate)) + _TAIL
    first, last = max(0, math.floor(count * rate - width)), min(count, math.ceil(count * rate + width))
    if (last - first) * _THRESHOLDS > _MOST_TERMS * 10:
        raise AccountantFailedError(f"the sum attack on {count} events would take {last - first} terms")
    return [
        (
            k,
            math.exp(
                math.lgamma(count + 1)
                - math.lgamma(k + 1)
                - math.lgamma(count - k + 1)
                + k * math.log(rate)
                + (count - k) * math.log1p(-rate)
            ),
        )
        for k in range(first, last + 1)
    ]


def _tail(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))
