"""Group 5: how losses add up, over rounds within a run and over runs by the rule of the grant."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from hansa.audit.findings import FEDERATION, log_name
from hansa.audit.report import words
from hansa.audit.report.chronicle import Chronicle, Chronicles, Made, Placed
from hansa.audit.report.evidence import Composition, Curve, History, Line
from hansa.audit.report.value import Spot
from hansa.canonical import canonical_json
from hansa.errors import HansaError
from hansa.ledger.budgets import grant_of, total_granted
from hansa.ledger.spends import Abort, BudgetGranted, Reservation, RunClosed
from hansa.ledger.trust import TrustedKeys
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import Charge
from hansa.privacy.composition import Block
from hansa.privacy.events import EventJson, Spend
from hansa.privacy.records import Grant
from hansa.privacy.words import no_total_words

MAX_POINTS = 40  # of a curve; each is an ε that is computed anew
MAX_RELEASES = 200  # that the history of one dataset lists, beside the last of each run


def composition(told: Chronicles, keys: TrustedKeys) -> Composition:
    """Histories and curves of every dataset whose grant was given."""
    ledgers = [
        Spent(log, member, placed, told.federation)
        for member in keys.members
        if (log := told.own.get(member)) is not None
        for placed in log.grants
    ]
    return Composition(
        histories=tuple(ledger.history() for ledger in ledgers),
        curves=tuple(curve for ledger in ledgers for curve in ledger.curves()),
        per_person=tuple(_per_person(told, keys)),
        untold=words.UNTOLD["composition"],
    )


def _per_person(told: Chronicles, keys: TrustedKeys) -> Iterator[str]:
    yield words.ACROSS_MEMBERS
    for member in keys.members:
        grants = [placed.entry for placed in told.own[member].grants] if member in told.own else []
        if len(grants) < 2:
            continue
        loss = total_granted(grants)
        if loss is None:
            yield f"{member}: {no_total_words([entry.unit for entry in grants])}."
        else:
            yield words.several_budgets(member, len(grants), loss.epsilon, loss.delta)


def spaced(count: int, most: int) -> list[int]:
    """At most so many places of a sequence, evenly chosen, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def stated(spends: Sequence[Spend], delta: float) -> float | None:
    """ε of what was fixed in advance; `None` without a bound, or where the accountant fails."""
    try:
        return _finite(epsilon_spent(spends, delta))
    except HansaError:
        return None


