"""Signing an agreement, and who has signed it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hansa.agreement.signatures import PURPOSE, check_signatures, sign_agreement
from hansa.errors import AgreementError, ExitStatus, UsageError
from hansa.identity import COORDINATOR, Statement
from hansa.identity.errors import BadSignaturesError, ForeignKeyError, UnknownSignerError
from support.identities import AUDITOR, MEMBERS, amendment_file, frozen, pinned, revocation, roster, signer

AGREEMENT = pinned()


def write(folder: Path, name: str, *statements: Statement) -> Path:
    path = folder / f"league.frozen.{name}.sig"
    path.write_text("".join(one.line + "\n" for one in statements), encoding="utf-8")
    return path


def sign_all(folder: Path, names=MEMBERS, agreement=AGREEMENT) -> None:
    for name in names:
        write(folder, name, sign_agreement(agreement, signer(name)))


def check(folder: Path, agreement=AGREEMENT, stem="league.frozen"):
    return check_signatures(agreement, folder, stem)


def told(caught: pytest.ExceptionInfo[BadSignaturesError]) -> dict[str, str]:
    return {problem.place: problem.what for problem in caught.value.problems}


def test_a_signature_is_over_the_id_and_counts_for_this_purpose():
    statement = sign_agreement(AGREEMENT, signer("alpha"))
    statement.verify(roster(), PURPOSE)
    assert statement.value == {"agreement_id": AGREEMENT.agreement_id}
    assert sign_agreement(AGREEMENT, signer("alpha")) == statement


def test_who_has_signed_and_who_has_not(tmp_path):
    assert check(tmp_path).missing == MEMBERS
    sign_all(tmp_path, ("gamma", "alpha", AUDITOR, COORDINATOR))
    found = check(tmp_path)
    assert found.signed == ("alpha", "gamma", COORDINATOR, AUDITOR)
    assert found.missing == ("beta", "delta", "epsilon")
    sign_all(tmp_path)
    assert check(tmp_path).missing == ()


def test_signatures_may_come_in_one_file_and_twice(tmp_path):
    statements = [sign_agreement(AGREEMENT, signer(name)) for name in (*MEMBERS, "alpha")]
    write(tmp_path, "all", *statements)
    assert check(tmp_path).signed == MEMBERS


def test_only_a_party_signs_and_only_with_its_pinned_key():
    with pytest.raises(UnknownSignerError):
        sign_agreement(AGREEMENT, signer("stranger"))
    with pytest.raises(ForeignKeyError, match="is pinned"):
        sign_agreement(AGREEMENT, signer("alpha", 2))
    with pytest.raises(AgreementError, match="pins no keys"):
        sign_agreement(frozen(), signer("alpha"))
    for name in (COORDINATOR, AUDITOR):
        assert sign_agreement(AGREEMENT, signer(name)).signer == name


def test_a_signature_of_another_agreement_under_this_ones_name_is_told(tmp_path):
    other = pinned(privacy={"epsilon": 9.0})
    sign_all(tmp_path)
    write(tmp_path, "alpha", sign_agreement(other, signer("alpha")))
    with pytest.raises(BadSignaturesError, match="1 signature in") as caught:
        check(tmp_path)
    assert caught.value.exit_status is ExitStatus.VERIFICATION_FAILED
    assert told(caught) == {"league.frozen.alpha.sig": "is the signature of another agreement"}


def test_signatures_of_other_agreements_beside_it_are_counted_and_not_accepted(tmp_path):
    other = pinned(privacy={"epsilon": 9.0})
    statement = sign_agreement(other, signer("alpha"))
    (tmp_path / "older.frozen.alpha.sig").write_text(statement.line + "\n")
    found = check(tmp_path)
    assert (found.signed, found.others) == ((), 1)
    assert check(tmp_path, other, "older.frozen").signed == ("alpha",)


def test_amendments_in_the_same_folder_are_no_signatures(tmp_path):
    sign_all(tmp_path, MEMBERS[:2])
    amendment_file(tmp_path / "league.frozen.amendment-1.sig", revocation(AGREEMENT, roster()), MEMBERS[:4])
    assert check(tmp_path).signed == MEMBERS[:2]


def test_every_bad_signature_is_told_at_once(tmp_path):
    good = sign_agreement(AGREEMENT, signer("alpha"))
    write(tmp_path, "alpha", good)
    write(tmp_path, "beta", dataclasses.replace(good, signer="beta"))
    write(tmp_path, "gamma", Statement.sign(signer("gamma", 2), PURPOSE, good.value))
    write(tmp_path, "delta", Statement.sign(signer("delta"), "secagg.masked", good.value))
    write(tmp_path, "epsilon", Statement.sign(signer("epsilon"), PURPOSE, {**good.value, "but": "no"}))
    write(tmp_path, "stranger", Statement.sign(signer("stranger"), PURPOSE, good.value))
    (tmp_path / "league.frozen.broken.sig").write_bytes(b"\xff")
    (tmp_path / "league.frozen.cut.sig").write_text(good.line)
    (tmp_path / "league.frozen.list.sig").write_text(
        Statement.signed(signer("alpha"), PURPOSE, b"[]").line + "\n"
    )
    with pytest.raises(BadSignaturesError, match="8 signatures in") as caught:
        check(tmp_path)
    assert {place.split(".")[2]: what for place, what in told(caught).items()} == {
        "beta": "a signature for agreement.signature is not by 'beta'",
        "gamma": "a signature for agreement.signature is not by 'gamma'",
        "delta": "a statement is not the signature of an agreement",
        "epsilon": "a statement is not the signature of an agreement",
        "stranger": "a statement is signed by someone whom the agreement does not name",
        "broken": "a list of statements is not UTF-8",
        "cut": "a list of statements is cut short",
        "list": "a statement is not an object",
    }


def test_one_changed_byte_is_one_bad_signature(tmp_path):
    line = sign_agreement(AGREEMENT, signer("alpha")).line
    digit = line.index('"agreement_id":"') + len('"agreement_id":"')
    for at in (digit, line.index(" ", len(PURPOSE) + 1) + 20):
        changed = line[:at] + ("0" if line[at] != "0" else "1") + line[at + 1 :]
        (tmp_path / "league.frozen.alpha.sig").write_text(changed + "\n")
        with pytest.raises(BadSignaturesError):
            check(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        check(tmp_path / "absent")
