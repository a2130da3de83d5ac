"""`hansa audit verify` as a person uses it: what it reads, whose keys it takes, what it says, how it ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hansa.ledger import Log, MemoryLogStore, NoteSigner, SqliteLogStore
from support.audits import (
    FEDERATION_SIGNER,
    KEYS,
    LOG_SIGNERS,
    MEMBERS,
    Story,
    edited,
    rewrite_bundle,
    story,
    write_log,
    write_store,
)
from support.cli import Called, hansa
from support.published import report_of, write_report_json

TRUTH = story()


@pytest.fixture
def ledgers(tmp_path: Path) -> Path:
    return TRUTH.write(tmp_path)


def told(called: Called, status: int, code: str) -> str:
    assert called.status == status, called.stdout + called.stderr
    assert called.stdout == ""
    assert code in called.stderr
    return called.stderr


class TestKeys:
    def test_those_beside_the_logs_are_taken_with_a_warning(self, ledgers: Path) -> None:
        called = hansa("audit", "verify", ledgers)
        assert called.status == 0
        assert "Whoever made up the logs made up the keys" in called.stderr
        assert KEYS.fingerprint in called.stderr

    def test_those_that_are_named_are_taken_instead_and_nothing_is_warned_of(self, ledgers: Path) -> None:
        shutil.copy(ledgers / "keys.json", ledgers.parent / "mine.json")
        (ledgers / "keys.json").write_text("not even JSON")
        called = hansa("audit", "verify", ledgers, "--keys", ledgers.parent / "mine.json")
        assert (called.status, called.stderr) == (0, "")
        assert KEYS.fingerprint in called.stdout

    def test_without_any_there_is_no_audit(self, ledgers: Path) -> None:
        assert "--keys" in told(hansa("audit", "verify", ledgers / "federation"), 2, "HANSA-104")
        assert "--keys" in told(
            hansa("audit", "verify", ledgers / "members", ledgers / "federation"), 2, "HANSA-104"
        )

    def test_keys_that_are_none(self, ledgers: Path) -> None:
        bad = ledgers.parent / "bad.json"
        bad.write_text(json.dumps({**KEYS.model_dump(), "quorum": 9}))
        text = told(hansa("audit", "verify", ledgers, "--keys", bad), 2, "HANSA-759")
        assert "quorum: 9 of 5 witnesses" in text
        told(hansa("audit", "verify", ledgers, "--keys", ledgers / "none.json"), 2, "HANSA-759")


class TestWhatItReads:
    def test_single_logs_records_and_reports(self, ledgers: Path) -> None:
        report = write_report_json(report_of(TRUTH), ledgers.parent)
        paths = [ledgers / "federation", ledgers / "rounds.jsonl", ledgers / "members" / MEMBERS[0]]
        called = hansa(
            "audit", "verify", *paths, "--keys", ledgers / "keys.json", "--report", report, "--format", "json"
        )
        assert called.status == 0
        assert [seen["log"] for seen in called.data["logs"]] == ["federation", f"members/{MEMBERS[0]}"]
        assert called.data["passed"]["records of rounds that their parties signed"] == 4

    def test_a_copy_on_a_medium_that_cannot_be_written(self, ledgers: Path) -> None:
        for folder in (*ledgers.rglob("*"), ledgers):
            if folder.is_dir():
                folder.chmod(0o555)
        try:
            assert hansa("audit", "verify", ledgers).status == 0
        finally:
            for folder in (ledgers, *ledgers.rglob("*")):
                if folder.is_dir():
                    folder.chmod(0o755)

    def test_nothing_is_written_beside_the_copies(self, ledgers: Path) -> None:
        before = sorted(path for path in ledgers.rglob("*"))
        assert hansa("audit", "verify", ledgers).status == 0
        assert sorted(path for path in ledgers.rglob("*")) == before

    @pytest.mark.parametrize("name", ["nowhere", "nowhere.sqlite", "nowhere.jsonl"])
    def test_a_path_that_is_not_there(self, ledgers: Path, name: str) -> None:
        text = told(hansa("audit", "verify", ledgers / name, "--keys", ledgers / "keys.json"), 2, "HANSA-761")
        assert name in text

    def test_a_folder_without_logs(self, ledgers: Path) -> None:
        (ledgers / "empty").mkdir()
        told(hansa("audit", "verify", ledgers / "empty", "--keys", ledgers / "keys.json"), 2, "HANSA-761")

    def test_records_alone_are_no_log(self, ledgers: Path) -> None:
        told(
            hansa("audit", "verify", ledgers / "rounds.jsonl", "--keys", ledgers / "keys.json"),
            2,
            "HANSA-761",
        )

    def test_a_file_that_is_nothing(self, ledgers: Path) -> None:
        (ledgers / "picture").write_bytes(os.urandom(500))
        told(hansa("audit", "verify", ledgers / "picture", "--keys", ledgers / "keys.json"), 2, "HANSA-761")

    def test_a_database_of_another_program(self, ledgers: Path) -> None:
        sqlite3.connect(ledgers.parent / "other.sqlite").execute("CREATE TABLE t (x)").connection.close()
        called = hansa("audit", "verify", ledgers.parent / "other.sqlite", "--keys", ledgers / "keys.json")
        assert "another program" in told(called, 2, "HANSA-761")

    def test_two_files_of_records(self, ledgers: Path) -> None:
        shutil.copy(ledgers / "rounds.jsonl", ledgers.parent / "more.jsonl")
        called = hansa(
            "audit", "verify", ledgers, ledgers.parent / "more.jsonl", "--keys", ledgers / "keys.json"
        )
        text = told(called, 2, "HANSA-761")
        assert "which ones" in text
        assert "one federation at a time" in text

    @pytest.mark.parametrize("log", ["federation", f"members/{MEMBERS[1]}"])
    def test_tiles_without_their_checkpoint_are_not_left_out_in_silence(
        self, ledgers: Path, log: str
    ) -> None:
        (ledgers / log / "checkpoint").unlink()
        for place in (ledgers, ledgers / log):
            text = told(hansa("audit", "verify", place, "--keys", ledgers / "keys.json"), 2, "HANSA-761")
            assert f"{ledgers / log} holds tiles and no checkpoint" in text

    def test_records_without_a_log_of_the_federation_are_named(self, ledgers: Path) -> None:
        shutil.rmtree(ledgers / "federation")
        called = hansa("audit", "verify", ledgers, "--format", "json")
        assert called.status == 0
        assert "the records of rounds in rounds.jsonl" in {one["what"] for one in called.data["not_checked"]}

    def test_checkpoints_in_a_folder_are_held_against_the_log(self, ledgers: Path) -> None:
        """As `hansa audit follow` leaves them where it has caught a log with two histories."""
        mirror = ledgers.parent / "mirror"
        mirror.mkdir()
        write_store(TRUTH.federation, FEDERATION_SIGNER, mirror / "federation.sqlite", [38], MEMBERS)
        log = Log(MemoryLogStore(), FEDERATION_SIGNER)
        log.append(TRUTH.federation[:17])
        (mirror / "newest.checkpoint").write_text(log.checkpoint().encoded)
        arguments = ("audit", "verify", mirror, "--keys", ledgers / "keys.json", "--format", "json")
        called = hansa(*arguments)
        assert called.status == 0, called.stdout
        log.append(TRUTH.federation[:3])
        (mirror / "refused.checkpoint").write_text(log.checkpoint().encoded)
        called = hansa(*arguments)
        assert called.status == 4
        (failure,) = called.data["failures"]
        assert "another history of 20 entries" in failure["what"]
        assert str(mirror / "refused.checkpoint") in failure["what"]

    def test_a_folder_with_kept_checkpoints_alone_goes_with_a_log(self, ledgers: Path) -> None:
        kept = ledgers.parent / "kept"
        kept.mkdir()
        log = Log(MemoryLogStore(), FEDERATION_SIGNER)
        log.append([*TRUTH.federation, TRUTH.federation[0]])
        (kept / "phoned.checkpoint").write_text(log.checkpoint().encoded)
        keys = ("--keys", ledgers / "keys.json")
        called = hansa("audit", "verify", ledgers, kept, *keys, "--format", "json")
        assert called.status == 4
        assert "older copy" in called.data["failures"][0]["what"]
        told(hansa("audit", "verify", kept, *keys), 2, "HANSA-761")

    def test_keys_of_another_federation(self, ledgers: Path) -> None:
        other = NoteSigner.generate("hansa.example/else").key.text
        KEYS.model_copy(update={"federation_log": other}).write(ledgers / "keys.json")
        called = hansa("audit", "verify", ledgers / "federation", "--keys", ledgers / "keys.json")
        assert called.status == 4
        assert "are these keys of this federation?" in called.stdout

    @pytest.mark.parametrize("text", ["{}", "no JSON", '{"schema_version": 99}'])
    def test_a_report_that_is_none(self, ledgers: Path, text: str) -> None:
        (ledgers / "report.json").write_text(text)
        told(hansa("audit", "verify", ledgers, "--report", ledgers / "report.json"), 2, "HANSA-601")

    def test_a_database_that_was_damaged_is_a_finding(self, ledgers: Path) -> None:
        path = ledgers / "victim.sqlite"
        store = SqliteLogStore.create(path)
        store.close()
        data = bytearray(path.read_bytes())
        data[4096:] = os.urandom(len(data) - 4096)
        path.write_bytes(data)
        called = hansa("audit", "verify", ledgers, "--format", "json")
        assert called.status == 4
        assert called.data["failures"][0]["log"] == str(path)

    def test_a_database_without_a_checkpoint_is_a_finding(self, ledgers: Path) -> None:
        SqliteLogStore.create(ledgers / "new.sqlite").close()
        called = hansa("audit", "verify", ledgers, "--format", "json")
        assert called.status == 4
        assert "signed no checkpoint" in called.data["failures"][0]["what"]

    def test_a_live_database_with_entries_behind_its_checkpoint(self, ledgers: Path) -> None:
        """The writer goes on while the auditor reads: what no checkpoint covers is judged by its signatures."""
        own = TRUTH.own[MEMBERS[0]]
        shutil.rmtree(ledgers / "members" / MEMBERS[0])
        store = SqliteLogStore.create(ledgers / "live.sqlite")
        log = Log(store, LOG_SIGNERS[MEMBERS[0]])
        log.append(own[:-1])
        log.checkpoint()
        log.append(own[-1:])
        called = hansa("audit", "verify", ledgers, "--format", "json")
        store.close()
        assert called.status == 0, called.stdout
        seen = next(one for one in called.data["logs"] if one["log"] == f"members/{MEMBERS[0]}")
        assert (seen["entries"], seen["sealed"]) == (len(own), len(own) - 1)
        assert any("no checkpoint covers them" in one["why"] for one in called.data["not_checked"])

    @pytest.mark.parametrize("what", ["edited", "doubled"])
    def test_a_live_database_with_a_false_entry_behind_its_checkpoint(self, ledgers: Path, what: str) -> None:
        own = TRUTH.own[MEMBERS[0]]
        shutil.rmtree(ledgers / "members" / MEMBERS[0])
        store = SqliteLogStore.create(ledgers / "live.sqlite")
        log = Log(store, LOG_SIGNERS[MEMBERS[0]])
        log.append(own[:-1])
        log.checkpoint()
        forged = edited(own[-1], released={"training": 25})
        log.append([forged] if what == "edited" else [own[-1], own[-1]])
        store.close()
        called = hansa("audit", "verify", ledgers, "--format", "json")
        assert called.status == 4
        failure = called.data["failures"][0]
        assert (failure["entry"], failure["type"]) == (len(own) - (what == "edited"), "closed")

    def test_a_mirror_that_is_behind_is_the_same_history(self, ledgers: Path) -> None:
        write_log(TRUTH.federation[:20], FEDERATION_SIGNER, ledgers / "mirrors" / "one", MEMBERS)
        called = hansa("audit", "verify", ledgers, "--format", "json")
        assert called.status == 0
        assert called.data["passed"]["copies that show the same history"] == 1

    def test_an_empty_log_is_a_log(self, ledgers: Path) -> None:
        shutil.rmtree(ledgers / "members")
        nothing = Story((), {}, ())
        shutil.rmtree(ledgers / "federation")
        nothing.write(ledgers.parent / "other")
        called = hansa("audit", "verify", ledgers.parent / "other" / "ledgers", "--format", "json")
        assert called.status == 0
        assert [seen["entries"] for seen in called.data["logs"]] == [0]


class TestWhatTheMachineCannotRead:
    """A right that lacks or a disk that fails is nobody's tampering: status 2, and no member is accused."""

    @pytest.mark.parametrize(
        "file",
        [
            "rounds.jsonl",
            "federation/checkpoint",
            "federation/tile/entries/000.p/{size}",
            "federation/tile/0/000.p/{size}",
            f"members/{MEMBERS[1]}/checkpoint",
        ],
    )
    @pytest.mark.parametrize("command", ["verify", "report"])
    def test_a_file(self, ledgers: Path, file: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        path = ledgers / file.format(size=len(TRUTH.federation))
        assert path.is_file()
        if "tile/0" in file:  # hashes are looked at where entries do not lead to the root
            rewrite_bundle(ledgers / "federation", TRUTH.federation[:-1])
        unreadable(path, monkeypatch)
        out = ("--out", ledgers.parent / "audit.json") if command == "report" else ()
        called = hansa("audit", command, ledgers, "--keys", ledgers / "keys.json", *out)
        text = told(called, 2, "HANSA-761" if file == "rounds.jsonl" else "HANSA-762")
        assert f"cannot read {path}: Permission denied" in text

    def test_records_that_vanish_while_they_are_read(
        self, ledgers: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unreadable(ledgers / "rounds.jsonl", monkeypatch, after=1)
        text = told(hansa("audit", "verify", ledgers), 2, "HANSA-762")
        assert "rounds.jsonl" in text

    def test_a_folder_is_called_by_its_own_name(self, ledgers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        closed = ledgers / "members"

        def listed(path: Any, real: Any = os.listdir) -> list[str]:
            if Path(path) == closed:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            found: list[str] = real(path)
            return found

        monkeypatch.setattr(os, "listdir", listed)
        text = told(hansa("audit", "verify", ledgers, "--keys", ledgers / "keys.json"), 2, "HANSA-761")
        assert f"cannot read {closed}: Permission denied" in text

    def test_a_file_that_is_not_there_is_a_finding(self, ledgers: Path) -> None:
        (ledgers / "federation" / "tile" / "entries" / "000.p" / str(len(TRUTH.federation))).unlink()
        assert hansa("audit", "verify", ledgers).status == 4


def unreadable(path: Path, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """Let a file refuse to be opened, as it does where the right to read it lacks; root has every right."""
    real, opened = Path.open, []

    def refused(self: Path, *arguments: Any, **more: Any) -> Any:
        if self == path:
            opened.append(path)
            if len(opened) > after:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refused)


class TestWhatItSays:
    def test_the_verdict_comes_first_and_what_was_not_checked_is_there(self, ledgers: Path) -> None:
        text = hansa("audit", "verify", ledgers).stdout
        assert text.startswith("VERIFIED.")
        for part in (
            "Privacy spent",
            "What was checked and holds",
            "What could not be checked",
            "Copies that were read",
        ):
            assert part in text
        assert f"{MEMBERS[0]}, dataset" in text
        assert "of 3 allowed at δ = 1e-05 against everyone" in text

    def test_what_is_wrong_is_said_in_the_first_lines(self, tmp_path: Path) -> None:
        index = TRUTH.find("federation", "release", round=2)
        entries = list(TRUTH.federation)
        entries[index] = edited(entries[index], step=9)
        called = hansa("audit", "verify", TRUTH.with_federation(entries).write(tmp_path))
        assert called.status == 4
        assert called.stdout.startswith("NOT VERIFIED. ")
        first = called.stdout.splitlines()[1]
        assert first.startswith(f"The first: federation, entry {index} (release): ")

    def test_the_envelope(self, ledgers: Path) -> None:
        called = hansa("audit", "verify", ledgers, "--format", "json")
        assert called.envelope["status"] == "done"
        assert set(called.data) == {
            "verified", "keys", "failures", "passed", "not_checked", "remarks", "logs", "spent",
        }  # fmt: skip

    def test_help(self) -> None:
        called = hansa("audit", "verify", "--help")
        assert called.status == 0
        assert "--keys" in called.stdout
