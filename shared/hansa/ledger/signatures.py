"""Signing an agreement: each member says with its pinned key that these terms, this model and these keys are its own.

A member's signature is the entry that stands in its ledger and later in the federation's log (`AgreementSigned`): it
covers `agreement_id`, and so terms, model 0, noise and all parties' keys, and names beside it the keys that are the
member's own: of its log, of its witness, of its privacy officer. Those need no pinning: who believes the pinned key
believes what it signed. The coordinator names the same id in every manifest that it signs, so that only members need to
sign beforehand; it and auditors may, with a statement over the id alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from hansa.agreement.document import Agreement
from hansa.agreement.roster import roster_of
from hansa.errors import HansaError, Problem, UsageError, WireError
from hansa.identity.amendment import PURPOSE as AMENDMENT
from hansa.identity.errors import BadSignaturesError
from hansa.identity.files import read_statements
from hansa.identity.keys import Signer
from hansa.identity.roster import COORDINATOR, Roster
from hansa.identity.statement import Statement
from hansa.ledger.entry import PURPOSE as ENTRY
from hansa.ledger.errors import TrustedKeysError, UnsignedAgreementError
from hansa.ledger.files import entry_of
from hansa.ledger.membership import AgreementSigned
from hansa.ledger.note import VerifierKey
from hansa.ledger.trust import TrustedKeys

PURPOSE = "agreement.signature"  # of the coordinator and of auditors
SUFFIX = ".sig"
_MEMBERS = ENTRY + "agreement"


@dataclass(frozen=True)
class Signatures:
    """Who has signed an agreement; every signature was verified.

    Attributes:
        signed: members and other parties that have, members first, in the agreement's order.
        missing: members that have not.
        others: how many signatures in the same place belong to other agreements.
        entries: what each member has signed, by member.
    """

    signed: tuple[str, ...]
    missing: tuple[str, ...]
    others: int
    entries: Mapping[str, AgreementSigned]


def sign_as_party(agreement: Agreement, signer: Signer) -> Statement:
    """The signature of the coordinator or an auditor; a member signs in its ledger, with its keys.

    Raises:
        AgreementError: it pins no keys.
        UsageError: the signer is a member.
        UnknownSignerError: the signer is no party of it.
        ForeignKeyError: another key is pinned for the signer.
    """
    roster = roster_of(agreement)
    if signer.name in roster.members:
        raise UsageError(
            f"{signer.name!r} is a member, and signs with the keys of its log, its witness and its officer",
            remedy="Sign with the home of the member: hansa agreement sign FROZEN --home DIR",
        )
    roster.require_own(signer)
    return Statement.sign(signer, PURPOSE, {"agreement_id": agreement.agreement_id})


def check_signatures(agreement: Agreement, folder: Path, stem: str) -> Signatures:
    """Verify every signature of an agreement in a folder, against the keys that the agreement itself pins.

    A key that an amendment changed later does not undo what was signed with the old one.

    Args:
        agreement: frozen, with keys.
        folder: all its files ``*.sig`` are read; statements that approve amendments are passed over.
        stem: of the agreement's file. What is called ``STEM.….sig`` must belong to this agreement; other
            files may hold signatures of others.

    Raises:
        AgreementError: it pins no keys.
        UsageError: there is no such folder.
        BadSignaturesError: every statement that is not what it should be.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", remedy="Name the folder that holds the signatures.")
    found = _Found(agreement, roster_of(agreement))
    problems: list[Problem] = []
    for path in sorted(folder.glob("*" + SUFFIX)):
        try:
            statements = read_statements(path)
        except WireError as error:
            problems.append(Problem(path.name, error.cause.removeprefix(f"{path}: ")))
            continue
        for statement in statements:
            if statement.purpose == AMENDMENT:
                continue
            try:
                if not found.take(statement) and path.name.startswith(stem + "."):
                    problems.append(Problem(path.name, "is the signature of another agreement"))
            except HansaError as error:
                problems.append(Problem(path.name, error.cause))
    if problems:
        raise BadSignaturesError(
            f"{len(problems)} signature{'s' if len(problems) != 1 else ''} in {folder} cannot be accepted",
            problems,
        )
    return found.signatures()


def trusted_keys(
    agreement: Agreement, found: Signatures, federation_log: VerifierKey, quorum: int
) -> TrustedKeys:
    """The keys that an auditor and every member believe, from what was pinned and what the members have signed.

    Args:
        agreement: frozen, with keys.
        found: the members' signatures of it.
        federation_log: the public key of the federation's log, which the coordinator tells.
        quorum: how many members must have cosigned that log.

    Raises:
        UnsignedAgreementError: a member has not signed.
        TrustedKeysError: one key stands for two parties, or they do not go together otherwise.
    """
    if found.missing:
        raise UnsignedAgreementError(found.missing)
    roster, entries = roster_of(agreement), found.entries
    try:
        return TrustedKeys(
            agreement_id=agreement.agreement_id,
            quorum=quorum,
            members=dict(roster.members),
            coordinator=roster.coordinator,
            auditors=dict(roster.auditors),
            federation_log=federation_log.text,
            logs={name: entries[name].log_key for name in roster.members},
            witnesses={name: entries[name].witness_key for name in roster.members},
            officers={name: entries[name].officer_key for name in roster.members},
        )
    except ValidationError as error:
        problems = [
            Problem(".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise TrustedKeysError(
            "the keys that the members have signed cannot all be trusted", problems
        ) from None


@dataclass
class _Found:
    agreement: Agreement
    roster: Roster
    others: int = 0
    parties: set[str] = field(default_factory=set)
    entries: dict[str, AgreementSigned] = field(default_factory=dict)

    def take(self, statement: Statement) -> bool:
        """Take a signature that was verified; whether it is one of this agreement.

        Raises:
            HansaError: it is not what it should be.
        """
        entry = _entry(statement) if statement.purpose == _MEMBERS else None
        if entry is None:
            _require_statement(statement)
        agreement_id = statement.value["agreement_id"] if entry is None else entry.agreement_id
        if agreement_id != self.agreement.agreement_id:
            self.others += 1
            return False
        statement.verify(self.roster, _MEMBERS if entry is not None else PURPOSE)
        if entry is None:
            if statement.signer in self.roster.members:
                raise WireError(
                    f"{statement.signer!r} is a member, and signs with its keys: have it sign anew"
                )
            self.parties.add(statement.signer)
            return True
        if entry.member != statement.signer:
            raise WireError(f"{statement.signer!r} signs for {entry.member!r}")
        if (entry.terms_id, entry.roster_sha256) != (self.agreement.terms_id, self.roster.sha256):
            raise WireError(
                f"{statement.signer!r} names other terms or another roster than the agreement has"
            )
        if self.entries.setdefault(entry.member, entry) != entry:
            raise WireError(f"{entry.member!r} has signed twice, with different keys or at different times")
        return True

    def signatures(self) -> Signatures:
        roster, signed = self.roster, {*self.parties, *self.entries}
        return Signatures(
            tuple(name for name in (*roster.members, COORDINATOR, *roster.auditors) if name in signed),
            tuple(name for name in roster.members if name not in signed),
            self.others,
            self.entries,
        )


def _entry(statement: Statement) -> AgreementSigned:
    entry = entry_of([statement]).entry
    if not isinstance(entry, AgreementSigned):
        raise WireError("a statement is not the signature of an agreement")
    return entry


def _require_statement(statement: Statement) -> None:
    if statement.purpose != PURPOSE or set(statement.value) != {"agreement_id"}:
        raise WireError("a statement is not the signature of an agreement")
