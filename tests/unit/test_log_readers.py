"""Auditors that only read: admitted to the log by their cards, known to no agreement, and nobody in a party's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hansa.identity import Signer
from hansa.identity.errors import RosterError
from hansa_server.admission import WithReaders
from hansa_server.home import READERS, CoordinatorFile, CoordinatorHome
from support.audits import KEYS

ROSTER = KEYS.roster
READER = Signer.generate("inspector")


def home(folder: Path, **cards: str) -> CoordinatorHome:
    made = CoordinatorHome(folder, CoordinatorFile(listen="127.0.0.1:1"))
    (made.league / READERS).mkdir(parents=True)
    for file, line in cards.items():
        (made.league / READERS / f"{file}.pub").write_text(line)
    return made


def test_a_reader_is_admitted_by_its_card_and_the_roster_stays_what_it_was(tmp_path: Path) -> None:
    readers = home(tmp_path, inspector=f"inspector {READER.public_key}\n").readers
    admitted = WithReaders(lambda: ROSTER, readers)()
    assert admitted.key_of("inspector") == READER.public_key
    assert admitted.members == ROSTER.members
    assert "inspector" not in ROSTER.auditors
    assert admitted.sha256 != ROSTER.sha256  # nobody could take the one for the other


def test_a_home_without_readers_has_none(tmp_path: Path) -> None:
    assert not CoordinatorHome(tmp_path, CoordinatorFile(listen="127.0.0.1:1")).readers
    assert WithReaders(lambda: ROSTER, {})().sha256 == ROSTER.sha256


def test_a_reader_takes_no_partys_name_and_no_partys_key() -> None:
    member, key = next(iter(ROSTER.members.items()))
    with pytest.raises(RosterError, match="names of parties"):
        WithReaders(lambda: ROSTER, {member: READER.public_key})()
    with pytest.raises(RosterError):
        WithReaders(lambda: ROSTER, {"coordinator": READER.public_key})()
    with pytest.raises(RosterError):
        WithReaders(lambda: ROSTER, {"inspector": key})()
    with_auditor = replace(ROSTER, auditors={"inspector": READER.public_key})
    with pytest.raises(RosterError, match="names of parties"):
        WithReaders(lambda: with_auditor, {"inspector": Signer.generate("x").public_key})()


@pytest.mark.parametrize(
    "cards",
    [
        {"inspector": "no card\n"},
        {"one": f"inspector {READER.public_key}\n", "two": f"inspector {READER.public_key}\n"},
    ],
    ids=["no card", "one name twice"],
)
def test_cards_that_are_none_are_told(tmp_path: Path, cards: dict[str, str]) -> None:
    with pytest.raises(RosterError):
        _ = home(tmp_path, **cards).readers
