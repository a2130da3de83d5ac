"""Lower bounds of ε from one training run in which some units were put in by independent fair coins.

Whoever sees the result guesses for some of these canaries whether they were in. If the training is private, not too many
guesses are right, however the guesses depend on each other; so many right guesses refute a claim. Two forms:

- `epsilon_lower_bound`, of an (ε, δ) claim: Steinke, Nasr, Jagielski, "Privacy auditing with one (1) training run",
  NeurIPS 2023, arXiv 2305.08846, theorem 5.2. It assumes nothing about the mechanism, and is loose.
- `refutes`, of a trade-off curve: Mahloujifar, Melis, Chaudhuri, "Auditing f-differential privacy in one run",
  ICML 2025, arXiv 2410.22235, algorithm 3. It uses all of a claim and not one point of it, and is much sharper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hansa.errors import PrivacyParameterError
from hansa.privacy.tradeoff import TradeOff

_TOLERANCE = 1e-7  # of ε; what is returned lies below the bound by no more
_LARGEST_EPSILON = 200.0


@dataclass(frozen=True)
class Guesses:
    """How an attack went.

    Attributes:
        canaries: units whose presence a fair coin decided, each its own.
        guesses: how many of them were guessed about; the number is fixed before the truth is seen.
        correct: how many of the guesses were right.

    Raises:
        PrivacyParameterError: the numbers do not fit together.
    """

    canaries: int
    guesses: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.guesses <= self.canaries or self.guesses < 1:
            raise PrivacyParameterError(
                f"{self.correct} of {self.guesses} guesses about {self.canaries} canaries are no attack's outcome"
            )

    def all_correct(self) -> Guesses:
        """The best that so many guesses could have done: what no larger bound can come of."""
        return Guesses(self.canaries, self.guesses, self.guesses)


def p_value(outcome: Guesses, epsilon: float, delta: float) -> float:
    """At most how probable so many right guesses are, if the training is (epsilon, delta)-private.

    Args:
        outcome: of the attack.
        epsilon: at least 0.
        delta: at least 0, below 1.

    Returns:
        The bound of arXiv 2305.08846, theorem 5.2, at most 1; it grows with `epsilon`.

    Assumes: a canary that is in and one that is out are neighbours in the sense of the claim.
    """
    if not epsilon >= 0 or not 0 <= delta < 1:
        raise PrivacyParameterError(f"ε = {epsilon:g}, δ = {delta:g} is no claim that could be tested")
    at_least = _upper_tails(outcome.guesses, epsilon)
    beta = float(at_least[outcome.correct])
    if delta == 0 or outcome.correct == 0:
        return min(beta, 1.0)
    steps = np.arange(1, outcome.correct + 1)
    alpha = float(((at_least[outcome.correct - steps] - beta) / steps).max())
    return min(beta + 2 * outcome.canaries * delta * max(alpha, 0.0), 1.0)


def epsilon_lower_bound(outcome: Guesses, delta: float, confidence: float) -> float:
    """The largest ε for which an (ε, delta) claim is refuted; 0 where none is.

    Args:
        outcome: of the attack.
        delta: of the claim.
        confidence: in (0, 1): one minus the probability that a true claim is refuted.

    Guarantees: if the training is (ε, `delta`)-private, the answer exceeds ε with probability at most
        1 − `confidence`, over the coins and the training, however the guesses were made.
    Assumes: independent fair coins that nothing but the choice of canaries depends on; a number of guesses that was fixed
        before the truth was seen.
    """
    check_confidence(confidence)

    def refuted(epsilon: float) -> bool:
        return p_value(outcome, epsilon, delta) < 1 - confidence

    return largest(refuted, 0.0, _LARGEST_EPSILON, _TOLERANCE)


def refutes(outcome: Guesses, curve: TradeOff, confidence: float) -> bool:
    """Whether so many right guesses refute the claim that the training lies on or above a trade-off curve.

    Args:
        outcome: of the attack.
        curve: what is claimed, symmetric: it bounds adding and removing a unit alike.
        confidence: see `epsilon_lower_bound`.

    Guarantees: if the claim is true, the answer is true with probability at most 1 − `confidence`.
    Assumes: as `epsilon_lower_bound`.
    """
    check_confidence(confidence)
    m, guesses, correct = outcome.canaries, outcome.guesses, outcome.correct
    # Were at least `correct` right with probability 1 − confidence or more, then mass must lie below, by the curve, and
    # below that; the claim is refuted if more comes together than there is.
    right = (1 - confidence) * correct / m
    wrong = (1 - confidence) * (guesses - correct) / m
    inverse = curve.inverse_of_complement
    for i in range(correct - 1, -1, -1):
        more = inverse(right)
        if more <= wrong:
            break  # neither changes any more
        right = min(right + i / (guesses - i) * (more - wrong), 1.0)
        wrong = more
    return right + wrong > guesses / m


def fewest_correct(canaries: int, guesses: int, curve: TradeOff, confidence: float) -> int | None:
    """The fewest right guesses that refute a claim; `None` where not even all would."""
    if not refutes(Guesses(canaries, guesses, guesses), curve, confidence):
        return None
    low, high = 0, guesses  # `high` refutes
    while high - low > 1:
        middle = (low + high) // 2
        if refutes(Guesses(canaries, guesses, middle), curve, confidence):
            high = middle
        else:
            low = middle
    return high


def largest(holds: Callable[[float], bool], low: float, high: float, tolerance: float) -> float:
    """The largest number for which something holds that holds up to some number and not beyond; `low` if for none."""
    if not holds(low):
        return low
    if holds(high):
        return high
    while high - low > tolerance:
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1).

    Raises:
        PrivacyParameterError: it is.
    """
    if not 0 < confidence < 1:
        raise PrivacyParameterError(f"a confidence of {confidence:g} is outside (0, 1)")


def _upper_tails(n: int, epsilon: float) -> npt.NDArray[np.float64]:
    """P[X ≥ k] for k = 0 … n, X binomial of n and e^ε / (1 + e^ε)."""
    log_right = -math.log1p(math.exp(-epsilon))
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    logs = log_factorials[n] - log_factorials - log_factorials[::-1] + n * log_right - (n - k) * epsilon
    tails: npt.NDArray[np.float64] = np.cumsum(np.exp(logs)[::-1])[::-1]
    return tails
