"""Copies in memory, what lies in a folder, and budgets of several kinds as an audit sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.audit import GivenCopy, GivenRecords, Kept, Sources, audit, keys_beside, read_sources
from hansa.audit.errors import AuditSourceError
from hansa.ledger import Charging, Log, MemoryLogStore, RunClosed, SqliteWitness, Witness, real
from hansa.privacy.charges import Charge
from hansa.privacy.events import poisson_gaussian
from support.audits import (
    DATASETS,
    FEDERATION_SIGNER,
    KEYS,
    LOG_SIGNERS,
    MEMBERS,
    WITNESSES,
    Story,
    at,
    changed,
    cosigned,
    reworded,
    signed,
    story,
)

TRUTH = story()
ALPHA = MEMBERS[0]


def copies(told: Story) -> tuple[GivenCopy, ...]:
    """A story as members hold it in memory."""
    log = Log(MemoryLogStore(), FEDERATION_SIGNER)
    log.append(told.federation)
    found = [GivenCopy("mirror", told.federation, (cosigned(log),))]
    for name, entries in told.own.items():
        own = Log(MemoryLogStore(), LOG_SIGNERS[name])
        own.append(entries)
        found.append(GivenCopy(name, entries, (own.checkpoint(),)))
    return tuple(found)


class TestInMemory:
    def test_a_mirror_is_audited_without_a_file(self) -> None:
        findings = audit(Sources(copies(TRUTH), GivenRecords(TRUTH.records)), KEYS)
        assert findings.verified, findings.failures
        assert findings.passed["records of rounds that their parties signed"] == 4

    def test_nothing_at_all_is_verified_and_says_that_nothing_was_checked(self) -> None:
        findings = audit(Sources(()), KEYS)
        assert findings.verified
        assert findings.passed == {}
        assert any("federation's log" in one.what for one in findings.not_checked)

    def test_a_copy_without_a_checkpoint(self) -> None:
        findings = audit(Sources((GivenCopy("mirror", TRUTH.federation, ()),)), KEYS)
        assert [failure.log for failure in findings.failures] == ["mirror"]

    def test_a_dropped_entry_of_a_copy_without_hashes_is_found_by_what_misses_it(self) -> None:
        index = TRUTH.find("federation", "release", member=ALPHA, round=2)
        first, *rest = copies(TRUTH)
        less = (*TRUTH.federation[:index], *TRUTH.federation[index + 1 :])
        findings = audit(Sources((GivenCopy("mirror", less, first.checkpoints), *rest)), KEYS)
        aggregate = TRUTH.find("federation", "aggregate", round=2) - 1
        assert [(one.log, one.entry) for one in findings.failures] == [("federation", aggregate)]

    def test_two_copies_of_which_one_was_changed_without_hashes(self) -> None:
        index = TRUTH.find("federation", "release", member=ALPHA, round=2)
        first, *rest = copies(TRUTH)
        other = changed(TRUTH.federation[index], y_sha256="e5" * 32)
        entries = (*TRUTH.federation[:index], other, *TRUTH.federation[index + 1 :])
        both = (GivenCopy("changed", entries, first.checkpoints), first, *rest)
        findings = audit(Sources(both), KEYS)
        failure = next(one for one in findings.failures if one.copy == "changed" and one.entry is not None)
        assert (failure.log, failure.entry, failure.type) == ("federation", index, "release")
        assert "two histories" not in failure.what  # the log has not signed both

    @pytest.mark.parametrize("size", [1, 17, 38])
    def test_a_checkpoint_that_somebody_kept(self, size: int) -> None:
        log = Log(MemoryLogStore(), FEDERATION_SIGNER)
        log.append(TRUTH.federation[:size])
        kept = Kept("the journalist", log.checkpoint())
        assert audit(Sources(copies(TRUTH), None, (kept,)), KEYS).verified
        log = Log(MemoryLogStore(), FEDERATION_SIGNER)
        log.append([*TRUTH.federation[: size - 1], signed(reworded(TRUTH.federation[0], at=at(99)))])
        findings = audit(Sources(copies(TRUTH), None, (Kept("the journalist", log.checkpoint()),)), KEYS)
        assert ["the journalist" in failure.what for failure in findings.failures] == [True]

    def test_a_kept_checkpoint_of_no_known_log_or_key(self) -> None:
        own = Log(MemoryLogStore(), LOG_SIGNERS[ALPHA]).checkpoint()
        false = own.with_signatures(FEDERATION_SIGNER.sign(own.text))
        stranger = Log(MemoryLogStore(), type(FEDERATION_SIGNER).generate("hansa.example/else")).checkpoint()
        unsigned = type(own)(own.text, (FEDERATION_SIGNER.sign(own.text),))
        assert audit(Sources((), None, (Kept("x", false),)), KEYS).verified
        for note in (stranger, unsigned):
            findings = audit(Sources((), None, (Kept("x", note),)), KEYS)
            assert [failure.log for failure in findings.failures] == ["x"]


class TestFolders:
    def test_everything_in_a_folder_is_found(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        memory = SqliteWitness.create(ledgers / "witness.sqlite")
        log = Log(MemoryLogStore(), FEDERATION_SIGNER)
        Witness(WITNESSES[ALPHA], [FEDERATION_SIGNER.key], memory).cosign(log.checkpoint(), old_size=0, at=1)
        memory.close()
        sources = read_sources([ledgers])
        assert [Path(copy.place).name for copy in sources.copies] == ["federation", *MEMBERS]
        assert sources.records is not None
        assert list(sources.records.lines()) == list(TRUTH.records)
        assert [kept.place for kept in sources.kept] == [str(ledgers / "witness.sqlite")]
        assert keys_beside([ledgers]) == ledgers / "keys.json"
        assert keys_beside([ledgers, ledgers]) is keys_beside([ledgers / "federation"]) is None

    def test_a_folder_deep_below_is_not_searched_for(self, tmp_path: Path) -> None:
        TRUTH.write(tmp_path / "a" / "b" / "c" / "d" / "e")
        with pytest.raises(AuditSourceError):
            read_sources([tmp_path])

    def test_a_witness_memory_that_was_damaged(self, tmp_path: Path) -> None:
        ledgers = TRUTH.write(tmp_path)
        path = tmp_path / "witness.sqlite"
        SqliteWitness.create(path).close()
        data = bytearray(path.read_bytes())
        data[200:] = bytes(len(data) - 200)
        path.write_bytes(data)
        with pytest.raises(AuditSourceError, match="witness' memory"):
            read_sources([ledgers, path])


FILTER = {"rule": "renyi-filter", "order": 8}  # for runs of agreements that follow each other


class TestBudgets:
    """What a member's own log says over years."""

    def audit_with(self, own: list[bytes]) -> object:
        return audit(Sources(copies(TRUTH.with_own(ALPHA, own)), GivenRecords(TRUTH.records)), KEYS)

    def test_runs_of_other_agreements_count_and_are_not_looked_for_in_this_federation(self) -> None:
        own = list(TRUTH.own[ALPHA])
        own[0] = signed(reworded(own[0], rule=FILTER))
        reserved = changed(own[2], agreement_id="9" * 64, run="elsewhere")
        findings = self.audit_with([*own, reserved])
        assert findings.verified, findings.failures
        runs = {one.run: one.releases for one in findings.spent if one.member == ALPHA}
        assert runs == {"run-1": 20, "elsewhere": 30, "": 50}

    def test_another_dataset_adds_up(self) -> None:
        own = list(TRUTH.own[ALPHA])
        other = reworded(own[0], dataset_id="e" * 32, epsilon=real(1.0))
        findings = self.audit_with([*own, signed(other)])
        assert findings.verified, findings.failures
        assert any("ε = 4 at δ = 2e-05" in remark.what for remark in findings.remarks)
        totals = {one.dataset: one.epsilon for one in findings.spent if one.member == ALPHA and not one.run}
        assert totals["e" * 32] == 0
        assert totals[DATASETS[ALPHA]] > 1

    def test_datasets_of_another_unit_do_not_add_up(self) -> None:
        other = reworded(TRUTH.own[ALPHA][0], dataset_id="e" * 32, unit="record", max_records_per_unit=1)
        findings = self.audit_with([*TRUTH.own[ALPHA], signed(other)])
        assert findings.verified, findings.failures
        assert any("(patient, record), and have no total" in remark.what for remark in findings.remarks)
        assert not any("together allow" in remark.what for remark in findings.remarks)

    def test_a_limit_against_colluding_members_is_told_beside_the_other(self) -> None:
        own = list(TRUTH.own[ALPHA])
        event, shared = poisson_gaussian(0.1, 2.0), poisson_gaussian(0.1, 4.0)
        granted = reworded(own[0], dataset_id="e" * 32, colluding=1, epsilon_colluding=real(1.0))
        run = {"run": "two", "dataset_id": "e" * 32, "agreement_id": "9" * 64}
        reserved = changed(own[2], **run, charges=(Charging.of(Charge("training", event, 20, shared, 1)),))
        findings = self.audit_with([*own, signed(granted), reserved])
        assert findings.verified, findings.failures
        told = {one.against: one for one in findings.spent if one.run == "two"}
        assert told["everyone"].limit == 3.0
        few = told["any 1 other member and all outside"]
        assert (few.limit, few.epsilon < told["everyone"].epsilon) == (1.0, True)
        assert set(few.checks) == {"rdp", "sum-attack"}

    def test_a_run_of_nothing_granted(self) -> None:
        own = list(TRUTH.own[ALPHA])
        findings = self.audit_with([*own, changed(own[2], run="two", dataset_id="e" * 32)])
        assert [(one.log, one.entry) for one in findings.failures] == [(f"members/{ALPHA}", len(own))]
        assert "no budget before" in findings.failures[0].what

    def test_a_grant_for_somebody_else(self) -> None:
        own = list(TRUTH.own[ALPHA])
        findings = self.audit_with([*own, TRUTH.own[MEMBERS[1]][0]])
        assert [(one.log, one.entry) for one in findings.failures] == [(f"members/{ALPHA}", len(own))]

    def test_a_log_without_a_grant_says_so(self) -> None:
        told = TRUTH.with_own(ALPHA, TRUTH.own[ALPHA][1:2]).with_federation(TRUTH.federation[:1])
        findings = audit(Sources(copies(told)[:2]), KEYS)
        assert findings.verified
        assert any("kept its budget" in one.what for one in findings.not_checked)

    def test_a_closed_run_frees_what_it_did_not_release(self) -> None:
        own = list(TRUTH.own[ALPHA])
        own[0] = signed(reworded(own[0], rule=FILTER))
        before = self.audit_with(own)
        run = {"run": "two", "agreement_id": "9" * 64}
        reserved = changed(own[2], **run)
        ended = RunClosed(at=at(99), **run, member=ALPHA, dataset_id=DATASETS[ALPHA], released={})
        findings = self.audit_with([*own, reserved, signed(ended)])
        assert findings.verified, findings.failures
        total = next(one for one in findings.spent if one.member == ALPHA and not one.run)
        alone = next(one for one in findings.spent if one.member == ALPHA and one.run == "run-1")
        assert total in before.spent
        assert alone.releases == 20
