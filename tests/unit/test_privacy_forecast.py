"""Before signing: how many rounds a member can afford, and what a unit can lose over all datasets."""

from __future__ import annotations

import json
import math

import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.book import BudgetBook
from hansa.privacy.calibration import calibrated_noise_multiplier
from hansa.privacy.charges import charges_of
from hansa.privacy.composition import Adding, FixedInAdvance, RenyiFilter
from hansa.privacy.datasets import total_loss
from hansa.privacy.errors import BudgetExceededError
from hansa.privacy.forecast import forecast
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Grant, Limit
from hansa.privacy.sampling import PoissonSampling
from support.leagues import terms_of

TERMS = terms_of().terms  # ε = 5 at δ = 1e-3, 4 rounds of 2 steps
IDS = [f"{number:032x}" for number in range(6)]


def member(epsilon: float, rule=None, **more) -> BudgetBook:
    return BudgetBook.begin(Grant(IDS[0], Limit(PrivacyLoss(epsilon, 1e-3), rule or Adding(1)), **more))


def test_a_new_member_with_the_agreements_own_limit_affords_all_of_it():
    seen = forecast(TERMS, member(5.0))
    assert seen.fits
    assert (seen.rounds, seen.affordable) == (4, 4)
    assert seen.noise_multiplier == seen.noise_multiplier_needed
    assert "4 of 4 rounds fit" in seen.text()
    assert "which fits" in seen.text()


def test_what_does_not_fit_is_told_in_rounds_and_in_noise():
    book = member(3.0)
    seen = forecast(TERMS, book)
    assert not seen.fits
    assert 0 < seen.affordable < 4
    assert book.fits(charges_of(TERMS, seen.noise_multiplier, rounds=seen.affordable))
    assert not book.fits(charges_of(TERMS, seen.noise_multiplier, rounds=seen.affordable + 1))
    assert seen.noise_multiplier_needed > seen.noise_multiplier
    assert book.fits(charges_of(TERMS, seen.noise_multiplier_needed))
    assert "does not fit" in seen.text()
    assert f"{seen.noise_multiplier_needed:.4g}" in seen.text()


def test_a_forecast_is_what_a_reservation_then_does():
    book = member(9.0, FixedInAdvance())
    first = forecast(TERMS, book)
    assert first.fits
    book.reserve("run 1", charges_of(TERMS, first.noise_multiplier))
    book.reserve("run 2", charges_of(TERMS, first.noise_multiplier))
    third = forecast(TERMS, book)
    assert 0 < third.affordable < 4
    book.reserve("run 3", charges_of(TERMS, first.noise_multiplier, rounds=third.affordable))
    assert not book.fits(charges_of(TERMS, first.noise_multiplier, rounds=1))
    assert forecast(TERMS, book).affordable == 0


def test_asking_changes_nothing():
    book = member(5.0)
    before = book.state()
    forecast(TERMS, book)
    assert book.state() == before
    assert book.spent() == ()


def test_retries_are_counted_in():
    book = member(5.0)
    assert forecast(TERMS, book, retries=1).affordable == 3
    assert "1 retries included" in forecast(TERMS, book, retries=1).text()


def test_the_frozen_noise_is_taken_where_there_is_one():
    multiplier = calibrated_noise_multiplier(5.0, 1e-3, PoissonSampling(0.5), 8)
    assert forecast(TERMS, member(5.0), multiplier * 2).quotes[0].together < 2.5
    assert forecast(TERMS, member(5.0), multiplier) == forecast(TERMS, member(5.0))


def test_under_distributed_noise_both_limits_are_forecast():
    terms = terms_of(privacy={"mechanism": "distributed", "colluding": 1}, training={"rounds": 8}).terms
    limit = Limit(PrivacyLoss(5.0, 1e-3), Adding(1))
    narrow = forecast(terms, member(5.0, colluding=limit, coalition=1))
    wide = forecast(terms, member(10.0, colluding=limit, coalition=1))
    assert [quote.fits for quote in narrow.quotes] == [False, True]
    assert [quote.fits for quote in wide.quotes] == [True, True]
    assert narrow.affordable < wide.affordable == 8
    assert "any 1 other member and all outside" in narrow.text()


def test_a_forecast_is_plain_json():
    book = member(5.0)
    book.reserve("run", charges_of(TERMS, 2.0))
    plain = json.loads(json.dumps(forecast(TERMS, book).as_dict(), allow_nan=False))
    assert plain["affordable_rounds"] == 0
    assert plain["fits"] is False
    assert plain["noise_multiplier_needed"] is None  # δ was divided among one reservation
    assert plain["limits"][0]["epsilon_with_run"] is None
    assert plain["limits"][0]["limit"] == {"epsilon": 5.0, "delta": 1e-3}
    assert plain["limits"][0]["run_admitted"] is False


