"""Rules of composition: what each counts, and what it refuses to assume."""

from __future__ import annotations

import json
import math

import pytest

from hansa.canonical import canonical_json
from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.composition import (
    Adding,
    AnyOf,
    Block,
    FixedInAdvance,
    RenyiFilter,
    rule_for,
    rule_from_json,
)
from hansa.privacy.crosscheck import checked_epsilon
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.renyi import best_order, epsilon_of_renyi, renyi_loss

DELTA = 1e-5
RUN = Spend(poisson_gaussian(0.05, 4.3), 500)  # ε = 1 at δ = 1e-5
SHORT = Spend(RUN.event, 50)
WHOLE = Block((RUN,), (RUN,))
ENDED = Block((RUN,), (SHORT,))
UNUSED = Block((RUN,), ())
RULES = [
    FixedInAdvance(),
    Adding(3),
    RenyiFilter(6),
    AnyOf((Adding(3), RenyiFilter(6))),
    AnyOf((RenyiFilter(4), RenyiFilter(8), Adding(2))),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
class TestEveryRule:
    def test_nothing_costs_nothing(self, rule):
        assert rule.epsilon([], DELTA) == 0
        assert rule.epsilon([UNUSED], DELTA) == 0

    def test_more_reservations_cost_more(self, rule):
        assert 0 < rule.epsilon([WHOLE], DELTA) < rule.epsilon([WHOLE, WHOLE], DELTA)

    def test_no_rule_claims_less_than_everything_fixed_beforehand(self, rule):
        for count in (1, 2, 3):
            fixed = FixedInAdvance().epsilon([WHOLE] * count, DELTA)
            assert rule.epsilon([WHOLE] * count, DELTA) >= fixed * (1 - 1e-9)

    def test_a_coarser_grid_never_says_less(self, rule):
        fine = rule.epsilon([WHOLE, ENDED], DELTA)
        assert rule.epsilon([WHOLE, ENDED], DELTA, 1e-3) >= fine * (1 - 1e-9)

    def test_an_unused_reservation_costs_nothing(self, rule):
        assert rule.epsilon([WHOLE, UNUSED], DELTA) == rule.epsilon([WHOLE], DELTA)

    def test_no_privacy_is_infinite(self, rule):
        nothing = Spend({"type": "NonPrivate"}, 1)
        assert rule.epsilon([WHOLE, Block((nothing,), (nothing,))], DELTA) == math.inf

    def test_it_survives_canonical_json(self, rule):
        assert rule_from_json(json.loads(canonical_json(rule.as_dict()))) == rule


def test_fixed_in_advance_is_pld_over_everything():
    assert FixedInAdvance().epsilon([WHOLE, ENDED], DELTA) == epsilon_spent([RUN, SHORT], DELTA)


def test_adding_divides_delta_and_adds_epsilon():
    part = checked_epsilon([RUN], DELTA / 3).epsilon
    assert Adding(3).epsilon([WHOLE, WHOLE], DELTA) == pytest.approx(2 * part)
    assert Adding(1).epsilon([WHOLE], DELTA) == epsilon_spent([RUN], DELTA)


def test_adding_admits_no_more_reservations_than_delta_was_divided_among():
    assert Adding(2).epsilon([WHOLE] * 3, DELTA) == math.inf
    assert Adding(2).epsilon([WHOLE, UNUSED, WHOLE], DELTA) < math.inf


def test_adding_gives_nothing_back_for_a_run_that_ended_early():
    """Its end may have been chosen for what it showed, and (ε, δ) of a whole run says nothing about its parts."""
    assert Adding(3).epsilon([ENDED], DELTA) == Adding(3).epsilon([WHOLE], DELTA)


def test_a_delta_that_was_divided_too_often_is_refused():
    with pytest.raises(PrivacyParameterError, match="cannot tell"):
        Adding(10_000).epsilon([WHOLE], 1e-6)
    assert RenyiFilter(6).epsilon([WHOLE], 1e-12) < math.inf  # closed forms have no such floor


def test_a_renyi_filter_counts_releases_one_by_one():
    rule = RenyiFilter(6)
    expected = epsilon_of_renyi(renyi_loss([RUN, SHORT], 6), 6, DELTA)
    assert rule.epsilon([WHOLE, ENDED], DELTA) == pytest.approx(expected)
    assert rule.epsilon([ENDED], DELTA) < rule.epsilon([WHOLE], DELTA)


def test_a_choice_of_filters_pays_for_choosing():
    filters = (Adding(3), RenyiFilter(6))
    both = AnyOf(filters)
    for blocks in ([WHOLE], [WHOLE] * 2, [WHOLE] * 3):
        halves = [rule.epsilon(blocks, DELTA / 2) for rule in filters]
        assert both.epsilon(blocks, DELTA) == min(halves)
        assert both.epsilon(blocks, DELTA) > min(rule.epsilon(blocks, DELTA) for rule in filters)


def test_many_small_runs_are_cheaper_under_a_filter_and_one_run_by_adding():
    many = [WHOLE] * 16
    assert RenyiFilter(5).epsilon(many, DELTA) < 0.3 * Adding(16).epsilon(many, DELTA)
    assert Adding(1).epsilon([WHOLE], DELTA) < 0.5 * RenyiFilter(5).epsilon([WHOLE], DELTA)


def test_the_rule_for_a_limit_is_known_beforehand():
    loss = PrivacyLoss(8.0, DELTA)
    assert rule_for(loss) == Adding(1)
    assert rule_for(loss, 4) == AnyOf((Adding(4), RenyiFilter(best_order(8.0, DELTA / 2))))


def test_a_rule_that_could_never_tell_an_epsilon_is_not_granted():
    rule_for(PrivacyLoss(8.0, 1e-6), 400)
    with pytest.raises(PrivacyParameterError, match="among 600 reservations") as caught:
        rule_for(PrivacyLoss(8.0, 1e-6), 600)
    assert "fewer reservations" in caught.value.what_to_do
    with pytest.raises(PrivacyParameterError):
        rule_for(PrivacyLoss(8.0, 9e-10))
    with pytest.raises(PrivacyParameterError):
        rule_for(PrivacyLoss(8.0, 1e-6), 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Adding(0),
        lambda: Adding(10_001),
        lambda: Adding(True),
        lambda: RenyiFilter(1),
        lambda: AnyOf((Adding(1),)),
        lambda: AnyOf((Adding(1), FixedInAdvance())),  # it is no filter
        lambda: AnyOf((Adding(1), AnyOf((Adding(1), RenyiFilter(3))))),
    ],
)
def test_rules_without_a_theorem_cannot_be_made(make):
    with pytest.raises(PrivacyParameterError):
        make()


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"rule": "advanced"},
        {"rule": "adding"},
        {"rule": "adding", "reservations": 2, "more": 1},
        {"rule": "adding", "reservations": "2"},
        {"rule": "renyi-filter", "order": 2.5},
        {"rule": "any-of", "rules": [{"rule": "adding", "reservations": 1}, {"rule": "fixed-in-advance"}]},
    ],
)
def test_an_unknown_rule_is_refused_never_replaced(value):
    with pytest.raises(PrivacyParameterError):
        rule_from_json(value)


def test_several_kinds_in_one_reservation_are_composed_exactly():
    table = Spend(gaussian(20.0), 5)
    block = Block((RUN, table), (RUN, table))
    exact = epsilon_spent([RUN, table], DELTA)
    assert Adding(1).epsilon([block], DELTA) == exact
    assert exact < epsilon_spent([RUN], DELTA) + epsilon_spent([table], DELTA)
