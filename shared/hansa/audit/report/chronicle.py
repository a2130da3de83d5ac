"""What the good entries of a log tell, short enough to keep for a log of any length.

An audit has checked them before: only entries that it found good are read here, from the first to the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from hansa.audit.copies import LogCopy, Sources
from hansa.audit.findings import FEDERATION, Findings, LogSeen, log_name
from hansa.audit.spending import Spending
from hansa.ledger.attacks import AttackMade
from hansa.ledger.checkpoint import Checkpoint
from hansa.ledger.entry import OfRun
from hansa.ledger.kinds import Kind
from hansa.ledger.membership import AgreementSigned, AmendmentMade, Membership
from hansa.ledger.outcomes import Aggregate, Evaluation, Gate, Override, Publication
from hansa.ledger.signed import SignedEntry
from hansa.ledger.spends import Abort, BudgetGranted, Release, Reservation, RunClosed
from hansa.ledger.trust import TrustedKeys
from hansa.merkle import Frontier, leaf_hash
from hansa.privacy.events import EventJson

Said = TypeVar("Said")


@dataclass(frozen=True)
class Placed(Generic[Said]):
    """An entry in its place.

    Attributes:
        index: from 0.
        leaf: its hash in the tree.
        entry: what it says.
    """

    index: int
    leaf: bytes
    entry: Said


class Made(NamedTuple):
    """A release, without what all releases of a run share.

    Attributes:
        place, leaf: where it stands.
        at: when its member's clock said that it was written.
        round, purpose: of the secure sum.
        event, steps: what it was charged as.
        manifest_sha256: who asked for it.
    """

    place: int
    leaf: bytes
    at: str
    round: int
    purpose: str
    event: EventJson
    steps: int
    manifest_sha256: str


class Summed(NamedTuple):
    """A sum.

    Attributes:
        place: where it stands.
        at: when the coordinator's clock said that it was written.
        run, round, purpose: which.
        released, excluded: whose vectors are in it, and whose reached the coordinator and are not.
        model_sha256: of the model that follows.
    """

    place: int
    at: str
    run: str
    round: int
    purpose: str
    released: tuple[str, ...]
    excluded: tuple[str, ...]
    model_sha256: str | None


class Recipe(NamedTuple):
    """What releases were made with.

    Attributes:
        versions: package and version.
        lock_sha256: of the file that pins all packages.
        rng: where noise and sampling came from.
    """

    versions: tuple[tuple[str, str], ...]
    lock_sha256: str
    rng: str


RunOf = tuple[str, str, str]  # member, dataset, run


@dataclass
class Chronicle:
    """What one log tells.

    Attributes:
        seen: the copy that was read.
        root: over its good entries.
        origin: what the log calls itself.
        first, last: the earliest and the latest time that an entry carries.
        span: of each run, the same.
        agreements, amendments, memberships, grants, evaluations, gates, publications, overrides, attacks: all of them.
        budget: reservations and closes, and aborts that cost, in order.
        spending: what they amount to.
        made: releases by member, dataset and run.
        recipes: what they were made with: members and number of releases.
        sums: in order.
        aborted: rounds that the coordinator says ended without a sum, by run.
    """

    seen: LogSeen
    root: bytes = b""
    origin: str = ""
    first: str | None = None
    last: str | None = None
    span: dict[str, tuple[str, str]] = field(default_factory=dict)
    agreements: list[Placed[AgreementSigned]] = field(default_factory=list)
    amendments: list[Placed[AmendmentMade]] = field(default_factory=list)
    memberships: list[Placed[Membership]] = field(default_factory=list)
    grants: list[Placed[BudgetGranted]] = field(default_factory=list)
    budget: list[Placed[Reservation | RunClosed | Abort]] = field(default_factory=list)
    evaluations: list[Placed[Evaluation]] = field(default_factory=list)
    gates: list[Placed[Gate]] = field(default_factory=list)
    publications: list[Placed[Publication]] = field(default_factory=list)
    overrides: list[Placed[Override]] = field(default_factory=list)
    attacks: list[Placed[AttackMade]] = field(default_factory=list)
    spending: Spending = field(default_factory=Spending)
    made: dict[RunOf, list[Made]] = field(default_factory=dict)
    recipes: dict[Recipe, dict[str, int]] = field(default_factory=dict)
    sums: list[Summed] = field(default_factory=list)
    aborted: dict[str, list[int]] = field(default_factory=dict)
    places: dict[bytes, int] = field(default_factory=dict)

    def read(self, entries: Iterable[bytes]) -> None:
        """Read all entries, once."""
        frontier = Frontier()
        for index, data in enumerate(entries):
            leaf, entry = leaf_hash(data), SignedEntry.parse(data).entry
            frontier.append(leaf)
            self.places[leaf] = index
            self.spending.take(index, entry)
            self._date(entry)
            self._note(index, leaf, entry)
        self.root = frontier.root

    def runs_of(self, member: str, dataset: str) -> tuple[str, ...]:
        """The runs that spend of a dataset, in the order of their reservations."""
        return tuple(run for name, of, run in self.spending.runs if (name, of) == (member, dataset))

    def _date(self, entry: Kind) -> None:
        self.first = min(self.first or entry.at, entry.at)
        self.last = max(self.last or entry.at, entry.at)
        if isinstance(entry, OfRun):
            first, last = self.span.get(entry.run, (entry.at, entry.at))
            self.span[entry.run] = min(first, entry.at), max(last, entry.at)

    def _note(self, index: int, leaf: bytes, entry: Kind) -> None:
        match entry:
            case Release():
                self._release(index, leaf, entry)
            case Aggregate():
                self.sums.append(
                    Summed(
                        index,
                        entry.at,
                        entry.run,
                        entry.round,
                        entry.purpose,
                        tuple(entry.released),
                        entry.excluded,
                        entry.model_sha256,
                    )
                )
            case Abort() if not entry.spends:
                self.aborted.setdefault(entry.run, []).append(entry.round)
            case Reservation() | RunClosed() | Abort():
                self.budget.append(Placed(index, leaf, entry))
            case AgreementSigned():
                self.agreements.append(Placed(index, leaf, entry))
            case AmendmentMade():
                self.amendments.append(Placed(index, leaf, entry))
            case Membership():
                self.memberships.append(Placed(index, leaf, entry))
            case BudgetGranted():
                self.grants.append(Placed(index, leaf, entry))
            case Evaluation():
                self.evaluations.append(Placed(index, leaf, entry))
            case Gate():
                self.gates.append(Placed(index, leaf, entry))
            case Publication():
                self.publications.append(Placed(index, leaf, entry))
            case Override():
                self.overrides.append(Placed(index, leaf, entry))
            case AttackMade():
                self.attacks.append(Placed(index, leaf, entry))

    def _release(self, index: int, leaf: bytes, entry: Release) -> None:
        spend = entry.spends[0].spend
        count = sum(one.count for one in entry.spends)
        made = Made(
            index,
            leaf,
            entry.at,
            entry.round,
            entry.purpose,
            spend.event,
            count,
            entry.manifest_sha256,
        )
        self.made.setdefault((entry.member, entry.dataset_id, entry.run), []).append(made)
        recipe = Recipe(tuple(sorted(entry.software.items())), entry.lock_sha256, entry.rng)
        by_member = self.recipes.setdefault(recipe, {})
        by_member[entry.member] = by_member.get(entry.member, 0) + 1


@dataclass(frozen=True)
class Chronicles:
    """What all logs tell.

    Attributes:
        federation: its log, where a copy was given.
        own: members' own, of those that were given.
    """

    federation: Chronicle | None
    own: Mapping[str, Chronicle]

    def of(self, member: str) -> Chronicle | None:
        """Where a member's spends are read: in its own log, else in the federation's copies of it."""
        return self.own.get(member, self.federation)

    def all(self) -> tuple[Chronicle, ...]:
        """The federation's first."""
        return (*([self.federation] if self.federation is not None else []), *self.own.values())


def chronicles(sources: Sources, findings: Findings, keys: TrustedKeys) -> Chronicles:
    """Read the good entries of the best copy of each log.

    Args:
        sources: that were audited.
        findings: of that audit.
        keys: that it trusted.
    """
    copies = {copy.place: copy for copy in sources.copies}
    own = {
        name: _read(seen, copies)
        for name in keys.members
        if (seen := _best(findings, log_name(name))) is not None
    }
    seen = _best(findings, FEDERATION)
    return Chronicles(None if seen is None else _read(seen, copies), own)


def _best(findings: Findings, log: str) -> LogSeen | None:
    broken = {failure.copy for failure in findings.failures if failure.log == log}
    copies = [seen for seen in findings.logs if seen.log == log]
    return max(copies, key=lambda one: (one.copy not in broken, len(one.cosigned), one.entries), default=None)


def _read(seen: LogSeen, copies: Mapping[str, LogCopy]) -> Chronicle:
    copy = copies[seen.copy]
    chronicle = Chronicle(seen, origin=Checkpoint.parse(copy.notes()[0].text).origin)
    chronicle.read(islice(copy.lying(), seen.entries))
    return chronicle
