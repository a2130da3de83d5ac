"""Rényi differential privacy of the events that Hansa charges, at integer orders, in plain float64.

Written here and not taken from `dp_accounting`, so that the check of the accountant of record shares no code with it.
At an integer order α the divergence of the Poisson-sampled Gaussian is a finite sum (Mironov, Talwar, Zhang, arXiv
1908.10530, section 3.3). Its terms for k = 0 and 1 belong to a distribution that sums to 1, so that

    exp((α − 1) ρ) = 1 + Σ_{k=2}^{α} C(α, k) q^k (1 − q)^{α−k} (exp((k² − k) / 2σ²) − 1),

a sum of positive terms: nothing cancels, and nothing can come out negative. A sample that may be cut is a mixture of
two of these (`hansa.privacy.truncation`), and exp((α − 1) ρ) of a mixture is the mean of its parts'.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import lru_cache

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import check_delta
from hansa.privacy.events import Numbers, Spend, counted, numbers_of
from hansa.privacy.truncation import LONGEST_STEP, cut_share

LARGEST_ORDER = 4096  # a sum of so many terms takes milliseconds; no useful order is near it
ORDERS = (*range(2, 17), 20, 24, 28, 32, 40, 48, 64, 96, 128, 256, 512, 1024)


def renyi_loss(spends: Iterable[Spend], order: int) -> float:
    """ρ such that everything in `spends` together is (order, ρ)-RDP, add-or-remove-one.

    Args:
        spends: events with counts.
        order: α, an integer from 2 to `LARGEST_ORDER`.

    Raises:
        PrivacyParameterError: an order or an event for which nothing can be stated.
    """
    check_order(order)
    return math.fsum(count * _divergence(event, order) for event, count in counted(spends))


def epsilon_of_renyi(loss: float, order: int, delta: float) -> float:
    """The ε at `delta` that (order, loss)-RDP implies.

    Source: Canonne, Kamath, Steinke (arXiv 2004.00010), proposition 12.
    """
    check_order(order)
    check_delta(delta)
    return max(0.0, loss + conversion_cost(order, delta))


def conversion_cost(order: int, delta: float) -> float:
    """What turning ρ at an order into ε at `delta` adds: log(1 − 1/α) − log(δ α) / (α − 1)."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def best_order(epsilon: float, delta: float) -> int:
    """The order at which an (ε, δ) limit holds the most unsampled Gaussian releases.

    Raises:
        PrivacyParameterError: no order leaves anything of so small an ε at so small a δ.
    """
    check_delta(delta)
    capacity = {order: (epsilon - conversion_cost(order, delta)) / order for order in ORDERS}
    best: int = max(ORDERS, key=lambda order: capacity[order])
    if not capacity[best] > 0:
        raise PrivacyParameterError(
            f"no Rényi order leaves anything of ε = {epsilon:g} at δ = {delta:g}",
            remedy="Allow a larger epsilon or delta, or compose by adding.",
        )
    return best


def check_order(order: int) -> None:
    """Refuse an order that is no integer in range.

    Raises:
        PrivacyParameterError: it is not.
    """
    if type(order) is not int or not 2 <= order <= LARGEST_ORDER:
        raise PrivacyParameterError(f"{order!r} is no Rényi order: an integer from 2 to {LARGEST_ORDER}")


@lru_cache(maxsize=65536)
def _divergence(event: bytes, order: int) -> float:
    numbers = numbers_of(json.loads(event))
    if numbers.multiplier == 0:
        return math.inf
    if numbers.truncation is None:
        return _of_sample(numbers.rate, numbers.multiplier, order)
    return _of_cut_sample(numbers, cut_share(numbers.truncation, numbers.rate), order)


def _of_cut_sample(numbers: Numbers, share: float, order: int) -> float:
    parts = [(share, LONGEST_STEP), (1 - share, 1.0)]
    logs = [
        math.log(weight) + (order - 1) * _of_sample(numbers.rate, numbers.multiplier / step, order)
        for weight, step in parts
        if weight > 0
    ]
    largest = max(logs)
    if math.isinf(largest):
        return math.inf
    return (largest + math.log(math.fsum(math.exp(value - largest) for value in logs))) / (order - 1)


def _of_sample(rate: float, multiplier: float, order: int) -> float:
    variance = multiplier * multiplier
    if rate == 1 or variance == 0:
        return order / (2 * variance) if variance else math.inf
    logs = [
        _log_binomial(order, k)
        + k * math.log(rate)
        + (order - k) * math.log1p(-rate)
        + _log_expm1((k * k - k) / (2 * variance))
        for k in range(2, order + 1)
    ]
    largest = max(logs)
    if not math.isfinite(largest):
        return math.inf if largest > 0 else 0.0
    total = largest + math.log(math.fsum(math.exp(value - largest) for value in logs))
    grown = total + math.log1p(math.exp(-total)) if total > 0 else math.log1p(math.exp(total))
    return grown / (order - 1)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_expm1(x: float) -> float:
    """log(exp(x) − 1) for x ≥ 0, without overflow."""
    if x == 0:
        return -math.inf
    return x + math.log1p(-math.exp(-x)) if x > 1 else math.log(math.expm1(x))
