"""A member's privacy officer: its key, its public card, and the budgets that it alone grants.

The officer is another person than the engineer who runs the node, and keeps the key on another machine. The node holds
the card; the member names its key when it signs an agreement, and from then on nobody else's word grants anything.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from hansa.errors import Problem
from hansa.identity.cards import Card, read_card
from hansa.identity.errors import RosterError
from hansa.identity.keys import Signer
from hansa.identity.roster import NAME
from hansa.ledger.budgets import granted
from hansa.ledger.entry import Unit, officer_of, utc
from hansa.ledger.signed import SignedEntry
from hansa.privacy.records import Grant

_OFFICER = re.compile(officer_of(f"(?:{NAME.pattern})"))


def card_name(member: str) -> str:
    """What the file of a card is called; no name of a party of an agreement ends so."""
    return f"{member}.officer.pub"


def officer_card(signer: Signer) -> Card:
    """The public card of an officer, whose signer has the name that `officer_of` gives."""
    return Card(signer.name, signer.public_key)


def read_officer(path: Path, member: str) -> Card:
    """Read the card of a member's privacy officer.

    Raises:
        UsageError: the file cannot be read.
        RosterError: it is no card, or that of somebody else.
    """
    try:
        card = read_card(path, _OFFICER)
    except RosterError as error:
        raise _not_officers(path, member, error.problems[0].what) from None
    if card.name != officer_of(member):
        raise _not_officers(path, member, f"is the card of {card.name!r}")
    return card


def sign_grant(
    signer: Signer,
    member: str,
    grant: Grant,
    *,
    unit: Unit,
    max_records_per_unit: int,
    at: datetime,
    reason: str = "",
) -> SignedEntry:
    """A budget, as the officer signs it.

    Args:
        signer: the officer's key.
        member: whose officer it is.
        grant: limits, rule and dataset.
        unit, max_records_per_unit: what is protected.
        at: now.
        reason: in words.

    Raises:
        EntryError: an entry cannot say that.
    """
    entry = granted(
        grant,
        member=member,
        unit=unit,
        max_records_per_unit=max_records_per_unit,
        at=utc(at),
        reason=reason,
    )
    return SignedEntry.sign(entry, signer)


def _not_officers(path: Path, member: str, what: str) -> RosterError:
    return RosterError(
        f"{path} is not the card of {member}'s privacy officer",
        [
            Problem(
                path.name, what, f"`hansa node officer {member} --out DIR` makes it, on the officer's machine"
            )
        ],
        remedy=f"Name the card that {member}'s own privacy officer handed over.",
    )
