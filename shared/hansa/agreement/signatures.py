"""Signing an agreement: each member says with its pinned key that these terms, this model and these keys are its own.

A signature covers `agreement_id` and so everything: terms, model 0, noise, and all parties' keys. The coordinator
names the same id in every manifest that it signs, so that only members need to sign beforehand; it and auditors may.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hansa.agreement.document import Agreement
from hansa.agreement.roster import roster_of
from hansa.errors import HansaError, Problem, UsageError, WireError
from hansa.identity.amendment import PURPOSE as AMENDMENT
from hansa.identity.errors import BadSignaturesError
from hansa.identity.files import read_statements
from hansa.identity.keys import Signer
from hansa.identity.roster import COORDINATOR
from hansa.identity.statement import Statement

PURPOSE = "agreement.signature"
SUFFIX = ".sig"


@dataclass(frozen=True)
class Signatures:
    """Who has signed an agreement; every signature was verified.

    Attributes:
        signed: members and other parties that have, members first, in the agreement's order.
        missing: members that have not.
        others: how many signatures in the same place belong to other agreements.
    """

    signed: tuple[str, ...]
    missing: tuple[str, ...]
    others: int


def sign_agreement(agreement: Agreement, signer: Signer) -> Statement:
    """A party's signature.

    Raises:
        AgreementError: it pins no keys.
        UnknownSignerError: the signer is no party of it.
        ForeignKeyError: another key is pinned for the signer.
    """
    roster_of(agreement).require_own(signer)
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
    roster = roster_of(agreement)
    problems: list[Problem] = []
    signed: set[str] = set()
    others = 0
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
                if _is_of(statement, agreement.agreement_id):
                    statement.verify(roster, PURPOSE)
                    signed.add(statement.signer)
                elif path.name.startswith(stem + "."):
                    problems.append(Problem(path.name, "is the signature of another agreement"))
                else:
                    others += 1
            except HansaError as error:
                problems.append(Problem(path.name, error.cause))
    if problems:
        raise BadSignaturesError(
            f"{len(problems)} signature{'s' if len(problems) != 1 else ''} in {folder} cannot be accepted",
            problems,
        )
    return Signatures(
        tuple(name for name in (*roster.members, COORDINATOR, *roster.auditors) if name in signed),
        tuple(name for name in roster.members if name not in signed),
        others,
    )


def _is_of(statement: Statement, agreement_id: str) -> bool:
    """Whether a signature is about this agreement.

    Raises:
        WireError: it is a statement of another kind.
    """
    if statement.purpose != PURPOSE or set(statement.value) != {"agreement_id"}:
        raise WireError("a statement is not the signature of an agreement")
    return bool(statement.value["agreement_id"] == agreement_id)
