"""The budget book of one dataset: a state machine over its records.

    1. A run is reserved whole, at its worst, before its first step; each limit must hold, or nothing is spent.
    2. A step is confirmed before its noise is drawn. No more is confirmed than was reserved, no step twice.
    3. What is reserved counts as spent until the member closes the run and says what it released.
    4. A record is stored before it takes effect. If storing fails, nothing more is done until the book is replayed.

`BudgetBook.replay` of the records, or of any prefix of them, gives the state that the live book had.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from hansa.canonical import Json
from hansa.errors import BudgetRefusedError, PrivacyParameterError
from hansa.privacy.accountant import DISCRETIZATION_INTERVAL
from hansa.privacy.charges import Charge
from hansa.privacy.composition import Block, FixedInAdvance
from hansa.privacy.errors import BudgetExceededError, BudgetRecordError, Shortfall
from hansa.privacy.events import Spend, rate_and_multiplier
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.quote import Quote
from hansa.privacy.records import Abort, Close, Confirmation, Grant, Limit, Record, Reservation
from hansa.privacy.words import rule_words

Append: TypeAlias = Callable[[Record], None]

# Another release of a numerical library may move an ε by its last digits; no recorded reservation falls over that.
REPLAY_TOLERANCE = 1e-3
_SEARCH_INTERVAL = 1e-3  # of PLD while noise is searched: quick, and never below the answer of record
_MOST_NOISE = 2.0**12  # times the noise that was asked for
_NOISE_TOLERANCE = 1.005


@dataclass
class _Run:
    reservation: Reservation
    steps: dict[str, Confirmation] = field(default_factory=dict)
    recorded: Counter[str] = field(default_factory=Counter)  # releases in `steps`, by kind
    aborted: set[str] = field(default_factory=set)
    closed: Mapping[str, int] | None = None

    def record(self, step: Confirmation) -> None:
        if step.step not in self.steps:
            self.steps[step.step] = step
            self.recorded[step.kind] += step.count

    def charge(self, kind: str) -> Charge | None:
        return next((charge for charge in self.reservation.charges if charge.kind == kind), None)

    def block(self, coalition: int | None) -> Block:
        planned = tuple(charge.against(coalition) for charge in self.reservation.charges)
        if self.closed is None:
            return Block(planned, planned)
        left = (
            Spend(charge.against(coalition).event, self.closed.get(charge.kind, 0))
            for charge in self.reservation.charges
        )
        return Block(planned, tuple(spend for spend in left if spend.count))


def _kept_nowhere(record: Record) -> None:
    """For books that live as long as their process."""


class BudgetBook:
    """One dataset's budget. Make it with `begin` or `replay`.

    Args:
        append: stores a record for good before it returns; whatever it raises is passed on.

    Guarantees: by each limit's rule, what was confirmed never exceeds the limit; nothing that was released is
        unrecorded, provided a step is confirmed before it is taken.
    Assumes: one book per dataset at a time; events describe what runs.
    """

    def __init__(self, grant: Grant, append: Append = _kept_nowhere) -> None:
        self._grant = grant
        self._append = append
        self._runs: dict[str, _Run] = {}
        self._unsure = False

    @classmethod
    def begin(cls, grant: Grant, append: Append = _kept_nowhere) -> BudgetBook:
        """A new book; its grant is the first record."""
        append(grant)
        return cls(grant, append)

    @classmethod
    def replay(
        cls,
        records: Iterable[Record],
        append: Append = _kept_nowhere,
        *,
        tolerance: float = REPLAY_TOLERANCE,
    ) -> BudgetBook:
        """The book that these records made; `append` is for what follows.

        Args:
            records: from the first on, any prefix of a book's.
            append: as of the class.
            tolerance: relative, of ε, by which a recorded reservation may exceed its limit; infinite to take limits
                as they were.

        Raises:
            BudgetRecordError: they do not follow from each other, or a reservation exceeds its limit.
        """
        book: BudgetBook | None = None
        for number, record in enumerate(records, 1):
            if book is None:
                if not isinstance(record, Grant):
                    raise BudgetRecordError("the first record of a budget is not its grant")
                book = cls(record, append)
                continue
            try:
                book._check(record, tolerance)
            except (BudgetRefusedError, PrivacyParameterError) as error:
                raise BudgetRecordError(f"record {number} of a budget: {error.cause}") from error
            book._apply(record)
        if book is None:
            raise BudgetRecordError("a budget without records has no limit")
        return book

    # --- what changes it -------------------------------------------------------------------------------------

    def reserve(self, run: str, charges: Sequence[Charge], agreement: str = "") -> None:
        """Reserve a run's worst case before any of it happens; the same reservation again changes nothing.

        Raises:
            BudgetExceededError: a limit would not hold; says what was requested, what remains and what would fit.
            BudgetRefusedError: the run holds another reservation, or was closed.
            PrivacyParameterError: there is nothing to reserve, or no guarantee can be stated.
        """
        record = Reservation(run, agreement, tuple(charges))
        held = self._runs.get(run)
        if held is not None and held.closed is None and held.reservation == record:
            return
        self._take(record)

    def confirm(self, run: str, step: str, count: int, kind: str | None = None) -> None:
        """Count `count` releases under the name `step`, before they are made.

        A step that is on record already is refused: what was drawn for it may have left, so its answer is repeated
        as it was kept, or is lost, and never drawn anew.

        Args:
            run, step, count: which, and how many.
            kind: of the charge; may be left out where the run has one.

        Raises:
            BudgetRefusedError: nothing is reserved, the run is closed, more would be released than was reserved, or
                the step is on record.
        """
        self._take(Confirmation(run, step, self._kind(run, kind), count))

    def may_confirm(self, run: str, step: str, count: int, kind: str | None = None) -> None:
        """Check all that `confirm` would check; nothing is recorded.

        Raises:
            BudgetRefusedError: as `confirm`.
        """
        self._check(Confirmation(run, step, self._kind(run, kind), count), 0.0)

    def abort(self, run: str, step: str, count: int, kind: str | None = None) -> None:
        """Record that a step came to nothing. It stays charged, or is charged now; a retry is another step.

        Raises:
            BudgetRefusedError: as `confirm`, but a step may have been confirmed before.
        """
        self._take(Abort(run, step, self._kind(run, kind), count))

    def close(self, run: str, released: Mapping[str, int] | None = None) -> None:
        """End a run: what it reserved and did not release is free again, as far as the rule allows.

        Args:
            run: which; one that never was reserved has nothing to free.
            released: what really was, by kind; by default what is on record.

        Raises:
            BudgetRefusedError: less than is on record, more than was reserved, or other than an earlier close.
        """
        held = self._runs.get(run)
        if held is None:
            return
        if released is None:
            released = {charge.kind: held.recorded[charge.kind] for charge in held.reservation.charges}
        if held.closed is None or dict(held.closed) != dict(released):
            self._take(Close(run, dict(released)))

    # --- what it says ----------------------------------------------------------------------------------------

    @property
    def grant(self) -> Grant:
        """The limits, the dataset and the rules."""
        return self._grant

    def spent(self, coalition: int | None = None) -> tuple[Spend, ...]:
        """Everything that counts as spent: released, or reserved and possibly released."""
        blocks = (run.block(coalition) for run in self._runs.values())
        return tuple(spend for block in blocks for spend in block.counted)

    def released(self, run: str, kind: str | None = None) -> int:
        """How many releases of a run count, of one kind or of all: those on record, or what its close says."""
        held = self._runs.get(run)
        if held is None:
            return 0
        counts = held.recorded if held.closed is None else held.closed
        return sum(counts.values()) if kind is None else counts.get(kind, 0)

    def reservation(self, run: str) -> Reservation | None:
        """What a run has reserved, if it has; also once it is closed."""
        held = self._runs.get(run)
        return None if held is None else held.reservation

    def holds(self, step: Confirmation) -> bool:
        """Whether a step is on record exactly so, in a run that is open."""
        held = self._runs.get(step.run)
        return held is not None and held.closed is None and held.steps.get(step.step) == step

    def aborted(self, run: str) -> int:
        """How many steps of a run came to nothing."""
        held = self._runs.get(run)
        return 0 if held is None else len(held.aborted)

    def quotes(
        self, charges: Sequence[Charge] = (), interval: float = DISCRETIZATION_INTERVAL
    ) -> tuple[Quote, ...]:
        """What a further run would mean for each limit; without charges, how the limits stand."""
        return tuple(
            Quote(
                words,
                limit.loss,
                used=self._epsilon(coalition, limit, (), interval),
                together=self._epsilon(coalition, limit, charges, interval),
                rule=limit.rule,
            )
            for words, coalition, limit in self._grant.limits()
        )

    def fits(self, charges: Sequence[Charge], interval: float = DISCRETIZATION_INTERVAL) -> bool:
        """Whether a run could be reserved."""
        return all(
            self._epsilon(coalition, limit, charges, interval) <= limit.loss.epsilon
            for _, coalition, limit in self._grant.limits()
        )

    def steps_that_fit(self, charges: Sequence[Charge]) -> int:
        """How many releases of the largest charge could be reserved, the other charges whole."""
        main = max(range(len(charges)), key=lambda index: charges[index].count)

        def fits(count: int) -> bool:
            return self.fits([*charges[:main], charges[main].with_count(count), *charges[main + 1 :]])

        low, high = 0, charges[main].count + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def noise_that_fits(self, charges: Sequence[Charge]) -> float | None:
        """By what factor all noise must grow for the whole run to fit, to half a percent; `None` if none is enough."""

        def fits(factor: float) -> bool:
            return self.fits([charge.with_more_noise(factor) for charge in charges], _SEARCH_INTERVAL)

        high = 1.0
        while not fits(high):
            high *= 2
            if high > _MOST_NOISE:
                return None
        low = high / 2
        while high > 1 and high / low > _NOISE_TOLERANCE:
            middle = (low * high) ** 0.5
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high

    def state(self) -> Mapping[str, Json]:
        """Everything that the book knows of its runs, as plain JSON values."""
        return {
            run: {
                "agreement": held.reservation.agreement,
                "reserved": {charge.kind: charge.count for charge in held.reservation.charges},
                "steps": {name: step.count for name, step in held.steps.items()},
                "aborted": sorted(held.aborted),
                "closed": None if held.closed is None else dict(held.closed),
            }
            for run, held in self._runs.items()
        }

    # --- within ----------------------------------------------------------------------------------------------

    def _kind(self, run: str, kind: str | None) -> str:
        if kind is not None:
            return kind
        held = self._runs.get(run)
        if held is None:
            return ""
        if len(held.reservation.charges) > 1:
            raise PrivacyParameterError("a run of several kinds needs to know which one is released")
        return held.reservation.charges[0].kind

    def _take(self, record: Record) -> None:
        if self._unsure:
            raise BudgetRecordError(
                "a record may or may not have been stored", remedy="Replay the book from its records."
            )
        self._check(record, 0.0)
        self._unsure = True
        self._append(record)
        self._unsure = False
        self._apply(record)

    def _check(self, record: Record, tolerance: float) -> None:
        match record:
            case Grant():
                raise BudgetRefusedError("a budget is granted once")
            case Reservation():
                self._check_reservation(record, tolerance)
            case Confirmation() | Abort():
                self._check_step(record)
            case Close():
                self._check_close(record)

    def _check_reservation(self, record: Reservation, tolerance: float) -> None:
        held = self._runs.get(record.run)
        if held is not None:
            what = "was closed" if held.closed is not None else "holds a reservation of other events"
            raise BudgetRefusedError(f"run {record.run[:12]} {what}", remedy="Start another run.")
        if tolerance == math.inf:
            return
        others = {run.reservation.agreement for run in self._runs.values()} - {record.agreement}
        for words, coalition, limit in self._grant.limits():
            if others and isinstance(limit.rule, FixedInAdvance):
                raise BudgetRefusedError(
                    f"the limit {words} is composed as if all runs were fixed in advance, and agreements follow one "
                    "another: another one has reserved already",
                    remedy="Have the privacy officer grant under a rule for several agreements, for another dataset id.",
                )
            together = self._epsilon(coalition, limit, record.charges)
            if not together <= limit.loss.epsilon * (1 + tolerance):
                raise BudgetExceededError(self._shortfall(words, coalition, limit, record.charges))

    def _check_step(self, record: Confirmation | Abort) -> None:
        held = self._runs.get(record.run)
        if held is None or held.closed is not None:
            raise BudgetRefusedError(f"run {record.run[:12]} has no open reservation")
        charge = held.charge(record.kind)
        if charge is None:
            raise BudgetRefusedError(f"run {record.run[:12]} reserved nothing of kind {record.kind!r}")
        known = held.steps.get(record.step)
        if known is not None:
            if isinstance(record, Confirmation) or record.step in held.aborted or known != _confirmed(record):
                raise BudgetRefusedError(
                    f"step {record.step!r} of run {record.run[:12]} is on record already"
                )
            return
        asked = held.recorded[record.kind] + record.count
        if type(record.count) is not int or record.count < 1 or asked > charge.count:
            raise BudgetRefusedError(
                f"run {record.run[:12]} would release {asked} events of {charge.count} reserved"
            )

    def _check_close(self, record: Close) -> None:
        held = self._runs.get(record.run)
        if held is None or held.closed is not None:
            raise BudgetRefusedError(f"run {record.run[:12]} has no open reservation")
        planned = {charge.kind: charge.count for charge in held.reservation.charges}
        for kind in {*record.released, *planned}:
            count = record.released.get(kind, 0)
            if type(count) is not int or not held.recorded[kind] <= count <= planned.get(kind, 0):
                raise BudgetRefusedError(
                    f"run {record.run[:12]} has {held.recorded[kind]} releases of kind {kind!r} on record "
                    f"and {planned.get(kind, 0)} reserved, and cannot be closed with {count}"
                )

    def _apply(self, record: Record) -> None:
        match record:
            case Reservation():
                self._runs[record.run] = _Run(record)
            case Confirmation():
                self._runs[record.run].record(record)
            case Abort():
                self._runs[record.run].record(_confirmed(record))
                self._runs[record.run].aborted.add(record.step)
            case Close():
                self._runs[record.run].closed = dict(record.released)

    def _epsilon(
        self,
        coalition: int | None,
        limit: Limit,
        charges: Sequence[Charge],
        interval: float = DISCRETIZATION_INTERVAL,
    ) -> float:
        """ε by a limit's rule of all that counts, and of `charges`."""
        blocks = [run.block(coalition) for run in self._runs.values()]
        if charges:
            blocks.append(_block(charges, coalition))
        return limit.rule.epsilon(blocks, limit.loss.delta, interval)

    def _shortfall(
        self, words: str, coalition: int | None, limit: Limit, charges: Sequence[Charge]
    ) -> Shortfall:
        alone = limit.rule.epsilon([_block(charges, coalition)], limit.loss.delta)
        left = limit.loss.epsilon - self._epsilon(coalition, limit, ())
        main = max(charges, key=lambda charge: charge.count)
        multiplier = rate_and_multiplier(main.against(coalition).event)[1]
        factor = self.noise_that_fits(charges)
        no_more = math.isinf(self._epsilon(coalition, limit, charges)) and math.isfinite(alone)
        return Shortfall(
            against=words,
            requested=PrivacyLoss(alone, limit.loss.delta),
            remaining=PrivacyLoss(max(left, 0.0), limit.loss.delta),
            limit=limit.loss,
            steps=main.count,
            steps_that_fit=self.steps_that_fit(charges),
            noise_multiplier=multiplier,
            noise_multiplier_that_fits=None if factor is None else multiplier * factor,
            rule=rule_words(limit.rule) if no_more else "",
        )


def _block(charges: Sequence[Charge], coalition: int | None) -> Block:
    spends = tuple(charge.against(coalition) for charge in charges)
    return Block(spends, spends)


def _confirmed(record: Abort) -> Confirmation:
    return Confirmation(record.run, record.step, record.kind, record.count)