def test_a_second_run_of_a_grant_for_one_is_told_with_the_reason():
    book = member(50.0)
    book.reserve("run", charges_of(TERMS, 2.0))
    text = forecast(TERMS, book).text()
    assert "no further run is admitted, whatever it costs" in text
    assert "One run, at its exact ε" in text
    assert "--reservations" in text
    assert "inf" not in text
    assert "noise would let" not in text  # no number of this run is what is wrong
    with pytest.raises(BudgetExceededError) as caught:
        book.reserve("again", charges_of(TERMS, 2.0))
    assert "no further run is admitted" in caught.value.cause
    assert "--reservations" in caught.value.what_to_do


def test_an_agreement_without_privacy_has_no_forecast():
    terms = terms_of(privacy={"mechanism": "none", "epsilon": None, "delta": None}).terms
    for multiplier in (None, 1.0):
        with pytest.raises(PrivacyParameterError, match="no price"):
            forecast(terms, member(5.0), multiplier)


def granted(
    number: int, epsilon: float, *, apart: tuple[int, ...] = (), shared: float | None = None
) -> Grant:
    rule = RenyiFilter(6)
    colluding = None if shared is None else Limit(PrivacyLoss(shared, 1e-6), rule)
    return Grant(
        IDS[number],
        Limit(PrivacyLoss(epsilon, 1e-6), rule),
        colluding,
        0 if shared is None else 2,
        tuple(IDS[other] for other in apart),
    )


def test_datasets_that_may_share_units_add_up():
    assert total_loss([granted(0, 1.0)]) == PrivacyLoss(1.0, 1e-6)
    both = total_loss([granted(0, 1.0), granted(1, 2.0)])
    assert both == PrivacyLoss(3.0, 2e-6)


def test_declared_disjoint_they_compose_in_parallel():
    one_sided = [granted(0, 1.0), granted(1, 2.0, apart=(0,))]
    assert total_loss(one_sided) == PrivacyLoss(2.0, 1e-6)
    # 0 and 1 are disjoint, 2 overlaps both: a unit is in {0, 2} or in {1, 2}
    assert total_loss([*one_sided, granted(2, 4.0)]) == PrivacyLoss(6.0, 2e-6)
    # pairwise disjoint
    assert total_loss([*one_sided, granted(2, 4.0, apart=(0, 1))]) == PrivacyLoss(4.0, 1e-6)


def test_the_total_is_over_the_worst_set_of_datasets():
    grants = [
        granted(0, 1, apart=(1, 2)),
        granted(1, 2, apart=(3,)),
        granted(2, 3),
        granted(3, 4, apart=(2,)),
    ]
    # overlapping sets: {0, 3} 5, {1, 2} 5; all others are smaller
    assert total_loss(grants).epsilon == 5
    assert total_loss(list(reversed(grants))) == total_loss(grants)


def test_many_overlapping_datasets_are_added_quickly():
    grants = [Grant(f"{n:032x}", granted(0, 1.0).everyone) for n in range(200)]
    assert total_loss(grants).epsilon == pytest.approx(200.0)
    assert total_loss(grants).delta == pytest.approx(2e-4)


def test_against_a_coalition_a_grant_without_a_limit_for_it_counts_in_full():
    grants = [granted(0, 4.0, shared=1.0), granted(1, 3.0)]
    assert total_loss(grants).epsilon == 7
    assert total_loss(grants, 1).epsilon == total_loss(grants, 2).epsilon == 4
    assert total_loss(grants, 3).epsilon == 7


@pytest.mark.parametrize("grants", [[], [granted(0, 1.0), granted(0, 2.0)]])
def test_a_total_needs_grants_for_distinct_datasets(grants):
    with pytest.raises(PrivacyParameterError):
        total_loss(grants)


def test_deltas_that_add_up_to_one_promise_nothing_and_say_so():
    wide = [Grant(IDS[n], Limit(PrivacyLoss(1.0, 0.6), Adding(1))) for n in range(2)]
    with pytest.raises(PrivacyParameterError, match="δ"):
        total_loss(wide)
    assert math.isfinite(total_loss([wide[0]]).epsilon)


def in_a_row(count: int, *, apart: bool) -> list[Grant]:
    """Budgets of ε = 1 and 2 in turn, each apart from the next one, or from none."""
    ids = [f"{number:032x}" for number in range(count)]
    limits = [Limit(PrivacyLoss(float(1 + number % 2), 1e-6), RenyiFilter(6)) for number in range(count)]
    return [
        Grant(ids[number], limit, None, 0, tuple(ids[number + 1 : number + 2]) if apart else ())
        for number, limit in enumerate(limits)
    ]


def test_many_entangled_datasets_are_bounded_from_above_and_at_once():
    assert total_loss(in_a_row(16, apart=True)).epsilon == 16  # exact: every other one
    assert 200 <= total_loss(in_a_row(200, apart=True)).epsilon <= 300


def test_any_number_of_datasets_adds_up():
    assert total_loss(in_a_row(2000, apart=False)).epsilon == 3000
