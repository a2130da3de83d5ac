"""What members say that they reserved, released and closed: the same whether it is read in a member's log or in copies.

The rules here are those that need no grant: a release belongs to a reservation, charges the event that was reserved,
in a round of its own; a run is closed once, with no less than is on record. Limits are judged by the book
(`hansa.audit.budgets`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from hansa.errors import PrivacyParameterError
from hansa.ledger.errors import LogVerificationError
from hansa.ledger.kinds import Kind
from hansa.ledger.spends import Abort, Release, Reservation, RunClosed
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend

RunKey: TypeAlias = tuple[str, str, str]  # member, dataset, run


@dataclass
class RunSpend:
    """One run of one member.

    Attributes:
        member, dataset, run, agreement_id: which.
        entry: its reservation's place in the log.
        federation_log: key of the log that has to show it, where its reservation names one.
        charges: what was reserved, by kind.
        recorded: events that releases, and aborts that cost, have charged, by kind.
        rounds: how many releases there were.
        steps: how many events of a kind one release charged; more than one number where releases differ.
        last_round: of the secure sum.
        charged: rounds that a release or an abort has charged.
        closed: what the member says that it released, once it ended the run.
    """

    member: str
    dataset: str
    run: str
    agreement_id: str
    entry: int
    charges: Mapping[str, Charge]
    federation_log: str | None = None
    recorded: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    steps: dict[str, set[int]] = field(default_factory=dict)
    last_round: int = 0
    charged: set[int] = field(default_factory=set)
    closed: Mapping[str, int] | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Events that count as spent, by kind: all that was reserved until the run is closed."""
        if self.closed is None:
            return {kind: charge.count for kind, charge in self.charges.items()}
        return self.closed

    def counted(self, coalition: int | None = None) -> tuple[Spend, ...]:
        """What counts as spent, against everyone or against so many of the others."""
        spends = (
            (charge.against(coalition), self.counts.get(kind, 0)) for kind, charge in self.charges.items()
        )
        return tuple(Spend(spend.event, count) for spend, count in spends if count)


@dataclass
class Spending:
    """All runs in one log.

    Attributes:
        runs: by member, dataset and run, in the order of their reservations.
    """

    runs: dict[RunKey, RunSpend] = field(default_factory=dict)

    def of(self, member: str, agreement_id: str) -> tuple[RunSpend, ...]:
        """The runs of one member under one agreement."""
        return tuple(r for r in self.runs.values() if (r.member, r.agreement_id) == (member, agreement_id))

    def take(self, index: int, entry: Kind) -> None:
        """Read an entry; those that spend nothing are passed over.

        Raises:
            LogVerificationError: it does not follow from what came before.
        """
        match entry:
            case Reservation():
                self._reserve(index, entry)
            case Release():
                run = self._run(entry.member, entry.dataset_id, entry)
                if entry.round <= run.last_round or entry.round in run.charged:
                    raise LogVerificationError(
                        f"round {entry.round} of run {entry.run!r} does not come after round {run.last_round}: "
                        "rounds are used once and in order"
                    )
                self._charge(run, entry.purpose, entry)
                run.steps.setdefault(entry.purpose, set()).add(sum(one.count for one in entry.spends))
                run.rounds, run.last_round = run.rounds + 1, entry.round
            case Abort() if entry.spends:
                run = self._run(entry.party, str(entry.dataset_id), entry)
                if entry.round not in run.charged:  # what was released is not charged twice
                    self._charge(run, str(entry.purpose), entry)
            case RunClosed():
                self._close(entry)
            case _:
                return

    def _reserve(self, index: int, entry: Reservation) -> None:
        key = (entry.member, entry.dataset_id, entry.run)
        if key in self.runs:
            raise LogVerificationError(f"run {entry.run!r} of {entry.member!r} is reserved twice")
        try:
            charges = {str(one.kind): one.charge for one in entry.charges}
        except PrivacyParameterError as error:
            raise LogVerificationError(f"a reservation is of no known event: {error.cause}") from None
        self.runs[key] = RunSpend(*key, entry.agreement_id, index, charges, entry.federation_log)

    def _run(self, member: str, dataset: str, entry: Release | Abort | RunClosed) -> RunSpend:
        run = self.runs.get((member, dataset, entry.run))
        if run is None or run.agreement_id != entry.agreement_id:
            raise LogVerificationError(f"run {entry.run!r} of {member!r} has no reservation before it")
        if run.closed is not None:
            raise LogVerificationError(f"run {entry.run!r} of {member!r} was closed before")
        return run

    @staticmethod
    def _charge(run: RunSpend, kind: str, entry: Release | Abort) -> None:
        charge = run.charges.get(kind)
        if charge is None or any(one.spend.event != charge.event for one in entry.spends):
            raise LogVerificationError(
                f"run {run.run!r} of {run.member!r} charges other events than were reserved"
            )
        run.charged.add(entry.round)
        run.recorded[kind] += sum(one.count for one in entry.spends)
        if run.recorded[kind] > charge.count:
            raise LogVerificationError(
                f"run {run.run!r} of {run.member!r} has released {run.recorded[kind]} events "
                f"of {charge.count} reserved"
            )

    def _close(self, entry: RunClosed) -> None:
        run = self._run(entry.member, entry.dataset_id, entry)
        said = {str(kind): count for kind, count in entry.released.items()}
        for kind in {*said, *run.charges}:
            reserved = run.charges[kind].count if kind in run.charges else 0
            if not run.recorded[kind] <= said.get(kind, 0) <= reserved:
                raise LogVerificationError(
                    f"run {run.run!r} of {run.member!r} has {run.recorded[kind]} events of {kind} on record and "
                    f"{reserved} reserved, and cannot be closed with {said.get(kind, 0)}"
                )
        run.closed = said


def total(runs: Iterable[RunSpend], coalition: int | None = None) -> tuple[Spend, ...]:
    """What several runs count together."""
    return tuple(spend for run in runs for spend in run.counted(coalition))
