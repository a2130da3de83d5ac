"""Reading a log once, entry by entry: what it says, and the rules that an entry must keep where it stands.

Hashes and signatures of the part that a checkpoint covers are verified before (`hansa.audit.integrity`); what lies
behind the last checkpoint is verified here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from hansa.audit.spending import Spending
from hansa.errors import HansaError
from hansa.identity import COORDINATOR
from hansa.ledger.attacks import AttackMade
from hansa.ledger.budgets import BudgetReader, grant_of
from hansa.ledger.entry import Entry
from hansa.ledger.errors import LogVerificationError
from hansa.ledger.kinds import Kind
from hansa.ledger.membership import AgreementSigned, AmendmentMade
from hansa.ledger.outcomes import Adaptation, Aggregate, Evaluation
from hansa.ledger.signed import Agreed, Keyring, SignedEntry
from hansa.ledger.spends import Abort, BudgetGranted, Release, Reservation, RunClosed
from hansa.ledger.trust import TrustedKeys
from hansa.merkle import HASH_BYTES, Frontier, leaf_hash, subtree_root
from hansa.privacy.records import Grant, Record


class Tree:
    """Every node of a growing tree, so that the root at any size it has had costs O(log n)."""

    def __init__(self) -> None:
        self._frontier = Frontier()
        self._levels: list[bytearray] = []

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._frontier.size

    def append(self, leaf: bytes) -> None:
        """Add a leaf's hash."""
        for level, node in enumerate(self._frontier.append(leaf)):
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += node

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""
        return self.nodes(level, index, 1)

    def nodes(self, level: int, first: int, count: int) -> bytes:
        """The hashes of so many complete subtrees that stand beside each other."""
        return bytes(self._levels[level][first * HASH_BYTES : (first + count) * HASH_BYTES])

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` leaves, of which there are as many."""
        return subtree_root(0, size, self.node)

    def differs_at(self, other: Tree) -> int | None:
        """The first leaf that two trees do not share; `None` where one begins the other."""
        low, high = 0, min(self.size, other.size)
        if self.root_at(high) == other.root_at(high):
            return None
        while high - low > 1:  # roots at `low` are equal, those at `high` are not
            middle = (low + high) // 2
            low, high = (middle, high) if self.root_at(middle) == other.root_at(middle) else (low, middle)
        return low


class Copied(NamedTuple):
    """A member's entry that stands in its own log and in the federation's.

    Attributes:
        entry: its place here.
        leaf: its hash.
        type: ``reservation``, ``release`` or ``closed``.
        run: which.
        round: of a release, else 0.
    """

    entry: int
    leaf: bytes
    type: str
    run: str
    round: int


class Released(NamedTuple):
    """What a release says about its round.

    Attributes:
        entry: its place here.
        purpose, step: what was summed.
        y_sha256, manifest_sha256: the masked vector and who asked for it.
    """

    entry: int
    purpose: str
    step: int
    y_sha256: str
    manifest_sha256: str


class Dated(NamedTuple):
    """Where a writer's clock stood behind what it had shown before.

    Attributes:
        entry: its place.
        writer: whose clock.
        before, at: the two times.
    """

    entry: int
    writer: str
    before: str
    at: str


@dataclass
class LogFacts:
    """What a log says.

    Attributes:
        tree: over its entries.
        agreed: the rosters of the agreement, as amended on the way.
        agreements: each member's signature of the agreement.
        copied: members' entries that two logs hold, by member.
        releases: by run, round and member.
        spending: what was reserved, released and closed.
        grants: budgets, with the place of each.
        records: the records of each budget, with their places.
        aggregates: sums, with their places.
        evaluations: tables, with their places.
        adaptations: what adapted to sums, with their places.
        aborted: rounds that the coordinator calls ended without a sum, by run.
        attacks: on the member's own trainer, with their places.
        told_attacks: places and leaves of all attacks that the log holds, by member.
        clocks: times that went back.
        types: of all entries.
        elsewhere: key of the log that a run was reserved for, of runs of the agreement that another log has to show.
    """

    tree: Tree = field(default_factory=Tree)
    agreed: Agreed | None = None
    agreements: dict[str, tuple[int, AgreementSigned]] = field(default_factory=dict)
    copied: dict[str, list[Copied]] = field(default_factory=dict)
    releases: dict[tuple[str, int, str], Released] = field(default_factory=dict)
    spending: Spending = field(default_factory=Spending)
    grants: dict[str, tuple[int, Grant, BudgetGranted]] = field(default_factory=dict)
    records: dict[str, list[tuple[int, Record]]] = field(default_factory=dict)
    aggregates: list[tuple[int, Aggregate]] = field(default_factory=list)
    evaluations: list[tuple[int, Evaluation]] = field(default_factory=list)
    adaptations: list[tuple[int, Adaptation]] = field(default_factory=list)
    aborted: dict[str, set[int]] = field(default_factory=dict)
    attacks: list[tuple[int, AttackMade]] = field(default_factory=list)
    told_attacks: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    clocks: list[Dated] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)


class LogReader:
    """Reads one log.

    Args:
        keys: that are trusted.
        keyring: whose signatures count in this log.
        member: whose log it is; `None` for the federation's.
        sealed: how many entries were verified before.

    Attributes:
        facts: what was read so far.
        type: of the entry that was read last; empty if it could not be read.
    """

    def __init__(self, keys: TrustedKeys, keyring: Keyring, member: str | None, sealed: int) -> None:
        self.facts, self.type = LogFacts(agreed=keyring.agreements.get(keys.agreement_id)), ""
        self._keys, self._keyring, self._member, self._sealed = keys, keyring, member, sealed
        self._budgets: dict[str, BudgetReader] = {}
        self._last: dict[str, str] = {}  # the time of each writer's last entry
        self._rounds: dict[str, int] = {}  # of each run's last aggregate
        self._seen: set[bytes] = set()  # behind the last checkpoint
        self._here: set[str] = set()  # runs that the federation's log has to show

    def take(self, index: int, data: bytes) -> None:
        """Read the next entry.

        Raises:
            HansaError: it may not stand here; says why.
        """
        self.type = ""
        signed = SignedEntry.parse(data)
        entry, leaf = signed.entry, leaf_hash(data)
        self.type = entry.type
        if index >= self._sealed:
            self._keyring.verify(signed, index)
            if leaf in self._seen:
                raise LogVerificationError("it stands in the log twice")
            self._seen.add(leaf)
        self._note(index, entry, leaf)
        self.facts.types.append(entry.type)
        self.facts.tree.append(leaf)
        self._date(index, entry)

    def _note(self, index: int, entry: Kind, leaf: bytes) -> None:
        facts = self.facts
        if self._member is not None:
            self._budget(index, entry)
        facts.spending.take(index, entry)  # last of what may refuse a spend: what it holds is of good entries
        match entry:
            case AgreementSigned():
                self._agreement(index, entry)
            case Reservation() if entry.agreement_id == self._keys.agreement_id:
                self._reserved(entry)
            case AmendmentMade():
                self._keyring = self._keyring.amended(entry, index)
                facts.agreed = self._keyring.agreements.get(self._keys.agreement_id)
            case AttackMade():
                self._attack(index, entry, leaf)
            case Aggregate():
                self._aggregate(index, entry)
            case Evaluation():
                facts.evaluations.append((index, entry))
            case Adaptation():
                facts.adaptations.append((index, entry))
            case Abort(party=party) if party == COORDINATOR:
                facts.aborted.setdefault(entry.run, set()).add(entry.round)
            case Release():
                facts.releases[entry.run, entry.round, entry.member] = Released(
                    index, entry.purpose, entry.step, entry.y_sha256, entry.manifest_sha256
                )
            case _:
                pass
        if isinstance(entry, Reservation | Release | RunClosed):
            number = entry.round if isinstance(entry, Release) else 0
            if entry.agreement_id == self._keys.agreement_id:
                copy = Copied(index, leaf, entry.type, entry.run, number)
                facts.copied.setdefault(entry.member, []).append(copy)

    def _agreement(self, index: int, entry: AgreementSigned) -> None:
        keys = self._keys
        if entry.agreement_id != keys.agreement_id:
            return
        rosters = {roster.sha256 for _, roster in self.facts.agreed.rosters} if self.facts.agreed else set()
        if entry.roster_sha256 not in rosters:
            raise LogVerificationError(
                f"{entry.member!r} has signed another roster than the trusted keys make"
            )
        said = {
            "log": (entry.log_key, keys.logs.get(entry.member)),
            "witness": (entry.witness_key, keys.witnesses.get(entry.member)),
            "privacy officer's": (entry.officer_key, keys.officers.get(entry.member)),
        }
        for which, (here, trusted) in said.items():
            if here != trusted:
                raise LogVerificationError(
                    f"the {which} key that {entry.member!r} signed is not the trusted one"
                )
        self.facts.agreements[entry.member] = (index, entry)

    def _reserved(self, entry: Reservation) -> None:
        """Which log has to show a run: the one that its reservation names, and this federation's if it names none."""
        if entry.federation_log in {None, self._keys.federation_log}:
            self._here.add(entry.run)
            self.facts.elsewhere.pop(entry.run, None)
        elif self._member is None:
            raise LogVerificationError(f"run {entry.run!r} of {entry.member!r} was reserved for another log")
        elif entry.run not in self._here:
            self.facts.elsewhere.setdefault(entry.run, str(entry.federation_log))

    def _budget(self, index: int, entry: Kind) -> None:
        """The record of a budget that an entry of a member's own log is."""
        facts = self.facts
        if isinstance(entry, BudgetGranted):
            if entry.member != self._member:
                raise LogVerificationError(
                    f"it grants a budget of {entry.member!r} in the log of {self._member!r}"
                )
            if entry.dataset_id in facts.grants:
                raise LogVerificationError(
                    f"the budget of dataset {entry.dataset_id[:8]} is granted a second time"
                )
            facts.grants[entry.dataset_id] = (index, grant_of(entry), entry)
            self._budgets[entry.dataset_id] = BudgetReader(entry.dataset_id)
        elif not isinstance(entry, Reservation | Release | RunClosed | Abort) or entry.dataset_id is None:
            return
        reader = self._budgets.get(str(entry.dataset_id))
        if reader is None:
            raise LogVerificationError(
                f"the dataset {str(entry.dataset_id)[:8]} has no budget before this entry"
            )
        record = reader.read(entry)
        if record is not None:
            facts.records.setdefault(str(entry.dataset_id), []).append((index, record))

    def _attack(self, index: int, entry: AttackMade, leaf: bytes) -> None:
        self.facts.told_attacks.setdefault(entry.member, []).append((index, leaf))
        if self._member is None:
            return  # a copy, for the gate; it is held against its claim where the member's own log has it
        if entry.member != self._member:
            raise LogVerificationError(
                f"it tells of an attack of {entry.member!r} in another log than its own"
            )
        self.facts.attacks.append((index, entry))

    def _aggregate(self, index: int, entry: Aggregate) -> None:
        before = self._rounds.get(entry.run, 0)
        if entry.round <= before:
            raise LogVerificationError(
                f"the aggregate of round {entry.round} of run {entry.run!r} does not come after round {before}"
            )
        if entry.round in self.facts.aborted.get(entry.run, ()):
            raise LogVerificationError(f"round {entry.round} of run {entry.run!r} was called aborted before")
        self._rounds[entry.run] = entry.round
        self.facts.aggregates.append((index, entry))

    def _date(self, index: int, entry: Entry) -> None:
        before = self._last.get(entry.writer, "")
        if entry.at < before:
            self.facts.clocks.append(Dated(index, entry.writer, before, entry.at))
        self._last[entry.writer] = entry.at


def read_log(reader: LogReader, entries: Iterable[bytes]) -> HansaError | None:
    """Read entries until one may not stand where it stands, which is at the size of the tree that was read.

    Returns:
        Why it may not, or `None` if all are good.
    """
    try:
        for index, data in enumerate(entries):
            reader.take(index, data)
    except HansaError as error:
        return error
    return None
