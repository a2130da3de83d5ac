"""Public cards: one line with a name and its public key, which people exchange before an agreement pins it.

A card proves nothing by itself: whoever carries it could have written another. Its fingerprint, read over the phone,
is what makes it that party's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hansa.errors import Problem
from hansa.identity.errors import RosterError, SignatureError
from hansa.identity.files import read_small
from hansa.identity.keys import fingerprint, load_public
from hansa.identity.roster import COORDINATOR, NAME, Roster

SUFFIX = ".pub"
_OFFICERS_SUFFIX = ".officer.pub"  # see `hansa.ledger.officer.card_name`
_MAX_BYTES = 512  # a name of 64 characters, the mark of an officer, and a key of 71


@dataclass(frozen=True)
class Card:
    """A name and its public key.

    Attributes:
        name: as it stands in agreements.
        public_key: the pinned form.
    """

    name: str
    public_key: str

    @property
    def line(self) -> str:
        """The card as its file holds it."""
        return f"{self.name} {self.public_key}\n"

    @property
    def fingerprint(self) -> str:
        """What its owner reads over the phone."""
        return fingerprint(self.public_key)


def read_card(path: Path, names: re.Pattern[str] = NAME) -> Card:
    """Read a card.

    Args:
        path: of the file.
        names: what may stand as the name; by default those of parties of an agreement.

    Raises:
        UsageError: the file cannot be read.
        RosterError: it is no card.
    """
    try:
        text = read_small(path).decode("ascii")
        if "-----BEGIN CERTIFICATE" in text:
            raise _no_card(path, "is a certificate, which pins no key")
        if len(text) > _MAX_BYTES:
            raise _no_card(path, f"is larger than {_MAX_BYTES} bytes")
        name, public_key = text.split()
    except ValueError:  # not two words, or not ASCII
        raise _no_card(path, "is not one line with a name and a key") from None
    if not names.fullmatch(name):
        raise _no_card(path, "does not begin with a name")
    try:
        load_public(public_key)
    except SignatureError as error:
        raise _no_card(path, error.cause) from None
    return Card(name, public_key)


def roster_of_cards(folder: Path, members: Sequence[str], auditors: Sequence[str]) -> Roster:
    """The roster from a folder of cards ``NAME.pub``: of each member, the coordinator and each auditor, no others.

    Args:
        folder: files without the suffix ``.pub`` are passed over.
        members: names, in the agreement's order.
        auditors: names. Nobody becomes an auditor because a card lies in the folder.

    Raises:
        RosterError: everything that is wrong: cards that are missing, too many, unreadable, under another's name,
            or with another's key.
    """
    wanted = [*members, COORDINATOR, *auditors]
    problems = [
        Problem(
            name, "is named twice among members, coordinator and auditors", "each party has a name of its own"
        )
        for name, count in Counter(wanted).items()
        if count > 1
    ]
    paths = sorted(folder.glob("*" + SUFFIX))
    cards: dict[str, Card] = {}
    for path in paths:
        try:
            card = read_card(path)
        except RosterError as error:
            problems += [_officers(path)] if path.name.endswith(_OFFICERS_SUFFIX) else error.problems
            continue
        cards[path.stem] = card
        if path.stem not in wanted:
            problems.append(
                Problem(
                    path.name,
                    f"is the card of {card.name!r}, whom the agreement does not need",
                    "take it out, or name an auditor by --auditor",
                )
            )
        elif card.name != path.stem:
            problems.append(Problem(path.name, f"is the card of {card.name!r}", "a card is NAME.pub"))
    there = {path.stem for path in paths}
    problems += [
        Problem(name + SUFFIX, "is missing", f"ask {name} for it")
        for name in dict.fromkeys(wanted)
        if name not in there
    ]
    for key, count in Counter(card.public_key for card in cards.values()).items():
        if count > 1:
            owners = ", ".join(name + SUFFIX for name, card in cards.items() if card.public_key == key)
            problems.append(Problem(owners, "have the same key", "each party has its own"))
    if problems:
        raise RosterError(f"the cards in {folder} do not make a roster", problems)
    keys = {name: card.public_key for name, card in cards.items()}
    return Roster(
        {name: keys[name] for name in members},
        keys[COORDINATOR],
        auditors={name: keys[name] for name in auditors},
    )


def _officers(path: Path) -> Problem:
    return Problem(
        path.name, "is a privacy officer's card", "leave it out: each member names its officer when it signs"
    )


def _no_card(path: Path, what: str) -> RosterError:
    return RosterError(
        f"{path} is no public card", [Problem(path.name, what, "ask its owner for the file again")]
    )
