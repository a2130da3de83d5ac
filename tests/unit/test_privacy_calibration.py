"""Calibration at budgets that nobody means: an answer or a refusal, and neither late."""

from __future__ import annotations

import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.calibration import calibrated_noise_multiplier
from hansa.privacy.events import Spend
from hansa.privacy.sampling import PoissonSampling

HALF = PoissonSampling(0.5)


@pytest.mark.parametrize("epsilon", [1e-9, 1e-4, 1e6, 1e300])
def test_a_budget_out_of_all_proportion_has_its_noise(epsilon: float) -> None:
    """At 1e-9 the search divided by an ε of zero; at 1e6 it went on for minutes."""
    multiplier = calibrated_noise_multiplier(epsilon, 1e-3, HALF, 20)
    if epsilon < 1:
        assert epsilon_spent([Spend(HALF.event(multiplier), 20)], 1e-3) <= epsilon
    else:
        assert multiplier == 0.05


def test_a_delta_that_the_accountant_does_not_tell_is_refused_before_anything_is_searched() -> None:
    with pytest.raises(PrivacyParameterError, match="PLD cannot tell"):
        calibrated_noise_multiplier(1.0, 1e-300, HALF, 20)
