"""What somebody does to a federation's logs, and that `hansa audit verify` names the entry with status 4.

Whoever has no key changes the copy under checkpoints that stand; whoever owns a log signs it anew. The auditor has
copies of all logs, the records of rounds, and the public keys.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.identity import Amendment, Signer
from hansa.ledger import (
    AmendmentMade,
    Charging,
    Evaluation,
    InMemoryWitness,
    Log,
    MemoryLogStore,
    NoteSigner,
    RunClosed,
    SignatureType,
    SignedEntry,
    Spending,
    SqliteWitness,
    Witness,
    officer_of,
    real,
)
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend
from support.audits import (
    AGREEMENT,
    CHARGE,
    DATASETS,
    DELTA,
    EVENT,
    FEDERATION_SIGNER,
    KEYS,
    LATE,
    LOG_SIGNERS,
    MEMBERS,
    ROSTER,
    RUN,
    SIGNERS,
    STEPS,
    WITNESSES,
    Story,
    at,
    changed,
    cosigned,
    edited,
    entry_of,
    report_of,
    reworded,
    rewrite_bundle,
    signed,
    story,
    write_log,
    write_report_json,
    write_store,
)
from support.cli import Called, hansa

TRUTH = story()
VICTIM = MEMBERS[1]
RELEASE = TRUTH.find("federation", "release", member=VICTIM, round=2)
OWN_RELEASE = TRUTH.find(VICTIM, "release", round=2)


def audited(ledgers: Path, *more: str | Path) -> Called:
    """The auditor's command line, with keys that it has from elsewhere."""
    keys = ledgers.parent / "compared-keys.json"
    KEYS.write(keys)
    return hansa("audit", "verify", ledgers, "--keys", keys, "--format", "json", *more)


def failures(called: Called) -> list[dict[str, Any]]:
    assert called.status == 4, called.stdout + called.stderr
    assert called.envelope["status"] == "verification_failed"
    assert called.data["verified"] is False
    found: list[dict[str, Any]] = called.data["failures"]
    assert found
    return found


def failure_of(called: Called, log: str, *, entries: bool = True) -> dict[str, Any]:
    """The one broken entry, or the one wrong checkpoint, of a log."""
    found = [
        one for one in failures(called) if one["log"] == log and (one["type"] != "checkpoint") is entries
    ]
    assert len(found) == 1, called.stdout
    return found[0]


def named(called: Called) -> set[tuple[str, int | None, str]]:
    """All that is wrong: log, entry and type."""
    return {(one["log"], one["entry"], one["type"]) for one in failures(called)}


def without(entries: Sequence[bytes], index: int) -> list[bytes]:
    return [*entries[:index], *entries[index + 1 :]]


def with_one(entries: Sequence[bytes], index: int, data: bytes) -> list[bytes]:
    return [*entries[:index], data, *entries[index + 1 :]]


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

    def test_entries_whose_content_this_release_does_not_judge_are_told(self, tmp_path: Path) -> None:
        evaluation = Evaluation(
            at=at(99),
            agreement_id=AGREEMENT,
            run=RUN,
            number=1,
            artifact_sha256="e5" * 32,
            round=4,
            aggregate_sha256="e5" * 32,
            report_sha256="e5" * 32,
        )
        called = audited(TRUTH.with_federation([*TRUTH.federation, signed(evaluation)]).write(tmp_path))
        assert called.status == 0
        assert any("of type evaluation name" in one["what"] for one in called.data["not_checked"])

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


