"""What a coordinator does that signs anything, and that `hansa audit verify` names the entry with status 4.

The federation's log is signed anew; members who collude with the coordinator cosign it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.identity import Signer
from hansa.ledger import (
    InMemoryWitness,
    Log,
    MemoryLogStore,
    SignedEntry,
    SqliteWitness,
    Witness,
)
from support.auditing import audited, failure_of, failures, named, with_one, without
from support.audits import (
    FEDERATION_SIGNER,
    LATE,
    MEMBERS,
    WITNESSES,
    changed,
    edited,
    entry_of,
    reworded,
    signed,
    story,
    write_log,
)
from support.cli import hansa

TRUTH = story()
VICTIM = MEMBERS[1]
RELEASE = TRUTH.find("federation", "release", member=VICTIM, round=2)


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

    def test_it_logs_a_release_only_after_the_sum_that_counts_it(self, tmp_path: Path) -> None:
        index = TRUTH.find("federation", "aggregate", round=2)
        moved = [*without(TRUTH.federation[: index + 1], RELEASE), TRUTH.federation[RELEASE]]
        told = TRUTH.with_federation([*moved, *TRUTH.federation[index + 1 :]])
        failure = failure_of(audited(told.write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (index - 1, "aggregate")
        assert f"a release of {VICTIM!r} that does not stand before it" in failure["what"]

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
        assert named(called) == {
            (f"members/{name}", TRUTH.find(name, "reservation"), "reservation") for name in MEMBERS
        }

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
