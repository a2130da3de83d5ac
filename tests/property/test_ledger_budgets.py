"""A book that is kept as entries of a log is the same book after every entry, byte by byte.

Whatever is done to a book, in any order: each record that it stores becomes a signed entry, the entry bytes, the
bytes an entry again and that a record; and the book of those records is the book that wrote them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import BudgetRefusedError, PrivacyParameterError
from hansa.ledger import (
    Abort,
    BudgetGranted,
    GivenEntries,
    Log,
    MemoryLogStore,
    SignedEntry,
    Spending,
    records_of,
)
from hansa.ledger.budgets import closed, granted, released, reserved
from hansa.privacy import records
from hansa.privacy.book import BudgetBook
from hansa.privacy.charges import Charge
from hansa.privacy.composition import RenyiFilter
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.records import Record
from support import budgets
from support.ledgers import AGREEMENT, AT, HASH, LOG_SIGNER, MEMBERS, OTHER, signed

RUNS = st.sampled_from(["run-a", "run-b", "run-c"])
ROUNDS = st.integers(1, 5)
KINDS = st.sampled_from(["training", "evaluation"])
COUNTS = st.integers(1, 40)
SIGMAS = st.floats(5.0, 80.0)
RATES = st.floats(1e-6, 1.0)


@st.composite
def charges(draw: st.DrawFn) -> tuple[Charge, ...]:
    made = []
    for kind in draw(st.lists(KINDS, min_size=1, max_size=2, unique=True)):
        sigma, rate, factor = draw(SIGMAS), draw(RATES), draw(st.floats(1.0, 3.0))
        event = draw(st.sampled_from([gaussian, lambda s, q=rate: poisson_gaussian(q, s)]))
        shared = draw(st.booleans())
        made.append(
            Charge(
                kind,
                event(sigma),
                draw(COUNTS),
                event(sigma * factor) if shared else None,
                draw(st.integers(1, 3)) if shared else 0,
            )
        )
    return tuple(made)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), RUNS, charges(), st.sampled_from([AGREEMENT, OTHER])),
        st.tuples(st.just("confirm"), RUNS, ROUNDS.map(str), COUNTS, KINDS),
        st.tuples(st.just("abort"), RUNS, ROUNDS.map(str), COUNTS, KINDS),
        st.tuples(st.just("close"), RUNS),
    ),
    max_size=25,
)


class Scribe:
    """Keeps the records of a book as signed entries in a log."""

    def __init__(self) -> None:
        self.log = Log(MemoryLogStore(), LOG_SIGNER)
        self.granted: BudgetGranted | None = None
        self.reserved: dict[str, records.Reservation] = {}
        self.kept: list[Record] = []

    def append(self, record: Record) -> None:
        self.log.append([signed(self.entry(record)).encoded])
        self.kept.append(record)

    def entry(self, record: Record) -> Any:
        if isinstance(record, records.Grant):
            self.granted = granted(record, member=MEMBERS[0], unit="patient", max_records_per_unit=2, at=AT)
            return self.granted
        assert self.granted is not None
        if isinstance(record, records.Reservation):
            self.reserved[record.run] = record
            return reserved(self.granted, record, at=AT)
        under = self.reserved[record.run]
        if isinstance(record, records.Close):
            return closed(self.granted, under.agreement, record, at=AT)
        charge = next(one for one in under.charges if one.kind == record.kind)
        if isinstance(record, records.Abort):
            return Abort(
                at=AT,
                agreement_id=under.agreement,
                run=record.run,
                party=MEMBERS[0],
                dataset_id=self.granted.dataset_id,
                round=int(record.step),
                manifest_sha256=None,
                code="lost",
                purpose=record.kind,
                spends=(Spending.of(Spend(charge.event, record.count)),),
            )
        return released(
            self.granted,
            under.agreement,
            record,
            charge,
            step=0,
            at=AT,
            y_sha256=HASH,
            manifest_sha256=OTHER,
            software={"hansa": "0.1.0"},
            lock_sha256=HASH,
            rng="os",
        )


def picture(book: BudgetBook) -> object:
    return (
        book.grant,
        book.state(),
        book.spent(),
        book.spent(1),
        [(q.used, q.together) for q in book.quotes()],
    )


def read(data: list[bytes]) -> list[Record]:
    return list(records_of(SignedEntry.parse(one).entry for one in GivenEntries(data).read(0, len(data))))


@settings(max_examples=150, deadline=None)
@given(OPERATIONS, st.floats(0.5, 8.0), st.floats(0.1, 4.0))
def test_the_book_of_a_log_is_the_book_that_wrote_it_at_every_prefix(
    operations: list[Any], epsilon: float, shared: float
) -> None:
    scribe = Scribe()
    book = BudgetBook.begin(budgets.grant(epsilon, RenyiFilter(8), shared=shared), scribe.append)
    pictures = [picture(book)]
    for what, *arguments in operations:
        with suppress(BudgetRefusedError, PrivacyParameterError):
            act: Callable[..., None] = getattr(book, what)
            act(*arguments)
        if len(scribe.kept) > len(pictures):
            pictures.append(picture(book))
    data = list(scribe.log.entries())
    assert len(data) == len(pictures) == len(scribe.kept)
    for size, seen in enumerate(pictures, 1):
        assert read(data[:size]) == scribe.kept[:size]
        assert picture(BudgetBook.replay(read(data[:size]))) == seen


def test_such_sequences_do_something() -> None:
    """Otherwise the property would hold of books that only ever refuse."""
    scribe = Scribe()
    book = BudgetBook.begin(budgets.grant(4.0, RenyiFilter(8)), scribe.append)
    book.reserve("run-a", [Charge("training", gaussian(20.0), 10)], AGREEMENT)
    book.confirm("run-a", "1", 2)
    book.abort("run-a", "1", 2)
    book.abort("run-a", "2", 2)
    book.close("run-a")
    kinds = [type(one).__name__ for one in read(list(scribe.log.entries()))]
    assert kinds == ["Grant", "Reservation", "Confirmation", "Abort", "Abort", "Close"]
    with pytest.raises(BudgetRefusedError):
        book.confirm("run-a", "3", 1)
