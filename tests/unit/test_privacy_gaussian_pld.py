"""The PLD of a Gaussian, computed on a whole grid at once, is the library's, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

from hansa.privacy.gaussian_pld import gaussian_pld

CASES = [
    (1.0, 0.05, 1e-3),
    (0.6, 0.01, 1e-3),
    (3.7, 1.0, 1e-4),
    (8.0, 0.5, 1e-4),
    (0.4, 0.3, 1e-2),  # losses up to some hundreds
    (0.03, 0.5, 1.0),  # beyond what e^ε holds in float64
    (1.2, 1e-4, 1e-4),
    (20.0, 0.02, 1e-4),
    (1.0, 0.99, 1e-2),
]


def probabilities(pmf: Any) -> tuple[int, np.ndarray, float]:
    dense = pmf.to_dense_pmf()
    return dense._lower_loss, dense._probs, dense._infinity_mass  # the library has no public name for them


@pytest.mark.parametrize(("multiplier", "rate", "interval"), CASES)
def test_it_is_the_librarys(multiplier: float, rate: float, interval: float) -> None:
    ours = gaussian_pld(multiplier, rate, interval)
    theirs = from_gaussian_mechanism(multiplier, value_discretization_interval=interval, sampling_prob=rate)
    for mine, yours in ((ours._pmf_remove, theirs._pmf_remove), (ours._pmf_add, theirs._pmf_add)):
        (start, found, infinite), (their_start, expected, their_infinite) = map(probabilities, (mine, yours))
        assert start == their_start
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        assert infinite == pytest.approx(their_infinite, abs=1e-15)
    epsilon = ours.self_compose(40).get_epsilon_for_delta(1e-6)
    assert epsilon == pytest.approx(theirs.self_compose(40).get_epsilon_for_delta(1e-6), rel=1e-9)


def test_removing_and_adding_are_told_apart_under_sampling() -> None:
    sampled = gaussian_pld(1.0, 0.05, 1e-3)
    removed, added = (
        sampled._pmf_remove.get_delta_for_epsilon(1.0),
        sampled._pmf_add.get_delta_for_epsilon(1.0),
    )
    assert added < removed / 2
    whole = gaussian_pld(1.0, 1.0, 1e-3)
    assert whole._pmf_remove is whole._pmf_add
