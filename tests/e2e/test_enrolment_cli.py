"""The whole enrolment: an authority, five members, the coordinator and an auditor, up to a signed and amended agreement.

Each party has a folder of its own; what passes between them are the files that people would send.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hansa.agreement import read_agreement
from hansa.agreement.amendments import roster_in_force, rosters_ever
from hansa.agreement.roster import roster_of
from hansa.agreement.writing import agreement_toml
from hansa.errors import ExitStatus
from hansa.identity import COORDINATOR
from hansa.identity.cards import read_card
from hansa.ledger import TrustedKeys
from hansa.ledger.officer import read_officer
from hansa_client.node_file import read_home
from support.cli import Called, finished, hansa, hansa_process
from support.identities import AUDITOR, MEMBERS, PARTIES, mode, secrets_of, terms

pytest.importorskip("torch")


class Desk:
    """One working folder, and everything that was ever shown on its terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shown: list[str] = []
        self.frozen = folder / "league.frozen.toml"

    def run(self, *arguments: str | Path, status: int = ExitStatus.DONE) -> Called:
        """A command line in this process, which must end as expected."""
        called = hansa(*arguments)
        self.shown += [called.stdout, called.stderr, *map(str, arguments)]
        assert called.status == status, (arguments, called)
        return called

    def data(self, *arguments: str | Path) -> dict:
        """The result of a command line that succeeds."""
        return self.run(*arguments, "--format", "json").data

    def home(self, name: str) -> Path:
        return self.folder / "homes" / name

    def officer(self, name: str) -> Path:
        return self.folder / "officers" / name


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Desk:
    """An enrolled league with a signed agreement."""
    desk = Desk(tmp_path_factory.mktemp("league"))
    roles = {COORDINATOR: ["--role", "coordinator"], AUDITOR: ["--role", "auditor"]}
    ca, keys = desk.folder / "ca", desk.folder / "keys"
    keys.mkdir()
    desk.run("ca", "init", ca, "--name", "North Sea hospitals")
    for name in PARTIES:
        more = roles.get(name)
        if more is None:
            more = ["--officer", desk.data("node", "officer", name, "--out", desk.officer(name))["card"]]
        made = desk.data("node", "init", name, "--home", desk.home(name), *more)
        crt = desk.folder / f"{name}.crt"
        issued = desk.data("ca", "issue", ca, "--request", made["request"], "--member", name, "--out", crt)
        assert issued["fingerprint"] == made["fingerprint"]  # what the two read over the phone
        shutil.copy(made["card"], keys)
        desk.run(
            "node",
            "certificate",
            crt,
            "--home",
            desk.home(name),
            "--ca",
            ca / "ca.crt",
            "--crl",
            ca / "ca.crl",
        )
    (desk.folder / "league.toml").write_text(agreement_toml(terms()), encoding="utf-8")
    desk.run("agreement", "check", desk.folder / "league.toml")
    desk.run("agreement", "freeze", desk.folder / "league.toml", "--keys", keys, "--auditor", AUDITOR)
    return desk


def test_every_party_gets_to_the_same_id_for_itself(desk):
    agreement_id = read_agreement(desk.frozen).agreement_id
    process = hansa_process(
        "agreement", "freeze", desk.folder / "league.toml", "--keys", desk.folder / "keys",
        "--auditor", AUDITOR, "--out", desk.folder / "mine.toml", "--format", "json",
    )  # fmt: skip
    assert finished(process).data["agreement_id"] == agreement_id
    assert (desk.folder / "mine.toml").read_bytes() == desk.frozen.read_bytes()


def test_the_agreement_pins_the_keys_that_the_cards_show(desk):
    roster = roster_of(read_agreement(desk.frozen))
    shown = desk.data("agreement", "show", desk.frozen)["roster"]
    for name in PARTIES:
        card = read_card(desk.home(name) / f"{name}.pub")
        assert roster.key_of(name) == card.public_key
        assert card.fingerprint in str(shown)
    assert list(roster.members) == list(MEMBERS)


def test_members_sign_one_after_the_other_until_nobody_is_missing(desk):
    folder = desk.folder / "signatures"
    folder.mkdir()
    for count, name in enumerate(MEMBERS):
        checked = desk.run(
            "agreement", "check", desk.frozen, "--signatures", folder, status=ExitStatus.REFUSED
        )
        assert f"missing signatures  {', '.join(MEMBERS[count:])}" in checked.stdout
        out = folder / f"league.frozen.{name}.sig"
        desk.run("agreement", "sign", desk.frozen, "--home", desk.home(name), "--out", out)
    process = hansa_process("agreement", "check", desk.frozen, "--signatures", folder, "--format", "json")
    called = finished(process)
    assert (called.status, called.data["signed"]) == (ExitStatus.DONE, list(MEMBERS))


def test_whoever_has_agreement_and_signatures_makes_the_same_keys(desk):
    vkey = read_home(desk.home(COORDINATOR)).log_signer().key.text
    asked = [
        "agreement",
        "keys",
        desk.frozen,
        "--signatures",
        desk.folder / "signatures",
        "--federation-log",
        vkey,
    ]
    made = [desk.data(*asked, "--out", desk.folder / f"keys-{number}.json") for number in range(2)]
    assert made[0]["fingerprint"] == made[1]["fingerprint"]
    keys = TrustedKeys.read(desk.folder / "keys-0.json")
    for name in MEMBERS:
        home = read_home(desk.home(name))
        assert keys.logs[name] == home.log_signer().key.text
        assert keys.witnesses[name] == home.witness_signer().key.text
        # what the officer reads over the phone is what the member has signed
        assert (
            made[0]["officers"][name]
            == read_officer(desk.officer(name) / f"{name}.officer.pub", name).fingerprint
        )


