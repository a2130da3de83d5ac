"""Which units evaluate: by each unit's id alone, apart from training, or of a file of their own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hansa_client.data import Dataset
from hansa_client.evaluation.units import held_out, parted, record_names
from support.evaluations import EVALUATION
from support.leagues import table, terms_of

PATIENTS = {"unit": "patient", "max_records_per_unit": 4}
WITH_IDS = {
    "unit": "who",
    "label": "outcome",
    "features": [{"kind": "number", "name": n, "range": [-1, 1]} for n in ("x", "y")],
    "groups": [{"kind": "category", "name": "side", "values": ["left", "right"]}],
}


def ids(n: int, start: int = 0) -> tuple[str, ...]:
    return tuple(f"p{i}" for i in range(start, start + n))


def test_the_share_is_met_and_a_unit_moves_no_other():
    names = ids(20_000)
    out = held_out(names, 7, 0.2)
    assert out.mean() == pytest.approx(0.2, abs=0.01)
    assert np.array_equal(held_out(names[1:], 7, 0.2), out[1:])
    assert not np.array_equal(held_out(names, 8, 0.2), out)


def contents(records: Dataset) -> list[bytes]:
    """Records as a multiset: what each holds, sorted."""
    columns = (*records.inputs.values(), records.labels, *records.groups.values())
    return sorted(
        b"|".join(np.atleast_1d(column[i]).tobytes() for column in columns) for i in range(len(records))
    )


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("gone", [0, 1, 57, 199])
def test_a_record_that_is_not_there_moves_no_other(gone, equal):
    """The rows after it have other numbers then; what trains and what judges differ by this one record, in one of them."""
    terms = terms_of(evaluation=EVALUATION).terms
    records = table(200, 0)
    if equal:  # every record five times
        records = numbered(records.take(np.arange(200) // 5))
    without = numbered(records.take(np.delete(np.arange(200), gone)))
    moved = numbered(records.take(np.random.default_rng(1).permutation(200)))
    whole, fewer, other = (parted(terms, one) for one in (records, without, moved))
    changed = 0
    for part in ("training", "evaluation"):
        more, less = (Counter(contents(getattr(one, part))) for one in (whole, fewer))
        assert not less - more
        changed += (more - less).total()
        assert contents(getattr(other, part)) == contents(getattr(whole, part))
    assert changed == 1


def numbered(records: Dataset) -> Dataset:
    """As a file is read: each record is its own unit, by its row."""
    n = len(records)
    return Dataset(records.inputs, records.labels, np.arange(n), tuple(map(str, range(n))), records.groups)


def test_padding_names_nothing():
    """How far texts are padded follows from the longest of all."""
    ids_, mask = np.array([[5, 6, 0], [5, 6, 7]], np.int32), np.array([[1, 1, 0], [1, 1, 1]], np.int8)
    wide = [np.pad(one, ((0, 0), (0, 4))) for one in (ids_, mask)]
    names = [
        record_names(
            Dataset(
                {"input_ids": a, "attention_mask": b}, np.zeros(2, np.int64), np.arange(2), ("0", "1"), {}
            )
        )
        for a, b in ((ids_, mask), wide)
    ]
    assert names[0] == names[1]
    assert names[0][0] != names[0][1]


def test_known_draws():
    """A draw that changes would move units from training to evaluation under a budget that says they never do."""
    assert held_out(ids(12), 0, 0.3).tolist() == KNOWN


KNOWN = [True, True, True, False, False, True, True, True, False, False, False, False]


def test_no_unit_is_in_both():
    terms = terms_of(evaluation=EVALUATION, privacy=PATIENTS, data=WITH_IDS).terms
    records = table(400, 0, np.arange(400) // 2)
    parts = parted(terms, records)
    assert parts.evaluation is not None
    assert set(parts.training.unit_ids).isdisjoint(parts.evaluation.unit_ids)
    assert len(parts.training) + len(parts.evaluation) == 400
    assert parts.overlap == 0


def renamed(records: Dataset, names: tuple[str, ...]) -> Dataset:
    return Dataset(records.inputs, records.labels, records.units, names, records.groups)


def test_an_overlap_is_told_to_the_member(caplog):
    agreement = terms_of(
        evaluation={**EVALUATION, "units": "own-file", "share": None},
        privacy=PATIENTS,
        data=WITH_IDS,
    )
    mine, own = renamed(table(50, 0), ids(50)), renamed(table(30, 1), ids(30, 40))
    parts = parted(agreement.terms, mine, own)
    assert parts.overlap == 10
    assert "10 of 30 units" in caplog.text
    assert parts.training is mine
    assert parts.evaluation is own


def test_without_a_file_of_its_own_a_member_has_nothing_to_evaluate_on():
    terms = terms_of(evaluation={**EVALUATION, "units": "own-file", "share": None}).terms
    assert parted(terms, table(5, 0)).evaluation is None
