"""Attacks on identities: by whoever runs the authority, by a member that was revoked, by who carries the files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hansa.agreement import Frozen, read_agreement
from hansa.agreement.amendments import roster_in_force
from hansa.agreement.roster import roster_of
from hansa.agreement.writing import agreement_toml
from hansa.errors import ExitStatus
from hansa.identity import Authority, Signer, Statement, request_certificate
from hansa.identity.amendment import PURPOSE as AMENDMENT
from hansa.identity.cards import Card
from hansa.identity.errors import AmendmentError, BadSignaturesError, SignatureError, UnknownSignerError
from hansa.identity.pem import pem
from hansa.ledger.signatures import check_signatures, sign_as_party
from support.cli import Called, hansa
from support.identities import (
    MEMBERS,
    amendment_file,
    home,
    pinned,
    revocation,
    roster,
    signature,
    signer,
)

AGREEMENT = pinned()


@pytest.fixture
def league(tmp_path: Path) -> Path:
    (tmp_path / "league.frozen.toml").write_text(agreement_toml(AGREEMENT), encoding="utf-8")
    for name in MEMBERS:
        home(tmp_path / name, name)
    return tmp_path


def sign(league: Path, folder: str) -> Called:
    return hansa("agreement", "sign", league / "league.frozen.toml", "--home", league / folder)


def test_an_authority_that_certifies_a_key_of_its_own_gets_nobody_to_accept_it(league):
    # the coordinator may run the authority: it makes a second 'alpha' with a valid certificate
    impostor = Signer.generate("alpha")
    now = datetime.now(UTC)
    authority = Authority.create("League", now)
    authority.save(league / "ca", now)
    home(league / "impostor", "alpha", impostor)
    (league / "alpha.crt").write_bytes(pem(authority.issue(request_certificate(impostor), "alpha", now)))
    arguments = ["--ca", league / "ca" / "ca.crt", "--crl", league / "ca" / "ca.crl"]
    installed = hansa("node", "certificate", league / "alpha.crt", "--home", league / "impostor", *arguments)
    assert installed.status == ExitStatus.DONE  # the certificate is genuine, and worth nothing:
    assert sign(league, "impostor").status == ExitStatus.REFUSED
    statement = Statement.sign(impostor, "agreement.signature", {"agreement_id": AGREEMENT.agreement_id})
    (league / "league.frozen.alpha.sig").write_text(statement.line + "\n")
    checked = hansa("agreement", "check", league / "league.frozen.toml", "--signatures", league)
    assert checked.status == ExitStatus.VERIFICATION_FAILED


def test_an_agreement_whose_keys_were_exchanged_on_the_way_is_another_agreement(league):
    # who carries the frozen file puts its own key in alpha's place: every honest signature is then of another id
    for name in MEMBERS[1:]:
        assert sign(league, name).status == ExitStatus.DONE
    part = AGREEMENT.require_frozen()
    keys = {**part.member_keys, "alpha": signer("thief").public_key}
    changed = AGREEMENT.freeze(
        Frozen(**{**{n: getattr(part, n) for n in Frozen.model_fields}, "member_keys": keys})
    )
    (league / "league.frozen.toml").write_text(agreement_toml(changed), encoding="utf-8")
    assert sign(league, "alpha").status == ExitStatus.REFUSED
    checked = hansa("agreement", "check", league / "league.frozen.toml", "--signatures", league)
    assert checked.status == ExitStatus.VERIFICATION_FAILED
    assert checked.stderr.count("another agreement") == 4


def test_swapping_two_members_keys_is_noticed(league):
    part = AGREEMENT.require_frozen()
    keys = dict(part.member_keys)
    keys["alpha"], keys["beta"] = keys["beta"], keys["alpha"]
    changed = AGREEMENT.freeze(
        Frozen(**{**{n: getattr(part, n) for n in Frozen.model_fields}, "member_keys": keys})
    )
    assert changed.agreement_id != AGREEMENT.agreement_id
    assert roster_of(changed).sha256 != roster_of(AGREEMENT).sha256


def test_terms_edited_after_signing_do_not_keep_their_signatures(league):
    for name in MEMBERS:
        sign(league, name)
    path = league / "league.frozen.toml"
    path.write_text(path.read_text().replace("epsilon = 5.0", "epsilon = 50.0"), encoding="utf-8")
    assert hansa("agreement", "check", path, "--signatures", league).status == ExitStatus.BAD_INPUT
    path.write_text(agreement_toml(pinned(privacy={"epsilon": 50.0})), encoding="utf-8")
    assert hansa("agreement", "check", path, "--signatures", league).status == ExitStatus.VERIFICATION_FAILED


def test_a_signature_of_an_agreement_is_no_approval_and_the_other_way_round(league):
    amendment = revocation(AGREEMENT, roster())
    (signed,) = signature(AGREEMENT, "alpha").statements
    renamed = Statement(AMENDMENT, "alpha", amendment.sign(signer("alpha")).data, signed.signature)
    approvals = [*(amendment.sign(signer(name)) for name in MEMBERS[1:4]), renamed]
    (league / "a.sig").write_text("".join(one.line + "\n" for one in approvals))
    with pytest.raises(AmendmentError, match="does not count"):
        roster_in_force(AGREEMENT, [league])
    with pytest.raises(SignatureError):
        Statement("ledger.agreement", "alpha", signed.data, amendment.sign(signer("alpha")).signature).verify(
            roster(), "ledger.agreement"
        )


def test_one_member_under_several_names_is_one_member(league):
    amendment = revocation(AGREEMENT, roster())
    approval = amendment.sign(signer("alpha"))
    copies = [Statement(approval.purpose, name, approval.data, approval.signature) for name in MEMBERS[:4]]
    (league / "a.sig").write_text("".join(one.line + "\n" for one in copies))
    with pytest.raises(AmendmentError, match="not by 'beta'"):
        roster_in_force(AGREEMENT, [league])


def test_the_coordinator_alone_changes_no_key(league):
    home(league / "coordinator", "coordinator")
    called = hansa(
        "agreement", "amend", league / "league.frozen.toml", "--revoke", "alpha", "--reason", "x",
        "--home", league / "coordinator",
    )  # fmt: skip
    assert called.status == ExitStatus.REFUSED
    amendment = revocation(AGREEMENT, roster(), "alpha")
    amendment_file(league / "a.sig", amendment, ["coordinator", "inspector"])
    standing = roster_in_force(AGREEMENT, [league])
    assert (standing.roster, standing.amendments[0].approved) == (roster(), ())


def test_a_stolen_key_cannot_put_a_thiefs_key_in_its_own_place(league):
    stolen = revocation(
        AGREEMENT, roster(), "alpha", change="replace-key", public_key=signer("thief").public_key
    )
    amendment_file(league / "a.sig", stolen, ["alpha"])
    assert roster_in_force(AGREEMENT, [league]).roster == roster()


def test_a_revocation_that_was_damaged_is_not_taken_for_none(league):
    path = amendment_file(league / "a.sig", revocation(AGREEMENT, roster()), MEMBERS[:4])
    whole = path.read_text()
    for damaged in (whole[:-1], whole.replace("epsilon", "delta"), whole.replace(" alpha ", " gamma "), ""):
        path.write_text(damaged)
        shown = hansa("agreement", "show", league / "league.frozen.toml", "--amendments", league)
        assert shown.status != ExitStatus.DONE, damaged


def test_a_card_with_control_characters_writes_nothing_on_a_terminal(league):
    (league / "keys").mkdir()
    key = signer("alpha").public_key
    (league / "keys" / "alpha.pub").write_text(f"\x1b[2Jalpha {key}\n")
    (league / "terms.toml").write_text(agreement_toml(AGREEMENT).partition("[frozen]")[0])
    called = hansa("agreement", "freeze", league / "terms.toml", "--keys", league / "keys")
    assert called.status == ExitStatus.BAD_INPUT
    assert "\x1b" not in called.stderr


def test_a_name_chosen_to_leave_the_folder_goes_nowhere(league):
    for name in ("../outside", "/etc/x", "a/b"):
        assert hansa("node", "init", name, "--home", league / "new").status == ExitStatus.BAD_INPUT
        assert (
            hansa("ca", "issue", league, "--request", league / "x.csr", "--member", name).status
            == ExitStatus.BAD_INPUT
        )
    assert not (league.parent / "outside").exists()
    (league / "card.pub").write_text(Card("alpha", signer("alpha", 2).public_key).line)
    called = hansa(
        "agreement", "amend", league / "league.frozen.toml", "--replace-key", f"../alpha={league / 'card.pub'}",
        "--reason", "x", "--home", league / "beta",
    )  # fmt: skip
    assert called.status == ExitStatus.BAD_INPUT


def test_a_strangers_signature_counts_for_nothing(league):
    with pytest.raises(UnknownSignerError):
        sign_as_party(AGREEMENT, signer("stranger"))
    statement = Statement.sign(
        signer("stranger"), "agreement.signature", {"agreement_id": AGREEMENT.agreement_id}
    )
    (league / "x.sig").write_text(statement.line + "\n")
    with pytest.raises(BadSignaturesError):
        check_signatures(read_agreement(league / "league.frozen.toml"), league, "league.frozen")
