"""Signing an agreement, and who has signed it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hansa.agreement import Agreement
from hansa.errors import AgreementError, ExitStatus, UsageError
from hansa.identity import COORDINATOR, Statement
from hansa.identity.errors import BadSignaturesError, ForeignKeyError, UnknownSignerError
from hansa.ledger import NoteSigner, SignedEntry, TrustedKeys, officer_of
from hansa.ledger.errors import TrustedKeysError, UnsignedAgreementError
from hansa.ledger.files import entry_lines
from hansa.ledger.membership import Membership
from hansa.ledger.signatures import PURPOSE, check_signatures, sign_as_party, trusted_keys
from support.identities import (
    AUDITOR,
    MEMBERS,
    amendment_file,
    frozen,
    pinned,
    revocation,
    roster,
    signature,
    signer,
)

AGREEMENT = pinned()
FEDERATION = NoteSigner.generate("hansa.example/federation").key


def sign(agreement: Agreement, name: str) -> Statement:
    """A party's signature: a member's is an entry."""
    if name in MEMBERS:
        return signature(agreement, name).statements[0]
    return sign_as_party(agreement, signer(name))


def write(folder: Path, name: str, *statements: Statement) -> Path:
    path = folder / f"league.frozen.{name}.sig"
    path.write_text("".join(one.line + "\n" for one in statements), encoding="utf-8")
    return path


def sign_all(folder: Path, names=MEMBERS, agreement=AGREEMENT) -> None:
    for name in names:
        write(folder, name, sign(agreement, name))


def check(folder: Path, agreement=AGREEMENT, stem="league.frozen"):
    return check_signatures(agreement, folder, stem)


def told(caught: pytest.ExceptionInfo[BadSignaturesError]) -> dict[str, str]:
    return {problem.place: problem.what for problem in caught.value.problems}


def test_a_partys_signature_is_over_the_id_and_counts_for_this_purpose():
    statement = sign_as_party(AGREEMENT, signer(COORDINATOR))
    statement.verify(roster(), PURPOSE)
    assert statement.value == {"agreement_id": AGREEMENT.agreement_id}
    assert sign_as_party(AGREEMENT, signer(COORDINATOR)) == statement


def test_a_members_signature_is_the_line_of_an_entry(tmp_path):
    entry = signature(AGREEMENT, "alpha")
    path = tmp_path / "league.frozen.alpha.sig"
    path.write_text(entry_lines(entry))
    assert path.read_text().startswith("ledger.agreement alpha 30")
    assert path.read_text().count("\n") == 1
    assert check(tmp_path).entries == {"alpha": entry.entry}


def test_who_has_signed_and_who_has_not(tmp_path):
    assert check(tmp_path).missing == MEMBERS
    sign_all(tmp_path, ("gamma", "alpha", AUDITOR, COORDINATOR))
    found = check(tmp_path)
    assert found.signed == ("alpha", "gamma", COORDINATOR, AUDITOR)
    assert found.missing == ("beta", "delta", "epsilon")
    sign_all(tmp_path)
    assert check(tmp_path).missing == ()


def test_signatures_may_come_in_one_file_and_twice(tmp_path):
    statements = [sign(AGREEMENT, name) for name in (*MEMBERS, "alpha", COORDINATOR, COORDINATOR)]
    write(tmp_path, "all", *statements)
    assert check(tmp_path).signed == (*MEMBERS, COORDINATOR)


def test_only_a_party_signs_and_only_with_its_pinned_key():
    with pytest.raises(UnknownSignerError):
        sign_as_party(AGREEMENT, signer("stranger"))
    with pytest.raises(ForeignKeyError, match="is pinned"):
        sign_as_party(AGREEMENT, signer(COORDINATOR, 2))
    with pytest.raises(AgreementError, match="pins no keys"):
        sign_as_party(frozen(), signer(COORDINATOR))
    with pytest.raises(UsageError, match="is a member"):
        sign_as_party(AGREEMENT, signer("alpha"))
    for name in (COORDINATOR, AUDITOR):
        assert sign_as_party(AGREEMENT, signer(name)).signer == name


def test_a_signature_of_another_agreement_under_this_ones_name_is_told(tmp_path):
    other = pinned(privacy={"epsilon": 9.0})
    sign_all(tmp_path)
    write(tmp_path, "alpha", sign(other, "alpha"))
    with pytest.raises(BadSignaturesError, match="1 signature in") as caught:
        check(tmp_path)
    assert caught.value.exit_status is ExitStatus.VERIFICATION_FAILED
    assert told(caught) == {"league.frozen.alpha.sig": "is the signature of another agreement"}


def test_signatures_of_other_agreements_beside_it_are_counted_and_not_accepted(tmp_path):
    other = pinned(privacy={"epsilon": 9.0})
    statement = sign(other, "alpha")
    (tmp_path / "older.frozen.alpha.sig").write_text(statement.line + "\n")
    found = check(tmp_path)
    assert (found.signed, found.others) == ((), 1)
    assert check(tmp_path, other, "older.frozen").signed == ("alpha",)


def test_amendments_in_the_same_folder_are_no_signatures(tmp_path):
    sign_all(tmp_path, MEMBERS[:2])
    amendment_file(tmp_path / "league.frozen.amendment-1.sig", revocation(AGREEMENT, roster()), MEMBERS[:4])
    assert check(tmp_path).signed == MEMBERS[:2]


def test_every_bad_signature_is_told_at_once(tmp_path):
    good, value = sign(AGREEMENT, "alpha"), {"agreement_id": AGREEMENT.agreement_id}
    other = Membership(
        at="2026-03-01T12:00:00Z", agreement_id=AGREEMENT.agreement_id, member="delta", change="join"
    )
    write(tmp_path, "alpha", good)
    write(tmp_path, "beta", dataclasses.replace(good, signer="beta"))
    write(tmp_path, "gamma", signature(AGREEMENT, "gamma", signer("gamma", 2)).statements[0])
    write(tmp_path, "delta", SignedEntry.sign(other, signer("delta")).statements[0])
    joined = Statement.signed(signer("delta"), "ledger.agreement", other.data)
    write(tmp_path, "renamed", joined)
    write(tmp_path, "sums", Statement.sign(signer("delta"), "secagg.masked", value))
    write(tmp_path, "epsilon", Statement.sign(signer("epsilon"), PURPOSE, value))
    write(tmp_path, "more", Statement.sign(signer(COORDINATOR), PURPOSE, {**value, "but": "no"}))
    write(tmp_path, "stranger", Statement.sign(signer("stranger"), PURPOSE, value))
    (tmp_path / "league.frozen.broken.sig").write_bytes(b"\xff")
    (tmp_path / "league.frozen.cut.sig").write_text(good.line)
    (tmp_path / "league.frozen.list.sig").write_text(
        Statement.signed(signer("alpha"), PURPOSE, b"[]").line + "\n"
    )
    with pytest.raises(BadSignaturesError, match="11 signatures in") as caught:
        check(tmp_path)
    assert {place.split(".")[2]: what for place, what in told(caught).items()} == {
        "beta": "a signature for ledger.agreement is not by 'beta'",
        "gamma": "a signature for ledger.agreement is not by 'gamma'",
        "delta": "a statement is not the signature of an agreement",
        "renamed": "'delta' has signed something else than the entry",
        "sums": "a statement is not the signature of an agreement",
        "epsilon": "'epsilon' is a member, and signs with its keys: have it sign anew",
        "more": "a statement is not the signature of an agreement",
        "stranger": "a statement is signed by someone whom the agreement does not name",
        "broken": "a list of statements is not UTF-8",
        "cut": "a list of statements is cut short",
        "list": "a statement is not an object",
    }


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (signature(AGREEMENT, "alpha", signer("beta")), "'beta' signs for 'alpha'"),
        (signature(AGREEMENT, "alpha", terms_id="0" * 64), "names other terms"),
        (signature(AGREEMENT, "alpha", roster_sha256="0" * 64), "names other terms or another roster"),
    ],
    ids=["in another's name", "other terms", "another roster"],
)
def test_what_a_member_cannot_have_compared_is_told(tmp_path, entry, words):
    write(tmp_path, "alpha", *entry.statements)
    with pytest.raises(BadSignaturesError) as caught:
        check(tmp_path)
    assert words in told(caught)["league.frozen.alpha.sig"]


def test_a_member_that_names_two_officers_is_told(tmp_path):
    write(tmp_path, "alpha", *signature(AGREEMENT, "alpha").statements)
    other = signer(officer_of("alpha"), 2).public_key
    write(tmp_path, "alpha-again", *signature(AGREEMENT, "alpha", officer_key=other).statements)
    with pytest.raises(BadSignaturesError) as caught:
        check(tmp_path)
    assert "has signed twice" in told(caught)["league.frozen.alpha.sig"]


def test_one_changed_byte_is_one_bad_signature(tmp_path):
    line = sign(AGREEMENT, "alpha").line
    digits = [line.index(f'"{name}":"') + len(f'"{name}":"') for name in ("agreement_id", "terms_id")]
    for at in (*digits, line.index(" alpha ") + 20):
        changed = line[:at] + ("0" if line[at] != "0" else "1") + line[at + 1 :]
        (tmp_path / "league.frozen.alpha.sig").write_text(changed + "\n")
        with pytest.raises(BadSignaturesError):
            check(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        check(tmp_path / "absent")


class TestTrustedKeys:
    def test_they_are_what_was_pinned_and_what_members_signed(self, tmp_path):
        sign_all(tmp_path, (*MEMBERS, COORDINATOR))
        keys = trusted_keys(AGREEMENT, check(tmp_path), FEDERATION, 4)
        assert keys.roster == roster()
        assert (keys.agreement_id, keys.quorum) == (AGREEMENT.agreement_id, 4)
        assert list(keys.members) == list(MEMBERS)
        assert keys.officers == {name: signer(officer_of(name)).public_key for name in MEMBERS}
        assert keys.federation.log == FEDERATION
        for name in MEMBERS:
            keys.keyring.verify(signature(AGREEMENT, name))
        keys.write(tmp_path / "keys.json")
        assert TrustedKeys.read(tmp_path / "keys.json") == keys

    def test_while_a_member_has_not_signed_there_are_none(self, tmp_path):
        sign_all(tmp_path, MEMBERS[1:3])
        with pytest.raises(UnsignedAgreementError, match="alpha, delta, epsilon") as caught:
            trusted_keys(AGREEMENT, check(tmp_path), FEDERATION, 4)
        assert caught.value.missing == ("alpha", "delta", "epsilon")
        assert caught.value.exit_status is ExitStatus.REFUSED

    @pytest.mark.parametrize("name", ["log_key", "witness_key", "officer_key"])
    def test_a_member_that_names_anothers_key_is_told(self, tmp_path, name):
        sign_all(tmp_path)
        taken = getattr(signature(AGREEMENT, "beta").entry, name)
        write(tmp_path, "alpha", *signature(AGREEMENT, "alpha", **{name: taken}).statements)
        with pytest.raises(TrustedKeysError) as caught:
            trusted_keys(AGREEMENT, check(tmp_path), FEDERATION, 4)
        assert "stands for two parties" in str(caught.value.problems[0])

    def test_an_officer_that_is_the_member_itself_is_told(self, tmp_path):
        sign_all(tmp_path)
        own = signer("alpha").public_key
        write(tmp_path, "alpha", *signature(AGREEMENT, "alpha", officer_key=own).statements)
        with pytest.raises(TrustedKeysError):
            trusted_keys(AGREEMENT, check(tmp_path), FEDERATION, 4)
