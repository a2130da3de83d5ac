"""Changes of keys after an agreement is frozen: revocations and replacements, approved by t members.

An amendment names the roster that it changes by hash and counts up, so that it fits in one place only. It is
in force once t = floor(2n/3) + 1 distinct members whose keys are not revoked have signed its very bytes. The
member that it concerns does not count; where that leaves fewer than t, all the others must sign.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from hansa.errors import HansaError, WireError
from hansa.identity.errors import AmendmentError
from hansa.identity.keys import Signer, load_public
from hansa.identity.roster import NAME, Roster
from hansa.identity.statement import Statement, statement_bytes

PURPOSE = "agreement.amendment"
MAX_REASON = 500  # characters

Change: TypeAlias = Literal["revoke", "replace-key"]


@dataclass(frozen=True)
class Amendment:
    """One change of the roster.

    Attributes:
        agreement_id: the agreement whose roster changes.
        sequence: 1 for the first amendment, then counting up.
        roster_sha256: the roster before the change.
        change: what happens.
        member: to whom.
        public_key: the new key, where there is one.
        reason: in words, for the record: at most 500 characters, all of them visible, because a person reads them
            on a terminal before approving.
    """

    agreement_id: str
    sequence: int
    roster_sha256: str
    change: Change
    member: str
    public_key: str | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.public_key is not None) != (self.change == "replace-key"):
            raise AmendmentError("a replacement of a key names the new key, and a revocation names none")
        if self.public_key is not None:
            load_public(self.public_key)
        if not NAME.fullmatch(self.member):  # also shown before anything is verified
            raise AmendmentError("an amendment concerns somebody who has no name")
        if len(self.reason) > MAX_REASON or not self.reason.isprintable():
            raise AmendmentError(f"a reason is one line of at most {MAX_REASON} visible characters")

    @classmethod
    def of(cls, statement: Statement) -> Amendment:
        """The amendment that a statement approves; its signature is not verified.

        Raises:
            WireError: the statement is for another purpose, or holds no amendment.
            AmendmentError, SignatureError: it holds one that cannot be.
        """
        if statement.purpose != PURPOSE:
            raise WireError(f"a statement for {PURPOSE!r} was expected")
        value = statement.value
        if set(value) != set(cls.__dataclass_fields__):
            raise WireError("an amendment does not have its seven members")
        texts = [value[name] for name in ("agreement_id", "roster_sha256", "member", "reason")]
        key, sequence = value["public_key"], value["sequence"]
        if not all(isinstance(text, str) for text in texts) or not isinstance(key, str | None):
            raise WireError("the members of an amendment have the wrong types")
        if type(sequence) is not int or sequence < 1 or value["change"] not in get_args(Change):
            raise WireError("an amendment has no number, or makes a change that nobody knows")
        return cls(**value)

    def tree(self) -> dict[str, str | int | None]:
        """The amendment as JSON values."""
        return {
            "agreement_id": self.agreement_id,
            "sequence": self.sequence,
            "roster_sha256": self.roster_sha256,
            "change": self.change,
            "member": self.member,
            "public_key": self.public_key,
            "reason": self.reason,
        }

    def sign(self, signer: Signer) -> Statement:
        """One member's approval."""
        return Statement.sign(signer, PURPOSE, self.tree())


def approvals_needed(roster: Roster) -> int:
    """Quorum t = floor(2n/3) + 1 over all members of the agreement, revoked ones included, and at most n - 1."""
    return min(2 * len(roster.members) // 3 + 1, len(roster.members) - 1)


def approvers(roster: Roster, amendment: Amendment, approvals: Iterable[Statement]) -> frozenset[str]:
    """The members whose approvals count: not revoked, and not the one that the amendment concerns.

    Raises:
        AmendmentError: a statement approves something else, is forged, or is by somebody whose signature counts for
            nothing here.
    """
    data = statement_bytes(amendment.tree())
    approved: set[str] = set()
    for statement in approvals:
        if statement.data != data:
            raise AmendmentError(f"{statement.signer!r} approved something else")
        try:
            statement.verify(roster, PURPOSE)
        except HansaError as error:
            raise AmendmentError(f"an approval does not count: {error.cause}") from None
        if statement.signer in roster.members and statement.signer != amendment.member:
            approved.add(statement.signer)
    return frozenset(approved)


def check_change(roster: Roster, amendment: Amendment) -> None:
    """Check that an amendment changes something that the roster has.

    Raises:
        AmendmentError: it concerns no member, revokes what is revoked, or gives a member the key that it has: a
            revoked key does not come back.
    """
    if amendment.member not in roster.members:
        raise AmendmentError(f"{amendment.member!r} is no member of the agreement")
    if amendment.change == "revoke" and amendment.member in roster.revoked:
        raise AmendmentError(f"the key of {amendment.member!r} is revoked already")
    if amendment.public_key == roster.members[amendment.member]:
        raise AmendmentError(
            f"the new key of {amendment.member!r} is the old one",
            remedy="Make a new key; an old one does not come back.",
        )


def amend(
    roster: Roster, agreement_id: str, sequence: int, amendment: Amendment, approvals: Iterable[Statement]
) -> Roster:
    """Apply an amendment.

    Args:
        roster: as it stands.
        agreement_id: of the agreement in force.
        sequence: the number that the next amendment must have.
        amendment: the change.
        approvals: statements from `Amendment.sign`.

    Returns:
        The changed roster.

    Raises:
        AmendmentError: it does not fit the roster, or too few distinct members approved these very bytes.
    """
    expected = (agreement_id, sequence, roster.sha256)
    if (amendment.agreement_id, amendment.sequence, amendment.roster_sha256) != expected:
        raise AmendmentError(
            f"amendment {amendment.sequence} does not follow from the roster that it should change"
        )
    check_change(roster, amendment)
    approved = approvers(roster, amendment, approvals)
    needed = approvals_needed(roster)
    if len(approved) < needed:
        raise AmendmentError(f"{len(approved)} members approved, {needed} are needed")
    if amendment.public_key is not None:
        return roster.replace_key(amendment.member, amendment.public_key)
    return roster.revoke(amendment.member)
