"""`hansa node init|certificate` through the command line."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hansa.agreement.writing import agreement_toml
from hansa.cli import node_identity
from hansa.errors import ExitStatus
from hansa.identity import COORDINATOR, Authority, Signer, request_certificate
from hansa.identity.cards import Card, read_card
from hansa.identity.certificates import check_request
from hansa.identity.errors import NodeFileError
from hansa.identity.pem import pem, read_certificate, read_request
from hansa.secagg.seal import Seal
from hansa_client.node_file import read_home
from support.cli import Called, hansa
from support.identities import home, mode, pinned, secrets_of, signer

NOW = datetime.now(UTC)


def node(*arguments: str | Path) -> Called:
    return hansa("node", *arguments, "--format", "json")


def refused(called: Called, code: str, *words: str, status: ExitStatus = ExitStatus.BAD_INPUT) -> None:
    assert called.status == status, called
    error = called.envelope["error"]
    assert error["code"] == code
    for word in words:
        assert word in json.dumps(error)


class TestInit:
    def test_a_member_gets_everything_it_needs(self, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "north"
        made = node("init", "north", "--home", folder).data
        assert {path.name for path in folder.iterdir()} == {
            "identity.key", "log.key", "witness.key", "north.csr", "north.pub", "sealing.key", "state", "node.toml",
            "link.key", "north.link",
        }  # fmt: skip
        assert {path.name: mode(path) for path in [*folder.glob("*.key"), folder / "state", folder]} == {
            "identity.key": 0o600, "log.key": 0o600, "witness.key": 0o600, "sealing.key": 0o600,
            "link.key": 0o600, "state": 0o700, "north": 0o700,
        }  # fmt: skip
        assert list((folder / "state").iterdir()) == []
        card = read_card(folder / "north.pub")
        assert (folder / "north.pub").read_text() == f"north {made['public_key']}\n"
        assert (card.name, card.fingerprint) == ("north", made["fingerprint"])
        assert check_request(read_request(folder / "north.csr"), "north") == card.public_key
        written = read_home(folder)
        assert written.signer().public_key == card.public_key
        assert written.state == folder / "state"
        Seal.load(written.sealing_key)
        assert not written.sealing_key.is_relative_to(written.state)
        log, witness = written.log_signer().key, written.witness_signer().key
        assert (made["log_key"], made["witness_key"]) == (log.text, witness.text)
        assert (log.name, witness.name) == ("hansa.member/north", "hansa.member/witness/north")
        assert made["officer"] is None
        with pytest.raises(NodeFileError, match="nobody could grant"):
            written.officer()

    def test_the_card_of_the_officer_is_copied_and_its_key_is_not(self, tmp_path: Path) -> None:
        made = node("officer", "north", "--out", tmp_path / "officer").data
        assert mode(tmp_path / "officer") == 0o700
        assert mode(tmp_path / "officer" / "north.officer.key") == 0o600
        there = node("init", "north", "--home", tmp_path / "north", "--officer", made["card"]).data
        assert there["officer"] == made["fingerprint"]
        assert read_home(tmp_path / "north").officer().fingerprint == made["fingerprint"]
        assert not list((tmp_path / "north").rglob("*officer.key"))
        refused(node("officer", "north", "--out", tmp_path / "officer"), "HANSA-102", "north.officer.key")
        refused(node("officer", "../north", "--out", tmp_path / "officer"), "HANSA-104")

    def test_an_officer_of_somebody_else_is_refused_and_nothing_is_made(self, tmp_path: Path) -> None:
        made = node("officer", "south", "--out", tmp_path / "officer").data
        home = tmp_path / "north"
        refused(
            node("init", "north", "--home", home, "--officer", made["card"]),
            "HANSA-706",
            "'south#privacy-officer'",
        )
        shown = hansa("node", "init", "north", "--home", home, "--officer", made["card"]).stderr
        assert f"{made['card']} is not the card of north's privacy officer" in shown
        assert "agreement" not in shown
        assert "Name the card that" in shown
        (tmp_path / "card.pub").write_text(Card("north", signer("north").public_key).line)
        refused(node("init", "north", "--home", home, "--officer", tmp_path / "card.pub"), "HANSA-706")
        refused(node("init", "north", "--home", home, "--officer", tmp_path / "absent"), "HANSA-104")
        refused(
            node("init", "eye", "--role", "auditor", "--home", home, "--officer", made["card"]),
            "HANSA-104",
            "a member's",
        )
        assert not home.exists()

    @pytest.mark.parametrize(("name", "role"), [(COORDINATOR, COORDINATOR), ("inspector", "auditor")])
    def test_coordinator_and_auditors_get_keys_and_no_state(self, tmp_path: Path, name, role) -> None:
        folder = tmp_path / name
        made = node("init", name, "--role", role, "--home", folder).data
        assert made["role"] == role
        logs = {"log.key"} if role == COORDINATOR else set()
        links = set() if role == COORDINATOR else {"link.key", f"{name}.link"}
        assert {path.name for path in folder.iterdir()} == {
            "identity.key", f"{name}.csr", f"{name}.pub", "node.toml", *logs, *links,
        }  # fmt: skip
        if logs:
            assert read_home(folder).log_signer().key.text == made["log_key"]
            text = hansa("node", "init", name, "--role", role, "--home", tmp_path / "text").stdout
            assert f"log key      {read_home(tmp_path / 'text').log_signer().key.text}\n" in text
        assert mode(folder / "identity.key") == 0o600
        assert read_home(folder).settings.role == role

    @pytest.mark.parametrize(
        "arguments",
        [
            [COORDINATOR],
            [COORDINATOR, "--role", "auditor"],
            ["north", "--role", "coordinator"],
            ["no name"],
            ["../north"],
            [".north"],
            [""],
            ["n" * 65],
            ["north\n"],
        ],
    )
    def test_names_that_do_not_go_are_refused_and_nothing_is_made(self, tmp_path: Path, arguments) -> None:
        refused(node("init", *arguments, "--home", tmp_path / "home"), "HANSA-104")
        assert list(tmp_path.iterdir()) == []

    def test_an_empty_folder_is_used_and_closed_to_others(self, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir(mode=0o755)
        assert node("init", "north", "--home", tmp_path / "home").status == ExitStatus.DONE
        assert mode(tmp_path / "home") == 0o700

    @pytest.mark.parametrize("name", ["identity.key", "anything", ".hidden"])
    def test_nothing_is_ever_overwritten(self, tmp_path: Path, name) -> None:
        (tmp_path / name).write_text("mine")
        refused(node("init", "north", "--home", tmp_path), "HANSA-102", "not empty")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}

    def test_a_second_time_is_refused_and_keeps_the_key(self, tmp_path: Path) -> None:
        node("init", "north", "--home", tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        refused(node("init", "north", "--home", tmp_path), "HANSA-102")
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    def test_a_file_in_the_folders_place_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "home").write_text("")
        refused(node("init", "north", "--home", tmp_path / "home"), "HANSA-104", "cannot make the folder")

    def test_private_files_are_private_under_an_open_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            node("init", "north", "--home", tmp_path / "home")
        finally:
            os.umask(before)
        assert mode(tmp_path / "home" / "identity.key") == mode(tmp_path / "home" / "sealing.key") == 0o600
        assert mode(tmp_path / "home" / "state") == mode(tmp_path / "home") == 0o700

    def test_it_says_what_to_do_next_and_shows_the_fingerprint(self, tmp_path: Path) -> None:
        called = hansa("node", "init", "north", "--home", tmp_path / "home")
        assert read_card(tmp_path / "home" / "north.pub").fingerprint in called.stdout
        for word in ("north.pub", "north.csr", "over the phone", "node.toml", "never leaves this machine"):
            assert word in called.stdout

    def test_two_nodes_have_nothing_in_common(self, tmp_path: Path) -> None:
        prints = {node("init", "north", "--home", tmp_path / f"{i}").data["fingerprint"] for i in range(3)}
        assert len(prints) == 3
        assert len({(tmp_path / f"{i}" / "sealing.key").read_bytes() for i in range(3)}) == 3

    @pytest.mark.parametrize("form", ["text", "json"])
    def test_no_private_key_is_shown_or_written_elsewhere(self, tmp_path: Path, form, caplog) -> None:
        folder = tmp_path / "home"
        called = hansa("node", "init", "north", "--home", folder, "--format", form)
        public = b"".join(
            path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".key"
        )
        shown = (called.stdout + called.stderr + caplog.text).encode() + public
        secrets = secrets_of(folder)
        assert len(secrets) >= 7
        assert [place for place, secret in secrets.items() if secret in shown] == []


class TestCertificate:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        made = Authority.create("League", NOW)
        made.save(tmp_path / "ca", NOW)
        return made

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return home(tmp_path / "alpha", "alpha")

    def issue(self, path: Path, authority: Authority, key: Signer, name: str = "alpha", at=NOW) -> Path:
        path.write_bytes(pem(authority.issue(request_certificate(key), name, at)))
        return path

    def install(self, tmp_path: Path, file: Path, *arguments: str | Path) -> Called:
        ca, crl = tmp_path / "ca" / "ca.crt", tmp_path / "ca" / "ca.crl"
        return node("certificate", file, "--home", tmp_path / "alpha", "--ca", ca, "--crl", crl, *arguments)

    def test_the_nodes_own_certificate_is_installed(self, tmp_path, authority, folder) -> None:
        file = self.issue(tmp_path / "a.crt", authority, signer("alpha"))
        data = self.install(tmp_path, file).data
        assert data["certificate"] == str(folder / "alpha.crt")
        assert read_certificate(folder / "alpha.crt") == read_certificate(file)
        assert data["pinned"] is False

    def test_a_newer_one_takes_its_place(self, tmp_path, authority, folder) -> None:
        for number in (1, 2):
            file = self.issue(tmp_path / f"{number}.crt", authority, signer("alpha"))
            assert self.install(tmp_path, file).status == ExitStatus.DONE
            assert (folder / "alpha.crt").read_bytes() == file.read_bytes()

    def test_it_goes_where_node_toml_says(self, tmp_path, authority, folder) -> None:
        with (folder / "node.toml").open("a") as file:
            file.write('certificate = "tls.pem"\n')
        assert self.install(tmp_path, self.issue(tmp_path / "a.crt", authority, signer("alpha"))).data[
            "certificate"
        ] == str(folder / "tls.pem")

    def test_with_an_agreement_the_pinned_key_counts_too(self, tmp_path, authority, folder) -> None:
        (tmp_path / "league.toml").write_text(agreement_toml(pinned()), encoding="utf-8")
        file = self.issue(tmp_path / "a.crt", authority, signer("alpha"))
        assert self.install(tmp_path, file, "--agreement", tmp_path / "league.toml").data["pinned"] is True

    def test_a_key_that_is_not_pinned_gets_no_certificate_installed(self, tmp_path, authority) -> None:
        (tmp_path / "league.toml").write_text(agreement_toml(pinned()), encoding="utf-8")
        folder = home(tmp_path / "alpha", "alpha", signer("alpha", 2))
        file = self.issue(tmp_path / "a.crt", authority, signer("alpha", 2))
        refused(
            self.install(tmp_path, file, "--agreement", tmp_path / "league.toml"),
            "HANSA-704",
            "admits nobody",
        )
        assert not (folder / "alpha.crt").exists()

    @pytest.mark.parametrize(
        ("key", "name", "days", "words"),
        [
            ("beta", "alpha", 0, ["its key is not this node's"]),
            ("alpha", "beta", 0, ["is not for 'alpha'"]),
            ("alpha", "alpha", -900, ["not now"]),
            ("alpha", "alpha", 30, ["not now"]),
            ("beta", "gamma", -900, ["not now", "is not for 'alpha'", "its key is not this node's"]),
        ],
        ids=["another's key", "another's name", "expired", "not yet", "everything"],
    )
    def test_any_other_certificate_is_refused(
        self, tmp_path, authority, folder, key, name, days, words
    ) -> None:
        file = self.issue(tmp_path / "a.crt", authority, signer(key), name, NOW + timedelta(days=days))
        refused(self.install(tmp_path, file), "HANSA-704", *words)
        assert not (folder / "alpha.crt").exists()

    def test_a_revoked_one_is_refused(self, tmp_path, authority, folder) -> None:
        file = self.issue(tmp_path / "a.crt", authority, signer("alpha"))
        revoked = authority.revoke([read_certificate(file).serial_number], NOW)
        revoked.save_revocations(tmp_path / "ca", NOW)
        refused(self.install(tmp_path, file), "HANSA-704", "is revoked")

    def test_a_list_that_has_expired_is_refused(self, tmp_path, authority, folder, monkeypatch) -> None:
        class Later(datetime):
            @classmethod
            def now(cls, tz=None):
                return NOW + timedelta(days=31)

        file = self.issue(tmp_path / "a.crt", authority, signer("alpha"))
        monkeypatch.setattr(node_identity, "datetime", Later)
        refused(self.install(tmp_path, file), "HANSA-704", "out of date")

    def test_another_authoritys_is_refused(self, tmp_path, authority, folder) -> None:
        other = Authority.create("League", NOW)
        refused(
            self.install(tmp_path, self.issue(tmp_path / "a.crt", other, signer("alpha"))),
            "HANSA-704",
            "not issued by the consortium's authority",
        )

    def test_a_home_whose_key_others_can_read_is_refused(self, tmp_path, authority, folder) -> None:
        (folder / "identity.key").chmod(0o644)
        file = self.issue(tmp_path / "a.crt", authority, signer("alpha"))
        refused(self.install(tmp_path, file), "HANSA-705", "chmod 600")

    def test_amendments_go_with_their_agreement(self, tmp_path, authority, folder) -> None:
        file = self.issue(tmp_path / "a.crt", authority, signer("alpha"))
        refused(self.install(tmp_path, file, "--amendments", tmp_path), "HANSA-104", "--agreement")
