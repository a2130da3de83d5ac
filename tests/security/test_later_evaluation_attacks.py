"""What a coordinator could do with a run of its own that evaluates a published file; what each member lets happen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.canonical import sha256_hex
from hansa.errors import TooFewMembersError
from hansa.fairness.errors import EvaluationError
from hansa.fairness.evaluated import Evaluated
from hansa.gate.published import PublishedFile, published_file
from hansa.identity import COORDINATOR
from hansa.ledger import LogView, Publication, Release, Reservation, SignedEntry
from hansa.privacy.charges import EVALUATION as KIND
from hansa.protocol import starting_state
from hansa_server.evaluating import evaluate_published
from hansa_server.history import History
from hansa_server.journal import InMemoryJournal
from hansa_server.summation import SecureSummation
from support.evaluations import COMPARED, EVALUATION, JUDGED, REFERENCE, TRAINING, Judging

TWICE = {"evaluation": {**EVALUATION, "evaluations": 2}}
ANOTHER = b"a file that nobody approved"


def of_member(judging: Judging, name: str, kind: type) -> list[Any]:
    entries = (SignedEntry.parse(data).entry for data in LogView(judging.league.stores[name].log).entries())
    return [entry for entry in entries if isinstance(entry, kind)]


def tables(judging: Judging, name: str) -> int:
    return sum(one.purpose == KIND for one in of_member(judging, name, Release))


def shown(judging: Judging, data: bytes = JUDGED) -> PublishedFile | None:
    entries = (SignedEntry.parse(one).entry for one in judging.league.log.entries())
    return published_file(entries, judging.agreement.agreement_id, sha256_hex(data))


def published(judging: Judging, data: bytes = JUDGED) -> PublishedFile:
    """Train, judge, and put a publication into the log that two of three members approve."""
    assert judging.run(judged=data).not_concluded is None
    entry = Publication(
        at="2026-03-01T12:00:00Z",
        agreement_id=judging.agreement.agreement_id,
        run="r",
        artifact_sha256=sha256_hex(data),
        gate_sha256="ab" * 32,
        files={"model.onnx": sha256_hex(data)},
    )
    keys = judging.league.keys
    signers = [keys.signer(name) for name in (COORDINATOR, "a", "b", "c")]
    judging.league.log.append([SignedEntry.sign(entry, *signers).encoded])
    found = shown(judging, data)
    assert found is not None
    return found


def again(judging: Judging, file: PublishedFile, run: str, *given: bytes) -> Evaluated:
    """A later evaluation, as an honest coordinator asks for it."""
    league, journal = judging.league, InMemoryJournal()
    house = league.house
    summation = SecureSummation(judging.agreement, league, journal, run, house)
    files = {sha256_hex(data): data for data in given or (JUDGED,)}
    return evaluate_published(judging.agreement, league, journal, run, summation, file, files)


@pytest.fixture
def judging() -> Judging:
    return Judging(**{**TRAINING, **TWICE})


def test_a_published_file_is_evaluated_once_more_by_members_that_start_anew(judging: Judging) -> None:
    file = published(judging)
    assert (file.run, file.evaluations, file.reference_sha256) == ("r", 1, None)
    for name in ("a", "b", "c"):
        judging.league.restart(name)  # nothing but their stores is left of the run
    found = again(judging, file, "later")
    assert (found.run, found.number, found.contributors) == ("later", 2, ("a", "b", "c"))
    truth = sum(one.tables[-1] for one in judging.evaluators.values())
    assert np.abs(found.tables.counts - truth).max() < 6 * found.tables.noise_sd
    after = shown(judging)
    assert after is not None
    assert after.evaluations == 2
    for name in ("a", "b", "c"):
        (reserved,) = [one for one in of_member(judging, name, Reservation) if one.run == "later"]
        assert [(charge.kind, charge.count) for charge in reserved.charges] == [(KIND, 1)]
        assert judging.league.entries(name)[-1] == "closed"


def test_a_file_that_was_never_published_is_judged_by_nobody(judging: Judging) -> None:
    file = published(judging)
    forged = replace(file, artifact_sha256=sha256_hex(ANOTHER))
    with pytest.raises(TooFewMembersError):
        again(judging, forged, "later", ANOTHER)
    assert [one.calls for one in judging.evaluators.values()] == [[(sha256_hex(JUDGED),)]] * 3
    assert {tables(judging, name) for name in "abc"} == {1}


def test_a_file_that_was_judged_and_not_published_is_judged_by_nobody_again(judging: Judging) -> None:
    assert judging.run().not_concluded is None
    assert shown(judging) is None
    claimed = PublishedFile("r", sha256_hex(JUDGED), None, "cd" * 32, 1)
    with pytest.raises(TooFewMembersError):
        again(judging, claimed, "later")
    assert {tables(judging, name) for name in "abc"} == {1}


@pytest.mark.parametrize(
    "changes",
    [{"model_sha256": "cd" * 32}, {"evaluations": 0}, {"reference_sha256": sha256_hex(ANOTHER)}],
    ids=["of another model", "with a number that was used", "beside another file"],
)
def test_what_a_manifest_says_of_it_must_be_what_the_log_shows(
    judging: Judging, changes: dict[str, Any]
) -> None:
    file = replace(published(judging), **changes)
    league, journal = judging.league, InMemoryJournal()
    summation = SecureSummation(judging.agreement, league, journal, "later", league.house)
    files = {sha256_hex(data): data for data in (JUDGED, ANOTHER)}
    with pytest.raises(TooFewMembersError):
        evaluate_published(judging.agreement, league, journal, "later", summation, file, files)
    assert {tables(judging, name) for name in "abc"} == {1}


class TestCompared:
    """Where the agreement compares: one could judge the published file beside one that makes it look good."""

    @pytest.fixture
    def judging(self) -> Judging:
        return Judging(**{**TRAINING, **COMPARED, "evaluation": {**COMPARED["evaluation"], "evaluations": 2}})

    def test_beside_the_reference_that_it_was_published_with(self, judging: Judging) -> None:
        file = published(judging)
        assert file.reference_sha256 == sha256_hex(REFERENCE)
        assert again(judging, file, "later", JUDGED, REFERENCE).number == 2

    def test_never_beside_another_one(self, judging: Judging) -> None:
        file = replace(published(judging), reference_sha256=sha256_hex(ANOTHER))
        calls = [list(one.calls) for one in judging.evaluators.values()]
        with pytest.raises(TooFewMembersError):
            again(judging, file, "later", JUDGED, ANOTHER)
        assert [one.calls for one in judging.evaluators.values()] == calls
        assert {tables(judging, name) for name in "abc"} == {1}


def test_no_more_than_agreed(judging: Judging) -> None:
    file = published(judging)
    again(judging, file, "later")
    third = shown(judging)
    assert third is not None
    with pytest.raises(EvaluationError, match="2 times, as often as the agreement allows"):
        again(judging, third, "later-2")


def test_sums_that_are_kept_out_of_the_log_count_all_the_same(
    judging: Judging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that opens a sum and does not log it could ask for the same number for ever."""
    file = published(judging)
    monkeypatch.setattr(History, "evaluation", lambda *_: None)
    again(judging, file, "later")
    unchanged = shown(judging)
    assert unchanged == file
    with pytest.raises(TooFewMembersError, match="budget-spent"):
        again(judging, file, "later-2")
    assert {tables(judging, name) for name in "abc"} == {2}


def test_a_run_that_evaluates_never_trains(judging: Judging) -> None:
    """What it reserved is a table; a manifest of training in it is refused, whatever the budget would hold."""
    file = published(judging)
    league, journal = judging.league, InMemoryJournal()
    summation = SecureSummation(judging.agreement, league, journal, "later", league.house)
    files = {sha256_hex(JUDGED): np.frombuffer(JUDGED, dtype=np.uint8)}
    summation.judge(file.model_sha256, 2, files, lambda _: None, last=False)
    trained = {name: one.calls for name, one in league.trainings.items()}
    with pytest.raises(TooFewMembersError):
        summation.sum(starting_state(judging.agreement, league.start), lambda _: None)
    assert {name: one.calls for name, one in league.trainings.items()} == trained
    assert {tables(judging, name) for name in "abc"} == {2}
