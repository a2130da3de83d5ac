"""`hansa agreement freeze --keys`, `sign` and `check --signatures` through the command line."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hansa.agreement import read_agreement
from hansa.agreement.roster import roster_of
from hansa.agreement.writing import agreement_toml
from hansa.errors import ExitStatus
from hansa.identity import COORDINATOR, Statement, fingerprint
from hansa.identity.cards import Card
from hansa.ledger import LogView, NoteSigner, SqliteLogStore, TrustedKeys, officer_of
from hansa.ledger.files import entry_of, read_entry
from hansa.ledger.officer import officer_card
from support.cli import Called, hansa
from support.identities import (
    AUDITOR,
    MEMBERS,
    PARTIES,
    frozen,
    home,
    note_signer,
    pinned,
    roster,
    secrets_of,
    signature,
    signer,
    terms,
)


def agreement(*arguments: str | Path) -> Called:
    return hansa("agreement", *arguments, "--format", "json")


def refused(called: Called, code: str, *words: str, status: ExitStatus = ExitStatus.BAD_INPUT) -> None:
    assert called.status == status, called
    error = called.envelope["error"]
    assert error["code"] == code
    for word in words:
        assert word in json.dumps(error)


@pytest.fixture
def league(tmp_path: Path) -> Path:
    """A frozen agreement with keys, and a home for every party."""
    (tmp_path / "league.frozen.toml").write_text(agreement_toml(pinned()), encoding="utf-8")
    for name in PARTIES:
        home(tmp_path / "homes" / name, name)
    return tmp_path


def sign(league: Path, name: str, *arguments: str | Path) -> Called:
    return agreement("sign", league / "league.frozen.toml", "--home", league / "homes" / name, *arguments)


def check(league: Path) -> Called:
    return agreement("check", league / "league.frozen.toml", "--signatures", league)


class TestFreeze:
    @pytest.fixture(autouse=True)
    def model(self, monkeypatch) -> list[str]:
        """A model zero in memory in place of the one that torch builds."""
        asked: list[str] = []

        def build(terms, *, folder):
            asked.append(terms.task.name)
            return SimpleNamespace(
                initial_vector=lambda: np.zeros(6), frozen_sha256="1" * 64, tokenizer_sha256=None
            )

        monkeypatch.setitem(sys.modules, "hansa.models", SimpleNamespace(build_model=build))
        return asked

    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        (tmp_path / "league.toml").write_text(agreement_toml(terms()), encoding="utf-8")
        (tmp_path / "keys").mkdir()
        for name in PARTIES:
            (tmp_path / "keys" / f"{name}.pub").write_text(Card(name, signer(name).public_key).line)
        return tmp_path

    def freeze(self, files: Path, *arguments: str | Path) -> Called:
        return agreement("freeze", files / "league.toml", *arguments)

    def test_the_keys_of_all_parties_are_pinned(self, files) -> None:
        made = self.freeze(files, "--keys", files / "keys", "--auditor", AUDITOR).data
        read = read_agreement(files / "league.frozen.toml")
        assert read.agreement_id == made["agreement_id"]
        assert roster_of(read) == roster()

    def test_everybody_who_freezes_the_same_gets_the_same_id(self, files) -> None:
        ids = {
            self.freeze(
                files, "--keys", files / "keys", "--auditor", AUDITOR, "--out", files / f"{i}.toml"
            ).data["agreement_id"]
            for i in range(2)
        }
        (files / "keys" / "alpha.pub").write_text(Card("alpha", signer("alpha", 2).public_key).line)
        other = self.freeze(files, "--keys", files / "keys", "--auditor", AUDITOR).data["agreement_id"]
        assert len({*ids, other}) == 2

    def test_without_keys_it_stays_as_it_was(self, files) -> None:
        self.freeze(files)
        read = read_agreement(files / "league.frozen.toml").require_frozen()
        assert (read.member_keys, read.coordinator_key, read.auditor_keys) == ({}, None, {})

    def test_nobody_becomes_an_auditor_by_a_card_in_the_folder(self, files, model) -> None:
        refused(self.freeze(files, "--keys", files / "keys"), "HANSA-706", f"{AUDITOR}.pub", "--auditor")
        assert model == []  # told before any work
        assert not (files / "league.frozen.toml").exists()

    def test_cards_that_are_missing_too_many_or_double_are_told_at_once(self, files) -> None:
        (files / "keys" / "beta.pub").unlink()
        (files / "keys" / f"{COORDINATOR}.pub").unlink()
        (files / "keys" / "gamma.pub").write_text(Card("gamma", signer("alpha").public_key).line)
        (files / "keys" / "extra.pub").write_text(Card("extra", signer("extra").public_key).line)
        called = self.freeze(files, "--keys", files / "keys", "--auditor", AUDITOR, "--auditor", "bank")
        refused(called, "HANSA-706")
        assert {problem["place"] for problem in called.envelope["error"]["problems"]} == {
            "beta.pub", "coordinator.pub", "bank.pub", "extra.pub", "alpha.pub, gamma.pub",
        }  # fmt: skip

    def test_what_does_not_go_together_is_refused(self, files) -> None:
        refused(self.freeze(files, "--auditor", AUDITOR), "HANSA-104", "--keys")
        refused(self.freeze(files, "--keys", files / "absent"), "HANSA-104", "no folder")

    @pytest.mark.parametrize("made", [frozen, pinned])
    def test_what_is_frozen_is_not_frozen_again_with_keys(self, files, made) -> None:
        (files / "league.toml").write_text(agreement_toml(made()), encoding="utf-8")
        called = self.freeze(files, "--keys", files / "keys", "--auditor", AUDITOR)
        refused(called, "HANSA-104", "is frozen already")


class TestSign:
    def test_one_line_beside_the_agreement(self, league) -> None:
        data = sign(league, "alpha").data
        assert data["signature"] == str(league / "league.frozen.alpha.sig")
        assert (data["signer"], data["agreement_id"]) == ("alpha", pinned().agreement_id)
        text = (league / "league.frozen.alpha.sig").read_text()
        assert text.count("\n") == 1
        statement = Statement.parse(text[:-1])
        statement.verify(roster(), "ledger.agreement")
        said = signature(pinned(), "alpha").entry
        assert entry_of([statement]).entry.model_copy(update={"at": said.at}) == said

    def test_a_members_signature_is_an_entry_of_its_ledger(self, league) -> None:
        sign(league, "alpha")
        with closing(SqliteLogStore(league / "homes" / "alpha" / "state" / "ledger.sqlite")) as store:
            (data,) = LogView(store).entries()
        assert data == read_entry(league / "league.frozen.alpha.sig").encoded

    def test_who_is_no_member_signs_with_a_statement_and_has_no_ledger(self, league) -> None:
        sign(league, COORDINATOR)
        statement = Statement.parse((league / f"league.frozen.{COORDINATOR}.sig").read_text()[:-1])
        statement.verify(roster(), "agreement.signature")
        assert not (league / "homes" / COORDINATOR / "state").exists()

    def test_without_the_card_of_its_officer_a_member_signs_nothing(self, league) -> None:
        (league / "homes" / "alpha" / "alpha.officer.pub").unlink()
        refused(sign(league, "alpha"), "HANSA-708", "alpha.officer.pub", "hansa node officer alpha")
        card = league / "homes" / "beta" / "beta.officer.pub"
        shutil.copy(card, league / "homes" / "alpha" / "alpha.officer.pub")
        refused(sign(league, "alpha"), "HANSA-706", "beta#privacy-officer")
        assert list(league.glob("*.sig")) == []

    def test_a_member_does_not_change_its_officer_after_it_signed(self, league) -> None:
        sign(league, "alpha")
        new = officer_card(signer(officer_of("alpha"), 2))
        (league / "homes" / "alpha" / "alpha.officer.pub").write_text(new.line)
        refused(sign(league, "alpha"), "HANSA-745", "other terms or keys")

    def test_a_log_key_that_is_a_witness_key_signs_nothing(self, league) -> None:
        for name in ("log.key", "witness.key"):
            other = {"log.key": "witness.key", "witness.key": "log.key"}[name]
            (league / "homes" / "beta" / "node.toml").write_text(
                f'name = "beta"\nstate = "state"\nsealing_key = "s"\n{name[:-4]}_key = "{other}"\n'
            )
            refused(sign(league, "beta"), "HANSA-705", "is not the key of a")
        assert list(league.glob("*.sig")) == []

    def test_it_shows_what_is_signed(self, league) -> None:
        called = hansa(
            "agreement", "sign", league / "league.frozen.toml", "--home", league / "homes" / "alpha"
        )
        assert called.stdout.startswith("alpha has signed: ")
        assert pinned().agreement_id in called.stdout
        assert "epsilon" in called.stdout

    def test_out_names_another_place(self, league) -> None:
        assert sign(league, "alpha", "--out", league / "mine").data["signature"] == str(league / "mine")
        assert not (league / "league.frozen.alpha.sig").exists()

    def test_signing_again_is_no_harm_and_another_file_is_kept(self, league) -> None:
        assert sign(league, "alpha").data == sign(league, "alpha").data
        (league / "league.frozen.beta.sig").write_text("mine")
        refused(sign(league, "beta"), "HANSA-102")
        assert (league / "league.frozen.beta.sig").read_text() == "mine"

    def test_a_key_that_is_not_the_pinned_one_signs_nothing(self, league) -> None:
        home(league / "homes" / "new", "alpha", signer("alpha", 2))
        called = sign(league, "new")
        refused(called, "HANSA-709", status=ExitStatus.REFUSED)
        for version in (1, 2):
            assert fingerprint(signer("alpha", version).public_key) in called.envelope["error"]["cause"]
        assert list(league.glob("*.sig")) == []

    def test_who_is_no_party_signs_nothing(self, league) -> None:
        home(league / "homes" / "stranger", "stranger")
        called = sign(league, "stranger")
        refused(called, "HANSA-702", status=ExitStatus.REFUSED)
        assert called.envelope["error"]["cause"] == "the agreement names nobody called 'stranger'"
        assert "home" in called.envelope["error"]["remedy"]

    @pytest.mark.parametrize("text", [agreement_toml(frozen()), agreement_toml(terms())])
    def test_an_agreement_without_keys_or_id_is_not_signed(self, league, text) -> None:
        (league / "league.frozen.toml").write_text(text, encoding="utf-8")
        refused(sign(league, "alpha"), "HANSA-101")

    @pytest.mark.parametrize(
        ("break_it", "code"),
        [
            (lambda folder: (folder / "identity.key").chmod(0o640), "HANSA-705"),
            (lambda folder: (folder / "identity.key").unlink(), "HANSA-705"),
            (lambda folder: (folder / "identity.key").write_text("-----BEGIN NOTHING-----"), "HANSA-705"),
            (lambda folder: (folder / "node.toml").unlink(), "HANSA-708"),
            (lambda folder: (folder / "node.toml").write_text('name = "alpha"\nkey = 1'), "HANSA-708"),
        ],
    )
    def test_a_home_that_is_not_in_order_signs_nothing(self, league, break_it, code) -> None:
        break_it(league / "homes" / "alpha")
        refused(sign(league, "alpha"), code)
        assert list(league.glob("*.sig")) == []

    def test_nothing_secret_is_shown_or_signed_away(self, league) -> None:
        shown = [sign(league, name) for name in PARTIES]
        text = "".join(called.stdout + called.stderr for called in shown).encode()
        text += b"".join(path.read_bytes() for path in league.glob("*.sig"))
        secrets = secrets_of(league)
        assert len(secrets) >= 7 * 5
        assert [place for place, secret in secrets.items() if secret in text] == []


class TestCheck:
    def test_it_says_who_has_signed_and_who_is_missing(self, league) -> None:
        sign(league, "beta")
        sign(league, COORDINATOR)
        called = check(league)
        assert (called.status, called.envelope["status"]) == (ExitStatus.REFUSED, "refused")
        assert called.data["signed"] == ["beta", COORDINATOR]
        assert called.data["missing_signatures"] == ["alpha", "gamma", "delta", "epsilon"]
        text = hansa("agreement", "check", league / "league.frozen.toml", "--signatures", league).stdout
        assert "missing signatures  alpha, gamma, delta, epsilon" in text

    def test_status_0_once_all_members_have_signed(self, league) -> None:
        for name in MEMBERS:
            sign(league, name)
        called = check(league)
        assert (called.status, called.data["signed"]) == (ExitStatus.DONE, list(MEMBERS))
        assert called.data["missing_signatures"] == []
        shown = fingerprint(signer(officer_of("alpha")).public_key)
        assert f"alpha {shown}" in called.data["officers"]
        assert called.data["agreement_id"] == pinned().agreement_id

    def test_one_false_signature_among_all_is_status_4(self, league) -> None:
        for name in MEMBERS:
            sign(league, name)
        path = league / "league.frozen.beta.sig"
        path.write_text(path.read_text().replace(" beta ", " alpha "))
        refused(check(league), "HANSA-710", path.name, "'alpha'", status=ExitStatus.VERIFICATION_FAILED)

    def test_signatures_of_the_agreement_before_it_was_changed_are_told(self, league) -> None:
        for name in MEMBERS:
            sign(league, name)
        changed = pinned(privacy={"epsilon": 9.0})
        (league / "league.frozen.toml").write_text(agreement_toml(changed), encoding="utf-8")
        called = check(league)
        refused(called, "HANSA-710", "another agreement", status=ExitStatus.VERIFICATION_FAILED)
        assert len(called.envelope["error"]["problems"]) == 5

    def test_without_keys_there_is_nothing_to_verify(self, league) -> None:
        (league / "league.frozen.toml").write_text(agreement_toml(frozen()), encoding="utf-8")
        refused(check(league), "HANSA-101", "pins no keys")

    def test_a_folder_that_is_not_there_is_told(self, league) -> None:
        called = agreement("check", league / "league.frozen.toml", "--signatures", league / "absent")
        refused(called, "HANSA-104", "no folder")


def test_a_ledger_that_was_lost_is_not_begun_anew_by_a_signature(league) -> None:
    """The home would then look as if nothing had ever been granted."""
    sign(league, "alpha")
    ledger = league / "homes" / "alpha" / "state" / "ledger.sqlite"
    ledger.unlink()
    refused(sign(league, "alpha"), "HANSA-752", "--signed FILE", status=ExitStatus.REFUSED)
    assert not ledger.exists()


class TestKeys:
    VKEY = NoteSigner.generate("hansa.example/federation").key.text

    def keys(self, league: Path, *arguments: str | Path, vkey: str = VKEY) -> Called:
        return agreement(
            "keys", league / "league.frozen.toml", "--signatures", league, "--federation-log", vkey,
            "--out", league / "keys.json", *arguments,
        )  # fmt: skip

    def test_everybody_makes_the_same_file_from_the_same_signatures(self, league) -> None:
        for name in MEMBERS:
            sign(league, name)
        made = self.keys(league).data
        keys = TrustedKeys.read(league / "keys.json")
        assert keys.fingerprint == made["fingerprint"]
        assert (keys.agreement_id, keys.quorum) == (pinned().agreement_id, 4)
        assert keys.roster == roster()
        assert set(made["officers"]) == set(MEMBERS)
        first = (league / "keys.json").read_bytes()
        assert self.keys(league, "--force").data == made
        assert (league / "keys.json").read_bytes() == first

    @pytest.mark.parametrize(
        "vkey", ["", "nonsense", VKEY[:-1], VKEY.split("+")[0]], ids=["empty", "no key", "cut", "name alone"]
    )
    def test_what_is_no_key_of_a_log_is_told_with_its_option(self, league, vkey) -> None:
        refused(
            self.keys(league, vkey=vkey),
            "HANSA-742",
            "--federation-log",
            "hansa node init coordinator",
            status=ExitStatus.BAD_INPUT,
        )
        assert not (league / "keys.json").exists()

    def test_a_person_reads_the_fingerprints(self, league) -> None:
        for name in MEMBERS:
            sign(league, name)
        text = hansa(
            "agreement", "keys", league / "league.frozen.toml", "--signatures", league,
            "--federation-log", self.VKEY, "--out", league / "keys.json",
        ).stdout  # fmt: skip
        assert TrustedKeys.read(league / "keys.json").fingerprint in text
        assert fingerprint(signer(officer_of("epsilon")).public_key) in text

    def test_nothing_is_written_while_a_member_is_missing(self, league) -> None:
        for name in MEMBERS[:-1]:
            sign(league, name)
        refused(self.keys(league), "HANSA-758", "epsilon", status=ExitStatus.REFUSED)
        assert not (league / "keys.json").exists()

    def test_what_is_there_is_kept_and_no_key_is_told(self, league) -> None:
        for name in MEMBERS:
            sign(league, name)
        (league / "keys.json").write_text("mine")
        refused(self.keys(league), "HANSA-102")
        assert (league / "keys.json").read_text() == "mine"
        refused(self.keys(league, "--force", vkey="nonsense"), "HANSA-742")
        refused(self.keys(league, "--force", vkey=note_signer("alpha").key.text), "HANSA-759", "two parties")
        assert (league / "keys.json").read_text() == "mine"

    def test_a_false_signature_makes_no_keys(self, league) -> None:
        for name in MEMBERS:
            sign(league, name)
        path = league / "league.frozen.beta.sig"
        path.write_text(path.read_text().replace(" beta ", " alpha "))
        refused(self.keys(league), "HANSA-710", status=ExitStatus.VERIFICATION_FAILED)
        assert not (league / "keys.json").exists()
