"""Datasets keep records, units and groups together."""

from __future__ import annotations

import numpy as np
import pytest

from hansa_client.data import Dataset


def dataset(units=(0, 1, 0, 2), *, first=0, tokens=0, left_out=None) -> Dataset:
    n = len(units)
    inputs = {"table": np.arange(first, first + n, dtype=np.float32)[:, None]}
    if tokens:
        inputs = {
            "input_ids": np.ones((n, tokens), np.int32),
            "attention_mask": np.ones((n, tokens), np.int8),
        }
    return Dataset(
        inputs=inputs,
        labels=np.arange(n, dtype=np.int64) % 2,
        units=np.array(units, dtype=np.int64),
        unit_ids=tuple(f"u{i}" for i in range(max(units, default=-1) + 1)),
        groups={"sex": np.arange(n, dtype=np.int16) - 1},
        left_out=left_out or {},
    )


class TestChecks:
    def test_lengths(self):
        with pytest.raises(ValueError, match="different lengths"):
            Dataset({"table": np.zeros((2, 1))}, np.zeros(1, np.int64), np.zeros(1, np.int64), ("a",), {})

    @pytest.mark.parametrize("units", [[0, 2], [-1, 0]])
    def test_a_unit_without_an_id(self, units):
        with pytest.raises(ValueError, match="without an id"):
            Dataset({}, np.zeros(2, np.int64), np.array(units), ("a", "b"), {})

    def test_a_unit_without_a_record(self):
        with pytest.raises(ValueError, match="no record"):
            Dataset({}, np.zeros(2, np.int64), np.array([0, 0]), ("a", "b"), {})

    def test_two_units_with_one_id(self):
        """They would be drawn together for ever, and one would show when the other takes part."""
        with pytest.raises(ValueError, match="same id"):
            Dataset({}, np.zeros(2, np.int64), np.array([0, 1]), ("a", "a"), {})

    def test_no_records_are_a_dataset(self):
        empty = dataset(())
        assert len(empty) == 0
        assert empty.number_of_units == 0


class TestTake:
    def test_units_are_counted_anew(self):
        taken = dataset().take(np.array([3, 2]))
        assert taken.inputs["table"][:, 0].tolist() == [3, 2]
        assert taken.units.tolist() == [1, 0]
        assert taken.unit_ids == ("u0", "u2")
        assert taken.labels.tolist() == [1, 0]
        assert taken.groups["sex"].tolist() == [2, 1]

    def test_nothing(self):
        assert len(dataset().take(np.array([], dtype=np.int64))) == 0

    def test_the_whole_is_unchanged(self):
        whole, taken = dataset(), dataset().take(np.arange(4))
        assert taken.unit_ids == whole.unit_ids
        assert taken.units.tolist() == whole.units.tolist()
        assert taken.units.dtype == np.int64


class TestConcat:
    def test_units_of_different_members_stay_apart(self):
        joined = Dataset.concat([dataset((0, 0)), dataset((0, 1), first=10)])
        assert joined.units.tolist() == [0, 0, 1, 2]
        assert joined.unit_ids == ("0:u0", "1:u0", "1:u1")
        assert joined.inputs["table"][:, 0].tolist() == [0, 1, 10, 11]

    def test_what_was_left_out_adds_up(self):
        joined = Dataset.concat([dataset(left_out={"a": 1, "b": 2}), dataset(left_out={"b": 3})])
        assert joined.left_out == {"a": 1, "b": 5}

    def test_texts_of_different_lengths_are_padded_where_the_mask_is_zero(self):
        joined = Dataset.concat([dataset((0,), tokens=3), dataset((0,), tokens=1)])
        assert joined.inputs["input_ids"].tolist() == [[1, 1, 1], [1, 0, 0]]
        assert joined.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
        assert joined.inputs["attention_mask"].dtype == np.int8

    def test_an_empty_member_changes_nothing(self):
        joined = Dataset.concat([dataset(()), dataset()])
        assert joined.units.tolist() == dataset().units.tolist()

    def test_different_inputs_do_not_join(self):
        with pytest.raises(ValueError, match="different inputs"):
            Dataset.concat([dataset(), dataset(tokens=2)])

    def test_tables_of_different_width_do_not_join(self):
        wide = Dataset({"table": np.zeros((1, 2), np.float32)}, np.zeros(1, np.int64), np.zeros(1, np.int64), ("a",),
                       {"sex": np.zeros(1, np.int16)})  # fmt: skip
        with pytest.raises(ValueError, match="different shapes"):
            Dataset.concat([dataset(), wide])

    def test_nothing_to_join(self):
        with pytest.raises(ValueError, match="nothing"):
            Dataset.concat([])
