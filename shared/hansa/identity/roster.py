"""The roster: who may sign what, by keys that the agreement pins.

A certificate alone admits nobody, because the coordinator may run the authority that issues them: the roster
is made of the keys that the members compared with each other and put into the agreement.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from hansa.canonical import Json, canonical_hash
from hansa.errors import Problem
from hansa.identity.errors import (
    ForeignKeyError,
    RevokedError,
    RosterError,
    SignatureError,
    UnknownSignerError,
)
from hansa.identity.keys import Signer, fingerprint, load_public, verify

COORDINATOR = "coordinator"
MAX_MEMBERS = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Roster:
    """Names, pinned public keys and x-coordinates of one agreement.

    Attributes:
        members: pinned public key by member, in the agreement's order. The first has the x-coordinate 1 in
            every Shamir sharing, the second 2, and so on.
        coordinator: the coordinator's pinned public key.
        revoked: members whose keys are no longer accepted. They keep their x-coordinate.
        auditors: pinned public keys of those who may attest but take part in no sum.
    """

    members: Mapping[str, str]
    coordinator: str
    revoked: frozenset[str] = field(default_factory=frozenset)
    auditors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise RosterError("the roster cannot be used", problems)

    def _problems(self) -> list[Problem]:
        found: list[Problem] = []
        if not 1 <= len(self.members) <= MAX_MEMBERS:
            found.append(Problem("members", f"{len(self.members)} members", f"between 1 and {MAX_MEMBERS}"))
        keys = {**self.members, **self.auditors, COORDINATOR: self.coordinator}
        if len(keys) < len(self.members) + len(self.auditors) + 1:
            found.append(
                Problem("members", f"a member or auditor has another's name, or that of the {COORDINATOR}")
            )
        for name, key in keys.items():
            if not NAME.fullmatch(name):
                found.append(Problem(f"members.{name}", "is not a name", "letters, digits, '_', '.' and '-'"))
            try:
                load_public(key)
            except SignatureError as error:
                found.append(Problem(f"members.{name}", error.cause))
        for key, count in Counter(keys.values()).items():
            if count > 1:
                owners = ", ".join(sorted(name for name, held in keys.items() if held == key))
                found.append(Problem("members", f"{owners} have the same key", "each party has its own"))
        found += [
            Problem(f"revoked.{name}", "is no member") for name in sorted(self.revoked - set(self.members))
        ]
        return found

    @cached_property
    def x(self) -> Mapping[str, int]:
        """The Shamir x-coordinate of each member, from 1."""
        return {name: index for index, name in enumerate(self.members, start=1)}

    @cached_property
    def active(self) -> tuple[str, ...]:
        """The members that are not revoked, in order of x."""
        return tuple(name for name in self.members if name not in self.revoked)

    def tree(self) -> dict[str, Json]:
        """The roster as JSON values."""
        return {
            "members": [[name, key] for name, key in self.members.items()],
            "auditors": dict(self.auditors),
            "coordinator": self.coordinator,
            "revoked": sorted(self.revoked),
        }

    @cached_property
    def sha256(self) -> str:
        """Hash of names, keys, x-coordinates and revocations."""
        return canonical_hash(self.tree())

    def key_of(self, name: str) -> str:
        """The pinned key of the coordinator, an auditor, or a member that is not revoked.

        Raises:
            UnknownSignerError: the agreement names no such party.
            RevokedError: its key was revoked.
        """
        if name == COORDINATOR:
            return self.coordinator
        if name in self.auditors:
            return self.auditors[name]
        if name not in self.members:
            raise UnknownSignerError("a statement is signed by someone whom the agreement does not name")
        if name in self.revoked:
            raise RevokedError(f"the key of {name!r} is revoked")
        return self.members[name]

    def verify(self, signer: str, purpose: str, data: bytes, signature: bytes) -> None:
        """Check a signature against the pinned key of its signer.

        Raises:
            UnknownSignerError, RevokedError: see `key_of`.
            SignatureError: it is not by that key over that data for that purpose.
        """
        try:
            verify(self.key_of(signer), purpose, data, signature)
        except SignatureError:
            raise SignatureError(f"a signature for {purpose} is not by {signer!r}") from None

    def require_own(self, signer: Signer) -> None:
        """Check that a signer's key is the pinned one, before anything is signed that nobody would accept.

        Raises:
            UnknownSignerError, RevokedError: see `key_of`.
            ForeignKeyError: another key is pinned for that name.
        """
        if signer.name not in {COORDINATOR, *self.auditors, *self.members}:
            raise UnknownSignerError(
                f"the agreement names nobody called {signer.name!r}",
                remedy="Name the home of one of its members, of the coordinator or of an auditor.",
            )
        pinned = self.key_of(signer.name)
        if signer.public_key != pinned:
            raise ForeignKeyError(
                f"the key of {signer.name!r} here is {fingerprint(signer.public_key)}, "
                f"and {fingerprint(pinned)} is pinned",
                remedy="Name the home that holds the pinned key, or have the new key approved by an amendment.",
            )

    def revoke(self, name: str) -> Roster:
        """The roster without this member's key; who may decide that is `hansa.identity.amendment`."""
        return replace(self, revoked=self.revoked | {name})

    def replace_key(self, name: str, public_key: str) -> Roster:
        """The roster with another key for a member, which also lifts a revocation."""
        members = {other: public_key if other == name else key for other, key in self.members.items()}
        return replace(self, members=members, revoked=self.revoked - {name})
