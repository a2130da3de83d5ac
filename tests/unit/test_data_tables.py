"""CSV and Parquet files as they come: encodings, headers, types, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hansa.agreement.local import Column, Source
from hansa.errors import DataError, DataSourceError
from hansa_client.data import read_records
from support.schemas import schema_agreement, written

TERMS = schema_agreement().terms
ROWS = "age,stage,sex,outcome\n40,i,f,no\n60,ii,m,yes\n"


def texts(records, name):
    cells = records.columns[name]
    return [None if missing else value for value, missing in zip(cells.values, cells.missing, strict=True)]


class TestCsv:
    def test_columns_are_found_by_name_and_others_ignored(self, tmp_path):
        file = written(tmp_path, "a.csv", "extra,outcome,sex,stage,age\nx,no,f,i,40\n")
        records = read_records(file, TERMS, Source(), {})
        assert set(records.columns) == {"age", "stage", "sex", "outcome"}
        assert texts(records, "age") == ["40"]
        assert records.positions.tolist() == [0]

    def test_columns_are_found_by_place_without_a_header(self, tmp_path):
        file = written(tmp_path, "a.data", "40;i;f;no\n?;ii;m;yes\n")
        source = Source(header=False, delimiter=";", missing=("?",))
        records = read_records(
            file, TERMS, source, {"age": 0, "stage": 1, "sex": Column(column=2), "outcome": 3}
        )
        assert texts(records, "age") == ["40", None]
        assert texts(records, "outcome") == ["no", "yes"]

    def test_a_place_works_beside_a_header(self, tmp_path):
        file = written(tmp_path, "a.csv", "age,age,sex,outcome\n40,i,f,no\n")
        records = read_records(file, TERMS, Source(), {"age": 0, "stage": 1})
        assert texts(records, "stage") == ["i"]

    def test_a_name_that_two_columns_share_is_refused(self, tmp_path):
        file = written(tmp_path, "a.csv", "age,age,stage,sex,outcome\n40,41,i,f,no\n")
        with pytest.raises(DataSourceError, match="2 columns named 'age'"):
            read_records(file, TERMS, Source(), {})

    def test_codes_are_translated(self, tmp_path):
        file = written(tmp_path, "a.csv", ROWS.replace(",no", ",0").replace(",yes", ",1.0"))
        mapping = {"outcome": Column(column="outcome", values={"0": "no", "1": "yes"})}
        assert texts(read_records(file, TERMS, Source(), mapping), "outcome") == ["no", "yes"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    def test_encodings(self, tmp_path, encoding):
        file = tmp_path / "a.csv"
        file.write_bytes(ROWS.replace("ii", "é").encode(encoding))
        assert texts(read_records(file, TERMS, Source(encoding=encoding), {}), "stage") == ["i", "é"]

    def test_a_byte_order_mark_is_no_part_of_a_name(self, tmp_path):
        file = tmp_path / "a.csv"
        file.write_bytes(b"\xef\xbb\xbf" + ROWS.encode())
        assert texts(read_records(file, TERMS, Source(), {}), "age") == ["40", "60"]

    def test_another_encoding_names_the_line(self, tmp_path):
        file = tmp_path / "a.csv"
        file.write_bytes(ROWS.replace("ii", "é").encode("cp1252"))
        with pytest.raises(
            DataSourceError, match=r"is not utf-8 text: 1 lines fail, the first is line 3"
        ) as caught:
            read_records(file, TERMS, Source(), {})
        assert "simulation.source.encoding" in caught.value.what_to_do

    def test_an_encoding_that_does_not_exist(self, tmp_path):
        with pytest.raises(DataSourceError, match="'utf-9' is not an encoding"):
            read_records(written(tmp_path, "a.csv", ROWS), TERMS, Source(encoding="utf-9"), {})

    def test_quoted_cells_hold_delimiters_and_lines(self, tmp_path):
        file = written(tmp_path, "a.csv", 'age,stage,sex,outcome\n40,"i, or\nii",f,no\n')
        assert texts(read_records(file, TERMS, Source(), {}), "stage") == ["i, or\nii"]

    def test_a_line_with_more_fields_is_told_with_its_number(self, tmp_path):
        with pytest.raises(DataSourceError, match="Expected 4 fields in line 4, saw 5"):
            read_records(written(tmp_path, "a.csv", ROWS + "1,i,f,no,7\n"), TERMS, Source(), {})

    def test_a_line_cut_short_has_missing_values(self, tmp_path):
        records = read_records(written(tmp_path, "a.csv", ROWS + "50,i"), TERMS, Source(), {})
        assert texts(records, "age")[-1] == "50"
        assert texts(records, "outcome")[-1] is None

    def test_words_that_pandas_takes_for_missing_are_text(self, tmp_path):
        records = read_records(written(tmp_path, "a.csv", ROWS + "NA,None,null,\n"), TERMS, Source(), {})
        assert texts(records, "stage")[-1] == "None"
        assert texts(records, "age")[-1] == "NA"
        assert texts(records, "outcome")[-1] is None

    def test_decimal_commas_concern_numbers_alone(self, tmp_path):
        file = written(tmp_path, "a.csv", "age;stage;sex;outcome\n40,5;i,1;f;no\n1.040,5;ii;m;yes\n")
        records = read_records(file, TERMS, Source(delimiter=";", decimal=","), {})
        assert texts(records, "age")[0] == "40.5"
        assert texts(records, "stage")[0] == "i,1"
        with pytest.raises(ValueError, match="could not convert"):
            float(texts(records, "age")[1])  # a thousands separator stays visible instead of becoming 1.0405

    def test_every_missing_column_is_told_at_once(self, tmp_path):
        file = written(tmp_path, "a.csv", "age,Stage,outcome\n1,i,no\n")
        with pytest.raises(DataError) as caught:
            read_records(file, TERMS, Source(), {"age": "years"})
        told = [str(problem) for problem in caught.value.problems]
        assert len(told) == 3
        assert any("no column 'years', which holds 'age'" in line for line in told)
        assert any("no column 'stage'" in line and "it has age, Stage, outcome" in line for line in told)
        assert all(str(file) in line for line in told)

    def test_a_place_beyond_the_last_column(self, tmp_path):
        file = written(tmp_path, "a.csv", "40,i,f,no\n")
        mapping = {"age": 0, "stage": 1, "sex": 2, "outcome": 9}
        with pytest.raises(DataError) as caught:
            read_records(file, TERMS, Source(header=False), mapping)
        assert "no column 9" in str(caught.value.problems[0])

    @pytest.mark.parametrize("content", ["", "age,stage,sex,outcome\n"])
    def test_no_rows(self, tmp_path, content):
        with pytest.raises(DataError) as caught:
            read_records(written(tmp_path, "a.csv", content), TERMS, Source(), {})
        assert "no rows" in str(caught.value.problems[0])


class TestFolders:
    def test_files_are_read_in_the_order_of_their_names(self, tmp_path):
        written(tmp_path, "b.csv", ROWS.replace("40", "41"))
        written(tmp_path, "a.csv", ROWS)
        written(tmp_path, "notes.txt", "not data")
        records = read_records(tmp_path, TERMS, Source(), {})
        assert texts(records, "age") == ["40", "60", "41", "60"]
        assert records.positions.tolist() == [0, 1, 2, 3]

    def test_every_unreadable_file_is_named(self, tmp_path):
        written(tmp_path, "a.csv", ROWS)
        for name in ("b.csv", "c.csv"):
            (tmp_path / name).write_bytes(b"age,stage\n\xff\n")
        with pytest.raises(DataSourceError) as caught:
            read_records(tmp_path, TERMS, Source(), {})
        assert "b.csv" in caught.value.cause
        assert "c.csv" in caught.value.cause

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(DataSourceError, match="holds no csv file"):
            read_records(tmp_path, TERMS, Source(), {})

    def test_a_path_that_does_not_exist(self, tmp_path):
        with pytest.raises(DataSourceError, match="does not exist"):
            read_records(tmp_path / "none.csv", TERMS, Source(), {})


class TestParquet:
    def frame(self):
        return pd.DataFrame(
            {
                "age": [40.5, None, 60.0],
                "stage": pd.Categorical(["i", "ii", None]),
                "sex": [True, False, True],
                "outcome": [0, 1, 1],
                "patient": [2**60 + 1, 5, 6],
            }
        )

    def test_types_are_kept_or_spelled_as_codes(self, tmp_path):
        file = tmp_path / "a.parquet"
        self.frame().to_parquet(file)
        mapping = {
            "outcome": Column(column="outcome", values={"0": "no", "1": "yes"}),
            "sex": Column(column="sex", values={"0": "f", "1": "m"}),
        }
        terms = schema_agreement(patient="patient", cap=2).terms
        records = read_records(file, terms, Source(format="parquet"), mapping)
        assert records.columns["age"].values.dtype == np.float64
        assert records.columns["age"].missing.tolist() == [False, True, False]
        assert texts(records, "stage") == ["i", "ii", None]
        assert texts(records, "sex") == ["m", "f", "m"]
        assert texts(records, "outcome") == ["no", "yes", "yes"]
        assert texts(records, "patient")[0] == str(2**60 + 1)

    def test_columns_by_place(self, tmp_path):
        file = tmp_path / "a.parquet"
        self.frame().to_parquet(file)
        records = read_records(file, TERMS, Source(format="parquet"), {"stage": 1, "outcome": 3})
        assert texts(records, "outcome") == ["0", "1", "1"]

    @pytest.mark.parametrize("keep", [0.5, 0.98])
    def test_a_truncated_file(self, tmp_path, keep):
        file = tmp_path / "a.parquet"
        self.frame().to_parquet(file)
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(DataSourceError, match="is truncated or not a Parquet file"):
            read_records(file, TERMS, Source(format="parquet"), {})

    def test_a_missing_column_is_told_with_those_that_are_there(self, tmp_path):
        file = tmp_path / "a.parquet"
        self.frame().drop(columns="age").to_parquet(file)
        with pytest.raises(DataError) as caught:
            read_records(file, TERMS, Source(format="parquet"), {})
        assert "it has stage, sex, outcome, patient" in str(caught.value.problems[0])

    def test_a_nested_column_is_refused(self, tmp_path):
        file = tmp_path / "a.parquet"
        self.frame().assign(age=[[1.0], [2.0], [3.0]]).to_parquet(file)
        with pytest.raises(DataSourceError, match="a type that cannot be read"):
            read_records(file, TERMS, Source(format="parquet"), {})

    def test_equal_tables_give_equal_codes_in_both_formats(self, tmp_path):
        frame = pd.DataFrame({"age": [1.5, 2.0], "stage": ["i", "ii"], "sex": [0, 1], "outcome": [1.0, 0.0]})
        frame.to_parquet(tmp_path / "a.parquet")
        frame.to_csv(tmp_path / "a.csv", index=False)
        mapping = {"outcome": Column(column="outcome", values={"0": "no", "1": "yes"})}
        parquet = read_records(tmp_path / "a.parquet", TERMS, Source(format="parquet"), mapping)
        csv = read_records(tmp_path / "a.csv", TERMS, Source(), mapping)
        for name in ("stage", "sex", "outcome"):
            assert texts(parquet, name) == texts(csv, name)
