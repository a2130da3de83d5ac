"""Lying members: whatever they did within their caps, the interval holds what it would have held without the lies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hansa.fairness.conditions import GapAtMost, UtilityAtLeast
from hansa.fairness.judging import Evidence, Rules, judge
from hansa.fairness.layout import Table
from hansa.fairness.metrics import Reading, all_metrics, by_group, gap, loss, measure
from hansa.fairness.release import NoisyTables
from hansa.fairness.views import view
from support.fairness import layout

FORM = layout(
    attributes={"sex": ("female", "male")},
    tables=(Table(("sex",), 1),),
    edges=(0.25, 0.5, 0.75),
    compared="decisions",
)
CAP = 20
HONEST, LYING = Reading(1.96), Reading(1.96, liars=1)


def told(counts):
    return NoisyTables(FORM, counts, 2.0, CAP, 6)


@pytest.fixture(scope="module")
def lies():
    """Sums without the liar's rows, what its rows would have been, and what it said: corners of the box and random ones."""
    rng = np.random.default_rng(31)
    found = []
    for turn in range(14):
        others = rng.integers(60, 400, FORM.size).astype(np.float64)
        true, false = rng.integers(0, CAP + 1, (2, FORM.size))
        if turn % 2:
            false = np.where(rng.random(FORM.size) < 0.5, 0, CAP)
            true = CAP - false
        found.append((told(others + true), told(others + false)))
    return found


def holds(robust, honest):
    assert robust.low <= honest.low + 1e-9
    assert honest.high <= robust.high + 1e-9
    assert robust.value_low - 1e-9 <= honest.value <= robust.value_high + 1e-9


@pytest.mark.parametrize("metric", all_metrics())
def test_a_metric_holds_what_was_true(lies, metric):
    for honest, lied in lies:
        for group in ({}, {"sex": "male"}):
            holds(measure(view(lied, group), metric, LYING), measure(view(honest, group), metric, HONEST))


@pytest.mark.parametrize("metric", ["accuracy", "true-positive-rate", "auc"])
def test_a_gap_holds_what_was_true(lies, metric):
    for honest, lied in lies:
        with_lies, without = (
            gap(by_group(tables, "sex", metric, reading).estimates, metric)
            for tables, reading in ((lied, LYING), (honest, HONEST))
        )
        holds(with_lies.estimate, without.estimate)
        assert with_lies.ratio.low <= without.ratio.low + 1e-9
        assert without.ratio.high <= with_lies.ratio.high + 1e-9


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy"])
def test_a_loss_holds_what_was_true(lies, metric):
    for honest, lied in lies:
        holds(loss(view(lied), metric, LYING), loss(view(honest), metric, HONEST))


def test_the_worst_lie_flips_a_gate_that_does_not_allow_for_it():
    """The attack: one of six members says that all its rows are hits, and without the allowance the gap passes."""
    shape = FORM.shape(FORM.tables[0])
    honest = np.zeros(shape)
    honest[0, 1, 0, -1], honest[0, 1, 0, 0] = 900, 100  # women
    honest[1, 1, 0, -1], honest[1, 1, 0, 0] = 130, 45  # men, without the liar's
    honest[1, 1, 0, 0] += CAP  # whose rows are misses, at the cap
    lied = honest.copy()
    lied[1, 1, 0, 0] -= CAP
    lied[1, 1, 0, :] += 0
    lied[1, 1, 0, 2:] += CAP  # and it says they are hits
    gate = GapAtMost("true-positive-rate", "sex", 0.17)
    allowing, trusting = Rules(liars=1, smallest_group=100), Rules(smallest_group=100)
    quiet = [NoisyTables(FORM, table.ravel(), 0.01, CAP, 6) for table in (honest, lied)]
    assert judge(gate, Evidence(quiet[0]), trusting).outcome != "pass"
    assert judge(gate, Evidence(quiet[1]), trusting).outcome == "pass"
    blocked = judge(gate, Evidence(quiet[1]), allowing)
    assert blocked.outcome == "inconclusive"
    assert "whatever 1 members did within their caps" in blocked.sentence


def test_more_liars_widen_every_interval(lies):
    _, lied = lies[0]
    for metric in all_metrics():
        widths = [measure(view(lied), metric, Reading(1.96, liars)).half_width for liars in (0, 1, 2)]
        assert all(a < b for a, b in itertools.pairwise(widths)), metric


def test_a_liar_cannot_make_a_model_fail_either(lies):
    """What fails does so whatever liars did: it is never overridden, so it has to be true."""
    honest, lied = lies[1]
    value = measure(view(honest), "accuracy", HONEST)
    gate = UtilityAtLeast("accuracy", round(value.low - 0.01, 3))
    assert judge(gate, Evidence(honest), Rules()).outcome == "pass"
    assert judge(gate, Evidence(lied), Rules(liars=1)).outcome != "fail"
