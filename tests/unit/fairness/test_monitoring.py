"""A later evaluation beside the published one."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.fairness.errors import EvaluationError
from hansa.fairness.judging import Rules
from hansa.fairness.layout import Table
from hansa.fairness.monitoring import drift
from hansa.fairness.release import NoisyTables
from support.fairness import binary_tables, layout

FORM = layout(attributes={"sex": ("female", "male")}, tables=(Table(("sex",), 1),))
FAIR = {"female": (850, 150, 150, 850), "male": (860, 140, 140, 860)}
RULES = Rules(smallest_group=100)


def tables(cells, **noise) -> NoisyTables:
    return binary_tables(FORM, cells, **noise)


def changes(later, rules=RULES, metric="accuracy", published=FAIR):
    return {one.name: one.change for one in drift(tables(published), tables(later), metric, rules)}


def test_what_did_not_change_is_not_told_apart():
    assert set(changes(FAIR).values()) == {"not told apart"}
    assert set(changes({"female": (845, 155, 150, 850), "male": (866, 134, 140, 860)}).values()) == {
        "not told apart"
    }


def test_a_group_that_the_model_serves_worse_by_now_is_named():
    told = changes({"female": (700, 300, 300, 700), "male": FAIR["male"]})
    assert told == {"everybody": "worse", "sex=female": "worse", "sex=male": "not told apart"}
    assert (
        changes(FAIR, published={"female": (700, 300, 300, 700), "male": FAIR["male"]})["sex=female"]
        == "better"
    )


def test_of_a_rate_that_is_good_small_more_is_worse():
    later = {"female": (850, 150, 400, 600), "male": FAIR["male"]}
    assert changes(later, metric="false-positive-rate")["sex=female"] == "worse"


def test_a_group_that_became_small_is_said_to_be():
    told = drift(tables(FAIR), tables({"female": (40, 5, 5, 40), "male": FAIR["male"]}), "accuracy", RULES)
    female = next(one for one in told if one.group == "female")
    assert (female.change, female.after, female.moved) == ("not assessable", None, None)
    assert female.before is not None
    assert female.records_after == pytest.approx(90)


def test_one_liar_within_its_caps_makes_nothing_worse():
    later = {"female": (800, 200, 200, 800), "male": FAIR["male"]}
    assert changes(later)["sex=female"] == "worse"
    published, now = (tables(cells, cap=60) for cells in (FAIR, later))
    told = drift(published, now, "accuracy", Rules(smallest_group=100, liars=1))
    assert {one.change for one in told} == {"not told apart"}


def test_nothing_is_called_changed_more_often_than_agreed():
    rng = np.random.default_rng(3)
    called = 0
    for _ in range(200):
        pair = []
        for _ in range(2):
            counts = tables(FAIR).counts
            pair.append(
                NoisyTables(FORM, rng.poisson(counts) + rng.normal(0, 4, counts.shape), 4.0, 10**6, 5)
            )
        called += any(one.change in ("worse", "better") for one in drift(*pair, "accuracy", RULES))
    assert called <= 20  # 5 % of 200 are 10


def test_other_groups_are_not_compared():
    other = layout(attributes={"sex": ("f", "m")}, tables=(Table(("sex",), 1),))
    with pytest.raises(EvaluationError, match="other groups"):
        drift(tables(FAIR), binary_tables(other, {"f": FAIR["female"], "m": FAIR["male"]}), "accuracy", RULES)
