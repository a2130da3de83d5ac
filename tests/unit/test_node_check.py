"""`hansa node check` tells everything that is wrong with a member's data, with file, column and rows."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from hansa.agreement.local import Source
from hansa.cli.app import ROOT, run
from hansa.errors import DataError, DataSourceError
from hansa_client.data import inspect
from hansa_client.data.inspection import MAX_CLIPPED_SHARE
from support.schemas import FILES, TABLE, TEXT, schema_agreement, written

HEADER = "age,stage,sex,outcome\n"
GOOD = HEADER + "40,i,f,no\n50,ii,m,yes\n" * 5
TERMS = schema_agreement().terms


def look(path, terms=TERMS, source=None, columns=None, **more):
    return inspect(path, terms, source or Source(), columns or {}, **more)


def told(inspection, severity="error"):
    return [(f.column, f.rows) for f in inspection.findings if f.severity == severity]


class TestFindings:
    def test_good_data_have_none(self, tmp_path):
        found = look(written(tmp_path, "a.csv", GOOD))
        assert found.findings == ()
        assert (found.rows, found.usable_rows, found.units, found.labels) == (10, 10, 10, {"no": 5, "yes": 5})
        found.raise_for_errors("a.csv")

    @pytest.mark.parametrize(
        ("lines", "column", "rows", "words"),
        [
            ("40,i,f,\n" * 2, "outcome", 2, "2 of 12 rows have no label"),
            ("40,i,f,maybe\n41,i,f,?\n", "outcome", 2, "a code that is not declared: '?', 'maybe'"),
            ("old,i,f,no\n", "age", 1, "are not numbers: 'old'"),
            ("nan,i,f,no\ninf,i,f,no\n", "age", 2, "hold NaN or an infinity"),
            ("-5,i,f,no\n400,i,f,no\n", "age", 2, "are outside the public range 0 to 100"),
            ("40,iv,f,no\n", "stage", 1, "not declared: 'iv'"),
            ("40,i,d,no\n", "sex", 1, "not declared: 'd'"),
        ],
    )
    def test_each_kind_of_bad_value_is_an_error_with_its_place(self, tmp_path, lines, column, rows, words):
        file = written(tmp_path, "a.csv", GOOD + lines)
        (error,) = look(file).errors
        assert (error.file, error.column, error.rows) == (str(file), column, rows)
        assert words in error.what
        assert str(error.as_problem()).startswith(f"{file}, {column}: ")

    def test_all_of_them_are_told_at_once(self, tmp_path):
        lines = "old,iv,d,maybe\nnan,i,f,\n999,i,f,no\n"
        assert told(look(written(tmp_path, "a.csv", GOOD + lines))) == [
            ("outcome", 1), ("outcome", 1), ("age", 1), ("age", 1), ("age", 1), ("stage", 1), ("sex", 1),
        ]  # fmt: skip

    def test_a_few_outliers_are_a_warning(self, tmp_path):
        rows = int(1 / MAX_CLIPPED_SHARE)
        file = written(tmp_path, "a.csv", HEADER + "40,i,f,no\n50,ii,m,yes\n" * (rows // 2) + "999,i,f,no\n")
        found = look(file)
        assert not found.errors
        assert told(found, "warning") == [("age", 1)]
        assert "would be clipped" in found.warnings[0].what

    def test_missing_values_under_drop_are_a_warning_and_leave_rows_out(self, tmp_path):
        found = look(written(tmp_path, "a.csv", GOOD + ",i,f,no\n40,,f,no\n40,i,,no\n"))
        assert not found.errors
        assert told(found, "warning") == [("age", 1), ("stage", 1), ("sex", 1)]
        assert found.usable_rows == 11

    def test_missing_values_under_another_rule_are_no_finding(self, tmp_path):
        terms = schema_agreement(TABLE.replace("[0, 100]", "[0, 100]\nmissing = 50")).terms
        found = look(written(tmp_path, "a.csv", GOOD + ",i,f,no\n"), terms)
        assert found.findings == ()
        assert found.usable_rows == 11

    def test_one_class_is_a_warning(self, tmp_path):
        found = look(written(tmp_path, "a.csv", HEADER + "40,i,f,no\n" * 5))
        assert not found.errors
        assert [f.what for f in found.warnings] == ["there is one class only, 'no'"]

    @pytest.mark.parametrize("content", ["", HEADER])
    def test_no_rows(self, tmp_path, content):
        (error,) = look(written(tmp_path, "a.csv", content)).errors
        assert "there are no rows" in error.what

    def test_no_row_that_a_run_could_use(self, tmp_path):
        found = look(written(tmp_path, "a.csv", HEADER + "40,i,f,maybe\n"))
        assert "no row that a run could use" in found.errors[-1].what
        assert found.usable_rows == 0

    def test_missing_columns(self, tmp_path):
        found = look(written(tmp_path, "a.csv", GOOD), columns={"age": "years", "sex": 7})
        assert len(found.errors) == 2
        assert "no column 'years', which holds 'age'" in found.errors[0].what
        assert "no column 7" in found.errors[1].what
        assert "age, stage, sex, outcome" in found.errors[0].remedy

    def test_another_encoding(self, tmp_path):
        file = tmp_path / "a.csv"
        file.write_bytes(GOOD.replace("ii", "é").encode("cp1252"))
        (error,) = look(file).errors
        assert "is not utf-8 text: 5 lines fail, the first is line 3" in error.what
        assert str(error.as_problem()).count(str(file)) == 1

    def test_a_truncated_parquet_file(self, tmp_path):
        file = tmp_path / "a.parquet"
        pd.DataFrame({"age": [1.0]}).to_parquet(file)
        file.write_bytes(file.read_bytes()[:-20])
        (error,) = look(file, source=Source(format="parquet")).errors
        assert "truncated" in error.what

    def test_a_nan_in_a_parquet_file_is_an_error_and_a_null_is_not(self, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        ages = pa.array([float("nan"), None, 40.0, 50.0])
        table = {"age": ages, "stage": ["i"] * 4, "sex": ["f"] * 4, "outcome": ["no", "no", "no", "yes"]}
        pq.write_table(pa.table(table), tmp_path / "a.parquet")
        found = look(tmp_path / "a.parquet", source=Source(format="parquet"))
        assert told(found) == [("age", 1)]
        assert told(found, "warning") == [("age", 1)]

    def test_every_file_of_a_folder_is_looked_at_whatever_is_wrong_with_the_others(self, tmp_path):
        written(tmp_path, "a.csv", GOOD + "old,i,f,no\n")
        (tmp_path / "b.csv").write_bytes(b"age\n\xff\n")
        written(tmp_path, "c.csv", GOOD.replace("stage", "phase"))
        written(tmp_path, "d.csv", GOOD)
        found = look(tmp_path)
        assert [f.file.rpartition("/")[2] for f in found.errors] == ["a.csv", "b.csv", "c.csv"]
        assert (len(found.files), found.rows, found.usable_rows) == (4, 21, 20)

    def test_a_path_that_does_not_exist(self, tmp_path):
        with pytest.raises(DataSourceError, match="does not exist"):
            look(tmp_path / "none")

    def test_errors_and_warnings_are_in_one_exception(self, tmp_path):
        found = look(written(tmp_path, "a.csv", GOOD + "old,i,,no\n"))
        with pytest.raises(DataError, match=r"a\.csv has 1 error") as caught:
            found.raise_for_errors("a.csv")
        problems = [str(problem) for problem in caught.value.problems]
        assert "are not numbers" in problems[0]
        assert any("warning: 1 of 11 rows belong to no group of sex" in problem for problem in problems[1:])

    def test_a_feature_that_is_a_group_too_is_told_once(self, tmp_path):
        terms = schema_agreement(
            TABLE.replace('name = "sex"\nvalues = ["f", "m"]', 'name = "stage"\nvalues = ["i", "ii", "iii"]')
        ).terms
        assert told(look(written(tmp_path, "a.csv", GOOD + "40,iv,f,no\n"), terms)) == [("stage", 1)]

    def test_bands_that_are_no_numbers(self, tmp_path):
        terms = schema_agreement(
            TABLE.replace(
                'kind = "category"\nname = "sex"\nvalues = ["f", "m"]',
                'kind = "bands"\nname = "sex"\nedges = [1]',
            )
        ).terms
        assert told(look(written(tmp_path, "a.csv", GOOD), terms)) == [("sex", 10)]


class TestUnits:
    terms = schema_agreement(patient="pid", cap=2).terms

    def test_more_records_than_the_cap(self, tmp_path):
        lines = "".join(
            f"40,i,f,{label},{pid}\n" for pid, label in zip("aaaabbbc", ["no", "yes"] * 4, strict=True)
        )
        found = look(written(tmp_path, "a.csv", "age,stage,sex,outcome,pid\n" + lines), self.terms)
        assert told(found, "warning") == [("pid", 3)]
        assert "2 units have more than 2 records; 3 rows" in found.warnings[0].what
        assert found.units == 3

    def test_a_row_without_a_patient_is_an_error(self, tmp_path):
        found = look(
            written(tmp_path, "a.csv", "age,stage,sex,outcome,pid\n40,i,f,no,a\n40,i,f,yes,\n"), self.terms
        )
        assert told(found) == [("pid", 1)]

    @pytest.mark.parametrize(
        ("declared", "warned"), [(4, True), (5, False), (10, False), (20, False), (21, True)]
    )
    def test_a_declared_number_that_is_far_off(self, tmp_path, declared, warned):
        found = look(written(tmp_path, "a.csv", GOOD), declared_units=declared)
        assert bool(found.warnings) is warned

    def test_text_features(self, tmp_path):
        terms = schema_agreement(TEXT).terms
        found = look(written(tmp_path, "a.csv", "note,outcome\nx,no\n,yes\n  ,no\ny,yes\n"), terms)
        assert told(found, "warning") == [("note", 2)]


COLUMN = """
[simulation.partition]
kind = "column"
file = "all.csv"
column = "bank"
values = { a = ["1"], b = ["2"], c = ["3"] }
"""


class TestCommand:
    @pytest.fixture
    def agreement(self, tmp_path):
        from hansa.agreement.writing import agreement_toml

        def write(simulation=FILES, schema=TABLE):
            return written(tmp_path / "terms", "a.toml", agreement_toml(schema_agreement(schema, simulation)))

        return write

    def check(self, capsys, *arguments):
        """Exit status, stdout and stderr of the real command line."""
        status = 0
        try:
            status = run(["node", "check", *map(str, arguments)])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    def test_good_data(self, tmp_path, agreement, capsys):
        file = written(tmp_path, "x.csv", GOOD)
        status, out, _ = self.check(capsys, file, "--agreement", agreement())
        assert status == 0
        assert "fits the agreement" in out
        assert "10 rows in 1 file, 10 usable, 10 privacy units" in out
        assert "no 5, yes 5" in out

    def test_a_node_reads_as_its_own_settings_say(self, tmp_path, agreement, capsys):
        name, home = TERMS.members[0].name, tmp_path / "home"
        officer = tmp_path / "officer"
        assert run(["node", "officer", name, "--out", str(officer)]) == 0
        made = ["node", "init", name, "--home", str(home), "--officer", str(officer / f"{name}.officer.pub")]
        assert run(made) == 0
        capsys.readouterr()
        asked = ("--home", home, "--agreement", agreement())
        status, _, error = self.check(capsys, *asked)
        assert status == 2
        assert "names no data" in error
        file = written(tmp_path, "x.csv", GOOD.replace("age,stage", "years;stage").replace(",", ";"))
        settings = home / "node.toml"
        text = settings.read_text().replace('# data = "/srv/hansa/data"', f'data = "{file}"')
        settings.write_text(
            text.replace('format = "csv"', 'format = "csv"\ndelimiter = ";"') + 'age = "years"\n'
        )
        status, out, error = self.check(capsys, *asked)
        assert (status, error) == (0, ""), error
        assert "10 rows in 1 file, 10 usable" in out
        assert self.check(capsys, *asked, "--member", name)[0] == 2
        assert "no data are named" in self.check(capsys, "--agreement", agreement())[2]

    def test_warnings_are_shown_and_the_status_is_done(self, tmp_path, agreement, capsys):
        status, out, _ = self.check(
            capsys, written(tmp_path, "x.csv", HEADER + "40,i,f,no\n"), "--agreement", agreement()
        )
        assert status == 0
        assert "warning: " in out
        assert "one class only" in out

    def test_bad_data(self, tmp_path, agreement, capsys):
        file = written(tmp_path, "x.csv", GOOD + "old,iv,f,maybe\n")
        status, out, err = self.check(capsys, file, "--agreement", agreement())
        assert status == 2
        assert not out
        assert "HANSA-201" in err
        for words in (
            "has 3 errors",
            f"{file}, age: 1 of 11 rows are not numbers",
            "stage: 1 of 11",
            "outcome: 1 of 11",
        ):
            assert words in err

    def test_bad_data_as_json(self, tmp_path, agreement, capsys):
        file = written(tmp_path, "x.csv", GOOD + "old,i,f,no\n")
        status, out, _ = self.check(capsys, file, "--agreement", agreement(), "--format", "json")
        answer = json.loads(out)
        assert status == 2
        assert answer["status"] == "bad_input"
        assert answer["error"]["code"] == "HANSA-201"
        assert answer["error"]["problems"][0]["place"] == f"{file}, age"

    def test_good_data_as_json(self, tmp_path, agreement, capsys):
        file = written(tmp_path, "x.csv", GOOD + "40,,f,no\n")
        status, out, _ = self.check(capsys, file, "--agreement", agreement(), "--format=json")
        data = json.loads(out)["data"]
        assert status == 0
        assert (data["rows"], data["usable_rows"], data["labels"]) == (11, 10, {"no": 5, "yes": 5})
        assert (data["warnings"][0]["column"], data["warnings"][0]["rows"]) == ("stage", 1)

    def test_a_member_finds_its_file_in_the_data_folder(self, tmp_path, agreement, capsys):
        written(tmp_path / "data", "a.csv", GOOD)
        written(tmp_path / "data", "b.csv", GOOD.replace("40", "old"))
        path = agreement()
        assert self.check(capsys, tmp_path / "data", "--agreement", path, "--member", "a")[0] == 0
        assert self.check(capsys, tmp_path / "data", "--agreement", path, "--member", "b")[0] == 2
        assert self.check(capsys, tmp_path / "data", "--agreement", path)[0] == 2

    def test_a_member_of_a_shared_file_is_judged_by_its_own_rows(self, tmp_path, agreement, capsys):
        rows = "40,i,f,no,1\n50,i,m,yes,1\nold,i,f,no,2\n"
        written(tmp_path / "data", "all.csv", "age,stage,sex,outcome,bank\n" + rows)
        path = agreement(COLUMN)
        status, out, _ = self.check(capsys, tmp_path / "data", "--agreement", path, "--member", "a")
        assert status == 0
        assert "2 rows" in out
        assert self.check(capsys, tmp_path / "data", "--agreement", path, "--member", "b")[0] == 2
        status, _, err = self.check(capsys, tmp_path / "data", "--agreement", path, "--member", "c")
        assert status == 2
        assert "no rows" in err

    def test_an_unknown_member(self, tmp_path, agreement, capsys):
        status, _, err = self.check(capsys, tmp_path, "--agreement", agreement(), "--member", "d")
        assert status == 2
        assert "'d' is no member" in err
        assert "a, b, c" in err

    def test_without_a_simulation_columns_have_their_own_names(self, tmp_path, agreement, capsys):
        file = written(tmp_path, "x.csv", GOOD)
        assert self.check(capsys, file, "--agreement", agreement(simulation=""), "--member", "c")[0] == 0

    def test_generated_data_have_no_file(self, tmp_path, agreement, capsys):
        simulation = (
            '[simulation.source]\nformat = "generated"\ngenerator = "admission-notes"\n'
            '[simulation.partition]\nkind = "generated"\n'
        )
        status, _, err = self.check(capsys, tmp_path, "--agreement", agreement(simulation, TEXT))
        assert status == 2
        assert "no file to check" in err

    def test_data_that_do_not_exist(self, tmp_path, agreement, capsys):
        status, _, err = self.check(capsys, tmp_path / "none.csv", "--agreement", agreement())
        assert status == 2
        assert "HANSA-202" in err

    def test_a_broken_agreement(self, tmp_path, capsys):
        status, _, err = self.check(capsys, tmp_path, "--agreement", written(tmp_path, "a.toml", "x = 1"))
        assert status == 2
        assert "HANSA-101" in err

    def test_help_names_both_options(self):
        answer = CliRunner().invoke(ROOT, ["node", "check", "--help"])
        assert answer.exit_code == 0
        assert "--agreement" in answer.output
        assert "--member" in answer.output
