"""What a member has pinned about the federation's log: whose log it is, who witnesses it, and how many must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hansa.errors import HansaError
from hansa.ledger import Keyring, LogPolicy, SignedNote, VerifiedCheckpoint, VerifierKey
from hansa.ledger.entry import OfRun
from hansa.ledger.errors import CheckpointRefusedError
from hansa.ledger.kinds import Kind


@dataclass(frozen=True)
class FederationLog:
    """What a member has pinned about the log of a federation.

    Attributes:
        key: of the log; its name is the log's origin.
        witnesses: the members' witness keys, by member.
        quorum: how many members must have cosigned a checkpoint before anything rests on it.
        keys: whose signatures count in the log, before any amendment in it.
    """

    key: VerifierKey
    witnesses: Mapping[str, VerifierKey]
    quorum: int
    keys: Keyring

    def verify(self, note: SignedNote | str | bytes, keys: Keyring | None = None) -> VerifiedCheckpoint:
        """Check a checkpoint that enough members have cosigned.

        Args:
            note: the checkpoint.
            keys: as amended; the witness of a member whose key is revoked does not count.

        Raises:
            CheckpointRefusedError: it is none of this log, or cosigned by too few.
        """
        rosters = [agreed.rosters[-1][1] for agreed in (keys or self.keys).agreements.values()]
        revoked = {name for roster in rosters for name in roster.revoked}
        counted = tuple(key for name, key in self.witnesses.items() if name not in revoked)
        try:
            seen = LogPolicy(self.key, counted).verify(note)
        except HansaError as error:
            raise CheckpointRefusedError(
                error.cause,
                remedy="See that it is a checkpoint of this very federation, and that these are its keys.",
            ) from error
        if len(seen.cosigned) < self.quorum:
            raise CheckpointRefusedError(
                f"{len(seen.cosigned)} members have cosigned the checkpoint of {seen.checkpoint.size} entries; "
                f"{self.quorum} are needed"
            )
        return seen


def described(entry: Kind) -> str:
    """An entry in words, for errors."""
    where = f" of run {entry.run}" if isinstance(entry, OfRun) else ""
    number = getattr(entry, "round", None)
    return f"the {entry.type}{where}" + ("" if number is None else f", round {number}")
