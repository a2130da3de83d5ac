"""Opacus' PRV accountant as a check of the accountant of record, where Opacus is installed.

It stands here because `hansa` imports no Opacus. PRV (Gopi, Lee, Wutschitz, arXiv 2106.02848) is another numerical
method than PLD, by other authors: an independent opinion to within a stated error.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable

from hansa.privacy.accountant import check_delta
from hansa.privacy.crosscheck import EVERYWHERE, Check, Within
from hansa.privacy.errors import AccountantFailedError
from hansa.privacy.events import Spend, counted, numbers_of

EPS_ERROR = 0.01  # Opacus' default; it answers the upper end, about this much above PLD
_MOST_POINTS = 1 << 24  # of its grid: some 400 MB. Upstream has no bound, and large ε exhaust memory

# what numpy, scipy and Opacus raise where the method does not work
_NUMERICAL = (ArithmeticError, ValueError, RuntimeError, IndexError, MemoryError)


class PrvAccountant:
    """Privacy random variables, composed by FFT: an upper bound that is `eps_error` above its estimate.

    Args:
        eps_error: of ε; the grid grows as it shrinks.

    Guarantees: none that is used; it is a check. Its domain is chosen by a rule that its own source calls not quite
        that of the paper.
    """

    name = "prv"

    def __init__(self, eps_error: float = EPS_ERROR) -> None:
        self.eps_error = eps_error

    def epsilon(self, spends: Iterable[Spend], delta: float) -> float:
        check_delta(delta)
        history = [_step(event, count) for event, count in counted(spends)]
        if not history:
            return 0.0
        if any(multiplier == 0 for multiplier, _, _ in history):
            return math.inf
        if any(rate == 1 for _, rate, _ in history):
            raise AccountantFailedError("PRV in Opacus knows sampling rates below 1 only")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about orders of an RDP estimate that only sizes its grid
            return self._epsilon(history, delta)

    def _epsilon(self, history: list[tuple[float, float, int]], delta: float) -> float:
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = history
        try:
            points = self._points(history, delta)
            if points > _MOST_POINTS:
                raise AccountantFailedError(f"PRV would need a grid of {points:.3g} points")
            epsilon = float(accountant.get_epsilon(delta, eps_error=self.eps_error))
        except _NUMERICAL as error:
            raise AccountantFailedError(f"PRV: {type(error).__name__}: {error}") from error
        if not (math.isfinite(epsilon) and epsilon >= 0):
            raise AccountantFailedError(f"PRV answers ε = {epsilon:g}")
        return epsilon

    def _points(self, history: list[tuple[float, float, int]], delta: float) -> float:
        """How many points its grid will have, before it is made."""
        from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV, compute_safe_domain_size

        error = delta / 1000
        reach = compute_safe_domain_size(
            prvs=[PoissonSubsampledGaussianPRV(rate, multiplier) for multiplier, rate, _ in history],
            max_self_compositions=[count for *_, count in history],
            eps_error=self.eps_error,
            delta_error=error,
        )
        steps = sum(count for *_, count in history)
        mesh = self.eps_error / math.sqrt(steps * math.log(12 / error) / 2)
        return float(2 * reach / mesh)


def member_checks(eps_error: float = EPS_ERROR) -> tuple[Check, ...]:
    """The checks that a member makes before it signs: those that are made everywhere, and PRV."""
    return (*EVERYWHERE, Within(PrvAccountant(eps_error), 2 * eps_error))


def _step(event: bytes, count: int) -> tuple[float, float, int]:
    numbers = numbers_of(json.loads(event))
    if numbers.truncation is not None:
        raise AccountantFailedError("PRV in Opacus knows no samples that are cut")
    return numbers.multiplier, numbers.rate, count
