"""What somebody without a key does to copies of logs, and that `hansa audit verify` names the entry with status 4.

The auditor has copies of all logs, the records of rounds, and the public keys.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hansa.ledger import (
    Evaluation,
    Log,
    MemoryLogStore,
)
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend
from support.auditing import audited, failure_of, failures, named, with_one, without
from support.audits import (
    AGREEMENT,
    DELTA,
    EVENT,
    FEDERATION_SIGNER,
    LATE,
    LOG_SIGNERS,
    MEMBERS,
    RUN,
    STEPS,
    at,
    changed,
    cosigned,
    edited,
    entry_of,
    rewrite_bundle,
    signed,
    story,
    write_log,
    write_store,
)
from support.cli import hansa
from support.ledgers import TABLE, TABLE_SHA256
from support.published import report_of, write_report_json

TRUTH = story()
VICTIM = MEMBERS[1]
RELEASE = TRUTH.find("federation", "release", member=VICTIM, round=2)
OWN_RELEASE = TRUTH.find(VICTIM, "release", round=2)


class TestNothingIsWrong:
    def test_the_logs_of_an_honest_run_pass(self, tmp_path: Path) -> None:
        called = audited(TRUTH.write(tmp_path), "--report", write_report_json(report_of(TRUTH), tmp_path))
        assert called.status == 0, called.stdout
        assert called.data["verified"] is True
        assert called.data["failures"] == []
        assert called.stderr == ""
        passed = called.data["passed"]
        assert passed["signatures of entries"] == len(TRUTH.federation) + sum(map(len, TRUTH.own.values()))
        assert passed["entries that a member's log and the federation's share, byte for byte"] == sum(
            entry_of(data).type in {"reservation", "release", "closed"} for data in TRUTH.federation
        )
        for check, count in {
            "checkpoints cosigned by a quorum": 1,
            "sums of releases that their members signed": 4,
            "records of rounds that their parties signed": 4,
            "rounds that follow from the one before, under a cosigned checkpoint": 4,
            "budgets that held after every entry": 5,
            "claims: ε of members": 5,
            "claims: ε by round": 5,
            "claims: who was summed": 4,
            "claims: the model": 1,
        }.items():
            assert passed[check] == count, check
        assert passed["ε cross-checked by rdp"] == passed["ε recomputed from events"] == 15
        assert {one["member"]: one["epsilon"] for one in called.data["spent"] if one["run"] == ""} == {
            name: pytest.approx(
                epsilon_spent([Spend(EVENT, STEPS * (3 if name == LATE else 4))], DELTA), rel=1e-9
            )
            for name in MEMBERS
        }

    def test_what_could_not_be_checked_is_said(self, tmp_path: Path) -> None:
        said = audited(TRUTH.write(tmp_path)).data["not_checked"]
        assert any("published" in one["what"] and "report.json" in one["why"] for one in said)
        assert any("machines did" in one["what"] for one in said)
        assert any("after the newest checkpoint" in one["what"] for one in said)

    def test_a_member_that_was_left_out_with_a_receipt_is_remarked(self, tmp_path: Path) -> None:
        remarks = audited(TRUTH.write(tmp_path)).data["remarks"]
        aggregate = TRUTH.find("federation", "aggregate", round=3)
        assert any(one["entry"] == aggregate and LATE in one["what"] for one in remarks)

    def test_an_evaluation_without_its_sum_is_found(self, tmp_path: Path) -> None:
        evaluation = Evaluation(
            at=at(99),
            agreement_id=AGREEMENT,
            run=RUN,
            number=1,
            artifact_sha256="e5" * 32,
            reference_sha256=None,
            round=4,
            aggregate_sha256=TABLE_SHA256,
            table=TABLE,
        )
        called = audited(TRUTH.with_federation([*TRUTH.federation, signed(evaluation)]).write(tmp_path))
        assert called.status == 4
        assert "no sum of tables of that round stands before it" in failure_of(called, "federation")["what"]

    def test_several_processes_find_the_same(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        one, two = audited(ledgers), audited(ledgers, "--processes", "2")
        assert one.data == two.data

    def test_databases_pass_as_well_as_tiles(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "federation")
        shutil.rmtree(ledgers / "members")
        write_store(
            TRUTH.federation,
            FEDERATION_SIGNER,
            ledgers / "federation.sqlite",
            (*TRUTH.sizes, len(TRUTH.federation)),
            MEMBERS,
        )
        for name, entries in TRUTH.own.items():
            write_store(entries, LOG_SIGNERS[name], ledgers / f"{name}.sqlite", (3, len(entries)))
        called = audited(ledgers)
        assert called.status == 0, called.stdout
        assert called.data["passed"]["checkpoints that begin the same history"] == 5 + 5 * 2


def test_a_fresh_nonce_in_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    ledgers = TRUTH.write(tmp_path)
    log = Log(MemoryLogStore(), FEDERATION_SIGNER)
    log.append(TRUTH.federation)
    note = cosigned(log, MEMBERS, f"fresh {VICTIM} 00ff")
    (ledgers / "federation" / "checkpoint").write_text(note.encoded)
    assert audited(ledgers).status == 0


# By somebody who has no key: what lies in the bundle of a log, under the checkpoint that its owner signed.
ATTACKS: dict[str, Callable[[Sequence[bytes], int], list[bytes]]] = {
    "entry edited": lambda e, k: with_one(e, k, edited(e[k], step=9)),
    "entry dropped": without,
    "entries reordered": lambda e, k: [*e[:k], e[k + 1], e[k], *e[k + 2 :]],
    "entry inserted": lambda e, k: [*e[:k], changed(e[k], round=77), *e[k:]],
    "entry duplicated": lambda e, k: [*e[:k], e[k - 1], *e[k:]],
    "entry cut short": lambda e, k: with_one(e, k, e[k][:-9]),
    "signature removed": lambda e, k: with_one(e, k, e[k].split(b"\n")[0] + b"\n"),
    "entry replaced by nonsense": lambda e, k: with_one(e, k, b"no entry\n"),
}


class TestACopyThatWasChanged:
    @pytest.mark.parametrize("attack", list(ATTACKS))
    @pytest.mark.parametrize("log", ["federation", VICTIM])
    def test_the_first_changed_entry_is_named(self, tmp_path: Path, attack: str, log: str) -> None:
        ledgers = TRUTH.write(tmp_path)
        entries, index = (TRUTH.federation, RELEASE) if log == "federation" else (TRUTH.own[log], OWN_RELEASE)
        folder = ledgers / ("federation" if log == "federation" else f"members/{log}")
        rewrite_bundle(folder, ATTACKS[attack](entries, index))
        name = "federation" if log == "federation" else f"members/{log}"
        failure = failure_of(audited(ledgers), name)
        assert failure["entry"] == index
        assert failure["copy"] == str(folder)
        assert failure["type"] in {entry_of(entries[index]).type, entry_of(entries[index + 1]).type, ""}

    @pytest.mark.parametrize("attack", list(ATTACKS))
    def test_also_where_the_hashes_were_made_to_fit(self, tmp_path: Path, attack: str) -> None:
        ledgers = TRUTH.write(tmp_path)
        rewrite_bundle(ledgers / "federation", ATTACKS[attack](TRUTH.federation, RELEASE), hashes=True)
        called = audited(ledgers)
        assert "federation" in {one["log"] for one in failures(called)}
        entries = {one["entry"] for one in failures(called) if one["log"] == "federation"}
        if attack in {"entry edited", "entry cut short", "signature removed", "entry replaced by nonsense"}:
            assert entries == {RELEASE}

    def test_a_dropped_release_is_missed_by_the_sum_that_names_it(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        rewrite_bundle(ledgers / "federation", without(TRUTH.federation, RELEASE), hashes=True)
        aggregate = TRUTH.find("federation", "aggregate", round=2)
        assert failure_of(audited(ledgers), "federation")["entry"] == aggregate - 1

    def test_a_changed_database(self, tmp_path: Path) -> None:
        import sqlite3

        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "federation")
        path = write_store(
            TRUTH.federation,
            FEDERATION_SIGNER,
            ledgers / "federation.sqlite",
            (len(TRUTH.federation),),
            MEMBERS,
        )
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TRIGGER entries_update")
            forged = edited(TRUTH.federation[RELEASE], step=9)
            connection.execute("UPDATE entries SET data = ? WHERE idx = ?", (forged, RELEASE))
        connection.close()
        assert failure_of(audited(ledgers), "federation")["entry"] == RELEASE

    def test_a_row_that_was_taken_out_of_a_database(self, tmp_path: Path) -> None:
        import sqlite3

        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "members" / VICTIM)
        entries = TRUTH.own[VICTIM]
        path = write_store(entries, LOG_SIGNERS[VICTIM], ledgers / "victim.sqlite", (len(entries),))
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TRIGGER entries_delete")
            connection.execute("DELETE FROM entries WHERE idx = ?", (OWN_RELEASE,))
        connection.close()
        failure = failure_of(audited(ledgers), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (OWN_RELEASE, "missing")

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: bytes([data[0] ^ 1]) + data[1:],
            lambda data: data[:-1] + bytes([data[-1] ^ 128]),
            lambda data: data[:-1],
            lambda data: data[:-32],
            lambda data: data + bytes(32),
            lambda _: b"",
        ],
        ids=["first bit", "last bit", "a byte less", "a hash less", "a hash more", "nothing"],
    )
    def test_a_damaged_tile_of_hashes(self, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
        ledgers = TRUTH.write(tmp_path)
        (tile,) = (path for path in (ledgers / "federation" / "tile" / "0").rglob("*") if path.is_file())
        before, after = tile.read_bytes(), change(tile.read_bytes())
        tile.write_bytes(after)
        failure = failure_of(audited(ledgers), "federation")
        last = len(TRUTH.federation) - 1
        assert failure["entry"] == (0 if after[:32] != before[:32] else last)
        assert failure["type"] == entry_of(TRUTH.federation[failure["entry"]]).type
        assert "the tile was changed or cut" in failure["what"]

    def test_tiles_of_hashes_that_are_gone_are_not_checked(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        assert audited(ledgers).data["passed"]["tiles of hashes that are those of the entries"] == 6
        shutil.rmtree(ledgers / "federation" / "tile" / "0")
        called = audited(ledgers)
        assert called.status == 0
        assert "1 tiles of hashes of federation" in {one["what"] for one in called.data["not_checked"]}

    def test_a_bundle_that_is_gone(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "federation" / "tile" / "entries")
        failure = failure_of(audited(ledgers), "federation")
        assert (failure["entry"], failure["type"]) == (0, "missing")

    def test_a_checkpoint_whose_root_was_changed(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        path = ledgers / "federation" / "checkpoint"
        lines = path.read_text().split("\n")
        other = (ledgers / "members" / VICTIM / "checkpoint").read_text().split("\n")
        path.write_text("\n".join([*lines[:2], other[2], *lines[3:]]))
        assert "not by its key" in failure_of(audited(ledgers), "federation", entries=False)["what"]


class TestLogsThatWereCut:
    def test_the_federations_log_at_an_older_checkpoint(self, tmp_path: Path) -> None:
        size = TRUTH.sizes[2]
        called = audited(TRUTH.with_federation(TRUTH.federation[:size]).write(tmp_path))
        failure = failure_of(called, "federation")
        assert (failure["entry"], failure["type"]) == (size, "missing")
        assert "older copy" in failure["what"]

    def test_the_federations_log_at_an_older_checkpoint_without_records(self, tmp_path: Path) -> None:
        told = replace(TRUTH.with_federation(TRUTH.federation[: TRUTH.sizes[1]]), records=TRUTH.records[:1])
        called = audited(told.write(tmp_path))
        expected = {
            (f"members/{name}", TRUTH.find(name, "release", round=3 if name == LATE else 2), "release")
            for name in MEMBERS
        }
        assert named(called) == expected

    def test_a_members_log_at_an_older_checkpoint(self, tmp_path: Path) -> None:
        told = TRUTH.with_own(VICTIM, TRUTH.own[VICTIM][:OWN_RELEASE])
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (RELEASE, "release")
        assert failure["beside"] == {"log": f"members/{VICTIM}", "entry": OWN_RELEASE}
        assert "restored from a backup" in failure["what"]

    def test_a_database_that_was_restored_from_an_old_backup(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "members" / VICTIM)
        entries = TRUTH.own[VICTIM][:OWN_RELEASE]
        write_store(entries, LOG_SIGNERS[VICTIM], ledgers / "restored.sqlite", (3, OWN_RELEASE))
        failure = failure_of(audited(ledgers), "federation")
        assert (failure["entry"], failure["beside"]["entry"]) == (RELEASE, OWN_RELEASE)

    def test_a_restored_database_that_went_on(self, tmp_path: Path) -> None:
        """Restored before round 2, it signed round 3 and 4 again as they were, and its log lacks one release."""
        told = TRUTH.with_own(VICTIM, without(TRUTH.own[VICTIM], OWN_RELEASE))
        called = audited(told.write(tmp_path))
        assert ("federation", RELEASE, "release") in named(called)

    def test_a_database_whose_checkpoint_is_newer_than_its_entries(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        note = write_log(TRUTH.own[VICTIM], LOG_SIGNERS[VICTIM], tmp_path / "whole")
        shutil.rmtree(ledgers / "members" / VICTIM)
        write_log(TRUTH.own[VICTIM][:5], LOG_SIGNERS[VICTIM], ledgers / "members" / VICTIM)
        (ledgers / "members" / VICTIM / "checkpoint").write_text(note.encoded)
        failure = failure_of(audited(ledgers), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (
            0,
            "missing",
        )  # bundles of that checkpoint are not there

    def test_a_kept_checkpoint_of_a_member_shows_that_its_log_was_cut(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        note = write_log(own, LOG_SIGNERS[VICTIM], tmp_path / "whole")
        (tmp_path / "kept").write_text(note.encoded)
        ledgers = TRUTH.with_own(VICTIM, own[:OWN_RELEASE]).write(tmp_path)
        called = hansa(
            "audit", "verify", ledgers, tmp_path / "kept", "--keys", ledgers / "keys.json", "--format", "json"
        )
        failure = failure_of(called, f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (OWN_RELEASE, "missing")

    def test_a_release_on_its_way_is_no_forgery(self, tmp_path: Path) -> None:
        """The run was killed when a member had written its release and nobody had it yet."""
        told = story(2, close=False)
        last = changed(told.own[VICTIM][-1], round=99, step=98, at=at(60))
        told = told.with_own(VICTIM, [*told.own[VICTIM], last])
        called = audited(told.write(tmp_path))
        assert called.status == 0, called.stdout
        assert any("reached the coordinator" in one["what"] for one in called.data["not_checked"])

    def test_two_releases_on_their_way_are_one_too_many(self, tmp_path: Path) -> None:
        told = story(2, close=False)
        more = [changed(told.own[VICTIM][-1], round=number, at=at(60)) for number in (98, 99)]
        called = audited(told.with_own(VICTIM, [*told.own[VICTIM], *more]).write(tmp_path))
        failure = failure_of(called, f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (len(told.own[VICTIM]), "release")
