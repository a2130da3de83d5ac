"""How rounds follow from each other, failed ones among them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hansa.audit import GivenCopy, GivenRecords, Sources, audit
from hansa.audit.findings import Findings
from hansa.audit.integrity import Examined
from hansa.audit.rounds import StatedBy, _chain_problem, _checkpoint_problem, _Known
from hansa.identity import COORDINATOR
from hansa.ledger import Abort, Log, MemoryLogStore
from hansa.secagg import verify_record
from hansa.secagg.errors import SumVerificationError
from support.audits import (
    AGREEMENT,
    FEDERATION_SIGNER,
    KEYS,
    MEMBERS,
    ROSTER,
    RUN,
    SIGNERS,
    STEPS,
    Running,
    Story,
    at,
    begun,
    cosigned,
    entry_of,
    record_of,
    signed,
    story,
)

TRUTH = story()


def known(number: int) -> _Known:
    """A round of the story as an audit knows it."""
    index = TRUTH.find("federation", "aggregate", round=number)
    record = record_of(TRUTH.records[number - 1])
    stated = StatedBy(ROSTER, record.terms)
    return _Known(
        index, entry_of(TRUTH.federation[index]), verify_record(stated, record), record.terms, ROSTER
    )


def saying(one: _Known, **changes: Any) -> _Known:
    """The same round under another manifest, which members would have had to collude in signing for."""
    return replace(one, record=replace(one.record, manifest=one.record.manifest.model_copy(update=changes)))


def test_a_manifest_cannot_rest_on_a_checkpoint_that_is_later_than_its_sum() -> None:
    log = Log(MemoryLogStore(), FEDERATION_SIGNER)
    log.append(TRUTH.federation)
    later = saying(known(2), checkpoint=cosigned(log).encoded)
    believed = cast("Examined", SimpleNamespace(policy=KEYS.federation))
    assert "covers the aggregate itself" in _checkpoint_problem(later, believed)


class TestTheChain:
    def test_honest_rounds_follow(self) -> None:
        assert not _chain_problem(None, known(1), set())
        assert not any(_chain_problem(known(n), known(n + 1), set()) for n in (1, 2, 3))

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"previous_aggregate_sha256": "e5" * 32}, "another sum"),
            ({"previous_aggregate_sha256": None}, "or none"),
            ({"previous_manifest_sha256": "e5" * 32}, "another sum"),
            ({"previous_round": 0}, "does not follow from round 1"),
            ({"previous_round": 2}, "does not follow from round 1"),
        ],
    )
    def test_a_manifest_that_names_another_past(self, changes: dict[str, Any], what: str) -> None:
        assert what in _chain_problem(known(1), saying(known(2), **changes), {2})

    def test_a_round_in_between_needs_an_end_in_the_log(self) -> None:
        later = saying(known(4), previous_round=3, previous_aggregate_sha256=None)
        assert "neither its sum nor its end" in _chain_problem(known(2), later, set())
        assert not _chain_problem(known(2), later, {3})
        summed = saying(known(4), previous_round=3)
        assert "neither its sum nor its end" in _chain_problem(known(2), summed, {3})

    def test_a_first_round_follows_from_nothing(self) -> None:
        assert "another sum" in _chain_problem(
            None, saying(known(1), previous_aggregate_sha256="e5" * 32), set()
        )
        assert "neither" in _chain_problem(None, saying(known(3), previous_aggregate_sha256=None), set())

    def test_terms_do_not_change_under_the_same_keys(self) -> None:
        assert "other terms" in _chain_problem(known(1), replace(known(2), terms="e5" * 32), set())
        revoked = replace(known(2), terms="e5" * 32, roster=ROSTER.revoke(MEMBERS[0]))
        assert not _chain_problem(known(1), revoked, set())


@cache
def with_a_failed_round() -> tuple[Running, int]:
    run = begun()
    run.sum(1)
    return run, run.fail(1)


def audited(told: Story) -> Findings:
    log = Log(MemoryLogStore(), FEDERATION_SIGNER)
    log.append(told.federation)
    mirror = GivenCopy("mirror", told.federation, (cosigned(log),))
    return audit(Sources((mirror,), GivenRecords(told.records)), KEYS)


class TestARoundThatFailed:
    """Survivors were fixed, and too few confirmed them: no sum, releases that are charged, and a run that goes on."""

    @pytest.mark.parametrize("told", [True, False])
    def test_it_is_in_the_log_or_the_next_round_follows_from_nothing(self, told: bool) -> None:
        run = begun()
        run.sum(1)
        failed = run.fail(1)
        if told:
            entry = Abort(
                at=at(15), agreement_id=AGREEMENT, run=RUN, party=COORDINATOR, round=failed, manifest_sha256=None,
                code="too-few", missing=MEMBERS[:2],
            )  # fmt: skip
            run.add(signed(entry))
        run.sum(4, after=1)  # a step whose survivors may be signed is not summed again
        findings = audited(run.told())
        if told:
            assert findings.verified, findings.failures
            assert findings.passed["sums of releases that their members signed"] == 2
            assert any("5 releases are charged and in no sum" in remark.what for remark in findings.remarks)
        else:
            (failure,) = findings.failures
            assert failure.entry == run.told().find("federation", "aggregate", round=failed + 1)
            assert "neither its sum nor its end" in failure.what

    def test_a_sum_of_a_round_that_was_called_ended(self) -> None:
        index = TRUTH.find("federation", "aggregate", round=2)
        entry = Abort(
            at=at(15), agreement_id=AGREEMENT, run=RUN, party=COORDINATOR, round=2, manifest_sha256=None,
            code="too-few",
        )  # fmt: skip
        entries = [*TRUTH.federation[:index], signed(entry), *TRUTH.federation[index:]]
        (failure,) = audited(TRUTH.with_federation(entries)).failures
        assert (failure.entry, "called aborted" in failure.what) == (index + 1, True)

    def test_releases_of_it_are_charged(self) -> None:
        run, failed = with_a_failed_round()
        assert failed == 2
        findings = audited(run.told())
        assert findings.verified, findings.failures
        assert all(
            sum(entry_of(data).type == "release" for data in entries) * STEPS == 2 * STEPS
            for entries in run.own.values()
        )


class TestRecordsWithoutTheAgreement:
    def test_all_statements_must_name_the_terms_of_the_record(self) -> None:
        record = record_of(TRUTH.records[0])
        verify_record(StatedBy(ROSTER, record.terms), record)
        with pytest.raises(SumVerificationError, match="other terms"):
            verify_record(StatedBy(ROSTER, "e5" * 32), record)
        with pytest.raises(SumVerificationError):
            verify_record(StatedBy(ROSTER, "e5" * 32), record.model_copy(update={"terms": "e5" * 32}))

    def test_a_record_says_whether_survivors_were_confirmed(self) -> None:
        record = record_of(TRUTH.records[0])
        stated = StatedBy(ROSTER, record.terms)
        assert verify_record(stated, record).confirmed
        silent = verify_record(stated, record.model_copy(update={"confirmations": ()}))
        assert not silent.confirmed
        assert list(silent.released) == list(MEMBERS)

    def test_under_a_revoked_key_nothing_counts(self) -> None:
        record = record_of(TRUTH.records[0])
        with pytest.raises(SumVerificationError, match="revoked"):
            verify_record(StatedBy(ROSTER.revoke(MEMBERS[2]), record.terms), record)
        other = ROSTER.replace_key(MEMBERS[2], type(SIGNERS[MEMBERS[2]]).generate("x").public_key)
        with pytest.raises(SumVerificationError, match="not by"):
            verify_record(StatedBy(other, record.terms), record)
