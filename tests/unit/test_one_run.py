"""Bounds from one run with canaries, and the trade-off curves that claims are."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from dp_accounting import get_epsilon_gaussian, get_sigma_gaussian
from scipy import stats

from hansa.errors import PrivacyParameterError
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.one_run import Guesses, epsilon_lower_bound, fewest_correct, p_value, refutes
from hansa.privacy.tradeoff import GaussianTradeOff, PointsTradeOff, trade_off_of


def tail(correct: int, guesses: int, epsilon: float) -> float:
    """P[X ≥ correct] by scipy, for pure ε."""
    return float(stats.binom.sf(correct - 1, guesses, 1 / (1 + math.exp(-epsilon))))


class TestOneStatement:
    @pytest.mark.parametrize(
        ("correct", "guesses", "epsilon"), [(60, 100, 0.1), (100, 100, 3.0), (3, 9, 0.0)]
    )
    def test_without_delta_it_is_a_binomial_tail(self, correct: int, guesses: int, epsilon: float) -> None:
        ours = p_value(Guesses(1000, guesses, correct), epsilon, 0)
        assert ours == pytest.approx(tail(correct, guesses, epsilon), rel=1e-9)

    def test_delta_costs_what_the_theorem_says(self) -> None:
        outcome, epsilon, delta = Guesses(500, 40, 31), 0.7, 1e-4
        beta = tail(31, 40, epsilon)
        alpha = max((tail(31 - i, 40, epsilon) - beta) / i for i in range(1, 32))
        assert p_value(outcome, epsilon, delta) == pytest.approx(beta + 2 * 500 * delta * alpha, rel=1e-9)

    def test_it_is_never_above_one_and_grows_with_epsilon(self) -> None:
        outcome = Guesses(10_000, 10_000, 5_000)
        found = [p_value(outcome, epsilon, 1e-2) for epsilon in np.linspace(0, 5, 30)]
        assert max(found) <= 1
        assert all(after >= before - 1e-8 for before, after in pairwise(found))

    def test_luck_shows_nothing(self) -> None:
        assert epsilon_lower_bound(Guesses(1000, 1000, 500), 1e-5, 0.95) == 0
        assert epsilon_lower_bound(Guesses(1000, 1000, 0), 0, 0.95) == 0

    def test_a_bound_is_refuted_and_just_above_it_nothing_is(self) -> None:
        outcome = Guesses(1000, 100, 90)
        bound = epsilon_lower_bound(outcome, 1e-5, 0.95)
        assert p_value(outcome, bound, 1e-5) < 0.05 <= p_value(outcome, bound + 1e-5, 1e-5)

    def test_more_confidence_shows_less(self) -> None:
        bounds = [epsilon_lower_bound(Guesses(1000, 100, 90), 1e-7, c) for c in (0.5, 0.9, 0.99, 0.9999)]
        assert bounds == sorted(bounds, reverse=True)
        assert bounds[-1] > 0

    def test_a_great_many_guesses_are_no_trouble(self) -> None:
        bound = epsilon_lower_bound(Guesses(1_000_000, 1_000_000, 731_000), 0, 0.95)
        assert bound == pytest.approx(1.0, abs=0.01)


class TestCurves:
    @pytest.mark.parametrize(("guesses", "least"), [(200, 151), (1000, 702), (10_000, 6527)])
    def test_right_guesses_that_refute_a_gaussian_of_epsilon_one(self, guesses: int, least: int) -> None:
        """Figures of a second implementation, with scipy's normal distribution."""
        curve = GaussianTradeOff(1 / get_sigma_gaussian(1.0, 1e-5))
        assert fewest_correct(10_000, guesses, curve, 0.95) == least
        assert refutes(Guesses(10_000, guesses, least), curve, 0.95)
        assert not refutes(Guesses(10_000, guesses, least - 1), curve, 0.95)

    def test_a_curve_that_promises_nothing_is_never_refuted(self) -> None:
        nothing = PointsTradeOff([0.0], [1.0])
        assert fewest_correct(1000, 1000, nothing, 0.95) is None

    def test_perfect_privacy_is_refuted_by_less_than_twice_the_luck(self) -> None:
        least = fewest_correct(1000, 1000, GaussianTradeOff(0.0), 0.95)
        assert least is not None
        assert 500 < least < 600

    def test_the_whole_curve_says_more_than_one_point_of_it(self) -> None:
        sigma = get_sigma_gaussian(1.0, 1e-5)
        whole, point = GaussianTradeOff(1 / sigma), PointsTradeOff([1.0], [1e-5])
        assert fewest_correct(10_000, 2000, whole, 0.95) < fewest_correct(10_000, 2000, point, 0.95)

    def test_events_are_as_their_gaussian(self) -> None:
        sigma = get_sigma_gaussian(1.0, 1e-5)
        exact = GaussianTradeOff(1 / sigma)
        once = trade_off_of([Spend(gaussian(sigma), 1)])
        four = trade_off_of([Spend(poisson_gaussian(1.0, 2 * sigma), 4)])
        for rate in (0.0, 1e-6, 1e-3, 0.05, 0.5, 0.9, 0.99):
            truth = exact.inverse_of_complement(rate)
            for curve in (once, four):
                assert truth * (1 - 2e-3) - 1e-12 <= curve.inverse_of_complement(rate) <= truth * (1 + 1e-9)

    def test_a_gaussian_inverse_is_the_normal_distribution(self) -> None:
        curve = GaussianTradeOff(1.3)
        for rate in (1e-9, 0.01, 0.5, 0.999):
            assert curve.inverse_of_complement(rate) == pytest.approx(
                stats.norm.cdf(stats.norm.ppf(rate) - 1.3), rel=1e-9
            )
        assert (curve.inverse_of_complement(0), curve.inverse_of_complement(1)) == (0, 1)

    def test_sampling_makes_a_curve_that_nobody_can_beat(self) -> None:
        """Whoever is drawn in no step cannot be told from who is out: at rate q once, power is at most q + α."""
        curve = trade_off_of([Spend(poisson_gaussian(0.1, 0.05), 1)])
        assert curve.inverse_of_complement(0.3) >= 0.2 - 1e-6

    def test_epsilon_of_a_curve(self) -> None:
        sigma = get_sigma_gaussian(1.0, 1e-5)
        curve = trade_off_of([Spend(gaussian(sigma), 1)])
        for delta in (1e-3, 1e-5, 1e-8):
            truth = get_epsilon_gaussian(sigma, delta)
            assert curve.epsilon(delta) == pytest.approx(truth, rel=5e-3)
            assert curve.epsilon(delta) <= truth * (1 + 1e-3)
        assert curve.epsilon(0.9) == 0
        assert PointsTradeOff([0.0, 20.0], [1.0, 0.5]).epsilon(1e-5) == 20


