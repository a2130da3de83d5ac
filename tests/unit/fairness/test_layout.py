"""The layout of tables: what follows from an agreement, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from hansa.agreement.document import read_agreement
from hansa.fairness.errors import EvaluationError
from hansa.fairness.layout import Table, TableLayout, equal_edges, intersections_of, quietest_tables
from hansa.fairness.release import NoisyTables
from hansa.fairness.views import view
from support.fairness import layout

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_joint_table_has_a_place_for_records_without_a_value():
    form = layout()
    assert form.shape(form.tables[0]) == (3, 4, 2, 1, 10, 1)
    assert form.size == 240
    assert form.l2_sensitivity == 1


@pytest.mark.parametrize(("compared", "places"), [("none", 1), ("decisions", 2), ("scores", 10)])
def test_a_reference_model_has_an_axis(compared, places):
    form = layout(compared=compared)
    assert form.shape(form.tables[0])[-1] == places


def test_several_tables_cost_the_root_of_their_number():
    form = layout(tables=(Table(("sex",), 1), Table(("age",), 1), Table((), 1)), rows_per_unit=4)
    assert form.l2_sensitivity == pytest.approx(4 * math.sqrt(3))


def test_three_labels_have_decisions_and_one_against_the_rest():
    form = layout(labels=("a", "b", "c"), tables=(Table(("sex",), None), Table(("sex",), 2)))
    assert [form.shape(table) for table in form.tables] == [(3, 3, 3, 10, 1), (3, 2, 1, 10, 1)]


def test_one_half_is_an_edge():
    assert 0.5 in equal_edges(10)
    assert layout().threshold_bin == 5
    with pytest.raises(EvaluationError, match="do not meet"):
        equal_edges(7)


@pytest.mark.parametrize(
    ("sizes", "joint"),
    [((2,), True), ((2, 3), False), ((1, 1), True), ((2, 4, 3), False), ((), True)],
)
def test_attributes_are_crossed_where_that_is_not_noisier(sizes, joint):
    attributes = {f"a{i}": tuple(f"v{j}" for j in range(size)) for i, size in enumerate(sizes)}
    sets = quietest_tables(attributes)
    assert sets == ((tuple(attributes),) if joint else tuple((name,) for name in attributes))


@pytest.mark.parametrize("sizes", [(2, 3), (1, 1), (2, 4, 3)])
def test_the_other_choice_has_more_noise_for_some_attribute(sizes):
    attributes = {f"a{i}": tuple(f"v{j}" for j in range(size)) for i, size in enumerate(sizes)}

    def noise(sets):
        form = layout(attributes=attributes, tables=tuple(Table(names, 1) for names in sets))
        tables = NoisyTables(form, np.zeros(form.size), form.l2_sensitivity, 1, 5)
        return max(view(tables, {name: values[0]}).noise_variance for name, values in attributes.items())

    choices = [(tuple(attributes),), tuple((name,) for name in attributes)]
    assert noise(quietest_tables(attributes)) == min(noise(sets) for sets in choices)


def test_an_agreement_has_a_layout():
    terms = read_agreement(EXAMPLES / "credit.toml").terms
    form = TableLayout.of(terms)
    assert [table.attributes for table in form.tables] == [("sex",), ("age",), ("marriage",)]
    assert form.l2_sensitivity == pytest.approx(math.sqrt(3))
    crossed = TableLayout.of(terms, crossed=[("sex", "age", "marriage")], bins=4)
    assert crossed.size == 3 * 5 * 4 * 2 * 4
    assert len(intersections_of(crossed, ("sex", "age"))) == 8


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": ("one",)}, "fewer than two"),
        ({"edges": (0.5, 0.2)}, "increase"),
        ({"edges": (0.5, 1.0)}, "between 0 and 1"),
        ({"threshold": 0.33}, "no edge of a bin"),
        ({"rows_per_unit": 0}, "cap of rows"),
        ({"tables": ()}, "no table"),
        ({"tables": (Table(("height",), 1),)}, "not distinct attributes"),
        ({"tables": (Table(("sex", "sex"), 1),)}, "not distinct attributes"),
        ({"tables": (Table(("sex",), None),)}, "no class"),
        ({"edges": equal_edges(10_000), "compared": "scores"}, "more than"),
    ],
)
def test_layouts_without_a_meaning_are_refused(changes, told):
    with pytest.raises(EvaluationError, match=told):
        layout(**changes)
