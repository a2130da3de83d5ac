"""How a member's budgets stand, from its log: granted, reserved, spent, remaining; by dataset, agreement and run.

It is read from the entries and nothing else, so that a copy of a ledger says the same as the node. What *counts* of a run
is all that it reserved while it is open, and what it released once it is closed. *Spent* is what would still count if every
open run ended now; *reserved* is what counts beyond that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hansa.canonical import Json
from hansa.ledger.budgets import BudgetReader, Step, total_granted
from hansa.ledger.entry import Entry
from hansa.ledger.errors import EntryError
from hansa.ledger.spends import BudgetGranted
from hansa.privacy.book import BudgetBook
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Close, Grant, Record, Reservation


@dataclass(frozen=True)
class LimitStanding:
    """One limit of a grant.

    Attributes:
        against: whom it holds against, in words.
        limit: (ε, δ).
        spent: ε by the limit's rule, of what was released.
        used: ε by the rule of all that counts.
    """

    against: str
    limit: PrivacyLoss
    spent: float
    used: float

    @property
    def reserved(self) -> float:
        """ε that open runs may still spend, by the rule."""
        return max(self.used - self.spent, 0.0) if math.isfinite(self.used) else self.used

    @property
    def remaining(self) -> float:
        """ε that is left, for showing; by the rule a further run need not cost what it costs alone."""
        return max(self.limit.epsilon - self.used, 0.0)

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values; an ε without a bound is `null`."""
        return {
            "against": self.against,
            **self.limit.as_dict(),
            "spent": plain(self.spent),
            "reserved": plain(self.reserved),
            "remaining": plain(self.remaining),
        }


@dataclass(frozen=True)
class RunStanding:
    """One run.

    Attributes:
        run, agreement: its name, and the id of the agreement that it is of.
        state: whether more may be released.
        reserved, released: releases by kind: at most, and on record (or as its close says).
        aborted: steps that came to nothing, and count.
        epsilon: ε of what counts of it, alone, by the rule of each limit of the grant.
    """

    run: str
    agreement: str
    state: Literal["open", "closed"]
    reserved: Mapping[str, int]
    released: Mapping[str, int]
    aborted: int
    epsilon: tuple[float, ...]

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values."""
        return {
            "run": self.run,
            "agreement": self.agreement,
            "state": self.state,
            "reserved": dict(self.reserved),
            "released": dict(self.released),
            "aborted": self.aborted,
            "epsilon": [plain(epsilon) for epsilon in self.epsilon],
        }


@dataclass(frozen=True)
class DatasetStanding:
    """The budget of one dataset.

    Attributes:
        granted: by the member's privacy officer.
        records: of its budget, in order.
    """

    granted: BudgetGranted
    records: tuple[Record, ...]

    @cached_property
    def book(self) -> BudgetBook:
        """The budget, for reading.

        Raises:
            BudgetRecordError: the records do not follow from each other, or exceed a limit.
        """
        return BudgetBook.replay(self.records)

    @property
    def grant(self) -> Grant:
        """The limits and the rule."""
        return self.book.grant

    @cached_property
    def limits(self) -> tuple[LimitStanding, ...]:
        """How each limit stands; see `book`."""
        state = self.book.state()
        ended = [
            Close(run, {kind: self.book.released(run, kind) for kind in said["reserved"]})
            for run, said in state.items()
            if isinstance(said, Mapping) and said["closed"] is None and isinstance(said["reserved"], Mapping)
        ]
        now = self.book.quotes()
        then = BudgetBook.replay([*self.records, *ended], tolerance=math.inf).quotes()
        return tuple(
            LimitStanding(quote.against, quote.limit, spent=after.used, used=quote.used)
            for quote, after in zip(now, then, strict=True)
        )

    @cached_property
    def runs(self) -> tuple[RunStanding, ...]:
        """Each run, in the order in which they were reserved; see `book`."""
        return tuple(self._run(record) for record in self.records if isinstance(record, Reservation))

    @cached_property
    def agreements(self) -> Mapping[str, tuple[float, ...]]:
        """ε of what counts under each agreement, alone, by the rule of each limit; see `book`."""
        ids = dict.fromkeys(run.agreement for run in self.runs)
        members = {one: {run.run for run in self.runs if run.agreement == one} for one in ids}
        return {one: self._alone(runs) for one, runs in members.items()}

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values."""
        entry = self.granted
        return {
            "dataset": entry.dataset_id,
            "member": entry.member,
            "granted_at": entry.at,
            "reason": entry.reason,
            "unit": entry.unit,
            "max_records_per_unit": entry.max_records_per_unit,
            "adjacency": entry.adjacency,
            "disjoint_from": list(entry.disjoint_from),
            "rule": dict(self.grant.everyone.rule.as_dict()),
            "limits": [limit.as_dict() for limit in self.limits],
            "agreements": [
                {"agreement": name, "epsilon": [plain(epsilon) for epsilon in used]}
                for name, used in self.agreements.items()
            ],
            "runs": [run.as_dict() for run in self.runs],
        }

    def _run(self, record: Reservation) -> RunStanding:
        said = self.book.state()[record.run]
        closed = isinstance(said, Mapping) and said["closed"] is not None
        kinds = [charge.kind for charge in record.charges]
        return RunStanding(
            record.run,
            record.agreement,
            "closed" if closed else "open",
            {charge.kind: charge.count for charge in record.charges},
            {kind: self.book.released(record.run, kind) for kind in kinds},
            self.book.aborted(record.run),
            self._alone({record.run}),
        )

    def _alone(self, runs: set[str]) -> tuple[float, ...]:
        """ε of these runs as if there were no others."""
        kept = [record for record in self.records if isinstance(record, Grant) or record.run in runs]
        return tuple(quote.used for quote in BudgetBook.replay(kept, tolerance=math.inf).quotes())


