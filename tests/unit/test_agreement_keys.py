"""Pinned keys: what `[frozen]` may say about them, pinning, and the roster that comes out."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import rfc8785

from hansa.agreement import Agreement, Frozen, parse_agreement
from hansa.agreement import keys as agreement_keys
from hansa.agreement.roster import pin, roster_of
from hansa.agreement.writing import agreement_toml
from hansa.errors import AgreementError
from hansa.identity import roster as identity_roster
from support.identities import AUDITOR, COORDINATOR, MEMBERS, frozen, pinned, roster, signer

NOT_A_POINT = "p256:02" + "f" * 64  # the form of a key, and beyond the field


def with_keys(agreement: Agreement, **changes) -> Agreement:
    """The agreement with its frozen part changed, through the checks of freezing."""
    parts = {name: getattr(agreement.require_frozen(), name) for name in Frozen.model_fields}
    return agreement.freeze(Frozen(**(parts | changes)))


def told(caught: pytest.ExceptionInfo[AgreementError]) -> dict[str, str]:
    return {problem.place: problem.what for problem in caught.value.problems}


def test_the_coordinators_name_is_the_same_on_both_sides():
    assert agreement_keys.COORDINATOR == identity_roster.COORDINATOR


def test_pinning_puts_every_key_into_the_id():
    agreement = pinned()
    other = {**agreement.require_frozen().member_keys, "alpha": signer("somebody").public_key}
    ids = {
        frozen().agreement_id,
        agreement.agreement_id,
        with_keys(agreement, member_keys=other).agreement_id,
        with_keys(agreement, coordinator_key=signer("somebody").public_key).agreement_id,
        with_keys(agreement, auditor_keys={}).agreement_id,
        with_keys(agreement, auditor_keys={"bank": signer(AUDITOR).public_key}).agreement_id,
    }
    assert len(ids) == 6
    assert frozen().terms_id == agreement.terms_id


def test_an_agreement_without_keys_keeps_the_id_that_it_always_had():
    agreement = frozen()
    part = agreement.require_frozen()
    before = {
        "terms_id": part.terms_id,
        "model": part.model.tree(),
        "noise_multiplier": part.noise_multiplier,
        "member_keys": {},
    }
    expected = hashlib.sha256(rfc8785.dumps({"terms": agreement.terms.tree(), "frozen": before})).hexdigest()
    assert agreement.agreement_id == expected


def test_pinned_keys_are_written_and_read_back():
    agreement = pinned()
    read = parse_agreement(agreement_toml(agreement))
    assert read.agreement_id == agreement.agreement_id
    assert roster_of(read) == roster_of(agreement) == roster()


def test_the_roster_has_the_order_of_the_terms_and_not_of_the_file():
    agreement = pinned()
    shuffled = with_keys(agreement, member_keys=dict(sorted(agreement.require_frozen().member_keys.items())))
    assert list(shuffled.require_frozen().member_keys) != list(MEMBERS)
    assert list(roster_of(shuffled).members) == list(MEMBERS)
    assert roster_of(shuffled).sha256 == roster_of(agreement).sha256
    assert shuffled.agreement_id == agreement.agreement_id


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"member_keys": {}}, {f"frozen.member_keys.{name}" for name in MEMBERS}),
        ({"coordinator_key": None}, {"frozen.coordinator_key"}),
        (
            {"member_keys": {name: signer(name).public_key for name in (*MEMBERS[1:], "zeta")}},
            {"frozen.member_keys.alpha", "frozen.member_keys.zeta"},
        ),
        ({"auditor_keys": {"alpha": signer("x").public_key}}, {"frozen.auditor_keys.alpha"}),
        ({"auditor_keys": {COORDINATOR: signer("x").public_key}}, {f"frozen.auditor_keys.{COORDINATOR}"}),
        ({"auditor_keys": {"x": signer("alpha").public_key}}, {"frozen"}),
        ({"coordinator_key": signer("alpha").public_key}, {"frozen"}),
        (
            {"member_keys": {}, "coordinator_key": None, "auditor_keys": {"x": signer("x").public_key}},
            {*(f"frozen.member_keys.{name}" for name in MEMBERS), "frozen.coordinator_key"},
        ),
    ],
    ids=["no member", "no coordinator", "another member", "auditor as member", "auditor as coordinator", "auditor's key", "coordinator's key", "auditors alone"],
)  # fmt: skip
def test_keys_are_those_of_all_parties_and_everything_else_is_told(changes, places):
    with pytest.raises(AgreementError, match="pinned keys") as caught:
        with_keys(pinned(), **changes)
    assert set(told(caught)) == places


def test_a_member_that_has_the_coordinators_name_cannot_be_pinned():
    with pytest.raises(AgreementError) as caught:
        frozen(("alpha", "beta", COORDINATOR))
    assert "signs for somebody else" in told(caught)["members.2.name"]


@pytest.mark.parametrize(
    "key", ["", "key", "p256:", "p256:" + "0" * 66, "p256:02" + "A" * 64, NOT_A_POINT + "0"]
)
def test_what_has_not_the_form_of_a_key_is_told_with_its_place(key):
    text = agreement_toml(pinned()).replace(signer("beta").public_key, key)
    with pytest.raises(AgreementError) as caught:
        parse_agreement(text)
    assert set(told(caught)) == {"frozen.member_keys.beta"}


def test_a_key_that_is_no_point_is_told_where_it_is_used():
    agreement = with_keys(pinned(), coordinator_key=NOT_A_POINT)
    with pytest.raises(AgreementError, match="do not make a roster") as caught:
        roster_of(agreement)
    assert "compressed point" in next(iter(told(caught).values()))


def test_without_keys_there_is_no_roster():
    with pytest.raises(AgreementError, match="pins no keys") as caught:
        roster_of(frozen())
    assert "--keys" in caught.value.problems[0].remedy
    with pytest.raises(AgreementError, match="not frozen"):
        roster_of(parse_agreement(agreement_toml(frozen()).partition("[frozen]")[0]))


def test_keys_are_pinned_once():
    with pytest.raises(AgreementError, match="pinned once"):
        pin(pinned(), roster())
    with pytest.raises(AgreementError, match="pinned once"):
        pin(frozen(), roster().revoke("alpha"))
    with pytest.raises(AgreementError, match="not those of the parties"):
        pin(frozen(), roster(MEMBERS[:4]))


def test_reading_pinned_keys_needs_no_cryptography(tmp_path):
    (tmp_path / "a.toml").write_text(agreement_toml(pinned()), encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; from hansa.agreement import read_agreement;"
        "print(read_agreement(Path(sys.argv[1])).agreement_id, 'cryptography' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.toml")], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [pinned().agreement_id, "False"]
