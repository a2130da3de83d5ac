"""Entries of a log as the records of a budget, and records as entries: what is stored, and what the book eats.

    budget → Grant · reservation → Reservation · release → Confirmation · abort → Abort · closed → Close

The step of a record is the round of the secure sum, its kind the purpose. A record that is written and read back is
the same record, to the bit: the book of a log is the book that wrote it, at every prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from hansa.errors import PrivacyParameterError
from hansa.ledger.entry import Entry, Spending, Unit, real, real_value
from hansa.ledger.errors import EntryError
from hansa.ledger.spends import Abort, BudgetGranted, Charging, Release, Reservation, RunClosed
from hansa.privacy import records
from hansa.privacy.charges import Charge
from hansa.privacy.composition import rule_from_json
from hansa.privacy.datasets import total_loss
from hansa.privacy.errors import BudgetRecordError
from hansa.privacy.events import Spend
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Grant, Limit, Record

ADJACENCY = "add-or-remove-one"

Made = TypeVar("Made", bound=Entry)
Step: TypeAlias = Reservation | Release | Abort | RunClosed


class BudgetReader:
    """Reads the records of one dataset's budget from entries, one after the other.

    It looks at what only entries say: whose they are, of which dataset, unit and agreement, and that what a round
    charged is the event that was reserved. Counts, limits and order are the book's to check
    (`hansa.privacy.book.BudgetBook.replay`).

    Args:
        dataset_id: entries of other datasets are passed over; by default the first grant says which one it is, and
            there may be no other.

    Attributes:
        granted: the grant, once it was read.
    """

    def __init__(self, dataset_id: str | None = None) -> None:
        self.granted: BudgetGranted | None = None
        self._dataset_id = dataset_id
        self._runs: dict[str, tuple[str, dict[str, Charge]]] = {}

    def read(self, entry: Entry) -> Record | None:
        """The record that an entry is; `None` for entries that say nothing about this budget.

        Raises:
            BudgetRecordError: it cannot stand where it stands; nothing of it was taken.
        """
        if isinstance(entry, BudgetGranted):
            return self._grant(entry)
        if not isinstance(entry, Step) or entry.dataset_id is None:
            return None
        if isinstance(entry, Abort) and not entry.spends:
            return None
        if self._dataset_id is not None and entry.dataset_id != self._dataset_id:
            return None
        self._require_granted(entry)
        try:
            return self._record(entry)
        except PrivacyParameterError as error:
            raise _broken(entry, error.cause) from error

    def _grant(self, entry: BudgetGranted) -> Record | None:
        if self._dataset_id is not None and entry.dataset_id != self._dataset_id:
            return None
        if self.granted is not None:
            raise BudgetRecordError(f"a budget of {entry.member!r} is granted twice, or for two datasets")
        self.granted = entry
        return grant_of(entry)

    def _require_granted(self, entry: Step) -> None:
        granted = self.granted
        if granted is None:
            raise _broken(entry, "stands before any grant")
        if entry.dataset_id != granted.dataset_id or entry.writer != granted.member:
            raise _broken(entry, "is of another dataset, or another member's")
        if isinstance(entry, Reservation | Release) and (entry.unit, entry.adjacency) != (
            granted.unit,
            granted.adjacency,
        ):
            raise _broken(entry, "is about another unit than was granted")

    def _record(self, entry: Step) -> Record:
        if isinstance(entry, Reservation):
            charges = tuple(charging.charge for charging in entry.charges)
            record = records.Reservation(entry.run, entry.agreement_id, charges)
            self._runs.setdefault(
                entry.run, (entry.agreement_id, {charge.kind: charge for charge in charges})
            )
            return record
        agreement_id, reserved = self._runs.get(entry.run, ("", {}))
        if agreement_id != entry.agreement_id:
            raise _broken(entry, "was reserved under no agreement, or another one")
        if isinstance(entry, RunClosed):
            return records.Close(entry.run, {str(kind): count for kind, count in entry.released.items()})
        kind = str(entry.purpose)
        charge = reserved.get(kind)
        if charge is None:
            raise _broken(entry, f"reserved nothing for {kind}")
        if len(entry.spends) != 1 or entry.spends[0].spend.event != charge.event:
            raise _broken(entry, "charges other events than were reserved")
        make = records.Abort if isinstance(entry, Abort) else records.Confirmation
        return make(entry.run, str(entry.round), kind, entry.spends[0].count)


def records_of(entries: Iterable[Entry], dataset_id: str | None = None) -> Iterator[Record]:
    """The records of one dataset's budget, in the order of the log.

    Args:
        entries: of a member's log; their signatures are verified elsewhere (`hansa.ledger.Keyring`).
        dataset_id: see `BudgetReader`.

    Raises:
        BudgetRecordError: an entry cannot stand where it stands. It is raised when that entry is reached.
    """
    reader = BudgetReader(dataset_id)
    for entry in entries:
        record = reader.read(entry)
        if record is not None:
            yield record


def grant_of(entry: BudgetGranted) -> Grant:
    """The limits that a grant sets."""
    rule, delta = rule_from_json(entry.rule), real_value(entry.delta)
    colluding = None
    if entry.epsilon_colluding is not None:
        colluding = Limit(PrivacyLoss(real_value(entry.epsilon_colluding), delta), rule)
    everyone = Limit(PrivacyLoss(real_value(entry.epsilon), delta), rule)
    return Grant(entry.dataset_id, everyone, colluding, entry.colluding or 0, entry.disjoint_from)


def require_unit(unit: Unit, max_records_per_unit: int) -> None:
    """Refuse a budget that no agreement can ever use, since a budget is never changed.

    Raises:
        PrivacyParameterError: the unit is a record, and holds more than one.
    """
    if unit == "record" and max_records_per_unit > 1:
        raise PrivacyParameterError(
            f"a unit that is a record holds 1 record, not {max_records_per_unit}: no agreement could use the budget",
            remedy="Grant for one record each, or for patients.",
        )


def total_granted(grants: Sequence[BudgetGranted], coalition: int | None = None) -> PrivacyLoss | None:
    """The most that one unit of a member can lose over all of its datasets.

    Args:
        grants: one for each dataset.
        coalition: see `hansa.privacy.datasets.total_loss`.

    Returns:
        ε and δ; `None` where the grants are for several units: a person may have many records, so that a limit for
        one record and a limit for one person have no sum.

    Raises:
        PrivacyParameterError: no grants, one dataset twice, or δ that add up to 1.
    """
    if len({grant.unit for grant in grants}) > 1:
        return None
    return total_loss(list(map(grant_of, grants)), coalition)


def granted(
    grant: Grant, *, member: str, unit: Unit, max_records_per_unit: int, at: str, reason: str = ""
) -> BudgetGranted:
    """The entry of a grant, for the member's privacy officer to sign.

    Args:
        grant: its limits have one δ and one rule.
        member, unit, max_records_per_unit, at, reason: of the entry.

    Raises:
        EntryError: an entry cannot say that.
        PrivacyParameterError: see `require_unit`.
    """
    require_unit(unit, max_records_per_unit)
    loss, rule = grant.everyone.loss, grant.everyone.rule
    epsilon_colluding = None
    if grant.colluding is not None:
        if (grant.colluding.loss.delta, grant.colluding.rule) != (loss.delta, rule):
            raise EntryError("the limits of a grant hold at one δ and by one rule")
        epsilon_colluding = _real(grant.colluding.loss.epsilon)
    return _made(
        BudgetGranted,
        at=at,
        member=member,
        dataset_id=grant.dataset,
        unit=unit,
        max_records_per_unit=max_records_per_unit,
        adjacency=ADJACENCY,
        epsilon=_real(loss.epsilon),
        delta=_real(loss.delta),
        colluding=grant.coalition or None,
        epsilon_colluding=epsilon_colluding,
        rule=dict(rule.as_dict()),
        disjoint_from=grant.disjoint_from,
        reason=reason,
    )


def reserved(
    grant: BudgetGranted, record: records.Reservation, *, at: str, federation_log: str | None = None
) -> Reservation:
    """The entry of a reservation.

    Args:
        grant: of the dataset that it is spent of.
        record: its agreement is the agreement's id.
        at: now.
        federation_log: key of the log that has to show the run.

    Raises:
        EntryError: an entry cannot say that.
    """
    return _made(
        Reservation,
        **_of_run(grant, record.agreement, record.run, at),
        unit=grant.unit,
        adjacency=grant.adjacency,
        charges=tuple(_charging(charge) for charge in record.charges),
        federation_log=federation_log,
    )


def released(
    grant: BudgetGranted,
    agreement_id: str,
    record: records.Confirmation,
    charge: Charge,
    *,
    step: int,
    at: str,
    **told: Any,
) -> Release:
    """The entry of a release.

    Args:
        grant: of the dataset that it is spent of.
        agreement_id: of the run.
        record: what is confirmed; its step is the round.
        charge: that was reserved for it.
        step: what of the purpose is summed.
        at: now.
        told: the other attributes of `Release`.

    Raises:
        EntryError: an entry cannot say that.
    """
    return _made(
        Release,
        **_of_run(grant, agreement_id, record.run, at),
        purpose=record.kind,
        round=_round(record.step),
        step=step,
        unit=grant.unit,
        adjacency=grant.adjacency,
        spends=(_spending(Spend(charge.event, record.count)),),
        **told,
    )


def closed(grant: BudgetGranted, agreement_id: str, record: records.Close, *, at: str) -> RunClosed:
    """The entry of a run that the member ends; see `reserved`.

    Raises:
        EntryError: an entry cannot say that.
    """
    of_run = _of_run(grant, agreement_id, record.run, at)
    return _made(RunClosed, **of_run, released=dict(record.released))


def _of_run(grant: BudgetGranted, agreement_id: str, run: str, at: str) -> dict[str, Any]:
    return {
        "at": at,
        "agreement_id": agreement_id,
        "run": run,
        "member": grant.member,
        "dataset_id": grant.dataset_id,
    }


def _round(step: str) -> int:
    if not step.isascii() or not step.isdigit() or str(int(step)) != step:
        raise EntryError(f"a step of a budget in a log is the number of a round, not {step!r}")
    return int(step)


def _real(value: float) -> str:
    try:
        return real(value)
    except ValueError as error:
        raise EntryError(f"an entry cannot say that: {error}") from None


def _charging(charge: Charge) -> Charging:
    try:
        return Charging.of(charge)
    except ValueError as error:
        raise _unsaid(Charging, error) from None


def _spending(spend: Spend) -> Spending:
    try:
        return Spending.of(spend)
    except ValueError as error:
        raise _unsaid(Spending, error) from None


def _made(kind: type[Made], **said: Any) -> Made:
    try:
        return kind(**said)
    except ValidationError as error:
        raise _unsaid(kind, error) from None


def _unsaid(kind: type[Any], error: ValueError) -> EntryError:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the entry"
        return EntryError(f"no {kind.__name__} can say that: {place}: {first['msg']}")
    return EntryError(f"no {kind.__name__} can say that: {error}")


def _broken(entry: Step, what: str) -> BudgetRecordError:
    return BudgetRecordError(f"the {entry.type} of run {entry.run[:12]} {what}")
