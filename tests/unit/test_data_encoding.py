"""Records become model inputs by public ranges and vocabularies."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from hansa.agreement.terms import BandGroup, CategoryFeature, CategoryGroup, NumberFeature
from hansa_client.data import Records, encode, unit_names, usable_records
from hansa_client.data.cells import Cells
from hansa_client.data.encoding import group_codes, has_value
from support.schemas import TABLE, TEXT, schema_agreement

TERMS = schema_agreement().terms


def records(**columns: list[object]) -> Records:
    n = len(next(iter(columns.values())))
    plain = {"age": [50] * n, "stage": ["i"] * n, "sex": ["f"] * n, "outcome": ["no"] * n}
    return Records({k: Cells.of(v) for k, v in {**plain, **columns}.items()}, np.arange(n))


def table(feature: str, terms=TERMS, **columns: list[object]) -> list[list[float]]:
    """The encoded inputs of one feature of the table schema."""
    encoded = encode(records(**columns), terms, None).inputs["table"]
    return encoded[:, :1].tolist() if feature == "age" else encoded[:, 1:].tolist()


def with_features(change: str) -> object:
    return schema_agreement(
        TABLE.replace('values = ["i", "ii", "iii"]', f'values = ["i", "ii", "iii"]\n{change}')
    ).terms


class TestNumbers:
    def test_the_public_range_becomes_minus_one_to_one(self):
        assert table("age", age=[0, 25, 50, 100]) == [[-1.0], [-0.5], [0.0], [1.0]]

    def test_values_beyond_the_range_are_clipped(self):
        assert table("age", age=[-7, 1e300, 101]) == [[-1.0], [1.0], [1.0]]

    @pytest.mark.parametrize("bad", [None, "nan", "inf", "-inf", "old", "1e999"])
    def test_what_is_no_finite_number_leaves_the_row_out(self, bad):
        encoded = encode(records(age=[50, bad]), TERMS, None)
        assert len(encoded) == 1
        assert encoded.left_out == {"age is missing or not valid": 1}

    @pytest.mark.parametrize("bad", [None, "nan", "inf", "old"])
    def test_or_is_replaced_by_the_declared_number(self, bad):
        terms = schema_agreement(TABLE.replace("range = [0, 100]", "range = [0, 100]\nmissing = 25")).terms
        assert table("age", terms, age=[bad]) == [[-0.5]]

    def test_the_widest_range_gives_finite_values(self):
        terms = schema_agreement(TABLE.replace("[0, 100]", "[-1.7e308, 1.7e308]")).terms
        assert table("age", terms, age=[-1.7e308, 0, 1.7e308]) == [[-1.0], [0.0], [1.0]]


class TestCategories:
    def test_one_input_per_value(self):
        assert table("stage", stage=["i", "ii", "iii"]) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

    def test_the_baseline_has_none(self):
        terms = with_features('baseline = "ii"')
        assert table("stage", terms, stage=["i", "ii", "iii"]) == [[1, 0], [0, 0], [0, 1]]

    @pytest.mark.parametrize("unknown", [None, "iv"])
    def test_missing_has_an_input_of_its_own(self, unknown):
        terms = with_features('missing = "own"')
        assert table("stage", terms, stage=["iii", unknown]) == [[0, 0, 1, 0], [0, 0, 0, 1]]

    @pytest.mark.parametrize("unknown", [None, "iv"])
    def test_missing_beside_a_baseline(self, unknown):
        terms = with_features('missing = "own"\nbaseline = "i"')
        assert table("stage", terms, stage=["i", unknown]) == [[0, 0, 0], [0, 0, 1]]

    @pytest.mark.parametrize("unknown", [None, "iv"])
    def test_a_value_stands_in_for_what_is_missing(self, unknown):
        assert table("stage", with_features('missing = "ii"'), stage=[unknown]) == [[0, 1, 0]]

    @pytest.mark.parametrize("unknown", [None, "iv"])
    def test_the_baseline_stands_in_for_what_is_missing(self, unknown):
        assert table("stage", with_features('missing = "ii"\nbaseline = "ii"'), stage=[unknown]) == [[0, 0]]

    @pytest.mark.parametrize("unknown", [None, "iv"])
    def test_or_the_row_is_left_out(self, unknown):
        encoded = encode(records(stage=[unknown, "i"]), TERMS, None)
        assert len(encoded) == 1
        assert encoded.left_out == {"stage is missing or not valid": 1}


class TestLabels:
    def test_labels_are_places_in_the_task(self):
        assert encode(records(outcome=["yes", "no"]), TERMS, None).labels.tolist() == [1, 0]

    def test_rows_without_a_declared_label_are_left_out_and_counted(self, caplog):
        with caplog.at_level(logging.INFO, logger="hansa_client.data"):
            encoded = encode(records(outcome=["yes", None, "maybe", "perhaps"]), TERMS, None)
        assert encoded.labels.tolist() == [1]
        assert encoded.left_out == {"outcome is missing": 1, "outcome is not declared": 2}
        assert "2 of 4 records left out: outcome is not declared" in caplog.text

    def test_a_row_with_two_reasons_counts_for_both(self):
        usable = usable_records(records(outcome=[None], age=[None]), TERMS)
        assert usable.left_out == {"outcome is missing": 1, "age is missing or not valid": 1}
        assert usable.rows.tolist() == [False]

    def test_all_rows_left_out(self):
        encoded = encode(records(outcome=[None, "?"]), TERMS, None)
        assert len(encoded) == 0
        assert encoded.number_of_units == 0
        assert encoded.inputs["table"].shape == (0, 4)


class TestUnits:
    def test_the_record_is_its_row_in_the_source(self):
        encoded = encode(records(outcome=["yes", None, "no"]), TERMS, None)
        assert encoded.unit_ids == ("0", "2")
        assert encoded.units.tolist() == [0, 1]

    def test_patients_share_a_unit_under_any_spelling_of_their_number(self):
        terms = schema_agreement(patient="pid", cap=5).terms
        encoded = encode(records(pid=["7", "8", "7.0", None]), terms, None)
        assert encoded.unit_ids == ("7", "8")
        assert encoded.units.tolist() == [0, 1, 0]
        assert encoded.left_out == {"pid is missing": 1}

    def test_the_cap_keeps_the_first_usable_records_of_each_unit(self):
        terms = schema_agreement(patient="pid", cap=2).terms
        read = records(pid=["a", "b", "a", "a", "b", "a"], age=[None, 10, 20, 30, 40, 50])
        encoded = encode(read, terms, None)
        assert encoded.inputs["table"][:, 0].tolist() == pytest.approx([-0.8, -0.6, -0.4, -0.2])
        assert encoded.left_out["over the cap of records per unit"] == 1
        assert [encoded.unit_ids[unit] for unit in encoded.units] == ["b", "a", "a", "b"]

    def test_a_unit_column_does_not_matter_where_the_unit_is_the_record(self):
        agreement = schema_agreement(TABLE.replace('label = "outcome"', 'label = "outcome"\nunit = "pid"'))
        read = records(pid=["a", "a", None])
        assert unit_names(read, agreement.terms) == ["0", "1", "2"]
        assert len(encode(read, agreement.terms, None)) == 3


class TestGroups:
    def test_categories(self):
        encoded = encode(records(sex=["m", "f", None, "x"]), TERMS, None)
        assert encoded.groups["sex"].tolist() == [1, 0, -1, -1]
        assert encoded.groups["sex"].dtype == np.int16

    def test_bands_begin_at_their_edge(self):
        group = BandGroup(kind="bands", name="age", edges=(45.0, 60.0))
        read = Cells.of(["44.9", "45", "59.99", "60", "200", None, "nan", "x"])
        assert group_codes(read, group).tolist() == [0, 1, 1, 2, 2, -1, -1, -1]
        assert group.values == ("<45", "45-60", ">=60")

    def test_a_group_code_spelled_as_a_float(self):
        group = CategoryGroup(kind="category", name="sex", values=("0", "1"))
        assert group_codes(Cells.of(["1.0", "0"]), group).tolist() == [1, 0]


class TestTexts:
    terms = schema_agreement(TEXT).terms

    def tokenize(self, texts):
        self.seen = list(texts)
        return {
            "input_ids": np.array([[len(text), 1] for text in texts], dtype=np.int64).reshape(-1, 2),
            "attention_mask": np.ones((len(texts), 2), dtype=np.int64),
        }

    def read(self, *texts):
        columns = {"note": Cells.of(texts), "outcome": Cells.of(["no"] * len(texts))}
        return Records(columns, np.arange(len(texts)))

    def test_texts_are_tokenized_in_order(self):
        encoded = encode(self.read("ab", "c"), self.terms, self.tokenize)
        assert encoded.inputs["input_ids"].tolist() == [[2, 1], [1, 1]]
        assert encoded.inputs["input_ids"].dtype == np.int32
        assert encoded.inputs["attention_mask"].dtype == np.int8

    @pytest.mark.parametrize("empty", [None, "", "   "])
    def test_an_empty_text_is_left_out(self, empty):
        encoded = encode(self.read("a", empty), self.terms, self.tokenize)
        assert self.seen == ["a"]
        assert encoded.left_out == {"note is missing or not valid": 1}

    def test_or_kept_where_that_is_declared(self):
        terms = schema_agreement(TEXT.replace('name = "note"', 'name = "note"\nmissing = "empty"')).terms
        assert len(encode(self.read("a", None), terms, self.tokenize)) == 2
        assert self.seen == ["a", ""]

    def test_without_a_tokenizer(self):
        with pytest.raises(ValueError, match="'note' needs a tokenizer"):
            encode(self.read("a"), self.terms, None)

    @pytest.mark.parametrize(
        "array", [np.zeros((1, 2), int), np.zeros((2, 2)), np.zeros(2, int)], ids=["rows", "dtype", "shape"]
    )
    def test_a_tokenizer_whose_answer_does_not_fit(self, array):
        with pytest.raises(ValueError, match="the tokenizer gave 'input_ids'"):
            encode(self.read("a", "b"), self.terms, lambda _: {"input_ids": array})


def test_has_value_judges_each_kind_by_its_own_rule():
    cells = Cells.of(["1", "x", None])
    number = NumberFeature(kind="number", name="a", range=(0.0, 1.0))
    category = CategoryFeature(kind="category", name="a", values=("x", "y"))
    assert has_value(cells, number).tolist() == [True, False, False]
    assert has_value(cells, category).tolist() == [False, True, False]
