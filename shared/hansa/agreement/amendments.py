"""The roster in force: the keys that an agreement pins, and the approved amendments that follow from it, in order.

An amendment is one file of statement lines, each the approval of one party, all over the same bytes. Which files
there are and how they are called does not matter: number, roster hash and approvals decide. Copies of a file with
different approvals count together.

Guarantees: the roster that comes out follows from the agreement by amendments that t members signed each. Assumes:
the files are complete; somebody who keeps a revocation from a node keeps it from knowing, which the roster hash in
every key message of the secure sum brings to light.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hansa.agreement.document import Agreement
from hansa.agreement.roster import roster_of
from hansa.errors import HansaError, UsageError, WireError
from hansa.identity.amendment import PURPOSE, Amendment, amend, approvals_needed, approvers, check_change
from hansa.identity.errors import AmendmentError
from hansa.identity.files import read_statements
from hansa.identity.roster import Roster
from hansa.identity.statement import Statement

SUFFIX = ".sig"

State: TypeAlias = Literal["in force", "pending", "outdated"]


@dataclass(frozen=True)
class Proposal:
    """An amendment and who has approved it so far; nothing is verified.

    Attributes:
        amendment: what is to change.
        approvals: one statement for each signer, in the order in which they were added.
    """

    amendment: Amendment
    approvals: tuple[Statement, ...]

    @classmethod
    def of(cls, statements: Sequence[Statement]) -> Proposal:
        """The proposal that statements approve.

        Raises:
            AmendmentError: they do not all approve one amendment.
        """
        try:
            amendment = Amendment.of(statements[0])
        except HansaError as error:
            raise AmendmentError(f"no amendment can be read: {error.cause}") from None
        proposal = cls(amendment, ())
        for statement in statements:
            proposal = proposal.approved_by(statement)
        return proposal

    def approved_by(self, statement: Statement) -> Proposal:
        """The proposal with one more approval; a second one of the same signer changes nothing.

        Raises:
            AmendmentError: the statement approves something else.
        """
        if statement.purpose != PURPOSE or (self.approvals and statement.data != self.approvals[0].data):
            raise AmendmentError(f"{statement.signer!r} approved something else")
        if statement.signer in {approval.signer for approval in self.approvals}:
            if statement in self.approvals:
                return self
            raise AmendmentError(f"there are two different approvals by {statement.signer!r}")
        return Proposal(self.amendment, (*self.approvals, statement))

    @property
    def text(self) -> str:
        """The statement lines, as the file holds them."""
        return "".join(approval.line + "\n" for approval in self.approvals)


@dataclass(frozen=True)
class Judged:
    """A proposal in its place.

    Attributes:
        proposal: the amendment and its approvals.
        state: ``pending`` follows from the roster in force and has too few approvals; ``outdated`` follows from
            a roster that is not in force, and never will be applied unless what it follows from is found.
        approved: members whose approvals count; empty where the state is ``outdated``, since nothing is verified.
        needed: how many of them it takes.
    """

    proposal: Proposal
    state: State
    approved: tuple[str, ...]
    needed: int


@dataclass(frozen=True)
class RosterInForce:
    """The roster after all amendments that are in force.

    Attributes:
        roster: whose signatures count now.
        next_sequence: the number that the next amendment must have.
        amendments: those in force in their order, then pending and outdated ones.
    """

    roster: Roster
    next_sequence: int
    amendments: tuple[Judged, ...]


def roster_in_force(agreement: Agreement, places: Iterable[Path]) -> RosterInForce:
    """The roster after the amendments that files hold.

    Args:
        agreement: frozen, with keys.
        places: folders, of which every file ``*.sig`` that holds amendments of this agreement counts, and files.

    Raises:
        AgreementError: it pins no keys.
        AmendmentError: a file is no amendment, holds a forged approval or one of something else; a file that is
            named is of another agreement; two amendments exclude each other.
        UsageError: a file cannot be read, or is not lines of statements.
    """
    return apply_amendments(roster_of(agreement), agreement.agreement_id, read_proposals(agreement, places))


def rosters_ever(agreement: Agreement, places: Iterable[Path]) -> list[Roster]:
    """The rosters that were in force at some time, in order: the one that the agreement pins, and the one after each amendment.

    Args and errors: as of `roster_in_force`.
    """
    pinned, judged = roster_of(agreement), roster_in_force(agreement, places).amendments
    applied = [one.proposal for one in judged if one.state == "in force"]
    counts = range(len(applied) + 1)
    return [apply_amendments(pinned, agreement.agreement_id, applied[:count]).roster for count in counts]


def read_proposals(agreement: Agreement, places: Iterable[Path]) -> list[Proposal]:
    """The proposals of folders and files, copies put together; see `roster_in_force`."""
    found: dict[bytes, Proposal] = {}
    for place in places:
        if place.is_dir():
            paths = sorted(place.glob("*" + SUFFIX))
        elif place.exists():
            paths = [place]
        else:
            raise UsageError(
                f"there is no file or folder {place}",
                remedy="Name the file of an amendment, or their folder.",
            )
        for path in paths:
            proposal = _read(path, agreement.agreement_id, named=not place.is_dir())
            if proposal is None:
                continue
            known = found.setdefault(proposal.approvals[0].data, proposal)
            for approval in proposal.approvals:
                known = known.approved_by(approval)
            found[proposal.approvals[0].data] = known
    return list(found.values())


def read_proposal(path: Path) -> Proposal:
    """The proposal of one file.

    Raises:
        AmendmentError: its lines do not all approve one amendment.
        UsageError: it cannot be read, or is no file of an amendment.
    """
    try:
        return Proposal.of(read_statements(path))
    except AmendmentError as error:
        raise AmendmentError(f"{path}: {error.cause}") from None
    except WireError as error:
        raise _no_amendment(path, error) from None


def apply_amendments(roster: Roster, agreement_id: str, proposals: Iterable[Proposal]) -> RosterInForce:
    """Apply what is approved, in order.

    Args:
        roster: as the agreement pins it.
        agreement_id: of the agreement.
        proposals: each amendment once.

    Raises:
        AmendmentError: an approval is forged or by somebody whose key does not count, or two amendments that follow
            from the same roster both have enough approvals, so that nobody can say which is in force.
    """
    rest, sequence = list(proposals), 1
    judged: list[Judged] = []
    while True:
        due = [judge(roster, one) for one in rest if _follows(one.amendment, agreement_id, sequence, roster)]
        ready = [one for one in due if one.state == "in force"]
        if len(ready) > 1:
            raise AmendmentError(
                f"{len(ready)} different amendments number {sequence} have enough approvals",
                remedy="Members approved both. Stop, find out who was shown what, and freeze a new agreement.",
            )
        if not ready:
            break
        chosen = ready[0].proposal
        roster = amend(roster, agreement_id, sequence, chosen.amendment, chosen.approvals)
        judged.append(ready[0])
        rest.remove(chosen)
        sequence += 1
    pending = {id(one.proposal) for one in due}
    outdated = [
        Judged(one, "outdated", (), approvals_needed(roster)) for one in rest if id(one) not in pending
    ]
    return RosterInForce(roster, sequence, (*judged, *due, *outdated))


def check_proposal(standing: RosterInForce, agreement_id: str, amendment: Amendment) -> None:
    """Check that an amendment can come into force, before anybody signs it.

    Raises:
        AmendmentError: it does not follow from the roster in force, changes nothing, or fewer members are left to
            approve it than it takes.
        RosterError: the new key is another party's.
    """
    roster = standing.roster
    if not _follows(amendment, agreement_id, standing.next_sequence, roster):
        raise AmendmentError(
            f"amendment {amendment.sequence} does not follow from the roster in force",
            remedy="Compare agreement and amendments on both sides; an old amendment is proposed anew.",
        )
    check_change(roster, amendment)
    if amendment.public_key is not None:
        roster.replace_key(amendment.member, amendment.public_key)
    left = [name for name in roster.active if name != amendment.member]
    needed = approvals_needed(roster)
    if len(left) < needed:
        raise AmendmentError(
            f"{len(left)} members could approve it, and {needed} are needed",
            remedy="Replace keys that are revoked first, or freeze a new agreement.",
        )


def judge(roster: Roster, proposal: Proposal) -> Judged:
    """How a proposal stands over the roster that it would change.

    Raises:
        AmendmentError: it changes nothing, or an approval is forged.
    """
    check_change(roster, proposal.amendment)
    counted = approvers(roster, proposal.amendment, proposal.approvals)
    needed = approvals_needed(roster)
    approved = tuple(name for name in roster.members if name in counted)
    return Judged(proposal, "in force" if len(approved) >= needed else "pending", approved, needed)


def _read(path: Path, agreement_id: str, *, named: bool) -> Proposal | None:
    """The proposal of a file; `None` for what a folder holds beside amendments of this agreement."""
    try:
        if not named and all(statement.purpose != PURPOSE for statement in read_statements(path)):
            return None
    except WireError as error:
        raise _no_amendment(path, error) from None
    proposal = read_proposal(path)
    if proposal.amendment.agreement_id == agreement_id:
        return proposal
    if named:
        raise AmendmentError(f"{path} amends another agreement")
    return None


def _no_amendment(path: Path, error: WireError) -> UsageError:
    what = error.cause.removeprefix(f"{path}: ")
    return UsageError(
        f"{path} is no file of an amendment: {what}",
        remedy="Get the file again from whoever proposed the amendment.",
    )


def _follows(amendment: Amendment, agreement_id: str, sequence: int, roster: Roster) -> bool:
    place = (amendment.agreement_id, amendment.sequence, amendment.roster_sha256)
    return place == (agreement_id, sequence, roster.sha256)
