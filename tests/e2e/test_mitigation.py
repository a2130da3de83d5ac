"""A model made unfair by wrong labels of one group is refused, and passes once that group is drawn more rarely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.agreement.conditions import GapTerm
from hansa.agreement.local import PlantedNoise, Simulation
from hansa.agreement.mitigation import GroupRates, Mitigation
from hansa.report import Reference, mitigated, read_report, render_text, rows
from hansa_client.data import Dataset
from hansa_simulations import simulate
from hansa_simulations.simulation import MemberData
from hansa_simulations.splits.planted import planted
from support.published_runs import NAMES, ROWS, TERMS, agreement_of, in_process

NOISE = PlantedNoise(attribute="sex", value="f", share=0.7, where="training")
MITIGATION = Mitigation(sampling=GroupRates(attribute="sex", rates={"f": 0.02, "m": 1.0}))
GAP = GapTerm(kind="gap", metric="selection-rate", attribute="sex", at_most=0.15)


def records(rng: np.random.Generator, n: int) -> Dataset:
    """One in four labels is yes; the first feature tells which, the second tells women from men."""
    labels = (rng.random(n) < 0.25).astype(np.int64)
    sex = rng.integers(0, 2, n).astype(np.int16)
    signal = np.clip(rng.normal(2.0 * labels - 1.0, 0.7), -2, 2) / 2
    return Dataset(
        {"table": np.stack([signal, np.where(sex == 0, 1.0, 0.0)], axis=1).astype(np.float32)},
        labels,
        np.arange(n),
        tuple(f"row {i}" for i in range(n)),
        {"sex": sex},
    )


def league() -> dict[str, MemberData]:
    rng = np.random.default_rng(0)
    found = {}
    for name in NAMES:
        found[name] = MemberData(records(rng, ROWS), records(rng, 500))
    return found


def agreement(**changes: object) -> Agreement:
    publication = TERMS.publication.model_copy(update={"conditions": (GAP,)})
    simulation = Simulation.model_validate({"partition": {"kind": "generated"}, "planted": NOISE})
    return replace(agreement_of(publication=publication, **changes), simulation=simulation)


def test_noise_in_training_leaves_what_judges_as_it_is():
    rng = np.random.default_rng(0)
    clean = records(rng, ROWS)
    noisy = planted(clean, TERMS, NOISE, (0, 0), trains=True)
    turned = noisy.labels != clean.labels
    assert not turned[clean.groups["sex"] == 1].any()
    assert turned[clean.groups["sex"] == 0].mean() == pytest.approx(0.7, abs=0.04)
    assert planted(clean, TERMS, NOISE, (0, 1), trains=False) is clean


def test_the_unfair_model_is_refused_and_the_mitigated_one_passes(tmp_path, monkeypatch):
    in_process(monkeypatch)
    members = league()
    unfair = simulate(agreement(), members=members)
    assert unfair.mitigation is None
    assert unfair.publication.status == "refused"
    verdicts = {one.name: one.verdict for one in unfair.publication.conditions}
    assert verdicts["gap of selection-rate by sex <= 0.15, sex=f and sex=m"] == "fail"

    report = simulate(agreement(mitigation=MITIGATION), members=members, out=tmp_path / "run")
    assert report.publication.status == "published", report.publication
    assert all(one.verdict == "pass" for one in report.publication.conditions)
    # everybody is charged as before, at the largest rate
    assert [(one.event, one.count) for one in report.events] == [
        (one.event, one.count) for one in unfair.events
    ]
    told = report.mitigation
    assert (told.attribute, told.accounted_rate) == ("sex", report.sampling_rate)
    few, many = told.groups
    assert (few.value, few.rate) == ("f", pytest.approx(0.02 * report.sampling_rate))
    assert few.epsilon < many.epsilon == max(member.epsilon for member in report.members)
    assert read_report(tmp_path / "run") == report
    text = " ".join(render_text(report).split())
    assert "Mitigation by sex" in text
    assert "Its cost: every unit is charged at the largest rate" in text
    assert "in private evaluation 1: a gap in accuracy by sex" in text
    beside = Reference(kind=mitigated.WITHOUT, agreement_id=unfair.agreement_id, quality=unfair.quality)
    (effect,) = [
        one
        for one in mitigated.told(report.model_copy(update={"references": (beside,)}))
        if "test records" in one
    ]
    gaps = [group.gap for one in (report, unfair) for group in rows.groups(one.quality)]
    assert gaps[0] < gaps[1]
    assert f"is {gaps[0]:.3f}, and was {gaps[1]:.3f} without it" in effect
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Mitigation by sex" in page
    statement = (tmp_path / "run" / "publication" / "privacy_statement.md").read_text(encoding="utf-8")
    assert "by sex: f 0.004, m 0.2" in " ".join(statement.split())
