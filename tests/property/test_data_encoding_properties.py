"""For any cells: encoded values are finite and bounded, and no record depends on another unit's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hansa_client.data import Records, encode
from hansa_client.data.cells import Cells, codes, plain_code
from support.schemas import TABLE, schema_agreement

TERMS = schema_agreement(
    TABLE.replace("range = [0, 100]", "range = [0, 100]\nmissing = 50").replace(
        '"iii"]', '"iii"]\nmissing = "own"'
    ),
    patient="pid",
    cap=2,
).terms

CELL = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.floats().map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["i", "ii", "iii", "no", "yes", "f", "m", "NaN", "-inf", "1e400", "2.0"]),
)
ROW = st.tuples(CELL, CELL, CELL, st.sampled_from(["no", "yes", "perhaps", None]), st.sampled_from("abcd"))
NAMES = ("age", "stage", "sex", "outcome", "pid")


def read(rows) -> Records:
    columns = {name: Cells.of(row[i] for row in rows) for i, name in enumerate(NAMES)}
    return Records(columns, np.arange(len(rows)))


def by_unit(rows) -> dict[str, list[tuple[float, ...]]]:
    encoded = encode(read(rows), TERMS, None)
    found: dict[str, list[tuple[float, ...]]] = {}
    for i, unit in enumerate(encoded.units):
        record = (
            *encoded.inputs["table"][i].tolist(),
            float(encoded.labels[i]),
            float(encoded.groups["sex"][i]),
        )
        found.setdefault(encoded.unit_ids[unit], []).append(record)
    return found


@given(st.lists(ROW, max_size=12))
def test_every_input_is_finite_and_within_minus_one_and_one(rows):
    encoded = encode(read(rows), TERMS, None)
    table = encoded.inputs["table"]
    assert table.dtype == np.float32
    assert table.shape == (len(encoded), 5)
    assert np.isfinite(table).all()
    assert (np.abs(table) <= 1).all()
    assert (table[:, 1:].sum(axis=1) == 1).all()  # one input per category, missing ones included


@given(st.lists(ROW, max_size=12))
def test_units_are_dense_and_within_the_cap(rows):
    encoded = encode(read(rows), TERMS, None)
    assert sorted(set(encoded.units.tolist())) == list(range(encoded.number_of_units))
    assert all(np.bincount(encoded.units, minlength=1) <= 2)


@given(st.lists(ROW, max_size=12), st.sampled_from("abcd"))
def test_removing_a_unit_changes_no_other_unit(rows, gone):
    whole = by_unit(rows)
    without = by_unit([row for row in rows if row[-1] != gone])
    whole.pop(gone, None)
    assert without == whole


@given(st.lists(ROW, max_size=8), st.randoms())
def test_the_order_of_other_units_does_not_matter(rows, random):
    """Rows are dealt anew with each unit's own order kept."""
    order = [row[-1] for row in rows]
    random.shuffle(order)
    waiting = {unit: [row for row in rows if row[-1] == unit] for unit in "abcd"}
    assert by_unit([waiting[unit].pop(0) for unit in order]) == by_unit(rows)


@given(st.integers(-(10**18), 10**18), st.integers(0, 5))
def test_whole_numbers_match_their_code_however_many_zeros_follow(number, zeros):
    spelling = f"{number}.{'0' * zeros}"
    assert plain_code(spelling) == str(number)
    assert codes(Cells.of([spelling]), (str(number),)).values.tolist() == [0]


@given(st.text(max_size=12))
def test_plain_code_changes_a_code_once_at_most(text):
    assert plain_code(plain_code(text)) == plain_code(text)


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=20))
def test_a_cell_is_missing_declared_or_undeclared_and_never_two_of_these(values):
    cells = Cells.of(values)
    found = codes(cells, ("a", "b", "1"))
    states = np.stack([cells.missing, found.undeclared, found.values >= 0])
    assert (states.sum(axis=0) == 1).all()
