"""A simulated run that ends with a private evaluation: its report follows from the logs, and an edited one does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hansa.audit import audit, read_sources
from hansa.ledger.trust import TrustedKeys
from hansa.report import Report, read_report
from hansa_simulations.simulation import MemberData, simulate
from support.evaluations import EVALUATION, WHOLE
from support.leagues import table, terms_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    agreement = terms_of(
        evaluation={**EVALUATION, "evaluations": 2},
        fairness={"min_group_size": 60},
        training={"rounds": 1},
        privacy={"steps": 2, **WHOLE},
    )
    members = {
        m.name: MemberData(table(300, i), table(40, i + 10)) for i, m in enumerate(agreement.terms.members)
    }
    members["a"].train.groups["side"][members["a"].train.groups["side"] == 1] = 0
    members["b"].train.groups["side"][:5] = -1  # a value that the agreement does not name
    out: Path = tmp_path_factory.mktemp("run")
    simulate(agreement, members=members, out=out)
    return out


def findings(run: Path, report: Report) -> tuple[list[str], dict[str, int]]:
    ledgers = run / "ledgers"
    keys = TrustedKeys.read(ledgers / "keys.json")
    found = audit(read_sources([ledgers]), keys, report)
    return [failure.what for failure in found.failures], dict(found.passed)


def test_the_report_tells_of_it_and_the_audit_recomputes_it(run: Path) -> None:
    report = read_report(run / "report.json")
    assert report.fairness is not None
    (one,) = report.fairness.evaluations
    assert one.contributors == ("a", "b", "c")
    assert one.composition == "parallel"
    assert one.overall.metrics["accuracy"].low <= one.overall.metrics["accuracy"].value
    left, right = one.groups
    assert (left.name, right.name) == ("side=left", "side=right")
    wrong, passed = findings(run, report)
    assert wrong == []
    assert passed["claims: metrics by group, computed anew from the noisy table"] == 1
    assert passed["evaluations whose table is the sum of a round"] == 1
    (note,) = [note for note in report.notes if "value of side" in note]
    assert note.startswith("5 of 340 records of b have no value of side that the agreement names")
    page = (run / "report.html").read_text()
    assert "Private evaluation by group" in page


def better(one: Any) -> None:
    one["groups"][0]["metrics"]["accuracy"]["value"] = 0.999


def quieter(one: Any) -> None:
    one["noise_multiplier"] /= 2


def cheaper(one: Any) -> None:
    one["costs"][0]["epsilon"] /= 2


def another_file(one: Any) -> None:
    one["artifact_sha256"] = "ab" * 32


def nobody_missed(one: Any) -> None:
    one["contributors"] = ["a", "b"]


def never_too_small(one: Any) -> None:
    one["groups"][1]["assessable"] = not one["groups"][1]["assessable"]


def added(one: Any) -> None:
    one["composition"] = "added"


def loose_cap(one: Any) -> None:
    one["cell_cap"] = 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (better, "groups.0.metrics.accuracy.value does not follow"),
        (quieter, "noise_multiplier is not that"),
        (cheaper, "epsilon is"),
        (another_file, "artifact_sha256 is not what the log holds"),
        (nobody_missed, "contributors is not what the log holds"),
        (never_too_small, "does not follow from the table"),
        (added, "composition is 'added'"),
        (loose_cap, "does not hold the table"),
    ],
)
def test_what_was_edited_is_found(run: Path, edit: Callable[[Any], None], words: str) -> None:
    told = json.loads((run / "report.json").read_text())
    edit(told["fairness"]["evaluations"][0])
    wrong, _ = findings(run, Report.model_validate_json(json.dumps(told)))
    assert any(words in what for what in wrong), wrong


def test_a_report_without_it_is_found(run: Path) -> None:
    told = json.loads((run / "report.json").read_text())
    told["fairness"] = None
    wrong, _ = findings(run, Report.model_validate_json(json.dumps(told)))
    assert any("tells of 0 evaluations" in what for what in wrong)