class Spent:
    """What became of one budget.

    Args:
        log: the member's own.
        member: whose.
        placed: its grant.
        federation: where copies of the member's entries stand.
    """

    def __init__(
        self, log: Chronicle, member: str, placed: Placed[BudgetGranted], federation: Chronicle | None
    ) -> None:
        self._log, self._member, self._placed, self._federation = log, member, placed, federation
        self._dataset = placed.entry.dataset_id

    @cached_property
    def _grant(self) -> Grant:
        return grant_of(self._placed.entry)

    @cached_property
    def _made(self) -> Mapping[str, list[Made]]:
        runs = self._log.runs_of(self._member, self._dataset)
        return {run: self._log.made.get((self._member, self._dataset, run), []) for run in runs}

    @cached_property
    def _points(self) -> Mapping[str, Mapping[int, float | None]]:
        """By run and place in the log: ε of what the run has released by then."""
        return {run: dict(self._measured(made)) for run, made in self._made.items()}

    def curves(self) -> Iterator[Curve]:
        """ε after the releases of each run."""
        for run, made in self._made.items():
            points = tuple(
                (one.round, self._points[run][one.place]) for one in made if one.place in self._points[run]
            )
            yield Curve(
                member=self._member,
                dataset=self._dataset,
                run=run,
                delta=self._grant.everyone.loss.delta,
                points=points,
            )

    def history(self) -> History:
        """The lines of the budget."""
        loss = self._grant.everyone.loss
        releases = sorted(
            ((run, one) for run, made in self._made.items() for one in made), key=lambda pair: pair[1].place
        )
        ends = {made[-1].place for made in self._made.values() if made}
        listed = sorted(
            {
                *spaced(len(releases), MAX_RELEASES),
                *(i for i, (_, one) in enumerate(releases) if one.place in ends),
            }
        )
        lines = [self._granted(), *self._changes(), *(self._released(*releases[i]) for i in listed)]
        return History(
            member=self._member,
            dataset=self._dataset,
            limit=loss.epsilon,
            delta=loss.delta,
            lines=tuple(sorted(lines, key=lambda line: line.spot.entry)),
            left_out=len(releases) - len(listed),
        )

    def _measured(self, made: Sequence[Made]) -> Iterator[tuple[int, float | None]]:
        wanted = set(spaced(len(made), MAX_POINTS))
        counts: Counter[bytes] = Counter()
        events: dict[bytes, EventJson] = {}
        for number, one in enumerate(made):
            key = canonical_json(dict(one.event))
            events[key] = one.event
            counts[key] += one.steps
            if number in wanted:
                spends = [Spend(events[name], count) for name, count in counts.items()]
                yield one.place, stated(spends, self._grant.everyone.loss.delta)

    def _granted(self) -> Line:
        entry = self._placed.entry
        return self._line(self._placed, "granted", entry.at, entry.writer, spent=0.0)

    def _changes(self) -> Iterator[Line]:
        """Reservations, ends of runs, and aborts that cost; ε by the rule after each, or after some of very many."""
        mine = [one for one in self._log.budget if _dataset_of(one.entry) == self._dataset]
        wanted = set(spaced(len(mine), MAX_POINTS))
        blocks: dict[str, Block] = {}
        charges: dict[str, tuple[Charge, ...]] = {}
        for place, placed in enumerate(mine):
            entry = placed.entry
            spent = None
            if isinstance(entry, Abort):
                steps = sum(one.count for one in entry.spends)
                yield self._line(placed, "aborted", entry.at, entry.writer, entry.run, entry.round, steps)
                continue
            if isinstance(entry, Reservation):
                charges[entry.run] = tuple(one.charge for one in entry.charges)
                planned = tuple(charge.against(None) for charge in charges[entry.run])
                blocks[entry.run] = Block(planned, planned)
            else:
                left = tuple(_left(charges[entry.run], {str(kind): n for kind, n in entry.released.items()}))
                blocks[entry.run] = Block(blocks[entry.run].planned, left)
            if place in wanted:
                spent = self._by_rule(tuple(blocks.values()))
            steps = sum(one.count for one in blocks[entry.run].counted)
            what = "reserved" if isinstance(entry, Reservation) else "closed"
            yield self._line(placed, what, entry.at, entry.writer, entry.run, None, steps, spent)

    def _by_rule(self, blocks: Sequence[Block]) -> float | None:
        limit = self._grant.everyone
        try:
            return _finite(limit.rule.epsilon(blocks, limit.loss.delta))
        except HansaError:
            return None

    def _released(self, run: str, made: Made) -> Line:
        return Line(
            at=made.at,
            what="released",
            run=run,
            round=made.round,
            steps=made.steps,
            spent=None,
            released=self._points[run].get(made.place),
            by=self._member,
            asked_by=made.manifest_sha256,
            spot=self._spot(made.place, made.leaf),
            peer=self._peer(made.leaf),
        )

    def _line(
        self,
        placed: Placed[BudgetGranted] | Placed[Reservation | RunClosed | Abort],
        what: str,
        at: str,
        by: str,
        run: str | None = None,
        number: int | None = None,
        steps: int = 0,
        spent: float | None = None,
    ) -> Line:
        return Line.model_validate(
            {
                "at": at,
                "what": what,
                "run": run,
                "round": number,
                "steps": steps,
                "spent": spent,
                "released": None,
                "by": by,
                "asked_by": None,
                "spot": self._spot(placed.index, placed.leaf),
                "peer": self._peer(placed.leaf),
            }
        )

    def _spot(self, index: int, leaf: bytes) -> Spot:
        return Spot(log=log_name(self._member), entry=index, leaf=leaf.hex())

    def _peer(self, leaf: bytes) -> Spot | None:
        if self._federation is None or leaf not in self._federation.places:
            return None
        return Spot(log=FEDERATION, entry=self._federation.places[leaf], leaf=leaf.hex())


def _dataset_of(entry: Reservation | RunClosed | Abort) -> str | None:
    return entry.dataset_id


def _left(charges: Sequence[Charge], released: Mapping[str, int]) -> Iterator[Spend]:
    """What counts of a run that has ended."""
    for charge in charges:
        if released.get(charge.kind, 0):
            yield Spend(charge.event, released[charge.kind])


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
