"""The documents about `report.json` say what the code does."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import BaseModel

from hansa.report import documentation
from hansa.report.files import report_json
from hansa.report.part import Part
from hansa.report.schema import Report

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (documentation.JSON_SCHEMA_NAME, documentation.json_schema),
        (documentation.MARKDOWN_NAME, documentation.markdown),
    ],
)
def test_the_documents_are_those_of_the_model(name, made):
    told = (DOCS / name).read_text(encoding="utf-8")
    assert told == made(), "run: python -m hansa.report.documentation docs"


def test_main_writes_both(tmp_path):
    documentation.main([str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"report-schema.md", "report.schema.json"}
    assert (tmp_path / "report-schema.md").read_text(encoding="utf-8") == documentation.markdown()


def test_every_field_of_every_part_is_described():
    kinds = Part.__subclasses__()
    assert Report in kinds
    assert len(kinds) >= 10
    for kind in kinds:
        assert documentation.summary(kind)
        assert all(documentation.attributes(kind).values())


def test_a_field_without_a_text_and_a_text_without_a_field_are_found():
    class Wrong(BaseModel):
        """Something.

        Attributes:
            told: and not there.
        """

        there: int

    with pytest.raises(ValueError, match=r"Wrong: \['there', 'told'\]"):
        documentation.attributes(Wrong)


def test_a_text_over_several_lines_is_read_whole():
    texts = documentation.attributes(Report.model_fields["references"].annotation.__args__[0])
    assert texts["kind"].startswith("where the training ran")
    assert texts["kind"].endswith("``no mitigation``, at the same ε.")


def test_every_case_satisfies_the_json_schema(cases):
    schema = json.loads(documentation.json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert cases
    for report in cases.values():
        validator.validate(json.loads(report_json(report)))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda tree: tree.pop("agreement_id"),
        lambda tree: tree.update(surprise=1),
        lambda tree: tree.update(schema_version=2),
        lambda tree: tree["members"][0].update(epsilon="8"),
        lambda tree: tree["quality"]["intervals"].update(pooled=[0.1]),
        lambda tree: tree["quality"].update(metric="f1"),
    ],
)
def test_the_json_schema_refuses_what_is_not_a_report(make_report, break_it):
    tree = json.loads(report_json(make_report()))
    break_it(tree)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, json.loads(documentation.json_schema()))


def test_the_keys_that_others_rely_on_are_there(make_report):
    tree = json.loads(report_json(make_report()))
    assert {"agreement_id", "members", "quality", "events", "seconds", "peak_rss_bytes"} <= tree.keys()
    assert {"name", "epsilon", "delta", "budget_epsilon"} <= tree["members"][0].keys()
    assert {"metric", "pooled", "mean_over_members", "by_member", "by_group"} <= tree["quality"].keys()