def test_an_officer_grants_and_the_engineer_looks_before_it_trains(desk):
    home, key = desk.home("alpha"), desk.officer("alpha") / "alpha.officer.key"
    look = ["node", "budget", "--home", home, "--forecast", desk.frozen]
    refused = desk.run(*look, status=ExitStatus.REFUSED)
    assert "hansa node grant" in refused.stderr or "nothing was granted" in refused.stderr
    numbers = ["--epsilon", "5", "--delta", "1e-3", "--unit", "record", "--max-records", "1"]
    grant = desk.folder / "alpha.grant"
    desk.run("node", "grant", "--member", "alpha", *numbers, "--officer-key", key, "--out", grant)
    granted = desk.data("node", "grant", "--home", home, "--signed", grant)
    seen = desk.data(*look)
    assert seen["chosen"] == granted["dataset"]
    assert seen["forecast"]["affordable_rounds"] == seen["forecast"]["rounds"] == 4
    assert seen["signatures_verified"] is True


def test_a_lost_key_is_revoked_and_replaced(desk):
    agreement = read_agreement(desk.frozen)
    ca, lost = desk.folder / "ca", "epsilon"

    # first the certificate, which is the authority's to revoke
    desk.run("ca", "revoke", ca, "--certificate", desk.folder / f"{lost}.crt")
    refused = desk.run(
        "node", "certificate", desk.folder / f"{lost}.crt", "--home", desk.home(lost),
        "--ca", ca / "ca.crt", "--crl", ca / "ca.crl", status=ExitStatus.BAD_INPUT,
    )  # fmt: skip
    assert "is revoked" in refused.stderr
    assert (
        roster_in_force(agreement, [desk.folder]).roster.active == MEMBERS
    )  # the pin is not the authority's

    # then the pinned key, by four of the others
    amend = ["agreement", "amend", desk.frozen]
    first = desk.folder / "league.frozen.amendment-1.sig"
    desk.run(*amend, "--revoke", lost, "--reason", "laptop stolen", "--home", desk.home("alpha"))
    for name in ("beta", "gamma"):
        desk.run(*amend, "--approve", first, "--home", desk.home(name))
    assert roster_in_force(agreement, [desk.folder]).roster.active == MEMBERS
    desk.run(*amend, "--approve", first, "--home", desk.home("delta"))
    assert roster_in_force(agreement, [desk.folder]).roster.active == MEMBERS[:4]

    # and a new key, that the others compare and approve
    made = desk.data("node", "init", lost, "--home", desk.home("epsilon-2"))
    second = desk.folder / "league.frozen.amendment-2.sig"
    card = f"{lost}={made['card']}"
    desk.run(*amend, "--replace-key", card, "--reason", "new laptop", "--home", desk.home("alpha"))
    pending = desk.data("agreement", "show", desk.frozen, "--amendments", desk.folder)["roster"]
    assert [one["state"] for one in pending["amendments"]] == ["in force", "pending"]
    for name in ("beta", "gamma", "delta"):
        shown = desk.run(*amend, "--approve", second, "--home", desk.home(name))
        assert made["fingerprint"] in shown.stdout
    roster = roster_in_force(agreement, [desk.folder]).roster
    assert roster.active == MEMBERS
    assert roster.key_of(lost) == made["public_key"]
    assert roster.x == roster_of(agreement).x
    ever = rosters_ever(agreement, [desk.folder])
    assert [one.active for one in ever] == [MEMBERS, MEMBERS[:4], MEMBERS]
    assert (ever[0], ever[-1]) == (roster_of(agreement), roster)
    assert read_agreement(desk.frozen).agreement_id == agreement.agreement_id

    # the new key's certificate is checked against the roster in force
    new = desk.folder / "epsilon-2.crt"
    desk.run("ca", "issue", ca, "--request", made["request"], "--member", lost, "--out", new)
    install = [
        "node", "certificate", new, "--home", desk.home("epsilon-2"), "--ca", ca / "ca.crt", "--crl", ca / "ca.crl",
        "--agreement", desk.frozen,
    ]  # fmt: skip
    desk.run(*install, status=ExitStatus.BAD_INPUT)
    desk.run(*install, "--amendments", desk.folder)


def test_nothing_secret_was_ever_shown_and_every_file_has_its_mode(desk):
    secrets = secrets_of(desk.folder)
    assert len(secrets) >= 50
    text = "".join(desk.shown).encode()
    assert len(text) > 10_000
    assert [place for place, secret in secrets.items() if secret in text] == []
    public = {
        path: path.read_bytes() for path in desk.folder.rglob("*") if path.is_file() and path.suffix != ".key"
    }
    assert len(public) >= 30
    assert [
        (path, place) for path, data in public.items() for place, secret in secrets.items() if secret in data
    ] == []
    assert {mode(path) for path in desk.folder.rglob("*.key")} == {0o600}
    assert {mode(path) for path in desk.folder.rglob("state")} == {0o700}
    assert not list(desk.folder.rglob("*.new"))


def test_arguments_never_carry_a_key(desk):
    # what stands in the list of processes is public: only paths and names were ever passed
    shown = " ".join(desk.shown)
    assert "PRIVATE KEY" not in shown
    assert os.fspath(desk.folder) in shown
