"""Reports on disk: what is written can be read, and what cannot be read says why."""

from __future__ import annotations

import json

import pytest

from hansa.errors import ReportError
from hansa.report import read_report, render_html, render_text, write_report
from hansa.report.files import report_json


def test_what_is_written_is_read_back(cases, tmp_path):
    assert len(cases) >= 6
    for name, report in cases.items():
        path = tmp_path / f"{name}.json"
        path.write_text(report_json(report), encoding="utf-8")
        assert read_report(path) == report


def test_a_folder_is_made_and_gets_both_files(cases, pages, tmp_path):
    folder = tmp_path / "runs" / "first"
    write_report(cases["single-point"], folder)
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.html"}
    assert read_report(folder) == read_report(folder / "report.json") == cases["single-point"]
    assert (folder / "report.html").read_text(encoding="utf-8") == pages["single-point"]


@pytest.mark.parametrize("name", ["partial", "references", "pool"])
def test_a_report_that_was_read_is_drawn_like_the_one_that_was_written(cases, pages, tmp_path, name):
    """JSON sorts its keys; nothing that is drawn may depend on the order of a mapping."""
    report = cases[name]
    (tmp_path / "report.json").write_text(report_json(report), encoding="utf-8")
    again = read_report(tmp_path)
    assert list(again.quality.by_member) == sorted(report.quality.by_member)
    assert render_html(again) == pages[name]
    assert render_text(again) == render_text(report)


def test_the_json_is_strict_sorted_indented_and_ends_in_a_newline(make_report):
    text = report_json(make_report(title="Überweisung – größer"))
    tree = json.loads(text, parse_constant=pytest.fail)
    assert text == json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert "Überweisung – größer" in text


def test_writing_again_replaces(make_report, tmp_path, monkeypatch):
    monkeypatch.setattr("hansa.report.files.render_html", lambda report: f"seed {report.seed}")
    write_report(make_report(seed=1), tmp_path)
    write_report(make_report(seed=2), tmp_path)
    assert read_report(tmp_path).seed == 2
    assert (tmp_path / "report.html").read_text() == "seed 2"


def test_the_numbers_are_on_disk_even_if_the_page_cannot_be_drawn(make_report, tmp_path, monkeypatch):
    def broken(report):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("hansa.report.files.render_html", broken)
    with pytest.raises(RuntimeError, match="no fonts"):
        write_report(make_report(), tmp_path)
    assert read_report(tmp_path).seed == 7


def test_a_folder_that_cannot_be_made_is_told(make_report, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReportError, match="cannot write") as raised:
        write_report(make_report(), tmp_path / "file" / "run")
    assert "report.json" in raised.value.diagnostics()
    assert "--out" in raised.value.diagnostics()


@pytest.mark.parametrize(
    ("text", "cause", "detail"),
    [
        ("{", "not strict JSON", "report.json"),
        ('{"schema_version": NaN}', "not strict JSON", "NaN"),
        ("[" * 100_000, "not strict JSON", "report.json"),
        ("[]", "does not know", "None"),
        ("{}", "does not know", "schema_version"),
        ('{"schema_version": 2}', "does not know", "is 2, not 1"),
        ('{"schema_version": 1}', "is not a report", "agreement_id"),
    ],
)
def test_what_is_not_a_report_says_so(tmp_path, text, cause, detail):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ReportError, match=cause) as raised:
        read_report(tmp_path)
    assert detail in raised.value.diagnostics()


def test_every_wrong_place_is_told(make_report, tmp_path):
    tree = json.loads(report_json(make_report()))
    tree["members"][2]["epsilon"] = "much"
    tree["seconds"] = -1
    del tree["terms_id"]
    (tmp_path / "report.json").write_text(json.dumps(tree))
    with pytest.raises(ReportError) as raised:
        read_report(tmp_path)
    assert {problem.place for problem in raised.value.problems} == {
        "members.2.epsilon",
        "seconds",
        "terms_id",
    }


def test_files_that_are_missing_or_not_text_say_so(tmp_path):
    with pytest.raises(ReportError, match="cannot read") as raised:
        read_report(tmp_path / "nowhere.json")
    assert "nowhere.json" in raised.value.diagnostics()
    (tmp_path / "report.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="not strict JSON"):
        read_report(tmp_path)