class TestACoordinatorThatSignsAnything:
    """The federation's log is signed anew; members who collude with the coordinator cosign it."""

    def test_it_edits_a_members_release(self, tmp_path: Path) -> None:
        forged = edited(TRUTH.federation[RELEASE], y_sha256="e5" * 32)
        told = TRUTH.with_federation(with_one(TRUTH.federation, RELEASE, forged))
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (RELEASE, "release")

    def test_it_invents_a_members_release(self, tmp_path: Path) -> None:
        invented = SignedEntry.sign(
            reworded(TRUTH.federation[RELEASE], round=9), Signer.generate(VICTIM)
        ).encoded
        told = TRUTH.with_federation([*TRUTH.federation, invented])
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (len(TRUTH.federation), "release")
        assert VICTIM in failure["what"]

    def test_it_writes_a_members_release_in_its_own_name(self, tmp_path: Path) -> None:
        entry = reworded(TRUTH.federation[RELEASE], round=9)
        told = TRUTH.with_federation([*TRUTH.federation, signed(entry, "coordinator")])
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert failure["entry"] == len(TRUTH.federation)
        assert "has not signed" in failure["what"]

    def test_it_drops_a_release_that_is_in_a_sum(self, tmp_path: Path) -> None:
        told = TRUTH.with_federation(without(TRUTH.federation, RELEASE))
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert failure["entry"] == TRUTH.find("federation", "aggregate", round=2) - 1
        assert (failure["type"], VICTIM in failure["what"]) == ("aggregate", True)

    def test_it_drops_a_release_that_is_in_no_sum(self, tmp_path: Path) -> None:
        dropped = TRUTH.find("federation", "release", member=LATE, round=3)
        own = TRUTH.find(LATE, "release", round=3)
        told = TRUTH.with_federation(without(TRUTH.federation, dropped))
        failure = failure_of(audited(told.write(tmp_path)), f"members/{LATE}")
        assert (failure["entry"], failure["type"]) == (own, "release")
        assert "left it out" in failure["what"]

    def test_it_drops_a_release_and_the_record_and_the_sum(self, tmp_path: Path) -> None:
        aggregate = TRUTH.find("federation", "aggregate", round=4)
        last = {
            index
            for index, data in enumerate(TRUTH.federation)
            if getattr(entry_of(data), "round", 0) == 4 or index == aggregate
        }
        kept = [data for index, data in enumerate(TRUTH.federation) if index not in last]
        told = replace(TRUTH.with_federation(kept), records=TRUTH.records[:-1])
        assert named(audited(told.write(tmp_path))) == {
            (f"members/{name}", TRUTH.find(name, "release", round=4), "release") for name in MEMBERS
        }

    def test_it_shows_no_run_at_all(self, tmp_path: Path) -> None:
        kept = [data for data in TRUTH.federation if entry_of(data).type == "agreement"]
        called = audited(replace(TRUTH.with_federation(kept), records=()).write(tmp_path))
        assert called.status == 0
        said = [one["what"] for one in called.data["not_checked"]]
        assert sum(f"released in {RUN!r}" in what for what in said) == len(MEMBERS)

    def test_it_claims_a_vector_that_was_not_sent(self, tmp_path: Path) -> None:
        index = TRUTH.find("federation", "aggregate", round=2)
        released = {**entry_of(TRUTH.federation[index]).released, VICTIM: "e5" * 32}
        told = TRUTH.with_federation(
            with_one(TRUTH.federation, index, changed(TRUTH.federation[index], released=released))
        )
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], f"entry {RELEASE}" in failure["what"]) == (index, True)

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"aggregate_sha256": "e5" * 32}, "another sum"),
            ({"excluded": ()}, "another excluded members"),
            ({"excluded": (MEMBERS[0], LATE)}, "another excluded members"),
            ({"record_sha256": "e5" * 32}, "no record of round 3"),
            ({"round": 2}, "does not come after"),
            ({"manifest_sha256": "e5" * 32}, "another vector"),
            ({"step": 7}, "another vector"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_it_says_another_thing_about_a_sum_than_was_signed(
        self, tmp_path: Path, changes: dict[str, Any], what: str
    ) -> None:
        index = TRUTH.find("federation", "aggregate", round=3)
        told = TRUTH.with_federation(
            with_one(TRUTH.federation, index, changed(TRUTH.federation[index], **changes))
        )
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (index, "aggregate")
        assert what in failure["what"]

    def test_it_says_another_model_than_the_members_trained_on(self, tmp_path: Path) -> None:
        index = TRUTH.find("federation", "aggregate", round=2)
        forged = changed(TRUTH.federation[index], model_sha256="e5" * 32)
        told = TRUTH.with_federation(with_one(TRUTH.federation, index, forged))
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert failure["entry"] == TRUTH.find("federation", "aggregate", round=3)
        assert "another model" in failure["what"]

    def test_it_leaves_a_sum_out(self, tmp_path: Path) -> None:
        index = TRUTH.find("federation", "aggregate", round=2)
        told = replace(
            TRUTH.with_federation(without(TRUTH.federation, index)),
            records=(TRUTH.records[0], *TRUTH.records[2:]),
        )
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert failure["entry"] == TRUTH.find("federation", "aggregate", round=3) - 1
        assert "neither its sum nor its end" in failure["what"] or "does not follow" in failure["what"]

    def test_it_keeps_quiet_about_a_receipt(self, tmp_path: Path) -> None:
        index = TRUTH.find("federation", "aggregate", round=3)
        value = json.loads(TRUTH.records[2])
        value["receipts"] = []
        line = json.dumps(value, separators=(",", ":")).encode()
        told = replace(TRUTH, records=(*TRUTH.records[:2], line, TRUTH.records[3]))
        assert ("federation", index, "aggregate") in named(audited(told.write(tmp_path)))

    @pytest.mark.parametrize("place", ["masked", "confirmations", "self_seeds", "keys"])
    def test_it_alters_what_members_signed_in_a_record(self, tmp_path: Path, place: str) -> None:
        from hansa.canonical import sha256_hex

        index = TRUTH.find("federation", "aggregate", round=1)
        value = json.loads(TRUTH.records[0])
        if place == "self_seeds":
            value[place][VICTIM] = "e5" * 32
        else:
            value[place] = value[place][:3]
        line = json.dumps(value, separators=(",", ":")).encode()
        forged = changed(TRUTH.federation[index], record_sha256=sha256_hex(line))
        told = replace(
            TRUTH.with_federation(with_one(TRUTH.federation, index, forged)),
            records=(line, *TRUTH.records[1:]),
        )
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (index, "aggregate")

    def test_two_sums_name_one_record(self, tmp_path: Path) -> None:
        """The record of round 4 would vouch for a round 3 that nobody signed."""
        third, fourth = (TRUTH.find("federation", "aggregate", round=number) for number in (3, 4))
        same = entry_of(TRUTH.federation[fourth]).record_sha256
        forged = changed(TRUTH.federation[third], record_sha256=same, excluded=())
        told = replace(
            TRUTH.with_federation(with_one(TRUTH.federation, third, forged)),
            records=(*TRUTH.records[:2], TRUTH.records[3]),
        )
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (third, "aggregate")

    def test_too_few_members_saw_its_log(self, tmp_path: Path) -> None:
        called = audited(TRUTH.write(tmp_path, witnesses=MEMBERS[:3]))
        failure = failure_of(called, "federation", entries=False)
        assert "3 members have cosigned it and 4 are needed" in failure["what"]
        assert len(failures(called)) == 1

    def test_a_sum_over_too_few_members(self, tmp_path: Path) -> None:
        index = TRUTH.find("federation", "aggregate", round=1)
        released = dict(list(entry_of(TRUTH.federation[index]).released.items())[:3])
        told = TRUTH.with_federation(
            with_one(TRUTH.federation, index, changed(TRUTH.federation[index], released=released))
        )
        assert "fewer than 4" in failure_of(audited(told.write(tmp_path)), "federation")["what"]


class TestTwoHistories:
    def forked(self) -> list[bytes]:
        """The federation's log as member 3 alone sees it: another release of the victim in round 2."""
        other = changed(TRUTH.federation[RELEASE], y_sha256="e5" * 32)
        return with_one(TRUTH.federation, RELEASE, other)

    def test_a_copy_that_one_member_was_shown(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        write_log(self.forked(), FEDERATION_SIGNER, ledgers / "mirrors" / MEMBERS[2], [MEMBERS[2]])
        called = audited(ledgers)
        failure = failure_of(called, "federation")
        assert (failure["entry"], failure["type"]) == (RELEASE, "release")
        assert failure["copy"].endswith(f"mirrors/{MEMBERS[2]}")
        assert "two histories" in failure["what"]

    def test_a_checkpoint_that_one_member_kept(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        log = Log(MemoryLogStore(), FEDERATION_SIGNER)
        log.append(self.forked())
        (ledgers.parent / "kept.note").write_text(log.checkpoint().encoded)
        called = hansa(
            "audit", "verify", ledgers, ledgers.parent / "kept.note", "--keys", ledgers / "keys.json",
            "--format", "json",
        )  # fmt: skip
        failure = failure_of(called, "federation", entries=False)
        assert "another history" in failure["what"]
        assert "kept.note" in failure["what"]

    def test_what_a_witness_remembers(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        memory = SqliteWitness.create(tmp_path / "witness.sqlite")
        log = Log(MemoryLogStore(), FEDERATION_SIGNER)
        log.append(self.forked())
        Witness(WITNESSES[MEMBERS[2]], [FEDERATION_SIGNER.key], memory).cosign(
            log.checkpoint(), old_size=0, at=1
        )
        memory.close()
        called = hansa(
            "audit", "verify", ledgers, tmp_path / "witness.sqlite", "--keys", ledgers / "keys.json",
            "--format", "json",
        )  # fmt: skip
        assert "witness.sqlite" in failure_of(called, "federation", entries=False)["what"]

    def test_a_witness_memory_that_agrees_passes(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        memory = SqliteWitness.create(tmp_path / "witness.sqlite")
        log = Log(MemoryLogStore(), FEDERATION_SIGNER)
        log.append(TRUTH.federation[:10])
        Witness(WITNESSES[MEMBERS[2]], [FEDERATION_SIGNER.key], memory).cosign(
            log.checkpoint(), old_size=0, at=1
        )
        memory.close()
        called = hansa(
            "audit", "verify", ledgers, tmp_path / "witness.sqlite", "--keys", ledgers / "keys.json",
            "--format", "json",
        )  # fmt: skip
        assert called.status == 0
        assert called.data["passed"]["checkpoints that begin the same history"] == 7

    def test_an_honest_witness_cosigns_no_fork(self) -> None:
        """Why the fork above has one cosignature only."""
        from hansa.ledger.errors import ForkError

        witness = Witness(WITNESSES[MEMBERS[0]], [FEDERATION_SIGNER.key], InMemoryWitness())
        for entries, refused in ((TRUTH.federation, False), (self.forked(), True)):
            log = Log(MemoryLogStore(), FEDERATION_SIGNER)
            log.append(entries)
            note = log.checkpoint()
            if refused:
                with pytest.raises(ForkError):
                    witness.cosign(note, old_size=len(entries), at=2)
            else:
                witness.cosign(note, old_size=0, at=1)


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


class TestAMemberThatLies:
    def test_it_under_reports_its_events(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        less = changed(own[OWN_RELEASE], spends=(Spending.of(Spend(EVENT, 1)),))
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, OWN_RELEASE, less)).write(tmp_path)),
            f"members/{VICTIM}",
        )
        assert (failure["entry"], failure["type"]) == (OWN_RELEASE, "release")
        assert failure["beside"] == {"log": "federation", "entry": RELEASE}

    def test_it_reports_more_noise_than_it_reserved(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        noisier = {**EVENT, "event": {"type": "Gaussian", "noise_multiplier": 9.0}}
        less = changed(own[OWN_RELEASE], spends=(Spending.of(Spend(noisier, STEPS)),))
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, OWN_RELEASE, less)).write(tmp_path)),
            f"members/{VICTIM}",
        )
        assert (failure["entry"], "other events" in failure["what"]) == (OWN_RELEASE, True)

    def test_it_closes_a_run_with_less_than_it_released(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        index = TRUTH.find(VICTIM, "closed")
        less = changed(own[index], released={"training": STEPS})
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, index, less)).write(tmp_path)), f"members/{VICTIM}"
        )
        assert (failure["entry"], failure["type"]) == (index, "closed")

    def test_it_drops_a_release_from_its_own_log(self, tmp_path: Path) -> None:
        told = TRUTH.with_own(VICTIM, without(TRUTH.own[VICTIM], OWN_RELEASE))
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["beside"]["entry"]) == (RELEASE, OWN_RELEASE)

    def test_it_grants_itself_a_budget(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        more = reworded(own[0], epsilon=real(50.0))
        forged = SignedEntry.sign(more, Signer.generate(officer_of(VICTIM))).encoded
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, 0, forged)).write(tmp_path)), f"members/{VICTIM}"
        )
        assert (failure["entry"], failure["type"]) == (0, "budget")
        assert "not granted by its officer" in failure["what"]

    def test_it_is_granted_a_budget_twice(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        again = changed_by_officer(own[0], epsilon=real(50.0))
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, [*own, again]).write(tmp_path)), f"members/{VICTIM}"
        )
        assert (failure["entry"], failure["type"]) == (len(own), "budget")

    def test_it_reserves_more_than_it_was_granted(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        index = TRUTH.find(VICTIM, "reservation")
        greedy = Charging.of(Charge("training", EVENT, 2000))
        more = changed(own[index], run="run-2", charges=(greedy,), at=at(70))
        told = TRUTH.with_own(VICTIM, [*own, more]).with_federation([*TRUTH.federation, more])
        failure = failure_of(audited(told.write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (len(own), "reservation")
        assert "remains" in failure["what"]

    def test_it_releases_more_than_it_reserved(self, tmp_path: Path) -> None:
        told = story(2, close=False)
        more = changed(
            told.own[VICTIM][-1], round=99, at=at(60), spends=(Spending.of(Spend(EVENT, CHARGE.count)),)
        )
        told = told.with_own(VICTIM, [*told.own[VICTIM], more]).with_federation([*told.federation, more])
        called = audited(told.write(tmp_path))
        assert named(called) == {
            (f"members/{VICTIM}", len(told.own[VICTIM]) - 1, "release"),
            ("federation", len(told.federation) - 1, "release"),
        }

    def test_it_releases_after_it_closed_the_run(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        told = TRUTH.with_own(VICTIM, [*own, changed(own[OWN_RELEASE], round=99)])
        failure = failure_of(audited(told.write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], "was closed" in failure["what"]) == (len(own), True)

    def test_it_uses_a_round_twice(self, tmp_path: Path) -> None:
        told = story(2, close=False)
        twice = changed(told.own[VICTIM][-1], y_sha256="e5" * 32)
        told = told.with_own(VICTIM, [*told.own[VICTIM], twice]).with_federation([*told.federation, twice])
        assert ("federation", len(told.federation) - 1, "release") in named(audited(told.write(tmp_path)))

    def test_it_signs_an_agreement_with_other_keys(self, tmp_path: Path) -> None:
        own = TRUTH.own[VICTIM]
        other = NoteSigner.generate(WITNESSES[VICTIM].key.name, SignatureType.WITNESS)
        forged = changed(own[1], witness_key=other.key.text)
        failure = failure_of(
            audited(TRUTH.with_own(VICTIM, with_one(own, 1, forged)).write(tmp_path)), f"members/{VICTIM}"
        )
        assert (failure["entry"], "witness key" in failure["what"]) == (1, True)


def changed_by_officer(data: bytes, **changes: Any) -> bytes:
    return signed(reworded(data, **changes))


class TestKeysThatDoNotCount:
    def revoked(self) -> Story:
        """The victim's key is revoked between the second and the third round."""
        index = TRUTH.find("federation", "aggregate", round=2) + 1
        change = Amendment(AGREEMENT, 1, ROSTER.sha256, "revoke", VICTIM, reason="laptop stolen")
        approvals = {name: change.sign(SIGNERS[name]) for name in MEMBERS if name != VICTIM}
        entry = signed(AmendmentMade.of(change, approvals, at(25)))
        return TRUTH.with_federation([*TRUTH.federation[:index], entry, *TRUTH.federation[index:]])

    def test_a_signature_by_a_revoked_key(self, tmp_path: Path) -> None:
        told = self.revoked()
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert failure["entry"] == told.find("federation", "release", member=VICTIM, round=3)
        assert "revoked" in failure["what"]

    def test_an_amendment_that_too_few_approved(self, tmp_path: Path) -> None:
        change = Amendment(AGREEMENT, 1, ROSTER.sha256, "revoke", VICTIM, reason="a whim")
        approvals = {MEMBERS[0]: change.sign(SIGNERS[MEMBERS[0]])}
        told = TRUTH.with_federation([*TRUTH.federation, signed(AmendmentMade.of(change, approvals, at(99)))])
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (len(TRUTH.federation), "amendment")

    @pytest.mark.parametrize("log", ["federation", VICTIM])
    def test_a_signature_by_a_foreign_key(self, tmp_path: Path, log: str) -> None:
        entries, index = (TRUTH.federation, RELEASE) if log == "federation" else (TRUTH.own[log], OWN_RELEASE)
        forged = SignedEntry.sign(entry_of(entries[index]), Signer.generate(VICTIM)).encoded
        told = (
            TRUTH.with_federation(with_one(entries, index, forged))
            if log == "federation"
            else TRUTH.with_own(log, with_one(entries, index, forged))
        )
        failure = failure_of(
            audited(told.write(tmp_path)), "federation" if log == "federation" else f"members/{log}"
        )
        assert (failure["entry"], failure["type"]) == (index, "release")

    def test_a_log_that_another_key_signs(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "federation")
        write_log(
            TRUTH.federation, NoteSigner.generate(FEDERATION_SIGNER.key.name), ledgers / "federation", MEMBERS
        )
        assert failure_of(audited(ledgers), "federation", entries=False)["entry"] is None

    def test_a_log_that_nobody_knows(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        write_log(TRUTH.federation, NoteSigner.generate("hansa.example/other"), ledgers / "other")
        assert [one for one in failures(audited(ledgers)) if "name no such log" in one["what"]]

    def test_cosignatures_of_strangers_do_not_count(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path, witnesses=MEMBERS[:3])
        path = ledgers / "federation" / "checkpoint"
        stranger = NoteSigner.generate("hansa.example/stranger", SignatureType.WITNESS)
        text = path.read_text().split("\n\n")[0] + "\n"
        path.write_text(path.read_text() + stranger.sign(text, 5).line + "\n")
        assert "3 members" in failure_of(audited(ledgers), "federation", entries=False)["what"]

    def test_all_is_false_under_other_keys(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        members = {name: Signer.generate(name).public_key for name in MEMBERS}
        other = KEYS.model_copy(update={"members": members})
        type(KEYS).model_validate(other.model_dump()).write(tmp_path / "other.json")
        called = hansa("audit", "verify", ledgers, "--keys", tmp_path / "other.json", "--format", "json")
        assert {one["log"] for one in failures(called)} >= {
            "federation",
            *(f"members/{name}" for name in MEMBERS),
        }
        assert {one["entry"] for one in failures(called) if one["log"].startswith("members/")} == {1}


class TestClocks:
    def test_a_clock_that_went_back_is_noted_and_nothing_more(self, tmp_path: Path) -> None:
        told = story(2, close=False)
        close = RunClosed(
            at="2020-01-01T00:00:00Z",
            agreement_id=AGREEMENT,
            run=RUN,
            member=VICTIM,
            dataset_id=DATASETS[VICTIM],
            released={"training": 2 * STEPS},
        )
        data = signed(close)
        told = told.with_own(VICTIM, [*told.own[VICTIM], data]).with_federation([*told.federation, data])
        called = audited(told.write(tmp_path))
        assert called.status == 0, called.stdout
        remarks = {(one["log"], one["entry"]) for one in called.data["remarks"] if "clock" in one["what"]}
        assert remarks == {
            ("federation", len(told.federation) - 1),
            (f"members/{VICTIM}", len(told.own[VICTIM]) - 1),
        }


class TestClaims:
    """What was published against what the logs lead to."""

    def claim(self, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        tree = report_of(TRUTH).model_dump(mode="json")
        change(tree)
        path = tmp_path / "claimed.json"
        path.write_text(json.dumps(tree))
        return failure_of(audited(TRUTH.write(tmp_path), "--report", path), "report.json")

    def test_a_lower_epsilon(self, tmp_path: Path) -> None:
        def lower(tree: dict[str, Any]) -> None:
            tree["members"][1]["epsilon"] *= 0.9

        failure = self.claim(tmp_path, lower)
        assert failure["what"].startswith(f"members.{VICTIM}.epsilon is ")
        assert "lower" in failure["what"]
        assert failure["type"] == "claim"

    def test_a_lower_epsilon_with_fewer_events(self, tmp_path: Path) -> None:
        def fewer(tree: dict[str, Any]) -> None:
            tree["members"][1]["epsilon"] = epsilon_spent([Spend(EVENT, STEPS)], DELTA)
            tree["members"][1]["noisy_steps"] = tree["events"][1]["count"] = STEPS

        assert self.claim(tmp_path, fewer)["what"].startswith(f"events of {VICTIM}")

    def test_a_lower_epsilon_at_another_delta(self, tmp_path: Path) -> None:
        def other(tree: dict[str, Any]) -> None:
            for member in tree["members"]:
                member["delta"] = 1e-9

        assert f"members.{MEMBERS[0]}.epsilon" in self.claim(tmp_path, other)["what"]

    def test_a_lower_epsilon_by_round(self, tmp_path: Path) -> None:
        def lower(tree: dict[str, Any]) -> None:
            tree["history"][3]["epsilon"] *= 0.9

        assert "history.3.epsilon" in self.claim(tmp_path, lower)["what"]

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda t: t.update(model_sha256="e5" * 32), "model_sha256"),
            (lambda t: t.update(agreement_id="e5" * 32), "agreement_id"),
            (lambda t: t.update(terms_id="e5" * 32), "terms_id"),
            (lambda t: t.update(rounds=3), "rounds is 3"),
            (lambda t: t.update(unit="record"), "unit"),
            (lambda t: t["members"][0].update(budget_epsilon=1.0), "budget_epsilon"),
            (lambda t: t["members"][0].update(noisy_steps=1), "noisy_steps"),
            (lambda t: t["members"][0].update(epsilon=None), "is not claimed"),
            (lambda t: t["members"][0].update(epsilon=9.0), "higher"),
            (lambda t: t["members"].reverse(), "members are not those"),
            (lambda t: t["round_log"][1]["present"].append(LATE), "round_log.2.present"),
            (lambda t: t["events"][0]["event"].update(sampling_probability=0.01), "events of"),
            (lambda t: t["events"][0].update(event={"type": "Magic"}), "no event"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_another_claim(self, tmp_path: Path, change: Callable[[dict[str, Any]], Any], what: str) -> None:
        assert what in self.claim(tmp_path, change)["what"]

    def test_claims_of_who_gave_no_own_log_are_read_in_the_federations(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "members")
        report = write_report_json(report_of(TRUTH), tmp_path)
        called = audited(ledgers, "--report", report)
        assert called.status == 0, called.stdout
        assert called.data["passed"]["claims: ε of members"] == len(MEMBERS)
        assert called.data["spent"] == []  # what was granted stands in the members' own logs
        said = [one["what"] for one in called.data["not_checked"]]
        assert sum("in its own log" in what for what in said) == len(MEMBERS)

    def test_nothing_is_claimed_without_logs(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        shutil.rmtree(ledgers / "federation")
        shutil.rmtree(ledgers / "members" / VICTIM)
        called = audited(ledgers, "--report", write_report_json(report_of(TRUTH), tmp_path))
        assert called.status == 0, called.stdout
        said = [one["what"] for one in called.data["not_checked"]]
        assert f"what report.json claims about {VICTIM!r}" in said
        assert any("hash of the model" in what for what in said)
        assert any("federation's log shows what the members released" in what for what in said)


def test_a_fresh_nonce_in_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    ledgers = TRUTH.write(tmp_path)
    log = Log(MemoryLogStore(), FEDERATION_SIGNER)
    log.append(TRUTH.federation)
    note = cosigned(log, MEMBERS, f"fresh {VICTIM} 00ff")
    (ledgers / "federation" / "checkpoint").write_text(note.encoded)
    assert audited(ledgers).status == 0
