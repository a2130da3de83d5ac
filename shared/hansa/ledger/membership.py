"""Entries about who takes part, and with which keys: agreements signed, amendments, memberships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hansa.agreement.section import Name, Sha256
from hansa.identity.amendment import PURPOSE as AMENDMENT_PURPOSE
from hansa.identity.amendment import Amendment, amend
from hansa.identity.roster import COORDINATOR, Roster
from hansa.identity.statement import Statement, statement_bytes
from hansa.ledger.entry import P256, LogKey, OfAgreement, Ordinal, Reason, Signature, WitnessKey


class AgreementSigned(OfAgreement):
    """A member signs a frozen agreement, and with it the keys that are its own.

    Attributes:
        terms_id: of the terms that were frozen.
        roster_sha256: of the names and keys that the member compared.
        member: who signs.
        log_key: of the member's own log.
        witness_key: under which it cosigns the logs of others.
        officer_key: of its privacy officer, who alone grants budgets.
    """

    type: Literal["agreement"] = "agreement"
    terms_id: Sha256
    roster_sha256: Sha256
    member: Name
    log_key: LogKey
    witness_key: WitnessKey
    officer_key: P256

    @property
    def writer(self) -> str:
        return self.member


class AmendmentMade(OfAgreement):
    """A change of the roster, with the approvals that put it in force (`hansa.identity.amendment`).

    Attributes:
        sequence, roster_sha256, change, member, public_key, reason: the amendment.
        approvals: signature by member, over the amendment and for its own purpose.
    """

    type: Literal["amendment"] = "amendment"
    sequence: Ordinal
    roster_sha256: Sha256
    change: Literal["revoke", "replace-key"]
    member: Name
    public_key: P256 | None
    reason: Reason
    approvals: dict[Name, Signature]

    @classmethod
    def of(cls, amendment: Amendment, approvals: Mapping[str, Statement], at: str) -> AmendmentMade:
        """The entry of an amendment."""
        signatures = {name: statement.signature.hex() for name, statement in approvals.items()}
        return cls.model_validate({"at": at, "approvals": signatures, **amendment.tree()})

    @property
    def amendment(self) -> Amendment:
        """The change itself."""
        return Amendment(
            self.agreement_id,
            self.sequence,
            self.roster_sha256,
            self.change,
            self.member,
            self.public_key,
            self.reason,
        )

    def apply(self, roster: Roster, sequence: int) -> Roster:
        """The changed roster.

        Args:
            roster: as it stands.
            sequence: the number that the next amendment must have.

        Raises:
            AmendmentError: it does not fit the roster, or too few members approved it.
        """
        data = statement_bytes(self.amendment.tree())
        approvals = [
            Statement(AMENDMENT_PURPOSE, name, data, bytes.fromhex(signature))
            for name, signature in self.approvals.items()
        ]
        return amend(roster, self.agreement_id, sequence, self.amendment, approvals)


class Membership(OfAgreement):
    """A member begins or ends to take part, or the coordinator suspends it and takes that back.

    Attributes:
        member: whom it concerns.
        change: ``join`` and ``leave`` are the member's word, ``suspend`` and ``resume`` the coordinator's.
        certificate_sha256: of the certificate that it shows, where it has one.
        reason: in words.
    """

    type: Literal["membership"] = "membership"
    member: Name
    change: Literal["join", "leave", "suspend", "resume"]
    certificate_sha256: Sha256 | None = None
    reason: Reason = ""

    @property
    def writer(self) -> str:
        return self.member if self.change in {"join", "leave"} else COORDINATOR
