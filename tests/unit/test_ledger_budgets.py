"""Entries as records of a budget and back: what is charged is what was reserved, by whom and for whom it was."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from hansa.errors import BudgetRefusedError
from hansa.ledger import (
    Abort,
    BudgetGranted,
    BudgetReader,
    Release,
    Reservation,
    RunClosed,
    Spending,
    parse_entry,
    records_of,
)
from hansa.ledger.budgets import closed, grant_of, granted, released, reserved
from hansa.ledger.errors import EntryError
from hansa.privacy import records
from hansa.privacy.book import BudgetBook
from hansa.privacy.charges import Charge
from hansa.privacy.composition import Adding, FixedInAdvance, RenyiFilter
from hansa.privacy.errors import BudgetRecordError
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Grant, Limit
from support import budgets
from support.ledgers import AGREEMENT, AT, DATASET, HASH, MEMBERS, OTHER, one_of_each, release

MEMBER = MEMBERS[0]
OTHER_DATASET = "f" * 32
LIMITS = budgets.grant(4.0, RenyiFilter(8), shared=2.0)
GRANT = granted(LIMITS, member=MEMBER, unit="patient", max_records_per_unit=4, at=AT, reason="board")
TRAINING = Charge("training", poisson_gaussian(0.01, 1.1), 40, poisson_gaussian(0.01, 2.2), 1)
EVALUATION = Charge("evaluation", gaussian(20.0), 3)
RESERVED = reserved(GRANT, records.Reservation("run-1", AGREEMENT, (TRAINING, EVALUATION)), at=AT)
TOLD: dict[str, Any] = {
    "y_sha256": HASH,
    "manifest_sha256": OTHER,
    "software": {"hansa": "0.1.0"},
    "lock_sha256": HASH,
    "rng": "os",
}
CONFIRMED = records.Confirmation("run-1", "1", "training", 20)
RELEASED = released(GRANT, AGREEMENT, CONFIRMED, TRAINING, step=0, at=AT, **TOLD)
LOST = records.Abort("run-1", "2", "training", 20)
ABORTED = Abort(
    at=AT,
    agreement_id=AGREEMENT,
    run=LOST.run,
    party=MEMBER,
    dataset_id=GRANT.dataset_id,
    round=int(LOST.step),
    manifest_sha256=None,
    code="too-few",
    purpose=LOST.kind,
    spends=(Spending.of(Spend(TRAINING.event, LOST.count)),),
)
CLOSED = closed(GRANT, AGREEMENT, records.Close("run-1", {"training": 40, "evaluation": 0}), at=AT)
ALL = (GRANT, RESERVED, RELEASED, ABORTED, CLOSED)


def changed(entry: Any, **changes: Any) -> Any:
    return type(entry)(**{**{name: getattr(entry, name) for name in type(entry).model_fields}, **changes})


class TestThereAndBack:
    def test_every_record_is_an_entry_and_every_entry_its_record(self) -> None:
        assert [type(entry) for entry in ALL] == [BudgetGranted, Reservation, Release, Abort, RunClosed]
        assert list(records_of(parse_entry(entry.data) for entry in ALL)) == [
            LIMITS,
            records.Reservation("run-1", AGREEMENT, (TRAINING, EVALUATION)),
            CONFIRMED,
            LOST,
            records.Close("run-1", {"training": 40, "evaluation": 0}),
        ]

    def test_a_book_is_replayed_from_entries_alone(self) -> None:
        book = BudgetBook.replay(records_of(ALL[:3]))
        assert book.released("run-1") == 20
        assert book.spent() == (Spend(TRAINING.event, 40), Spend(EVALUATION.event, 3))
        assert BudgetBook.replay(records_of(ALL)).spent() == (Spend(TRAINING.event, 40),)

    @pytest.mark.parametrize(
        "limits",
        [
            Grant(DATASET, Limit(PrivacyLoss(0.1 + 0.2, 1e-5 / 3), FixedInAdvance())),
            Grant(DATASET, Limit(PrivacyLoss(1.0, 1e-6), Adding(7)), disjoint_from=("f" * 32, "e" * 32)),
            budgets.grant(3.0, shared=1.0, coalition=4),
        ],
    )
    def test_limits_come_back_to_the_bit(self, limits: Grant) -> None:
        entry = granted(limits, member=MEMBER, unit="record", max_records_per_unit=1, at=AT)
        assert grant_of(entry) == limits
        assert (entry.unit, entry.max_records_per_unit, entry.reason) == ("record", 1, "")

    def test_what_says_nothing_about_a_budget_is_passed_over(self) -> None:
        each = one_of_each()
        quiet = [
            entry for name, entry in each.items() if name not in {"abort", "closed", "budget", "release"}
        ]
        quiet = [entry for entry in quiet if entry.type != "reservation"]
        lost = changed(ABORTED, spends=(), purpose=None)
        assert list(records_of([*quiet, GRANT, *quiet, lost])) == [LIMITS]
        assert len(quiet) == 10

    def test_one_dataset_of_several_is_picked_by_its_id(self) -> None:
        other = replace(LIMITS, dataset=OTHER_DATASET)
        second = granted(other, member=MEMBER, unit="patient", max_records_per_unit=4, at=AT)
        elsewhere = reserved(second, records.Reservation("run-2", AGREEMENT, (TRAINING,)), at=AT)
        log = [GRANT, RESERVED, second, elsewhere, RELEASED]
        assert [type(one) for one in records_of(log, DATASET)] == [
            Grant,
            records.Reservation,
            records.Confirmation,
        ]
        assert next(records_of(log, OTHER_DATASET)) == other
        assert len(list(records_of(log, OTHER_DATASET))) == 2
        with pytest.raises(BudgetRecordError, match="twice, or for two datasets"):
            list(records_of(log))

    def test_a_reader_says_what_was_granted(self) -> None:
        reader = BudgetReader()
        assert reader.granted is None
        reader.read(GRANT)
        assert reader.granted == GRANT


# attack: the log, and what is said about it
BROKEN: dict[str, tuple[list[Any], str]] = {
    "spent without a grant": ([RESERVED], "stands before any grant"),
    "granted twice": ([GRANT, changed(GRANT, epsilon="0x1.0000000000000p+6")], "granted twice"),
    "another dataset's spend": ([GRANT, changed(RESERVED, dataset_id=OTHER_DATASET)], "another dataset"),
    "another member's spend": ([GRANT, changed(RESERVED, member=MEMBERS[1])], "another member's"),
    "another member's abort": ([GRANT, RESERVED, changed(ABORTED, party=MEMBERS[1])], "another member's"),
    "another unit reserved": ([GRANT, changed(RESERVED, unit="record")], "another unit"),
    "another unit released": ([GRANT, RESERVED, changed(RELEASED, unit="record")], "another unit"),
    "released and never reserved": ([GRANT, RELEASED], "reserved under no agreement"),
    "closed and never reserved": ([GRANT, CLOSED], "reserved under no agreement"),
    "released under another agreement": (
        [GRANT, RESERVED, changed(RELEASED, agreement_id=OTHER)],
        "another one",
    ),
    "closed under another agreement": ([GRANT, RESERVED, changed(CLOSED, agreement_id=OTHER)], "another one"),
    "released for what was not reserved": (
        [GRANT, RESERVED, changed(RELEASED, purpose="compression")],
        "reserved nothing for compression",
    ),
    "event with more noise than was reserved": (
        [
            GRANT,
            RESERVED,
            changed(RELEASED, spends=(Spending.of(Spend(poisson_gaussian(0.01, 1.2), 20)),)),
        ],
        "other events than were reserved",
    ),
    "event of a coalition in place of the one against everyone": (
        [GRANT, RESERVED, changed(RELEASED, spends=(Spending.of(Spend(TRAINING.shared or {}, 20)),))],
        "other events",
    ),
    "a second event beside the reserved one": (
        [GRANT, RESERVED, changed(RELEASED, spends=RELEASED.spends * 2)],
        "other events",
    ),
    "an event that no accountant knows": (
        [
            GRANT,
            changed(
                RESERVED,
                charges=(changed(RESERVED.charges[0], event={"type": "Quantum"}, shared=None, coalition=0),),
            ),
        ],
        "is not known",
    ),
    "shared noise that is less than the member's own": (
        [
            GRANT,
            changed(
                RESERVED,
                charges=(
                    changed(
                        RESERVED.charges[0], event=RESERVED.charges[0].shared, shared=RELEASED.spends[0].event
                    ),
                ),
            ),
        ],
        "not less than the member's own",
    ),
}


class TestWhatCannotBe:
    @pytest.mark.parametrize("attack", list(BROKEN))
    def test_it_is_refused_where_it_stands(self, attack: str) -> None:
        log, match = BROKEN[attack]
        read = records_of(log)
        for _ in log[:-1]:
            next(read)
        with pytest.raises(BudgetRecordError, match=match):
            next(read)

    @pytest.mark.parametrize(
        "log",
        [
            [GRANT, RESERVED, RELEASED, RELEASED],
            [GRANT, RESERVED, changed(RESERVED, agreement_id=OTHER)],
            [GRANT, RESERVED, changed(RELEASED, spends=(Spending.of(Spend(TRAINING.event, 41)),))],
            [GRANT, RESERVED, RELEASED, changed(CLOSED, released={"training": 19})],
            [GRANT, RESERVED, CLOSED, changed(RELEASED, round=3)],
            [GRANT, changed(RESERVED, charges=(changed(RESERVED.charges[0], count=2**40),))],
        ],
        ids=["again", "reserved again", "more than reserved", "less closed", "after its close", "no room"],
    )
    def test_what_only_the_book_can_know_is_refused_by_the_book(self, log: list[Any]) -> None:
        with pytest.raises(BudgetRecordError):
            BudgetBook.replay(records_of(log))

    def test_a_second_reservation_does_not_change_what_the_first_may_release(self) -> None:
        reader = BudgetReader()
        noisier = changed(RESERVED, agreement_id=OTHER, charges=(RESERVED.charges[1],))
        for entry in (GRANT, RESERVED, noisier):
            reader.read(entry)
        assert reader.read(RELEASED) == CONFIRMED

    def test_an_auditor_learns_nothing_from_a_book_that_was_refused(self) -> None:
        book = BudgetBook.replay(records_of(ALL[:2]))
        with pytest.raises(BudgetRefusedError):
            book.confirm("run-1", "1", 41, "training")
        assert book.released("run-1") == 0


class TestWhatNoEntrySays:
    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (
                lambda: granted(
                    Grant(
                        DATASET,
                        Limit(PrivacyLoss(1.0, 1e-5), FixedInAdvance()),
                        Limit(PrivacyLoss(1.0, 1e-6), FixedInAdvance()),
                        1,
                    ),
                    member=MEMBER,
                    unit="record",
                    max_records_per_unit=1,
                    at=AT,
                ),
                "at one δ and by one rule",
            ),
            (
                lambda: granted(
                    Grant(DATASET, Limit(PrivacyLoss(math.inf, 1e-5), FixedInAdvance())),
                    member=MEMBER,
                    unit="record",
                    max_records_per_unit=1,
                    at=AT,
                ),
                "finite",
            ),
            (
                lambda: granted(
                    budgets.grant(0.0), member=MEMBER, unit="record", max_records_per_unit=1, at=AT
                ),
                "epsilon",
            ),
            (
                lambda: granted(LIMITS, member="no name", unit="record", max_records_per_unit=1, at=AT),
                "member",
            ),
            (lambda: reserved(GRANT, records.Reservation("run 1", AGREEMENT, (TRAINING,)), at=AT), "run"),
            (
                lambda: reserved(
                    GRANT, records.Reservation("run-1", AGREEMENT, (budgets.charge(1, kind="fun"),)), at=AT
                ),
                "kind",
            ),
            (
                lambda: reserved(
                    GRANT, records.Reservation("run-1", AGREEMENT, (budgets.charge(2**53),)), at=AT
                ),
                "count",
            ),
            (
                lambda: released(
                    GRANT, AGREEMENT, replace(CONFIRMED, step="round 1"), TRAINING, step=0, at=AT, **TOLD
                ),
                "number of a round",
            ),
            (
                lambda: released(
                    GRANT, AGREEMENT, replace(CONFIRMED, step="01"), TRAINING, step=0, at=AT, **TOLD
                ),
                "number of a round",
            ),
            (
                lambda: released(
                    GRANT, AGREEMENT, replace(CONFIRMED, step="0"), TRAINING, step=0, at=AT, **TOLD
                ),
                "round",
            ),
            (
                lambda: released(
                    GRANT, AGREEMENT, replace(CONFIRMED, count=0), TRAINING, step=0, at=AT, **TOLD
                ),
                "count",
            ),
            (lambda: closed(GRANT, AGREEMENT, records.Close("run-1", {"training": -1}), at=AT), "released"),
        ],
    )
    def test_it_is_a_typed_error(self, make: Any, match: str) -> None:
        with pytest.raises(EntryError, match=match):
            make()

    def test_the_entries_of_a_log_are_like_those_that_are_written_by_hand(self) -> None:
        assert release(spends=RELEASED.spends, software=TOLD["software"], rng="os") == RELEASED
