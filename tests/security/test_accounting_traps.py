"""Ways in which published software has reported too small an ε, each named, and what happens to it here."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import PldAccountant, epsilon_spent
from hansa.privacy.crosscheck import EVERYWHERE, checked_epsilon
from hansa.privacy.errors import AccountantsDisagreeError
from hansa.privacy.events import Spend, event_to_json, gaussian, poisson_gaussian
from hansa.privacy.lower import SumAttack
from hansa.privacy.rdp import RdpAccountant
from hansa_client.accounting import member_checks
from hansa_client.training import TrainingPlan
from support.leagues import frozen_league

DELTA = 1e-5


def test_dp_accounting_0_6_0_ignores_the_count_of_randomized_response():
    """The trap is there, and the event is refused: what cannot be composed by count is not charged."""
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    answer = dp_accounting.RandomizedResponseDpEvent(0.5, 4)
    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    once, five = PLDAccountant(relation), PLDAccountant(relation)
    once.compose(answer, 1)
    five.compose(answer, 5)
    assert five.get_epsilon(1e-9) == once.get_epsilon(1e-9) > 0  # five times as much is the truth
    with pytest.raises(PrivacyParameterError, match="not charged"):
        event_to_json(answer)
    with pytest.raises(PrivacyParameterError, match="not known"):
        epsilon_spent(
            [Spend({"type": "RandomizedResponse", "noise_parameter": 0.5, "num_buckets": 4}, 5)], DELTA
        )


class ForgetsCounts:
    """What dp_accounting does to randomised response, done to every event."""

    name = "forgetful"

    def epsilon(self, spends, delta):
        return PldAccountant().epsilon([Spend(spend.event, 1) for spend in spends], delta)


@pytest.mark.parametrize("event", [gaussian(5.0), poisson_gaussian(0.1, 1.0)], ids=["gaussian", "sampled"])
def test_an_accountant_that_forgets_counts_is_caught_without_opacus(event):
    with pytest.raises(AccountantsDisagreeError, match="attack"):
        checked_epsilon([Spend(event, 100)], DELTA, EVERYWHERE, record=ForgetsCounts())


class Gdp:
    """Opacus' GDP accountant: a central limit theorem, without its error."""

    name = "gdp"

    def epsilon(self, spends, delta):
        from opacus.accountants import GaussianAccountant

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says itself that it may underestimate
            accountant = GaussianAccountant()
        accountant.history = [
            (spend.event["event"]["noise_multiplier"], spend.event["sampling_probability"], spend.count)
            for spend in spends
        ]
        return float(accountant.get_epsilon(delta))


def test_gdp_underestimates_and_is_caught():
    spends = [Spend(poisson_gaussian(0.04, 1.5), 2250)]
    assert 6.59 <= Gdp().epsilon(spends, DELTA) <= 6.61 < epsilon_spent(spends, DELTA)
    with pytest.raises(AccountantsDisagreeError, match="prv"):
        checked_epsilon(spends, DELTA, member_checks(), record=Gdp())


def test_shuffled_batches_accounted_as_poisson():
    """One epoch of 100 fixed batches: each unit is in exactly one, so it is one Gaussian release, whatever the order."""
    as_poisson = epsilon_spent([Spend(poisson_gaussian(0.01, 0.8), 100)], DELTA)
    as_it_is = epsilon_spent([Spend(gaussian(0.8), 1)], DELTA)
    assert as_poisson == pytest.approx(1.51, abs=0.01)
    assert as_it_is == pytest.approx(5.68, abs=0.01)
    # an attacker who knows the order is already beyond what the Poisson figure promises
    assert SumAttack().epsilon([Spend(gaussian(0.8), 1)], DELTA) > as_poisson + 4


def test_batch_size_that_follows_the_data():
    """Opacus divides by int(n · q): with 29 or 30 records the noise itself has another size, and shows who is there."""
    dimension, rate, multiplier = 2000, 0.1, 5.0
    draws = np.random.default_rng(1).standard_normal((200, dimension)) * multiplier
    scales = {records: 1 / int(records * rate) for records in (29, 30)}
    norms = {
        records: np.linalg.norm(draws[half] * scale, axis=1)
        for half, (records, scale) in zip((slice(0, 100), slice(100, 200)), scales.items(), strict=True)
    }
    assert norms[29].min() > norms[30].max()  # 100 of 100 guesses are right
    claimed = epsilon_spent([Spend(poisson_gaussian(rate, multiplier), 1)], DELTA)
    assert claimed < 0.1  # which allows 53 of 100

    # here the divisor is a public number of the agreement: a plan is made without data
    plan = TrainingPlan.of(frozen_league()[0], "c")
    assert plan.divisor == plan.sampling_rate * 20
    assert plan.spend() is not None


class FreshEachRound:
    """Flower's Opacus example: a new engine in every call, which reports its own round."""

    name = "fresh"

    def __init__(self, steps_per_round: int) -> None:
        self.steps_per_round = steps_per_round

    def epsilon(self, spends, delta):
        return PldAccountant().epsilon([Spend(s.event, self.steps_per_round) for s in spends], delta)


def test_a_fresh_engine_each_round_forgets_composition_and_is_caught():
    event, steps = poisson_gaussian(32 / 2000, 1.0), 62
    fresh = FreshEachRound(steps)
    true = {}
    for rounds in (10, 50, 100):
        spends = [Spend(event, rounds * steps)]
        assert fresh.epsilon(spends, DELTA) == pytest.approx(0.98, abs=0.03)
        true[rounds] = epsilon_spent(spends, DELTA)
        with pytest.raises(AccountantsDisagreeError, match="attack"):
            checked_epsilon(spends, DELTA, record=fresh)
    assert list(true.values()) == pytest.approx([2.41, 5.53, 8.17], abs=0.05)


def test_pld_at_a_tiny_delta_is_off_the_truth():
    """The FFT's rounding is as large as δ: what dp_accounting 0.6.0 says depends on the processor, and is not asked.

    It has been seen below what an attack achieves, and at four times what RDP proves.
    """
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    rate, multiplier, steps, delta = 0.03291465102348293, 80.84145992775542, 1473896, 1e-11
    theirs = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-4)
    theirs.compose(
        dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(multiplier)), steps
    )
    spends = [Spend(poisson_gaussian(rate, multiplier), steps)]
    least, most = SumAttack().epsilon(spends, delta), RdpAccountant().epsilon(spends, delta)
    assert least < most
    assert not least <= theirs.get_epsilon(delta) <= most
    with pytest.raises(PrivacyParameterError, match="PLD cannot tell"):
        epsilon_spent(spends, delta)
    assert not checked_epsilon(spends, 1e-9).not_checked


def test_replace_one_is_not_what_is_stated():
    """ε here is of add-or-remove-one; replacing a record costs more, and no sentence may mix them up."""
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    replaced = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    replaced.compose(dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.0)), 1000)
    ours = epsilon_spent([Spend(poisson_gaussian(0.01, 1.0), 1000)], DELTA)
    assert ours == pytest.approx(1.8282, abs=1e-3)
    assert replaced.get_epsilon(DELTA) == pytest.approx(2.8434, abs=1e-3)


def test_no_answer_is_ever_a_number_that_is_none():
    for spends in (
        [Spend(gaussian(1e-3), 1)],
        [Spend(gaussian(1e8), 10**6)],
        [Spend(poisson_gaussian(1e-9, 0.5), 1)],
    ):
        answer = epsilon_spent(spends, DELTA)
        assert answer >= 0
        assert not math.isnan(answer)
