"""Cells become numbers and codes by their own text and the agreement's vocabulary alone."""

from __future__ import annotations

import numpy as np
import pytest

from hansa_client.data.cells import Cells, codes, numbers, plain_code, spelled, translate


def cells(*values: object) -> Cells:
    return Cells.of(values)


class TestCells:
    def test_none_is_missing_and_text_is_stripped(self):
        read = cells(" a ", None, 3)
        assert read.values.tolist() == ["a", "", "3"]
        assert read.missing.tolist() == [False, True, False]

    def test_concat_of_typed_and_text_cells_spells_numbers_as_codes(self):
        typed = Cells(np.array([1.0, 2.5]), np.array([False, False]))
        joined = Cells.concat([cells("x"), typed])
        assert joined.values.tolist() == ["x", "1", "2.5"]

    def test_concat_of_one_type_keeps_it(self):
        typed = Cells(np.array([1, 2]), np.array([False, True]))
        joined = Cells.concat([typed, typed])
        assert joined.values.dtype == np.int64
        assert joined.missing.tolist() == [False, True, False, True]

    def test_lengths_must_agree(self):
        with pytest.raises(ValueError, match="one length"):
            Cells(np.array([1, 2]), np.array([False]))

    def test_other_dtypes_are_refused(self):
        with pytest.raises(ValueError, match="float32"):
            Cells(np.zeros(1, dtype=np.float32), np.array([False]))

    def test_map_text_leaves_missing_cells_alone(self):
        mapped = cells("a", None, "b").map_text(lambda text: None if text == "b" else text.upper())
        assert mapped.values[0] == "A"
        assert mapped.missing.tolist() == [False, True, True]

    def test_take_by_mask_and_by_index(self):
        read = cells("a", "b", "c")
        assert read.take(np.array([True, False, True])).values.tolist() == ["a", "c"]
        assert read.take(np.array([2, 0])).values.tolist() == ["c", "a"]

    def test_large_integers_keep_every_digit(self):
        ids = Cells(np.array([2**62 + 1]), np.array([False]))
        assert ids.as_text().values.tolist() == [str(2**62 + 1)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1", "1"), ("1.0", "1"), ("1.", "1"), ("1.000", "1"), ("+1", "1"), ("-1.0", "-1"), ("100", "100"),
        ("1.50", "1.50"), ("01", "01"), ("01.0", "01"), ("1e0", "1e0"), ("", ""), (".", "."), ("+-1", "+-1"),
        ("A1.0", "A1.0"), ("١", "١"),
    ],
)  # fmt: skip
def test_plain_code(text, code):
    assert plain_code(text) == code


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "1"), (False, "0"), (1.0, "1"), (-2.0, "-2"), (1.25, "1.25"), (7, "7"), (" x", "x")],
)
def test_spelled(value, text):
    assert spelled(value) == text


class TestTranslate:
    def test_codes_match_exactly_first_and_then_as_plain_numbers(self):
        read = translate(cells("1", "1.0", "2.0", "3"), {"1": "one", "1.0": "float", "2": "two"}, ())
        assert read.values.tolist() == ["one", "float", "two", "3"]

    def test_a_key_spelled_as_a_float_matches_the_plain_code(self):
        assert translate(cells("4"), {"4.0": "four"}, ()).values.tolist() == ["four"]

    def test_missing_markers(self):
        assert translate(cells("?", "", "a"), {}, ("?",)).missing.tolist() == [True, False, False]

    def test_a_declared_code_is_not_missing_even_if_it_is_a_marker(self):
        read = translate(cells("?", "-"), {"?": "unknown"}, ("?", "-"))
        assert read.values[0] == "unknown"
        assert read.missing.tolist() == [False, True]

    def test_typed_cells_stay_typed_without_a_translation(self):
        typed = Cells(np.array([1.5]), np.array([False]))
        assert translate(typed, {}, ("",)) is typed

    @pytest.mark.parametrize("dtype", [np.int64, np.float64])
    def test_a_marker_that_is_a_number_is_missing_in_typed_cells_too(self, dtype):
        typed = Cells(np.array([-9, 5, -9], dtype=dtype), np.array([False, False, True]))
        read = translate(typed, {}, ("", "?", "-9"))
        assert read.missing.tolist() == [True, False, True]
        assert read.values.dtype == dtype

    def test_a_typed_nan_is_missing_where_that_is_declared(self):
        typed = Cells(np.array([np.nan, 1.0]), np.array([False, False]))
        assert translate(typed, {}, ("nan",)).missing.tolist() == [True, False]

    def test_typed_cells_are_translated_by_their_plain_code(self):
        typed = Cells(np.array([1.0, 2.0]), np.array([False, False]))
        assert translate(typed, {"1": "yes"}, ("",)).values.tolist() == ["yes", "2"]


class TestNumbers:
    def test_text_is_told_apart(self):
        read = numbers(
            cells("1", " 2.5 ", "-3e2", "abc", "nan", "NaN", "inf", "-Infinity", None, "1,5", "0x10", "1_0")
        )
        assert read.values[:3].tolist() == [1.0, 2.5, -300.0]
        assert np.isnan(read.values[3:]).all()
        assert np.flatnonzero(read.not_numbers).tolist() == [3, 9, 10, 11]
        assert np.flatnonzero(read.not_finite).tolist() == [4, 5, 6, 7]

    def test_a_number_too_large_for_a_float_is_not_finite(self):
        read = numbers(cells("1e999", "9" * 40))
        assert read.not_finite.tolist() == [True, False]
        assert read.values[1] == pytest.approx(1e40)

    def test_a_typed_nan_is_bad_and_a_typed_null_is_missing(self):
        read = numbers(Cells(np.array([np.nan, np.nan, 1.0, np.inf]), np.array([False, True, False, False])))
        assert read.not_finite.tolist() == [True, False, False, True]
        assert not read.not_numbers.any()
        assert np.isnan(read.values[[0, 1, 3]]).all()

    def test_no_cells(self):
        assert len(numbers(cells()).values) == 0


class TestCodes:
    def test_declared_undeclared_and_missing(self):
        read = codes(cells("b", "a", "x", None, "1.0"), ("a", "b", "1"))
        assert read.values.tolist() == [1, 0, -1, -1, 2]
        assert read.undeclared.tolist() == [False, False, True, False, False]

    def test_a_vocabulary_spelled_as_floats(self):
        assert codes(cells("1", "2.0"), ("1.0", "2.0")).values.tolist() == [0, 1]

    def test_exact_spelling_wins_over_the_plain_one(self):
        assert codes(cells("1", "1.0"), ("1.0", "1")).values.tolist() == [1, 0]

    def test_typed_cells(self):
        typed = Cells(np.array([1.0, 3.0]), np.array([False, False]))
        assert codes(typed, ("1", "2")).values.tolist() == [0, -1]

    def test_no_cells(self):
        assert codes(cells(), ("a",)).values.tolist() == []