@dataclass(frozen=True)
class Standing:
    """All budgets of one member.

    Attributes:
        datasets: in the order in which they were granted; runs spend of the last one unless the node names another.
    """

    datasets: tuple[DatasetStanding, ...]

    @property
    def member(self) -> str | None:
        """Whose they are, if anything was granted."""
        return self.datasets[0].granted.member if self.datasets else None

    @property
    def in_all(self) -> tuple[tuple[str, PrivacyLoss], ...]:
        """What one unit can lose at most over all datasets: against everyone, and against each coalition of a grant.

        Empty without a grant, and where grants are for several units, which have no total.

        Raises:
            PrivacyParameterError: δ add up to 1.
        """
        grants = [dataset.granted for dataset in self.datasets]
        if not grants:
            return ()
        words = {
            coalition: against
            for dataset in self.datasets
            for against, coalition, _ in dataset.grant.limits()
            if coalition is not None
        }
        totals = [("everyone", total_granted(grants))]
        totals += [(words[coalition], total_granted(grants, coalition)) for coalition in sorted(words)]
        return tuple((against, total) for against, total in totals if total is not None)

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values."""
        return {
            "member": self.member,
            "datasets": [dataset.as_dict() for dataset in self.datasets],
            "in_all": [{"against": against, **loss.as_dict()} for against, loss in self.in_all],
        }


def standing_of(entries: Iterable[Entry]) -> Standing:
    """How the budgets of a member's log stand.

    Args:
        entries: of the log, whole; signatures are verified elsewhere.

    Raises:
        EntryError: something is spent of a dataset for which nothing was granted.
        BudgetRecordError: an entry cannot stand where it stands.
    """
    readers: dict[str, tuple[BudgetGranted, BudgetReader, list[Record]]] = {}
    for entry in entries:
        if isinstance(entry, BudgetGranted) and entry.dataset_id not in readers:
            readers[entry.dataset_id] = (entry, BudgetReader(entry.dataset_id), [])
        if isinstance(entry, Step) and entry.dataset_id not in {None, *readers}:
            raise EntryError(f"a {entry.type} is of a dataset for which nothing was granted before")
        for _, reader, found in readers.values():
            record = reader.read(entry)
            if record is not None:
                found.append(record)
    return Standing(tuple(DatasetStanding(granted, tuple(found)) for granted, _, found in readers.values()))


def plain(epsilon: float) -> float | None:
    """An ε as JSON can say it."""
    return epsilon if math.isfinite(epsilon) else None
