"""A report on disk: `report.json` for programs, `report.html` for people."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from hansa.errors import Problem, ReportError
from hansa.report.page import render_html
from hansa.report.schema import REPORT_SCHEMA_VERSION, Report

JSON_NAME = "report.json"
HTML_NAME = "report.html"


def report_json(report: Report) -> str:
    """The text of `report.json`: strict JSON, keys sorted, indented by two, ending in a newline."""
    tree = report.model_dump(mode="json")
    return json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write `report.json` and `report.html` into a folder, which is made where it is missing.

    Each file appears whole or not at all; the numbers are on disk before the page is drawn.

    Raises:
        ReportError: the folder or a file cannot be written.
    """
    _write(folder / JSON_NAME, report_json(report))
    _write(folder / HTML_NAME, render_html(report))


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise ReportError(
            "cannot write the report",
            [Problem(str(path), reason)],
            remedy="Choose another --out, or make room.",
        ) from None


def read_report(path: Path) -> Report:
    """Read a `report.json`.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        ReportError: it cannot be read or is not a report of this release's schema; says every place.
    """
    file = path / JSON_NAME if path.is_dir() else path
    try:
        tree = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise ReportError(
            "cannot read the report", [Problem(str(file), error.strerror or "cannot be read")]
        ) from None
    except (ValueError, RecursionError) as error:
        raise ReportError("the report is not strict JSON", [Problem(str(file), str(error))]) from None
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if version != REPORT_SCHEMA_VERSION:
        raise ReportError(
            "the report is of a form that this release does not know",
            [Problem(f"{file}: schema_version", f"is {version!r}, not {REPORT_SCHEMA_VERSION}")],
            remedy="Read it with the release of hansa that wrote it; versions.hansa in the file names it.",
        )
    try:
        return Report.model_validate(tree)
    except ValidationError as error:
        problems = [
            Problem(".".join(str(part) for part in item["loc"]), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise ReportError(f"{file} is not a report", problems) from None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
