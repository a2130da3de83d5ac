"""A privacy officer's card and grants, and signed entries in files of their own."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hansa.errors import UsageError
from hansa.identity import Statement
from hansa.identity.cards import Card, roster_of_cards
from hansa.identity.errors import RosterError, SignatureError
from hansa.ledger import BudgetGranted, Keyring, SignedEntry, officer_of
from hansa.ledger.budgets import grant_of
from hansa.ledger.errors import EntryError
from hansa.ledger.files import entry_lines, entry_of, read_entry
from hansa.ledger.officer import card_name, officer_card, read_officer, sign_grant
from support import budgets
from support.identities import MEMBERS, pinned, signature, signer

OFFICER = signer(officer_of("alpha"))
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def granted(member: str = "alpha", epsilon: float = 4.0) -> SignedEntry:
    limits = budgets.grant(epsilon)
    return sign_grant(OFFICER, member, limits, unit="patient", max_records_per_unit=3, at=AT, reason="why")


class TestCard:
    def test_it_is_a_line_that_comes_back(self, tmp_path: Path) -> None:
        path = tmp_path / card_name("alpha")
        path.write_text(officer_card(OFFICER).line)
        assert path.name == "alpha.officer.pub"
        assert path.read_text() == f"alpha#privacy-officer {OFFICER.public_key}\n"
        assert read_officer(path, "alpha") == officer_card(OFFICER)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (Card("alpha", signer("alpha").public_key).line, "does not begin with a name"),
            (officer_card(signer(officer_of("beta"))).line, "is the card of 'beta#privacy-officer'"),
            (f"alpha#privacy-officer#privacy-officer {OFFICER.public_key}\n", "does not begin with a name"),
            ("alpha#privacy-officer p256:00\n", "a pinned key is not"),
            ("nonsense", "is not one line with a name and a key"),
        ],
        ids=["a member's", "of another member", "officer of an officer", "no point", "nonsense"],
    )
    def test_another_card_is_told(self, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "card"
        path.write_text(text)
        with pytest.raises(RosterError, match="privacy officer") as caught:
            read_officer(path, "alpha")
        assert words in caught.value.problems[0].what

    def test_one_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            read_officer(tmp_path / "absent", "alpha")

    def test_an_officer_among_the_cards_of_an_agreement_is_no_party(self, tmp_path: Path) -> None:
        for name in (*MEMBERS, "coordinator"):
            (tmp_path / f"{name}.pub").write_text(Card(name, signer(name).public_key).line)
        roster_of_cards(tmp_path, MEMBERS, ())
        (tmp_path / card_name("alpha")).write_text(officer_card(OFFICER).line)
        with pytest.raises(RosterError, match="do not make a roster") as caught:
            roster_of_cards(tmp_path, MEMBERS, ())
        (problem,) = caught.value.problems
        assert (problem.place, problem.what) == ("alpha.officer.pub", "is a privacy officer's card")
        assert "leave it out" in problem.remedy


class TestGrant:
    def test_it_says_what_was_granted_and_is_the_officers(self) -> None:
        entry = granted().entry
        assert isinstance(entry, BudgetGranted)
        assert grant_of(entry) == budgets.grant(4.0)
        assert (entry.at, entry.unit, entry.max_records_per_unit, entry.reason) == (
            "2026-03-01T12:00:00Z", "patient", 3, "why",
        )  # fmt: skip
        Keyring({}, {"alpha": OFFICER.public_key}).verify(granted())
        with pytest.raises(SignatureError):
            Keyring({}, {"alpha": signer("alpha").public_key}).verify(granted())

    def test_what_no_entry_can_say_is_not_signed(self) -> None:
        with pytest.raises(EntryError):
            sign_grant(OFFICER, "al pha", budgets.grant(), unit="patient", max_records_per_unit=3, at=AT)
        with pytest.raises(EntryError):
            sign_grant(OFFICER, "alpha", budgets.grant(), unit="patient", max_records_per_unit=0, at=AT)


class TestFiles:
    @pytest.mark.parametrize("signed", [granted(), signature(pinned(), "alpha")], ids=["grant", "signature"])
    def test_an_entry_comes_back_as_it_lies_in_a_log(self, tmp_path: Path, signed: SignedEntry) -> None:
        path = tmp_path / "entry"
        path.write_text(entry_lines(signed))
        assert read_entry(path) == signed
        assert read_entry(path).encoded == signed.encoded

    def test_several_signatures_may_stand_in_any_order(self) -> None:
        entry = signature(pinned(), "alpha").entry
        both = SignedEntry.sign(entry, signer("alpha"), signer("beta"))
        assert entry_of(both.statements[::-1]) == both

    def test_what_is_no_entry_is_told_with_its_place(self, tmp_path: Path) -> None:
        path = tmp_path / "entry"
        (line,) = granted().statements
        other = granted(epsilon=5.0).statements[0]
        wrong = dataclasses.replace(line, purpose="ledger.release")
        bad = [
            b"",
            b"\xff\n",
            b"nonsense\n",
            entry_lines(granted()).encode()[:-1],
            f"{Statement.sign(OFFICER, 'secagg.masked', {'a': 1}).line}\n".encode(),
            f"{wrong.line}\n".encode(),
            f"{line.line}\n{line.line}\n".encode(),
            f"{line.line}\n{dataclasses.replace(other, signer='beta').line}\n".encode(),
        ]
        for data in bad:
            path.write_bytes(data)
            with pytest.raises(EntryError, match="entry: "):
                read_entry(path)
        with pytest.raises(UsageError):
            read_entry(tmp_path / "absent")
