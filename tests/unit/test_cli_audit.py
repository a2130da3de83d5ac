"""`hansa audit verify` as a person uses it: what it reads, whose keys it takes, what it says, how it ends."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from hansa.ledger import SqliteLogStore
from support.audits import (
    FEDERATION_SIGNER,
    KEYS,
    LOG_SIGNERS,
    MEMBERS,
    Story,
    edited,
    story,
    write_log,
)
from support.cli import Called, finished, hansa, hansa_process
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
        assert "which ones" in told(called, 2, "HANSA-761")

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
        from hansa.ledger import Log

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
        from hansa.ledger import Log

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

    def test_help_comes_at_once(self) -> None:
        finished(hansa_process("audit", "verify", "--help"))  # compiled by now, whoever ran first
        started = time.monotonic()
        called = finished(hansa_process("audit", "verify", "--help"))
        assert time.monotonic() - started < 2  # 0.15 s on a machine that does nothing else
        assert called.status == 0
        assert "--keys" in called.stdout
