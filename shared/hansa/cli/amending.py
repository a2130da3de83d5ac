"""`hansa agreement amend`: proposing and approving changes of keys, and how the roster in force is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hansa.agreement import Agreement, read_agreement
from hansa.agreement.amendments import (
    Judged,
    Proposal,
    RosterInForce,
    apply_amendments,
    check_proposal,
    judge,
    read_proposal,
    read_proposals,
    roster_in_force,
)
from hansa.agreement.roster import roster_of
from hansa.cli.lines import lines
from hansa.cli.options import AmendmentsOption, FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.cli.signing import FrozenArgument
from hansa.errors import OutputExistsError, UsageError
from hansa.identity import Amendment, Roster, Signer, fingerprint
from hansa.identity.cards import read_card
from hansa.identity.errors import AmendmentError
from hansa.identity.files import locked, replace_file, write_new
from hansa_client.node_file import read_home


def amend(
    frozen: FrozenArgument,
    home: HomeOption,
    revoke: Annotated[
        str | None,
        typer.Option("--revoke", metavar="NAME", help="Propose that this member's key stops counting."),
    ] = None,
    replace_key: Annotated[
        str | None,
        typer.Option(
            "--replace-key", metavar="NAME=FILE.pub", help="Propose a new key, by the member's new card."
        ),
    ] = None,
    approve: Annotated[
        Path | None, typer.Option("--approve", metavar="FILE", help="Approve what this file proposes.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the record; with a proposal.")
    ] = None,
    amendments: AmendmentsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="By default FROZEN-stem.amendment-K.sig beside the agreement."
        ),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Change a member's key after an agreement is frozen: propose it, or approve what another member proposed.

    A change is in force once t = floor(2n/3) + 1 members have approved it; the member that it concerns does not
    count. Earlier amendments are looked for beside the agreement, or where --amendments says.
    """
    with reported(output_format):
        if [revoke, replace_key, approve].count(None) != 2:
            raise UsageError(
                "name one of --revoke, --replace-key and --approve",
                remedy="See `hansa agreement amend --help`.",
            )
        if (reason is None) != (approve is not None) or (approve is not None and out is not None):
            raise UsageError(
                "--reason (and --out) go with a proposal, and every proposal has a reason",
                remedy="See `hansa agreement amend --help`.",
            )
        agreement = read_agreement(frozen)
        places = amendments or [frozen.parent]
        signer = read_home(home).signer()
        if approve is not None:
            file, judged, before = _approve(agreement, places, signer, approve)
        else:
            standing = roster_in_force(agreement, places)
            _may_sign(standing.roster, signer)
            amendment = _amendment(agreement, standing, revoke, replace_key, reason or "")
            file = out or frozen.with_name(f"{frozen.stem}.amendment-{amendment.sequence}.sig")
            judged, before = _propose(standing, amendment, signer, file), standing.roster
        data = {"file": str(file), "signer": signer.name, **judged_tree(judged), **_keys(judged, before)}
        verb = "approved" if approve is not None else "proposes"
        text = f"{signer.name} {verb}: {judged_line(judged)}\n{lines({**_keys(judged, before), 'file': str(file)})}"
        if signer.name == judged.proposal.amendment.member:
            text += f"\nIt concerns {signer.name}, whose own approval does not count."
        emit(data, text=text, output_format=output_format)


def standing_tree(standing: RosterInForce) -> dict[str, Any]:
    """The roster in force as JSON values."""
    roster = standing.roster
    return {
        "sha256": roster.sha256,
        "members": {
            name: {"fingerprint": fingerprint(key), "revoked": name in roster.revoked}
            for name, key in roster.members.items()
        },
        "coordinator": fingerprint(roster.coordinator),
        "auditors": {name: fingerprint(key) for name, key in roster.auditors.items()},
        "amendments": [judged_tree(one) for one in standing.amendments],
    }


def standing_lines(standing: RosterInForce) -> str:
    """The roster in force as a person reads it."""
    roster = standing.roster
    keys = {
        name: fingerprint(key) + (" (revoked)" if name in roster.revoked else "")
        for name, key in {**roster.members, "coordinator": roster.coordinator}.items()
    }
    keys |= {f"{name} (auditor)": fingerprint(key) for name, key in roster.auditors.items()}
    width = max(map(len, keys))
    count = standing.next_sequence - 1
    text = "\n".join(f"  {name:<{width}}  {key}" for name, key in keys.items())
    heading = f"Keys in force, after {count} amendment{'s' if count != 1 else ''}:"
    told = [f"  {judged_line(one)}" for one in standing.amendments]
    return "\n".join([heading, text, *(["Amendments:", *told] if told else [])])


