"""Each way of drawing batches, from the agreement to the auditor: what ran is what is charged and recomputed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend
from support.cli import hansa, league_on_disk
from support.leagues import TERMS

UNITS = TERMS.replace("units = 60", "units = 90")  # a cap of cut samples, and the files hold 61


@pytest.mark.parametrize(
    ("terms", "kind", "events"),
    [
        ('sampling = "truncated-poisson"\nmax_batch_units = 55', "TruncatedPoissonSampled", 8),
        ('sampling = "fixed-batches"', "Gaussian", 4),
    ],
    ids=["truncated-poisson", "fixed-batches"],
)
def test_a_run_is_charged_and_audited_as_it_drew(tmp_path: Path, terms: str, kind: str, events: int) -> None:
    agreement = league_on_disk(tmp_path, terms=UNITS.replace("steps = 8", f"steps = 8\n{terms}"))
    out = tmp_path / "out"
    called = hansa("simulate", agreement, "--data", tmp_path, "--out", out, "--format", "json")
    assert called.status == 0, called.stderr
    for member in called.data["members"]:
        (charged,) = (each for each in called.data["events"] if each["member"] == member["name"])
        assert (charged["event"]["type"], charged["count"]) == (kind, events)
        assert member["noisy_steps"] == events
        spent = epsilon_spent([Spend(charged["event"], events)], member["delta"])
        assert member["epsilon"] == pytest.approx(spent)
        assert 0.97 * 5 < spent <= 5
    audited = hansa("audit", "verify", out / "ledgers", "--report", out / "report.json", "--format", "json")
    assert audited.status == 0, audited.stdout
    assert audited.data["passed"]["claims: ε of members"] == 3
    assert hansa("agreement", "show", out / "agreement.toml").status == 0
    page = tmp_path / "audit.json"
    told = hansa("audit", "report", out / "ledgers", "--keys", out / "ledgers" / "keys.json", "--out", page)
    assert told.status == 0, told.stderr
    (mechanism,) = json.loads(page.read_text())["mechanisms"]["mechanisms"]
    if kind == "Gaussian":
        assert (mechanism["sampling_rate"], mechanism["largest_batch"]) == (None, None)
    else:
        assert (mechanism["sampling_rate"], mechanism["largest_batch"], mechanism["most_units"]) == (
            0.5,
            55,
            90,
        )


def test_a_member_with_more_units_than_are_charged_for_takes_no_part(tmp_path: Path) -> None:
    """Some 40 records to train on where the largest declared number is 20: told before anything is spent."""
    terms = TERMS.replace("units = 60", "units = 20").replace("units = 40", "units = 20")
    terms = terms.replace("steps = 8", 'steps = 8\nsampling = "truncated-poisson"\nmax_batch_units = 15')
    called = hansa("simulate", league_on_disk(tmp_path, terms=terms), "--data", tmp_path)
    assert called.status != 0
    assert "more units here than" in called.stderr
    assert "Traceback" not in called.stderr


def test_terms_that_cannot_be_kept_are_told_with_a_remedy(tmp_path: Path) -> None:
    terms = TERMS.replace("steps = 8", 'steps = 9\nsampling = "fixed-batches"\nmax_batch_units = 45')
    called = hansa("agreement", "check", league_on_disk(tmp_path, terms=terms))
    assert called.status != 0
    assert "privacy.max_batch_units" in called.stderr
    assert "'truncated-poisson'" in called.stderr
