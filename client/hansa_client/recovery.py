"""Rebuilding a member's ledger from the federation's log, after it was restored from an old copy or lost.

What the member has signed stands in that log byte for byte, and is put back where it is missing. Nobody can say
whether the member had released still more that never arrived there: a run that was open is therefore ended with all
that it had reserved. The grant is no entry of the federation; it is in the copy, or its officer puts it back first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hansa.errors import HansaError
from hansa.ledger import (
    AmendmentMade,
    GivenEntries,
    Keyring,
    LogStore,
    MemoryLogStore,
    SignedEntry,
    SignedNote,
    verify_log,
)
from hansa.ledger.entry import OfRun
from hansa.ledger.errors import EntryError, RecoveryError
from hansa.protocol import fresh_line
from hansa_client.federation_log import FederationLog
from hansa_client.ledger import MemberLedger

Opened: TypeAlias = Callable[[LogStore], MemberLedger]


@dataclass(frozen=True)
class Recovered:
    """What was put back.

    Attributes:
        ledger: as it is now; every other object over its store is of the past.
        entries: the member's own that were missing, in order.
        forfeited: the runs that were ended with all that they had reserved.
    """

    ledger: MemberLedger
    entries: tuple[SignedEntry, ...]
    forfeited: tuple[str, ...]


def recover(
    store: LogStore,
    opened: Opened,
    federation: FederationLog,
    entries: Sequence[bytes],
    note: SignedNote | str | bytes,
    nonce: str,
) -> Recovered:
    """Put the member's own entries back that its log lacks.

    Args:
        store: of the member's log: an old copy, or a new one in which the grant stands.
        opened: opens a ledger over a store, as the node does.
        federation: what the member has pinned about the federation's log.
        entries: that log, whole.
        note: a checkpoint of it.
        nonce: random hexadecimal digits that the member made for this, in `note`: nobody cosigned it before.

    Raises:
        CheckpointRefusedError: it is cosigned by too few.
        LogVerificationError: the entries are not the log of the checkpoint, or may not stand in it.
        RecoveryError: the checkpoint is old, or the entries do not fit what the member's log holds.
        LogStoreError: they cannot be stored.

    Guarantees: all of it is on disk, or nothing; what was ever reserved under this federation counts at least as much as
        what was released.
    """
    seen = federation.verify(note)
    ledger = opened(store)
    if fresh_line(ledger.member, nonce) not in seen.checkpoint.extensions:
        raise RecoveryError(
            "the checkpoint does not carry the nonce of this recovery",
            remedy="Have the coordinator put the nonce into a checkpoint, and enough members cosign it.",
        )
    verify_log(GivenEntries(entries), seen.checkpoint, federation.keys)
    shown = [SignedEntry.parse(data) for data in entries[: seen.checkpoint.size]]
    federation.verify(note, _amended(federation.keys, shown))
    mine = [signed for signed in shown if signed.entry.writer == ledger.member]
    missing = tuple(signed for signed in mine if not ledger.holds(signed.encoded))
    trial = _copied(store)
    try:
        opened(trial).log.append(signed.encoded for signed in missing)
        rebuilt = opened(trial)
        _require_order(rebuilt, mine)
        ended = _forfeited(rebuilt, federation)
    except HansaError as error:
        raise RecoveryError(
            f"what the federation's log shows does not fit this ledger: {error.cause}",
            remedy="Put the officer's grant back first. If the member ran twice, both logs go to an auditor.",
        ) from error
    every = [*missing, *(signed for _, signed in ended)]
    if every:
        ledger.log.append(signed.encoded for signed in every)
    return Recovered(opened(store), missing, tuple(run for run, _ in ended))


def _amended(keys: Keyring, shown: Sequence[SignedEntry]) -> Keyring:
    for index, signed in enumerate(shown):
        if isinstance(signed.entry, AmendmentMade):
            keys = keys.amended(signed.entry, index)
    return keys


def _require_order(ledger: MemberLedger, mine: Sequence[SignedEntry]) -> None:
    """What the federation's log shows of a run is how the run begins here, or there were two of this member."""
    places: dict[str, list[int]] = {}
    for signed in mine:
        place = ledger.place_of(signed.encoded)
        if isinstance(signed.entry, OfRun) and signed.entry.in_turn and place is not None:
            places.setdefault(signed.entry.run, []).append(place)
    for run, found in places.items():
        if list(ledger.own.places_of(run))[1 : len(found) + 1] != found:
            raise EntryError(f"the two logs go on differently in run {run}")


def _forfeited(ledger: MemberLedger, federation: FederationLog) -> list[tuple[str, SignedEntry]]:
    ended = []
    for run in ledger.runs():
        agreement_id = ledger.own.agreement_of(run)
        if agreement_id in federation.keys.agreements and ledger.own.closed(run) is None:
            signed = None if agreement_id is None else ledger.forfeit(agreement_id, run)
            if signed is not None:
                ended.append((run, signed))
    return ended


def _copied(store: LogStore) -> MemoryLogStore:
    copy, head = MemoryLogStore(), store.head()
    copy.append(copy.head(), list(store.rows(0, head.size)), head.root)
    return copy
