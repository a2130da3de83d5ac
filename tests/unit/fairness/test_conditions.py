"""Conditions: three outcomes each, what blocks, how they compose, and what an agreement states."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from hansa.agreement.document import read_agreement
from hansa.agreement.publication import Evaluation
from hansa.fairness.agreed import conditions_of, rules_of
from hansa.fairness.composition import And, Or, UnsafeNoGate, equalized_odds
from hansa.fairness.conditions import (
    AttackWithinClaim,
    EpsilonAtMost,
    GapAtMost,
    GroupLossAtMost,
    LossAtMost,
    MembersAtLeast,
    UtilityAtLeast,
    WorstGroupAtLeast,
)
from hansa.fairness.errors import EvaluationError
from hansa.fairness.judging import AttackBound, Case, Evidence, Judgement, NoInterval, Rules, judge
from hansa.fairness.layout import Table
from hansa.fairness.metrics import quantile
from hansa.fairness.release import NoisyTables
from support.fairness import binary_tables, layout

BY_SEX = layout(attributes={"sex": ("female", "male")}, tables=(Table(("sex",), 1),))
# hits, misses, false positives, true negatives: TPR 0.8 and 0.7, accuracy 0.85 and 0.8, of 1000 and 500 positives
TABLES = binary_tables(BY_SEX, {"female": (800, 200, 100, 900), "male": (350, 150, 50, 450)}, noise_sd=3.73)
EVIDENCE = Evidence(
    TABLES,
    epsilons={"alder": 0.9, "birch": 1.0},
    members=4,
    attacks={"alder": AttackBound(0.4, 0.9)},
)
RULES = Rules()
TPR = "true-positive-rate"


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        (UtilityAtLeast("accuracy", 0.80), "pass"),
        (UtilityAtLeast("accuracy", 0.83), "inconclusive"),
        (UtilityAtLeast("accuracy", 0.90), "fail"),
        (GapAtMost(TPR, "sex", 0.20), "pass"),
        (GapAtMost(TPR, "sex", 0.10), "inconclusive"),
        (GapAtMost(TPR, "sex", 0.01), "fail"),
        (WorstGroupAtLeast(TPR, "sex", 0.6), "pass"),
        (WorstGroupAtLeast(TPR, "sex", 0.7), "inconclusive"),
        (WorstGroupAtLeast(TPR, "sex", 0.78), "fail"),
        (EpsilonAtMost(1.0), "pass"),
        (EpsilonAtMost(0.95), "fail"),
        (MembersAtLeast(4), "pass"),
        (MembersAtLeast(5), "fail"),
        (AttackWithinClaim(), "pass"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_outcomes(condition, outcome):
    judged = judge(condition, EVIDENCE, RULES)
    assert judged.outcome == outcome
    assert judged.holds is (outcome == "pass")
    assert judged.name == condition.name
    assert any(character.isdigit() for character in judged.sentence)


def test_a_failure_says_by_how_much():
    judged = judge(UtilityAtLeast("accuracy", 0.90), EVIDENCE, RULES)
    assert judged.estimate.value == pytest.approx(0.8333, abs=1e-4)
    assert judged.limit == 0.9
    assert "is not at least 0.9" in judged.sentence
    assert "misses by 0.06667" in judged.sentence


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [
        ({"epsilons": {}}, "inconclusive"),
        ({"epsilons": {"alder": math.nan, "birch": 0.5}}, "inconclusive"),
        ({"epsilons": {"alder": math.nan, "birch": 1.5}}, "fail"),
        ({"epsilons": {"alder": math.inf}}, "fail"),
    ],
)
def test_an_epsilon_that_nobody_checked_does_not_pass(evidence, outcome):
    assert judge(EpsilonAtMost(1.0), Evidence(TABLES, **evidence), RULES).outcome == outcome


@pytest.mark.parametrize(
    ("attacks", "outcome"),
    [
        ({}, "inconclusive"),
        ({"a": AttackBound(math.nan, 1.0)}, "inconclusive"),
        ({"a": AttackBound(1.1, 1.0), "b": AttackBound(0.1, 1.0)}, "fail"),
    ],
)
def test_an_attack_that_was_not_run_does_not_pass(attacks, outcome):
    assert judge(AttackWithinClaim(), Evidence(TABLES, attacks=attacks), RULES).outcome == outcome


# --- groups that are too small, and exemptions --------------------------------------------------------------

SMALL = binary_tables(BY_SEX, {"female": (900, 100, 100, 900), "male": (95, 5, 50, 450)}, noise_sd=3.73)


@pytest.mark.parametrize("condition", [GapAtMost(TPR, "sex", 0.9), WorstGroupAtLeast(TPR, "sex", 0.1)])
def test_a_group_too_small_to_judge_blocks_unless_the_agreement_exempts_it(condition):
    blocked = judge(condition, Evidence(SMALL), RULES)
    assert (blocked.outcome, blocked.exempt, blocked.holds) == ("inconclusive", False, False)
    assert "sex=male is too small to judge: 100 positives" in blocked.sentence
    excused = judge(condition, Evidence(SMALL), Rules(exempt=frozenset({"sex=male"})))
    assert (excused.outcome, excused.holds) == ("inconclusive", True)
    assert judge(condition, Evidence(SMALL), Rules(smallest_group=50)).outcome == "pass"


def test_an_exemption_excuses_no_failure():
    rules = Rules(exempt=frozenset({"sex=male", "sex=female"}))
    assert not judge(WorstGroupAtLeast(TPR, "sex", 0.9), EVIDENCE, rules).holds
    assert not judge(GapAtMost(TPR, "sex", 0.01), EVIDENCE, rules).holds


def test_the_size_is_the_noisy_count():
    lifted = binary_tables(BY_SEX, {"female": (900, 100, 100, 900), "male": (180, 25, 50, 450)})
    counts = lifted.counts.copy()
    counts[counts == 180] = 170  # as noise might
    noisy = NoisyTables(BY_SEX, counts, 3.73, 10**6, 5)
    assert judge(WorstGroupAtLeast(TPR, "sex", 0.1), Evidence(lifted), RULES).outcome == "pass"
    assert judge(WorstGroupAtLeast(TPR, "sex", 0.1), Evidence(noisy), RULES).outcome == "inconclusive"


def test_nobody_at_all_is_inconclusive():
    nobody = NoisyTables(BY_SEX, np.full(BY_SEX.size, -1.0), 3.73, 100, 5)
    for condition in (UtilityAtLeast("auc", 0.6), UtilityAtLeast("balanced-accuracy", 0.6)):
        assert judge(condition, Evidence(nobody), RULES).outcome == "inconclusive"


# --- composition ------------------------------------------------------------------------------------------


class Says(NoInterval):
    def __init__(self, outcome, exempt=False):
        self.outcome, self.exempt = outcome, exempt

    name = "says"

    def judge(self, case: Case) -> Judgement:
        return Judgement(self.name, self.outcome, "1.", self.exempt)


P, F, I, E = Says("pass"), Says("fail"), Says("inconclusive"), Says("inconclusive", True)


@pytest.mark.parametrize(
    ("condition", "outcome", "holds"),
    [
        (And(P, P), "pass", True),
        (And(P, F, I), "fail", False),
        (And(P, I), "inconclusive", False),
        (And(P, E), "inconclusive", True),
        (And(E, I), "inconclusive", False),
        (Or(P, F), "pass", True),
        (Or(F, F), "fail", False),
        (Or(F, I), "inconclusive", False),
        (Or(F, E), "inconclusive", True),
        (Or(I, And(P, P)), "pass", True),
        (And(Or(F, P), UnsafeNoGate()), "pass", True),
    ],
)
def test_composition(condition, outcome, holds):
    judged = judge(condition, EVIDENCE, RULES)
    assert (judged.outcome, judged.holds) == (outcome, holds)


def test_no_condition_is_said_out_loud():
    for empty in (And, Or):
        with pytest.raises(EvaluationError, match="no condition at all"):
            empty()
    assert judge(UnsafeNoGate(), Evidence(SMALL), RULES).outcome == "pass"


def test_the_error_is_divided_among_all_intervals_and_evaluations():
    odds = equalized_odds("sex", 0.2)
    both = And(odds, WorstGroupAtLeast(TPR, "sex", 0.6), UtilityAtLeast("accuracy", 0.8), EpsilonAtMost(1))
    assert both.tests(BY_SEX) == 2 + 2 + 1
    assert Rules(evaluations=3).reading(5).z == quantile(0.05, 15)
    alone, together = (
        judge(c, EVIDENCE, Rules(evaluations=3)) for c in (UtilityAtLeast("accuracy", 0.8), both)
    )
    judged = next(leaf for leaf in together.leaves() if leaf.name == "accuracy >= 0.8")
    assert judged.estimate.half_width > alone.estimate.half_width


# --- loss by compression ----------------------------------------------------------------------------------

PAIRED = layout(attributes={"sex": ("female", "male")}, tables=(Table(("sex",), 1),), compared="decisions")


def compressed(female_lost, male_lost):
    """10,000 women and 1,000 men; the reference is right on all, the judged model wrong on some."""
    array = np.zeros(PAIRED.shape(PAIRED.tables[0]))
    for at, (n, lost) in enumerate(((10_000, female_lost), (1000, male_lost))):
        array[at, 1, 0, -1, 1], array[at, 1, 0, 0, 1] = n / 2 - lost, lost
        array[at, 0, 0, 0, 0] = n / 2
    return Evidence(NoisyTables(PAIRED, array.ravel(), 1.0, 10**6, 5))


def test_a_compression_that_hurts_one_group_is_refused_though_the_whole_is_fine():
    gate = And(LossAtMost("accuracy", 0.02), GroupLossAtMost("accuracy", "sex", 0.05))
    assert judge(gate, compressed(20, 5), RULES).outcome == "pass"
    hurt = judge(gate, compressed(20, 120), RULES)
    assert [part.outcome for part in hurt.parts] == ["pass", "fail"]
    assert "sex=male" in hurt.sentence
    assert judge(LossAtMost("accuracy", 0.0), compressed(0, 0), RULES).outcome == "inconclusive"


def test_a_loss_without_a_reference_is_bad_input():
    with pytest.raises(EvaluationError, match="no reference model"):
        judge(LossAtMost("accuracy", 0.02), EVIDENCE, RULES)


# --- limits and agreements ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: UtilityAtLeast("accuracy", 1.2),
        lambda: UtilityAtLeast("calibration-error", 0.5),
        lambda: GapAtMost(TPR, "sex", -0.1),
        lambda: WorstGroupAtLeast(TPR, "sex", math.nan),
        lambda: LossAtMost("accuracy", 2),
        lambda: GroupLossAtMost("accuracy", "sex", -1),
        lambda: EpsilonAtMost(math.inf),
        lambda: MembersAtLeast(0),
        lambda: Rules(error=0),
        lambda: Rules(liars=-1),
        lambda: Rules(evaluations=0),
    ],
)
def test_limits_that_decide_nothing_are_refused(make):
    with pytest.raises(EvaluationError):
        make()


def test_an_attribute_that_nobody_declared_is_refused():
    with pytest.raises(EvaluationError, match="'height' is no attribute"):
        judge(GapAtMost(TPR, "height", 0.1), EVIDENCE, RULES)


def test_an_agreement_states_its_conditions():
    terms = read_agreement(Path(__file__).parents[3] / "examples" / "credit.toml").terms
    names = [condition.name for condition in conditions_of(terms).conditions]
    assert names == ["epsilon at every member <= 1", "members >= 3"]
    fairness = terms.fairness.model_copy(
        update={"max_gap": 0.1, "min_worst_group": 0.6, "exempt": ("sex=male",)}
    )
    publication = terms.publication.model_copy(update={"min_quality": 0.7, "max_quality_loss": 0.01})
    evaluation = Evaluation(max_rows_per_cell=10, epsilon=0.5, share=0.2, evaluations=3, liars=1)
    more = terms.model_copy(
        update={"fairness": fairness, "publication": publication, "evaluation": evaluation}
    )
    assert len(conditions_of(more).conditions) == 1 + 3 + 3 + 1 + 3 + 2
    rules = rules_of(more)
    assert (rules.evaluations, rules.liars, rules.smallest_group) == (3, 1, 200)
    assert rules.exempt == frozenset({"sex=male"})
    private = terms.privacy.model_copy(update={"mechanism": "none", "epsilon": None})
    assert conditions_of(terms.model_copy(update={"privacy": private})) == UnsafeNoGate()
