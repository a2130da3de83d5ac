"""Records of a budget: what they say survives canonical JSON, and nothing else is read."""

from __future__ import annotations

import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.composition import Adding, AnyOf, FixedInAdvance, RenyiFilter
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import (
    Abort,
    Close,
    Confirmation,
    Grant,
    Limit,
    Reservation,
    new_dataset_id,
)
from support.budgets import DATASET, DELTA, charge, grant

OTHER = "f" * 32
RECORDS = [
    grant(4.0),
    grant(4.0, Adding(3), shared=1.5, coalition=2),
    Grant(DATASET, Limit(PrivacyLoss(1, DELTA), AnyOf((Adding(2), RenyiFilter(5)))), disjoint_from=(OTHER,)),
    Reservation("run", "agreement", (charge(10),)),
    Reservation("run", "", (charge(10, shared=40.0), charge(2, kind="evaluation"))),
    Confirmation("run", "round 1", "training", 2),
    Abort("run", "round 2", "training", 2),
    Close("run", {"training": 4, "evaluation": 0}),
]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grant("patients-2026", grant().everyone),  # an id says nothing about content
        lambda: Grant("A" * 32, grant().everyone),
        lambda: Grant(DATASET, grant().everyone, disjoint_from=(DATASET,)),
        lambda: Grant(DATASET, grant().everyone, disjoint_from=("x",)),
        lambda: Grant(DATASET, grant().everyone, coalition=1),
        lambda: Grant(DATASET, grant().everyone, grant().everyone),
        lambda: Grant(DATASET, grant().everyone, grant().everyone, -1),
        lambda: Reservation("run", "", ()),
        lambda: Reservation("run", "", (charge(1), charge(2))),
    ],
)
def test_records_without_a_meaning_cannot_be_made(make):
    with pytest.raises(PrivacyParameterError):
        make()


def test_dataset_ids_are_random():
    ids = {new_dataset_id() for _ in range(100)}
    assert len(ids) == 100
    for dataset in ids:
        assert Grant(dataset, grant().everyone).dataset == dataset


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(-1.0, DELTA), (float("nan"), DELTA), (1.0, 0.0), (1.0, 1.0), (1.0, float("nan"))],
)
def test_losses_out_of_range_cannot_be_made(epsilon, delta):
    with pytest.raises(PrivacyParameterError):
        PrivacyLoss(epsilon, delta)


def test_losses_add_up():
    assert PrivacyLoss(1, 0.25) + PrivacyLoss(0.5, 0.5) == PrivacyLoss(1.5, 0.75)
    with pytest.raises(PrivacyParameterError):
        PrivacyLoss(1, 0.6) + PrivacyLoss(1, 0.6)


def test_whom_a_limit_holds_against_is_said_in_words():
    assert [words for words, *_ in grant().limits()] == ["everyone"]
    assert [words for words, *_ in grant(shared=1.0).limits()][1] == "any 1 other member and all outside"
    assert grant(shared=1.0, coalition=3).limits()[1][:2] == ("any 3 other members and all outside", 3)


def test_a_rule_is_part_of_the_grant():
    assert grant(4.0, RenyiFilter(5)) != grant(4.0, FixedInAdvance())
