"""A run of a league that trains nothing: the file that an earlier run has published is evaluated once more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hansa.agreement import Agreement
from hansa.canonical import sha256_hex
from hansa.errors import HansaError, MachineError, RunStateError, UsageError
from hansa.gate.published import PublishedFile, published_file
from hansa.identity.files import replace_file
from hansa.ledger import Log, read_entry
from hansa_server.evaluating import evaluate_published
from hansa_server.home import CoordinatorHome
from hansa_server.journal import Journal
from hansa_server.members import Members
from hansa_server.runs import Runs
from hansa_server.summation import SecureSummation

PACKAGE = "publication"  # folder of the package, in that of the run
REFERENCE = "reference.onnx"  # the file that the published one was compared with, beside the package
_ASKED = "evaluates.json"
_MODEL = "model.onnx"


def begin_evaluation(home: CoordinatorHome, runs: Runs, published: str | None) -> str:
    """Register a run that evaluates what an earlier one has published; its name.

    Args:
        home: of the coordinator.
        runs: the register.
        published: the earlier run; by default the newest that has published.

    Raises:
        RunStateError: it has published nothing.
        UsageError: the agreement allows a model no second evaluation.
    """
    evaluation = home.agreement.terms.evaluation
    if evaluation is None or evaluation.evaluations < 2:
        raise UsageError(
            "the agreement allows a model no evaluation after the one that it was published by",
            remedy="What was not agreed before training needs a new agreement, with evaluation.evaluations = 2 or more.",
        )
    rows = [row for row in runs.all() if (runs.folder(row.run) / PACKAGE / _MODEL).is_file()]
    found = [row for row in rows if published in (None, row.run)]
    if not found:
        what = "no run" if published is None else f"run {published}"
        raise RunStateError(f"{what} of this league has published a model", remedy="See `hansa run list`.")
    run = runs.begin(home.agreement.agreement_id, 0)
    asked = json.dumps({"published_by": found[0].run}).encode()
    replace_file(runs.folder(run) / _ASKED, asked)
    return run


def evaluates(folder: Path) -> str | None:
    """The run whose published file a run evaluates; `None` for one that trains."""
    path = folder / _ASKED
    return str(json.loads(path.read_bytes())["published_by"]) if path.exists() else None


def evaluate_again(
    agreement: Agreement,
    folder: Path,
    log: Log,
    members: Members,
    journal: Journal,
    run: str,
    summation: SecureSummation,
) -> str:
    """Carry such a run.

    Args:
        folder: of the run that has published.
        log: the federation's.
        members, journal, run, summation: of this run.

    Returns:
        Why it came to nothing; empty where the evaluation stands in the log.

    Raises:
        MachineError: something of this machine failed; with the journal the run goes on from here.
    """
    try:
        files = _files(folder)
        published = _published(agreement, log, sha256_hex((folder / PACKAGE / _MODEL).read_bytes()))
        evaluate_published(agreement, members, journal, run, summation, published, files)
    except MachineError:
        raise
    except HansaError as error:
        return error.cause
    return ""


def _files(folder: Path) -> Mapping[str, bytes]:
    held = [path.read_bytes() for path in (folder / PACKAGE / _MODEL, folder / REFERENCE) if path.exists()]
    return {sha256_hex(data): data for data in held}


def _published(agreement: Agreement, log: Log, artifact_sha256: str) -> PublishedFile:
    entries = (read_entry(data).entry for data in log.entries())
    found = published_file(entries, agreement.agreement_id, artifact_sha256)
    if found is None:
        raise RunStateError("the federation's log does not show this file as published", remedy="")
    return found
