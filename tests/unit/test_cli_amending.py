"""`hansa agreement amend` and the roster of `hansa agreement show`, through the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from hansa.agreement.amendments import read_proposal, roster_in_force
from hansa.agreement.writing import agreement_toml
from hansa.cli import amending
from hansa.errors import ExitStatus
from hansa.identity import COORDINATOR, Signer, fingerprint
from hansa.identity import files as files_module
from hansa.identity.cards import Card
from support.cli import Called, hansa
from support.identities import (
    AUDITOR,
    MEMBERS,
    PARTIES,
    amendment_file,
    frozen,
    home,
    mode,
    pinned,
    revocation,
    roster,
    secrets_of,
    signer,
)

AGREEMENT = pinned()


@pytest.fixture
def league(tmp_path: Path) -> Path:
    """A frozen agreement with keys, a home for every party, and a new key for epsilon."""
    (tmp_path / "league.frozen.toml").write_text(agreement_toml(AGREEMENT), encoding="utf-8")
    for name in PARTIES:
        home(tmp_path / "homes" / name, name)
    home(tmp_path / "homes" / "epsilon-2", "epsilon", signer("epsilon", 2))
    (tmp_path / "epsilon.pub").write_text(Card("epsilon", signer("epsilon", 2).public_key).line)
    return tmp_path


def amend(league: Path, who: str, *arguments: str | Path) -> Called:
    return hansa(
        "agreement", "amend", league / "league.frozen.toml", "--home", league / "homes" / who,
        *arguments, "--format", "json",
    )  # fmt: skip


def propose(league: Path, who: str = "alpha", member: str = "epsilon", *arguments: str | Path) -> Called:
    return amend(league, who, "--revoke", member, "--reason", "laptop stolen", *arguments)


def approve(league: Path, who: str, number: int = 1) -> Called:
    return amend(league, who, "--approve", file(league, number))


def file(league: Path, number: int = 1) -> Path:
    return league / f"league.frozen.amendment-{number}.sig"


def show(league: Path, *places: Path) -> dict:
    arguments = [part for place in places for part in ("--amendments", place)]
    return hansa(
        "agreement", "show", league / "league.frozen.toml", *arguments, "--format", "json"
    ).data["roster"]  # fmt: skip


def refused(called: Called, code: str, *words: str, status: ExitStatus = ExitStatus.REFUSED) -> None:
    assert called.status == status, called
    error = called.envelope["error"]
    assert error["code"] == code
    for word in words:
        assert word in json.dumps(error)


class TestProposing:
    def test_a_proposal_is_a_file_with_the_proposers_approval(self, league) -> None:
        data = propose(league).data
        assert data == {
            "file": str(file(league)),
            "signer": "alpha",
            "sequence": 1,
            "change": "revoke",
            "member": "epsilon",
            "reason": "laptop stolen",
            "state": "pending",
            "approved": ["alpha"],
            "needed": 4,
            "old_key": fingerprint(signer("epsilon").public_key),
        }
        made = read_proposal(file(league))
        assert made.amendment == revocation(AGREEMENT, roster())
        assert [one.signer for one in made.approvals] == ["alpha"]

    def test_a_new_key_is_proposed_by_its_card(self, league) -> None:
        argument = f"epsilon={league / 'epsilon.pub'}"
        data = amend(league, "beta", "--replace-key", argument, "--reason", "new laptop").data
        assert data["change"] == "replace-key"
        assert data["new_key"] == fingerprint(signer("epsilon", 2).public_key)
        assert read_proposal(file(league)).amendment.public_key == signer("epsilon", 2).public_key

    def test_a_proposal_that_is_there_is_not_overwritten(self, league) -> None:
        propose(league)
        before = file(league).read_bytes()
        refused(propose(league, "beta", "delta"), "HANSA-102", "approve", status=ExitStatus.BAD_INPUT)
        assert file(league).read_bytes() == before
        out = league / "other.sig"
        assert propose(league, "beta", "delta", "--out", out).data["file"] == str(out)

    @pytest.mark.parametrize(
        ("arguments", "code", "status"),
        [
            (["--revoke", "zeta", "--reason", "x"], "HANSA-707", 3),
            (["--revoke", COORDINATOR, "--reason", "x"], "HANSA-707", 3),
            (["--revoke", AUDITOR, "--reason", "x"], "HANSA-707", 3),
            (["--revoke", "epsilon"], "HANSA-104", 2),
            (["--revoke", "epsilon", "--reason", " "], "HANSA-104", 2),
            (["--revoke", "epsilon", "--reason", "a\nb"], "HANSA-707", 3),
            (["--revoke", "epsilon", "--reason", "x" * 501], "HANSA-707", 3),
            (["--revoke", "epsilon", "--replace-key", "a=b", "--reason", "x"], "HANSA-104", 2),
            (["--reason", "x"], "HANSA-104", 2),
            ([], "HANSA-104", 2),
            (["--replace-key", "epsilon", "--reason", "x"], "HANSA-104", 2),
            (["--replace-key", "epsilon=FOLDER/absent.pub", "--reason", "x"], "HANSA-104", 2),
            (["--replace-key", "delta=FOLDER/epsilon.pub", "--reason", "x"], "HANSA-104", 2),
            (["--replace-key", "epsilon=FOLDER/SAME", "--reason", "x"], "HANSA-707", 3),
            (["--replace-key", "epsilon=FOLDER/STOLEN", "--reason", "x"], "HANSA-706", 2),
            (["--replace-key", "epsilon=FOLDER/NONE", "--reason", "x"], "HANSA-706", 2),
        ],
    )
    def test_what_cannot_be_proposed_is_refused_and_nothing_written(
        self, league, arguments, code, status
    ) -> None:
        (league / "SAME").write_text(Card("epsilon", signer("epsilon").public_key).line)
        (league / "STOLEN").write_text(Card("epsilon", signer("alpha").public_key).line)
        (league / "NONE").write_text("epsilon")
        placed = [word.replace("FOLDER", str(league)) for word in arguments]
        refused(amend(league, "alpha", *placed), code, status=ExitStatus(status))
        assert list(league.glob("*.sig")) == []

    @pytest.mark.parametrize("who", [COORDINATOR, AUDITOR])
    def test_only_members_propose(self, league, who) -> None:
        refused(propose(league, who), "HANSA-707", "only members approve")

    def test_strangers_and_foreign_keys_propose_nothing(self, league) -> None:
        home(league / "homes" / "stranger", "stranger")
        refused(propose(league, "stranger"), "HANSA-702")
        refused(propose(league, "epsilon-2", "delta"), "HANSA-709")

    def test_an_agreement_without_keys_has_nothing_to_amend(self, league) -> None:
        (league / "league.frozen.toml").write_text(agreement_toml(frozen()), encoding="utf-8")
        refused(propose(league), "HANSA-101", "pins no keys", status=ExitStatus.BAD_INPUT)


class TestApproving:
    def test_with_the_fourth_approval_it_is_in_force(self, league) -> None:
        propose(league)
        seen = [approve(league, name).data for name in ("beta", "gamma", "delta")]
        assert [one["state"] for one in seen] == ["pending", "pending", "in force"]
        assert seen[-1]["approved"] == ["alpha", "beta", "gamma", "delta"]
        assert roster_in_force(AGREEMENT, [league]).roster.revoked == {"epsilon"}

    def test_it_shows_what_is_approved(self, league) -> None:
        amend(league, "alpha", "--replace-key", f"epsilon={league / 'epsilon.pub'}", "--reason", "new laptop")
        shown = hansa(
            "agreement", "amend", league / "league.frozen.toml", "--approve", file(league),
            "--home", league / "homes" / "beta",
        ).stdout  # fmt: skip
        assert "replace the key of epsilon (new laptop)" in shown
        assert fingerprint(signer("epsilon").public_key) in shown
        assert fingerprint(signer("epsilon", 2).public_key) in shown
        assert "2 of 4 approvals: alpha, beta" in shown

    def test_approving_twice_changes_nothing(self, league) -> None:
        propose(league)
        approve(league, "beta")
        before = file(league).read_bytes()
        assert approve(league, "beta").data["approved"] == ["alpha", "beta"]
        assert approve(league, "alpha").data["approved"] == ["alpha", "beta"]
        assert file(league).read_bytes() == before

    def test_the_one_concerned_may_say_so_and_does_not_count(self, league) -> None:
        propose(league)
        data = approve(league, "epsilon").data
        assert data["approved"] == ["alpha"]
        for name in ("beta", "gamma"):
            data = approve(league, name).data
        assert (data["state"], data["approved"]) == ("pending", ["alpha", "beta", "gamma"])
        shown = hansa(
            "agreement", "amend", league / "league.frozen.toml", "--approve", file(league),
            "--home", league / "homes" / "epsilon",
        ).stdout  # fmt: skip
        assert "own approval does not count" in shown

    def test_a_revoked_member_neither_lifts_its_revocation_nor_approves_others(self, league) -> None:
        propose(league)
        for name in ("beta", "gamma", "delta"):
            approve(league, name)
        argument = f"epsilon={league / 'epsilon.pub'}"
        lift = ["--replace-key", argument, "--reason", "found it"]
        refused(amend(league, "epsilon", *lift), "HANSA-703", "revoked")
        refused(amend(league, "epsilon-2", *lift), "HANSA-703", "revoked")
        amend(league, "alpha", *lift)
        refused(approve(league, "epsilon", 2), "HANSA-703")

    def test_amendments_follow_each_other(self, league) -> None:
        propose(league)
        for name in ("beta", "gamma", "delta"):
            approve(league, name)
        argument = f"epsilon={league / 'epsilon.pub'}"
        second = amend(league, "alpha", "--replace-key", argument, "--reason", "new laptop").data
        assert (second["sequence"], second["file"]) == (2, str(file(league, 2)))
        for name in ("beta", "gamma", "delta"):
            approve(league, name, 2)
        third = propose(league, "epsilon-2", "delta").data
        assert (third["sequence"], third["approved"]) == (3, ["epsilon"])

    def test_too_few_left_to_approve_is_told_before_anybody_signs(self, league) -> None:
        propose(league)
        for name in ("beta", "gamma", "delta"):
            approve(league, name)
        refused(propose(league, "alpha", "delta"), "HANSA-707", "3 members could approve", "4 are needed")

    @pytest.mark.parametrize("who", [COORDINATOR, AUDITOR])
    def test_only_members_approve(self, league, who) -> None:
        propose(league)
        before = file(league).read_bytes()
        refused(approve(league, who), "HANSA-707", "only members approve")
        assert file(league).read_bytes() == before

    def test_an_amendment_of_another_agreement_is_not_approved(self, league) -> None:
        other = pinned(privacy={"epsilon": 9.0})
        path = amendment_file(league / "other.sig", revocation(other, roster()), ["alpha"])
        before = path.read_bytes()
        refused(amend(league, "beta", "--approve", path), "HANSA-707", "does not follow")
        assert path.read_bytes() == before

    def test_an_old_amendment_is_not_approved_again(self, league) -> None:
        # revoked, renewed, and then the old revocation comes back with a fresh number and without
        propose(league)
        for name in ("beta", "gamma", "delta"):
            approve(league, name)
        old = file(league).read_bytes()
        argument = f"epsilon={league / 'epsilon.pub'}"
        amend(league, "alpha", "--replace-key", argument, "--reason", "new laptop")
        for name in ("beta", "gamma", "delta"):
            approve(league, name, 2)
        (league / "league.frozen.amendment-3.sig").write_bytes(old)
        assert roster_in_force(AGREEMENT, [league]).roster.revoked == frozenset()
        renumbered = dataclasses.replace(revocation(AGREEMENT, roster()), sequence=3)
        amendment_file(league / "league.frozen.amendment-4.sig", renumbered, MEMBERS[:4])
        assert roster_in_force(AGREEMENT, [league]).roster.revoked == frozenset()
        refused(approve(league, "epsilon-2", 4), "HANSA-707", "does not follow")

    def test_forged_lines_are_told_and_nothing_is_added(self, league) -> None:
        amendment = revocation(AGREEMENT, roster())
        path = amendment_file(file(league), amendment, ["alpha"])
        forged = amendment.sign(Signer("beta", signer("somebody").private_key))
        path.write_text(path.read_text() + forged.line + "\n")
        before = path.read_bytes()
        refused(approve(league, "gamma"), "HANSA-707", "not by 'beta'")
        assert path.read_bytes() == before
        path.write_text("no statement\n")
        refused(
            approve(league, "gamma"), "HANSA-104", "is no file of an amendment", status=ExitStatus.BAD_INPUT
        )
        shown = hansa(
            "agreement", "show", league / "league.frozen.toml", "--amendments", path, "--format", "json"
        )
        refused(shown, "HANSA-104", "is no file of an amendment", status=ExitStatus.BAD_INPUT)

    def test_lines_that_approve_something_else_are_told(self, league) -> None:
        path = amendment_file(file(league), revocation(AGREEMENT, roster()), ["alpha"])
        other = revocation(AGREEMENT, roster(), "delta").sign(signer("beta"))
        path.write_text(path.read_text() + other.line + "\n")
        refused(approve(league, "gamma"), "HANSA-707", "'beta' approved something else")

    def test_a_crash_leaves_the_file_as_it_was(self, league, monkeypatch) -> None:
        propose(league)
        before = file(league).read_bytes()

        def crash(handle: int, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(files_module, "_write", crash)
            refused(approve(league, "beta"), "HANSA-104", "No space", status=ExitStatus.BAD_INPUT)
        assert file(league).read_bytes() == before
        assert approve(league, "beta").status == ExitStatus.DONE

    def test_reading_and_replacing_happen_under_one_lock(self, league, monkeypatch) -> None:
        propose(league)
        held: list[bool] = []
        inner = amending.read_proposal

        def watched(path: Path):
            import fcntl
            import os

            handle = os.open(path.parent, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(False)
            except BlockingIOError:
                held.append(True)
            finally:
                os.close(handle)
            return inner(path)

        monkeypatch.setattr(amending, "read_proposal", watched)
        approve(league, "beta")
        assert held == [True]

    def test_earlier_amendments_may_be_elsewhere(self, league) -> None:
        (league / "past").mkdir()
        amendment_file(league / "past" / "one.sig", revocation(AGREEMENT, roster()), MEMBERS[:4])
        data = amend(
            league, "alpha", "--replace-key", f"epsilon={league / 'epsilon.pub'}", "--reason", "new laptop",
            "--amendments", league / "past",
        ).data  # fmt: skip
        assert data["sequence"] == 2
        approving = ["--approve", file(league, 2)]
        refused(amend(league, "beta", *approving), "HANSA-707", "does not follow")
        with_past = amend(league, "beta", *approving, "--amendments", league / "past").data
        assert with_past["approved"] == ["alpha", "beta"]

    @pytest.mark.parametrize("extra", [["--reason", "x"], ["--out", "x"], ["--revoke", "beta"]])
    def test_what_belongs_to_a_proposal_does_not_go_with_an_approval(self, league, extra) -> None:
        propose(league)
        called = amend(league, "beta", "--approve", file(league), *extra)
        refused(called, "HANSA-104", status=ExitStatus.BAD_INPUT)

    def test_nothing_secret_is_shown_and_modes_stay(self, league) -> None:
        shown = [
            propose(league),
            approve(league, "beta"),
            approve(league, "stranger"),
            approve(league, "epsilon-2"),
        ]
        text = "".join(called.stdout + called.stderr for called in shown).encode() + file(league).read_bytes()
        secrets = secrets_of(league)
        assert len(secrets) >= 8 * 5
        assert [place for place, secret in secrets.items() if secret in text] == []
        assert {mode(path) for path in league.rglob("*.key")} == {0o600}


class TestShow:
    def test_the_fingerprints_of_all_parties(self, league) -> None:
        shown = show(league)
        assert shown["members"] == {
            name: {"fingerprint": fingerprint(signer(name).public_key), "revoked": False} for name in MEMBERS
        }
        assert shown["coordinator"] == fingerprint(signer(COORDINATOR).public_key)
        assert shown["auditors"] == {AUDITOR: fingerprint(signer(AUDITOR).public_key)}
        assert (shown["amendments"], shown["sha256"]) == ([], roster().sha256)

    def test_an_agreement_without_keys_shows_no_roster(self, league) -> None:
        path = league / "league.frozen.toml"
        path.write_text(agreement_toml(frozen()), encoding="utf-8")
        assert "roster" not in hansa("agreement", "show", path, "--format", "json").data
        called = hansa("agreement", "show", path, "--amendments", league, "--format", "json")
        refused(called, "HANSA-101", "pins no keys", status=ExitStatus.BAD_INPUT)

    def test_pending_in_force_and_outdated_amendments(self, league) -> None:
        propose(league)
        propose(league, "gamma", "delta", "--out", league / "other.sig")
        assert [one["state"] for one in show(league, league)["amendments"]] == ["pending", "pending"]
        for name in ("beta", "gamma", "delta"):
            approve(league, name)
        shown = show(league, league)
        assert [(one["member"], one["state"]) for one in shown["amendments"]] == [
            ("epsilon", "in force"),
            ("delta", "outdated"),
        ]
        assert [name for name, key in shown["members"].items() if key["revoked"]] == ["epsilon"]
        assert shown["sha256"] == roster().revoke("epsilon").sha256
        assert show(league, file(league))["sha256"] == shown["sha256"]

    def test_the_text_says_the_same(self, league) -> None:
        propose(league)
        text = hansa("agreement", "show", league / "league.frozen.toml", "--amendments", league).stdout
        assert "Keys in force, after 0 amendments:" in text
        assert "1. revoke the key of epsilon (laptop stolen) — pending, 1 of 4 approvals: alpha" in text
        for name in ("beta", "gamma", "delta"):
            approve(league, name)
        text = hansa("agreement", "show", league / "league.frozen.toml", "--amendments", league).stdout
        assert "Keys in force, after 1 amendment:" in text
        assert f"{fingerprint(signer('epsilon').public_key)} (revoked)" in text
        assert "in force, 4 of 4 approvals" in text
