"""An audit report as a file: HTML for people and for paper, JSON for programs; the ending of its name decides."""

from __future__ import annotations

import json

from hansa.audit.report.page import render_html
from hansa.audit.report.schema import AuditReport

FORMS = (".html", ".json")


def report_text(report: AuditReport, ending: str) -> str:
    """The text of the file.

    Args:
        report: what to write.
        ending: one of `FORMS`.
    """
    return render_html(report) if ending == ".html" else report_json(report)


def report_json(report: AuditReport) -> str:
    """Strict JSON, indented by two, ending in a newline."""
    tree = report.model_dump(mode="json")
    return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
