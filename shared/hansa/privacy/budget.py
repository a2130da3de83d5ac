"""A budget in memory: `hansa.privacy.book` for one limit and runs of one kind of event, saved as a snapshot.

It is what a simulated member keeps, and a node whose runs are planned in advance. A node that signs agreements one
after another needs a `BudgetBook` under a rule that is valid for that, over a durable ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from hansa.canonical import Json
from hansa.errors import PrivacyParameterError
from hansa.privacy.book import BudgetBook
from hansa.privacy.charges import TRAINING, Charge
from hansa.privacy.composition import FixedInAdvance
from hansa.privacy.errors import BudgetRecordError
from hansa.privacy.events import Spend
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Close, Confirmation, Grant, Limit, Record, Reservation

__all__ = ["InMemoryBudgetBook", "PrivacyLoss", "Snapshot"]

Snapshot: TypeAlias = Mapping[str, Json]

_NO_DATASET = "0" * 32  # a snapshot names none


class InMemoryBudgetBook:
    """A budget book in memory; `snapshot` is what a node saves of it between processes.

    Args:
        limit: the most that may ever be spent.
        snapshot: of an earlier book of the same dataset, possibly under another limit.

    Guarantees: ε of `spent()` never exceeds the limit by what is reserved here.
    Assumes: `FixedInAdvance`: events across runs are composed as if all were fixed beforehand.
    """

    def __init__(self, limit: PrivacyLoss, snapshot: Snapshot | None = None) -> None:
        grant = Grant(_NO_DATASET, Limit(limit, FixedInAdvance()))
        records: list[Record] = [grant]
        for run, state in (snapshot or {}).items():
            records.extend(_read_run(run, state))
        try:
            # the limit may have been lower or higher when these were reserved: they are taken as they are
            self._book = BudgetBook.replay(records, self._keep, tolerance=float("inf"))
        except BudgetRecordError as error:
            raise _unreadable() from error
        self._records = records

    def _keep(self, record: Record) -> None:
        self._records.append(record)

    def reserve(self, run: str, spend: Spend) -> None:
        """Reserve a run's worst case before any of it happens; the same reservation again is a no-op.

        Raises:
            BudgetRefusedError: it would exceed the limit (says requested, remaining and what would fit), the run
                holds other events already, or it was closed.
        """
        self._book.reserve(run, [Charge(TRAINING, spend.event, spend.count)])

    def confirm(self, run: str, step: str, count: int) -> None:
        """Count `count` events of a reservation as released under the name `step`; the same step counts once.

        Raises:
            BudgetRefusedError: nothing is reserved, or more would be released than was.
        """
        if self._book.holds(Confirmation(run, step, TRAINING, count)):
            return
        self._book.confirm(run, step, count)

    def close(self, run: str) -> None:
        """End a run: what it reserved and did not release is free again, and it can release nothing more."""
        self._book.close(run)

    def spent(self) -> Sequence[Spend]:
        """Everything that counts as spent: released, or reserved and possibly released."""
        return self._book.spent()

    def released(self, run: str) -> int:
        """How many events of a run were confirmed."""
        return self._book.released(run)

    def limit(self) -> PrivacyLoss:
        """The most that may ever be spent."""
        return self._book.grant.everyone.loss

    def remaining(self) -> PrivacyLoss:
        """What is left of ε at the limit's δ, reservations counted as spent."""
        return self._book.quotes()[0].remaining

    def snapshot(self) -> Snapshot:
        """The book as plain JSON values, for `InMemoryBudgetBook(limit, snapshot)`."""
        runs: dict[str, dict[str, Json]] = {}
        steps: dict[str, dict[str, int]] = {}
        for record in self._records:
            match record:
                case Reservation(run=run, charges=(charge,)):
                    steps[run] = {}
                    runs[run] = {"event": dict(charge.event), "count": charge.count, "closed": False}
                case Confirmation(run=run, step=step, count=count):
                    steps[run][step] = count
                case Close(run=run):
                    runs[run]["closed"] = True
        return {run: {**state, "confirmed": steps[run]} for run, state in runs.items()}


def _read_run(run: str, state: Json) -> Iterator[Record]:
    match state:
        case {
            "event": Mapping() as event,
            "count": int() as count,
            "confirmed": Mapping() as steps,
            "closed": bool() as closed,
        }:
            try:
                charge = Charge(TRAINING, event, count)
            except PrivacyParameterError as error:
                raise _unreadable() from error
            yield Reservation(run, "", (charge,))
            total = 0
            for step, number in steps.items():
                if type(number) is not int:
                    raise _unreadable()
                yield Confirmation(run, str(step), TRAINING, number)
                total += number
            if closed:
                yield Close(run, {TRAINING: total})
        case _:
            raise _unreadable()


def _unreadable() -> PrivacyParameterError:
    return PrivacyParameterError(
        "a saved budget book cannot be read", remedy="Restore it from a copy; do not start anew."
    )
