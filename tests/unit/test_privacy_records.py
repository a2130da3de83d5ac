"""Records of a budget: what they say survives canonical JSON, and nothing else is read."""

from __future__ import annotations

import json

import pytest

from hansa.canonical import canonical_json
from hansa.errors import ExitStatus, PrivacyParameterError
from hansa.privacy.composition import Adding, AnyOf, FixedInAdvance, RenyiFilter
from hansa.privacy.errors import BudgetRecordError
from hansa.privacy.events import gaussian, poisson_gaussian
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import (
    Abort,
    Close,
    Confirmation,
    Grant,
    Limit,
    Reservation,
    new_dataset_id,
    record_from_json,
    record_to_json,
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


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
class TestEveryRecord:
    def test_it_survives_canonical_json(self, record):
        assert record_from_json(json.loads(canonical_json(record_to_json(record)))) == record

    def test_a_member_more_or_less_is_no_record(self, record):
        plain = dict(record_to_json(record))
        with pytest.raises(BudgetRecordError):
            record_from_json({**plain, "more": 1})
        for name in plain:
            with pytest.raises(BudgetRecordError):
                record_from_json({key: value for key, value in plain.items() if key != name})

    def test_a_value_of_another_type_is_no_record(self, record):
        plain = dict(record_to_json(record))
        for name in plain:
            for wrong in (3.5, True, [["x"]], {"x": "y"}):
                with pytest.raises(BudgetRecordError):
                    record_from_json({**plain, name: wrong})


@pytest.mark.parametrize("value", [None, 3, [], {}, {"record": "refund"}, "grant"])
def test_what_is_no_record_is_refused(value):
    with pytest.raises(BudgetRecordError) as raised:
        record_from_json(value)
    assert raised.value.exit_status is ExitStatus.VERIFICATION_FAILED
    assert "never start a budget anew" in raised.value.what_to_do


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


def test_records_hold_events_and_counts_and_no_spent_epsilon():
    text = canonical_json([dict(record_to_json(record)) for record in RECORDS[3:]]).decode()
    assert "epsilon" not in text
    assert "noise_multiplier" in text


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


def test_events_are_kept_as_they_are():
    charges = (charge(3), charge(1, kind="evaluation"))
    record = Reservation("run", "", charges)
    read = record_from_json(json.loads(canonical_json(record_to_json(record))))
    assert isinstance(read, Reservation)
    assert read.charges[0].event == gaussian(20.0)
    plain = json.loads(canonical_json(record_to_json(record)))
    plain["charges"][0]["event"] = {**poisson_gaussian(0.1, 1.0), "sampling_probability": 2.0}
    with pytest.raises(BudgetRecordError, match="cannot be read"):
        record_from_json(plain)


def test_a_rule_is_part_of_the_grant():
    assert grant(4.0, RenyiFilter(5)) != grant(4.0, FixedInAdvance())
