"""A published model is evaluated once more on later records, in a run of its own: drift by group is found, nothing is spent twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.agreement.local import Simulation
from hansa.audit import audit, read_sources
from hansa.errors import DataSourceError, UsageError
from hansa.ledger import TileSource, read_entry
from hansa.ledger.trust import TrustedKeys
from hansa.report import read_report, render_html, render_text
from hansa.report.evaluations import shown
from hansa_simulations import simulate
from support.cli import hansa
from support.published_runs import TERMS, agreement_of, in_process, league, package_in


def agreed(**evaluation: Any) -> Any:
    changes = {"evaluations": 2, "epsilon": 6.0, **evaluation}
    return agreement_of(evaluation=TERMS.evaluation.model_copy(update=changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Women's labels have turned since: the model is wrong about more of them than it was."""
    out = tmp_path_factory.mktemp("later")
    drifted = {name: held.train for name, held in league(wrong=0.3, seed=1).items()}
    with pytest.MonkeyPatch.context() as patch:
        in_process(patch)
        report = simulate(agreed(), members=league(), later=drifted, out=out, force=True)
    assert report.publication is not None
    assert report.publication.status == "published", report.publication
    assert report.fairness is not None
    assert report.fairness.not_evaluated is None
    assert [one.number for one in report.fairness.evaluations] == [1, 2]
    return out


def entries(folder: Path) -> list[Any]:
    source = TileSource(folder)
    return [read_entry(data).entry for data in source.read(0, source.size())]


def test_monitoring_finds_the_group_that_is_served_worse(run):
    called = hansa("model", "monitor", package_in(run), run / "ledgers" / "federation")
    assert called.status == 3, called.stderr
    assert "sex=f: worse" in called.stdout
    assert "sex=m: not told apart" in called.stdout


def test_the_audit_accepts_both_runs_and_recomputes_both_tables(run):
    ledgers = run / "ledgers"
    keys = TrustedKeys.read(ledgers / "keys.json")
    found = audit(read_sources([ledgers]), keys, read_report(run / "report.json"))
    assert [failure.what for failure in found.failures] == []
    assert found.passed["claims: metrics by group, computed anew from the noisy table"] == 2


def test_a_run_that_evaluates_reserves_one_table_and_no_training(run):
    first, second = read_report(run / "report.json").fairness.evaluations
    assert first.run != second.run
    for member in ("north", "south", "east"):
        reserved = [
            one
            for one in entries(run / "ledgers" / "members" / member)
            if one.type == "reservation" and one.run == second.run
        ]
        assert [(charge.kind, charge.count) for one in reserved for charge in one.charges] == [
            ("evaluation", 1)
        ]
    # two reservations of one budget, and what the first did not release was free again
    assert all(cost.epsilon < 6.0 for cost in second.costs)


@pytest.mark.parametrize(
    ("agreement", "what"),
    [(agreed(evaluations=1), "allows it a second one"), (agreed(units="own-file"), "no second file")],
)
def test_what_could_not_take_place_is_refused_before_training(agreement, what):
    with pytest.raises(UsageError, match=what):
        simulate(agreement, members=league(), later={})


def test_a_folder_that_is_not_there_is_named_by_its_own_option(tmp_path):
    with pytest.raises(DataSourceError, match="nowhere is not a folder") as caught:
        simulate(agreed(), members=league(), later=tmp_path / "nowhere")
    assert "--later DIR" in caught.value.what_to_do


def test_generated_records_have_no_later_ones(tmp_path):
    simulation = Simulation.model_validate({"partition": {"kind": "generated"}})
    with pytest.raises(UsageError, match="generated records"):
        simulate(replace(agreed(), simulation=simulation), members=league(), later=tmp_path)


def test_the_report_tells_what_the_run_of_its_own_cost(run):
    first, second = shown(read_report(run / "report.json"))
    assert "All 2 evaluations that are allowed cost" in first.sentences[1]
    assert (
        "This one of the 2 evaluations that are allowed was a run of its own and cost" in second.sentences[1]
    )
    assert first.counted == "positives, noisy"


def test_why_there_was_none_is_told_beside_the_first_one(run):
    report = read_report(run / "report.json")
    told = report.fairness.model_copy(update={"not_evaluated": "nothing was published"})
    without = report.model_copy(update={"fairness": told})
    assert "Not evaluated on later records: nothing was published" in render_text(without)
    assert "Not evaluated on later records: nothing was published" in render_html(without)
