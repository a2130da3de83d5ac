"""Bounds from one run: they never accuse the innocent more often than they say, and more right guesses never show less."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.privacy.attack import Claim, Design
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.one_run import Guesses, epsilon_lower_bound, refutes
from hansa.privacy.tradeoff import GaussianTradeOff, PointsTradeOff


@st.composite
def outcomes(draw: st.DrawFn) -> Guesses:
    canaries = draw(st.integers(2, 3000))
    guesses = draw(st.integers(1, canaries))
    return Guesses(canaries, guesses, draw(st.integers(0, guesses)))


@given(outcomes(), st.sampled_from([0.0, 1e-6, 1e-3]), st.floats(0.5, 0.999))
def test_a_bound_is_between_nothing_and_the_ceiling(
    outcome: Guesses, delta: float, confidence: float
) -> None:
    bound = epsilon_lower_bound(outcome, delta, confidence)
    assert 0 <= bound <= epsilon_lower_bound(outcome.all_correct(), delta, confidence)


@given(outcomes(), st.floats(0.5, 0.999))
def test_more_delta_shows_less(outcome: Guesses, confidence: float) -> None:
    bounds = [epsilon_lower_bound(outcome, delta, confidence) for delta in (0.0, 1e-6, 1e-4, 1e-2)]
    assert all(after <= before + 1e-6 for before, after in pairwise(bounds))


@given(outcomes(), st.floats(0, 5), st.floats(0.5, 0.999))
def test_what_is_refuted_stays_refuted(outcome: Guesses, mu: float, confidence: float) -> None:
    """By one right guess more, for a stronger claim, at less confidence."""
    if not refutes(outcome, GaussianTradeOff(mu), confidence):
        return
    assert refutes(outcome.all_correct(), GaussianTradeOff(mu), confidence)
    assert refutes(outcome, GaussianTradeOff(mu / 2), confidence)
    assert refutes(outcome, GaussianTradeOff(mu), confidence / 2)


@given(st.lists(st.tuples(st.floats(0, 15), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 1))
def test_a_curve_of_points_keeps_every_point(points: list[tuple[float, float]], rate: float) -> None:
    curve = PointsTradeOff([e for e, _ in points], [d for _, d in points])
    alpha = curve.inverse_of_complement(rate)
    assert 0 <= alpha <= rate + 1e-12
    for epsilon, delta in points:
        slack = 1e-9 * np.exp(epsilon)
        assert rate <= delta + np.exp(epsilon) * alpha + slack
        assert 1 - alpha <= delta + np.exp(epsilon) * (1 - rate) + slack


def right(generator: np.random.Generator, design: Design, rate: float, sigma: float, steps: int) -> int:
    """How an attack on the stated mechanism itself goes: Gaussian scores of orthogonal canaries."""
    inside = generator.random(design.canaries) < 0.5
    scores = inside * generator.binomial(steps, rate, design.canaries)
    order = np.argsort(scores + generator.normal(0, sigma * np.sqrt(steps), design.canaries))
    top, bottom = order[design.canaries - design.guessed_in :], order[: design.guessed_out]
    return int(inside[top].sum() + (~inside[bottom]).sum())


@pytest.mark.parametrize(
    ("rate", "sigma", "steps", "guesses"),
    [(1.0, 3.7, 1, (10, 10)), (1.0, 0.8, 1, (30, 30)), (0.3, 1.0, 5, (20, 0)), (0.5, 2.0, 4, (100, 100))],
)
def test_who_keeps_its_word_is_rarely_accused(
    rate: float, sigma: float, steps: int, guesses: tuple[int, int]
) -> None:
    """A thousand attacks at confidence 0.8: at most 200 are expected to accuse, and 245 would be five deviations more."""
    generator = np.random.default_rng(11)
    event = gaussian(sigma) if rate == 1 and steps == 1 else poisson_gaussian(rate, sigma)
    design = Design(Claim((Spend(event, steps),), 1e-5), 200, *guesses, 0.8)
    outcomes = [right(generator, design, rate, sigma, steps) for _ in range(1000)]
    accused = {correct: design.judge(correct).contradicts for correct in set(outcomes)}
    assert sum(accused[correct] for correct in outcomes) <= 245


@settings(max_examples=5, deadline=None)
@given(st.floats(0.5, 5), st.integers(100, 400))
def test_who_adds_no_noise_is_found_wherever_that_is_possible(sigma: float, canaries: int) -> None:
    claim = Claim((Spend(gaussian(sigma), 1),), 1e-5)
    design = Design.best(claim, canaries, 0.9)
    if design.needed is not None:
        assert design.judge(design.guesses).contradicts
        assert not design.judge(design.needed - 1).contradicts or design.needed <= design.guesses // 2