def judged_tree(judged: Judged) -> dict[str, Any]:
    """An amendment and how it stands, as JSON values."""
    amendment = judged.proposal.amendment
    return {
        "sequence": amendment.sequence,
        "change": amendment.change,
        "member": amendment.member,
        "reason": amendment.reason,
        "state": judged.state,
        "approved": list(judged.approved),
        "needed": judged.needed,
    }


def judged_line(judged: Judged) -> str:
    """An amendment and how it stands, in one line."""
    amendment = judged.proposal.amendment
    change = (
        f"revoke the key of {amendment.member}"
        if amendment.change == "revoke"
        else f"replace the key of {amendment.member}"
    )
    who = f": {', '.join(judged.approved)}" if judged.approved else ""
    count = f"{len(judged.approved)} of {judged.needed} approvals{who}"
    stands = judged.state if judged.state == "outdated" else f"{judged.state}, {count}"
    return f"{amendment.sequence}. {change} ({amendment.reason}) — {stands}"


def _amendment(
    agreement: Agreement, standing: RosterInForce, revoke: str | None, replace_key: str | None, reason: str
) -> Amendment:
    """What the options propose.

    Raises:
        UsageError: ``--replace-key`` is not NAME=FILE, or the card is another's.
        AmendmentError: it cannot come into force.
    """
    if not reason.strip():
        raise UsageError("a proposal has a reason", remedy="Say why by --reason.")
    public_key = None
    member = revoke or ""
    if replace_key is not None:
        member, _, file = replace_key.partition("=")
        if not member or not file:
            raise UsageError(f"{replace_key!r} is not NAME=FILE.pub", remedy="For example north=north.pub.")
        card = read_card(Path(file))
        if card.name != member:
            raise UsageError(
                f"{file} is the card of {card.name!r}, not of {member!r}", remedy="Name its own card."
            )
        public_key = card.public_key
    amendment = Amendment(
        agreement.agreement_id,
        standing.next_sequence,
        standing.roster.sha256,
        "revoke" if public_key is None else "replace-key",
        member,
        public_key,
        reason,
    )
    check_proposal(standing, agreement.agreement_id, amendment)
    return amendment


def _propose(standing: RosterInForce, amendment: Amendment, signer: Signer, file: Path) -> Judged:
    """Write a new proposal with the proposer's own approval."""
    if file.exists():
        raise OutputExistsError(
            f"{file} is already there",
            remedy=f"Look at it (hansa agreement show … --amendments {file}) and approve it, or name another by --out.",
        )
    proposal = Proposal(amendment, (amendment.sign(signer),))
    write_new(file, proposal.text.encode())
    return judge(standing.roster, proposal)


def _approve(
    agreement: Agreement, places: list[Path], signer: Signer, file: Path
) -> tuple[Path, Judged, Roster]:
    """Add an approval to a file, which is replaced in one step; returns how the amendment stands then."""
    with locked(file.parent):
        proposal = read_proposal(file)
        others = [one for one in read_proposals(agreement, places) if one.amendment != proposal.amendment]
        standing = apply_amendments(roster_of(agreement), agreement.agreement_id, others)
        _may_sign(standing.roster, signer)
        check_proposal(standing, agreement.agreement_id, proposal.amendment)
        judge(standing.roster, proposal)  # forged approvals are told before another is added
        approved = proposal.approved_by(proposal.amendment.sign(signer))
        if approved != proposal:
            replace_file(file, approved.text.encode())
    return file, judge(standing.roster, approved), standing.roster


def _may_sign(roster: Roster, signer: Signer) -> None:
    """Only members decide about keys, each by the key that is in force for it."""
    roster.require_own(signer)
    if signer.name not in roster.members:
        raise AmendmentError(
            f"{signer.name!r} is no member, and only members approve", remedy="Ask a member to propose it."
        )


def _keys(judged: Judged, before: Roster) -> dict[str, str]:
    """Fingerprints that an approval is about: the key that stops counting, and the one that starts."""
    amendment = judged.proposal.amendment
    shown = {"old_key": fingerprint(before.members[amendment.member])}
    if amendment.public_key is not None:
        shown["new_key"] = fingerprint(amendment.public_key)
    return shown
