"""A package's rows become what a member's records become."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.agreement.local import Source
from hansa.artifact.encoding import encode_table, read_rows
from hansa.artifact.errors import PredictionInputError
from hansa_client.data import encode
from hansa_client.data.reader import read_records
from support.packages import CSV, TERMS

AGES = st.one_of(
    st.floats(-1e6, 1e6, allow_nan=False).map(str),
    st.integers(-5, 200).map(str),
    st.sampled_from(["1e2", "+7", " 8 "]),
)
SEXES = st.sampled_from(["f", "m", "", "x"])
WARDS = st.sampled_from(["1", "2", "3", "1.0", "+2", "3."])


@given(st.lists(st.tuples(AGES, SEXES, WARDS), min_size=1, max_size=8))
def test_rows_are_encoded_as_a_member_encodes_them(tmp_path_factory, rows):
    path: Path = tmp_path_factory.mktemp("rows") / "rows.csv"
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows(
        [("age", "sex", "ward", "gender", "y"), *((*row, "f", "no") for row in rows)]
    )
    path.write_text(sink.getvalue(), encoding="utf-8")
    theirs = encode(read_records(path, TERMS, Source(format="csv"), {}), TERMS, None)
    ours = encode_table(read_rows(path, TERMS), TERMS)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, theirs.inputs["table"])


def test_the_example_is_encoded_within_its_ranges(tmp_path):
    (tmp_path / "rows.csv").write_text(CSV)
    table = encode_table(read_rows(tmp_path / "rows.csv", TERMS), TERMS)
    assert table.tolist() == [
        [np.float32(-0.4), 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 1, 0],
        [-1, 0, 0, 1, 0, 1],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age,sex\n1,f\n", "ward: is no column"),
        ("age,sex,ward,age\n1,f,1,2\n", "column twice"),
        ("age,sex,ward\nold,f,1\n", "row 1: age is no number"),
        ("age,sex,ward\n1,f,9\n", "row 1: ward is no declared value"),
        ("age,sex,ward\n1,f,1\n2,m,\n", "row 2: ward"),
    ],
)
def test_rows_that_training_would_not_have_read_are_told_by_their_place(tmp_path, text, words):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(PredictionInputError) as caught:
        encode_table(read_rows(path, TERMS), TERMS)
    assert words in caught.value.diagnostics()
    assert "old" not in caught.value.diagnostics()


def test_a_missing_file_and_bytes_that_are_no_text_are_told(tmp_path):
    with pytest.raises(PredictionInputError, match="cannot read"):
        read_rows(tmp_path / "absent.csv", TERMS)
    (tmp_path / "rows.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PredictionInputError, match="cannot read"):
        read_rows(tmp_path / "rows.csv", TERMS)
