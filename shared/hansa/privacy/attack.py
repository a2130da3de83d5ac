"""What an attack with canaries claims, could show, and has shown: pure numbers, before and after.

A `Design` is fixed before anything runs, from public numbers alone: how many canaries, how many guesses, at which confidence,
against which claim. A `Verdict` is a design and how many guesses were right. Two bounds are computed (`hansa.privacy.one_run`)
and share the error that the confidence leaves, so that what either says holds at the confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hansa.canonical import Json
from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend, counted, rate_and_multiplier, with_more_noise
from hansa.privacy.one_run import (
    Guesses,
    check_confidence,
    epsilon_lower_bound,
    fewest_correct,
    largest,
    refutes,
)
from hansa.privacy.tradeoff import trade_off_of

CONFIDENCE = 0.95
MOST_CANARIES = 1_000_000
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the canaries, among which a design chooses
_DEFAULT_FRACTION = 0.1
_SHARE = 0.1  # of the error, for the bound that is loose anyway
_LEAST_NOISE, _MOST_NOISE = 0.1, 16.0  # shares of the stated noise between which a bound is looked for
_TOLERANCE = 0.005  # of the logarithm of that share
_NEGLIGIBLE = 1e-12  # of the probability of a number of draws
_STEP = 1e-6  # of the noise that stands for none, against draws that count whole
_POWER = 1.645  # standard deviations: a fault that is called detectable is found in 19 of 20 attacks


@dataclass(frozen=True)
class Claim:
    """What is claimed of the training that is attacked.

    Attributes:
        spends: the events that it is charged as; no other part of the budget.
        delta: at which its ε is told.

    Raises:
        PrivacyParameterError: no guarantee can be stated.
    """

    spends: tuple[Spend, ...]
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1 or not counted(self.spends):
            raise PrivacyParameterError("an attack needs a claim: events, and a δ in (0, 1)")

    @cached_property
    def epsilon(self) -> float:
        """ε at `delta`, by the accountant of record."""
        return epsilon_spent(self.spends, self.delta)

    def with_noise(self, share: float) -> Claim:
        """The same with another noise multiplier: `share` times the stated one."""
        spends = tuple(Spend(with_more_noise(one.event, share), one.count) for one in self.spends)
        return Claim(spends, self.delta)


@dataclass(frozen=True)
class Design:
    """An attack before it is made.

    Attributes:
        claim: what is tested.
        canaries: how many fair coins are thrown.
        guessed_in, guessed_out: how many canaries will be guessed to be in, those with the highest scores, and out.
        confidence: one minus the probability that a true claim is contradicted.

    Raises:
        PrivacyParameterError: the numbers do not fit together.
    """

    claim: Claim
    canaries: int
    guessed_in: int
    guessed_out: int
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if min(self.guessed_in, self.guessed_out) < 0:
            raise PrivacyParameterError("a number of guesses is negative")
        Guesses(self.canaries, self.guesses, 0)

    @classmethod
    def best(cls, claim: Claim, canaries: int, confidence: float = CONFIDENCE) -> Design:
        """The number of guesses with which the smallest lack of noise would be found; public numbers decide.

        Raises:
            PrivacyParameterError: too few canaries, or a confidence that is none.
        """
        if canaries < 2:
            raise PrivacyParameterError(f"{canaries} canaries are too few for an attack")
        designs: dict[tuple[int, int], Design] = {}
        for fraction in FRACTIONS:
            half = max(1, round(canaries * fraction / 2))
            for sizes in ((half, half), (half, 0)):  # where few are drawn at all, nobody can tell who is out
                if sum(sizes) <= canaries:
                    designs[sizes] = cls(claim, canaries, *sizes, confidence)
        half = max(1, round(canaries * _DEFAULT_FRACTION / 2))
        return max(
            designs.values(),
            key=lambda design: (
                -1.0 if design.detectable_noise is None else design.detectable_noise,
                (design.guessed_in, design.guessed_out) == (half, half),
            ),
        )

    @property
    def guesses(self) -> int:
        """How many canaries will be guessed about."""
        return self.guessed_in + self.guessed_out

    @property
    def confidence_any_mechanism(self) -> float:
        """Of the bound that assumes nothing about the mechanism."""
        return 1 - (1 - self.confidence) * _SHARE

    @property
    def confidence_stated_mechanism(self) -> float:
        """Of the bound that tests the whole claim."""
        return 1 - (1 - self.confidence) * (1 - _SHARE)

    @cached_property
    def needed(self) -> int | None:
        """The fewest right guesses that contradict the claim; `None` where not even all would."""
        curve = trade_off_of(self.claim.spends)
        return fewest_correct(self.canaries, self.guesses, curve, self.confidence_stated_mechanism)

    @property
    def needed_text(self) -> str:
        """`needed` in words."""
        return "more than all" if self.needed is None else f"{self.needed} of {self.guesses}"

    @cached_property
    def ceiling(self) -> float:
        """The largest bound that can come of it: with every guess right."""
        return self.judge(self.guesses).epsilon

    @cached_property
    def detectable_noise(self) -> float | None:
        """The largest share of the stated noise that would be found, 19 times of 20; 0 is a trainer without noise.

        `None` where not even that would be found, or the events say nothing of how scores would lie.

        Assumes: scores that see each step's sum, as those of gradient canaries do.
        """
        return _detectable(self)

    def judge(self, correct: int) -> Verdict:
        """What follows from so many right guesses."""
        return Verdict(self, correct)


@dataclass(frozen=True)
class Verdict:
    """An attack that was made.

    Attributes:
        design: as it was fixed before.
        correct: guesses that were right.
    """

    design: Design
    correct: int

    def __post_init__(self) -> None:
        Guesses(self.design.canaries, self.design.guesses, self.correct)

    @property
    def outcome(self) -> Guesses:
        """As the statistics take it."""
        return Guesses(self.design.canaries, self.design.guesses, self.correct)

    @cached_property
    def epsilon_any_mechanism(self) -> float:
        """The lower bound that assumes nothing about the mechanism (arXiv 2305.08846)."""
        return epsilon_lower_bound(
            self.outcome, self.design.claim.delta, self.design.confidence_any_mechanism
        )

    @cached_property
    def epsilon_stated_mechanism(self) -> float:
        """The lower bound for the stated mechanism with unknown noise (arXiv 2410.22235): ε at the most noise that is not refuted."""
        return _stated(self.outcome, self.design.claim, self.design.confidence_stated_mechanism)

    @property
    def epsilon(self) -> float:
        """The larger of both, which holds at the design's confidence."""
        return max(self.epsilon_any_mechanism, self.epsilon_stated_mechanism)

    @cached_property
    def contradicts(self) -> bool:
        """Whether the claim is refuted: by its whole curve, or by its ε alone."""
        design = self.design
        if refutes(self.outcome, trade_off_of(design.claim.spends), design.confidence_stated_mechanism):
            return True
        return self.epsilon_any_mechanism > design.claim.epsilon

    def as_dict(self) -> Mapping[str, Json]:
        """As plain JSON values; an ε without bound is `null`."""
        design = self.design
        claimed = design.claim.epsilon
        return {
            "canaries": design.canaries,
            "guessed_in": design.guessed_in,
            "guessed_out": design.guessed_out,
            "correct": self.correct,
            "confidence": design.confidence,
            "delta": design.claim.delta,
            "epsilon_claimed": claimed if math.isfinite(claimed) else None,
            "epsilon_lower_bound": self.epsilon,
            "epsilon_any_mechanism": self.epsilon_any_mechanism,
            "epsilon_stated_mechanism": self.epsilon_stated_mechanism,
            "ceiling": design.ceiling,
            "needed": design.needed,
            "detectable_noise": design.detectable_noise,
            "contradicts": self.contradicts,
        }


