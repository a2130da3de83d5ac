"""How budgets stand, read from a member's log."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.ledger import BudgetGranted, SignedEntry
from hansa.ledger.entry import Entry
from hansa.ledger.errors import EntryError
from hansa.ledger.standing import DatasetStanding, Standing, standing_of
from hansa.privacy.charges import Charge
from hansa.privacy.composition import Adding, AnyOf, Block, RenyiFilter
from hansa.privacy.errors import BudgetRecordError
from hansa.privacy.events import Spend, gaussian
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Close, Confirmation, Grant, Limit, Record, Reservation
from hansa.privacy.words import rule_words
from hansa_client.ledger import MemberLedger
from support import budgets
from support.ledgers import AGREEMENT, OTHER
from support.members import (
    EVALUATION,
    LIMITS,
    PROTECTION,
    RUN,
    TRAINING,
    budget,
    ready,
    release,
    sign,
    trained,
)

RULE, DELTA = LIMITS.everyone.rule, budgets.DELTA


def entries(ledger: MemberLedger) -> Iterator[Entry]:
    return (SignedEntry.parse(data).entry for data in ledger.log.entries())


def of(ledger: MemberLedger) -> DatasetStanding:
    (dataset,) = standing_of(entries(ledger)).datasets
    return dataset


def alone(charge: Charge, count: int) -> float:
    """ε of so many releases, by the rule of the grant."""
    planned = (charge.against(None),)
    return RULE.epsilon([Block(planned, (Spend(charge.event, count),) if count else ())], DELTA)


def test_a_log_in_which_nothing_was_granted_says_so():
    standing = standing_of([])
    assert (standing.member, standing.datasets, standing.in_all) == (None, (), ())
    assert standing.as_dict() == {"member": None, "datasets": [], "in_all": []}


def test_what_is_granted_and_untouched_remains():
    (limit,) = of(ready()).limits
    assert (limit.spent, limit.reserved, limit.remaining) == (0, 0, 4.0)
    assert of(ready()).runs == ()


def test_an_open_run_counts_whole_and_is_told_apart_from_what_left():
    ledger = trained(3)  # of 20 releases, two in each round
    dataset = of(ledger)
    (limit,) = dataset.limits
    assert limit.used == pytest.approx(alone(TRAINING, 20))
    assert limit.spent == pytest.approx(alone(TRAINING, 6))
    assert limit.reserved == pytest.approx(limit.used - limit.spent)
    assert limit.remaining == pytest.approx(4.0 - limit.used)
    (run,) = dataset.runs
    assert (run.run, run.agreement, run.state) == (RUN, AGREEMENT, "open")
    assert (run.reserved, run.released, run.aborted) == ({"training": 20}, {"training": 6}, 0)
    assert run.epsilon == (limit.used,)


def test_a_closed_run_counts_what_it_released():
    ledger = trained(3)
    ledger.close(AGREEMENT, RUN)
    dataset = of(ledger)
    (limit,) = dataset.limits
    assert limit.spent == limit.used == pytest.approx(alone(TRAINING, 6))
    assert limit.reserved == 0
    assert dataset.runs[0].state == "closed"


def test_a_run_that_was_forfeited_counts_what_it_reserved():
    ledger = trained(3)
    ledger.forfeit(AGREEMENT, RUN)
    (limit,) = of(ledger).limits
    assert limit.spent == limit.used == pytest.approx(alone(TRAINING, 20))
    assert of(ledger).runs[0].released == {"training": 20}


def test_runs_are_told_by_agreement():
    ledger = trained(2)
    sign(ledger, OTHER)
    ledger.reserve(OTHER, "run-2", [EVALUATION], PROTECTION)
    ledger.close(OTHER, "run-2")
    ledger.reserve(OTHER, "run-3", [EVALUATION], PROTECTION)
    dataset = of(ledger)
    assert [(run.run, run.agreement, run.state) for run in dataset.runs] == [
        (RUN, AGREEMENT, "open"),
        ("run-2", OTHER, "closed"),
        ("run-3", OTHER, "open"),
    ]
    assert dataset.agreements == {
        AGREEMENT: (pytest.approx(alone(TRAINING, 20)),),
        OTHER: (pytest.approx(alone(EVALUATION, 2)),),  # run-2 released nothing
    }
    assert dataset.runs[1].epsilon == (0,)


def test_by_adding_a_run_that_was_begun_has_spent_all_that_it_planned():
    ledger = ready()
    log = [entry for entry in entries(ledger) if not isinstance(entry, BudgetGranted)]
    granting = budget(limits=budgets.grant(4.0, Adding(2))).entry
    ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION)
    reserved, released = list(entries(ledger))[-1], release(ledger, 1).entry
    (limit,) = standing_of([granting, *log, reserved]).datasets[0].limits
    assert (limit.spent, limit.reserved) == (0, limit.used)
    (limit,) = standing_of([granting, *log, reserved, released]).datasets[0].limits
    assert limit.spent == limit.used > 0
    assert limit.reserved == 0


def test_both_limits_are_told_where_noise_is_shared():
    granting = budget(limits=budgets.grant(8.0, RenyiFilter(8), shared=3.0, coalition=1)).entry
    dataset = standing_of([granting]).datasets[0]
    shared = Charge("training", gaussian(5.0), 4, gaussian(20.0), 1)
    records = (
        *dataset.records,
        Reservation("r", AGREEMENT, (shared,)),
        Confirmation("r", "1", "training", 1),
    )
    everyone, few = DatasetStanding(dataset.granted, records).limits
    assert (everyone.against, few.against) == ("everyone", "any 1 other member and all outside")
    assert (everyone.limit.epsilon, few.limit.epsilon) == (8.0, 3.0)
    assert 0 < few.spent < few.used < everyone.used
    assert DatasetStanding(dataset.granted, records).runs[0].epsilon == (everyone.used, few.used)


def test_datasets_add_up_unless_they_are_disjoint():
    first = budget().entry
    second = Grant("f" * 32, Limit(PrivacyLoss(1.0, DELTA), RULE))
    apart = Grant("e" * 32, Limit(PrivacyLoss(2.0, DELTA), RULE), disjoint_from=(budgets.DATASET, "f" * 32))
    granted = [first, budget(limits=second).entry, budget(limits=apart).entry]
    assert standing_of(granted[:2]).in_all == (("everyone", PrivacyLoss(5.0, 2 * DELTA)),)
    assert standing_of(granted).in_all == (("everyone", PrivacyLoss(5.0, 2 * DELTA)),)
    few = budget(limits=budgets.grant(8.0, RULE, shared=3.0, coalition=2)).entry
    assert standing_of([few, granted[1]]).in_all == (
        ("everyone", PrivacyLoss(9.0, 2 * DELTA)),
        ("any 2 other members and all outside", PrivacyLoss(4.0, 2 * DELTA)),
    )


def test_budgets_for_several_units_have_no_total():
    first = budget().entry
    limits = Grant("f" * 32, Limit(PrivacyLoss(1.0, DELTA), RULE))
    second = budget(limits=limits).entry
    other = "record" if first.unit == "patient" else "patient"
    mixed = BudgetGranted.model_validate({**second.model_dump(), "unit": other, "max_records_per_unit": 1})
    assert standing_of([first, second]).in_all == (("everyone", PrivacyLoss(5.0, 2 * DELTA)),)
    assert standing_of([first, mixed]).in_all == ()
    assert standing_of([first, mixed]).as_dict()["in_all"] == []


def test_spends_of_a_dataset_without_a_grant_are_told():
    log = list(entries(trained(1)))
    with pytest.raises(EntryError, match="nothing was granted before"):
        standing_of([entry for entry in log if not isinstance(entry, BudgetGranted)])


def test_a_log_that_exceeds_its_limit_has_no_standing():
    log = list(entries(trained(1)))
    log[0] = budget(limits=budgets.grant(0.1, RULE)).entry
    with pytest.raises(BudgetRecordError):
        _ = standing_of(log).datasets[0].limits


def test_it_is_plain_json():
    told = standing_of(entries(trained(2))).as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    (dataset,) = told["datasets"]
    assert {"dataset", "member", "unit", "rule", "limits", "agreements", "runs"} <= set(dataset)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Adding(1), "any further run is refused"),
        (Adding(3), "at most 3 runs"),
        (RenyiFilter(8), "order 8"),
        (AnyOf((Adding(3), RenyiFilter(8))), "each with an equal part of δ"),
    ],
)
def test_every_rule_is_told_in_words(rule, words):
    assert words.lower() in rule_words(rule).lower()


COUNTS = st.integers(1, 8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(COUNTS, st.lists(COUNTS, max_size=3), st.booleans()), max_size=4))
def test_at_every_prefix_it_is_what_the_book_says(runs):
    """Used is the book's; spent never exceeds it; what no run holds open any more is all spent."""
    dataset = standing_of([budget(limits=budgets.grant(60.0, RenyiFilter(8))).entry]).datasets[0]
    records: list[Record] = list(dataset.records)
    for number, (count, steps, closed) in enumerate(runs):
        run, left = f"run-{number}", count
        records.append(Reservation(run, AGREEMENT, (Charge("training", gaussian(20.0), count),)))
        for step, wanted in enumerate(steps):
            if wanted <= left:
                records.append(Confirmation(run, str(step), "training", wanted))
                left -= wanted
        if closed:
            records.append(Close(run, {"training": count - left}))
    for size in range(1, len(records) + 1):
        standing = Standing((DatasetStanding(dataset.granted, tuple(records[:size])),))
        (one,) = standing.datasets
        (limit,) = one.limits
        assert limit.used == one.book.quotes()[0].used
        assert 0 <= limit.spent <= limit.used * (1 + 1e-12)
        assert limit.remaining + limit.used == pytest.approx(60.0)
        assert {run.state for run in one.runs} <= {"open", "closed"}
        if all(run.state == "closed" for run in one.runs):
            assert limit.reserved == 0
        assert sum(run.released["training"] for run in one.runs) <= sum(
            run.reserved["training"] for run in one.runs
        )
