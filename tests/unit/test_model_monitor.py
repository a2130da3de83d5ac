"""`hansa model monitor`: a later evaluation in the federation's log, beside the one in a package."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.artifact import verify_package
from hansa.artifact.monitoring import later_evaluation, monitor
from hansa.errors import HansaError, TooFewMembersError, UsageError
from hansa.identity import COORDINATOR
from hansa.ledger import Log, MemoryLogStore, export_tiles
from support.cli import hansa
from support.gates import FAIR, UNFAIR, RunStory, signed_by, total_of
from support.ledgers import LOG_SIGNER, MEMBERS, WITNESS_SIGNERS
from support.packages import TERMS, agreement_of, published

AGREEMENT = agreement_of(TERMS)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitored") / "readmission"
    published(folder)
    return verify_package(folder)


def log_in(
    folder: Path, package, cells, *, witnesses: int = 3, contributors=MEMBERS, later: bool = True
) -> Path:
    """A copy of the log: the published run, and a later run that evaluated the same file."""
    artifact = package.entry.artifact_sha256
    entries = RunStory(AGREEMENT, total_of(AGREEMENT, FAIR), artifact).entries()
    if later:
        told = RunStory(AGREEMENT, total_of(AGREEMENT, cells), artifact, contributors=contributors)
        for signed in told.entries():
            moved = signed.entry.model_copy(update={"run": "run-2"})
            if moved.type in {"aggregate", "evaluation"}:
                entries.append(signed_by(type(moved).model_validate(moved.model_dump()), COORDINATOR))
    log = Log(MemoryLogStore(), LOG_SIGNER)
    log.append([one.encoded for one in entries])
    note = log.checkpoint()
    signatures = [signer.sign(note.text, 1_772_366_400) for signer in WITNESS_SIGNERS[:witnesses]]
    export_tiles(log, note.with_signatures(*signatures), folder)
    return folder


def test_a_group_that_is_served_worse_by_now_is_found(package, tmp_path):
    copy = log_in(tmp_path / "log", package, UNFAIR)
    told = {one.name: one.change for one in monitor(package, later_evaluation(package, copy))}
    assert told == {"everybody": "worse", "gender=f": "worse", "gender=m": "not told apart"}
    called = hansa("model", "monitor", package.folder, copy)
    assert called.status == 3, called.stderr
    assert "gender=f: worse" in called.stdout


def test_what_did_not_change_is_not_told_apart(package, tmp_path):
    copy = log_in(tmp_path / "log", package, {"f": (845, 155, 150, 850), "m": (860, 140, 140, 860)})
    told = {one.change for one in monitor(package, later_evaluation(package, copy))}
    assert told == {"not told apart"}


def test_a_log_without_another_evaluation_is_bad_input(package, tmp_path):
    with pytest.raises(UsageError, match="no evaluation of this file but the one"):
        later_evaluation(package, log_in(tmp_path / "log", package, FAIR, later=False))
    with pytest.raises(UsageError, match="there is no folder"):
        later_evaluation(package, tmp_path / "nothing")


def test_a_log_that_too_few_cosigned_is_refused(package, tmp_path):
    with pytest.raises(HansaError):
        later_evaluation(package, log_in(tmp_path / "log", package, UNFAIR, witnesses=2))


def test_an_evaluation_over_too_few_members_is_refused(package, tmp_path):
    copy = log_in(tmp_path / "log", package, UNFAIR, contributors=MEMBERS[:2])
    with pytest.raises(TooFewMembersError, match="2 members, and 3 are needed"):
        later_evaluation(package, copy)
