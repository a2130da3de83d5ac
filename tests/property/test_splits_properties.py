"""Whichever units a member has, the side of one does not depend on the others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hansa.agreement.local import TestSplit
from hansa.errors import DataError
from hansa_client.data import Records
from hansa_client.data.cells import Cells
from hansa_simulations.splits import split_records
from support.schemas import schema_agreement

ROW = st.tuples(
    st.integers(0, 5), st.sampled_from(["i", "ii"]), st.sampled_from("fm"), st.sampled_from(["no", "yes"])
)
PATIENT = st.one_of(st.none(), st.integers(0, 4), st.sampled_from(["1.0", "x"]))


def read(rows, patients) -> Records:
    columns = {
        name: Cells.of(row[i] for row in rows) for i, name in enumerate(("age", "stage", "sex", "outcome"))
    }
    columns["pid"] = Cells.of(patients)
    return Records(columns, np.arange(len(rows)))


@given(
    st.lists(st.tuples(ROW, PATIENT), min_size=1, max_size=15), st.data(), st.integers(0, 3), st.booleans()
)
def test_removing_records_moves_no_other(rows, data, seed, by_patient):
    terms = schema_agreement(patient="pid" if by_patient else "", cap=3).terms
    rule = TestSplit(share=0.5, seed=seed)
    kept = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True).map(sorted))
    whole = split_records(read(*zip(*rows, strict=True)), terms, rule)
    part = [rows[i] for i in kept]
    alone = split_records(read([row for row, _ in part], [patient for _, patient in part]), terms, rule)
    assert alone.test.tolist() == whole.test[kept].tolist()


@given(st.lists(st.tuples(ROW, st.integers(0, 4)), max_size=15), st.sampled_from(["unit-hash", "stratified"]))
def test_a_patient_is_never_on_both_sides(rows, rule):
    terms = schema_agreement(patient="pid", cap=3).terms
    patients = [str(patient) for _, patient in rows]
    try:
        split = split_records(
            read([row for row, _ in rows], patients), terms, TestSplit(share=0.4, rule=rule)
        )
    except DataError:
        assert rule == "stratified"
        assert len(set(patients)) < 4
        return
    sides = {}
    for patient, side in zip(patients, split.test.tolist(), strict=True):
        sides.setdefault(patient, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    assert (split.train ^ split.test).all()