class TestBadInput:
    @pytest.mark.parametrize(
        ("canaries", "guesses", "correct"), [(10, 11, 3), (10, 5, 6), (10, 0, 0), (10, 5, -1)]
    )
    def test_numbers_that_do_not_fit(self, canaries: int, guesses: int, correct: int) -> None:
        with pytest.raises(PrivacyParameterError, match="no attack"):
            Guesses(canaries, guesses, correct)

    @pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
    def test_a_confidence_that_is_none(self, confidence: float) -> None:
        outcome = Guesses(10, 10, 9)
        with pytest.raises(PrivacyParameterError, match="confidence"):
            epsilon_lower_bound(outcome, 0, confidence)
        with pytest.raises(PrivacyParameterError, match="confidence"):
            refutes(outcome, GaussianTradeOff(1.0), confidence)

    @pytest.mark.parametrize(("epsilon", "delta"), [(-1.0, 0.0), (math.nan, 0.0), (1.0, 1.0), (1.0, -0.1)])
    def test_a_claim_that_is_none(self, epsilon: float, delta: float) -> None:
        with pytest.raises(PrivacyParameterError, match="no claim"):
            p_value(Guesses(10, 10, 9), epsilon, delta)

    def test_curves_that_are_none(self) -> None:
        for points in (([], []), ([1.0], [1.5]), ([-1.0], [0.1]), ([1.0, 2.0], [0.1])):
            with pytest.raises(PrivacyParameterError, match="statements"):
                PointsTradeOff(*points)
        with pytest.raises(PrivacyParameterError, match="at least 0"):
            GaussianTradeOff(math.nan)
        with pytest.raises(PrivacyParameterError, match="no events"):
            trade_off_of([])
        assert trade_off_of([Spend({"type": "NonPrivate"}, 1)]).inverse_of_complement(1.0) == 0
