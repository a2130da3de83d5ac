"""How much noise the agreed (ε, δ) needs, from public numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import DISCRETIZATION_INTERVAL, check_delta_of_record, epsilon_spent
from hansa.privacy.events import Spend
from hansa.privacy.rdp import RdpAccountant
from hansa.privacy.sampling import Sampling

_RELATIVE_TOLERANCE = 1e-3
_COARSE_INTERVAL = 1e-2
_SMALLEST, _LARGEST = 0.05, 1e5  # of the multipliers that are searched


@lru_cache(maxsize=256)
def calibrated_noise_multiplier(epsilon: float, delta: float, sampling: Sampling, steps: int) -> float:
    """The smallest noise multiplier, to 0.1 %, at which `steps` steps of DP-SGD cost at most `epsilon`.

    Args:
        epsilon: the budget of the whole run.
        delta: at which it holds.
        sampling: how each step draws.
        steps: noisy steps over the whole run.

    Returns:
        A multiplier whose PLD ε is at most `epsilon`.

    Raises:
        PrivacyParameterError: no multiplier up to 100,000 is enough, steps that are no whole epochs, or a δ that the
            accountant of record does not tell.
    """
    # RDP is quick and never below PLD, so its answer is an upper end of the search, and a near one. A coarse PLD
    # is never below a fine one, so its answer is the next; then a few fine ones are enough.
    check_delta_of_record(delta)
    if _rdp_epsilon(_SMALLEST, delta, sampling, steps) <= epsilon:
        return _SMALLEST
    upper = _rdp_multiplier(epsilon, delta, sampling, steps)
    for interval in (_COARSE_INTERVAL, DISCRETIZATION_INTERVAL):
        upper = _search(upper, epsilon, partial(_pld_epsilon, delta, sampling, steps, interval))
    return upper


def _search(high: float, epsilon: float, epsilon_of: Callable[[float], float]) -> float:
    """The smallest multiplier, to the tolerance, from an upper bound of it; `epsilon_of` falls with it."""
    at_high = epsilon_of(high)
    width = 0.99 if epsilon - at_high < 0.02 * epsilon else 0.8
    low, at_low = high * width, epsilon_of(high * width)
    while at_low <= epsilon:
        if low < _SMALLEST:
            return low
        high, at_high = low, at_low
        low, at_low = low * 0.8, epsilon_of(low * 0.8)
    while high / low > 1 + _RELATIVE_TOLERANCE and epsilon - at_high >= _RELATIVE_TOLERANCE * epsilon:
        # a secant in log space, aimed a little to the safe side and kept off the ends
        known = at_high > 0 and math.isfinite(at_low)  # at 0 a budget asks for no loss that PLD could tell
        share = math.log(at_low / epsilon) / math.log(at_low / at_high) if known else 0.5
        middle = low * (high / low) ** min(max(share, 0.05), 0.95) * (1 + _RELATIVE_TOLERANCE / 4)
        middle = middle if low < middle < high else math.sqrt(low * high)
        value = epsilon_of(middle)
        if value > epsilon:
            low, at_low = middle, value
        else:
            high, at_high = middle, value
    return high


def _rdp_multiplier(epsilon: float, delta: float, sampling: Sampling, steps: int) -> float:
    """A multiplier that is enough by RDP, to 2 %."""
    high = 1.0
    while _rdp_epsilon(high, delta, sampling, steps) > epsilon:
        high *= 2
        if high > _LARGEST:
            raise PrivacyParameterError(
                f"no noise up to a multiplier of {_LARGEST:g} keeps ε at {epsilon:g} with δ = {delta:g}",
                remedy="Allow a larger epsilon or delta, fewer steps, or a smaller sampling_rate.",
            )
    low = high / 2
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        if _rdp_epsilon(middle, delta, sampling, steps) > epsilon:
            low = middle
        else:
            high = middle
    return high


def _spend(sampling: Sampling, steps: int, multiplier: float) -> list[Spend]:
    return [Spend(sampling.event(multiplier), sampling.events_in(steps))]


def _pld_epsilon(delta: float, sampling: Sampling, steps: int, interval: float, multiplier: float) -> float:
    return epsilon_spent(_spend(sampling, steps, multiplier), delta, interval=interval)


def _rdp_epsilon(multiplier: float, delta: float, sampling: Sampling, steps: int) -> float:
    return RdpAccountant().epsilon(_spend(sampling, steps, multiplier), delta)
