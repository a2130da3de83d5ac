"""Counting: what a row adds, which rows of a unit count, and the sensitivity by brute force."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import PrivacyParameterError
from hansa.fairness.counting import ScoredRows, bins_of, clamp, count
from hansa.fairness.layout import Table, TableLayout
from support.fairness import layout, scored

SEVERAL = (Table(("sex", "age"), 1), Table(("sex",), 1), Table((), 1))
FORMS = [
    layout(),
    layout(tables=SEVERAL, rows_per_unit=2),
    layout(tables=SEVERAL, rows_per_unit=3, compared="scores"),
    layout(labels=("a", "b", "c"), tables=(Table(("age",), None), Table((), 0), Table((), 1))),
]


def without(rows: ScoredRows, unit: int) -> ScoredRows:
    keep = rows.units != unit
    reference = None if rows.reference is None else rows.reference[keep]
    return ScoredRows(rows.labels[keep], rows.scores[keep], rows.groups[keep], rows.units[keep], reference)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(FORMS))
def test_no_unit_moves_the_tables_further_than_the_type_says(seed: int, form: TableLayout):
    rng = np.random.default_rng(seed)
    rows = scored(rng, 30, len(form.labels), reference=form.compared != "none")
    rows = dataclasses.replace(rows, units=rng.integers(0, 6, 30))
    scores = rows.scores.copy()
    scores[rng.integers(0, 30, 2)] = np.nan  # what is not counted takes nobody's place
    rows = dataclasses.replace(rows, scores=scores)
    whole = count(form, rows)
    for unit in range(6):
        for cap in (1, 3, 10**6):
            moved = clamp(whole, cap) - clamp(count(form, without(rows, unit)), cap)
            assert np.linalg.norm(moved) <= form.l2_sensitivity + 1e-9


@pytest.mark.parametrize("form", FORMS)
def test_the_sensitivity_is_reached(form):
    """A unit whose rows all fall into one cell."""
    n, labels = form.rows_per_unit, len(form.labels)
    reference = None if form.compared == "none" else np.full((n, labels), 1 / labels)
    rows = ScoredRows(
        np.zeros(n, dtype=np.int64),
        np.full((n, labels), 1 / labels),
        np.zeros((n, 2), dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        reference,
    )
    assert np.linalg.norm(count(form, rows)) == pytest.approx(form.l2_sensitivity)


def test_without_the_cap_the_sensitivity_would_not_hold():
    """The attack: one unit with a hundred rows."""
    rows = dataclasses.replace(scored(np.random.default_rng(0), 100), units=np.zeros(100, dtype=np.int64))
    form = layout(rows_per_unit=2)
    assert count(form, rows).sum() == 2
    assert np.linalg.norm(count(form, dataclasses.replace(rows, units=None))) > 2 * form.l2_sensitivity


def test_every_table_counts_every_row_once():
    rows = scored(np.random.default_rng(1), 500)
    form = layout(tables=SEVERAL)
    counted = count(form, rows)
    sizes = [240, 60, 20]
    starts = np.r_[0, np.cumsum(sizes)]
    assert [int(counted[a:b].sum()) for a, b in itertools.pairwise(starts)] == [500, 500, 500]


def test_rows_that_cannot_be_counted_are_left_out():
    rows = scored(np.random.default_rng(2), 10)
    scores = rows.scores.copy()
    scores[0, 0], scores[1, 1] = np.inf, np.nan
    labels = rows.labels.copy()
    labels[2], labels[3] = 7, -1
    groups = rows.groups.copy()
    groups[4] = 99  # an unseen category is "no value"
    counted = count(layout(), ScoredRows(labels, scores, groups))
    assert counted.sum() == 6
    assert counted.reshape(3, 4, 2, 1, 10, 1)[-1, -1].sum() >= 1


def test_no_rows_are_an_empty_table():
    rows = scored(np.random.default_rng(3), 0)
    assert count(layout(), dataclasses.replace(rows, units=np.zeros(0, dtype=np.int64))).sum() == 0


def test_a_score_on_the_threshold_decides_for_the_first_label_as_argmax_does():
    scores = np.array([0.0, 0.1, 0.5, np.nextafter(0.5, 1), 1.0])
    places = bins_of(layout(), scores)
    assert places.tolist() == [0, 0, 4, 5, 9]
    assert ((places >= layout().threshold_bin) == (scores > 0.5)).all()


def test_a_cap_is_at_least_one():
    with pytest.raises(PrivacyParameterError, match="no cap"):
        clamp(np.zeros(3, dtype=np.int64), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": np.zeros((4, 3))},
        {"groups": np.zeros((4, 1), dtype=np.int64)},
        {"reference": np.zeros((4, 2))},
    ],
)
def test_arrays_of_another_layout_are_refused(changes):
    rows = scored(np.random.default_rng(4), 4)
    with pytest.raises(ValueError, match=r"scores|reference"):
        count(layout(), dataclasses.replace(rows, **changes))


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        ScoredRows(np.zeros(3, dtype=np.int64), np.zeros((4, 2)), np.zeros((3, 2), dtype=np.int64))