def _stated(outcome: Guesses, claim: Claim, confidence: float) -> float:
    def refuted(less: float) -> bool:
        return refutes(outcome, trade_off_of(claim.with_noise(math.exp(-less)).spends), confidence)

    low, high = -math.log(_MOST_NOISE), -math.log(_LEAST_NOISE)
    if not refuted(low):
        return 0.0
    share = math.exp(-largest(refuted, low, high, _TOLERANCE))
    return trade_off_of(claim.with_noise(share).spends).epsilon(claim.delta)


def _detectable(design: Design) -> float | None:
    needed = design.needed
    if needed is None:
        return None
    try:
        scores = _Scores(design.claim.spends)
    except PrivacyParameterError:
        return None  # an event of another kind: its scores are not modelled

    def found(share: float) -> bool:
        right = scores.right(share, design)
        expected = design.guesses * right
        return expected - _POWER * math.sqrt(expected * (1 - right)) >= needed

    return largest(found, 0.0, 1.0, 1e-3) if found(0.0) else None


class _Scores:
    """How scores of gradient canaries lie: how often one was drawn, plus noise. Exact, from public numbers.

    Args:
        spends: Poisson-sampled Gaussian mechanisms.

    Raises:
        PrivacyParameterError: another event is among them.
    """

    def __init__(self, spends: Sequence[Spend]) -> None:
        drawn, variance = np.ones(1), 0.0
        for spend in spends:
            rate, multiplier = rate_and_multiplier(spend.event)
            drawn = np.convolve(drawn, _binomial(spend.count, rate))
            variance += spend.count * multiplier * multiplier
        kept = np.flatnonzero(drawn > _NEGLIGIBLE)
        self._drawn = [(int(times), float(drawn[times])) for times in kept]
        self._spread = math.sqrt(variance)

    def right(self, share: float, design: Design) -> float:
        """How many of the design's guesses are right, of 1, with `share` of the stated noise."""
        spread = max(share * self._spread, _STEP)
        inside_above = self._share_in(design.guessed_in / design.canaries, spread, above=True)
        outside_below = 1 - self._share_in(design.guessed_out / design.canaries, spread, above=False)
        right = inside_above * design.guessed_in + outside_below * design.guessed_out
        return right / design.guesses

    def _share_in(self, fraction: float, spread: float, *, above: bool) -> float:
        """Which share of a `fraction` of all canaries is in: of those with the highest scores, or the lowest."""
        if fraction == 0:
            return 0.0
        sign = 1.0 if above else -1.0

        def beyond(threshold: float) -> tuple[float, float]:
            inside = math.fsum(
                weight * _tail(sign * (threshold - times) / spread) for times, weight in self._drawn
            )
            return inside / 2, _tail(sign * threshold / spread) / 2

        # by `sign` the search runs upwards for the highest and downwards for the lowest
        reach = self._drawn[-1][0] + 40 * spread
        cut = largest(lambda x: sum(beyond(sign * x)) >= fraction, -reach, reach, 1e-3 * spread)
        inside, outside = beyond(sign * cut)
        return inside / (inside + outside)


def _binomial(count: int, rate: float) -> npt.NDArray[np.float64]:
    """Probabilities of 0 … `count` draws."""
    if rate == 1:
        return np.concatenate([np.zeros(count), np.ones(1)])
    times = np.arange(count + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    logs = log_factorials[count] - log_factorials - log_factorials[::-1]
    found: npt.NDArray[np.float64] = np.exp(
        logs + times * math.log(rate) + (count - times) * math.log1p(-rate)
    )
    return found


def _tail(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))
