"""A league whose members mirror the federation's log, and a coordinator that may show them anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa.ledger import (
    Aggregate,
    InMemoryWitness,
    Log,
    LogStore,
    MemoryLogStore,
    NoteSignature,
    SignedEntry,
    SignedNote,
    WitnessMemory,
)
from hansa_client.federation_log import FederationLog
from hansa_client.ledger import MemberLedger
from hansa_client.mirror import Mirror
from support import members
from support.ledgers import AGREEMENT, AT, HASH, LOG_SIGNER, MEMBERS, OTHER, keyring, signed
from support.members import PROTECTION, RUN, TRAINING, WITNESSES, Clock

QUORUM = 3
FEDERATION = FederationLog(LOG_SIGNER.key, {name: WITNESSES[name].key for name in MEMBERS}, QUORUM, keyring())


@dataclass
class Party:
    """One member: its stores survive a restart, or are put back as an older copy."""

    name: str
    own: LogStore = field(default_factory=MemoryLogStore)
    copy: LogStore = field(default_factory=MemoryLogStore)
    memory: WitnessMemory = field(default_factory=InMemoryWitness)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Open everything anew, as a process does."""
        self.ledger = members.opened(self.own, self.name, self.clock)
        self.mirror = Mirror(
            self.copy, FEDERATION, self.ledger.own, WITNESSES[self.name], self.memory, self.clock
        )


def copied(store: LogStore) -> MemoryLogStore:
    """A backup of a store."""
    copy, head = MemoryLogStore(), store.head()
    copy.append(copy.head(), list(store.rows(0, head.size)), head.root)
    return copy


def aggregate(number: int, releases: Iterable[SignedEntry], **changes: Any) -> SignedEntry:
    """The coordinator's sum of a round."""
    said: dict[str, Any] = {
        "at": AT,
        "agreement_id": AGREEMENT,
        "run": RUN,
        "purpose": "training",
        "round": number,
        "step": number - 1,
        "manifest_sha256": OTHER,
        "record_sha256": HASH,
        "aggregate_sha256": HASH,
        "released": {one.entry.writer: getattr(one.entry, "y_sha256", HASH) for one in releases},
    }
    return signed(Aggregate(**{**said, **changes}))


class League:
    """The members and the federation's log."""

    def __init__(self, names: Sequence[str] = MEMBERS) -> None:
        self.log = Log(MemoryLogStore(), LOG_SIGNER)
        self.parties = {name: Party(name) for name in names}
        for party in self.parties.values():
            party.ledger.grant(members.budget(party.name))
            members.sign(party.ledger)

    def __getitem__(self, number: int) -> Party:
        return self.parties[MEMBERS[number]]

    def ledger(self, number: int) -> MemberLedger:
        return self[number].ledger

    def begin(self) -> None:
        """Every member reserves the run."""
        for party in self.parties.values():
            party.ledger.reserve(AGREEMENT, RUN, [TRAINING], PROTECTION)
        self.collect()

    def collect(self) -> None:
        """The coordinator logs what the members have to show."""
        for party in self.parties.values():
            self.log.append(
                data for data in party.mirror.outstanding() if data not in set(self.log.entries())
            )

    def round(self, number: int) -> None:
        """One honest round: releases, their sum, news, cosignatures."""
        releases = [members.release(party.ledger, number) for party in self.parties.values()]
        self.collect()
        self.log.append([aggregate(number, releases).encoded])
        self.spread()

    def news(self, party: Party, note: SignedNote | None = None) -> NoteSignature:
        """Show a member all that it has not seen."""
        note = note or self.log.checkpoint()
        return party.mirror.news(list(self.log.entries(party.mirror.size)), note)

    def spread(self, *extensions: str) -> SignedNote:
        """Show it to all, and gather what they cosign."""
        note = self.log.checkpoint(*extensions)
        for party in self.parties.values():
            note = self.log.add_cosignature(note, self.news(party, note), WITNESSES[party.name].key)
        return note


def played(rounds: int) -> League:
    """A league after so many honest rounds."""
    league = League()
    league.begin()
    league.spread()
    for number in range(1, rounds + 1):
        league.round(number)
    return league


def picture(mirror: Mirror) -> object:
    """All that a mirror says, to see that nothing changed."""
    return (
        mirror.size,
        mirror.view.root if mirror.size else b"",
        mirror.keys,
        mirror.outstanding(),
        [note.encoded for note in mirror.view.checkpoints()],
    )
