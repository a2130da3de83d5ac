"""What a league can decide at all, said beforehand, against what happens when such leagues are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.fairness.composition import And
from hansa.fairness.conditions import (
    EpsilonAtMost,
    GapAtMost,
    GroupLossAtMost,
    LossAtMost,
    UtilityAtLeast,
    WorstGroupAtLeast,
)
from hansa.fairness.errors import EvaluationError
from hansa.fairness.judging import Evidence, Rules, judge
from hansa.fairness.layout import Table
from hansa.fairness.metrics import Reading, measure
from hansa.fairness.power import Assumed, decidability, expected_counts
from hansa.fairness.release import EvaluationPlan, NoisyTables
from hansa.fairness.views import view
from support.fairness import layout

FORM = layout(attributes={"sex": ("female", "male")}, tables=(Table(("sex",), 1),), compared="decisions")
PLAN = EvaluationPlan(FORM, 3.73, 3000)
ASSUMED = Assumed(records=10_000, quality=0.85, prevalence=(0.8, 0.2))
GAP = GapAtMost("auc", "sex", 0.05)


def one(condition, assumed=ASSUMED, plan=PLAN, rules=None):
    found = decidability(condition, plan, 5, assumed, Rules() if rules is None else rules)
    assert len(found) == 1
    return found[0]


def test_expected_tables_are_what_was_assumed():
    counts = expected_counts(FORM, ASSUMED)
    tables = NoisyTables(FORM, counts, 0.0, 3000, 5)
    assert counts.sum() == pytest.approx(10_000)
    for group in ({}, {"sex": "male"}):
        seen = view(tables, group)
        assert measure(seen, "prevalence", Reading(2)).value == pytest.approx(0.2)
        assert measure(seen, "auc", Reading(2)).value == pytest.approx(0.85, abs=0.01)
    several = layout(labels=("a", "b", "c"), tables=(Table(("sex",), None),), compared="decisions")
    rate = measure(
        view(NoisyTables(several, expected_counts(several, ASSUMED_3), 0, 1, 5)), "accuracy", Reading(2)
    )
    assert rate.value == pytest.approx(0.85)


ASSUMED_3 = Assumed(records=3000, shares={"sex=female": 0.7, "sex=male": 0.1})


def test_shares_that_are_told_are_kept():
    form = layout(tables=(Table(("sex", "age"), 1),))
    tables = NoisyTables(form, expected_counts(form, ASSUMED_3), 0, 1, 5)
    assert view(tables, {"sex": "male"}).counts.sum() == pytest.approx(300)
    assert view(tables, {"age": "<45"}).counts.sum() == pytest.approx(1000)


def test_larger_leagues_decide_what_small_ones_cannot():
    assert one(GAP).decidable
    small = one(GAP, Assumed(records=1500, quality=0.85))
    assert not small.decidable
    assert "cannot pass" in small.sentence
    assert small.half_width > small.distance == pytest.approx(0.05)


def test_more_noise_evaluations_or_liars_decide_less():
    widths = [
        one(GAP).half_width,
        one(GAP, plan=EvaluationPlan(FORM, 13.3, 3000)).half_width,
        one(GAP, rules=Rules(evaluations=10)).half_width,
        one(GAP, rules=Rules(liars=1)).half_width,
    ]
    assert min(widths[1:]) > widths[0]


def test_a_gate_that_can_never_pass_is_told():
    found = one(UtilityAtLeast("auc", 0.95))
    assert found.distance < 0
    assert (found.decidable, found.probability < 1e-6) == (False, True)


def test_a_group_too_small_to_judge_is_told():
    scarce = Assumed(records=10_000, shares={"sex=male": 0.05}, prevalence=(0.8, 0.2))
    found = decidability(WorstGroupAtLeast("auc", "sex", 0.7), PLAN, 5, scarce, Rules())
    assert [part.decidable for part in found] == [True, False]
    assert "too small" in found[1].sentence


def test_every_measured_part_is_told_and_nothing_else():
    gate = And(
        GAP,
        UtilityAtLeast("auc", 0.8),
        GroupLossAtMost("accuracy", "sex", 0.05),
        EpsilonAtMost(1),
        LossAtMost("accuracy", 0.05),
    )
    assert len(decidability(gate, PLAN, 5, ASSUMED, Rules())) == 1 + 1 + 2 + 1


@pytest.mark.parametrize(
    ("gate", "low", "high"),
    [
        (GapAtMost("accuracy", "sex", 0.05), 0.0, 0.0),
        (GapAtMost("accuracy", "sex", 0.13), 0.3, 0.99),
        (UtilityAtLeast("accuracy", 0.71), 0.3, 0.99),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_probability_is_how_often_such_leagues_pass(gate, low, high):
    """Leagues drawn as assumed, with noise."""
    assumed, rng, times = Assumed(2000, 0.85), np.random.default_rng(41), 150
    told = one(gate, assumed).probability
    assert low <= told <= high
    shares, sd, passed = expected_counts(FORM, assumed) / assumed.records, PLAN.noise_sd(5), 0
    for _ in range(times):
        counts = rng.multinomial(int(assumed.records), shares / shares.sum()) + rng.normal(0, sd, FORM.size)
        passed += judge(gate, Evidence(NoisyTables(FORM, counts, sd, 3000, 5)), Rules()).outcome == "pass"
    assert abs(told - passed / times) < 0.12


@pytest.mark.parametrize(
    "changes",
    [{"records": 0}, {"quality": 0.4}, {"quality": 1.0}, {"shares": {"sex=male": 2}}, {"flips": -1}],
)
def test_leagues_without_a_meaning_are_refused(changes):
    with pytest.raises(EvaluationError):
        Assumed(**{"records": 100} | changes)


def test_prevalences_add_up():
    with pytest.raises(EvaluationError, match="add up to 1"):
        expected_counts(FORM, Assumed(records=100, prevalence=(0.5, 0.1)))
